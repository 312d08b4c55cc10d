//! What the API takes and gives, as JSON.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nowconnect_protocol::AgentId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::{IntoParams, ToSchema};

use crate::admin::view::AgentStatus;
use crate::flow_table::FlowEntry;

/// A wish for a tunnel.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateTunnel {
    /// The wished name, one label of a host name; a random one where it is missing.
    #[serde(default)]
    #[schema(
        max_length = 63,
        example = "shop",
        pattern = "^(?![Tt]-)(?!..--)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$"
    )]
    pub(super) requested_name: Option<String>,
    /// Where the caller would like the hub to be; candidates there come first.
    #[serde(default)]
    #[schema(max_length = 64, example = "eu-central")]
    pub(super) region_hint: Option<String>,
    /// What the service speaks: `http` or `tcp`. `http` where it is missing.
    #[serde(default)]
    pub(super) protocol: Option<TunnelProtocol>,
    /// How long the recreate token shall live, in seconds, at least 60; shortened to what the
    /// operator allows.
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(minimum = 60)]
    pub(super) recreate_token_ttl_seconds: Option<u64>,
    /// A recreate token, for the same tunnel again.
    #[serde(default)]
    pub(super) recreate_token: Option<String>,
    /// A management token, for callers that cannot send `Authorization`. Not both.
    #[serde(default)]
    pub(super) management_token: Option<String>,
}

impl CreateTunnel {
    /// Tells two wishes apart. The same wish with a newer management token is the same.
    pub(super) fn digest(&self) -> String {
        let wish = Self {
            management_token: None,
            ..self.clone()
        };
        let text = serde_json::to_vec(&wish).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(Sha256::digest(text))
    }
}

/// An integer as JSON Schema has it: `60.0` is one, too (draft 2020-12, validation, §6.1.1).
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    /// Beyond it not every integer is a number of JSON for everybody (RFC 8259 §6).
    const LARGEST: f64 = 9_007_199_254_740_991.0;
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    if let Some(whole) = number.as_u64() {
        return Ok(Some(whole));
    }
    let whole = number
        .as_f64()
        .filter(|number| number.fract() == 0.0 && (0.0..=LARGEST).contains(number))
        .and_then(|number| format!("{number:.0}").parse().ok());
    match whole {
        Some(whole) => Ok(Some(whole)),
        None => Err(D::Error::custom(format!("`{number}` is no whole number"))),
    }
}

/// What a service speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TunnelProtocol {
    /// HTTP, published under a name.
    #[default]
    Http,
    /// A stream of bytes.
    Tcp,
}

impl TunnelProtocol {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// A tunnel with its tokens. They are shown here only.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct CreatedTunnel {
    /// The tunnel's id for life; also the agent's id and its connector's name.
    #[schema(example = "tun_0k3m9w5r7t2v4x6z8b1d3f5h7j")]
    pub(super) tunnel_id: String,
    /// The name that the world sees.
    #[schema(example = "shop.tunnels.example.com")]
    pub(super) public_hostname: String,
    /// The address for people.
    #[schema(example = "https://shop.tunnels.example.com")]
    pub(super) public_url: String,
    /// The public port of a TCP service, where the hub gives any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) public_port: Option<u16>,
    /// Hubs to dial, the best first.
    pub(super) candidates: Vec<Candidate>,
    /// For the hub, once, and only for some minutes.
    pub(super) ephemeral_token: String,
    /// For the same tunnel again.
    pub(super) recreate_token: String,
    /// Until when `candidates` and `ephemeral_token` hold (RFC 3339).
    #[schema(format = DateTime, example = "2026-11-21T12:00:00Z")]
    pub(super) candidates_expires_at: String,
    /// Until when `recreate_token` holds (RFC 3339).
    #[schema(format = DateTime)]
    pub(super) recreate_expires_at: String,
    /// What a person should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// A hub that an agent can dial.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Candidate {
    /// The hub's name.
    pub(super) edge_id: String,
    /// Its tunnel port.
    #[schema(example = "wss://hub.example.com/tunnel")]
    pub(super) edge_url: String,
    /// What it speaks.
    pub(super) supported_transport: Vec<Transport>,
    /// Where it is, if the operator says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) region: Option<String>,
    /// What a person should know of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// A transport of tunnels.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Transport {
    /// WebSocket; over TLS where `edge_url` begins with `wss`.
    Wss,
}

