//! OPEN: may this client reach this connector through this agent, and within which bounds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nowconnect_plugins as plugins;
use nowconnect_plugins::{Agent, CallInfo, Carry, Enrich, Hook, OpenOutcome, Terms};
use nowconnect_policy::{Decision, Name, Open, Question, Signals, Viewer};
use nowconnect_protocol::TenantName;

use super::record::Draft;
use super::{
    Asking, Authorizer, Denial, MAX_ATTEMPTS, Refused, enriched, net, plugin_peer, plugin_tenant,
};
use crate::generation::Stamp;
use crate::identity::AgentIdentity;
use crate::telemetry::decisions::{DecisionAction, DecisionId};

/// What is asked. Everything is shared with the listener and the tunnel; nothing is copied
/// that a decision does not need.
#[derive(Clone, Copy, Debug)]
pub struct OpenAsk<'a> {
    /// The listener as policies know it.
    pub listener: &'a Name,
    /// The listener's name.
    pub listener_text: &'a Arc<str>,
    /// The connector as policies know it.
    pub connector: &'a Name,
    /// The connector's name within its tenant.
    pub connector_text: &'a str,
    /// Whose connector it is.
    pub tenant: &'a TenantName,
    /// The client, after the PROXY protocol.
    pub client: SocketAddr,
    /// What the agent's token proves.
    pub identity: &'a AgentIdentity,
    /// The agent as policies know it.
    pub agent: &'a Name,
    /// The agent as plugins see it.
    pub plugin_agent: &'a Agent,
    /// The flows that the connector has now.
    pub open_flows: u32,
    /// Bound on all plugins together.
    pub pipeline_timeout: Duration,
}

/// The flow may start; only the pipeline makes one.
#[derive(Debug)]
pub struct OpenPermit {
    question: Arc<Question>,
    terms: Terms,
    decision: DecisionId,
    request_id: Arc<str>,
    generation: u64,
    stamp: Stamp,
}

impl OpenPermit {
    /// What was asked, to be asked again.
    pub fn question(&self) -> &Arc<Question> {
        &self.question
    }

    /// The bounds that plugins set.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Names the record.
    pub fn decision(&self) -> DecisionId {
        self.decision
    }

    /// The same as text; log, span and plugins share it.
    pub fn request_id(&self) -> &Arc<str> {
        &self.request_id
    }

    /// The generation that allowed it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What it rests on. Whoever lets the flow in compares it with what is in force then.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Takes the metadata for OPEN and what plugins attached for the close hook.
    pub fn take_attachments(&mut self) -> (Vec<(String, String)>, Carry) {
        (
            std::mem::take(&mut self.terms.attributes),
            std::mem::take(&mut self.terms.carry),
        )
    }
}

impl Authorizer {
    /// Decides about one flow through one agent. Limits and address rules were checked before.
    /// Without plugins or a decision point for this there is nothing to wait for.
    ///
    /// # Errors
    /// It may not start.
    pub async fn open(&self, ask: &OpenAsk<'_>) -> Result<OpenPermit, Denial> {
        let mut attempt = 1;
        loop {
            let mut asking = Asking::begin(self);
            let mut seen = Seen::default();
            let outcome = self.open_steps(ask, &mut asking, &mut seen).await;
            let overtaken = self.is_overtaken(&asking);
            if overtaken && attempt < MAX_ATTEMPTS {
                attempt += 1;
                self.metrics.policy.decided_again(DecisionAction::Open);
                continue;
            }
            let outcome = match outcome {
                Ok(_) if overtaken => Err(Refused::changing()),
                outcome => outcome,
            };
            return self.open_decided(ask, asking, seen, outcome);
        }
    }

    fn open_decided(
        &self,
        ask: &OpenAsk<'_>,
        asking: Asking,
        seen: Seen,
        outcome: Result<Terms, Refused>,
    ) -> Result<OpenPermit, Denial> {
        let mut draft = Draft::new(self, &asking, DecisionAction::Open)
            .principal("Viewer", "anonymous")
            .resource("Connector", ask.connector.as_str())
            .client(ask.client)
            .listener(ask.listener_text)
            .agent(ask.agent.as_str())
            .connector(ask.connector.as_str());
        if let Some(question) = &seen.question {
            draft = draft.question(question);
        }
        if let Some(decision) = &seen.decision {
            draft = draft.policies(decision);
        }
        match outcome {
            Ok(terms) => {
                draft.allow();
                Ok(OpenPermit {
                    question: seen.question.unwrap_or_else(|| {
                        Arc::new(self.open_question(ask, &asking, Signals::default()))
                    }),
                    terms,
                    decision: asking.id,
                    generation: asking.generation.number(),
                    stamp: asking.stamp,
                    request_id: asking.request_id,
                })
            }
            Err(refused) => {
                draft.deny(&refused);
                self.metrics.hub.denied_open(&refused.code);
                Err(refused.into_denial(asking.id))
            }
        }
    }

