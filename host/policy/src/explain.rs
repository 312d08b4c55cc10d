//! Why a decision came out as it did, and what would have turned it.
//!
//! The engine names the policies that determined an answer and nothing else. Here the policies
//! of the request's environment are taken apart: first their scope, then each condition on its
//! own, with the values that it saw. A permit whose scope matched and of which a condition
//! failed is a *near miss*.

mod conditions;
mod text;

use std::sync::Arc;

use cedar_policy::{Effect, Policy};
use serde::{Deserialize, Serialize};

use crate::bundle::PolicyBundle;
use crate::decision::{Decision, PolicyRef, ReasonKind};
use crate::facts::Facts;
use crate::question::Question;
use crate::request::{Asked, Shared};
use crate::scene::{Posed, RequestJson, Scene};

use conditions::{Condition, Outcome};

/// Near misses, and permits out of scope, that an explanation lists; the rest is counted.
const LISTED: usize = 16;

/// Why a decision came out as it did. Its `Display` is the text for a terminal.
///
/// It quotes facts of the request, so it is for operators, and passes the redaction step like
/// any other record before it leaves the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// What was asked; absent where a fact was missing to ask it.
    pub request: Option<RequestShown>,
    /// The policies that determined it.
    pub determining: Vec<PolicyShown>,
    /// Policies of which at least one condition could not be evaluated.
    pub failing: Vec<PolicyShown>,
    /// Permits whose scope matched, and of which a condition did not hold.
    pub near_misses: Vec<PolicyShown>,
    /// Permits for this action whose scope is about somebody or something else.
    pub out_of_scope: Vec<ScopeShown>,
    /// Near misses and permits out of scope that are not listed.
    pub unlisted: usize,
    /// What would turn the decision, one sentence each.
    pub turns: Vec<String>,
}

/// A request in a few words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestShown {
    /// Who asked.
    pub principal: String,
    /// What was asked.
    pub action: String,
    /// What it was asked on.
    pub resource: String,
}

/// A policy, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyShown {
    /// Which, and where it stands.
    pub policy: PolicyRef,
    /// `permit` or `forbid`.
    pub effect: String,
    /// Its conditions in order.
    pub conditions: Vec<ConditionShown>,
}

/// One condition of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionShown {
    /// As it would stand in a `when`.
    pub text: String,
    /// Whether it held; `None` where it could not be evaluated or was not reached.
    pub holds: Option<bool>,
    /// Why it could not be evaluated.
    pub error: Option<String>,
    /// What it looked at, and what was there.
    pub values: Vec<(String, String)>,
}

/// A permit that is about somebody or something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeShown {
    /// Which, and where it stands.
    pub policy: PolicyRef,
    /// The sides of its scope that do not match.
    pub wants: Vec<String>,
}

impl PolicyBundle {
    /// Answers a question and says why, with the policies that nearly applied. Takes about a
    /// millisecond for a thousand policies: for an operator who asks, not for each request.
    #[must_use]
    pub fn explain(&self, facts: &Facts, question: &Question) -> Explanation {
        match Asked::new(question, facts, self.kit(true), &mut Shared::default()) {
            Ok(asked) => self.explain_scene(&Scene::from(&asked)),
            Err(problem) => Explanation {
                turns: vec![format!("nothing was evaluated, because {problem}")],
                ..Explanation::of(self.unanswerable(problem), None)
            },
        }
    }

    /// Explains a request in JSON: a test case, or `principal`, `action`, `resource`, `context`
    /// and `entities` by themselves.
    ///
    /// # Errors
    /// A sentence where the text is no such JSON, or does not conform to the schema.
    pub fn explain_json(&self, json: &str) -> Result<Explanation, String> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum File {
            Case {
                request: RequestJson,
                #[serde(default)]
                entities: Vec<serde_json::Value>,
            },
            Bare {
                #[serde(flatten)]
                request: RequestJson,
                #[serde(default)]
                entities: Vec<serde_json::Value>,
            },
        }
        let file: File = serde_json::from_str(json).map_err(|error| {
            format!(
                "not a request: {error}; it needs `principal`, `action`, `resource`, `context` \
                 and `entities`, at the top or (as in a test case) under `request`"
            )
        })?;
        let (request, entities) = match file {
            File::Case { request, entities } | File::Bare { request, entities } => {
                (request, entities)
            }
        };
        let posed = Posed::new(request, serde_json::Value::Array(entities), self.schema())?;
        Ok(self.explain_scene(&posed.scene()))
    }

    fn explain_scene(&self, scene: &Scene<'_>) -> Explanation {
        let decision = self.answer(scene);
        let shown = RequestShown {
            principal: scene.principal.uid.to_string(),
            action: scene.action.to_string(),
            resource: scene.resource.uid.to_string(),
        };
        let mut explanation = Explanation::of(decision, Some(shown));
        let policies = self.index.environment(
            scene.action,
            scene.principal.uid.type_name(),
            scene.resource.uid.type_name(),
        );
        let mut permitted = false;
        for policy in policies {
            let Some(place) = self.place_of(policy.id()) else {
                continue;
            };
            let wants = scene.out_of_scope(policy);
            if wants.is_empty() {
                let conditions = conditions::seen(policy, scene);
                permitted |= policy.effect() == Effect::Permit && all_hold(&conditions);
                explanation.sort_in(policy, place, conditions);
            } else if policy.effect() == Effect::Permit {
                explanation.out_of_scope.push(ScopeShown {
                    policy: PolicyRef::clone(place),
                    wants,
                });
            }
        }
        explanation.conclude(permitted);
        explanation
    }
}

