//! The seam between the admin API and the hub: what can be asked, and the form of the answers.
//!
//! The forms are the API's JSON as well, so they hold plain strings and numbers. Fields may be
//! added; a reader ignores those that it does not know.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use ipnet::IpNet;
use nowconnect_policy::{BundleArchive, TrustedKeys};
use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::bundle::refused::BundleRefused;
use crate::bundle::view::{
    ActivateReport, ActivateRequest, BundleStatus, DeliverReport, ShadowStatus,
};
use crate::certificates::view::CertificateStatus;
use crate::cluster::ClusterStatus;
use crate::health::Readiness;

/// Most flows in one answer; a page of 1000 has about 400 KiB.
pub const MAX_FLOWS_PER_PAGE: usize = 1000;

/// What the admin API asks of the hub. Each answer is a snapshot; none may hold a lock that
/// the data path waits for.
pub trait HubView: Send + Sync + 'static {
    /// May this caller do this? Asked before every route; a deny ends the request.
    ///
    /// The default allows: whoever reaches the socket owns the hub.
    fn authorize<'a>(
        &'a self,
        _caller: &'a AdminCaller,
        _action: AdminAction,
        _resource: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The hub as a whole.
    fn status(&self) -> BoxFuture<'_, HubStatus>;

    /// Every agent with a session, by name.
    fn agents(&self) -> BoxFuture<'_, Vec<AgentStatus>>;

    /// Where agents have dialled in from, the latest first.
    fn agent_addresses<'a>(
        &'a self,
        query: &'a AgentAddressQuery,
    ) -> BoxFuture<'a, Result<AgentAddressPage, AdminRefusal>>;

    /// Flows that the query selects, at most its limit.
    fn flows<'a>(&'a self, query: &'a FlowQuery) -> BoxFuture<'a, FlowPage>;

    /// Ends a flow with `operator_closed`; `flow` is a flow ref.
    fn close_flow<'a>(&'a self, flow: &'a str) -> BoxFuture<'a, Result<(), AdminRefusal>>;

    /// The generation in force.
    fn generation(&self) -> BoxFuture<'_, GenerationStatus>;

    /// Reads configuration, policies, plugins, certificates and lists again; whole or not at all.
    fn reload(&self) -> BoxFuture<'_, ReloadReport>;

    /// The cluster. A hub of another kind stands alone.
    fn cluster(&self) -> ClusterStatus {
        ClusterStatus::default()
    }

    /// The certificates of the HTTP ports. A hub of another kind has none.
    fn certificates(&self) -> Vec<CertificateStatus> {
        Vec::new()
    }

    /// Has a name's certificate ordered now, whatever was planned. A hub of another kind has none
    /// issued.
    fn renew_certificate<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        Box::pin(ready(Err(AdminRefusal::NotFound {
            what: "issued certificate",
            name: name.to_owned(),
        })))
    }

    /// Ends an agent's session; `agent` is an agent id, `tenant/id` outside the default tenant.
    fn kick_agent<'a>(&'a self, agent: &'a str) -> BoxFuture<'a, Result<(), AdminRefusal>>;

    /// Starts draining: nothing new, the rest until the deadline, then the end.
    fn drain<'a>(&'a self, request: &'a DrainRequest) -> BoxFuture<'a, Result<(), AdminRefusal>>;

    /// How the drain goes: what holds at the end, or `wait` from now where that is earlier. A hub
    /// of another kind never drains.
    fn drain_progress(&self, _wait: Duration) -> BoxFuture<'_, DrainProgress> {
        Box::pin(ready(DrainProgress::default()))
    }

    /// Writes a copy of what the control plane keeps to a new file of the hub's machine. A hub of
    /// another kind keeps nothing, here and below.
    fn backup_state<'a>(&'a self, _path: &'a Path) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        Box::pin(ready(Err(no_state())))
    }

    /// Lets another key sign tokens from now on; with `distrust` those before prove nothing more.
    /// Gives the new key's id.
    fn rotate_keys(&self, _distrust: bool) -> BoxFuture<'_, Result<String, AdminRefusal>> {
        Box::pin(ready(Err(no_state())))
    }

    /// Asks again, explaining: a kept decision, or a question that the caller states.
    fn explain<'a>(
        &'a self,
        request: &'a ExplainRequest,
    ) -> BoxFuture<'a, Result<serde_json::Value, AdminRefusal>>;

    /// The policy bundles. A hub of another kind has none, here and below.
    fn bundles(&self) -> BundleStatus {
        BundleStatus::default()
    }

    /// The comparison of the staged policies with those in force.
    fn shadow(&self) -> ShadowStatus {
        ShadowStatus::default()
    }

    /// Bytes that a pushed bundle may have.
    fn max_bundle_bytes(&self) -> u64 {
        0
    }

    /// Whose signatures count; nobody's where no bundles are taken.
    fn trusted_keys(&self) -> TrustedKeys {
        TrustedKeys::default()
    }

    /// Verifies a bundle, stages it and, where that is configured, puts it in force.
    fn push_bundle(
        &self,
        _archive: BundleArchive,
        _push: BundlePush,
    ) -> BoxFuture<'_, Result<DeliverReport, AdminRefusal>> {
        Box::pin(ready(Err(AdminRefusal::from(bundle::keeper::off()))))
    }

    /// Puts the staged bundle in force, or says what that would do.
    fn activate_bundle<'a>(
        &'a self,
        _request: &'a ActivateRequest,
    ) -> BoxFuture<'a, Result<ActivateReport, AdminRefusal>> {
        Box::pin(ready(Err(AdminRefusal::from(bundle::keeper::off()))))
    }

    /// Takes the staged bundle back; gives its revision.
    fn discard_bundle(&self) -> BoxFuture<'_, Result<u64, AdminRefusal>> {
        Box::pin(ready(Err(AdminRefusal::from(bundle::keeper::off()))))
    }

    /// The bytes of a bundle that is kept.
    fn bundle_bytes(&self, _revision: u64) -> BoxFuture<'_, Result<Vec<u8>, AdminRefusal>> {
        Box::pin(ready(Err(AdminRefusal::from(bundle::keeper::off()))))
    }
}

