//! UPSTREAM-OPEN: may this hub open a flow of its own to this connector.
//!
//! Requests of many viewers share such a flow; each of them needs permits of its own beside it.

use std::sync::Arc;

use nowconnect_policy::{Name, Question, UpstreamOpen};

use super::record::Draft;
use super::{Asking, Authorizer, Denial, Refused};
use crate::generation::Stamp;
use crate::identity::AgentIdentity;
use crate::telemetry::decisions::{DecisionAction, DecisionId};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpstreamAsk<'a> {
    /// The connector as policies know it.
    pub(crate) connector: &'a Name,
    /// What the agent's token proves.
    pub(crate) identity: &'a AgentIdentity,
    /// The agent as policies know it.
    pub(crate) agent: &'a Name,
    /// What the flow is for: `http` or `health`.
    pub(crate) why: &'static str,
}

/// The flow may be opened; only the pipeline makes one.
#[derive(Debug)]
pub(crate) struct UpstreamPermit {
    question: Arc<Question>,
    decision: DecisionId,
    generation: u64,
    stamp: Stamp,
}

impl UpstreamPermit {
    /// What was asked, to be asked again.
    pub(crate) fn question(&self) -> &Arc<Question> {
        &self.question
    }

    /// Names the record.
    pub(crate) fn decision(&self) -> DecisionId {
        self.decision
    }

    /// What it rests on. Whoever opens the flow compares it with what is in force then.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The generation that allowed it.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}

impl Authorizer {
    /// Decides about one flow of the hub itself.
    ///
    /// # Errors
    /// It may not be opened.
    pub(crate) fn upstream_open(&self, ask: &UpstreamAsk<'_>) -> Result<UpstreamPermit, Denial> {
        let mut asking = Asking::begin(self);
        let question = Arc::new(Question::UpstreamOpen(UpstreamOpen {
            meta: self.meta(asking.now, &asking.request_id),
            connector: ask.connector.clone(),
            agent: ask.agent.clone(),
            why: ask.why.to_owned(),
        }));
        let mut decision = None;
        let outcome = self
            .check_identity(ask.identity, asking.now)
            .and_then(|()| {
                let answer = self.judged(DecisionAction::UpstreamOpen, &mut asking, &question);
                let refused = (!answer.allow).then(|| Refused::by_policy(&answer));
                decision = Some(answer);
                refused.map_or(Ok(()), Err)
            });
        let mut draft = Draft::new(self, &asking, DecisionAction::UpstreamOpen)
            .principal("Node", &self.hub)
            .resource("Connector", ask.connector.as_str())
            .agent(ask.agent.as_str())
            .connector(ask.connector.as_str())
            .question(&question);
        if let Some(decision) = &decision {
            draft = draft.policies(decision);
        }
        match outcome {
            Ok(()) => {
                draft.allow();
                Ok(UpstreamPermit {
                    question,
                    decision: asking.id,
                    generation: asking.generation.number(),
                    stamp: asking.stamp,
                })
            }
            Err(refused) => {
                draft.deny(&refused);
                self.metrics.hub.denied_open(&refused.code);
                Err(refused.into_denial(asking.id))
            }
        }
    }
}
