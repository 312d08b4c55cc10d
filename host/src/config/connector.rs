//! What differs for one connector.

use std::collections::BTreeMap;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};
use nowconnect_protocol::{ConnectorName, ProxyProtocol, TenantName};
pub use nowconnect_registry::ConnectorKey;

use super::RateLimit;
use super::build::{ms, name, optional_ms, rate};
use super::file::{ConnectorFile, HealthCheckFile, HttpCheckFile, ProxyProtocolOutFile};
use super::ingress::host_header;
use super::problem::Problems;
use super::tree::Path;

/// Reads `name` or `tenant/name`, as a connector is shown and as a key of `connectors`.
pub(super) fn connector_key(
    key: &str,
    file: &ConnectorFile,
    path: &Path,
    problems: &mut Problems<'_>,
) -> Option<ConnectorKey> {
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
    Some(ConnectorKey {
        tenant: tenant?,
        name: bare?,
    })
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
    /// How targets are looked at; `None` where nobody does.
    pub health_check: Option<HealthCheck>,
}

/// How the hub sees whether a target answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// From the beginning of a look to that of the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Looks in a row until a target that is down is up.
    pub rise: u32,
    /// Looks in a row until a target that is up is down.
    pub fall: u32,
    /// What is asked for; `None` only connects.
    pub http: Option<HttpCheck>,
}

/// The page that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// Its path and query.
    pub path: PathAndQuery,
    /// `Host`.
    pub host: HeaderValue,
    /// The statuses that will do; empty means each from 200 to 399.
    pub status: Vec<StatusCode>,
}

impl HealthCheck {
    fn build(file: &HealthCheckFile, path: &Path, problems: &mut Problems<'_>) -> Option<Self> {
        let http = match &file.http {
            Some(http) => Some(HttpCheck::build(http, &path.key("http"), problems)?),
            None => None,
        };
        Some(Self {
            interval: ms(file.interval_ms),
            timeout: ms(file.timeout_ms),
            rise: file.rise,
            fall: file.fall,
            http,
        })
    }
}

impl HttpCheck {
    fn build(file: &HttpCheckFile, path: &Path, problems: &mut Problems<'_>) -> Option<Self> {
        let target = PathAndQuery::try_from(file.path.as_str())
            .ok()
            .filter(|target| target.as_str().starts_with('/'));
        if target.is_none() {
            let at = path.key("path");
            problems.add_with_help(
                &at,
                format!("`{at}` cannot be `{}`: it is no path", file.path),
                "write what follows the host in an address, such as `/healthz`",
            );
        }
        let host = host_header(&file.host, &path.key("host"), problems);
        let mut status = Vec::with_capacity(file.status.len());
        for number in &file.status {
            // The schema leaves none that is no status.
            status.extend(StatusCode::from_u16(*number).ok());
        }
        Some(Self {
            path: target?,
            host: host?,
            status,
        })
    }
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
            health_check: file
                .health_check
                .as_ref()
                .and_then(|check| HealthCheck::build(check, &path.key("health_check"), problems)),
        }
    }
}
