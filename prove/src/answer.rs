//! What is answered.

use cedar_policy_symcc::Env;
use serde::Serialize;
use serde_json::{Value, json};

/// One line of the output.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Line {
    /// The first: who answers.
    Hello { engine: String },
    Answer {
        query: usize,
        #[serde(flatten)]
        answer: Answer,
    },
    /// The last.
    Done { done: bool },
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It holds for every request of the environment.
    Proved,
    /// A request for which it does not hold.
    Counterexample { request: Value, entities: Value },
    /// A policy cannot be compiled into a formula.
    Unsupported { policy: usize, message: String },
    /// A set that was to be compared has a policy that may fail to evaluate.
    MayError { policy: usize },
    /// The solver gave no answer.
    Unknown { message: String },
}

/// A counterexample in the form that the stock Cedar tools read.
pub(crate) fn counterexample(found: &Env) -> Answer {
    let request = &found.request;
    let uid = |uid: Option<&cedar_policy::EntityUid>| uid.map(ToString::to_string);
    let context = request
        .context()
        .and_then(|context| context.to_json_value().ok());
    match found.entities.to_json_value() {
        Ok(entities) => Answer::Counterexample {
            request: json!({
                "principal": uid(request.principal()),
                "action": uid(request.action()),
                "resource": uid(request.resource()),
                "context": context,
            }),
            entities,
        },
        Err(error) => Answer::Unknown {
            message: format!("a counterexample without a JSON form: {error}"),
        },
    }
}
