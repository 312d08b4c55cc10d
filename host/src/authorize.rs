//! The one decision pipeline, and the only maker of permits.
//!
//! ```text
//! HELLO  expiry, revocation ─► Cedar `hello`, `announce` per connector ─► PDP ─► gates ─► HelloPermit
//! OPEN   limits, addresses ─► expiry, revocation ─► enrichers ─► Cedar `open` ─► PDP ─► gates ─► OpenPermit
//! HTTP   limits, addresses ─► expiry, revocation ─► enrichers ─► Cedar `open`, `http-request` ─► PDP
//!                                                              ─► plugins' edits ─► HttpPermit
//! ```
//! Allowed is what Cedar permits and nobody denies. Expiry and revocation come before the
//! policies, so that no policy can leave them out; an external decision point, where there is one,
//! and plugins come after, and can only narrow.
//! Whatever fails on the way denies: a policy that cannot be evaluated, a plugin that does not
//! answer, the pipeline's own deadline, too many decisions waiting.
//!
//! One request reads the generation once, so no answer mixes the policies of one with the plugins
//! or the decision point of another. Where something that it rests on changed while it was waited
//! for, the answer counts for nothing and the whole pipeline runs again, a bounded number of times.
//! A permit carries the stamp that it was made under, for whoever puts it to use some time later.
//!
//! Each decision leaves one record under an id that the peer's answer, the log line and the record
//! share. A permit holds what was asked, so that the same question can be put again.
//!
//! Invariant: the fields of [`HelloPermit`], [`OpenPermit`], [`HttpPermit`] and [`UpstreamPermit`]
//! are private to this module, so a value of one proves that its pipeline ran to its end.

mod admin;
mod external;
mod hello;
mod mesh;
mod open;
mod publish;
mod record;
mod request;
mod running;
mod upstream;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use nowconnect_plugins as plugins;
use nowconnect_plugins::{CallInfo, Carry, Enrich, PluginSet};
use nowconnect_policy::{Decision, Facts, Meta, Name, Net, Question, Signals};
use nowconnect_protocol::{ConnectorName, TenantName};

pub(crate) use admin::AdminSubject;
pub(crate) use hello::agent_facts;
pub use hello::{HelloAsk, HelloPermit, HelloReason};
pub(crate) use mesh::MESH_LISTENER;
pub use open::{OpenAsk, OpenPermit};
pub(crate) use publish::{CONTROL_LISTENER, ControlClient, ControlDeed, ControlSubject};
pub(crate) use request::{HttpAnswer, HttpAsk, HttpPermit, PluginReply, ResponseAnswer};
pub(crate) use upstream::{UpstreamAsk, UpstreamPermit};

use crate::bundle::shadow::Shadow;
use crate::codes::DenialCode;
use crate::generation::{Generation, Generations, Stamp};
use crate::identity::AgentIdentity;
use crate::limit::Slots;
use crate::pdp::{self, Pdp};
use crate::revocation::RevocationList;
use crate::telemetry::DecisionLog;
use crate::telemetry::decisions::requests::Requests;
use crate::telemetry::decisions::{DecisionAction, DecisionId, DecisionIds, PdpAnswer, Why};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces;

/// Decisions that may wait for plugins at once. Each holds a few KiB; a longer queue would only
/// answer clients that have given up.
pub const MAX_PENDING_DECISIONS: usize = 1024;

/// How often a decision is begun that is overtaken by changes each time. A change takes a build of
/// all policies or plugins, so more than one within a single decision is rare; whoever makes them
/// faster than decisions are made keeps everybody out, not in.
const MAX_ATTEMPTS: u32 = 4;

/// What each attempt rested on changed before it was done.
pub(crate) const CHANGING: &str = DenialCode::PoliciesChanging.as_str();

/// The listener that tunnels come in by, as policies see it.
pub const TUNNEL_LISTENER: &str = "tunnel";

/// The listener that operators come in by, as policies see it.
pub const ADMIN_LISTENER: &str = "admin";

/// See the module.
#[derive(Debug)]
pub struct Authorizer {
    hub: Arc<str>,
    facts: Arc<Facts>,
    generations: Arc<Generations>,
    revocations: ArcSwap<RevocationList>,
    pdp: ArcSwapOption<Pdp>,
    scopes_required: AtomicBool,
    metrics: Arc<Metrics>,
    log: DecisionLog,
    requests: Arc<Requests>,
    ids: DecisionIds,
    pending: Arc<Slots>,
    shadow: Shadow,
    open_answers: request::OpenAnswers,
}

