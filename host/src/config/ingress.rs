//! HTTP by host name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use nowconnect_protocol::{ConnectorName, TenantName};

use super::build::{Surroundings, cidrs, ms, name, optional_ms, rate, socket_address};
use super::file::{
    ConnectionsFile, HttpListenerFile, HttpTlsFile, IngressFile, IngressLimitsFile, OriginHttpFile,
    PathMatchFile, RouteFile, SecurityFile, StickyFile,
};
use super::problem::Problems;
use super::tree::{Node, Path};
use super::{
    AcmeConfig, Balance, ChallengeKind, ClientCertificates, ConnectorKey, ListenerName,
    ProxyProtocolIn, RateLimit, TlsFiles, ViewerAuthConfig, ViewerWay,
};
use crate::ingress::{HostPattern, normal_path};

/// `ingress`: public HTTP ports and what they lead to.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressConfig {
    /// The ports. Names are unique among all listeners, ports among all ports.
    pub listeners: Vec<HttpListenerConfig>,
    /// The routes. No two are alike in host, path and the way it is compared; names are unique
    /// within a tenant.
    pub routes: Vec<RouteConfig>,
    /// How viewers say who they are. Names are unique, and every name in a route is one of these.
    pub viewer_auth: Vec<ViewerAuthConfig>,
    /// Whether the hub sets `X-Forwarded-*` and `Forwarded`.
    pub forwarded_headers: bool,
    /// Who issues certificates for names that no file fits.
    pub acme: Option<AcmeConfig>,
    /// Bounds on viewers and origins.
    pub limits: IngressLimits,
}

/// One public HTTP port.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpListenerConfig {
    /// Unique among listeners.
    pub name: ListenerName,
    /// The address and port; port 0 asks the system for a free one.
    pub bind: SocketAddr,
    /// The certificates; `None` serves plain HTTP.
    pub tls: Option<HttpTls>,
    /// Certificates that clients are asked for; only with `tls`.
    pub client_certificates: Option<ClientCertificates>,
    /// Whether HTTP/2 is spoken beside HTTP/1.1.
    pub http2: bool,
    /// Client addresses that are let in; empty means all.
    pub allow_cidrs: Vec<IpNet>,
    /// Proxies whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether traces of viewers go on here, those of `trusted_proxies` where there are any.
    pub continue_traces: bool,
    /// The most connections at once; `None` leaves only `limits.max_conn_total`.
    pub max_connections: Option<u32>,
    /// Requests a second from one source address.
    pub rate_per_source: Option<RateLimit>,
    /// Whether clients come with a PROXY protocol header, and from whom it is believed.
    pub proxy_protocol: ProxyProtocolIn,
    /// The listen backlog asked of the system, in connections.
    pub backlog: u32,
}

/// The certificates of a public HTTP port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpTls {
    /// Shown where no other fits the name that a client asks for.
    pub default: Option<TlsFiles>,
    /// Those for the names in them.
    pub certificates: Vec<TlsFiles>,
}

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

/// `ingress.limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressLimits {
    /// The most bytes of a head.
    pub max_header_bytes: u32,
    /// The most fields of a head.
    pub max_headers: u32,
    /// How long the head of a request may take, waiting for it included.
    pub header_timeout: Duration,
    /// How long a client may send nothing of a body that it owes.
    pub body_timeout: Duration,
    /// How long a viewer may take nothing of a response that waits for it.
    pub send_timeout: Duration,
    /// How old a viewer's connection may become; `None` is no bound.
    pub max_connection_age: Option<Duration>,
    /// TLS handshakes at once.
    pub max_handshakes: u32,
    /// How long one may take.
    pub handshake_timeout: Duration,
    /// Connections at once from one source address.
    pub max_connections_per_source: u32,
    /// Requests at once.
    pub max_requests: u32,
    /// Requests at once from one source address.
    pub max_requests_per_source: u32,
    /// Requests at once of one HTTP/2 connection.
    pub max_streams: u32,
    /// Connections to origins kept for each connector and agent.
    pub pool_idle: u32,
    /// How long one is kept.
    pub pool_idle_timeout: Duration,
}

