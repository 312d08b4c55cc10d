//! A question as JSON, with every fact that policies could look at.
//!
//! The form is that of a test case: what is stated here can be put to another set of policies,
//! explained, kept as a test, or sent to an external decision point.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bundle::PolicyBundle;
use crate::diagnostic::with_causes;
use crate::facts::Facts;
use crate::question::Question;
use crate::request::{Asked, Shared};

/// A question with the facts that it was asked about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stated {
    /// Who asked what, on what.
    pub request: StatedRequest,
    /// Principal, resource, and all that the context names, as Cedar's entity JSON.
    pub entities: Value,
}

/// The request of a [`Stated`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatedRequest {
    /// A uid such as `NowConnect::Agent::"a"`.
    pub principal: String,
    /// A uid.
    pub action: String,
    /// A uid.
    pub resource: String,
    /// As Cedar's JSON.
    pub context: Value,
}

/// A uid in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedUid<'a> {
    /// The type without its namespace, such as `Agent`.
    pub kind: &'a str,
    /// The id, unescaped by the caller's own rules: names hold nothing that needs it.
    pub id: String,
}

impl PolicyBundle {
    /// States a question with the facts as they are now.
    ///
    /// # Errors
    /// A sentence where a fact is missing to ask it.
    pub fn state(&self, facts: &Facts, question: &Question) -> Result<Stated, String> {
        let asked = Asked::new(question, facts, self.kit(true), &mut Shared::default())?;
        let context = match asked.request.context() {
            Some(context) => context
                .to_json_value()
                .map_err(|error| with_causes(&error))?,
            None => Value::Object(serde_json::Map::new()),
        };
        let mut entities = asked
            .entities
            .to_json_value()
            .map_err(|error| with_causes(&error))?;
        // Actions are the schema's; in a file of entities they would only be noise.
        if let Value::Array(entities) = &mut entities {
            entities.retain(|entity| entity["uid"]["type"] != "NowConnect::Action");
        }
        Ok(Stated {
            request: StatedRequest {
                principal: asked.principal.uid.to_string(),
                action: asked.action.uid.to_string(),
                resource: asked.resource.uid.to_string(),
                context,
            },
            entities,
        })
    }
}

impl Stated {
    /// The row of an entity, by its uid as text.
    #[must_use]
    pub fn entity(&self, uid: &str) -> Option<&Value> {
        let wanted = StatedUid::parse(uid)?;
        self.entities.as_array()?.iter().find(|entity| {
            let uid = &entity["uid"];
            uid["id"] == wanted.id.as_str()
                && uid["type"]
                    .as_str()
                    .is_some_and(|name| bare(name) == wanted.kind)
        })
    }
}

impl<'a> StatedUid<'a> {
    /// Reads `NowConnect::Agent::"a"`.
    #[must_use]
    pub fn parse(uid: &'a str) -> Option<Self> {
        let (name, id) = uid.split_once("::\"")?;
        let id = id.strip_suffix('"')?;
        // Cedar writes ids as JSON writes strings, apart from signs outside of ASCII, which it
        // writes as `\u{…}` and which no name has.
        let id = serde_json::from_str(&format!("\"{id}\"")).unwrap_or_else(|_| id.to_owned());
        Some(Self {
            kind: bare(name),
            id,
        })
    }
}

fn bare(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}
