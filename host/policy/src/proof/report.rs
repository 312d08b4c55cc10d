//! Answers become verdicts.

use std::collections::{HashMap, HashSet};
use std::fmt;

use cedar_policy::PolicySet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shown::Counterexample;
use super::{Environment, Proof, Query, State};
use crate::bundle::PolicyBundle;
use crate::scene::{Posed, RequestJson};

/// What is to be proved of every request of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "claim", rename_all = "snake_case")]
pub enum Claim {
    /// What the new set allows, the old one allows.
    LetsNothingNewIn,
    /// What the old set allows, the new one allows.
    DeniesNothingNew,
    /// A policy can always be evaluated.
    NeverErrors {
        /// Its id.
        policy: String,
    },
    /// There is a request that is allowed. No fault where there is none: nobody was meant to.
    SometimesAllows,
    /// What an assertion of the set says.
    Assertion {
        /// Its id.
        id: String,
    },
    /// There is a request that an assertion is about. One that is about none would hold whatever
    /// the policies say, so it counts as not proved.
    Describes {
        /// The assertion's id.
        id: String,
    },
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LetsNothingNewIn => f.write_str("lets nothing new in"),
            Self::DeniesNothingNew => f.write_str("denies nothing new"),
            Self::NeverErrors { policy } => write!(f, "`{policy}` never errors"),
            Self::SometimesAllows => f.write_str("allows something"),
            Self::Assertion { id } => write!(f, "assertion `{id}`"),
            Self::Describes { id } => write!(f, "assertion `{id}` describes a request"),
        }
    }
}

/// What came of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// No policy that matters to such requests changes.
    Unchanged,
    /// The solver proved it.
    Proved,
    /// It does not hold: here is a request, checked by the hub's own engine.
    Disproved(Box<Counterexample>),
    /// Nobody knows. Counts as if it did not hold.
    NotProved {
        /// Why, with the policy that it is because of.
        why: String,
    },
}

impl Verdict {
    /// Whether the claim is sure to hold.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self {
            Self::Unchanged | Self::Proved => true,
            Self::Disproved(_) | Self::NotProved { .. } => false,
        }
    }
}

/// A claim with its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimResult {
    /// What was to be proved.
    #[serde(flatten)]
    pub claim: Claim,
    /// Of which requests.
    pub environment: Environment,
    /// What came of it.
    pub verdict: Verdict,
}

/// Everything that came of a proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProofReport {
    /// In the order of environments.
    pub results: Vec<ClaimResult>,
    /// What changes besides policies. A proof does not cover it: replay and shadow do.
    pub changed_facts: Vec<String>,
}

impl ProofReport {
    /// Whether every claim of this kind holds. Changed facts are not covered.
    #[must_use]
    pub fn all_hold(&self, kind: impl Fn(&Claim) -> bool) -> bool {
        self.results
            .iter()
            .filter(|result| kind(&result.claim))
            .all(|result| result.verdict.holds())
    }

    /// Whether the change of *policies* is proved to let nothing new in. Look at
    /// [`changed_facts`](Self::changed_facts) too.
    #[must_use]
    pub fn lets_nothing_new_in(&self) -> bool {
        self.all_hold(|claim| *claim == Claim::LetsNothingNewIn)
    }

    /// Whether the change of *policies* is proved to deny nothing new.
    #[must_use]
    pub fn denies_nothing_new(&self) -> bool {
        self.all_hold(|claim| *claim == Claim::DeniesNothingNew)
    }
}

/// A line of the program's output.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Answer {
        query: usize,
        #[serde(flatten)]
        answer: Answer,
    },
    Other {},
}

#[derive(Debug, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
enum Answer {
    Proved,
    Counterexample { request: Value, entities: Value },
    Unsupported { policy: usize, message: String },
    MayError { policy: usize },
    Unknown { message: String },
}

impl Proof {
    /// Reads the program's answers. What has none, is told as not proved because of `missing`.
    #[must_use]
    pub fn report(&self, output: &str, missing: &str) -> ProofReport {
        let mut answers = HashMap::new();
        for line in output.lines() {
            if let Ok(Line::Answer { query, answer }) = serde_json::from_str(line) {
                answers.insert(query, answer);
            }
        }
        let mut results: Vec<ClaimResult> = self
            .claims
            .iter()
            .enumerate()
            .map(|(number, open)| {
                let verdict = match &open.state {
                    State::Settled(verdict) => verdict.clone(),
                    State::Asked(query) => match answers.remove(&number) {
                        Some(answer) => self.verdict(&open.claim, query, answer),
                        None => not_proved(missing),
                    },
                };
                ClaimResult {
                    claim: open.claim.clone(),
                    environment: open.environment.clone(),
                    verdict,
                }
            })
            .collect();
        keep_what_is_described(&mut results);
        ProofReport {
            results,
            changed_facts: self.changed_facts.clone(),
        }
    }