/// Why something may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Stable and machine-readable.
    pub code: Cow<'static, str>,
    /// The kind of reason.
    pub why: Why,
    /// The policy or plugin that denied; `None` where the hub itself did.
    pub by: Option<Arc<str>>,
    /// May reach the peer.
    pub message: Cow<'static, str>,
    /// Names the record.
    pub decision: DecisionId,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (decision {})",
            self.code, self.message, self.decision
        )
    }
}

/// A denial on its way to its record.
#[derive(Debug)]
pub(crate) struct Refused {
    code: Cow<'static, str>,
    why: Why,
    by: Option<Arc<str>>,
    message: Cow<'static, str>,
    /// For the record only.
    private: Option<String>,
}

impl Refused {
    pub(crate) fn by_hub(why: Why, code: DenialCode, message: &'static str) -> Self {
        Self {
            code: Cow::Borrowed(code.as_str()),
            why,
            by: None,
            message: Cow::Borrowed(message),
            private: None,
        }
    }

    fn by_plugin(denial: plugins::Denial) -> Self {
        Self {
            code: Cow::Owned(denial.code),
            why: Why::Plugin,
            by: Some(denial.plugin),
            message: Cow::Owned(denial.public),
            private: Some(denial.private),
        }
    }

    fn by_policy(decision: &Decision) -> Self {
        let code = decision.code().unwrap_or(nowconnect_policy::NOT_PERMITTED);
        let message = decision
            .advice()
            .map_or(Cow::Borrowed("the policies do not allow it"), |advice| {
                Cow::Owned(advice.to_owned())
            });
        Self {
            code: Cow::Owned(code.to_owned()),
            why: record::why(decision.kind),
            by: decision
                .policies
                .first()
                .map(|policy| Arc::from(policy.id.as_str())),
            message,
            private: None,
        }
    }

    fn by_pdp(answer: &pdp::Answer) -> Self {
        let message = match (&answer.user, answer.failed) {
            (Some(text), _) => Cow::Owned(text.clone()),
            (None, true) => Cow::Borrowed("the decision point did not answer, try again later"),
            (None, false) => Cow::Borrowed("the decision point does not allow it"),
        };
        Self {
            code: Cow::Borrowed(answer.code),
            why: Why::Pdp,
            by: Some(Arc::from("pdp")),
            message,
            private: None,
        }
    }

    fn overloaded() -> Self {
        Self::by_hub(
            Why::Limit,
            DenialCode::Overloaded,
            "too many decisions are waiting, try again later",
        )
    }

    fn changing() -> Self {
        Self::by_hub(
            Why::Limit,
            DenialCode::PoliciesChanging,
            "policies or plugins changed again and again while this was decided, try again",
        )
    }

    fn too_slow() -> Self {
        Self::by_hub(
            Why::Plugin,
            DenialCode::DecisionTimeout,
            "the decision took too long",
        )
    }

    fn into_denial(self, decision: DecisionId) -> Denial {
        Denial {
            code: self.code,
            why: self.why,
            by: self.by,
            message: self.message,
            decision,
        }
    }
}

/// What an [`Authorizer`] is made of.
#[derive(Debug)]
pub struct AuthorizerParts {
    /// This hub's name.
    pub hub: Arc<str>,
    /// Rows about agents, connectors and listeners.
    pub facts: Arc<Facts>,
    /// Policies and plugins in force.
    pub generations: Arc<Generations>,
    /// What counts no more.
    pub revocations: RevocationList,
    /// Asked after the policies, where there is one.
    pub pdp: Option<Pdp>,
    /// `security.require_connector_scopes`.
    pub scopes_required: bool,
    /// Counted there.
    pub metrics: Arc<Metrics>,
    /// Kept and logged there.
    pub log: DecisionLog,
    /// Distinct requests are kept there.
    pub requests: Arc<Requests>,
    /// Tells this run of the hub from others.
    pub boot: u64,
}

impl Authorizer {
    /// Puts the parts together.
    pub fn new(parts: AuthorizerParts) -> Self {
        let shadow = Shadow::new(Arc::clone(&parts.facts), Arc::clone(&parts.metrics));
        Self {
            hub: parts.hub,
            facts: parts.facts,
            generations: parts.generations,
            revocations: ArcSwap::from_pointee(parts.revocations),
            pdp: ArcSwapOption::from_pointee(parts.pdp),
            scopes_required: parts.scopes_required.into(),
            metrics: parts.metrics,
            log: parts.log,
            requests: parts.requests,
            ids: DecisionIds::new(parts.boot),
            pending: Slots::new(MAX_PENDING_DECISIONS),
            shadow,
            open_answers: request::OpenAnswers::default(),
        }
    }

    /// The rows that policies read.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The staged policies, compared with those in force.
    pub(crate) fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// What counts no more.
    pub fn revocations(&self) -> RevocationList {
        self.revocations.load().as_ref().clone()
    }

