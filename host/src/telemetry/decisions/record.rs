//! What is known about one decision.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::telemetry::redact::{self, Covers};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecisionAction {
    /// May this agent join?
    Hello,
    /// May it offer this connector?
    Announce,
    /// May this client open a flow?
    Open,
    /// May this HTTP request pass?
    HttpRequest,
    /// May the hub open a pooled flow to an origin?
    UpstreamOpen,
    /// May this agent publish an endpoint?
    EndpointCreate,
    /// May this hub link to us?
    MeshJoin,
    /// May a flow be relayed to this owner?
    MeshForward,
    /// May this operator do this?
    Admin,
}

impl DecisionAction {
    /// The name in policies, logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Announce => "announce",
            Self::Open => "open",
            Self::HttpRequest => "http-request",
            Self::UpstreamOpen => "upstream-open",
            Self::EndpointCreate => "endpoint-create",
            Self::MeshJoin => "mesh-join",
            Self::MeshForward => "mesh-forward",
            Self::Admin => "admin",
        }
    }
}

/// The reason kind of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A policy permits and nothing denies.
    Permitted,
    /// A policy forbids.
    Forbidden,
    /// No policy permits.
    NotPermitted,
    /// A policy failed to evaluate.
    Error,
    /// A plugin denied, or failed where it must not.
    Plugin,
    /// The external decision point denied or did not answer.
    Pdp,
    /// A limit on number or rate.
    Limit,
    /// An address rule of the configuration.
    Address,
    /// The identity has expired or is revoked.
    Identity,
    /// No agent offers the connector, or none that does took the flow.
    NoAgent,
}

impl Why {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Permitted,
        Self::Forbidden,
        Self::NotPermitted,
        Self::Error,
        Self::Plugin,
        Self::Pdp,
        Self::Limit,
        Self::Address,
        Self::Identity,
        Self::NoAgent,
    ];

    /// The name in logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permitted => "permitted",
            Self::Forbidden => "forbidden",
            Self::NotPermitted => "not_permitted",
            Self::Error => "error",
            Self::Plugin => "plugin",
            Self::Pdp => "pdp",
            Self::Limit => "limit",
            Self::Address => "address",
            Self::Identity => "identity",
            Self::NoAgent => "no_agent",
        }
    }
}

/// Names one decision of one run of one hub: `<boot>-<number>`, both hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecisionId {
    boot: u64,
    number: u64,
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.boot, self.number)
    }
}

/// The text is no decision id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a decision id; it looks like `18c2f0a1b-2f`")]
pub struct ParseDecisionIdError;

impl FromStr for DecisionId {
    type Err = ParseDecisionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (boot, number) = text.split_once('-').ok_or(ParseDecisionIdError)?;
        let parse = |part: &str| u64::from_str_radix(part, 16).map_err(|_| ParseDecisionIdError);
        Ok(Self {
            boot: parse(boot)?,
            number: parse(number)?,
        })
    }
}

impl Serialize for DecisionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DecisionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hands out decision ids.
#[derive(Debug)]
pub struct DecisionIds {
    boot: u64,
    next: AtomicU64,
}

impl DecisionIds {
    /// `boot` tells this run of the hub from others, such as the start in Unix milliseconds.
    pub const fn new(boot: u64) -> Self {
        Self {
            boot,
            next: AtomicU64::new(1),
        }
    }

    /// The next id, never given before in this run.
    pub fn next_id(&self) -> DecisionId {
        DecisionId {
            boot: self.boot,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// A policy that determined the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyAnswer {
    /// The policy's `@id`.
    pub id: Arc<str>,
    /// Where it stands, `file:line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Arc<str>>,
    /// Its `@error`: the stable code that the peer sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
    /// Its `@advice`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<Arc<str>>,
}

/// The plugin that denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginAnswer {
    /// The plugin's name.
    pub name: Arc<str>,
    /// The digest of its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Arc<str>>,
    /// Its stable code.
    pub code: String,
    /// Its reason for the log, never for the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the external decision point said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PdpAnswer {
    /// `true` if it allowed.
    pub allow: bool,
    /// Its reason for the log, or the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the answer came from the cache.
    #[serde(default)]
    pub cached: bool,
}

/// Time spent on a decision, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// In policies.
    pub policy_us: u32,
    /// In plugins.
    pub plugins_us: u32,
    /// In the external decision point.
    pub pdp_us: u32,
    /// From the question to the answer.
    pub total_us: u32,
}

