//! What a hub asks, as plain data: no Cedar type is seen from outside this crate.
//!
//! Each kind of question is one action of the schema. Facts that the hub knows about agents,
//! connectors and so on come from [`Facts`](crate::Facts); a question only carries names and
//! what is true of this one request. The principal of [`Hello`] and [`Announce`] is not
//! registered yet, so these carry what its verified token says.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{AgentFacts, EndpointFacts, Name, ViewerFacts};

/// One question to the policies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Question {
    /// May this agent join?
    Hello(Hello),
    /// May this agent offer this connector?
    Announce(Announce),
    /// May this agent publish this HTTP name?
    EndpointCreate(EndpointCreate),
    /// May this client open a flow to this connector?
    Open(Open),
    /// May this client send this request to this endpoint?
    HttpRequest(HttpRequest),
    /// May this hub open a pooled flow of its own to this connector?
    UpstreamOpen(UpstreamOpen),
    /// May this replica link to that one?
    MeshJoin(MeshJoin),
    /// May this replica have a flow of its client carried to this connector?
    MeshForward(MeshForward),
    /// May this operator do this?
    Admin(Admin),
}

/// Where a request came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Net {
    /// Address of the peer, after PROXY protocol where that is trusted.
    pub source_ip: IpAddr,
    /// Port of the peer.
    pub source_port: u16,
    /// The listener it came in by; must be in the facts.
    pub listener: Name,
    /// Present where the hub terminated TLS.
    pub tls: Option<Tls>,
}

/// What the TLS handshake told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tls {
    /// For example `TLSv1.3`.
    pub version: String,
    /// Server name that the client asked for.
    pub sni: Option<String>,
    /// First subject alternative name of a verified client certificate.
    pub client_san: Option<String>,
}

/// What is true of every question.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Meta {
    /// The time of asking, in milliseconds since 1970.
    pub now_ms: u64,
    /// The replica that asks.
    pub hub: Arc<str>,
    /// Correlation id that log, span and decision record share.
    pub request_id: Arc<str>,
    /// W3C trace id, where the request is traced.
    pub trace_id: Option<Arc<str>>,
    /// Whether a running flow is asked about again.
    #[serde(default)]
    pub recheck: bool,
}

/// Who comes in from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Viewer {
    /// Nobody proved who this is: `Viewer::"anonymous"`.
    #[default]
    Anonymous,
    /// The hub verified who this is.
    Known(Arc<ViewerFacts>),
}

impl Viewer {
    /// The id of its entity.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Known(facts) => facts.viewer.as_str(),
        }
    }
}

/// What the enrichers said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signals {
    /// Signals with the name of their plugin in front, such as `geo/DE`.
    pub present: Vec<String>,
    /// Enrichers that failed.
    pub missing: Vec<String>,
}

/// See [`Question::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hello {
    /// Where the tunnel comes from.
    pub net: Net,
    /// See [`Meta`].
    pub meta: Meta,
    /// What the verified token says; never what HELLO says.
    pub agent: Arc<AgentFacts>,
    /// The agent that HELLO states to be.
    pub claimed: Name,
    /// Version string of the agent's program.
    pub agent_version: String,
    /// Connectors that HELLO names.
    pub announced: Vec<Name>,
    /// Whether this agent has a live session that would be replaced.
    pub replacing: bool,
}

/// See [`Question::Announce`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Announce {
    /// Where the tunnel comes from.
    pub net: Net,
    /// See [`Meta`].
    pub meta: Meta,
    /// What the verified token says. Share one value between the questions of one HELLO.
    pub agent: Arc<AgentFacts>,
    /// The connector it offers. Where the facts do not have it, it is taken to be a TCP
    /// connector of its tenant without groups or tags.
    pub connector: Name,
    /// `security.require_connector_scopes`.
    pub scopes_required: bool,
}

/// See [`Question::EndpointCreate`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointCreate {
    /// Where the tunnel comes from.
    pub net: Net,
    /// See [`Meta`].
    pub meta: Meta,
    /// What the verified token says.
    pub agent: Arc<AgentFacts>,
    /// The endpoint to be made.
    pub endpoint: EndpointFacts,
    /// Endpoints that this agent has already.
    pub open_endpoints: u32,
}

/// See [`Question::Open`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Open {
    /// Where the client comes from.
    pub net: Net,
    /// See [`Meta`].
    pub meta: Meta,
    /// Who the client is.
    pub viewer: Viewer,
    /// The connector asked for; must be in the facts.
    pub connector: Name,
    /// The agent that would serve it; must be in the facts.
    pub agent: Name,
    /// Flows that this connector has now.
    pub open_flows: u32,
    /// Whether the agent is at another replica.
    pub via_mesh: bool,
    /// What the enrichers said.
    pub signals: Signals,
}

