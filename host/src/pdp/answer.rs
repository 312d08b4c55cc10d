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

/// Why what came back is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It is not what a decision point says at all.
    Whole(&'static str),
    /// It is, but not to this question.
    One(&'static str),
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
pub(super) fn evaluation(body: &[u8], ignored: &[String]) -> Result<Verdict, Flaw> {
    one(&object(body)?, ignored)
}

/// An AuthZEN batch: `wanted` answers, each read by itself. Where their number does not fit,
/// nobody knows which answer is to which question; a deny among them is then one to all.
pub(super) fn evaluations(
    body: &[u8],
    wanted: usize,
    ignored: &[String],
) -> Vec<Result<Verdict, Flaw>> {
    let answers = match object(body) {
        Ok(mut whole) => match whole.remove("evaluations") {
            Some(Value::Array(answers)) => answers,
            Some(_) | None => {
                return vec![Err(Flaw::Whole("it has no list `evaluations`")); wanted];
            }
        },
        Err(problem) => return vec![Err(problem); wanted],
    };
    let said: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Value::Object(answer) => one(answer, ignored),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(Flaw::One("an answer of the batch is no object")),
        })
        .collect();
    if said.len() == wanted {
        return said;
    }
    let deny = said
        .into_iter()
        .find(|said| matches!(said, Ok(Verdict::Deny { .. })));
    let flaw = Flaw::Whole("the number of answers is not that of the questions");
    vec![deny.unwrap_or(Err(flaw)); wanted]
}

/// The simple form.
pub(super) fn simple(body: &[u8]) -> Result<Verdict, Flaw> {
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
        Some(_) | None => Err(Flaw::One("`allow` is neither true nor false")),
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Flaw> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Flaw::Whole("it is no JSON object")),
        Err(_) => Err(Flaw::Whole("it is no JSON")),
    }
}

fn ttl(field: Option<&Value>) -> Result<Option<Duration>, Flaw> {
    let Some(field) = field else {
        return Ok(None);
    };
    field
        .as_f64()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map(Some)
        .ok_or(Flaw::One("`ttl_sec` is no number of seconds"))
}

fn one(answer: &Map<String, Value>, ignored: &[String]) -> Result<Verdict, Flaw> {
    let Some(Value::Bool(allow)) = answer.get("decision") else {
        return Err(Flaw::One("`decision` is neither true nor false"));
    };
    let none = Map::new();
    let context = match answer.get("context") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(context)) => context,
        // A no is a no, whatever is wrong about its reasons.
        Some(_) if !allow => &none,
        Some(_) => return Err(Flaw::One("`context` is no object")),
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
        let said = |body: &[u8], wanted: usize| -> Vec<&str> {
            let shown = |one: &Result<Verdict, _>| match one {
                Ok(Verdict::Allow { .. }) => "allow",
                Ok(Verdict::Deny { .. }) => "deny",
                Ok(Verdict::Obligation { .. }) => "obligation",
                Err(_) => "error",
            };
            evaluations(body, wanted, &[]).iter().map(shown).collect()
        };
        let two = br#"{"evaluations":[{"decision":true},{"decision":false}]}"#;
        assert_eq!(said(two, 2), ["allow", "deny"]);
        // It is not known to which, so the deny is to all.
        assert_eq!(said(two, 1), ["deny"]);
        assert_eq!(said(two, 3), ["deny"; 3]);
        let allows = br#"{"evaluations":[{"decision":true},{"decision":true}]}"#;
        assert_eq!(said(allows, 3), ["error"; 3]);
        let broken = br#"{"evaluations":[[true],{"decision":false},{"decision":1}]}"#;
        assert_eq!(said(broken, 3), ["error", "deny", "error"]);
        assert_eq!(said(br#"{"decision":true}"#, 2), ["error"; 2]);
        assert_eq!(said(b"nonsense", 2), ["error"; 2]);
    }

    #[test]
    fn a_no_is_a_no_whatever_is_wrong_about_its_reasons() {
        for body in [
            r#"{"decision":false,"context":[1]}"#,
            r#"{"decision":false,"context":"because"}"#,
            r#"{"decision":false,"context":{"reason_user":7,"obligations":["x"]}}"#,
        ] {
            let said = evaluation(body.as_bytes(), &[]).unwrap();
            assert!(matches!(said, Verdict::Deny { .. }), "{body}");
        }
        let said = simple(br#"{"allow":false,"ttl_sec":"never"}"#).unwrap();
        assert!(matches!(said, Verdict::Deny { .. }));
    }
}
