//! Running flows are asked about again.

use std::time::SystemTime;

use nowconnect_policy::{Decision, PolicyBundle, Question};

use super::record::Draft;
use super::{Asking, Authorizer, Denial, MAX_ATTEMPTS, Refused};
use crate::codes::DenialCode;
use crate::flow_table::FlowEntry;
use crate::identity::AgentIdentity;
use crate::telemetry::decisions::{DecisionAction, Why};

impl Authorizer {
    /// Asks about a running flow again: expiry apart, which has a rule of its own, everything
    /// that can change its answer without its client's doing, the external decision point
    /// included. Open gates are not asked again, because one that counts would count twice.
    ///
    /// # Errors
    /// It may not go on.
    pub(crate) async fn recheck(
        &self,
        flow: &FlowEntry,
        identity: &AgentIdentity,
    ) -> Result<u64, Denial> {
        let mut attempt = 1;
        loop {
            let mut asking = Asking::begin(self);
            let asked_again = again(&flow.question, asking.now);
            let mut decision = None;
            let outcome = self
                .recheck_steps(&asked_again, identity, &mut asking, &mut decision)
                .await;
            // What ends a flow must still be so when it is said.
            if self.is_overtaken(&asking) && attempt < MAX_ATTEMPTS {
                attempt += 1;
                self.metrics.policy.decided_again(DecisionAction::Open);
                continue;
            }
            return match outcome {
                // An unchanged answer is no news: the record of the first decision stands.
                Ok(()) => Ok(asking.generation.number()),
                Err(refused) => {
                    self.forbidden_now(flow, &asking, decision.as_ref(), &refused);
                    Err(refused.into_denial(asking.id))
                }
            };
        }
    }

    async fn recheck_steps(
        &self,
        question: &Question,
        identity: &AgentIdentity,
        asking: &mut Asking,
        decision: &mut Option<Decision>,
    ) -> Result<(), Refused> {
        if self.revocations.load().is_revoked(identity) {
            return Err(Refused::by_hub(
                Why::Identity,
                DenialCode::Revoked,
                "the agent's credential was revoked",
            ));
        }
        let answer = asking.generation.policies().decide(&self.facts, question);
        asking.policy_time = answer.took;
        let refused = (!answer.allow).then(|| Refused::by_policy(&answer));
        *decision = Some(answer);
        match refused {
            Some(refused) => Err(refused),
            None => self.recheck_external(asking, question).await,
        }
    }

    /// The record of a running flow that may not go on.
    fn forbidden_now(
        &self,
        flow: &FlowEntry,
        asking: &Asking,
        decision: Option<&Decision>,
        refused: &Refused,
    ) {
        let mut draft = Draft::new(self, asking, DecisionAction::Open)
            .principal("Viewer", "anonymous")
            .client(flow.client)
            .listener(&flow.listener)
            .flow(&flow.flow_ref)
            .question(&flow.question)
            .recheck(true);
        if let Question::Open(open) = flow.question.as_ref() {
            draft = draft
                .resource("Connector", open.connector.as_str())
                .agent(open.agent.as_str())
                .connector(open.connector.as_str());
        }
        if let Some(decision) = decision {
            draft = draft.policies(decision);
        }
        draft.deny(refused);
    }

    /// Whether these policies let a running flow go on.
    pub(crate) fn foresee_open(&self, policies: &PolicyBundle, question: &Question) -> bool {
        let asked_again = again(question, SystemTime::now());
        policies.decide(&self.facts, &asked_again).allow
    }
}

/// The same question, asked now.
fn again(question: &Question, now: SystemTime) -> Question {
    let mut question = question.clone();
    if let Question::Open(open) = &mut question {
        open.meta.now_ms = super::unix_ms(now);
        open.meta.recheck = true;
    }
    question
}