/// See [`Question::HttpRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HttpRequest {
    /// Where the client comes from.
    pub net: Net,
    /// See [`Meta`].
    pub meta: Meta,
    /// Who the client is.
    pub viewer: Viewer,
    /// The endpoint asked for; must be in the facts.
    pub endpoint: Name,
    /// The connector behind it; must be in the facts.
    pub connector: Name,
    /// The agent that would serve it; must be in the facts.
    pub agent: Name,
    /// The request line.
    pub http: Http,
    /// What the enrichers said.
    pub signals: Signals,
}

/// The part of an HTTP request that policies see.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Http {
    /// In upper case.
    pub method: String,
    /// In lower case, without a port.
    pub host: String,
    /// Normalised before it comes here: percent-decoded where that is safe, dot segments and
    /// double slashes taken out, without the query.
    pub path: String,
    /// Header names in lower case; values never reach the policies.
    pub header_names: Vec<String>,
}

/// See [`Question::UpstreamOpen`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UpstreamOpen {
    /// See [`Meta`]; its `hub` is the principal.
    pub meta: Meta,
    /// The connector asked for; must be in the facts.
    pub connector: Name,
    /// The agent that would serve it; must be in the facts.
    pub agent: Name,
    /// What the flow is for, such as `pool` or `health`.
    pub why: String,
}

/// See [`Question::MeshJoin`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MeshJoin {
    /// Where the link comes from.
    pub net: Net,
    /// See [`Meta`]; its `hub` is the resource.
    pub meta: Meta,
    /// The replica that its certificate proved.
    pub peer: Arc<str>,
}

/// See [`Question::MeshForward`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MeshForward {
    /// Where the client came from, as its origin says.
    pub net: Net,
    /// See [`Meta`].
    pub meta: Meta,
    /// The origin replica, proven by its certificate.
    pub origin: Arc<str>,
    /// The connector asked for; must be in the facts.
    pub connector: Name,
    /// The agent that would serve it; must be in the facts.
    pub agent: Name,
    /// Counter of the epoch under which the origin believes the owner to hold the agent.
    pub epoch_counter: u64,
    /// Replica of that epoch.
    pub epoch_replica: Arc<str>,
    /// Who the client is, as its origin says.
    pub viewer: Viewer,
    /// Generation that the origin decided under.
    pub origin_generation: u64,
    /// What the origin's enrichers said.
    pub signals: Signals,
}

/// See [`Question::Admin`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Admin {
    /// Where the operator comes from.
    pub net: Net,
    /// See [`Meta`].
    pub meta: Meta,
    /// Who asks.
    pub operator: Arc<crate::OperatorFacts>,
    /// What is asked.
    pub deed: AdminDeed,
    /// What it is asked on.
    pub target: AdminTarget,
}

/// What an operator wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminDeed {
    /// See the state of the hub.
    Status,
    /// Ask why a decision came out as it did.
    Explain,
    /// List the running flows.
    ListFlows,
    /// See where an agent dials in from.
    ReadAgentAddress,
    /// End a flow.
    CloseFlow,
    /// Read every file again.
    Reload,
    /// Change what is logged.
    SetLogLevel,
    /// Send the agents elsewhere.
    Drain,
    /// Back up what the hub keeps, or change the keys that sign its tokens.
    ManageState,
    /// List what is published.
    ListEndpoints,
    /// Take a published name away.
    CloseEndpoint,
    /// Keep a name for a tenant.
    ReserveEndpoint,
    /// See how much tenants may have.
    ListQuotas,
    /// Say how much a tenant may have.
    SetQuota,
    /// End an agent's session.
    KickAgent,
    /// Put a new generation beside the one in force.
    StagePolicy,
    /// Put a generation in force.
    ActivatePolicy,
    /// Go back to an earlier generation.
    RollbackPolicy,
    /// Load a plugin.
    LoadPlugin,
    /// Switch a plugin off.
    DisablePlugin,
}

/// What an operator's deed is done on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminTarget {
    /// A replica, by its id.
    Node(Arc<str>),
    /// A published HTTP name.
    Endpoint(Name),
    /// A published HTTP name that the facts do not have, or not any more.
    Published(Box<EndpointFacts>),
    /// A connector.
    Connector(Name),
    /// An agent.
    Agent(Name),
    /// An agent that may not be connected.
    KnownAgent(Box<AgentFacts>),
    /// A policy bundle.
    PolicyBundle {
        /// Its name; the bundle of the hub itself is `hub`.
        bundle: Name,
        /// Its generation.
        revision: u64,
        /// Whether its signature was verified.
        signed: bool,
    },
    /// A plugin.
    Plugin {
        /// Its name.
        plugin: Name,
        /// SHA-256 of its bytes, in hex.
        digest: String,
        /// Whether its signature was verified.
        signed: bool,
    },
}