impl Explanation {
    fn of(decision: Decision, request: Option<RequestShown>) -> Self {
        Self {
            decision,
            request,
            determining: Vec::new(),
            failing: Vec::new(),
            near_misses: Vec::new(),
            out_of_scope: Vec::new(),
            unlisted: 0,
            turns: Vec::new(),
        }
    }

    /// Puts a policy whose scope matched where it belongs, with what would turn it.
    fn sort_in(&mut self, policy: &Policy, place: &Arc<PolicyRef>, conditions: Vec<Condition>) {
        let id = &place.id;
        let determined = self.decision.policies.iter().any(|other| other.id == *id);
        let failed = conditions
            .iter()
            .any(|c| matches!(c.outcome, Outcome::Error(_)));
        let permit = policy.effect() == Effect::Permit;
        if determined && !permit {
            self.turns.push(turn_forbid(id, &conditions));
        }
        if !determined && permit && !failed && self.decision.kind == ReasonKind::NotPermitted {
            self.turns.push(turn_permit(id, &conditions));
        }
        let shown = PolicyShown {
            policy: PolicyRef::clone(place),
            effect: if permit { "permit" } else { "forbid" }.to_owned(),
            conditions: conditions.into_iter().map(Condition::shown).collect(),
        };
        if determined {
            self.determining.push(shown);
        } else if failed {
            self.failing.push(shown);
        } else if permit && shown.conditions.iter().any(|c| c.holds == Some(false)) {
            self.near_misses.push(shown);
        }
    }

    fn conclude(&mut self, permitted: bool) {
        match self.decision.kind {
            ReasonKind::Permitted => self.turns.clear(),
            ReasonKind::Forbidden if !permitted => {
                let also = "even without that no permit applies".to_owned();
                self.turns.push(also);
            }
            ReasonKind::Error => {
                self.turns.clear();
                let error = "a policy that cannot be evaluated denies; mend it or the facts \
                             that it reads"
                    .to_owned();
                self.turns.push(error);
            }
            ReasonKind::NotPermitted if self.turns.is_empty() => {
                let action = self.request.as_ref().map_or("", |request| &request.action);
                self.turns
                    .push(format!("a permit for {action} whose scope matches"));
            }
            ReasonKind::Forbidden | ReasonKind::NotPermitted => {}
        }
        let found = self.near_misses.len() + self.out_of_scope.len();
        self.near_misses.truncate(LISTED);
        self.out_of_scope.truncate(LISTED);
        self.turns.truncate(LISTED);
        self.unlisted = found - self.near_misses.len() - self.out_of_scope.len();
    }
}

fn all_hold(conditions: &[Condition]) -> bool {
    conditions
        .iter()
        .all(|condition| condition.outcome == Outcome::Holds(true))
}

fn turn_permit(id: &str, conditions: &[Condition]) -> String {
    let needed: Vec<String> = conditions
        .iter()
        .filter(|condition| condition.outcome != Outcome::Holds(true))
        .map(|condition| condition.wish(true))
        .collect();
    format!("`{id}` would permit it if {}", needed.join(" and "))
}

fn turn_forbid(id: &str, conditions: &[Condition]) -> String {
    if conditions.is_empty() {
        return format!("`{id}` forbids it without condition");
    }
    let any: Vec<String> = conditions
        .iter()
        .map(|condition| condition.wish(false))
        .collect();
    format!("`{id}` would not forbid it if {}", any.join(" or "))
}
