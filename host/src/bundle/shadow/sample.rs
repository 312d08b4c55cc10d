//! A request whose answer would change, in a form that an operator may see.

use nowconnect_policy::{Decision, Net, Question, ReasonKind, Viewer};
use serde::{Deserialize, Serialize};

use super::tally::ShadowOutcome;
use crate::telemetry::decisions::{DecisionAction, DecisionId};
use crate::telemetry::redact;

/// Policies and errors that one verdict names.
const NAMED: usize = 8;

/// One kind of request whose answer would change. Its texts have passed the redaction floor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowSample {
    /// What was asked for.
    pub action: DecisionAction,
    /// How the answers differ.
    pub outcome: ShadowOutcome,
    /// How many requests were like it.
    pub count: u64,
    /// The newest of them, for `nowconnect policy explain`.
    pub decision: DecisionId,
    /// Who asked.
    pub principal: String,
    /// For what.
    pub resource: String,
    /// From where, for the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Through which listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// What is in force.
    pub live: ShadowVerdict,
    /// What the staged set says.
    pub staged: ShadowVerdict,
}

/// One side's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowVerdict {
    /// Whether it may be.
    pub allow: bool,
    /// Why.
    pub why: ReasonKind,
    /// The policies that determined it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// What could not be evaluated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl ShadowSample {
    pub(super) fn new(
        action: DecisionAction,
        outcome: ShadowOutcome,
        decision: DecisionId,
        question: &Question,
        live: &Decision,
        staged: &Decision,
    ) -> Self {
        let (principal, resource) = parties(question);
        let net = net(question);
        Self {
            action,
            outcome,
            count: 1,
            decision,
            principal: clean(&principal),
            resource: clean(&resource),
            client: net.map(|net| format!("{}:{}", net.source_ip, net.source_port)),
            listener: net.map(|net| clean(net.listener.as_str())),
            live: ShadowVerdict::of(live),
            staged: ShadowVerdict::of(staged),
        }
    }

    /// Whether the same parties get the same two answers.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.action == other.action
            && self.outcome == other.outcome
            && self.principal == other.principal
            && self.resource == other.resource
            && self.listener == other.listener
            && self.live == other.live
            && self.staged == other.staged
    }

    pub(super) fn again(&mut self, newest: &Self) {
        self.count += 1;
        self.decision = newest.decision;
        self.client.clone_from(&newest.client);
    }
}

impl ShadowVerdict {
    fn of(decision: &Decision) -> Self {
        Self {
            allow: decision.allow,
            why: decision.kind,
            policies: decision
                .policies
                .iter()
                .take(NAMED)
                .map(|policy| clean(&policy.id))
                .collect(),
            errors: decision
                .errors
                .iter()
                .take(NAMED)
                .map(|error| clean(error))
                .collect(),
        }
    }
}

fn clean(text: &str) -> String {
    redact::floor(text).into_owned()
}

/// Principal and resource in the form of decision records.
fn parties(question: &Question) -> (String, String) {
    let uid = |kind: &str, name: &str| format!("{kind}::\"{name}\"");
    let viewer = |viewer: &Viewer| match viewer {
        Viewer::Anonymous => uid("Viewer", "anonymous"),
        Viewer::Known(facts) => uid("Viewer", facts.viewer.as_str()),
    };
    match question {
        Question::Hello(asked) => (
            uid("Agent", asked.agent.agent.as_str()),
            uid("Node", &asked.meta.hub),
        ),
        Question::Announce(asked) => (
            uid("Agent", asked.agent.agent.as_str()),
            uid("Connector", asked.connector.as_str()),
        ),
        Question::EndpointCreate(asked) => (
            uid("Agent", asked.agent.agent.as_str()),
            uid("Endpoint", asked.endpoint.endpoint.as_str()),
        ),
        Question::Open(asked) => (
            viewer(&asked.viewer),
            uid("Connector", asked.connector.as_str()),
        ),
        Question::HttpRequest(asked) => (
            viewer(&asked.viewer),
            uid("Endpoint", asked.endpoint.as_str()),
        ),
        Question::UpstreamOpen(asked) => (
            uid("Node", &asked.meta.hub),
            uid("Connector", asked.connector.as_str()),
        ),
        Question::MeshJoin(asked) => (uid("Node", &asked.peer), uid("Node", &asked.meta.hub)),
        Question::MeshForward(asked) => (
            uid("Node", &asked.origin),
            uid("Connector", asked.connector.as_str()),
        ),
        Question::Admin(asked) => (
            uid("Operator", asked.operator.operator.as_str()),
            format!("{:?}", asked.deed),
        ),
    }
}

fn net(question: &Question) -> Option<&Net> {
    match question {
        Question::Hello(asked) => Some(&asked.net),
        Question::Announce(asked) => Some(&asked.net),
        Question::EndpointCreate(asked) => Some(&asked.net),
        Question::Open(asked) => Some(&asked.net),
        Question::HttpRequest(asked) => Some(&asked.net),
        Question::MeshJoin(asked) => Some(&asked.net),
        Question::MeshForward(asked) => Some(&asked.net),
        Question::Admin(asked) => Some(&asked.net),
        Question::UpstreamOpen(_) => None,
    }
}
