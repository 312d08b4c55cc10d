//! Where requests go, by host and path.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use nowconnect_protocol::{ConnectorName, TenantName};

use super::super::build::{ms, name, optional_ms, rate};
use super::super::file::{ConnectionsFile, OriginHttpFile, PathMatchFile, RouteFile, StickyFile};
use super::super::problem::Problems;
use super::super::tree::{Node, Path};
use super::super::{Balance, ConnectorKey, ListenerName, RateLimit};
use crate::ingress::{HostPattern, normal_path};

/// Where requests for one host and path go.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// The name of its endpoint within the tenant.
    pub name: ListenerName,
    /// Whose endpoint and connector that are.
    pub tenant: TenantName,
    /// The hosts that it answers to.
    pub host: HostPattern,
    /// The path, normalised; without a slash at its end where it is a prefix, so that `/` is
    /// empty.
    pub path: String,
    /// Whether `path` is the whole path.
    pub exact: bool,
    /// The connector behind it.
    pub connector: ConnectorName,
    /// Whether anybody may ask, for policies.
    pub public: bool,
    /// How viewers say who they are.
    pub viewer_auth: Option<ListenerName>,
    /// Tags of the endpoint.
    pub labels: BTreeMap<String, String>,
    /// How one of several agents is chosen.
    pub balance: Balance,
    /// What keeps a viewer with its agent, before `balance` chooses.
    pub sticky: Option<Sticky>,
    /// Whether the host's first label names the agent.
    pub agent_label: bool,
    /// What origins see as `Host`.
    pub host_header: Option<HeaderValue>,
    /// Whether redirects to `host_header` are turned back.
    pub rewrite_location: bool,
    /// Whether a path may hold `%2F`.
    pub encoded_slash: bool,
    /// Whether a path may hold `;`.
    pub path_parameters: bool,
    /// From the end of the request until the response begins.
    pub response_timeout: Duration,
    /// Overrides the connector's and `limits.idle_timeout_ms`.
    pub idle_timeout: Option<Duration>,
    /// Further agents that are tried where the request certainly reached no origin.
    pub retries: u32,
    /// The most bytes of a request's body.
    pub max_body_bytes: Option<u64>,
    /// Whether the least rate of viewers holds for bodies of requests.
    pub min_rate: bool,
    /// Requests a second over all sources.
    pub rate: Option<RateLimit>,
    /// Which HTTP is spoken to origins.
    pub origin_http: OriginHttp,
    /// Whether connections to origins are kept apart by viewer.
    pub connections_per_viewer: bool,
}

/// What keeps a viewer with its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// A cookie of the hub.
    Cookie,
    /// The value of this field.
    Header(HeaderName),
}

