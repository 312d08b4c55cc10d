//! What can be proved about a set of policies, and about the step from one set to another.
//!
//! A [`Proof`] is a list of claims, each about one kind of request (an *environment*: types of
//! principal and resource, and the action). Some are settled here, because nothing that matters
//! to the environment changed; the rest become a [task](Proof::task) for the program
//! `nowconnect-prove`, whose answers are read back [line by line](Proof::report). The program is
//! not believed blindly: a counterexample counts only where the hub's own engine decides it so,
//! and whatever it could not answer, for whatever reason, counts as not proved.
//!
//! A proof is about policies and holds for all entities that the schema allows: whoever is in
//! which group. So it says nothing about a change of the groups themselves; see
//! [`ProofReport::changed_facts`].

mod claims;
mod report;
mod shown;

use std::collections::{BTreeMap, HashMap};

use cedar_policy::{Policy, RequestEnv};
use serde::Serialize;
use serde_json::{Value, json};

use crate::bundle::PolicyBundle;
use crate::diagnostic::Diagnostics;
use crate::difference;
use crate::source::{SourceFile, Sources};

pub use claims::{Assertion, read_assertions};
pub use report::{Claim, ClaimResult, ProofReport, Verdict};
pub use shown::Counterexample;

/// What the prover may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofLimits {
    /// Address space of the program, and of its solver.
    pub memory_bytes: u64,
    /// Processor time of the program, and of its solver.
    pub cpu_seconds: u64,
    /// Wall time of one query.
    pub query_ms: u64,
    /// Wall time of everything.
    pub total_ms: u64,
}

impl Default for ProofLimits {
    /// A set of a hundred policies takes seconds; these are for the hundredfold.
    fn default() -> Self {
        Self {
            memory_bytes: 4 * 1024 * 1024 * 1024,
            cpu_seconds: 600,
            query_ms: 20_000,
            total_ms: 300_000,
        }
    }
}

/// The format of tasks and answers.
pub(crate) const FORMAT: u32 = 1;

/// See the module.
#[derive(Debug)]
pub struct Proof {
    /// The set that is in force, or the only one.
    before: PolicyBundle,
    /// The set that is to come.
    after: Option<PolicyBundle>,
    table: Table,
    claims: Vec<Open>,
    changed_facts: Vec<String>,
}

/// A claim on its way.
#[derive(Debug)]
struct Open {
    claim: Claim,
    environment: Environment,
    state: State,
}

#[derive(Debug)]
enum State {
    Settled(Verdict),
    Asked(Query),
}

/// A kind of request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Environment {
    /// Type of the principal.
    pub principal: String,
    /// The action.
    pub action: String,
    /// Type of the resource.
    pub resource: String,
}

impl Environment {
    fn of(env: &RequestEnv) -> Self {
        Self {
            principal: env.principal().to_string(),
            action: env.action().to_string(),
            resource: env.resource().to_string(),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Query {
    Implies { left: Vec<usize>, right: Vec<usize> },
    NeverErrors { policy: usize },
    AlwaysDenies { set: Vec<usize> },
}

/// The policies of a task, each meaning once.
#[derive(Debug, Default)]
struct Table {
    texts: Vec<String>,
    /// Ids, for messages.
    ids: Vec<String>,
    by_meaning: HashMap<String, usize>,
}

impl Table {
    fn add(&mut self, policy: &Policy) -> usize {
        let meaning = meaning_of(policy);
        if let Some(number) = self.by_meaning.get(&meaning) {
            return *number;
        }
        let number = self.texts.len();
        self.texts.push(policy.to_cedar().unwrap_or_default());
        let id: &str = policy.id().as_ref();
        self.ids.push(id.to_owned());
        self.by_meaning.insert(meaning, number);
        number
    }

    /// Numbers of a set, sorted, each once: two sets that mean the same have the same.
    fn add_all<'a>(&mut self, policies: impl IntoIterator<Item = &'a Policy>) -> Vec<usize> {
        let mut numbers: Vec<usize> = policies
            .into_iter()
            .map(|policy| self.add(policy))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    fn id(&self, number: usize) -> String {
        self.ids.get(number).cloned().unwrap_or_default()
    }
}

/// A policy without its annotations, which mean nothing to a decision.
pub(crate) fn meaning_of(policy: &Policy) -> String {
    let Ok(mut json) = policy.to_json() else {
        return policy.to_cedar().unwrap_or_default();
    };
    if let Some(parts) = json.as_object_mut() {
        parts.remove("annotations");
    }
    json.to_string()
}

impl Proof {
    /// That the step from one set to another lets nothing new in, and denies nothing new.
    ///
    /// # Errors
    /// Where either does not compile.
    pub fn of_change(before: &Sources, after: &Sources) -> Result<Self, Diagnostics> {
        let old = PolicyBundle::compile(before, 0)?;
        let new = PolicyBundle::compile(after, 0)?;
        let changed_facts = difference::facts((before, &old), (after, &new));
        let mut proof = Self {
            before: old,
            after: Some(new),
            table: Table::default(),
            claims: Vec::new(),
            changed_facts,
        };
        proof.compare();
        Ok(proof)
    }

    /// What must hold of one set: that every policy can always be evaluated, and what its
    /// assertions say. What it denies altogether is told as well.
    ///
    /// # Errors
    /// Where the set or an assertion does not compile.
    pub fn of_set(sources: &Sources, assertions: &[SourceFile]) -> Result<Self, Diagnostics> {
        let mut proof = Self {
            before: PolicyBundle::compile(sources, 0)?,
            after: None,
            table: Table::default(),
            claims: Vec::new(),
            changed_facts: Vec::new(),
        };
        let assertions = read_assertions(assertions, &proof.before)?;
        proof.check(&assertions);
        Ok(proof)
    }

    /// The task for `nowconnect-prove`, or `None` where everything is settled.
    #[must_use]
    pub fn task(&self, limits: ProofLimits) -> Option<String> {
        let mut environments: BTreeMap<&Environment, Vec<Value>> = BTreeMap::new();
        for (id, open) in self.claims.iter().enumerate() {
            if let State::Asked(query) = &open.state {
                let mut query = json!(query);
                query["id"] = json!(id);
                environments
                    .entry(&open.environment)
                    .or_default()
                    .push(query);
            }
        }
        if environments.is_empty() {
            return None;
        }
        let environments: Vec<Value> = environments
            .into_iter()
            .map(|(environment, queries)| {
                let mut environment = json!(environment);
                environment["queries"] = json!(queries);
                environment
            })
            .collect();
        let task = json!({
            "format": FORMAT,
            "limits": {
                "memory_bytes": limits.memory_bytes,
                "cpu_seconds": limits.cpu_seconds,
                "query_ms": limits.query_ms,
            },
            "schema": self.newest().schema_json().clone(),
            "policies": self.table.texts,
            "environments": environments,
        });
        Some(task.to_string())
    }

    /// The set whose shapes the requests have.
    fn newest(&self) -> &PolicyBundle {
        self.after.as_ref().unwrap_or(&self.before)
    }
}
