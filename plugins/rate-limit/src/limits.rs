//! The limits, over any counter that can add one.

use serde::Deserialize;

/// Longest key that the table takes, in bytes.
const KEY_BYTES_MAX: usize = 256;
/// Limits in one configuration; each is one operation on the table.
const LIMITS_MAX: usize = 8;
/// Longest window in seconds: a day.
const WINDOW_SECONDS_MAX: u32 = 86_400;

/// The plugin's settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Every one of them must allow a flow.
    pub limits: Vec<Limit>,
}

/// So many flows in a window of time for each distinct value of what is counted by.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What is counted by; several together make one key; none counts all flows.
    #[serde(default)]
    pub per: Vec<Subject>,
    /// Flows allowed in a window.
    pub flows: u32,
    /// Length of a window.
    pub window_seconds: u32,
}

/// What flows are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Address of the client.
    ClientIp,
    /// Subject of the viewer; all anonymous viewers are one.
    Viewer,
    /// The agent that would carry the flow.
    Agent,
    /// The connector asked for.
    Connector,
    /// The listener where the client came in.
    Listener,
}

/// The facts about one flow that limits can count by.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Address of the client.
    pub client_ip: &'a str,
    /// Subject of the viewer.
    pub viewer: Option<&'a str>,
    /// Id of the agent.
    pub agent: &'a str,
    /// Name of the connector.
    pub connector: &'a str,
    /// Name of the listener.
    pub listener: &'a str,
}

/// The limit that a flow is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Over {
    /// Flows allowed.
    pub flows: u32,
    /// In so many seconds.
    pub window_seconds: u32,
    /// For whom.
    pub key: String,
}

impl Limits {
    /// Reads and checks settings.
    pub fn parse(json: &str) -> Result<Self, String> {
        let limits: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if limits.limits.is_empty() || limits.limits.len() > LIMITS_MAX {
            return Err(format!("`limits` must have 1 to {LIMITS_MAX} entries"));
        }
        for limit in &limits.limits {
            if limit.window_seconds == 0 || limit.window_seconds > WINDOW_SECONDS_MAX {
                return Err(format!(
                    "`window_seconds` is {}, allowed is 1 to {WINDOW_SECONDS_MAX}",
                    limit.window_seconds
                ));
            }
        }
        Ok(limits)
    }

    /// Counts a flow and finds the first limit that it is over. `add_one` adds one to the
    /// counter of that name, which lives so many seconds, and returns the sum.
    pub fn count<E>(
        &self,
        flow: &Flow<'_>,
        mut add_one: impl FnMut(&str, u32) -> Result<i64, E>,
    ) -> Result<Option<Over>, E> {
        for (index, limit) in self.limits.iter().enumerate() {
            let key = limit.key(index, flow);
            let sum = add_one(&key, limit.window_seconds)?;
            if sum > i64::from(limit.flows) {
                return Ok(Some(Over {
                    flows: limit.flows,
                    window_seconds: limit.window_seconds,
                    key,
                }));
            }
        }
        Ok(None)
    }
}

impl Limit {
    /// Lengths stand before values, so that no two different flows make one key; what does not
    /// fit is replaced by its hash.
    fn key(&self, index: usize, flow: &Flow<'_>) -> String {
        let mut key = index.to_string();
        for subject in &self.per {
            let value = match subject {
                Subject::ClientIp => flow.client_ip,
                Subject::Viewer => flow.viewer.unwrap_or_default(),
                Subject::Agent => flow.agent,
                Subject::Connector => flow.connector,
                Subject::Listener => flow.listener,
            };
            key.push_str(&format!("/{}:{value}", value.len()));
        }
        if key.len() > KEY_BYTES_MAX {
            key = format!("{index}/#{:016x}", fnv1a(key.as_bytes()));
        }
        key
    }
}

/// FNV-1a. Keys this long are rare; two of them in one counter only limit each other.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::{Flow, Limits, Over};

    const FLOW: Flow<'_> = Flow {
        client_ip: "192.0.2.1",
        viewer: None,
        agent: "site-1",
        connector: "db",
        listener: "public",
    };

    #[test]
    fn flows_over_the_limit_are_found() {
        let limits = two_per_client();
        let mut table = Table::default();
        assert_eq!(table.count(&limits, &FLOW), None);
        assert_eq!(table.count(&limits, &FLOW), None);
        let over = table.count(&limits, &FLOW).unwrap();
        assert_eq!((over.flows, over.window_seconds), (2, 60));
    }

    #[test]
    fn each_client_has_its_own_count() {
        let limits = two_per_client();
        let mut table = Table::default();
        for _ in 0..3 {
            table.count(&limits, &FLOW);
        }
        let other = Flow {
            client_ip: "192.0.2.2",
            ..FLOW
        };
        assert_eq!(table.count(&limits, &other), None);
    }

    #[test]
    fn every_limit_counts() {
        let limits = Limits::parse(
            r#"{"limits": [{"flows": 100, "window_seconds": 1},
                           {"per": ["connector"], "flows": 1, "window_seconds": 60}]}"#,
        )
        .unwrap();
        let mut table = Table::default();
        assert_eq!(table.count(&limits, &FLOW), None);
        assert!(table.count(&limits, &FLOW).unwrap().key.contains("db"));
    }

    #[test]
    fn different_flows_never_share_a_key() {
        let limits = Limits::parse(
            r#"{"limits": [{"per": ["connector", "listener"], "flows": 1, "window_seconds": 1}]}"#,
        )
        .unwrap();
        let mut table = Table::default();
        for (connector, listener) in [("a/1:b", "c"), ("a", "b/1:c"), ("", "a/1:b/1:c")] {
            let flow = Flow {
                connector,
                listener,
                ..FLOW
            };
            assert_eq!(table.count(&limits, &flow), None, "{connector} {listener}");
        }
    }

    #[test]
    fn long_names_still_make_a_key() {
        let name = "x".repeat(500);
        let flow = Flow {
            client_ip: &name,
            ..FLOW
        };
        let mut table = Table::default();
        table.count(&two_per_client(), &flow);
        assert!(table.0.keys().all(|key| key.len() <= super::KEY_BYTES_MAX));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for bad in [
            r#"{"limits": []}"#,
            r#"{"limits": [{"flows": 1, "window_seconds": 0}]}"#,
            r#"{"limits": [{"flows": 1, "window_seconds": 90000}]}"#,
            r#"{"limits": [{"flows": -1, "window_seconds": 1}]}"#,
            r#"{"limits": [{"per": ["moon"], "flows": 1, "window_seconds": 1}]}"#,
            "{}",
        ] {
            assert!(Limits::parse(bad).is_err(), "{bad}");
        }
    }

    fn two_per_client() -> Limits {
        Limits::parse(r#"{"limits": [{"per": ["client_ip"], "flows": 2, "window_seconds": 60}]}"#)
            .unwrap()
    }

    #[derive(Default)]
    struct Table(HashMap<String, i64>);

    impl Table {
        fn count(&mut self, limits: &Limits, flow: &Flow<'_>) -> Option<Over> {
            limits
                .count(flow, |key, _| {
                    let sum = self.0.entry(key.to_owned()).or_default();
                    *sum += 1;
                    Ok::<_, Infallible>(*sum)
                })
                .unwrap()
        }
    }
}