    /// Puts another list in force, for a configuration that names another file.
    pub(crate) fn set_revocations(&self, list: RevocationList) {
        list.keep_others(&self.revocations.load());
        self.revocations.store(Arc::new(list));
    }

    /// The external decision point, where there is one.
    pub(crate) fn pdp(&self) -> Option<Arc<Pdp>> {
        self.pdp.load_full()
    }

    /// Asks another decision point from now on, or none.
    pub(crate) fn set_pdp(&self, pdp: Option<Pdp>) {
        self.pdp.store(pdp.map(Arc::new));
    }

    /// Holds agents to the connectors that their tokens name from now on, or does not.
    pub(crate) fn set_scopes_required(&self, required: bool) {
        self.scopes_required.store(required, Ordering::Release);
    }

    /// Whether what a decision rests on has changed since it was begun.
    fn is_overtaken(&self, asking: &Asking) -> bool {
        self.generations.stamp() != asking.stamp
    }

    /// What the policies in force say, of which the shadow hears too.
    fn judged(
        &self,
        action: DecisionAction,
        asking: &mut Asking,
        question: &Arc<Question>,
    ) -> Decision {
        let decision = asking.generation.policies().decide(&self.facts, question);
        asking.policy_time += decision.took;
        self.shadow
            .saw(action, asking.id, &asking.generation, question, &decision);
        decision
    }

    /// Whether this identity counts now, whatever the policies say.
    fn check_identity(&self, identity: &AgentIdentity, now: SystemTime) -> Result<(), Refused> {
        if identity.is_expired(now) {
            return Err(Refused::by_hub(
                Why::Identity,
                DenialCode::TokenExpired,
                "the agent's token has expired",
            ));
        }
        if self.revocations.load().is_revoked(identity) {
            return Err(Refused::by_hub(
                Why::Identity,
                DenialCode::Revoked,
                "the agent's credential was revoked",
            ));
        }
        Ok(())
    }

    fn meta(&self, now: SystemTime, request_id: &Arc<str>) -> Meta {
        Meta {
            now_ms: unix_ms(now),
            hub: Arc::clone(&self.hub),
            request_id: Arc::clone(request_id),
            trace_id: traces::current_trace_id().map(Arc::from),
            recheck: false,
        }
    }
}

/// One decision under way.
struct Asking {
    id: DecisionId,
    /// The id as text, for policies and plugins.
    request_id: Arc<str>,
    stamp: Stamp,
    generation: Arc<Generation>,
    scopes_required: bool,
    now: SystemTime,
    started: Instant,
    policy_time: Duration,
    plugin_time: Duration,
    pdp_time: Duration,
    /// What the external decision point said to this very question.
    pdp: Option<PdpAnswer>,
}

/// What enrichers add, and what they want to remember.
async fn enriched(
    set: &PluginSet,
    call: &CallInfo<'_>,
    question: &Enrich<'_>,
    asking: &mut Asking,
) -> (Signals, Carry) {
    let started = Instant::now();
    let found = set.enrich(call, question).await;
    asking.plugin_time += started.elapsed();
    let signals = Signals {
        present: found.signals,
        missing: found.missing,
    };
    (signals, found.carry)
}

impl Asking {
    fn begin(authorizer: &Authorizer) -> Self {
        let id = authorizer.ids.next_id();
        Self {
            id,
            request_id: id.to_string().into(),
            // Before everything that it stands for is read.
            stamp: authorizer.generations.stamp(),
            generation: authorizer.generations.current(),
            scopes_required: authorizer.scopes_required.load(Ordering::Acquire),
            now: SystemTime::now(),
            started: Instant::now(),
            policy_time: Duration::ZERO,
            plugin_time: Duration::ZERO,
            pdp_time: Duration::ZERO,
            pdp: None,
        }
    }
}

/// The name of something of `tenant` as policies know it.
pub(crate) fn policy_name(tenant: &TenantName, name: &str) -> Name {
    Name::new(tenant.as_str(), name)
}

fn net(peer: SocketAddr, listener: Name) -> Net {
    Net {
        source_ip: peer.ip().to_canonical(),
        source_port: peer.port(),
        listener,
        tls: None,
    }
}

pub(crate) fn plugin_peer(peer: SocketAddr) -> plugins::Peer {
    plugins::Peer {
        ip: peer.ip().to_canonical().to_string(),
        port: peer.port(),
        ..plugins::Peer::default()
    }
}

fn plugin_tenant(tenant: &TenantName) -> Option<&str> {
    (!tenant.is_default()).then(|| tenant.as_str())
}

fn connector_names(tenant: &TenantName, names: &[ConnectorName]) -> Vec<Name> {
    names
        .iter()
        .map(|name| policy_name(tenant, name.as_str()))
        .collect()
}

pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests;
