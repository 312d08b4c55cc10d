//! What the decision log costs while flows are opened as fast as they can be.

use std::time::Duration;

use super::admin;
use crate::failure::Failure;
use crate::figures::Figures;
use crate::load::open::run_saturating;
use crate::peers::Site;
use crate::peers::nowconnect::{DecisionLog, HubShape};
use crate::product::start_hub;
use crate::report::median;

/// Flows that are being opened at any time.
const AT_A_TIME: usize = 16;

/// One turn at one hub.
const TURN: Duration = Duration::from_secs(2);

const KINDS: [(&str, DecisionLog); 3] = [
    ("off", DecisionLog::Off),
    ("file", DecisionLog::File),
    ("stdout", DecisionLog::Stdout),
];

pub(super) fn measure(site: &Site, turns: usize) -> Result<Figures, Failure> {
    let mut hubs = Vec::new();
    for (name, decision_log) in KINDS {
        let shape = HubShape {
            decision_log,
            ..HubShape::shipped()
        };
        hubs.push(start_hub(site, &format!("decision-log-{name}"), &shape)?);
    }
    let mut per_second = vec![Vec::new(); KINDS.len()];
    let mut cpu_us = vec![Vec::new(); KINDS.len()];
    let mut errors = vec![0; KINDS.len()];
    for turn in 0..turns {
        for step in 0..hubs.len() {
            // Each turn begins with another: none is always the one after the loudest.
            let number = (turn + step) % hubs.len();
            let peer = &hubs[number].peer;
            let seen = run_saturating(peer.listener, AT_A_TIME, TURN, &peer.meter)?;
            per_second[number].push(seen.per_second);
            cpu_us[number].push(seen.cpu_us_each);
            errors[number] += seen.errors;
        }
    }
    let mut figures = Figures::new();
    let mut bare_cpu = f64::NAN;
    for (number, (name, kind)) in KINDS.into_iter().enumerate() {
        let cpu = median(std::mem::take(&mut cpu_us[number])).unwrap_or(f64::NAN);
        let rate = median(std::mem::take(&mut per_second[number])).unwrap_or(f64::NAN);
        let mut put = |figure: &str, value: f64| {
            figures.insert(format!("decision_log.{name}_{figure}"), value);
        };
        put("flows_per_s", rate);
        put("errors", errors[number] as f64);
        put("cpu_us_flow", cpu);
        if kind == DecisionLog::Off {
            bare_cpu = cpu;
            continue;
        }
        let metrics = hubs[number].metrics_port;
        // A flow is one decision, and so one record.
        put("cpu_us_record", cpu - bare_cpu);
        let (lines, dropped) = ("lines_total", "dropped_total");
        let family = |end: &str| format!("nowconnect_decision_log_{end}");
        put("lines", admin::metric(metrics, &family(lines))?);
        put("dropped", admin::metric(metrics, &family(dropped))?);
    }
    Ok(figures)
}
