//! The question to a decision point and its answer, as AuthZEN 1.0 has them.

use nowconnect_plugin::serde::Deserialize;
use serde_json::{Map, Value, json};

/// Bytes of a reason that is passed on.
const REASON_BYTES_MAX: usize = 256;

/// The plugin's settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, crate = "nowconnect_plugin::serde")]
pub struct Settings {
    /// The evaluation endpoint.
    pub url: String,
    /// Bearer token for it.
    #[serde(default)]
    pub token: Option<String>,
    /// Longest wait for an answer.
    #[serde(default = "Settings::timeout_ms")]
    pub timeout_ms: u32,
    /// AuthZEN type of viewers.
    #[serde(default = "Settings::subject_type")]
    pub subject_type: String,
    /// Subject id of a viewer without one.
    #[serde(default = "Settings::anonymous")]
    pub anonymous: String,
    /// Keys of an allow's context that become attributes of the flow. Any other that this plugin
    /// does not know could be a condition, and denies; so do these where there is no flow.
    #[serde(default)]
    pub pass_on: Vec<String>,
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub viewer: Option<&'a str>,
    pub groups: &'a [String],
    pub action: &'a str,
    pub resource_type: &'a str,
    pub resource: &'a str,
    /// Whether there is something that can take the attributes of `pass_on`.
    pub takes_attributes: bool,
    /// Context; empty values are left out.
    pub facts: &'a [(&'a str, &'a str)],
    /// What the hub says of the viewer beyond what has a field of its own.
    pub viewer_attributes: &'a [Pair],
    /// Likewise of others, by who it is; each stands in the context.
    pub attributes: &'a [(&'a str, &'a [Pair])],
}

/// Name and value.
pub type Pair = (String, String);

/// What the decision point said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With what is to be passed on.
    Yes(Vec<Pair>),
    No(Denied),
}

/// Why it said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    pub code: &'static str,
    pub public: String,
    pub private: String,
}

impl Settings {
    const fn timeout_ms() -> u32 {
        500
    }

    fn subject_type() -> String {
        "user".to_owned()
    }

    fn anonymous() -> String {
        "anonymous".to_owned()
    }

    /// Refuses what could never work.
    pub fn check(&self) -> Result<(), String> {
        if !self.url.starts_with("https://") && !self.url.starts_with("http://") {
            return Err(format!(
                "`url` is `{}`; write the whole https:// address",
                self.url
            ));
        }
        if !(1..=30_000).contains(&self.timeout_ms) {
            return Err(format!(
                "`timeout_ms` is {}, it must be 1 to 30000",
                self.timeout_ms
            ));
        }
        if self
            .token
            .as_ref()
            .is_some_and(|token| token.bytes().any(|byte| !byte.is_ascii_graphic()))
        {
            return Err("`token` must be printable ASCII without spaces".to_owned());
        }
        Ok(())
    }

    /// Reads the answer. What cannot be passed on is a condition that nobody would keep.
    pub fn answer(&self, asked: &Asked<'_>, status: u16, body: &[u8]) -> Result<Answer, String> {
        let pass_on = match asked.takes_attributes {
            true => self.pass_on.as_slice(),
            false => &[],
        };
        read(status, body, pass_on)
    }

    /// The body of an evaluation request.
    pub fn question(&self, asked: &Asked<'_>) -> String {
        let facts = asked
            .facts
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
        let of_others = asked
            .attributes
            .iter()
            .filter(|(_, pairs)| !pairs.is_empty())
            .map(|(whose, pairs)| (format!("{whose}_attributes"), Value::Object(object(pairs))));
        let context: Map<String, Value> = facts.chain(of_others).collect();
        let mut properties = object(asked.viewer_attributes);
        // What has a field of its own is proven, and no attribute takes its place.
        properties.insert("groups".to_owned(), json!(asked.groups));
        json!({
            "subject": {
                "type": self.subject_type,
                "id": asked.viewer.unwrap_or(&self.anonymous),
                "properties": properties,
            },
            "action": {"name": asked.action},
            "resource": {"type": asked.resource_type, "id": asked.resource},
            "context": context,
        })
        .to_string()
    }
}

