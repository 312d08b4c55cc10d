//! What differs for one connector.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use nowconnect_protocol::{ConnectorName, ProxyProtocol, TenantName};

use super::RateLimit;
use super::build::{name, optional_ms, rate};
use super::file::{ConnectorFile, ProxyProtocolOutFile};
use super::problem::Problems;
use super::tree::Path;

/// The identity of a connector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectorKey {
    /// Whose it is.
    pub tenant: TenantName,
    /// Its name within the tenant.
    pub name: ConnectorName,
}

impl ConnectorKey {
    /// Reads `name` or `tenant/name`, as it is shown and as a key of `connectors`.
    pub(super) fn build(
        key: &str,
        file: &ConnectorFile,
        path: &Path,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let (tenant, bare) = match key.split_once('/') {
            Some((tenant, bare)) => {
                if file.tenant.as_ref().is_some_and(|other| other != tenant) {
                    problems.add_with_help(
                        &path.key("tenant"),
                        format!("`{path}` names two tenants"),
                        "remove `tenant`, or write the key without the part before `/`",
                    );
                }
                (tenant, bare)
            }
            None => (file.tenant.as_deref().unwrap_or("default"), key),
        };
        let tenant = name(TenantName::parse(tenant), path, problems);
        let bare = name(ConnectorName::parse(bare), path, problems);
        Some(Self {
            tenant: tenant?,
            name: bare?,
        })
    }
}

impl fmt::Display for ConnectorKey {
    /// `name` in the default tenant, else `tenant/name`: the same as in Cedar uids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenant.is_default() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.tenant, self.name)
        }
    }
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
    /// The PROXY protocol header that agents write to the target before the first byte, where
    /// their own configuration of the target does not say.
    pub proxy_protocol_out: Option<ProxyProtocol>,
    /// The most flows at once over all agents of this connector.
    pub max_connections: Option<u32>,
    /// New flows a second over all agents of this connector.
    pub rate: Option<RateLimit>,
}

impl ConnectorConfig {
    /// The most labels of one connector: policies read them as tags, one by one.
    const MAX_LABELS: usize = 32;

    pub(super) fn build(file: &ConnectorFile, path: &Path, problems: &mut Problems<'_>) -> Self {
        if file.labels.len() > Self::MAX_LABELS {
            problems.add(
                &path.key("labels"),
                format!(
                    "`{path}` has {} labels, at most {} are allowed",
                    file.labels.len(),
                    Self::MAX_LABELS
                ),
            );
        }
        Self {
            labels: file.labels.clone(),
            protocol: file.protocol.clone().unwrap_or_default(),
            idle_timeout: optional_ms(file.idle_timeout_ms),
            stall_timeout: optional_ms(file.stall_timeout_ms),
            linger: optional_ms(file.linger_ms),
            proxy_protocol_out: match file.proxy_protocol_out {
                ProxyProtocolOutFile::Off => None,
                ProxyProtocolOutFile::V1 => Some(ProxyProtocol::V1),
                ProxyProtocolOutFile::V2 => Some(ProxyProtocol::V2),
            },
            max_connections: file.max_connections,
            rate: rate(file.rate.as_ref()),
        }
    }
}
