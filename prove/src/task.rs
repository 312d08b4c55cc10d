//! What is asked.

use serde::Deserialize;

/// The format of tasks and answers.
pub(crate) const FORMAT: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    pub(crate) format: u32,
    pub(crate) limits: Limits,
    /// In Cedar's JSON form.
    pub(crate) schema: serde_json::Value,
    /// Static policies in Cedar; queries name them by their position.
    pub(crate) policies: Vec<String>,
    pub(crate) environments: Vec<Environment>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Address space of this process, and of the solver.
    pub(crate) memory_bytes: u64,
    /// Processor time of this process, and of the solver.
    pub(crate) cpu_seconds: u64,
    /// Wall time of one query.
    pub(crate) query_ms: u64,
}

/// Queries about one kind of request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Environment {
    pub(crate) principal: String,
    pub(crate) action: String,
    pub(crate) resource: String,
    pub(crate) queries: Vec<Query>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Query {
    /// Stands in the answer.
    pub(crate) id: usize,
    #[serde(flatten)]
    pub(crate) kind: Kind,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Whatever the left set allows, the right one allows too.
    Implies { left: Vec<usize>, right: Vec<usize> },
    /// The policy can be evaluated on every request.
    NeverErrors { policy: usize },
    /// The set allows nothing.
    AlwaysDenies { set: Vec<usize> },
}
