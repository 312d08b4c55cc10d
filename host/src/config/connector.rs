//! What differs for one connector.

use std::collections::BTreeMap;
use std::time::Duration;

use nowconnect_protocol::{ConnectorName, TenantName};

use super::RateLimit;

/// The identity of a connector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectorKey {
    /// Whose it is.
    pub tenant: TenantName,
    /// Its name within the tenant.
    pub name: ConnectorName,
}

/// Settings of one connector. Its `Default` is what a connector has that is not configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectorConfig {
    /// Tags that policies can read. At most 32.
    pub labels: BTreeMap<String, String>,
    /// What is spoken there, for policies (`resource.protocol`); empty means `tcp`.
    pub protocol: String,
    /// Overrides `limits.idle_timeout_ms`.
    pub idle_timeout: Option<Duration>,
    /// Overrides `limits.stall_timeout_ms`.
    pub stall_timeout: Option<Duration>,
    /// Overrides `limits.linger_ms`.
    pub linger: Option<Duration>,
    /// The PROXY protocol header that the agent writes to the target before the first byte.
    pub proxy_protocol_out: Option<ProxyProtocolVersion>,
    /// The most flows at once over all agents of this connector.
    pub max_connections: Option<u32>,
    /// New flows a second over all agents of this connector.
    pub rate: Option<RateLimit>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    /// The text form.
    V1,
    /// The binary form.
    V2,
}
