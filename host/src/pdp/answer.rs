//! What comes back, read strictly.

use std::time::Duration;

use serde_json::{Map, Value};

/// What a decision point said to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow {
        /// How long it says that this holds.
        ttl: Option<Duration>,
        admin: Option<String>,
    },
    Deny {
        admin: Option<String>,
        user: Option<String>,
    },
    /// It allows if something is done that the hub does not know.
    Obligation { names: String },
}

/// Parts of an answer's context that ask nothing of the hub.
const HARMLESS: [&str; 6] = [
    "id",
    "reason",
    "reason_admin",
    "reason_user",
    "advice",
    "metadata",
];

/// Letters of a reason that are kept.
const REASON_LETTERS: usize = 256;

/// Names of obligations that are told.
const TOLD: usize = 8;

/// One AuthZEN evaluation.
pub(super) fn evaluation(body: &[u8], ignored: &[String]) -> Result<Verdict, &'static str> {
    one(&object(body)?, ignored)
}

/// An AuthZEN batch with exactly `wanted` answers.
pub(super) fn evaluations(
    body: &[u8],
    wanted: usize,
    ignored: &[String],
) -> Result<Vec<Verdict>, &'static str> {
    let whole = object(body)?;
    let Some(Value::Array(answers)) = whole.get("evaluations") else {
        return Err("it has no list `evaluations`");
    };
    if answers.len() != wanted {
        return Err("the number of answers is not that of the questions");
    }
    answers
        .iter()
        .map(|answer| match answer {
            Value::Object(answer) => one(answer, ignored),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err("an answer of the batch is no object"),
        })
        .collect()
}

/// The simple form.
pub(super) fn simple(body: &[u8]) -> Result<Verdict, &'static str> {
    let whole = object(body)?;
    match whole.get("allow") {
        Some(Value::Bool(true)) => Ok(Verdict::Allow {
            ttl: ttl(whole.get("ttl_sec"))?,
            admin: None,
        }),
        Some(Value::Bool(false)) => Ok(Verdict::Deny {
            admin: None,
            user: None,
        }),
        Some(_) | None => Err("`allow` is neither true nor false"),
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, &'static str> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("it is no JSON object"),
        Err(_) => Err("it is no JSON"),
    }
}

fn ttl(field: Option<&Value>) -> Result<Option<Duration>, &'static str> {
    let Some(field) = field else {
        return Ok(None);
    };
    field
        .as_f64()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map(Some)
        .ok_or("`ttl_sec` is no number of seconds")
}

fn one(answer: &Map<String, Value>, ignored: &[String]) -> Result<Verdict, &'static str> {
    let Some(Value::Bool(allow)) = answer.get("decision") else {
        return Err("`decision` is neither true nor false");
    };
    let none = Map::new();
    let context = match answer.get("context") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(context)) => context,
        Some(_) => return Err("`context` is no object"),
    };
    let admin = reason(context.get("reason_admin"));
    if !allow {
        let user = reason(context.get("reason_user"));
        return Ok(Verdict::Deny { admin, user });
    }
    let names: Vec<&str> = context
        .iter()
        .filter(|(name, value)| {
            !HARMLESS.contains(&name.as_str()) && !ignored.contains(name) && !is_empty(value)
        })
        .map(|(name, _)| name.as_str())
        .take(TOLD)
        .collect();
    if names.is_empty() {
        Ok(Verdict::Allow { ttl: None, admin })
    } else {
        let names = clean(&names.join(", "));
        Ok(Verdict::Obligation { names })
    }
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

/// A text, or the English one of several by language, or the first.
fn reason(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(clean(text)),
        Value::Object(texts) => {
            let english = texts
                .iter()
                .find(|(language, _)| language.starts_with("en"));
            let (_, text) = english.or_else(|| texts.iter().next())?;
            text.as_str().map(clean)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}

/// Foreign text goes to peers and logs: short, on one line.
fn clean(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(REASON_LETTERS)
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn only_a_true_is_an_allow() {
        for body in [
            "",
            "true",
            "[true]",
            "null",
            "{}",
            "{\"decision\":1}",
            "{\"decision\":\"true\"}",
            "{\"allow\":true}",
            "{\"decision\":true",
            "{\"decision\":true,\"context\":[]}",
            "{\"decision\":null}",
            "<html>",
            "{\"Decision\":true}",
        ] {
            assert!(evaluation(body.as_bytes(), &[]).is_err(), "{body}");
        }
        let said = evaluation(b"{\"decision\":true}", &[]).unwrap();
        assert_eq!(
            said,
            Verdict::Allow {
                ttl: None,
                admin: None
            }
        );
        for body in ["{}", "{\"allow\":\"yes\"}", "{\"decision\":true}", "[1]"] {
            assert!(simple(body.as_bytes()).is_err(), "{body}");
        }
        for ttl in ["-1", "\"5\"", "1e400", "null"] {
            let body = format!("{{\"allow\":true,\"ttl_sec\":{ttl}}}");
            assert!(simple(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn reasons_go_to_whom_they_are_for() {
        let body = br#"{"decision":false,"context":{"reason_admin":{"de":"nein","en":"rule 7"},
            "reason_user":"ask\nyour boss"}}"#;
        assert_eq!(
            evaluation(body, &[]).unwrap(),
            Verdict::Deny {
                admin: Some("rule 7".to_owned()),
                user: Some("ask your boss".to_owned())
            }
        );
    }

    #[test]
    fn an_unknown_obligation_on_an_allow_denies() {
        let body =
            br#"{"decision":true,"context":{"obligations":[{"log":"all"}],"reason_admin":"x"}}"#;
        let said = evaluation(body, &[]).unwrap();
        assert_eq!(
            said,
            Verdict::Obligation {
                names: "obligations".to_owned()
            }
        );
        let known = ["obligations".to_owned()];
        assert!(matches!(
            evaluation(body, &known).unwrap(),
            Verdict::Allow { .. }
        ));
        let empty = br#"{"decision":true,"context":{"obligations":[]}}"#;
        assert!(matches!(
            evaluation(empty, &[]).unwrap(),
            Verdict::Allow { .. }
        ));
    }

    #[test]
    fn a_batch_answers_each_question_once() {
        let two = br#"{"evaluations":[{"decision":true},{"decision":false}]}"#;
        assert_eq!(evaluations(two, 2, &[]).unwrap().len(), 2);
        assert!(evaluations(two, 1, &[]).is_err());
        assert!(evaluations(two, 3, &[]).is_err());
        assert!(evaluations(br#"{"evaluations":[[true],[true]]}"#, 2, &[]).is_err());
        assert!(evaluations(br#"{"decision":true}"#, 1, &[]).is_err());
    }
}