fn object(pairs: &[Pair]) -> Map<String, Value> {
    pairs
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect()
}

/// Parts of an answer's context that ask nothing of whoever reads it.
const HARMLESS: [&str; 6] = [
    "id",
    "reason",
    "reason_admin",
    "reason_user",
    "advice",
    "metadata",
];

/// Reads an evaluation response. A denial is an answer like any other; anything that is not one
/// is an error.
fn read(status: u16, body: &[u8], pass_on: &[String]) -> Result<Answer, String> {
    if status != 200 {
        return Err(format!("the decision point answered with status {status}"));
    }
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| format!("the decision point's answer is not JSON: {error}"))?;
    let Some(decision) = body["decision"].as_bool() else {
        return Err("the decision point's answer has no `decision`".to_owned());
    };
    let context = &body["context"];
    if !decision {
        return Ok(Answer::No(Denied {
            code: "pdp_denied",
            public: reason(&context["reason_user"]).unwrap_or_else(|| "not allowed".to_owned()),
            private: reason(&context["reason_admin"])
                .unwrap_or_else(|| "the decision point gave no reason".to_owned()),
        }));
    }
    let none = Map::new();
    let context = match context {
        Value::Null => &none,
        Value::Object(context) => context,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err("the `context` of the decision point's answer is no object".to_owned());
        }
    };
    let mut passed_on = Vec::new();
    let mut unknown = Vec::new();
    for (name, value) in context.iter().filter(|(_, value)| !is_empty(value)) {
        if pass_on.contains(name) {
            passed_on.push((name.clone(), text(value)));
        } else if !HARMLESS.contains(&name.as_str()) {
            unknown.push(name.as_str());
        }
    }
    if unknown.is_empty() {
        return Ok(Answer::Yes(passed_on));
    }
    Ok(Answer::No(Denied {
        code: "pdp_obligation",
        public: "not allowed".to_owned(),
        private: shortened(&format!(
            "the decision point allows with what this plugin does not know: {}",
            unknown.join(", ")
        )),
    }))
}

/// An empty list of obligations asks for nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A text as it is, anything else as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// A text, or the first text of an object by language.
fn reason(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.as_str(),
        Value::Object(by_language) => by_language.values().find_map(Value::as_str)?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return None,
    };
    Some(shortened(text))
}