impl IngressConfig {
    pub(super) fn build(
        file: &IngressFile,
        path: &Path,
        security: &SecurityFile,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let at = path.key("listeners");
        let mut listeners = Vec::with_capacity(file.listeners.len());
        for (index, listener) in file.listeners.iter().enumerate() {
            let at = at.index(index);
            listeners.extend(HttpListenerConfig::build(listener, &at, around, problems));
        }
        let at = path.key("routes");
        let mut routes: Vec<RouteConfig> = Vec::with_capacity(file.routes.len());
        let mut taken = BTreeMap::new();
        let mut names = BTreeSet::new();
        for (index, route) in file.routes.iter().enumerate() {
            let at = at.index(index);
            let Some(route) = RouteConfig::build(route, &at, problems) else {
                continue;
            };
            route.check_agent_label(file.agent_label, &at, problems);
            if !names.insert((route.tenant.clone(), route.name.clone())) {
                problems.add_with_help(
                    &at.key("name"),
                    format!("the route name `{}` is used twice", route.name),
                    "give each route of a tenant a name of its own: it is its endpoint's name",
                );
            }
            let place = (route.host.clone(), route.path.clone(), route.exact);
            if let Some(first) = taken.insert(place, index) {
                problems.add_with_help(
                    &at.key("path"),
                    format!("`{at}` answers to the same host and path as `{path}.routes[{first}]`"),
                    "give one of them another `host`, `path` or `path_match`",
                );
            }
            routes.push(route);
        }
        let viewer_auth = Self::viewer_auth(file, path, security, around, problems);
        check_viewer_auth(&routes, &viewer_auth, &listeners, path, problems);
        let at = path.key("acme");
        let acme = file.acme.as_ref();
        let acme = acme.and_then(|acme| AcmeConfig::build(acme, &at, around, problems));
        match &file.acme {
            Some(_) => check_issuing(acme.as_ref(), &listeners, &at, problems),
            None => check_files(&file.listeners, &path.key("listeners"), problems),
        }
        Self {
            listeners,
            routes,
            viewer_auth,
            forwarded_headers: file.forwarded_headers,
            acme,
            limits: IngressLimits::build(&file.limits),
        }
    }

    fn viewer_auth(
        file: &IngressFile,
        path: &Path,
        security: &SecurityFile,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Vec<ViewerAuthConfig> {
        let at = path.key("viewer_auth");
        let of_agents = (security, &Path::dotted("security"));
        let mut sets: Vec<ViewerAuthConfig> = Vec::with_capacity(file.viewer_auth.len());
        for (index, set) in file.viewer_auth.iter().enumerate() {
            let at = at.index(index);
            let Some(set) = ViewerAuthConfig::build(set, &at, of_agents, around, problems) else {
                continue;
            };
            if sets.iter().any(|other| other.name == set.name) {
                problems.add_with_help(
                    &at.key("name"),
                    format!("the name `{}` is used twice", set.name),
                    "routes name one of `viewer_auth`: give each a name of its own",
                );
            }
            sets.push(set);
        }
        sets
    }

    /// The connectors that routes lead to.
    pub(crate) fn connectors(&self) -> impl Iterator<Item = ConnectorKey> {
        self.routes.iter().map(RouteConfig::connector_key)
    }
}

impl HttpListenerConfig {
    fn build(
        file: &HttpListenerFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let listener_name = name(ListenerName::parse(&file.name), &path.key("name"), problems);
        let bind = socket_address(&file.bind, &path.key("bind"), problems);
        let allow_cidrs = cidrs(&file.allow_cidrs, &path.key("allow_cidrs"), problems);
        let trusted_proxies = cidrs(
            &file.trusted_proxies,
            &path.key("trusted_proxies"),
            problems,
        );
        let proxy_protocol =
            ProxyProtocolIn::build(&file.proxy_protocol, &path.key("proxy_protocol"), problems);
        let client_certificates = file
            .client_certificates
            .as_ref()
            .map(|clients| ClientCertificates::build(clients, around));
        if client_certificates.is_some() && file.tls.is_none() {
            problems.add_with_help(
                &path.key("client_certificates"),
                format!("`{path}` asks clients for certificates, and speaks no TLS"),
                "set `tls` as well: certificates are shown in its handshake",
            );
        }
        Some(Self {
            name: listener_name?,
            bind: bind?,
            tls: file
                .tls
                .as_ref()
                .map(|tls| HttpTls::build(tls, &path.key("tls"), around, problems)),
            client_certificates,
            http2: file.http2,
            allow_cidrs,
            trusted_proxies,
            continue_traces: file.continue_traces,
            max_connections: file.max_connections,
            rate_per_source: rate(file.rate_per_source.as_ref()),
            proxy_protocol,
            backlog: file.backlog,
        })
    }
}

impl HttpTls {
    fn build(
        file: &HttpTlsFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let default = match (&file.cert_file, &file.key_file) {
            (Some(cert), Some(key)) => Some(TlsFiles {
                cert_file: around.path(cert),
                key_file: around.path(key),
            }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                problems.add_with_help(
                    path,
                    format!("`{path}` has one of `cert_file` and `key_file` without the other"),
                    "write both, the chain and the key that its first certificate was made with",
                );
                None
            }
        };
        let certificates = file.certificates.iter();
        Self {
            default,
            certificates: certificates
                .map(|files| TlsFiles::build(files, around))
                .collect(),
        }
    }

    /// Every certificate that is in a file.
    pub(crate) fn files(&self) -> impl Iterator<Item = &TlsFiles> {
        self.default.iter().chain(&self.certificates)
    }
}

impl RouteConfig {
    /// The most labels of one endpoint: policies read them as tags, one by one.
    const MAX_LABELS: usize = 32;

