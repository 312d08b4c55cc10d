//! A counterexample, for people and for the stock tools.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::decision::Decision;

/// A request that shows that a claim does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counterexample {
    /// As the stock Cedar tools take it.
    pub request: Value,
    /// The entities that it speaks of.
    pub entities: Value,
    /// What is decided; by the set in force where two are compared.
    pub before: Shown,
    /// What the set to come decides.
    pub after: Option<Shown>,
}

/// A decision in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Whether it is allowed.
    pub allow: bool,
    /// The policies that determined it.
    pub policies: Vec<String>,
    /// What could not be evaluated.
    pub errors: Vec<String>,
}

impl From<&Decision> for Shown {
    fn from(decision: &Decision) -> Self {
        Self {
            allow: decision.allow,
            policies: decision
                .policies
                .iter()
                .map(|policy| policy.id.clone())
                .collect(),
            errors: decision.errors.clone(),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allow { "allowed" } else { "denied" })?;
        if !self.policies.is_empty() {
            write!(f, " by `{}`", self.policies.join("`, `"))?;
        }
        for error in &self.errors {
            write!(f, "; {error}")?;
        }
        Ok(())
    }
}

impl Counterexample {
    pub(super) fn new(
        request: Value,
        entities: Value,
        before: &Decision,
        after: Option<&Decision>,
    ) -> Self {
        Self {
            request,
            entities,
            before: before.into(),
            after: after.map(Into::into),
        }
    }

    fn entity(&self, uid: &str) -> Option<&Value> {
        self.entities
            .as_array()?
            .iter()
            .find(|entity| uid_text(&entity["uid"]).as_deref() == Some(uid))
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for side in ["principal", "action", "resource"] {
            let uid = self.request[side].as_str().unwrap_or_default();
            writeln!(f, "{side} {uid}")?;
            if side == "action" {
                continue;
            }
            let Some(entity) = self.entity(uid) else {
                continue;
            };
            let mut parents: Vec<String> = entity["parents"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(uid_text)
                .collect();
            parents.sort_unstable();
            for parent in parents {
                writeln!(f, "  in {parent}")?;
            }
            for part in ["attrs", "tags"] {
                for (name, value) in entity[part].as_object().into_iter().flatten() {
                    lines(
                        f,
                        &format!("  {}{name}", if part == "tags" { "tag " } else { "." }),
                        value,
                    )?;
                }
            }
        }
        lines(f, "context", &self.request["context"])
    }
}

/// A value, with one line for each leaf.
fn lines(f: &mut fmt::Formatter<'_>, path: &str, value: &Value) -> fmt::Result {
    match value {
        Value::Object(fields) => match scalar(fields) {
            Some(text) => writeln!(f, "{path} = {text}"),
            None => fields
                .iter()
                .try_for_each(|(name, value)| lines(f, &format!("{path}.{name}"), value)),
        },
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(value_text).collect();
            writeln!(f, "{path} = [{}]", items.join(", "))
        }
        Value::Null => Ok(()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => writeln!(f, "{path} = {value}"),
    }
}

/// An entity, an address or a time, which JSON writes as an object.
fn scalar(fields: &Map<String, Value>) -> Option<String> {
    if let Some(call) = fields.get("__extn").and_then(Value::as_object) {
        let arguments: Vec<String> = match call.get("args").and_then(Value::as_array) {
            Some(arguments) => arguments.iter().map(value_text).collect(),
            None => call.get("arg").map(value_text).into_iter().collect(),
        };
        let function = call.get("fn")?.as_str()?;
        return Some(format!("{function}({})", arguments.join(", ")));
    }
    if let Some(entity) = fields.get("__entity") {
        return uid_text(entity);
    }
    (fields.len() == 2 && fields.contains_key("type") && fields.contains_key("id"))
        .then(|| uid_text(&Value::Object(fields.clone())))
        .flatten()
}

fn value_text(value: &Value) -> String {
    value
        .as_object()
        .and_then(scalar)
        .unwrap_or_else(|| value.to_string())
}

fn uid_text(uid: &Value) -> Option<String> {
    let uid = uid.get("__entity").unwrap_or(uid);
    Some(format!("{}::{}", uid["type"].as_str()?, uid["id"]))
}
