//! What a set of policies adds to the core schema.
//!
//! An extension has entity types in namespaces of its own. They are groups: their entities come
//! from the set's `entities.json`, and policies say `in` of them.
//!
//! ```text
//! @annotations("owner, ticket")          // policies may carry @owner and @ticket
//! namespace Acme {
//!   @holds("Connector, Agent")           // connectors and agents may be in a site
//!   entity Site enum ["berlin", "oslo"];
//! }
//! ```
//!
//! No core shape changes: an extension has no actions, no attributes (what is true of an entity
//! is the hub's to know), and nothing in our namespace.

use std::collections::{BTreeSet, HashMap};

use cedar_policy::{EntityTypeName, Schema, SchemaFragment};
use serde_json::Value;

use crate::core_schema::CoreVersion;
use crate::diagnostic::{Diagnostic, Severity, with_causes};
use crate::source::SourceFile;
use crate::vocabulary::{NAMESPACE, Vocabulary};

/// Core types whose entities may be in one of an extension.
const HOLDABLE: [&str; 4] = ["Agent", "Connector", "Group", "Viewer"];

impl Vocabulary {
    /// The core of a version with an extension.
    pub(crate) fn extended(
        version: CoreVersion,
        extension: Option<&SourceFile>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let core = Self::of(version);
        let Some(file) = extension else {
            return Ok(core);
        };
        read(core, &file.text).map_err(|problems| {
            problems
                .into_iter()
                .map(|message| Diagnostic {
                    severity: Severity::Error,
                    file: file.name.clone(),
                    line: 1,
                    column: 1,
                    message,
                    help: Some(
                        "an extension is `namespace Acme { @holds(\"Connector\") entity Site; }`"
                            .to_owned(),
                    ),
                })
                .collect()
        })
    }
}

/// The JSON form of a schema text.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let (fragment, _) =
        SchemaFragment::from_cedarschema_str(text).map_err(|error| with_causes(&error))?;
    fragment
        .to_json_value()
        .map_err(|error| with_causes(&error))
}

/// Whether a schema in JSON form says anything in our namespace.
pub(crate) fn claims_core(fragment: &Value) -> bool {
    fragment
        .as_object()
        .is_some_and(|namespaces| namespaces.keys().any(|name| is_ours(name)))
}

fn is_ours(namespace: &str) -> bool {
    namespace.split("::").next() == Some(NAMESPACE)
}

fn read(mut vocabulary: Vocabulary, text: &str) -> Result<Vocabulary, Vec<String>> {
    let fragment = parse(text).map_err(|problem| vec![problem])?;
    let mut reading = Reading::default();
    for (namespace, content) in fragment.as_object().into_iter().flatten() {
        reading.namespace(namespace, content);
    }
    if !reading.problems.is_empty() {
        return Err(reading.problems);
    }
    let mut whole = vocabulary.core.json.clone();
    for (held, by) in &reading.holds {
        let member = &mut whole[NAMESPACE]["entityTypes"][held]["memberOfTypes"];
        if !member.is_array() {
            *member = Value::Array(Vec::new());
        }
        if let Some(types) = member.as_array_mut() {
            types.extend(by.iter().cloned().map(Value::String));
        }
    }
    if let (Some(all), Some(more)) = (whole.as_object_mut(), fragment.as_object()) {
        all.extend(more.clone());
    }
    vocabulary.json.clone_from(&whole);
    vocabulary.schema =
        Schema::from_json_value(whole).map_err(|error| vec![with_causes(&error)])?;
    vocabulary.annotations = reading.annotations;
    for (held, by) in reading.holds {
        reading
            .parents
            .entry(format!("{NAMESPACE}::{held}"))
            .or_default()
            .extend(by);
    }
    let named = |text: &String| -> Option<EntityTypeName> { text.parse().ok() };
    vocabulary.parents = reading
        .parents
        .iter()
        .filter_map(|(name, parents)| {
            Some((named(name)?, parents.iter().filter_map(named).collect()))
        })
        .collect();
    vocabulary.closed = reading
        .closed
        .into_iter()
        .filter_map(|(name, ids)| Some((named(&name)?, ids)))
        .collect();
    Ok(vocabulary)
}

#[derive(Debug, Default)]
struct Reading {
    problems: Vec<String>,
    annotations: BTreeSet<String>,
    /// Types of the extension, by the core type that they hold.
    holds: HashMap<String, Vec<String>>,
    /// What a type's entities may be in.
    parents: HashMap<String, Vec<String>>,
    closed: HashMap<String, BTreeSet<String>>,
}

impl Reading {
    fn namespace(&mut self, name: &str, content: &Value) {
        if name.is_empty() {
            self.problem("what it declares stands in no namespace; give it one of its own");
            return;
        }
        if is_ours(name) {
            self.problem(format!("namespace `{name}` is the hub's"));
            return;
        }
        if content["actions"]
            .as_object()
            .is_some_and(|actions| !actions.is_empty())
        {
            self.problem(format!(
                "`{name}` has actions; the hub asks only those of the core schema"
            ));
        }
        let words = list(&content["annotations"]["annotations"]);
        self.annotations.extend(words);
        for (entity, shape) in content["entityTypes"].as_object().into_iter().flatten() {
            self.entity(name, entity, shape);
        }
    }

    fn entity(&mut self, namespace: &str, entity: &str, shape: &Value) {
        let name = format!("{namespace}::{entity}");
        let attributes = shape["shape"]["attributes"].as_object();
        if attributes.is_some_and(|attributes| !attributes.is_empty())
            || shape["shape"]
                .get("type")
                .is_some_and(|kind| kind != "Record")
            || shape.get("tags").is_some_and(|tags| !tags.is_null())
        {
            self.problem(format!(
                "`{name}` has attributes or tags, for which the hub has no values"
            ));
        }
        if let Some(ids) = shape["enum"].as_array() {
            let ids = ids.iter().filter_map(Value::as_str).map(ToOwned::to_owned);
            self.closed.insert(name.clone(), ids.collect());
        }
        for parent in shape["memberOfTypes"].as_array().into_iter().flatten() {
            let parent = parent.as_str().unwrap_or_default();
            let qualified = if parent.contains("::") {
                parent.to_owned()
            } else {
                format!("{namespace}::{parent}")
            };
            if is_ours(&qualified) && qualified != format!("{NAMESPACE}::Group") {
                self.problem(format!(
                    "`{name}` cannot be in `{qualified}`, only in a Group"
                ));
            }
            self.parents
                .entry(name.clone())
                .or_default()
                .push(qualified);
        }
        for held in list(&shape["annotations"]["holds"]) {
            if HOLDABLE.contains(&held.as_str()) {
                self.holds.entry(held).or_default().push(name.clone());
            } else {
                self.problem(format!(
                    "`@holds(\"{held}\")` on `{name}`: it can hold {}",
                    HOLDABLE.join(", ")
                ));
            }
        }
        self.parents.entry(name).or_default();
    }

    fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }
}

fn list(annotation: &Value) -> Vec<String> {
    annotation
        .as_str()
        .unwrap_or_default()
        .split(',')
        .map(|word| word.trim().to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}