    fn build(file: &RouteFile, path: &Path, problems: &mut Problems<'_>) -> Option<Self> {
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
    fn check_agent_label(&self, wanted: bool, at: &Path, problems: &mut Problems<'_>) {
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

impl IngressLimits {
    fn build(file: &IngressLimitsFile) -> Self {
        Self {
            max_header_bytes: file.max_header_bytes,
            max_headers: file.max_headers,
            header_timeout: ms(file.header_timeout_ms),
            body_timeout: ms(file.body_timeout_ms),
            send_timeout: ms(file.send_timeout_ms),
            max_connection_age: optional_ms(file.max_connection_age_ms),
            max_handshakes: file.max_handshakes,
            handshake_timeout: ms(file.handshake_timeout_ms),
            max_connections_per_source: file.max_connections_per_source,
            max_requests: file.max_requests,
            max_requests_per_source: file
                .max_requests_per_source
                .unwrap_or((file.max_requests / 4).max(1)),
            max_streams: file.max_streams,
            pool_idle: file.pool_idle,
            pool_idle_timeout: ms(file.pool_idle_ms),
        }
    }
}

/// Every name leads somewhere, and nobody is asked for what no port takes.
fn check_viewer_auth(
    routes: &[RouteConfig],
    sets: &[ViewerAuthConfig],
    listeners: &[HttpListenerConfig],
    path: &Path,
    problems: &mut Problems<'_>,
) {
    for (index, route) in routes.iter().enumerate() {
        let Some(wanted) = &route.viewer_auth else {
            continue;
        };
        if !sets.iter().any(|set| set.name == *wanted) {
            let at = path.key("routes").index(index).key("viewer_auth");
            problems.add_with_help(
                &at,
                format!("`{at}` is `{wanted}`, and `{path}.viewer_auth` has none of that name"),
                "add it there, or correct the name",
            );
        }
    }
    if listeners.is_empty() {
        return;
    }
    for (index, set) in sets.iter().enumerate() {
        let mtls = set.ways.iter().find_map(|way| match way {
            ViewerWay::Mtls(named) => Some(named),
            ViewerWay::Bearer(_) | ViewerWay::Basic(_) | ViewerWay::SignedUrl(_) => None,
        });
        if let Some(named) = mtls {
            let at = path.key("viewer_auth").index(index);
            check_mtls(named, listeners, &at, problems);
        }
    }
}

/// Which authorities vouch for the viewers of a set must not depend on the listener that somebody
/// chooses to come in at.
fn check_mtls(
    named: &[ListenerName],
    listeners: &[HttpListenerConfig],
    at: &Path,
    problems: &mut Problems<'_>,
) {
    let asking = |listener: &HttpListenerConfig| {
        let certificates = listener.client_certificates.as_ref()?;
        Some((listener.name.clone(), certificates.ca_file.clone()))
    };
    let asking: Vec<_> = listeners.iter().filter_map(asking).collect();
    if asking.is_empty() {
        problems.add_with_help(
            at,
            format!("`{at}` has the way `mtls`, and no listener asks for certificates"),
            "set `client_certificates` of a listener with `tls`",
        );
        return;
    }
    for name in named {
        if !asking.iter().any(|(listener, _)| listener == name) {
            problems.add_with_help(
                at,
                format!("`{at}` names the listener `{name}`, which asks for no certificates"),
                "correct the name, or set `client_certificates` of that listener",
            );
        }
    }
    let other = asking.iter().find(|(_, ca_file)| *ca_file != asking[0].1);
    if let (true, Some((other, _))) = (named.is_empty(), other) {
        let first = &asking[0].0;
        problems.add_with_help(
            at,
            format!(
                "`{at}` has the way `mtls`, and the listeners `{first}` and `{other}` have \
                 different authorities: certificates of either would count at its routes"
            ),
            "name those that count: `mtls: {listeners: [NAME]}`",
        );
    }
}

/// Where nobody issues certificates, a port with TLS has to have one.
fn check_files(listeners: &[HttpListenerFile], path: &Path, problems: &mut Problems<'_>) {
    for (index, listener) in listeners.iter().enumerate() {
        let at = path.index(index).key("tls");
        let none = HttpTlsFile::default();
        if listener.tls.as_ref() == Some(&none) {
            problems.add_with_help(
                &at,
                format!("`{at}` has no certificate"),
                "write `cert_file` and `key_file`, list `certificates`, or have them issued by \
                 `ingress.acme`",
            );
        }
    }
}

/// An authority has to find somebody who answers it, and what it issues has to be shown.
fn check_issuing(
    acme: Option<&AcmeConfig>,
    listeners: &[HttpListenerConfig],
    path: &Path,
    problems: &mut Problems<'_>,
) {
    if !listeners.iter().any(|listener| listener.tls.is_some()) {
        problems.add_with_help(
            path,
            format!("`{path}` has certificates issued, and no port of `ingress.listeners` has TLS"),
            "give one of them `tls: {}`, or take `acme` out",
        );
    }
    let only_http = acme.is_some_and(|acme| acme.challenges == [ChallengeKind::Http01]);
    if only_http && listeners.iter().all(|listener| listener.tls.is_some()) {
        problems.add_with_help(
            &path.key("challenges"),
            format!("`{path}.challenges` has only `http_01`, and every port has TLS"),
            "add a port without `tls` that port 80 of the names leads to, or allow `tls_alpn_01`",
        );
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

pub(super) fn host_header(
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
