//! Running flows and requests are asked about again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use nowconnect_policy::{Decision, PolicyBundle, Question};
use nowconnect_protocol::FlowRef;

use super::record::Draft;
use super::{Asking, Authorizer, Denial, MAX_ATTEMPTS, Refused};
use crate::codes::DenialCode;
use crate::flow_table::FlowEntry;
use crate::identity::AgentIdentity;
use crate::telemetry::decisions::{DecisionAction, Why};

/// What runs and is asked about again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running<'a> {
    pub(super) question: &'a Arc<Question>,
    pub(super) client: Option<SocketAddr>,
    pub(super) listener: &'a Arc<str>,
    pub(super) flow: Option<&'a FlowRef>,
    /// Whether the external decision point was asked about it.
    pub(super) external: bool,
}

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
        let running = Running {
            question: &flow.question,
            client: flow.client,
            listener: &flow.listener,
            flow: Some(&flow.flow_ref),
            // It is never asked about flows of the hub itself.
            external: !matches!(flow.question.as_ref(), Question::UpstreamOpen(_)),
        };
        self.recheck_running(&running, identity).await
    }

    /// The same about a flow or a request.
    ///
    /// # Errors
    /// It may not go on.
    pub(super) async fn recheck_running(
        &self,
        running: &Running<'_>,
        identity: &AgentIdentity,
    ) -> Result<u64, Denial> {
        let mut attempt = 1;
        loop {
            let mut asking = Asking::begin(self);
            let asked_again = again(running.question, asking.now);
            let mut decision = None;
            let mut outcome =
                self.recheck_policies(&asked_again, identity, &mut asking, &mut decision);
            if outcome.is_ok() && running.external {
                outcome = self.recheck_external(&mut asking, &asked_again).await;
            }
            // What ends a flow must still be so when it is said.
            if self.is_overtaken(&asking) && attempt < MAX_ATTEMPTS {
                attempt += 1;
                self.metrics.policy.decided_again(action(running.question));
                continue;
            }
            return match outcome {
                // An unchanged answer is no news: the record of the first decision stands.
                Ok(()) => Ok(asking.generation.number()),
                Err(refused) => {
                    self.forbidden_now(running, &asking, decision.as_ref(), &refused);
                    Err(refused.into_denial(asking.id))
                }
            };
        }
    }

    fn recheck_policies(
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
        refused.map_or(Ok(()), Err)
    }

    /// The record of what runs and may not go on.
    fn forbidden_now(
        &self,
        running: &Running<'_>,
        asking: &Asking,
        decision: Option<&Decision>,
        refused: &Refused,
    ) {
        let mut draft = Draft::new(self, asking, action(running.question))
            .listener(running.listener)
            .question(running.question)
            .recheck(true);
        if let Some(client) = running.client {
            draft = draft.client(client);
        }
        if let Some(flow) = running.flow {
            draft = draft.flow(flow);
        }
        draft = match running.question.as_ref() {
            Question::Open(open) => draft
                .principal("Viewer", open.viewer.id())
                .resource("Connector", open.connector.as_str())
                .agent(open.agent.as_str())
                .connector(open.connector.as_str()),
            Question::HttpRequest(request) => draft
                .principal("Viewer", request.viewer.id())
                .resource("Endpoint", request.endpoint.as_str())
                .agent(request.agent.as_str())
                .connector(request.connector.as_str()),
            Question::UpstreamOpen(open) => draft
                .principal("Node", &self.hub)
                .resource("Connector", open.connector.as_str())
                .agent(open.agent.as_str())
                .connector(open.connector.as_str()),
            Question::Hello(_)
            | Question::Announce(_)
            | Question::EndpointCreate(_)
            | Question::MeshJoin(_)
            | Question::MeshForward(_)
            | Question::Admin(_) => draft,
        };
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

/// What a question that is asked again is recorded as.
fn action(question: &Question) -> DecisionAction {
    match question {
        Question::HttpRequest(_) => DecisionAction::HttpRequest,
        Question::UpstreamOpen(_) => DecisionAction::UpstreamOpen,
        Question::Open(_)
        | Question::Hello(_)
        | Question::Announce(_)
        | Question::EndpointCreate(_)
        | Question::MeshJoin(_)
        | Question::MeshForward(_)
        | Question::Admin(_) => DecisionAction::Open,
    }
}

/// The same question, asked now.
fn again(question: &Question, now: SystemTime) -> Question {
    let mut question = question.clone();
    let meta = match &mut question {
        Question::Open(open) => &mut open.meta,
        Question::HttpRequest(request) => &mut request.meta,
        Question::UpstreamOpen(open) => &mut open.meta,
        Question::Hello(_)
        | Question::Announce(_)
        | Question::EndpointCreate(_)
        | Question::MeshJoin(_)
        | Question::MeshForward(_)
        | Question::Admin(_) => return question,
    };
    meta.now_ms = super::unix_ms(now);
    meta.recheck = true;
    question
}