/// What is to become of a pushed bundle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BundlePush {
    /// It stays staged, whatever is configured.
    pub stage_only: bool,
    /// It is an earlier payload under a new revision, and comes into force at once.
    pub rollback: bool,
}

/// Who calls the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminCaller {
    /// A process on this machine, by the Unix socket.
    Local {
        /// Its user id, where the kernel told.
        uid: Option<u32>,
    },
    /// A TCP client that showed the token.
    Token {
        /// From where.
        from: SocketAddr,
    },
    /// A TCP client with a verified certificate.
    Certificate {
        /// From where.
        from: SocketAddr,
        /// SHA-256 of its leaf certificate, hexadecimal.
        fingerprint: String,
    },
}

impl std::fmt::Display for AdminCaller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local { uid: Some(uid) } => write!(f, "uid {uid} by the socket"),
            Self::Local { uid: None } => f.write_str("by the socket"),
            Self::Token { from } => write!(f, "{from} by token"),
            Self::Certificate { from, fingerprint } => {
                write!(f, "{from} by certificate {fingerprint}")
            }
        }
    }
}

/// What a caller wants to do; the names are those of the policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminAction {
    /// Read status, agents, generation, log level.
    Status,
    /// List flows.
    ListFlows,
    /// See where an agent dials in from.
    ReadAgentAddress,
    /// Read decisions and explain them.
    Explain,
    /// End a flow.
    CloseFlow,
    /// End an agent's session.
    KickAgent,
    /// Reload.
    Reload,
    /// Change the log level.
    SetLogLevel,
    /// Drain the hub.
    Drain,
    /// Back up what the hub keeps, or change the keys that sign its tokens.
    ManageState,
    /// Bring a policy bundle, or take the staged one back.
    StagePolicy,
    /// Put the staged policy bundle in force.
    ActivatePolicy,
    /// Go back to an earlier policy bundle.
    RollbackPolicy,
}

impl AdminAction {
    /// The action's name in policies and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::ListFlows => "list-flows",
            Self::ReadAgentAddress => "read-agent-address",
            Self::Explain => "explain",
            Self::CloseFlow => "close-flow",
            Self::KickAgent => "kick-agent",
            Self::Reload => "reload",
            Self::SetLogLevel => "set-log-level",
            Self::Drain => "drain",
            Self::ManageState => "manage-state",
            Self::StagePolicy => "stage-policy",
            Self::ActivatePolicy => "activate-policy",
            Self::RollbackPolicy => "rollback-policy",
        }
    }

    /// Whether each call leaves a decision record and a security event, also where it is allowed:
    /// a change, and a look at what is shown to few.
    pub const fn is_recorded(self) -> bool {
        self.is_write() || matches!(self, Self::ReadAgentAddress)
    }

    /// Whether it changes something.
    pub const fn is_write(self) -> bool {
        match self {
            Self::Status | Self::ListFlows | Self::ReadAgentAddress | Self::Explain => false,
            Self::CloseFlow
            | Self::KickAgent
            | Self::Reload
            | Self::SetLogLevel
            | Self::Drain
            | Self::ManageState
            | Self::StagePolicy
            | Self::ActivatePolicy
            | Self::RollbackPolicy => true,
        }
    }
}