fn shortened(text: &str) -> String {
    let end = (0..=text.len().min(REASON_BYTES_MAX))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default())
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::{Answer, Asked, Settings, read};
    use serde_json::{Value, json};

    fn settings(json: Value) -> Settings {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_question_is_an_evaluation_request() {
        let groups = ["dba".to_owned()];
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let viewer = [pair("amr", "otp"), pair("groups", "admin")];
        let peer = [pair("ja4", "t13d")];
        let asked = Asked {
            viewer: None,
            groups: &groups,
            action: "open",
            resource_type: "connector",
            resource: "db",
            takes_attributes: true,
            facts: &[("ip", "192.0.2.1"), ("tenant", "")],
            viewer_attributes: &viewer,
            attributes: &[("peer", &peer), ("agent", &[])],
        };
        let question = settings(json!({"url": "https://pdp"})).question(&asked);
        let question: Value = serde_json::from_str(&question).unwrap();
        let expected = json!({
            "subject": {"type": "user", "id": "anonymous", "properties": {"amr": "otp", "groups": ["dba"]}},
            "action": {"name": "open"},
            "resource": {"type": "connector", "id": "db"},
            "context": {"ip": "192.0.2.1", "peer_attributes": {"ja4": "t13d"}},
        });
        assert_eq!(question, expected);
    }

    #[test]
    fn only_a_plain_yes_is_a_yes() {
        let answer = |body: Value| read(200, body.to_string().as_bytes(), &[]);
        let yes = || Ok(Answer::Yes(Vec::new()));
        assert_eq!(answer(json!({"decision": true})), yes());
        let empty = json!({"decision": true, "context": {"obligations": [], "reason": "x"}});
        assert_eq!(answer(empty), yes());
        let code = |body: Value| match answer(body) {
            Ok(Answer::No(denied)) => denied.code,
            Ok(Answer::Yes(_)) => "yes",
            Err(_) => "error",
        };
        let unknown = json!({"decision": true, "context": {"max_bytes": 10}});
        assert_eq!(code(unknown), "pdp_obligation");
        assert_eq!(code(json!({"decision": true, "context": "mfa"})), "error");
        let obliged = json!({"decision": true, "context": {"obligations": [{"id": "mfa"}]}});
        assert_eq!(code(obliged), "pdp_obligation");
        assert_eq!(code(json!({"decision": false})), "pdp_denied");
        for body in [
            json!({}),
            json!({"decision": "true"}),
            json!([]),
            json!({"decision": 1}),
        ] {
            assert_eq!(code(body), "error");
        }
        for status in [201, 204, 302, 400, 403, 500] {
            assert!(
                read(status, br#"{"decision": true}"#, &[]).is_err(),
                "{status}"
            );
        }
        assert!(read(200, b"\xff", &[]).is_err());
    }

    #[test]
    fn what_the_operator_names_of_an_allow_is_passed_on() {
        let body = json!({"decision": true, "context": {"risk": 7, "zone": "red"}}).to_string();
        let named = ["risk", "zone"].map(str::to_owned);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            read(200, body.as_bytes(), &named),
            Ok(Answer::Yes(vec![pair("risk", "7"), pair("zone", "red")]))
        );
        let some = read(200, body.as_bytes(), &named[..1]);
        assert!(matches!(some, Ok(Answer::No(_))), "{some:?}");
    }

    #[test]
    fn a_condition_that_nothing_can_take_denies() {
        let settings = settings(json!({"url": "https://pdp", "pass_on": ["zone"]}));
        let body = json!({"decision": true, "context": {"zone": "red"}}).to_string();
        let answer = |takes_attributes: bool, body: &str| {
            let asked = Asked {
                viewer: None,
                groups: &[],
                action: "GET",
                resource_type: "endpoint",
                resource: "api",
                takes_attributes,
                facts: &[],
                viewer_attributes: &[],
                attributes: &[],
            };
            settings.answer(&asked, 200, body.as_bytes())
        };
        assert!(matches!(answer(true, &body), Ok(Answer::Yes(passed)) if passed.len() == 1));
        let Ok(Answer::No(denied)) = answer(false, &body) else {
            panic!("a condition was dropped");
        };
        assert_eq!(denied.code, "pdp_obligation");
        let plain = json!({"decision": true, "context": {"zone": []}}).to_string();
        assert_eq!(answer(false, &plain), Ok(Answer::Yes(Vec::new())));
    }

    #[test]
    fn reasons_go_to_whom_they_are_for() {
        let body = json!({
            "decision": false,
            "context": {"reason_user": {"en": "ask ops"}, "reason_admin": {"en": "rule 7"}},
        });
        let Ok(Answer::No(denied)) = read(200, body.to_string().as_bytes(), &[]) else {
            panic!("it is a no");
        };
        assert_eq!(
            (denied.public.as_str(), denied.private.as_str()),
            ("ask ops", "rule 7")
        );
    }

    #[test]
    fn settings_that_could_never_work_are_refused() {
        for json in [
            json!({"url": "pdp.example"}),
            json!({"url": "https://pdp", "timeout_ms": 0}),
            json!({"url": "https://pdp", "token": "a\nb"}),
        ] {
            assert!(settings(json.clone()).check().is_err(), "{json}");
        }
        assert!(
            serde_json::from_value::<Settings>(json!({"url": "https://x", "tok": "y"})).is_err()
        );
    }
}