/// One decision, as it is logged and kept.
///
/// Names and ids in it were parsed and bounded where they came in. Free text (`message`, `errors`
/// and the reasons) passes the redaction floor in [`DecisionRecord::redacted`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Names the decision; the peer's answer, the log line and the span share it.
    pub decision_id: DecisionId,
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// The trace it belongs to, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The span of the decision in that trace, 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// The replica that decided.
    pub hub: Arc<str>,
    /// The generation of policies and plugins it was decided with.
    pub generation: u64,
    /// The first digits of the digest of those policies, as `policy check` prints them: unlike the
    /// generation they mean the same after a restart and at other hubs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_digest: Option<Arc<str>>,
    /// The first digits of the digest of the schema that they were compiled with, extension
    /// included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_digest: Option<Arc<str>>,
    /// The revision of the bundle that they came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What was asked.
    pub action: DecisionAction,
    /// Who asked, as a Cedar uid or a name.
    pub principal: String,
    /// For what, as a Cedar uid or a name.
    pub resource: String,
    /// The client's address, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// Where an agent asks from, where an agent asks: a /24, or a /48 of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_network: Option<IpNet>,
    /// Its address. It leaves the process in logs alone, and there only where
    /// `observability.redaction.agent_ips` is off; `/v1/agent-addresses` tells it and records that.
    #[serde(skip)]
    pub agent_address: Option<SocketAddr>,
    /// The listener that accepted, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Arc<str>>,
    /// The agent concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Arc<str>>,
    /// The connector concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<Arc<str>>,
    /// The flow that came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<String>,
    /// The answer.
    pub allow: bool,
    /// The kind of reason.
    pub why: Why,
    /// The stable code that the peer saw, on a deny.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What the log should say beyond the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The policies that determined it, sorted by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyAnswer>,
    /// Evaluation errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Signals that enrichers gave, `name=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<String>,
    /// Enrichers that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals_missing: Vec<String>,
    /// The plugin that denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginAnswer>,
    /// The external decision point's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pdp: Option<PdpAnswer>,
    /// Time spent.
    pub latency: Latency,
    /// Whether this was a re-check of a running flow or session.
    #[serde(default)]
    pub recheck: bool,
    /// The question itself, for `explain` in this process; never leaves it.
    #[serde(skip)]
    pub question: Option<Question>,
}

/// A question kept with its record. The policy code puts in what it can ask again.
#[derive(Clone)]
pub struct Question(Arc<dyn Any + Send + Sync>);

impl Question {
    /// Keeps `question`, shared.
    pub fn new<Q: Send + Sync + 'static>(question: Arc<Q>) -> Self {
        Self(question)
    }

    /// The question, if it is a `Q`.
    pub fn downcast<Q: Send + Sync + 'static>(&self) -> Option<Arc<Q>> {
        Arc::clone(&self.0).downcast().ok()
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question(..)")
    }
}

impl DecisionRecord {
    /// What of its addresses is covered in a log, where so much is of others.
    pub(crate) fn covers(&self, covers: Covers) -> Covers {
        if self.agent_address.is_some() {
            covers.for_agents()
        } else {
            covers
        }
    }

    /// A record with the fields that each decision has; the rest is set on the value.
    pub fn new(
        decision_id: DecisionId,
        time_ms: u64,
        hub: Arc<str>,
        generation: u64,
        action: DecisionAction,
        (allow, why): (bool, Why),
    ) -> Self {
        Self {
            decision_id,
            time_ms,
            trace_id: None,
            span_id: None,
            hub,
            generation,
            policy_digest: None,
            schema_digest: None,
            revision: None,
            action,
            principal: String::new(),
            resource: String::new(),
            client: None,
            agent_network: None,
            agent_address: None,
            listener: None,
            agent: None,
            connector: None,
            flow: None,
            allow,
            why,
            code: None,
            message: None,
            policies: Vec::new(),
            errors: Vec::new(),
            signals: Vec::new(),
            signals_missing: Vec::new(),
            plugin: None,
            pdp: None,
            latency: Latency::default(),
            recheck: false,
            question: None,
        }
    }

    /// The same record with its free text through the redaction floor.
    #[must_use]
    pub fn redacted(mut self) -> Self {
        let texts = [
            self.message.as_mut(),
            self.code.as_mut(),
            self.plugin
                .as_mut()
                .and_then(|plugin| plugin.reason.as_mut()),
            self.pdp.as_mut().and_then(|pdp| pdp.reason.as_mut()),
        ];
        for text in texts.into_iter().flatten() {
            redact::in_place(text);
        }
        for text in self.errors.iter_mut().chain(self.signals.iter_mut()) {
            redact::in_place(text);
        }
        redact::in_place(&mut self.principal);
        redact::in_place(&mut self.resource);
        self
    }

    /// Bytes that the record holds, about; what the ring's bound counts.
    pub fn weight_bytes(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let list = |texts: &Vec<String>| {
            texts
                .iter()
                .map(|text| text.len() + size_of::<String>())
                .sum::<usize>()
        };
        size_of::<Self>()
            + self.principal.len()
            + self.resource.len()
            + optional(&self.trace_id)
            + optional(&self.span_id)
            + optional(&self.flow)
            + optional(&self.code)
            + optional(&self.message)
            + self.policies.len() * size_of::<PolicyAnswer>()
            + list(&self.errors)
            + list(&self.signals)
            + list(&self.signals_missing)
            + self
                .plugin
                .as_ref()
                .map_or(0, |plugin| plugin.code.len() + optional(&plugin.reason))
            + self.pdp.as_ref().map_or(0, |pdp| optional(&pdp.reason))
            + self.question.as_ref().map_or(0, |_| MAX_QUESTION_BYTES)
    }
}

/// A question holds at most this; the pipeline bounds it.
const MAX_QUESTION_BYTES: usize = 1024;
