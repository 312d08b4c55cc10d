//! Bundles as text for a terminal.

use std::io::{self, Write};

use nowconnect_policy::time_text;

use crate::bundle::state::HistoryEntry;
use crate::bundle::view::{
    ActivateReport, BundleProblem, BundleStatus, DeliverReport, ShadowStatus,
};
use crate::cli::status::rechecking;
use crate::cli::status::table::{Align, Table, clean_line};

pub(super) fn delivered(report: &DeliverReport, out: &mut dyn Write) -> io::Result<()> {
    let already = if report.unchanged { " already" } else { "" };
    writeln!(
        out,
        "revision {} is{already} {}",
        report.revision,
        report.stage.as_str()
    )?;
    match &report.activation {
        Some(activation) => activated(activation, out)?,
        None => problems("waits for", &report.waits_for, out)?,
    }
    Ok(())
}

pub(super) fn foreseen(report: &ActivateReport, out: &mut dyn Write) -> io::Result<()> {
    if let Some(forecast) = &report.forecast {
        let verb = if forecast.ends {
            "would end"
        } else {
            "would be forbidden, and go on"
        };
        writeln!(
            out,
            "revision {}: of {} flows {} {verb}; of {} agents {} would be refused; {} connectors \
             would be lost",
            report.revision,
            forecast.flows,
            forecast.flows_forbidden,
            forecast.agents,
            forecast.agents_refused,
            forecast.connectors_lost
        )?;
    }
    problems("not met", &report.unmet, out)
}

pub(super) fn activated(report: &ActivateReport, out: &mut dyn Write) -> io::Result<()> {
    let generation = report.generation.unwrap_or_default();
    writeln!(
        out,
        "revision {} is in force as generation {generation}, after {:.1} ms; ended: {} flows, {} \
         sessions, {} connectors",
        report.revision,
        milliseconds(report.visible_after_us),
        report.flows_closed,
        report.sessions_closed,
        report.connectors_lost
    )?;
    match report.recheck.filter(|recheck| recheck.running) {
        Some(recheck) => writeln!(out, "{}", rechecking(&recheck)),
        None => Ok(()),
    }
}

pub(super) fn history(status: &BundleStatus, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&[
        ("REVISION", Align::Right),
        ("STATE", Align::Left),
        ("SINCE", Align::Left),
        ("BY", Align::Left),
        ("SIGNED BY", Align::Left),
        ("KEPT", Align::Left),
        ("PAYLOAD", Align::Left),
        ("WHY", Align::Left),
    ]);
    for entry in &status.history {
        let kept = status.kept.contains(&entry.revision)
            && entry.stage != crate::bundle::state::Stage::Rejected;
        table.row(vec![
            entry.revision.to_string(),
            entry.stage.as_str().to_owned(),
            when(entry.since_ms),
            entry.origin.as_str().to_owned(),
            entry.signers.join(","),
            if kept { "yes" } else { "" }.to_owned(),
            entry.payload_digest.chars().take(12).collect(),
            entry.code.clone().unwrap_or_default(),
        ]);
    }
    out.write_all(table.render().as_bytes())
}

pub(super) fn status(status: &BundleStatus, out: &mut dyn Write) -> io::Result<()> {
    if !status.enabled {
        return writeln!(
            out,
            "this hub takes no bundles (`policy.bundle.trusted_keys` is empty)"
        );
    }
    one("active", status.active.as_ref(), out)?;
    one("staged", status.staged.as_ref(), out)?;
    let highest = status.highest_revision.unwrap_or_default();
    writeln!(out, "highest  revision {highest}")?;
    problems("waits for", &status.waits_for, out)?;
    problems("problem", &status.problems, out)
}

pub(super) fn shadow(shadow: &ShadowStatus, out: &mut dyn Write) -> io::Result<()> {
    let Some(revision) = shadow.revision else {
        return writeln!(out, "no bundle is staged");
    };
    writeln!(
        out,
        "revision {revision}, {} decisions compared in {} s, {} dropped",
        shadow.compared, shadow.running_seconds, shadow.dropped
    )?;
    let mut table = Table::new(&[
        ("ACTION", Align::Left),
        ("SAME", Align::Right),
        ("NEWLY ALLOWED", Align::Right),
        ("NEWLY DENIED", Align::Right),
        ("ERRORS", Align::Right),
        ("STALE", Align::Right),
    ]);
    for action in &shadow.actions {
        table.row(vec![
            action.action.as_str().to_owned(),
            action.counts.same.to_string(),
            action.counts.newly_allowed.to_string(),
            action.counts.newly_denied.to_string(),
            action.counts.errors.to_string(),
            action.counts.stale.to_string(),
        ]);
    }
    out.write_all(table.render().as_bytes())?;
    for sample in &shadow.samples {
        let line = format!(
            "{} × {}: {} {} {} (decision {}); now by {}, then by {}",
            sample.count,
            sample.outcome.as_str(),
            sample.principal,
            sample.action.as_str(),
            sample.resource,
            sample.decision,
            by(&sample.live.policies),
            by(&sample.staged.policies),
        );
        writeln!(out, "{}", clean_line(&line))?;
    }
    if shadow.unsampled > 0 {
        writeln!(out, "… and {} more", shadow.unsampled)?;
    }
    Ok(())
}

fn by(policies: &[String]) -> String {
    if policies.is_empty() {
        "no policy".to_owned()
    } else {
        policies.join(", ")
    }
}

fn one(what: &str, entry: Option<&HistoryEntry>, out: &mut dyn Write) -> io::Result<()> {
    let Some(entry) = entry else {
        return writeln!(out, "{what:<8} none");
    };
    let until = entry
        .not_after_ms
        .map(|end| format!(", good until {}", when(end)))
        .unwrap_or_default();
    let line = format!(
        "{what:<8} revision {} since {}, by {}, signed by {}{until}",
        entry.revision,
        when(entry.since_ms),
        entry.origin.as_str(),
        entry.signers.join(", ")
    );
    writeln!(out, "{}", clean_line(&line))
}

fn problems(what: &str, found: &[BundleProblem], out: &mut dyn Write) -> io::Result<()> {
    for problem in found {
        let line = format!("{what}: {} ({})", problem.message, problem.code);
        writeln!(out, "{}", clean_line(&line))?;
    }
    Ok(())
}

fn when(ms: u64) -> String {
    let seconds = std::time::Duration::from_secs(ms / 1000);
    time_text(std::time::UNIX_EPOCH + seconds)
}

fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}
