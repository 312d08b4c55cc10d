//! What every plugin must stand: hostile and boundary questions on each hook that it exports.
//!
//! A plugin may say no and may say `error`; it may not trap, run over a limit, answer outside
//! of its grants or of the contract, or come to two outcomes on the same question.

use serde_json::{Value, json};

use super::hostile::questions;
use super::{Case, Mounted, Ran, Workbench};
use crate::error::LoadProblem;
use crate::hook::{CallOutcome, Hook};

/// How one hook stood its questions.
#[derive(Clone, Debug)]
pub struct HookConformance {
    /// The hook, or `check_config`.
    pub hook: String,
    /// One for each question.
    pub trials: Vec<Trial>,
}

impl HookConformance {
    /// Trials that must not come out as they did.
    pub fn failed(&self) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(|trial| trial.problem.is_some())
    }
}

/// One question and what came of it.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What the question is like.
    pub name: String,
    /// How the call ended.
    pub outcome: String,
    /// Why that is not allowed; `None` where all is well.
    pub problem: Option<String>,
}

impl Workbench {
    /// Asks every hook that the plugin exports.
    pub async fn conformance(&self, mounted: &Mounted) -> Vec<HookConformance> {
        let mut all = vec![self.settings(mounted).await];
        for hook in Hook::ALL.into_iter().filter(|hook| mounted.has(*hook)) {
            let mut trials = Vec::new();
            for (name, question) in questions(hook) {
                let mut case = Case::of(question);
                trials.push(self.trial(mounted, name, &case).await);
                case.call.tenant = Some("acme".to_owned());
                case.call.trace_parent = Some("00-not-a-trace-00".to_owned());
                case.call.request_id = String::new();
                case.carry = vec![("unknown".to_owned(), "\u{202e}".to_owned())];
                trials.push(
                    self.trial(mounted, &format!("{name}, with a foreign carry"), &case)
                        .await,
                );
            }
            all.push(HookConformance {
                hook: hook.to_string(),
                trials,
            });
        }
        all
    }

    /// Asks twice, each time from the same beginning.
    async fn trial(&self, mounted: &Mounted, name: &str, case: &Case) -> Trial {
        let first = self.run(mounted, case).await;
        let second = self.run(mounted, case).await;
        let (one, other) = (code(&first), code(&second));
        let limit = mounted.spec.limits.memory_bytes as u64;
        let problem = match first.recorded.outcome {
            Some(CallOutcome::Ok | CallOutcome::Deny | CallOutcome::Error) if one != other => {
                Some(format!("asked again it came to `{other}`"))
            }
            Some(CallOutcome::Ok | CallOutcome::Deny | CallOutcome::Error)
                if first.recorded.memory_peak_bytes > limit =>
            {
                Some(format!(
                    "it used {} bytes of memory",
                    first.recorded.memory_peak_bytes
                ))
            }
            Some(CallOutcome::Ok | CallOutcome::Deny | CallOutcome::Error) => None,
            Some(
                CallOutcome::Trap
                | CallOutcome::Timeout
                | CallOutcome::Oom
                | CallOutcome::Shed
                | CallOutcome::BadOutput,
            )
            | None => Some(
                first.answer["detail"]
                    .as_str()
                    .unwrap_or("not called")
                    .to_owned(),
            ),
        };
        Trial {
            name: name.to_owned(),
            outcome: one,
            problem,
        }
    }

    /// Settings that nobody would write: they may be refused, with a message, never by a trap.
    async fn settings(&self, mounted: &Mounted) -> HookConformance {
        let mut trials = Vec::new();
        for (name, config) in hostile_settings() {
            let mut spec = mounted.spec.clone();
            spec.config = config;
            let (outcome, problem) = match self.mount(spec).await {
                Ok(_) => ("ok", None),
                Err(errors) => match errors.into_iter().next().map(|error| error.problem) {
                    Some(LoadProblem::Config(_)) => ("refused", None),
                    Some(problem) => ("failed", Some(problem.to_string())),
                    None => ("failed", Some("refused without a reason".to_owned())),
                },
            };
            trials.push(Trial {
                name: name.to_owned(),
                outcome: outcome.to_owned(),
                problem,
            });
        }
        HookConformance {
            hook: "check_config".to_owned(),
            trials,
        }
    }
}

/// The outcome, and what a caller can see of the answer.
fn code(ran: &Ran) -> String {
    let outcome = ran
        .recorded
        .outcome
        .map_or("not called", CallOutcome::as_str);
    match ran.answer["code"].as_str() {
        Some(code) => format!("{outcome} {code}"),
        None => outcome.to_owned(),
    }
}

fn hostile_settings() -> Vec<(&'static str, Value)> {
    let mut deep = json!({});
    // As deep as the readers of most languages go.
    for _ in 0..100 {
        deep = json!({ "deeper": deep });
    }
    let wide: serde_json::Map<String, Value> = (0..1000)
        .map(|n| (format!("key-{n}"), Value::from(n)))
        .collect();
    vec![
        ("empty settings", json!({})),
        (
            "unknown keys",
            json!({"no_such_setting": null, "\u{202e}": [1, 2]}),
        ),
        ("100 deep", deep),
        ("1000 keys", Value::Object(wide)),
        ("a text of 16 KiB", json!({"text": "a".repeat(16 * 1024)})),
    ]
}