/// How a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum TunnelState {
    /// Its agent is here.
    Active,
    /// Its agent has not come yet.
    Pending,
    /// Its agent was here and is not now.
    Down,
}

/// A tunnel without its tokens.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Tunnel {
    /// The tunnel's id for life.
    pub(super) tunnel_id: String,
    /// Its name.
    pub(super) name: String,
    /// The name that the world sees.
    pub(super) public_hostname: String,
    /// The address for people.
    pub(super) public_url: String,
    /// The public port of a TCP service, where the hub gives any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) public_port: Option<u16>,
    /// Whose it is.
    pub(super) tenant: String,
    /// What the service speaks.
    pub(super) protocol: String,
    /// How it is.
    pub(super) state: TunnelState,
    /// The hub that its agent is connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) edge_id: Option<String>,
    /// When it was made (RFC 3339).
    #[schema(format = DateTime)]
    pub(super) created_at: String,
    /// When its name is free again if its agent does not come (RFC 3339).
    #[schema(format = DateTime)]
    pub(super) expires_at: String,
}

/// One page of a list.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct TunnelPage {
    /// The tunnels by name.
    pub(super) tunnels: Vec<Tunnel>,
    /// What `after` must be for the next page; missing at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// Which page.
#[derive(Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Begin after this name.
    #[serde(default)]
    pub(super) after: Option<String>,
    /// At most so many; 100 where it is missing, never more than 1000.
    #[serde(default)]
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<u32>,
}

/// Which page of flows.
#[derive(Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FlowQuery {
    /// Begin after this flow.
    #[serde(default)]
    #[param(
        pattern = "^[A-Za-z0-9._-]{1,128}\\.[0-9]{1,19}$",
        example = "hub.1f.42"
    )]
    pub(super) after: Option<String>,
    /// At most so many; 100 where it is missing, never more than 1000.
    #[serde(default)]
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<u32>,
}

/// Which tunnel to delete.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteTunnel {
    /// Its id.
    pub(super) tunnel_id: String,
    /// The tunnel's recreate token, for callers without a management token.
    #[serde(default)]
    pub(super) recreate_token: Option<String>,
}

/// How a client proves itself.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum GrantType {
    /// By its secret (RFC 6749 §4.4).
    ClientCredentials,
}

/// A client that proves itself (RFC 6749 §4.4).
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AskToken {
    /// `client_credentials`.
    #[expect(dead_code, reason = "there is one kind, and reading it is the check")]
    pub(super) grant_type: GrantType,
    /// The client.
    pub(super) client_id: String,
    /// Its secret.
    pub(super) client_secret: String,
}

/// A management token.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct GivenToken {
    /// For `Authorization: Bearer`.
    pub(super) token: String,
    /// `Bearer`.
    pub(super) token_type: &'static str,
    /// Seconds until it ends.
    pub(super) expires_in: u64,
    /// What it may do, separated by spaces.
    pub(super) scope: String,
}

/// A name to keep.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReserveName {
    /// One label of a host name.
    #[schema(
        max_length = 63,
        example = "shop",
        pattern = "^(?![Tt]-)(?!..--)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$"
    )]
    pub(super) name: String,
}

/// A kept name.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct ReservedName {
    /// The name.
    pub(super) name: String,
    /// The host name that it stands for.
    pub(super) public_hostname: String,
    /// Whose it is.
    pub(super) tenant: String,
    /// Since when (RFC 3339).
    #[schema(format = DateTime)]
    pub(super) created_at: String,
}

/// One page of names.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct NamePage {
    /// The names in their order.
    pub(super) names: Vec<ReservedName>,
    /// What `after` must be for the next page; missing at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// How much a tenant shall be allowed. What is missing is as everybody has it.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetQuota {
    /// Tunnels at once; at most what the hub has for all tenants.
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(maximum = 1_000_000)]
    pub(super) endpoints: Option<u64>,
    /// Reserved names; likewise.
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(maximum = 1_000_000)]
    pub(super) names: Option<u64>,
}