/// Why the hub does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminRefusal {
    /// There is no such flow, agent or decision.
    #[error("no {what} `{name}`")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// The request does not make sense.
    #[error("{0}")]
    Invalid(String),
    /// Policy denies it.
    #[error("not allowed: {0}")]
    Denied(String),
    /// It cannot be done now.
    #[error("{0}")]
    Unavailable(String),
    /// Refused with a code of policy bundles.
    #[error("{}", .0.message)]
    Bundle(BundleRefused),
}

pub(crate) fn no_state() -> AdminRefusal {
    AdminRefusal::Unavailable("the hub has no control plane (`control.listen`)".to_owned())
}

impl From<BundleRefused> for AdminRefusal {
    fn from(refused: BundleRefused) -> Self {
        Self::Bundle(refused)
    }
}

/// The hub as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubStatus {
    /// The replica id.
    pub hub: String,
    /// The hub's version.
    pub version: String,
    /// Seconds since start.
    pub uptime_seconds: u64,
    /// Ready, degraded with reasons, starting or draining.
    pub readiness: Readiness,
    /// The generation in force.
    pub generation: GenerationStatus,
    /// Public listeners.
    pub listeners: Vec<ListenerStatus>,
    /// HTTP by host name.
    #[serde(default, skip_serializing_if = "HttpStatus::is_empty")]
    pub http: HttpStatus,
    /// The address of the tunnel port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_address: Option<SocketAddr>,
    /// Counts and totals.
    pub totals: Totals,
}

/// Counts now and totals since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Agents with a session.
    pub agents: u64,
    /// Tunnels that are up.
    pub tunnels: u64,
    /// Sessions without a tunnel that may be resumed.
    pub sessions_detached: u64,
    /// Flows open now.
    pub flows: u64,
    /// Flows since start.
    pub flows_total: u64,
    /// Opens denied since start.
    pub denied_total: u64,
    /// Bytes from clients to agents since start.
    pub bytes_c2a: u64,
    /// Bytes from agents to clients since start.
    pub bytes_a2c: u64,
}

/// One public port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whose flows it takes, `tenant/name` outside the default tenant.
    pub connector: String,
    /// Agents that offer the connector now.
    pub agents: u64,
    /// Flows open now.
    pub flows: u64,
}

/// HTTP by host name: its ports, and what they lead to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpStatus {
    /// The ports.
    pub listeners: Vec<HttpListenerStatus>,
    /// The routes, as configured.
    pub routes: Vec<RouteStatus>,
    /// The first names that agents publish, by host.
    pub published: Vec<PublishedStatus>,
    /// How many more there are.
    pub published_more: u64,
}

impl HttpStatus {
    /// Whether there is nothing of the kind.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.routes.is_empty() && self.published.is_empty()
    }
}

/// One public HTTP port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpListenerStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether viewers speak TLS there.
    pub tls: bool,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Its endpoint, `tenant/name` outside the default tenant.
    pub endpoint: String,
    /// The hosts that it answers to.
    pub host: String,
    /// The path; `/*` at its end where that is only its beginning.
    pub path: String,
    /// Where requests go, `tenant/name` outside the default tenant.
    pub connector: String,
    /// Agents that offer the connector now.
    pub agents: u64,
    /// Those of them whose target does not answer.
    #[serde(default)]
    pub down: u64,
    /// Requests under way.
    pub requests: u64,
}

/// One name that an agent publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedStatus {
    /// Its endpoint, `tenant/name` outside the default tenant.
    pub endpoint: String,
    /// The host that it answers to.
    pub host: String,
    /// Whose it is.
    pub tenant: String,
    /// What the service speaks: `http` or `tcp`.
    pub protocol: String,
    /// The agent that may hold it, `tenant/id` outside the default tenant.
    pub agent: String,
    /// Whether that agent is here.
    pub state: PublishedState,
    /// Seconds since it is so; left out where the agent has not been here for long, or not since the
    /// hub was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_seconds: Option<u64>,
    /// Requests under way.
    pub requests: u64,
}

