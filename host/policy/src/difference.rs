//! What changes from one set of policies to another, by policy and clause.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cedar_policy::Policy;
use serde::Serialize;
use serde_json::{Value, json};

use crate::bundle::PolicyBundle;
use crate::decision::PolicyRef;
use crate::source::{SourceFile, Sources, file_name};

/// The change between two sets, told by the ids of policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Policies that only the second set has.
    pub added: Vec<PolicyChange>,
    /// Policies that only the first set has.
    pub removed: Vec<PolicyChange>,
    /// Policies that mean something else.
    pub changed: Vec<PolicyChange>,
    /// Policies that mean the same and carry other annotations.
    pub annotated: Vec<PolicyChange>,
    /// What changes besides policies: entities, the extension, the core schema.
    pub facts: Vec<String>,
}

/// What became of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyChange {
    /// Its id.
    pub id: String,
    /// Where it stands: in the second set, or where it stood.
    pub place: String,
    /// Pieces: in a change those that are gone (`-`) or new (`+`).
    pub lines: Vec<String>,
}

impl PolicyChange {
    /// A whole policy, piece by piece.
    pub(crate) fn shown(policy: &Policy, place: &PolicyRef) -> Self {
        Self {
            id: place.id.clone(),
            place: place_text(place),
            lines: Pieces::of(policy).all().cloned().collect(),
        }
    }
}

impl Difference {
    /// Compares two sets. The bundles must be those of the sources.
    #[must_use]
    pub fn between(before: (&Sources, &PolicyBundle), after: (&Sources, &PolicyBundle)) -> Self {
        let mut difference = Self {
            facts: facts(before, after),
            ..Self::default()
        };
        let (old, new) = (by_id(before.1), by_id(after.1));
        for (id, (policy, place)) in &old {
            match new.get(id) {
                None => difference
                    .removed
                    .push(change(id, place, &Pieces::of(policy), '-')),
                Some((other, place)) => difference.compare(id, place, policy, other),
            }
        }
        for (id, (policy, place)) in &new {
            if !old.contains_key(id) {
                difference
                    .added
                    .push(change(id, place, &Pieces::of(policy), '+'));
            }
        }
        difference
    }

    /// Whether both sets say the same, annotations included.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn compare(&mut self, id: &str, place: &PolicyRef, old: &Policy, new: &Policy) {
        let (old, new) = (Pieces::of(old), Pieces::of(new));
        let list = if (&old.head, &old.clauses) == (&new.head, &new.clauses) {
            if old.annotations == new.annotations {
                return;
            }
            &mut self.annotated
        } else {
            &mut self.changed
        };
        list.push(PolicyChange {
            id: id.to_owned(),
            place: place_text(place),
            lines: old.lines_to(&new),
        });
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, list) in [
            ("added", &self.added),
            ("removed", &self.removed),
            ("changed", &self.changed),
            ("annotations only", &self.annotated),
        ] {
            for policy in list {
                writeln!(f, "{what}: `{}` ({})", policy.id, policy.place)?;
                for line in &policy.lines {
                    for (number, line) in line.lines().enumerate() {
                        let indent = if number == 0 { "  " } else { "    " };
                        writeln!(f, "{indent}{line}")?;
                    }
                }
            }
        }
        for fact in &self.facts {
            writeln!(f, "changes facts: {fact}")?;
        }
        Ok(())
    }
}

type ById<'a> = BTreeMap<&'a str, (&'a Policy, &'a PolicyRef)>;

fn by_id(bundle: &PolicyBundle) -> ById<'_> {
    bundle
        .index
        .policies()
        .iter()
        .filter_map(|policy| {
            let place = bundle.place_of(policy.id())?;
            Some((place.id.as_str(), (policy, &**place)))
        })
        .collect()
}

fn place_text(place: &PolicyRef) -> String {
    format!("{}:{}", place.file, place.line)
}

fn change(id: &str, place: &PolicyRef, pieces: &Pieces, sign: char) -> PolicyChange {
    PolicyChange {
        id: id.to_owned(),
        place: place_text(place),
        lines: pieces
            .all()
            .map(|piece| format!("{sign} {piece}"))
            .collect(),
    }
}

/// A policy taken apart, each piece in the engine's own spelling, so that layout is no change.
#[derive(Debug, PartialEq, Eq)]
struct Pieces {
    annotations: BTreeSet<String>,
    /// Effect and scope.
    head: String,
    clauses: Vec<String>,
}

impl Pieces {
    fn of(policy: &Policy) -> Self {
        let annotations = policy
            .annotations()
            .filter(|(name, _)| *name != "id")
            .map(|(name, value)| format!("@{name}({value:?})"))
            .collect();
        let whole = policy.to_json().unwrap_or_default();
        let mut bare = whole.clone();
        bare["annotations"] = json!({});
        bare["conditions"] = json!([]);
        let clauses = whole["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(clause)
            .collect();
        Self {
            annotations,
            head: text_of(bare).trim_end_matches(';').to_owned(),
            clauses,
        }
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        let head = std::iter::once(&self.head);
        self.annotations.iter().chain(head).chain(&self.clauses)
    }

    fn lines_to(&self, new: &Self) -> Vec<String> {
        let gone = self
            .all()
            .filter(|piece| !new.all().any(|other| other == *piece));
        let come = new
            .all()
            .filter(|piece| !self.all().any(|other| other == *piece));
        gone.map(|piece| format!("- {piece}"))
            .chain(come.map(|piece| format!("+ {piece}")))
            .collect()
    }
}

/// The text of a condition: that of a policy that has nothing else, without its head.
fn clause(condition: &Value) -> String {
    let text = text_of(json!({
        "effect": "permit",
        "principal": {"op": "All"}, "action": {"op": "All"}, "resource": {"op": "All"},
        "conditions": [condition],
    }));
    let kind = condition["kind"].as_str().unwrap_or_default();
    let from = text.find(&format!("{kind} ")).unwrap_or(0);
    let clause = text.get(from..).unwrap_or(&text);
    clause.trim_end().trim_end_matches(';').to_owned()
}

fn text_of(policy: Value) -> String {
    let text = Policy::from_json(None, policy.clone())
        .ok()
        .and_then(|policy| policy.to_cedar());
    text.unwrap_or_else(|| policy.to_string())
}

/// What changes besides policies.
pub(crate) fn facts(
    before: (&Sources, &PolicyBundle),
    after: (&Sources, &PolicyBundle),
) -> Vec<String> {
    let text = |file: &Option<SourceFile>| file.as_ref().map(|file| file.text.clone());
    let mut facts = Vec::new();
    let of_tenants = |sources: &Sources| {
        let files = sources.tenant_entities.iter();
        let named = files.map(|file| (file_name(&file.name).to_owned(), file.text.clone()));
        named.collect::<BTreeMap<_, _>>()
    };
    if text(&before.0.entities) != text(&after.0.entities)
        || of_tenants(before.0) != of_tenants(after.0)
    {
        facts.push("the entities (groups and labels) change".to_owned());
    }
    if text(&before.0.extension) != text(&after.0.extension) {
        facts.push("the extension of the schema changes".to_owned());
    }
    let (old, new) = (before.1.core().number(), after.1.core().number());
    if old != new {
        facts.push(format!("the core schema changes from {old} to {new}"));
    }
    facts
}
