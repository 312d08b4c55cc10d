//! Generations that say in every decision which they are.
//!
//! Generation *n* has a policy `stamp-n` that permits every flow and an enricher `stamp-n` that
//! gives every flow a signal, both put in force by one change of the configuration. The record
//! of a decision names the policies that determined it, the signals and the number of the
//! generation: where these do not all mean the same *n*, a decision was made under a mixture.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::admin;
use crate::failure::{Context, Failure};
use crate::peers::Site;
use crate::peers::nowconnect::{
    CONNECTOR, DecisionLog, HubShape, Plugins, RunningHub, write_policies,
};
use crate::product::start_hub;

/// A hub whose generations are stamped.
pub(super) struct StampedHub {
    pub(super) hub: RunningHub,
    root: PathBuf,
    /// Policies beside the shipped ones, in each generation.
    more_policies: usize,
}

impl StampedHub {
    /// Starts it; the generation in force carries no stamp yet.
    pub(super) fn start(
        site: &Site,
        name: &str,
        more_policies: usize,
        decision_log: DecisionLog,
    ) -> Result<Self, Failure> {
        let shape = HubShape {
            more_policies,
            plugins: Plugins::Stamp(0),
            decision_log,
            ..HubShape::shipped()
        };
        Ok(Self {
            hub: start_hub(site, name, &shape)?,
            root: site.root.clone(),
            more_policies,
        })
    }

    /// Lays a generation's policies down where the hub does not look yet.
    pub(super) fn prepare(&self, number: u64) -> Result<(), Failure> {
        let folder = self.folder(number);
        write_policies(&self.root, &folder, self.more_policies)?;
        let policy = format!(
            "@id(\"stamp-{number}\")\npermit (principal, action == NowConnect::Action::\"open\", \
             resource == NowConnect::Connector::\"{CONNECTOR}\");\n"
        );
        let file = folder.join("stamp.cedar");
        fs::write(&file, policy).context(|| format!("write {}", file.display()))
    }

    /// Puts a generation in force: policies of `number`, the plugin of `plugin`. Returns when the
    /// hub says that it is.
    pub(super) fn activate(&self, number: u64, plugin: u64) -> Result<u64, Failure> {
        let folder = self.folder(number);
        self.hub
            .config
            .put(&self.root, &folder, Plugins::Stamp(plugin))?;
        admin::reload(&self.hub.admin_socket)
    }

    /// Takes a generation's policies away.
    pub(super) fn forget(&self, number: u64) {
        // What stays behind goes with the whole folder at the end.
        let _ = fs::remove_dir_all(self.folder(number));
    }

    fn folder(&self, number: u64) -> PathBuf {
        let name = format!("policies-{number}");
        self.hub.policy_dir.with_file_name(name)
    }
}

/// What the decision log says about the flows of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// Flows that were decided under a stamped generation.
    pub(super) stamped: u64,
    /// Decisions whose policy, plugin and generation do not agree.
    pub(super) mixed: u64,
    /// Decisions that the log lost.
    pub(super) dropped: u64,
    /// Of each stamp, the earliest decision, in seconds of its day.
    pub(super) first: BTreeMap<u64, f64>,
    /// Which stamp a generation has.
    of_generation: BTreeMap<u64, u64>,
}

impl Tally {
    pub(super) fn read(log: &str) -> Result<Self, Failure> {
        let mut tally = Self::default();
        for line in log.lines() {
            let line: Value = serde_json::from_str(line)
                .context(|| format!("read a line of the decision log, `{line}`"))?;
            match line["record"].as_str() {
                Some("gap") => tally.dropped += line["dropped"].as_u64().unwrap_or(1),
                // A re-check asks policies of today about signals of then, and is marked.
                Some("decision") if line["action"] == "open" && line["recheck"] != true => {
                    tally.add(&line);
                }
                _ => {}
            }
        }
        Ok(tally)
    }

    fn add(&mut self, line: &Value) {
        let ids = line["policies"].as_array().into_iter().flatten();
        let ids = ids.filter_map(|policy| policy["id"].as_str());
        let policies: Vec<u64> = ids.filter_map(stamp).collect();
        let signals = line["signals"].as_array().into_iter().flatten();
        let signals = signals.filter_map(Value::as_str);
        let plugins: Vec<u64> = signals.filter_map(stamp).collect();
        let generation = line["generation"].as_u64();
        let (Some(generation), &[policy], &[plugin]) =
            (generation, policies.as_slice(), plugins.as_slice())
        else {
            // Before the first stamped generation there is a plugin and no policy with a stamp,
            // and nobody is asked about a flow that no agent could take.
            let unstamped = policies.is_empty() && (plugins.is_empty() || plugins == [0]);
            self.mixed += u64::from(!unstamped);
            return;
        };
        self.stamped += 1;
        let known = *self.of_generation.entry(generation).or_insert(policy);
        self.mixed += u64::from(policy != plugin || policy != known);
        if let Some(time) = line["time"].as_str().and_then(second_of_day) {
            let first = self.first.entry(policy).or_insert(time);
            *first = first.min(time);
        }
    }
}

/// The number of `stamp-7` or `stamp-7/loopback`.
fn stamp(name: &str) -> Option<u64> {
    let number = name.strip_prefix("stamp-")?;
    number.split('/').next()?.parse().ok()
}

/// Of a time as RFC 3339 has it, in UTC.
fn second_of_day(time: &str) -> Option<f64> {
    let clock = time.split_once('T')?.1.strip_suffix('Z')?;
    let mut parts = clock.split(':');
    let mut next = || parts.next()?.parse::<f64>().ok();
    Some(next()? * 3600.0 + next()? * 60.0 + next()?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn a_decision_is_mixed_where_its_stamps_differ() {
        let log = [
            line(3, "open-own-tenant", 0),
            line(4, "stamp-1", 1),
            line(4, "stamp-1", 1),
            line(5, "stamp-2", 2),
        ];
        let tally = Tally::read(&log.join("\n")).unwrap();
        assert_eq!((tally.stamped, tally.mixed), (3, 0));
        assert_eq!(tally.first[&1], 36_061.25);

        let plugin_of_another = [line(4, "stamp-1", 1), line(5, "stamp-2", 1)];
        assert_eq!(Tally::read(&plugin_of_another.join("\n")).unwrap().mixed, 1);
        let number_of_another = [line(4, "stamp-1", 1), line(4, "stamp-2", 2)];
        assert_eq!(Tally::read(&number_of_another.join("\n")).unwrap().mixed, 1);
        let no_agent = "{\"record\":\"decision\",\"action\":\"open\",\"generation\":1}";
        assert_eq!(Tally::read(no_agent).unwrap().mixed, 0);
        let without_a_policy = line(6, "open-own-tenant", 2);
        assert_eq!(Tally::read(&without_a_policy).unwrap().mixed, 1);
    }

    #[test]
    fn what_the_log_lost_is_counted_and_other_actions_are_not() {
        let log = "{\"record\":\"gap\",\"dropped\":7}\n\
                   {\"record\":\"decision\",\"action\":\"hello\",\"generation\":1}";
        let tally = Tally::read(log).unwrap();
        assert_eq!((tally.stamped, tally.mixed, tally.dropped), (0, 0, 7));
        assert!(Tally::read("no json").is_err());
    }

    fn line(generation: u64, policy: &str, plugin: u64) -> String {
        serde_json::json!({
            "record": "decision", "time": "2026-11-21T10:01:01.250Z", "action": "open",
            "generation": generation, "policies": [{"id": policy}],
            "signals": [format!("stamp-{plugin}/loopback")],
        })
        .to_string()
    }
}