/// Whether the agent of a published name is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishedState {
    /// Its tunnel is up, and the name is served.
    Online,
    /// It is away; the name is kept for it.
    Offline,
}

impl PublishedState {
    /// The word for tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

/// One agent with a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The agent id, `tenant/id` outside the default tenant.
    pub agent: String,
    /// Its session.
    pub session: u64,
    /// Up, or detached and waiting for its agent to come back.
    pub state: AgentState,
    /// `primary` or `standby`.
    pub role: String,
    /// The network that its tunnel comes from: a /24, or a /48 of IPv6. The address itself is read
    /// at `/v1/agent-addresses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<IpNet>,
    /// The agent's version.
    #[serde(default)]
    pub version: String,
    /// Connectors that it offers and may offer.
    pub connectors: Vec<ConnectorStatus>,
    /// Connectors that it was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedConnector>,
    /// Seconds since its tunnel came up.
    pub tunnel_seconds: u64,
    /// Last round trip, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Flows open now.
    pub flows: u64,
    /// Bytes to the agent over this session.
    pub bytes_c2a: u64,
    /// Bytes from the agent over this session.
    pub bytes_a2c: u64,
    /// Seconds until its token expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires_seconds: Option<i64>,
    /// Labels of its HELLO.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where an agent has dialled in from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentAddress {
    /// The agent id, `tenant/id` outside the default tenant.
    pub agent: String,
    /// The session of the tunnel; left out where a decision is named that came before any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// The far end of the tunnel, or whoever asked for the decision.
    pub address: SocketAddr,
    /// When the tunnel came up or the decision was made, Unix milliseconds.
    pub since_ms: u64,
}

/// Tunnels of agents, the latest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentAddressPage {
    /// The tunnels.
    pub addresses: Vec<AgentAddress>,
    /// Older tunnels that were forgotten.
    pub forgotten: u64,
}

/// Which of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentAddressQuery {
    /// Of this agent; left out where a decision is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The latest that came up until this time, Unix milliseconds, and may have ended by then; left
    /// out, all that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
    /// Agent and time of this decision, which a request's log line names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
}

/// Whether an agent has its tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// Its tunnel is up.
    Up,
    /// Its tunnel broke and may be resumed.
    Detached,
    /// It finishes its flows and takes no new ones.
    Draining,
}

impl AgentState {
    /// The word for tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Detached => "detached",
            Self::Draining => "draining",
        }
    }
}

/// A connector of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorStatus {
    /// Its name, bare: the tenant is the agent's.
    pub name: String,
    /// Flows open now through this agent.
    pub flows: u64,
    /// Why its target counts as down, where the hub looks at it and it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
}

/// A connector that an agent asked for in vain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedConnector {
    /// Its name.
    pub name: String,
    /// The stable code.
    pub code: String,
    /// The decision, for `policy explain`.
    pub decision: String,
}

/// Which flows to list. What is absent selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowQuery {
    /// Flows of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Flows of this connector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// Flows of this client, `IP` or `IP:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// At most this many, itself at most [`MAX_FLOWS_PER_PAGE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl FlowQuery {
    /// The limit that counts.
    pub fn effective_limit(&self) -> usize {
        self.limit
            .unwrap_or(MAX_FLOWS_PER_PAGE)
            .min(MAX_FLOWS_PER_PAGE)
    }

    /// Whether a flow is selected.
    pub fn selects(&self, agent: &str, connector: &str, client: Option<SocketAddr>) -> bool {
        let fits = |wanted: &Option<String>, seen: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == seen)
        };
        let client_fits = self.client.as_deref().is_none_or(|wanted| {
            client.is_some_and(|seen| {
                wanted.parse().map_or_else(
                    |_| wanted == seen.to_string(),
                    |ip: std::net::IpAddr| ip.to_canonical() == seen.ip().to_canonical(),
                )
            })
        });
        fits(&self.agent, agent) && fits(&self.connector, connector) && client_fits
    }
}

/// A list of flows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPage {
    /// The flows, newest first.
    pub flows: Vec<FlowStatus>,
    /// How many the query selects in all.
    pub selected: u64,
}

/// One flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// The flow ref, `origin.boot.number`.
    pub flow: String,
    /// Its connector, `tenant/name` outside the default tenant.
    pub connector: String,
    /// Its agent.
    pub agent: String,
    /// The listener that accepted.
    #[serde(default)]
    pub listener: String,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// Seconds since it was opened.
    pub age_seconds: u64,
    /// Bytes from the client, where they are counted while it runs.
    #[serde(default)]
    pub bytes_c2a: u64,
    /// Bytes to the client, where they are counted while it runs.
    #[serde(default)]
    pub bytes_a2c: u64,
    /// The generation that allowed it.
    pub generation: u64,
    /// The decision that allowed it.
    #[serde(default)]
    pub decision: String,
}

