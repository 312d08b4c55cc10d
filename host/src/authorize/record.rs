//! From a decision to its record, its metrics and its log line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nowconnect_policy::{Decision, PolicyRef, Question, ReasonKind, Signals};
use nowconnect_protocol::FlowRef;

use super::{Asking, Authorizer, Refused, unix_ms};
use crate::generation::Generation;
use crate::telemetry::decisions::{
    self, DecisionAction, DecisionId, DecisionRecord, Latency, PdpAnswer, PluginAnswer,
    PolicyAnswer, Why,
};
use crate::telemetry::{redact, traces};

pub(super) fn why(kind: ReasonKind) -> Why {
    match kind {
        ReasonKind::Permitted => Why::Permitted,
        ReasonKind::Forbidden => Why::Forbidden,
        ReasonKind::NotPermitted => Why::NotPermitted,
        ReasonKind::Error => Why::Error,
    }
}

/// Digits of a digest that are recorded: enough to tell all sets of a hub's life apart.
const SHOWN_DIGITS: usize = 12;

/// A record that still wants its outcome.
#[must_use]
pub(super) struct Draft<'a> {
    authorizer: &'a Authorizer,
    record: DecisionRecord,
    generation: Arc<Generation>,
    question: Option<Arc<Question>>,
    /// What the policies said, whatever the others say.
    decision: Option<&'a Decision>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(authorizer: &'a Authorizer, asking: &Asking, action: DecisionAction) -> Self {
        let mut record = DecisionRecord::new(
            asking.id,
            unix_ms(asking.now),
            Arc::clone(&authorizer.hub),
            asking.generation.number(),
            action,
            (false, Why::Error),
        );
        if let Some((trace, span)) = traces::current_ids() {
            record.trace_id = Some(trace);
            record.span_id = Some(span);
        }
        let policies = asking.generation.policies();
        record.policy_digest = policies.digest().get(..SHOWN_DIGITS).map(Arc::from);
        record.schema_digest = policies.schema_digest().get(..SHOWN_DIGITS).map(Arc::from);
        record.revision = asking.generation.revision();
        record.latency = Latency {
            policy_us: micros(asking.policy_time),
            plugins_us: micros(asking.plugin_time),
            pdp_us: micros(asking.pdp_time),
            total_us: micros(asking.started.elapsed()),
        };
        record.pdp.clone_from(&asking.pdp);
        Self {
            authorizer,
            record,
            generation: Arc::clone(&asking.generation),
            question: None,
            decision: None,
        }
    }

    /// An announce is a decision of its own within a HELLO.
    pub(super) fn announce(authorizer: &'a Authorizer, asking: &Asking) -> Self {
        let mut draft = Self::new(authorizer, asking, DecisionAction::Announce);
        draft.record.decision_id = authorizer.ids.next_id();
        draft.record.pdp = None;
        draft
    }

    pub(super) fn id(&self) -> DecisionId {
        self.record.decision_id
    }

    pub(super) fn principal(mut self, kind: &str, name: &str) -> Self {
        self.record.principal = uid(kind, name);
        self
    }

    pub(super) fn resource(mut self, kind: &str, name: &str) -> Self {
        self.record.resource = uid(kind, name);
        self
    }

    pub(super) fn client(mut self, client: SocketAddr) -> Self {
        self.record.client = Some(client);
        self
    }

    /// The address of an agent that asks.
    pub(super) fn dials_from(mut self, agent: SocketAddr) -> Self {
        self.record.agent_network = Some(redact::network_of(agent.ip()));
        self.record.agent_address = Some(agent);
        self
    }

    pub(super) fn listener(mut self, listener: &Arc<str>) -> Self {
        self.record.listener = Some(Arc::clone(listener));
        self
    }

    pub(super) fn agent(mut self, agent: &str) -> Self {
        self.record.agent = Some(Arc::from(agent));
        self
    }

    pub(super) fn connector(mut self, connector: &str) -> Self {
        self.record.connector = Some(Arc::from(connector));
        self
    }

    pub(super) fn pdp(mut self, answer: Option<PdpAnswer>) -> Self {
        self.record.pdp = answer;
        self
    }

    pub(super) fn flow(mut self, flow: &FlowRef) -> Self {
        self.record.flow = Some(flow.to_string());
        self
    }

    pub(super) fn recheck(mut self, recheck: bool) -> Self {
        self.record.recheck = recheck;
        self
    }

    pub(super) fn question(mut self, question: &Arc<Question>) -> Self {
        if let Some(signals) = signals(question) {
            self.record.signals.clone_from(&signals.present);
            self.record.signals_missing.clone_from(&signals.missing);
        }
        self.record.question = Some(decisions::Question::new(Arc::clone(question)));
        self.question = Some(Arc::clone(question));
        self
    }

    pub(super) fn policies(mut self, decision: &'a Decision) -> Self {
        self.decision = Some(decision);
        self.record.policies = decision
            .policies
            .iter()
            .map(|policy| answer(policy))
            .collect();
        self.record.errors.clone_from(&decision.errors);
        self
    }

    /// An unchanged answer of a re-check is no news: the record of the first decision stands.
    pub(super) fn allow(mut self) {
        if self.record.recheck {
            return;
        }
        self.record.allow = true;
        self.record.why = Why::Permitted;
        self.finish();
    }

    pub(super) fn deny(mut self, refused: &Refused) {
        self.record.why = refused.why;
        self.record.code = Some(refused.code.to_string());
        self.record.message = Some(refused.message.to_string());
        if refused.why == Why::Plugin {
            self.record.plugin = refused.by.as_ref().map(|name| PluginAnswer {
                name: Arc::clone(name),
                digest: None,
                code: refused.code.to_string(),
                reason: refused.private.clone(),
            });
        }
        self.finish();
    }

    fn finish(self) {
        if let (Some(question), Some(decision)) = (&self.question, self.decision) {
            let facts = self.authorizer.facts();
            let policies = self.generation.policies();
            let state = || policies.state(facts, question).ok();
            let requests = &self.authorizer.requests;
            requests.seen(question, decision, self.record.time_ms, state);
        }
        self.authorizer.log.record(self.record);
    }
}

fn signals(question: &Question) -> Option<&Signals> {
    match question {
        Question::Open(open) => Some(&open.signals),
        Question::HttpRequest(request) => Some(&request.signals),
        Question::MeshForward(forward) => Some(&forward.signals),
        Question::Hello(_)
        | Question::Announce(_)
        | Question::EndpointCreate(_)
        | Question::UpstreamOpen(_)
        | Question::MeshJoin(_)
        | Question::Admin(_) => None,
    }
}

fn answer(policy: &PolicyRef) -> PolicyAnswer {
    PolicyAnswer {
        id: Arc::from(policy.id.as_str()),
        place: Some(format!("{}:{}", policy.file, policy.line).into()),
        error: policy.error.as_deref().map(Arc::from),
        advice: policy.advice.as_deref().map(Arc::from),
    }
}

fn uid(kind: &str, name: &str) -> String {
    format!("{kind}::\"{name}\"")
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
