//! OPEN: may this client reach this connector through this agent, and within which bounds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nowconnect_plugins as plugins;
use nowconnect_plugins::{Agent, CallInfo, Carry, Enrich, Hook, OpenOutcome, Terms};
use nowconnect_policy::{Decision, Name, Open, PolicyBundle, Question, Signals, Viewer};
use nowconnect_protocol::TenantName;

use super::record::Draft;
use super::{Asking, Authorizer, Denial, Refused, net, plugin_peer, plugin_tenant};
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

    /// The newest generation that allows it: the one that decided, or a later one that came while
    /// plugins or a decision point were waited for, and lets the answer stand.
    pub fn generation(&self) -> u64 {
        self.generation
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
        let mut asking = Asking::begin(self);
        let mut seen = Seen::default();
        let outcome = self.open_steps(ask, &mut asking, &mut seen).await;
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
                    generation: seen.confirmed.unwrap_or_else(|| asking.generation.number()),
                    request_id: asking.request_id,
                })
            }
            Err(refused) => {
                draft.recheck(seen.overruled).deny(&refused);
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

    /// Asks about a running flow again: expiry apart, which has a rule of its own, everything
    /// that can change its answer without its client's doing, the external decision point
    /// included. Open gates are not asked again, because one that counts would count twice.
    ///
    /// # Errors
    /// It may not go on.
    pub(crate) async fn recheck(
        &self,
        question: &Arc<Question>,
        identity: &AgentIdentity,
        client: SocketAddr,
    ) -> Result<u64, Denial> {
        let mut asking = Asking::begin(self);
        let asked_again = again(question, asking.now);
        let mut decision = None;
        let outcome = if self.revocations.load().is_revoked(identity) {
            Err(Refused::by_hub(
                crate::telemetry::decisions::Why::Identity,
                crate::codes::DenialCode::Revoked,
                "the agent's credential was revoked",
            ))
        } else {
            let answer = asking
                .generation
                .policies()
                .decide(&self.facts, &asked_again);
            asking.policy_time = answer.took;
            let refused = (!answer.allow).then(|| Refused::by_policy(&answer));
            decision = Some(answer);
            match refused {
                Some(refused) => Err(refused),
                None => self.recheck_external(&mut asking, &asked_again).await,
            }
        };
        match outcome {
            // An unchanged answer is no news: the record of the first decision stands.
            Ok(()) => Ok(asking.generation.number()),
            Err(refused) => {
                let mut draft = Draft::new(self, &asking, DecisionAction::Open)
                    .principal("Viewer", "anonymous")
                    .client(client)
                    .question(question)
                    .recheck(true);
                if let Question::Open(open) = question.as_ref() {
                    draft = draft
                        .resource("Connector", open.connector.as_str())
                        .agent(open.agent.as_str())
                        .connector(open.connector.as_str());
                }
                if let Some(decision) = &decision {
                    draft = draft.policies(decision);
                }
                draft.deny(&refused);
                Err(refused.into_denial(asking.id))
            }
        }
    }

    /// Whether these policies let a running flow go on.
    pub(crate) fn foresee_open(&self, policies: &PolicyBundle, question: &Question) -> bool {
        let asked_again = again(question, SystemTime::now());
        policies.decide(&self.facts, &asked_again).allow
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
                let started = Instant::now();
                let question = Enrich {
                    connector: ask.connector_text,
                    listener: ask.listener_text,
                    peer: &peer,
                    viewer: &viewer,
                    http: None,
                };
                let found = set.enrich(&call, &question).await;
                asking.plugin_time += started.elapsed();
                carry = found.carry;
                signals = Signals {
                    present: found.signals,
                    missing: found.missing,
                };
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
        self.still_allowed(ask, asking, seen)?;
        Ok(terms)
    }

    /// What was decided some time ago, because plugins or a decision point had to be waited for,
    /// must hold now: a re-check of running flows does not know of this one yet.
    ///
    /// This is such a re-check: the later policies see the signals of the plugins before them.
    /// They can only take back. Where they do not, the record stays that of the one generation
    /// whose policies and plugins decided.
    fn still_allowed(
        &self,
        ask: &OpenAsk<'_>,
        asking: &mut Asking,
        seen: &mut Seen,
    ) -> Result<(), Refused> {
        self.check_identity(ask.identity, SystemTime::now())?;
        let current = self.generations.current();
        if current.number() == asking.generation.number() {
            return Ok(());
        }
        seen.confirmed = Some(current.number());
        let Some(question) = seen.question.clone() else {
            return Ok(());
        };
        let decision = current.policies().decide(&self.facts, &question);
        asking.policy_time += decision.took;
        if decision.allow {
            return Ok(());
        }
        let refused = Refused::by_policy(&decision);
        asking.generation = current;
        seen.decision = Some(decision);
        seen.overruled = true;
        Err(refused)
    }

    fn open_policies(
        &self,
        ask: &OpenAsk<'_>,
        asking: &mut Asking,
        seen: &mut Seen,
        signals: Signals,
    ) -> Result<(), Refused> {
        let question = Arc::new(self.open_question(ask, asking, signals));
        let decision = asking.generation.policies().decide(&self.facts, &question);
        asking.policy_time += decision.took;
        self.shadow.saw(
            DecisionAction::Open,
            asking.id,
            &asking.generation,
            &question,
            &decision,
        );
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
    /// A later generation that lets the answer stand.
    confirmed: Option<u64>,
    /// A later generation took the answer back.
    overruled: bool,
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