/// The generation in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// Its number.
    pub number: u64,
    /// When it was activated, Unix milliseconds.
    pub activated_ms: u64,
    /// A digest over all its sources.
    #[serde(default)]
    pub digest: String,
    /// Policies in it.
    pub policies: u64,
    /// Plugins in it.
    pub plugins: Vec<PluginStatus>,
    /// Revision of the policy bundle that it has its policies from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<u64>,
    /// Revision of the policy bundle that is staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_revision: Option<u64>,
    /// Why the newest sources on disk are not in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_errors: Vec<String>,
    /// The re-check of what runs that is under way, or the last one.
    #[serde(default)]
    pub recheck: RecheckStatus,
}

/// One plugin of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// Its name.
    pub name: String,
    /// The digest of its code.
    pub digest: String,
    /// The hooks it is called at.
    pub hooks: Vec<String>,
    /// Whether it is not called because it failed too often.
    #[serde(default)]
    pub quarantined: bool,
}

/// What came of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Whether all that was read is in force now.
    pub ok: bool,
    /// The generation in force after it.
    pub generation: u64,
    /// What changed, a line each.
    #[serde(default)]
    pub changed: Vec<String>,
    /// What changed in the configuration and takes a restart.
    #[serde(default)]
    pub needs_restart: Vec<String>,
    /// Every error. With `recheck` absent nothing is in force but the revocation list; else all but
    /// what the errors name, which keeps its last good form.
    #[serde(default)]
    pub errors: Vec<String>,
    /// Running flows that were ended because of it, so far.
    #[serde(default)]
    pub flows_closed: u64,
    /// Agents' sessions that were ended because of it, so far.
    #[serde(default)]
    pub sessions_closed: u64,
    /// How far what runs was asked about again; absent where nothing came into force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recheck: Option<RecheckStatus>,
}

/// How far what runs was asked about again after a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecheckStatus {
    /// Its number; each change begins one, and the newest takes the place of the others.
    pub round: u64,
    /// The generation that was in force when it began.
    pub generation: u64,
    /// Whether it is still under way: the counts grow.
    pub running: bool,
    /// Flows that there are to ask about.
    pub flows: u64,
    /// Those that were asked about.
    pub flows_asked: u64,
    /// Those that are now forbidden.
    pub flows_denied: u64,
    /// Those that ended, also by a round that this one took the place of.
    pub flows_closed: u64,
    /// Agents that there are to ask about.
    pub agents: u64,
    /// Those that were asked about.
    pub agents_asked: u64,
    /// Those whose session ended.
    pub sessions_closed: u64,
    /// Connectors that others lost.
    pub connectors_lost: u64,
}

impl RecheckStatus {
    /// One that was ordered just now.
    pub(crate) fn begun(round: u64) -> Self {
        Self {
            round,
            running: true,
            ..Self::default()
        }
    }
}

/// How to drain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Milliseconds until what is left is cut; absent takes the configured time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Whether to wait for the end of a drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainQuery {
    /// Milliseconds for which the answer may wait for the end, at most 30,000; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// How a drain goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainProgress {
    /// Where the hub is.
    pub state: DrainState,
    /// Flows that run.
    pub flows: u64,
    /// Agents with a tunnel.
    pub agents: u64,
    /// Milliseconds until what still runs is cut; while it drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
    /// Flows that were cut; at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows_cut: Option<u64>,
}

/// Where a hub is between serving and its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainState {
    /// It lets agents and clients in.
    #[default]
    Serving,
    /// It lets nobody in, and flows finish.
    Draining,
    /// It is about to be gone.
    Ended,
}

/// What to explain: a kept decision, or a question.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The id of a kept decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// The last decision about this client, `IP` or `IP:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The last decision about this flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<String>,
    /// A question in the form of the policy cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<serde_json::Value>,
}

/// Where a backup goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// An absolute path on the hub's machine; nothing may be there yet.
    pub path: PathBuf,
}

/// How keys are changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// Whether what the keys before have signed counts no more.
    #[serde(default)]
    pub distrust: bool,
}

/// A key that signs from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotatedKey {
    /// `kid` of the tokens that it signs.
    pub key: String,
}
