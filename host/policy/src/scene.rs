//! A request with its entities, whether it came as a question or as JSON.

use cedar_policy::{
    Context, Entities, EntityUid, Policy, PrincipalConstraint, Request, ResourceConstraint, Schema,
};
use serde::Deserialize;

use crate::diagnostic::with_causes;
use crate::index::Place;
use crate::request::Asked;

/// What an evaluation looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) request: &'a Request,
    pub(crate) entities: &'a Entities,
    pub(crate) action: &'a EntityUid,
    pub(crate) principal: Place<'a>,
    pub(crate) resource: Place<'a>,
}

impl<'a> From<&'a Asked> for Scene<'a> {
    fn from(asked: &'a Asked) -> Self {
        Self {
            request: &asked.request,
            entities: &asked.entities,
            action: &asked.action.uid,
            principal: Place {
                uid: &asked.principal.uid,
                ancestors: &asked.principal.ancestors,
            },
            resource: Place {
                uid: &asked.resource.uid,
                ancestors: &asked.resource.ancestors,
            },
        }
    }
}

impl Scene<'_> {
    /// The sides of a policy's scope that do not match, as they stand in the text.
    pub(crate) fn out_of_scope(&self, policy: &Policy) -> Vec<String> {
        let mut sides = Vec::new();
        let principal = policy.principal_constraint();
        let (fits, text) = match &principal {
            PrincipalConstraint::Any => (true, String::new()),
            PrincipalConstraint::Is(named) => (
                named == self.principal.uid.type_name(),
                format!("is {named}"),
            ),
            PrincipalConstraint::Eq(uid) => (uid == self.principal.uid, format!("== {uid}")),
            PrincipalConstraint::In(uid) => (is_in(self.principal, uid), format!("in {uid}")),
            PrincipalConstraint::IsIn(named, uid) => (
                named == self.principal.uid.type_name() && is_in(self.principal, uid),
                format!("is {named} in {uid}"),
            ),
        };
        if !fits {
            sides.push(format!("principal {text}"));
        }
        let resource = policy.resource_constraint();
        let (fits, text) = match &resource {
            ResourceConstraint::Any => (true, String::new()),
            ResourceConstraint::Is(named) => (
                named == self.resource.uid.type_name(),
                format!("is {named}"),
            ),
            ResourceConstraint::Eq(uid) => (uid == self.resource.uid, format!("== {uid}")),
            ResourceConstraint::In(uid) => (is_in(self.resource, uid), format!("in {uid}")),
            ResourceConstraint::IsIn(named, uid) => (
                named == self.resource.uid.type_name() && is_in(self.resource, uid),
                format!("is {named} in {uid}"),
            ),
        };
        if !fits {
            sides.push(format!("resource {text}"));
        }
        sides
    }
}

fn is_in(place: Place<'_>, uid: &EntityUid) -> bool {
    place.uid == uid || place.ancestors.contains(uid)
}

/// A request in JSON, as the stock Cedar tools take it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RequestJson {
    principal: String,
    action: String,
    resource: String,
    #[serde(default = "empty_object")]
    context: serde_json::Value,
}

fn empty_object() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// A request that was read from JSON.
#[derive(Debug)]
pub(crate) struct Posed {
    request: Request,
    entities: Entities,
    action: EntityUid,
    principal: (EntityUid, Vec<EntityUid>),
    resource: (EntityUid, Vec<EntityUid>),
}

impl Posed {
    /// Checks request and entities against the schema.
    pub(crate) fn new(
        json: RequestJson,
        entities: serde_json::Value,
        schema: &Schema,
    ) -> Result<Self, String> {
        let principal = parse_uid("principal", &json.principal)?;
        let action = parse_uid("action", &json.action)?;
        let resource = parse_uid("resource", &json.resource)?;
        let context = Context::from_json_value(json.context, Some((schema, &action)))
            .map_err(|error| format!("bad context: {}", with_causes(&error)))?;
        let request = Request::new(
            principal.clone(),
            action.clone(),
            resource.clone(),
            context,
            Some(schema),
        )
        .map_err(|error| with_causes(&error))?;
        let entities = Entities::from_json_value(entities, Some(schema))
            .map_err(|error| format!("bad entities: {}", with_causes(&error)))?;
        Ok(Self {
            principal: with_ancestors(principal, &entities),
            resource: with_ancestors(resource, &entities),
            request,
            entities,
            action,
        })
    }

    pub(crate) fn scene(&self) -> Scene<'_> {
        Scene {
            request: &self.request,
            entities: &self.entities,
            action: &self.action,
            principal: Place {
                uid: &self.principal.0,
                ancestors: &self.principal.1,
            },
            resource: Place {
                uid: &self.resource.0,
                ancestors: &self.resource.1,
            },
        }
    }
}

fn parse_uid(what: &str, text: &str) -> Result<EntityUid, String> {
    text.parse().map_err(|error| {
        format!("{what} `{text}` is not a uid such as `NowConnect::Agent::\"a\"`: {error}")
    })
}

fn with_ancestors(uid: EntityUid, entities: &Entities) -> (EntityUid, Vec<EntityUid>) {
    let ancestors = entities
        .ancestors(&uid)
        .map(|ancestors| ancestors.cloned().collect())
        .unwrap_or_default();
    (uid, ancestors)
}