    fn verdict(&self, claim: &Claim, query: &Query, answer: Answer) -> Verdict {
        match (answer, claim) {
            (Answer::Proved, Claim::SometimesAllows) => not_proved("it denies every such request"),
            (Answer::Proved, Claim::Describes { .. }) => {
                not_proved("there is no such request that it is about")
            }
            (Answer::Counterexample { .. }, Claim::SometimesAllows | Claim::Describes { .. }) => {
                Verdict::Proved
            }
            (Answer::Proved, _) => Verdict::Proved,
            (Answer::Counterexample { request, entities }, _) => {
                match self.confirm(claim, query, request, entities) {
                    Ok(counterexample) => Verdict::Disproved(Box::new(counterexample)),
                    Err(problem) => not_proved(&format!(
                        "the solver's example does not hold here: {problem}"
                    )),
                }
            }
            (Answer::Unsupported { policy, message }, _) => not_proved(&format!(
                "policy `{}` has no formula: {message}",
                self.table.id(policy)
            )),
            (Answer::MayError { policy }, _) => not_proved(&format!(
                "policy `{}` may fail to evaluate, which denies",
                self.table.id(policy)
            )),
            (Answer::Unknown { message }, _) => not_proved(&message),
        }
    }

    /// Puts a counterexample to the hub's own engine.
    fn confirm(
        &self,
        claim: &Claim,
        query: &Query,
        request: Value,
        entities: Value,
    ) -> Result<Counterexample, String> {
        let json: RequestJson =
            serde_json::from_value(request.clone()).map_err(|error| error.to_string())?;
        let posed = Posed::new(json, entities.clone(), self.newest().schema())?;
        let decide = |bundle: &PolicyBundle| {
            let scene = posed.scene();
            let whole = bundle.index.whole();
            let response = bundle
                .authorizer
                .is_authorized(scene.request, &whole, scene.entities);
            bundle.decision(&response)
        };
        let before = decide(&self.before);
        let after = self.after.as_ref().map(decide);
        let matched = |number: usize| {
            let set = self.table.texts.get(number)?.parse::<PolicySet>().ok()?;
            let scene = posed.scene();
            let response =
                self.before
                    .authorizer
                    .is_authorized(scene.request, &set, scene.entities);
            Some(response)
        };
        let holds = match (claim, query, &after) {
            (Claim::LetsNothingNewIn, _, Some(after)) => !before.allow && after.allow,
            (Claim::DeniesNothingNew, _, Some(after)) => before.allow && !after.allow,
            (Claim::NeverErrors { .. }, Query::NeverErrors { policy }, _) => matched(*policy)
                .is_some_and(|response| response.diagnostics().errors().next().is_some()),
            (Claim::Assertion { .. }, Query::Implies { left, right }, _) => {
                let own = |numbers: &[usize], others: &[usize]| {
                    numbers
                        .iter()
                        .filter(|number| !others.contains(number))
                        .filter_map(|number| matched(*number))
                        .any(|response| response.diagnostics().reason().next().is_some())
                };
                if left.len() == 1 && !right.contains(&left[0]) {
                    own(left, right) && !before.allow
                } else {
                    own(right, left) && before.allow
                }
            }
            _ => false,
        };
        if !holds {
            return Err("the engine decides it otherwise".to_owned());
        }
        Ok(Counterexample::new(
            request,
            entities,
            &before,
            after.as_ref(),
        ))
    }
}

/// An assertion may be about some kinds of request only: it is enough that it is about one.
fn keep_what_is_described(results: &mut Vec<ClaimResult>) {
    let described: HashSet<String> = results
        .iter()
        .filter(|result| result.verdict.holds())
        .filter_map(|result| match &result.claim {
            Claim::Describes { id } => Some(id.clone()),
            Claim::LetsNothingNewIn
            | Claim::DeniesNothingNew
            | Claim::NeverErrors { .. }
            | Claim::SometimesAllows
            | Claim::Assertion { .. } => None,
        })
        .collect();
    results.retain(|result| match &result.claim {
        Claim::Describes { id } => result.verdict.holds() || !described.contains(id),
        Claim::LetsNothingNewIn
        | Claim::DeniesNothingNew
        | Claim::NeverErrors { .. }
        | Claim::SometimesAllows
        | Claim::Assertion { .. } => true,
    });
}

fn not_proved(why: &str) -> Verdict {
    Verdict::NotProved {
        why: why.to_owned(),
    }
}
