//! Public ports.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use nowconnect_protocol::{ConnectorName, TenantName};

use super::RateLimit;
use super::build::{cidrs, ms, name, optional_ms, rate, socket_address};
use super::file::{BalanceFile, ListenerFile, ProxyProtocolAcceptFile, ProxyProtocolFile};
use super::problem::Problems;
use super::tree::Path;

/// The name of a listener: `[A-Za-z0-9._-]`, 1 to 64 bytes. It is a metric label and a Cedar uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerName(Arc<str>);

impl ListenerName {
    /// The longest name in bytes: it is a metric label, and labels should stay short.
    pub const MAX_BYTES: usize = 64;

    /// Checks the text.
    ///
    /// # Errors
    /// A sentence saying what a name may hold.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a listener name must not be empty".to_owned());
        }
        if text.len() > Self::MAX_BYTES {
            return Err(format!(
                "a listener name has at most {} bytes, this one has {}",
                Self::MAX_BYTES,
                text.len()
            ));
        }
        match text
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
        {
            Some(found) => Err(format!(
                "`{found}` is not allowed in a listener name: use letters, digits, `.`, `_` and `-`"
            )),
            None => Ok(Self(Arc::from(text))),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One public TCP port that leads to one connector.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Unique among listeners.
    pub name: ListenerName,
    /// The address and port; port 0 asks the system for a free one.
    pub bind: SocketAddr,
    /// The connector that every client of this port reaches.
    pub connector: ConnectorName,
    /// The tenant whose connector that is.
    pub tenant: TenantName,
    /// Client addresses that are let in; empty means all. `security.allow_cidrs` applies too:
    /// an address must pass both.
    pub allow_cidrs: Vec<IpNet>,
    /// The most clients at once; `None` leaves only `limits.max_conn_total`.
    pub max_connections: Option<u32>,
    /// New clients a second over all sources.
    pub rate: Option<RateLimit>,
    /// New clients a second from one source address (an IPv6 /64 counts as one).
    pub rate_per_source: Option<RateLimit>,
    /// Whether clients come with a PROXY protocol header, and from whom it is believed.
    pub proxy_protocol: ProxyProtocolIn,
    /// How one of several agents is chosen.
    pub balance: Balance,
    /// Overrides the connector's and `limits.idle_timeout_ms`.
    pub idle_timeout: Option<Duration>,
    /// Overrides the connector's and `limits.stall_timeout_ms`.
    pub stall_timeout: Option<Duration>,
    /// The listen backlog asked of the system, in connections.
    pub backlog: u32,
}

impl ListenerConfig {
    pub(super) fn build(
        file: &ListenerFile,
        path: &Path,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let listener_name = name(ListenerName::parse(&file.name), &path.key("name"), problems);
        let bind = socket_address(&file.bind, &path.key("bind"), problems);
        let connector = name(
            ConnectorName::parse(&file.connector),
            &path.key("connector"),
            problems,
        );
        let tenant = name(
            TenantName::parse(&file.tenant),
            &path.key("tenant"),
            problems,
        );
        let allow_cidrs = cidrs(&file.allow_cidrs, &path.key("allow_cidrs"), problems);
        let proxy_protocol =
            ProxyProtocolIn::build(&file.proxy_protocol, &path.key("proxy_protocol"), problems);
        Some(Self {
            name: listener_name?,
            bind: bind?,
            connector: connector?,
            tenant: tenant?,
            allow_cidrs,
            max_connections: file.max_connections,
            rate: rate(file.rate.as_ref()),
            rate_per_source: rate(file.rate_per_source.as_ref()),
            proxy_protocol,
            balance: file.balance.into(),
            idle_timeout: optional_ms(file.idle_timeout_ms),
            stall_timeout: optional_ms(file.stall_timeout_ms),
            backlog: file.backlog,
        })
    }
}

/// The PROXY protocol on the way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocolIn {
    /// Which versions are read.
    pub accept: ProxyProtocolAccept,
    /// Who must send a header. A client from elsewhere that sends one is closed, and one from
    /// here that sends none as well.
    pub trusted: Vec<IpNet>,
    /// How long the header may take after accept.
    pub header_timeout: Duration,
}

impl ProxyProtocolIn {
    pub(super) fn build(
        file: &ProxyProtocolFile,
        path: &Path,
        problems: &mut Problems<'_>,
    ) -> Self {
        let trusted = cidrs(&file.trusted, &path.key("trusted"), problems);
        if file.accept != ProxyProtocolAcceptFile::Off && file.trusted.is_empty() {
            problems.add_with_help(
                &path.key("accept"),
                format!("`{path}` reads a header from nobody"),
                "name your load balancers under `trusted`: a header counts only from them",
            );
        }
        Self {
            accept: match file.accept {
                ProxyProtocolAcceptFile::Off => ProxyProtocolAccept::Off,
                ProxyProtocolAcceptFile::V1 => ProxyProtocolAccept::V1,
                ProxyProtocolAcceptFile::V2 => ProxyProtocolAccept::V2,
                ProxyProtocolAcceptFile::Any => ProxyProtocolAccept::Any,
            },
            trusted,
            header_timeout: ms(file.header_timeout_ms),
        }
    }
}

/// Which PROXY protocol versions a listener reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolAccept {
    /// None: the first byte belongs to the service.
    Off,
    /// The text form only.
    V1,
    /// The binary form only.
    V2,
    /// Either form.
    Any,
}

/// How one of several agents that offer a connector is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The agent with the fewest running flows.
    LeastFlows,
    /// One after the other.
    RoundRobin,
    /// The same agent for the same client address while it lives (rendezvous hashing).
    StickyClient,
}

impl From<BalanceFile> for Balance {
    fn from(file: BalanceFile) -> Self {
        match file {
            BalanceFile::LeastFlows => Self::LeastFlows,
            BalanceFile::RoundRobin => Self::RoundRobin,
            BalanceFile::StickyClient => Self::StickyClient,
        }
    }
}
