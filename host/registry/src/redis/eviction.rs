//! How Redis is set up, as its `INFO` says.

use redis::{Value, from_redis_value};

use super::OpenError;

/// The oldest release with all commands of the scripts and look-ups.
const OLDEST: (u32, u32) = (6, 2);

/// Nodes of a cluster whose `INFO` is read.
const MAX_NODES: usize = 1_024;

/// What is known of Redis' eviction of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// Redis has not answered yet.
    #[default]
    Unknown,
    /// It evicts nothing.
    Off,
    /// It may not be asked, so that nobody knows: a warning.
    Unreadable {
        /// What it said.
        reason: String,
    },
}

/// Reads the answers to `INFO`, of each master where there are several.
pub(super) fn judge(info: &Value) -> Result<Eviction, OpenError> {
    let mut nodes = Vec::new();
    texts(info, &mut nodes);
    let mut unread = nodes.is_empty();
    for node in &nodes {
        let field = |name: &str| {
            node.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        if let Some(version) = field("redis_version")
            && parsed(version).is_some_and(|version| version < OLDEST)
        {
            return Err(OpenError::TooOld {
                found: version.to_owned(),
            });
        }
        match field("maxmemory_policy") {
            Some("noeviction") => {}
            Some(policy) => {
                return Err(OpenError::Evicts {
                    policy: policy.to_owned(),
                });
            }
            None => unread = true,
        }
    }
    if unread {
        let reason = "its INFO names no `maxmemory_policy`".to_owned();
        return Ok(Eviction::Unreadable { reason });
    }
    Ok(Eviction::Off)
}

fn parsed(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// One text, or one for each node.
fn texts(value: &Value, found: &mut Vec<String>) {
    if found.len() >= MAX_NODES {
        return;
    }
    if let Value::Map(nodes) = value {
        for (_, node) in nodes {
            texts(node, found);
        }
    } else if let Value::Array(nodes) = value {
        for node in nodes {
            texts(node, found);
        }
    } else if let Ok(text) = from_redis_value::<String>(value.clone()) {
        // Names of nodes stand between their answers in the older form of a map.
        if text.contains('\n') {
            found.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn info(version: &str, policy: &str) -> Value {
        let text = format!(
            "# Server\r\nredis_version:{version}\r\n# Memory\r\nmaxmemory_policy:{policy}\r\n"
        );
        Value::BulkString(text.into_bytes())
    }

    #[test]
    fn a_store_that_evicts_is_refused_with_its_policy() {
        assert_eq!(judge(&info("7.0.15", "noeviction")), Ok(Eviction::Off));
        for policy in ["allkeys-lru", "volatile-ttl"] {
            let error = judge(&info("7.0.15", policy)).unwrap_err();
            assert!(error.to_string().contains(policy), "{error}");
        }
    }

    #[test]
    fn one_node_that_evicts_is_enough() {
        let name = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let nodes = Value::Map(vec![
            (name("a:1"), info("7.0.15", "noeviction")),
            (name("b:1"), info("7.0.15", "allkeys-lfu")),
        ]);
        assert!(matches!(judge(&nodes), Err(OpenError::Evicts { .. })));
    }

    #[test]
    fn an_answer_without_the_policy_is_a_warning() {
        let text = b"# Server\r\nredis_version:7.0.15\r\n".to_vec();
        for odd in [Value::BulkString(text), Value::Nil, Value::Array(vec![])] {
            assert!(matches!(judge(&odd), Ok(Eviction::Unreadable { .. })));
        }
    }

    #[test]
    fn an_old_release_is_refused() {
        assert_eq!(
            judge(&info("6.0.16", "noeviction")),
            Err(OpenError::TooOld {
                found: "6.0.16".to_owned()
            })
        );
        assert_eq!(judge(&info("6.2.0", "noeviction")), Ok(Eviction::Off));
    }
}