/// How much a tenant may have of one thing.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(super) struct Allowance {
    /// So many it may have.
    pub(super) limit: u64,
    /// Whether that is its own, and not what everybody has.
    pub(super) own: bool,
    /// So many it has; more than `limit` where that was larger before.
    pub(super) used: u64,
}

/// How much a tenant may have, and has.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct TenantQuota {
    /// The tenant.
    #[schema(example = "acme")]
    pub(super) tenant: String,
    /// Tunnels at once.
    pub(super) endpoints: Allowance,
    /// Reserved names.
    pub(super) names: Allowance,
    /// Who gave it a quota of its own: tenant and client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changed_by: Option<String>,
    /// When (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub(super) changed_at: Option<String>,
}

/// One page of quotas.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct QuotaPage {
    /// The quotas by tenant.
    pub(super) quotas: Vec<TenantQuota>,
    /// What `after` must be for the next page; missing at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// An agent that has a session.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Agent {
    /// Its id; of a tunnel's agent the tunnel's id.
    pub(super) agent_id: String,
    /// `up`, `draining`, or `detached` while it is away and its flows are kept.
    pub(super) state: String,
    /// What it calls its version.
    pub(super) version: String,
    /// What it offers.
    pub(super) connectors: Vec<String>,
    /// What it was refused to offer.
    pub(super) refused: Vec<String>,
    /// Flows that it carries.
    pub(super) flows: u64,
    /// Seconds since its tunnel connection began.
    pub(super) tunnel_seconds: u64,
    /// Seconds until its token ends; negative after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_expires_seconds: Option<i64>,
}

impl Agent {
    pub(super) fn of(id: &AgentId, status: AgentStatus) -> Self {
        let connectors = status.connectors.into_iter();
        let refused = status.refused.into_iter();
        Self {
            agent_id: id.to_string(),
            state: status.state.as_str().to_owned(),
            version: status.version,
            connectors: connectors.map(|connector| connector.name).collect(),
            refused: refused.map(|connector| connector.name).collect(),
            flows: status.flows,
            tunnel_seconds: status.tunnel_seconds,
            token_expires_seconds: status.token_expires_seconds,
        }
    }
}

/// One page of agents.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct AgentPage {
    /// The agents by id.
    pub(super) agents: Vec<Agent>,
    /// What `after` must be for the next page; missing at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// A connection that runs.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Flow {
    /// Its name for life.
    #[schema(example = "hub.1f.42")]
    pub(super) flow: String,
    /// The agent that carries it.
    pub(super) agent_id: String,
    /// What it reaches.
    pub(super) connector: String,
    /// Where its client came in; `ingress` for one that requests share.
    pub(super) listener: String,
    /// Seconds since it was opened.
    pub(super) age_seconds: u64,
    /// Bytes from clients, as of about a second ago.
    pub(super) bytes_to_service: u64,
    /// Bytes to clients, likewise.
    pub(super) bytes_to_clients: u64,
}

impl Flow {
    pub(super) fn of(flow: &FlowEntry) -> Self {
        Self {
            flow: flow.flow_ref.to_string(),
            agent_id: flow.agent.agent.to_string(),
            connector: flow.connector.name.to_string(),
            listener: flow.listener.to_string(),
            age_seconds: flow.opened.elapsed().as_secs(),
            bytes_to_service: flow.bytes_c2a.load(Ordering::Relaxed),
            bytes_to_clients: flow.bytes_a2c.load(Ordering::Relaxed),
        }
    }
}

/// One page of flows.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct FlowPage {
    /// The flows, the oldest first.
    pub(super) flows: Vec<Flow>,
    /// What `after` must be for the next page; missing at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// A route of the hub's configuration.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Route {
    /// Its endpoint's name.
    pub(super) name: String,
    /// The hosts that it answers to.
    #[schema(example = "*.example.com")]
    pub(super) host: String,
    /// The path, or what it begins with.
    pub(super) path: String,
    /// Whether that is the whole path.
    pub(super) exact: bool,
    /// Where its requests go.
    pub(super) connector: String,
    /// Whether the shipped policies let everybody in.
    pub(super) public: bool,
    /// Agents that offer the connector now.
    pub(super) agents: u64,
}

/// One page of routes.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct RoutePage {
    /// The routes by name.
    pub(super) routes: Vec<Route>,
    /// What `after` must be for the next page; missing at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}
