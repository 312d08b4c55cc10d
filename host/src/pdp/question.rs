//! What is sent.

use nowconnect_policy::{Stated, StatedUid};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// One question, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Evaluation {
    body: String,
}

/// An AuthZEN evaluation.
#[derive(Serialize)]
struct Authzen<'a> {
    subject: Value,
    action: Value,
    resource: Value,
    context: &'a Value,
}

/// Parts of the context that differ for each client of the same kind. A decision point has its
/// own clock, and numbers are bounded by the hub's own limits.
const LEFT_OUT: [&str; 2] = ["meta", "openFlows"];

impl Evaluation {
    /// The AuthZEN form: Cedar's types and ids are its types and ids, attributes, groups and tags
    /// its properties, the context its context. Entities in the context come with properties.
    pub(crate) fn authzen(
        stated: &Stated,
        subject_properties: &Map<String, Value>,
    ) -> Result<Self, String> {
        let request = &stated.request;
        let mut subject = entity(stated, &request.principal)?;
        if let Some(properties) = subject.get_mut("properties").and_then(Value::as_object_mut) {
            for (name, value) in subject_properties {
                properties.insert(name.clone(), value.clone());
            }
        }
        let action = StatedUid::parse(&request.action)
            .ok_or_else(|| format!("`{}` is no action", request.action))?;
        let mut context = plain(&request.context);
        if let Some(context) = context.as_object_mut() {
            let hub = context["meta"]["hub"]["id"].take();
            for name in LEFT_OUT {
                context.remove(name);
            }
            context.insert("hub".to_owned(), hub);
            if let Some(net) = context.get_mut("net").and_then(Value::as_object_mut) {
                net.remove("srcPort");
            }
            for value in context.values_mut() {
                with_properties(stated, value);
            }
        }
        let whole = Authzen {
            subject,
            action: json!({ "name": action.id }),
            resource: entity(stated, &request.resource)?,
            context: &context,
        };
        let body = serde_json::to_string(&whole).map_err(|error| error.to_string())?;
        Ok(Self { body })
    }

    /// The simple form: may this agent be connected to for this connector?
    pub(crate) fn simple(agent: &str, connector: &str, replica: &str, audience: &str) -> Self {
        let body = json!({
            "subject": { "agent_id": agent },
            "action": "connect",
            "resource": { "type": "connector", "id": connector },
            "context": { "replica_id": replica, "aud": audience },
        });
        Self {
            body: body.to_string(),
        }
    }

    /// Any JSON.
    #[cfg(test)]
    pub(super) fn of(body: Value) -> Self {
        Self {
            body: body.to_string(),
        }
    }

    /// The JSON of this question alone.
    pub(super) fn body(&self) -> &str {
        &self.body
    }

    /// The JSON of several questions that are all to be answered.
    pub(super) fn batch(questions: &[Self]) -> String {
        let bodies: Vec<&str> = questions.iter().map(Self::body).collect();
        format!(
            "{{\"options\":{{\"evaluations_semantic\":\"execute_all\"}},\"evaluations\":[{}]}}",
            bodies.join(",")
        )
    }
}

fn entity(stated: &Stated, uid: &str) -> Result<Value, String> {
    let parsed = StatedUid::parse(uid).ok_or_else(|| format!("`{uid}` is no uid"))?;
    Ok(json!({
        "type": parsed.kind,
        "id": parsed.id,
        "properties": properties(stated.entity(uid)),
    }))
}

fn properties(row: Option<&Value>) -> Value {
    let Some(row) = row else {
        return json!({});
    };
    let mut properties = match plain(&row["attrs"]) {
        Value::Object(attributes) => attributes,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    let groups: Vec<&Value> = row["parents"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|parent| parent["type"] != "NowConnect::Tenant")
        .map(|parent| &parent["id"])
        .collect();
    if !groups.is_empty() {
        properties.insert("groups".to_owned(), json!(groups));
    }
    let tags = plain(&row["tags"]);
    if tags.as_object().is_some_and(|tags| !tags.is_empty()) {
        properties.insert("tags".to_owned(), tags);
    }
    Value::Object(properties)
}

/// Gives an entity of the context its properties.
fn with_properties(stated: &Stated, value: &mut Value) {
    let (Some(kind), Some(id)) = (value["type"].as_str(), value["id"].as_str()) else {
        return;
    };
    let uid = format!("NowConnect::{kind}::{}", json!(id));
    let found = properties(stated.entity(&uid));
    if let (Value::Object(entity), false) = (value, found == json!({})) {
        entity.insert("properties".to_owned(), found);
    }
}

/// Cedar's JSON without its own marks: an address or a time is its text, an entity type and id.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            if let Some(uid) = fields.get("__entity") {
                return uid_of(uid);
            }
            if let Some(call) = fields.get("__extn") {
                return plain(call.get("arg").unwrap_or(&Value::Null));
            }
            let is_uid = fields.len() == 2
                && fields.get("type").is_some_and(|kind| {
                    kind.as_str()
                        .is_some_and(|kind| kind.starts_with("NowConnect::"))
                })
                && fields.contains_key("id");
            if is_uid {
                return uid_of(value);
            }
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), plain(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn uid_of(uid: &Value) -> Value {
    let kind = uid["type"].as_str().unwrap_or_default();
    json!({
        "type": kind.rsplit("::").next().unwrap_or(kind),
        "id": uid["id"],
    })
}