/// Which HTTP is spoken to origins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OriginHttp {
    /// HTTP/2 where the agent's TLS to the origin agreed on it, else HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl RouteConfig {
    /// The most labels of one endpoint: policies read them as tags, one by one.
    const MAX_LABELS: usize = 32;

    pub(super) fn build(
        file: &RouteFile,
        path: &Path,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let route_name = name(ListenerName::parse(&file.name), &path.key("name"), problems);
        let tenant = name(
            TenantName::parse(&file.tenant),
            &path.key("tenant"),
            problems,
        );
        let connector = name(
            ConnectorName::parse(&file.connector),
            &path.key("connector"),
            problems,
        );
        let host = name(HostPattern::parse(&file.host), &path.key("host"), problems);
        let exact = file.path_match == PathMatchFile::Exact;
        let route_path = route_path(&file.path, exact, &path.key("path"), problems);
        let host_header = match &file.host_header {
            Some(text) => Some(host_header(text, &path.key("host_header"), problems)?),
            None => None,
        };
        if file.rewrite_location && file.host_header.is_none() {
            problems.add_with_help(
                &path.key("rewrite_location"),
                format!("`{path}.rewrite_location` has nothing to turn back"),
                "set `host_header` to the origin's own name, or leave it out",
            );
        }
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
        let viewer_auth = match &file.viewer_auth {
            Some(text) => {
                let at = path.key("viewer_auth");
                Some(name(ListenerName::parse(text), &at, problems)?)
            }
            None => None,
        };
        Some(Self {
            name: route_name?,
            tenant: tenant?,
            host: host?,
            path: route_path?,
            exact,
            connector: connector?,
            public: file.public,
            viewer_auth,
            labels: file.labels.clone(),
            balance: file.balance.into(),
            sticky: match &file.sticky {
                None => None,
                Some(StickyFile::Cookie) => Some(Sticky::Cookie),
                Some(StickyFile::Header(name)) => Some(Sticky::Header(sticky_header(
                    name,
                    &path.key("sticky"),
                    problems,
                )?)),
            },
            agent_label: file.agent_label,
            host_header,
            rewrite_location: file.rewrite_location,
            encoded_slash: file.encoded_slash,
            path_parameters: file.path_parameters,
            response_timeout: ms(file.response_timeout_ms),
            idle_timeout: optional_ms(file.idle_timeout_ms),
            retries: file.retries,
            max_body_bytes: file.max_body_bytes,
            min_rate: file.min_rate,
            rate: rate(file.rate.as_ref()),
            origin_http: match file.origin_http {
                OriginHttpFile::Auto => OriginHttp::Auto,
                OriginHttpFile::Http1 => OriginHttp::Http1,
                OriginHttpFile::Http2 => OriginHttp::Http2,
            },
            connections_per_viewer: file.connections == ConnectionsFile::Viewer,
        })
    }

    /// Agents answer under their own names only where the operator wants it, and below one name.
    pub(super) fn check_agent_label(&self, wanted: bool, at: &Path, problems: &mut Problems<'_>) {
        if !self.agent_label {
            return;
        }
        let at = at.key("agent_label");
        if !wanted {
            problems.add_with_help(
                &at,
                format!("`{at}` is set, and hosts that name agents are off"),
                "set `ingress.agent_label: true`, or leave it out",
            );
        }
        if !matches!(self.host, HostPattern::Below(_)) {
            problems.add_with_help(
                &at,
                format!("`{at}` is set, and `host` is no `*.` with a name"),
                "write `host: \"*.agents.example.com\"`: the label in place of `*` is the agent's id",
            );
        }
        if self.sticky.is_some() {
            problems.add_with_help(
                &at,
                format!("`{at}` and `sticky` are both set"),
                "leave `sticky` out: the host names the agent",
            );
        }
    }

    /// The route of a name that an agent publishes: that of a file which says no more than its
    /// host and connector. `None` for a host or connector that no file could name.
    pub(crate) fn published(host: &str, connector: &ConnectorKey) -> Option<Self> {
        let (name, _) = host.split_once('.').unwrap_or((host, ""));
        let file: RouteFile = serde_json::from_value(serde_json::json!({
            "name": name,
            "tenant": connector.tenant.as_str(),
            "host": host,
            "connector": connector.name.as_str(),
            "public": true,
        }))
        .ok()?;
        let nowhere = Node::nothing();
        let mut problems = Problems::new(&nowhere);
        let route = Self::build(&file, &Path::default(), &mut problems);
        route.filter(|_| problems.is_empty())
    }

    /// The connector behind it.
    #[must_use]
    pub fn connector_key(&self) -> ConnectorKey {
        ConnectorKey {
            tenant: self.tenant.clone(),
            name: self.connector.clone(),
        }
    }
}

/// A path as requests are compared with it: they are normalised, so one that is not would never
/// fit.
fn route_path(text: &str, exact: bool, at: &Path, problems: &mut Problems<'_>) -> Option<String> {
    match normal_path(text) {
        Ok(normal) if normal.text == text => {
            let prefix = text.strip_suffix('/').unwrap_or(text);
            Some(if exact { text } else { prefix }.to_owned())
        }
        Ok(normal) => {
            problems.add_with_help(
                at,
                format!("`{at}` cannot be `{text}`: no request has that path"),
                format!(
                    "write `{}`, which is what such a request becomes",
                    normal.text
                ),
            );
            None
        }
        Err(error) => {
            problems.add(at, format!("`{at}` cannot be `{text}`: {error}"));
            None
        }
    }
}

fn sticky_header(text: &str, at: &Path, problems: &mut Problems<'_>) -> Option<HeaderName> {
    match HeaderName::try_from(text) {
        Ok(name) => Some(name),
        Err(_) => {
            problems.add_with_help(
                at,
                format!("`{at}.header` cannot be `{text}`: it is no name of a header field"),
                "write a name such as `x-session`",
            );
            None
        }
    }
}

pub(in super::super) fn host_header(
    text: &str,
    at: &Path,
    problems: &mut Problems<'_>,
) -> Option<HeaderValue> {
    match crate::ingress::Authority::parse(text) {
        Ok(authority) => HeaderValue::from_str(&authority.to_string()).ok(),
        Err(error) => {
            problems.add(at, format!("`{at}` cannot be `{text}`: {error}"));
            None
        }
    }
}
