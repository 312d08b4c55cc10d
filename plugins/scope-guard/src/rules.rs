//! The rules, as plain functions over names.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Longest pattern in bytes; matching takes at most its length times that of the name.
const PATTERN_BYTES_MAX: usize = 256;

/// The plugin's settings; a list that is left out does not restrict.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// An agent's id must look like one of these.
    pub agent_names: Vec<String>,
    /// A connector's name must look like one of these; `{agent}` stands for the agent's id.
    pub connector_names: Vec<String>,
    /// Take the scopes of a token as patterns; an agent without scopes is not restricted.
    pub scope_patterns: bool,
    /// What happens to an agent that announces a connector with a bad name.
    pub on_bad_connector: OnBadConnector,
    /// By pattern of listener names: patterns of connectors that it may lead to.
    pub listeners: BTreeMap<String, Vec<String>>,
}

/// What happens to an agent that announces a connector with a bad name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadConnector {
    /// The agent joins without it.
    #[default]
    LeaveOut,
    /// The agent does not join.
    Deny,
}

/// Why the rules say no: a stable code, and what to tell.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For machines.
    pub code: &'static str,
    /// For people on either side.
    pub text: String,
}

impl Rules {
    /// Reads and checks settings.
    pub fn parse(json: &str) -> Result<Self, String> {
        let rules: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let listener_patterns = rules.listeners.values().flatten();
        let patterns = rules
            .agent_names
            .iter()
            .chain(&rules.connector_names)
            .chain(rules.listeners.keys())
            .chain(listener_patterns);
        for pattern in patterns {
            if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
                return Err(format!(
                    "pattern `{pattern}` must have 1 to {PATTERN_BYTES_MAX} bytes"
                ));
            }
        }
        Ok(rules)
    }

    /// The connectors that an agent may offer, of those it announced.
    pub fn hello(
        &self,
        agent: &str,
        scopes: &[String],
        announced: &[String],
    ) -> Result<Vec<String>, Refusal> {
        if !any_matches(&self.agent_names, agent) {
            return Err(Refusal {
                code: "agent_name",
                text: format!("agent id `{agent}` does not follow the naming rules"),
            });
        }
        let (good, bad): (Vec<&String>, Vec<&String>) = announced
            .iter()
            .partition(|connector| self.may_offer(agent, scopes, connector));
        if let (OnBadConnector::Deny, Some(connector)) = (self.on_bad_connector, bad.first()) {
            return Err(Refusal {
                code: "connector_name",
                text: format!("agent `{agent}` may not offer connector `{connector}`"),
            });
        }
        Ok(good.into_iter().cloned().collect())
    }

    /// Whether a listener leads to a connector.
    pub fn open(&self, listener: &str, connector: &str) -> Result<(), Refusal> {
        let restricting: Vec<&Vec<String>> = self
            .listeners
            .iter()
            .filter(|(pattern, _)| matches(pattern, listener))
            .map(|(_, connectors)| connectors)
            .collect();
        let allowed = restricting
            .iter()
            .all(|connectors| connectors.iter().any(|pattern| matches(pattern, connector)));
        if allowed {
            return Ok(());
        }
        Err(Refusal {
            code: "listener_connector",
            text: format!("listener `{listener}` does not lead to connector `{connector}`"),
        })
    }

    fn may_offer(&self, agent: &str, scopes: &[String], connector: &str) -> bool {
        let named_well = self.connector_names.is_empty()
            || self
                .connector_names
                .iter()
                .any(|pattern| matches_own(pattern, agent, connector));
        let in_scope = !self.scope_patterns
            || scopes.is_empty()
            || scopes.iter().any(|scope| matches(scope, connector));
        named_well && in_scope
    }
}

fn any_matches(patterns: &[String], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name))
}

/// Like [`matches`], where `{agent}` at the beginning stands for exactly the agent's id. The id
/// is compared as text, so that an agent named `*` gains nothing.
fn matches_own(pattern: &str, agent: &str, connector: &str) -> bool {
    match pattern.strip_prefix("{agent}") {
        Some(rest) => connector
            .strip_prefix(agent)
            .is_some_and(|name| matches(rest, name)),
        None => matches(pattern, connector),
    }
}