    /// A denial that came before an agent was chosen: a limit or an address rule. Leaves a
    /// record like any other.
    pub(crate) fn refuse_client(
        &self,
        client: SocketAddr,
        listener: &Arc<str>,
        connector: &Name,
        refused: Refused,
    ) -> Denial {
        let asking = Asking::begin(self);
        Draft::new(self, &asking, DecisionAction::Open)
            .principal("Viewer", "anonymous")
            .resource("Connector", connector.as_str())
            .client(client)
            .listener(listener)
            .connector(connector.as_str())
            .deny(&refused);
        self.metrics.hub.denied_open(&refused.code);
        refused.into_denial(asking.id)
    }

    async fn open_steps(
        &self,
        ask: &OpenAsk<'_>,
        asking: &mut Asking,
        seen: &mut Seen,
    ) -> Result<Terms, Refused> {
        self.check_identity(ask.identity, asking.now)?;
        let generation = Arc::clone(&asking.generation);
        let set = generation.plugins();
        let (enrich, gate) = (set.has(Hook::Enrich), set.has(Hook::Open));
        let pdp = self.pdp();
        if !enrich && !gate && pdp.is_none() {
            self.open_policies(ask, asking, seen, Signals::default())?;
            return Ok(Terms::default());
        }
        let _slot = self.pending.take().ok_or_else(Refused::overloaded)?;
        // The decision point has a bound of its own, which plugins do not eat into.
        let external = pdp.as_ref().map_or(Duration::ZERO, |pdp| pdp.timeout());
        let deadline = asking.started + ask.pipeline_timeout;
        let steps = async {
            let peer = plugin_peer(ask.client);
            let viewer = plugins::Viewer::default();
            let request_id = Arc::clone(&asking.request_id);
            let mut call = CallInfo {
                request_id: &request_id,
                tenant: plugin_tenant(ask.tenant),
                deadline: Some(deadline),
                generation: generation.number(),
                ..CallInfo::default()
            };
            let mut signals = Signals::default();
            let mut carry = Carry::default();
            if enrich {
                let question = Enrich {
                    connector: ask.connector_text,
                    listener: ask.listener_text,
                    peer: &peer,
                    viewer: &viewer,
                    http: None,
                };
                (signals, carry) = enriched(set, &call, &question, asking).await;
            }
            self.open_policies(ask, asking, seen, signals)?;
            if let (Some(pdp), Some(question)) = (&pdp, seen.question.clone()) {
                self.open_external(asking, pdp, &question).await?;
                call.deadline = Some(deadline + asking.pdp_time);
            }
            if !gate {
                return Ok(Terms {
                    carry,
                    ..Terms::default()
                });
            }
            let call = CallInfo {
                carry: Some(&carry),
                ..call
            };
            let started = Instant::now();
            let question = plugins::Open {
                connector: ask.connector_text,
                listener: ask.listener_text,
                peer: &peer,
                viewer: &viewer,
                agent: ask.plugin_agent,
                via_mesh: false,
            };
            let answer = set.open(&call, &question).await;
            asking.plugin_time += started.elapsed();
            match answer {
                OpenOutcome::Allow(terms) => Ok(terms),
                OpenOutcome::Deny(denial) => Err(Refused::by_plugin(denial)),
            }
        };
        let terms = match tokio::time::timeout_at((deadline + external).into(), steps).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(Refused::too_slow()),
        };
        // The token may have run out, or been revoked, while others were waited for.
        self.check_identity(ask.identity, SystemTime::now())?;
        Ok(terms)
    }

    fn open_policies(
        &self,
        ask: &OpenAsk<'_>,
        asking: &mut Asking,
        seen: &mut Seen,
        signals: Signals,
    ) -> Result<(), Refused> {
        let question = Arc::new(self.open_question(ask, asking, signals));
        let decision = self.judged(DecisionAction::Open, asking, &question);
        seen.question = Some(question);
        let outcome = if decision.allow {
            Ok(())
        } else {
            Err(Refused::by_policy(&decision))
        };
        seen.decision = Some(decision);
        outcome
    }

    fn open_question(&self, ask: &OpenAsk<'_>, asking: &Asking, signals: Signals) -> Question {
        Question::Open(Open {
            net: net(ask.client, ask.listener.clone()),
            meta: self.meta(asking.now, &asking.request_id),
            viewer: Viewer::Anonymous,
            connector: ask.connector.clone(),
            agent: ask.agent.clone(),
            open_flows: ask.open_flows,
            via_mesh: false,
            signals,
        })
    }
}

/// What the record should show, whatever the outcome.
#[derive(Default)]
struct Seen {
    question: Option<Arc<Question>>,
    decision: Option<Decision>,
}
