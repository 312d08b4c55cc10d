//! Listeners and connectors, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RateFile;

/// One public TCP port that leads to one connector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerFile {
    /// A name, unique among listeners: `[A-Za-z0-9._-]`, at most 64 bytes. It is a metric label.
    pub name: String,
    /// The address and port, such as `0.0.0.0:389` or `[::]:389`. Port 0 asks the system for a
    /// free one. No two listeners, nor the tunnel and metrics ports, may share one.
    pub bind: String,
    /// The connector that clients of this port reach.
    pub connector: String,
    /// The tenant whose connector that is. Default `default`.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// Client addresses that are let in, as CIDR. Empty means all. `security.allow_cidrs` applies
    /// as well: an address must pass both. Default empty.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub allow_cidrs: Vec<String>,
    /// The most clients at once. `null` leaves only `limits.max_conn_total`. Default `null`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// New clients a second over all sources; more are closed at once. Default `null`: no bound.
    #[serde(default)]
    pub rate: Option<RateFile>,
    /// New clients a second from one source address (an IPv6 /64 counts as one). Default `null`.
    #[serde(default)]
    pub rate_per_source: Option<RateFile>,
    /// The PROXY protocol on the way in, for a load balancer in front.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocolFile,
    /// How one of several agents that offer the connector is chosen. Default `least_flows`.
    #[serde(default)]
    pub balance: BalanceFile,
    /// Overrides the connector's value and `limits.idle_timeout_ms`. Milliseconds. Default `null`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 604_800_000))]
    pub idle_timeout_ms: Option<u64>,
    /// Overrides the connector's value and `limits.stall_timeout_ms`. Milliseconds. Default `null`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 604_800_000))]
    pub stall_timeout_ms: Option<u64>,
    /// The listen backlog asked of the system, in connections; the system may lower it.
    /// Default 1024.
    #[serde(default = "default_backlog")]
    #[schemars(range(min = 1, max = 65_535))]
    pub backlog: u32,
}

fn default_tenant() -> String {
    "default".to_owned()
}

fn default_backlog() -> u32 {
    1024
}

/// The PROXY protocol on the way in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocolFile {
    /// Which versions are read. Anything but `off` needs `trusted`. Default `off`.
    pub accept: ProxyProtocolAcceptFile,
    /// The load balancers, as CIDR. They must send a header; from any other address a header
    /// closes the connection. Default empty.
    #[schemars(length(max = 1024))]
    pub trusted: Vec<String>,
    /// How long the header may take after accept. Milliseconds. Default 5000.
    #[schemars(range(min = 1, max = 60_000))]
    pub header_timeout_ms: u64,
}

impl Default for ProxyProtocolFile {
    fn default() -> Self {
        Self {
            accept: ProxyProtocolAcceptFile::Off,
            trusted: Vec::new(),
            header_timeout_ms: 5_000,
        }
    }
}

/// Which PROXY protocol versions are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocolAcceptFile {
    /// None: the first byte belongs to the service.
    #[default]
    Off,
    /// The text form only.
    V1,
    /// The binary form only.
    V2,
    /// Either form.
    Any,
}

/// How one of several agents is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceFile {
    /// The agent with the fewest running flows.
    #[default]
    LeastFlows,
    /// One after the other.
    RoundRobin,
    /// The same agent for the same client address while it lives.
    StickyClient,
}

/// What differs for one connector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectorFile {
    /// Whose connector this is; left out where the key is written `tenant/name`.
    /// Default `default`.
    pub tenant: Option<String>,
    /// Tags that policies can read, at most 32. Default none.
    pub labels: BTreeMap<String, String>,
    /// What is spoken there, for policies (`resource.protocol`), such as `ldaps`. Default `tcp`.
    pub protocol: Option<String>,
    /// Overrides `limits.idle_timeout_ms`. Milliseconds. Default `null`.
    #[schemars(range(min = 1, max = 604_800_000))]
    pub idle_timeout_ms: Option<u64>,
    /// Overrides `limits.stall_timeout_ms`. Milliseconds. Default `null`.
    #[schemars(range(min = 1, max = 604_800_000))]
    pub stall_timeout_ms: Option<u64>,
    /// Overrides `limits.linger_ms`. Milliseconds. Default `null`.
    #[schemars(range(min = 0, max = 604_800_000))]
    pub linger_ms: Option<u64>,
    /// The PROXY protocol header with the client's address that agents write to the target before
    /// the first byte. An agent whose own file sets `proxy_protocol` at the target does as that
    /// says. Default `off`.
    pub proxy_protocol_out: ProxyProtocolOutFile,
    /// The most flows at once over all agents of this connector. Default `null`: no bound of its
    /// own.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// New flows a second over all agents of this connector. Default `null`.
    pub rate: Option<RateFile>,
    /// How the hub sees whether the target behind each agent answers; an agent whose target does
    /// not gets no new flow of this connector. `{}` connects to it. Default `null`: nobody looks.
    pub health_check: Option<HealthCheckFile>,
}

/// How the hub sees whether a target answers: through each agent that serves the connector, by a
/// flow of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheckFile {
    /// From the beginning of a look to that of the next, a tenth more or less. Milliseconds.
    /// Default 10000.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub interval_ms: u64,
    /// How long a look may take. Milliseconds. Default 3000.
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout_ms: u64,
    /// Looks in a row that must succeed until a target that is down is up. Default 2.
    #[schemars(range(min = 1, max = 100))]
    pub rise: u32,
    /// Looks in a row that must fail until a target that is up is down. Default 3.
    #[schemars(range(min = 1, max = 100))]
    pub fall: u32,
    /// Asks for a page instead of only connecting. Default `null`.
    pub http: Option<HttpCheckFile>,
}

impl Default for HealthCheckFile {
    fn default() -> Self {
        Self {
            interval_ms: 10_000,
            timeout_ms: 3000,
            rise: 2,
            fall: 3,
            http: None,
        }
    }
}

/// A `GET` of a page; HTTP/2 where the agent's TLS to the target agreed on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpCheckFile {
    /// The path, with a query where there is one. Default `/`.
    pub path: String,
    /// What the target sees as `Host`. Default `localhost`.
    pub host: String,
    /// The statuses that will do. Empty means each from 200 to 399. Default empty.
    #[schemars(length(max = 32), inner(range(min = 100, max = 599)))]
    pub status: Vec<u16>,
}

impl Default for HttpCheckFile {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            host: "localhost".to_owned(),
            status: Vec::new(),
        }
    }
}

/// The PROXY protocol on the way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocolOutFile {
    /// No header.
    #[default]
    Off,
    /// The text form.
    V1,
    /// The binary form.
    V2,
}