/// `*` is any text, `?` any one character, `#` a digit; everything else is itself.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` was, and up to where it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let fits = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => true,
            Some('#') => name[n].is_ascii_digit(),
            Some(c) => *c == name[n],
            None => false,
        };
        if fits {
            p += 1;
            n += 1;
        } else if let Some((at, swallowed)) = star {
            star = Some((at, swallowed + 1));
            p = at + 1;
            n = swallowed + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::{Rules, matches};

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name) in [
            ("site-##", "site-07"),
            ("*", ""),
            ("a*c", "abbc"),
            ("a*b*c", "a-b-b-c"),
            ("?-x", "é-x"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("site-##", "site-7"),
            ("site-##", "site-070"),
            ("a*c", "abb"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_ends_soon() {
        assert!(!matches(&"*a".repeat(60), &"a".repeat(59)));
    }

    #[test]
    fn an_agent_offers_connectors_with_its_own_name() {
        let rules = Rules::parse(r#"{"connector_names": ["{agent}-*", "shared-*"]}"#).unwrap();
        let announced = names(&["site-1-db", "site-2-db", "shared-ntp", "db"]);
        let offered = rules.hello("site-1", &[], &announced).unwrap();
        assert_eq!(offered, ["site-1-db", "shared-ntp"]);
    }

    #[test]
    fn an_agent_named_like_a_pattern_gains_nothing() {
        let rules = Rules::parse(r#"{"connector_names": ["{agent}-*"]}"#).unwrap();
        let offered = rules.hello("*", &[], &names(&["site-2-db"])).unwrap();
        assert!(offered.is_empty());
    }

    #[test]
    fn a_bad_connector_can_keep_the_agent_out() {
        let rules =
            Rules::parse(r#"{"connector_names": ["web-*"], "on_bad_connector": "deny"}"#).unwrap();
        let refusal = rules.hello("a", &[], &names(&["web-1", "db"])).unwrap_err();
        assert_eq!(refusal.code, "connector_name");
        assert!(refusal.text.contains("`db`"));
    }

    #[test]
    fn an_agents_own_name_follows_the_rules() {
        let rules = Rules::parse(r#"{"agent_names": ["site-##"]}"#).unwrap();
        assert!(rules.hello("site-07", &[], &[]).is_ok());
        assert_eq!(
            rules.hello("laptop", &[], &[]).unwrap_err().code,
            "agent_name"
        );
    }

    #[test]
    fn scopes_are_patterns_where_switched_on() {
        let announced = names(&["db-1", "web-1"]);
        let scopes = names(&["db-*"]);
        let off = Rules::parse("{}").unwrap();
        assert_eq!(off.hello("a", &scopes, &announced).unwrap().len(), 2);
        let on = Rules::parse(r#"{"scope_patterns": true}"#).unwrap();
        assert_eq!(on.hello("a", &scopes, &announced).unwrap(), ["db-1"]);
    }

    #[test]
    fn a_listener_leads_where_every_rule_about_it_says() {
        let rules =
            Rules::parse(r#"{"listeners": {"public-*": ["web-*", "api"], "*-eu": ["web-eu-*"]}}"#)
                .unwrap();
        assert!(rules.open("public-1", "web-7").is_ok());
        assert!(rules.open("internal", "db").is_ok());
        assert_eq!(
            rules.open("public-1", "db").unwrap_err().code,
            "listener_connector"
        );
        assert!(rules.open("public-eu", "web-eu-1").is_ok());
        assert!(rules.open("public-eu", "web-us-1").is_err());
    }

    #[test]
    fn settings_that_are_not_understood_are_refused() {
        assert!(Rules::parse(r#"{"agent_name": ["x"]}"#).is_err());
        assert!(Rules::parse(r#"{"agent_names": [""]}"#).is_err());
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }
}
