//! The control plane.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;
use ipnet::IpNet;
use nowconnect_control::{Algorithm, NameRules};
use nowconnect_protocol::{AgentId, TenantName};
use nowconnect_store::PortRange;
use reqwest::Url;

use super::build::{Surroundings, cidrs, name, socket_address, url};
use super::file::{
    AnonymousFile, ClientFile, ControlAlgorithmFile, ControlFile, RateFile, ScopeFile,
    TcpPortsFile, TokensFile,
};
use super::problem::Problems;
use super::tree::Path;
use super::{RateLimit, TlsFiles};

/// `control`: public names for private services, and the tokens that give them.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlConfig {
    /// Where the API listens; `None` is no API.
    pub listen: Option<SocketAddr>,
    /// Certificate and key of the API.
    pub tls: Option<TlsFiles>,
    /// The file that everything is kept in; `None` is memory.
    pub state_file: Option<PathBuf>,
    /// `iss` of our tokens; `None` follows from the address.
    pub public_url: Option<Url>,
    /// Further names by which the API is called.
    pub allowed_hosts: Vec<String>,
    /// Proxies in front, which say who asks.
    pub trusted_proxies: Vec<IpNet>,
    /// The domain below which names are published.
    pub domain: String,
    /// Where agents are sent; `None` follows from `tunnel`.
    pub tunnel_url: Option<Url>,
    /// Where this hub is, for callers' hints.
    pub region: Option<String>,
    /// Further ways to its tunnel port.
    pub more_tunnel_urls: Vec<TunnelUrl>,
    /// What a public address looks like, with `{host}`; `None` follows from `ingress`.
    pub url_template: Option<String>,
    /// Public ports of TCP services.
    pub tcp_ports: Option<TcpPorts>,
    /// The tenant of callers without a token; `None` gives them nothing.
    pub anonymous_tenant: Option<TenantName>,
    /// How long their recreate tokens live at most.
    pub anonymous_recreate: Duration,
    /// Endpoints that all of them together may have at once.
    pub anonymous_max_endpoints: u64,
    /// Who may manage names and endpoints.
    pub clients: Vec<ClientConfig>,
    /// How long tokens live and what signs them.
    pub tokens: TokensConfig,
    /// Endpoints of one tenant at once.
    pub max_endpoints_per_tenant: u64,
    /// Endpoints of all tenants at once.
    pub max_endpoints: u64,
    /// Reserved names of one tenant.
    pub max_names_per_tenant: u64,
    /// Reserved names of all tenants.
    pub max_names: u64,
    /// How long a name is kept after its tunnel.
    pub grace: Duration,
    /// Names that nobody gets.
    pub names: NameRules,
    /// Requests a second from one source address.
    pub rate_per_source: RateLimit,
}

/// A way to the tunnel port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelUrl {
    /// Where agents dial.
    pub url: Url,
    /// Its region.
    pub region: Option<String>,
    /// For people.
    pub note: Option<String>,
}

/// Public ports of TCP services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpPorts {
    /// Where they are bound.
    pub bind: IpAddr,
    /// Which they are.
    pub range: PortRange,
    /// By which name they are reached; `None` is the tunnel's own.
    pub host: Option<String>,
}

/// A client of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// `client_id`.
    pub id: String,
    /// The file with its secret.
    pub secret_file: PathBuf,
    /// Whose endpoints and names it manages.
    pub tenant: TenantName,
    /// What its tokens may do.
    pub scopes: BTreeSet<Scope>,
    /// Its role in policies.
    pub role: String,
}

/// What a management token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Make, list and delete endpoints.
    Tunnels,
    /// Reserve and release names.
    Names,
    /// See and end agents and flows.
    Sessions,
    /// See and set quotas.
    Quotas,
}

impl Scope {
    /// As it stands in tokens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tunnels => "tunnels",
            Self::Names => "names",
            Self::Sessions => "sessions",
            Self::Quotas => "quotas",
        }
    }
}

/// Tokens of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokensConfig {
    /// What signs.
    pub algorithm: Algorithm,
    /// Life of an ephemeral token.
    pub ephemeral: Duration,
    /// Longest life of a registered client's recreate token.
    pub recreate: Duration,
    /// Life of a management token.
    pub management: Duration,
    /// How long a key signs.
    pub key: Duration,
}

impl TokensConfig {
    fn build(file: &TokensFile) -> Self {
        Self {
            algorithm: match file.algorithm {
                ControlAlgorithmFile::EdDsa => Algorithm::EdDsa,
                ControlAlgorithmFile::Rs256 => Algorithm::Rs256,
                ControlAlgorithmFile::Hs256 => Algorithm::Hs256,
            },
            ephemeral: Duration::from_secs(file.ephemeral_sec),
            recreate: Duration::from_secs(file.recreate_sec),
            management: Duration::from_secs(file.management_sec),
            key: Duration::from_secs(file.key_sec),
        }
    }
}

impl ControlConfig {
    pub(super) fn build(
        file: &ControlFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let at = path.key("listen");
        let listen = file
            .listen
            .as_ref()
            .and_then(|text| socket_address(text, &at, problems));
        if let Some(listen) = listen
            && file.tls.is_none()
            && !file.allow_plaintext
            && !listen.ip().is_loopback()
        {
            problems.add_with_help(
                &at,
                format!("`control.listen` is `{listen}`: tokens would cross the network in clear"),
                "set `control.tls`, listen on a loopback address, or write \
                 `control.allow_plaintext: true` where something in front ends TLS",
            );
        }
        let mut public = |key: &str, text: &Option<String>, schemes: &[&str]| {
            let at = path.key(key);
            text.as_ref()
                .and_then(|text| url(text, schemes, &at, problems))
        };
        let public_url = public("public_url", &file.public_url, &["https", "http"]);
        let tunnel_url = public("tunnel_url", &file.tunnel_url, &["wss", "ws"]);
        if listen.is_some_and(|listen| !listen.ip().is_loopback()) && file.public_url.is_none() {
            problems.add_with_help(
                &path.key("public_url"),
                "`control.public_url` is missing, and `control.listen` is for more than this \
                 machine: tokens would name an address that others cannot find us by",
                "write the URL of the API as agents call it, such as \
                 `https://control.example.com:8766`",
            );
        }
        if file.tunnel_url.is_none()
            && listen.is_some_and(|listen| is_for_others(listen, public_url.as_ref()))
        {
            problems.add_with_help(
                &path.key("tunnel_url"),
                "`control.tunnel_url` is missing, and the API is for more than this machine: \
                 agents would be sent to an address of their own",
                "write the URL of the tunnel port as agents dial it, such as \
                 `wss://hub.example.com:8765/tunnel`",
            );
        }
        let mut more_tunnel_urls = Vec::with_capacity(file.more_tunnel_urls.len());
        for (index, way) in file.more_tunnel_urls.iter().enumerate() {
            let at = path.key("more_tunnel_urls").index(index).key("url");
            more_tunnel_urls.extend(url(&way.url, &["wss", "ws"], &at, problems).map(|url| {
                TunnelUrl {
                    url,
                    region: way.region.clone(),
                    note: way.note.clone(),
                }
            }));
        }
        if let Some(template) = &file.url_template
            && !template.contains("{host}")
        {
            problems.add_with_help(
                &path.key("url_template"),
                format!("`control.url_template` is `{template}`, without `{{host}}`"),
                "write it such as `https://{host}` or `http://{host}:8082`",
            );
        }
        let domain = file.domain.trim_end_matches('.').to_ascii_lowercase();
        if let Err(error) = check_domain(&domain) {
            problems.add(
                &path.key("domain"),
                format!("`control.domain` cannot be `{}`: {error}", file.domain),
            );
        }
        Self {
            listen,
            tls: file.tls.as_ref().map(|tls| TlsFiles::build(tls, around)),
            state_file: around.optional_path(file.state_file.as_ref()),
            public_url,
            allowed_hosts: allowed_hosts(&file.allowed_hosts, &path.key("allowed_hosts"), problems),
            trusted_proxies: cidrs(
                &file.trusted_proxies,
                &path.key("trusted_proxies"),
                problems,
            ),
            domain,
            tunnel_url,
            region: file.region.clone(),
            more_tunnel_urls,
            url_template: file.url_template.clone(),
            tcp_ports: file
                .tcp_ports
                .as_ref()
                .and_then(|ports| tcp_ports(ports, &path.key("tcp_ports"), problems)),
            anonymous_tenant: anonymous(&file.anonymous, &path.key("anonymous"), problems),
            anonymous_recreate: Duration::from_secs(file.anonymous.recreate_sec),
            anonymous_max_endpoints: file.anonymous.max_endpoints,
            clients: clients(&file.clients, &path.key("clients"), around, problems),
            tokens: TokensConfig::build(&file.tokens),
            max_endpoints_per_tenant: file.max_endpoints_per_tenant,
            max_endpoints: file.max_endpoints,
            max_names_per_tenant: file.max_names_per_tenant,
            max_names: file.max_names,
            grace: Duration::from_secs(file.grace_sec),
            names: NameRules {
                kept: file
                    .kept_names
                    .iter()
                    .map(|name| name.to_ascii_lowercase())
                    .collect(),
            },
            rate_per_source: rate(file.rate_per_source),
        }
    }
}

/// Whether agents on other machines call: the port is open to them, or what it is called by is.
fn is_for_others(listen: SocketAddr, public_url: Option<&Url>) -> bool {
    let public = public_url.and_then(Url::host_str);
    !listen.ip().is_loopback() || public.is_some_and(|host| !is_this_machine(host))
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Host names without a port, as they are compared with `Host`.
fn allowed_hosts(texts: &[String], path: &Path, problems: &mut Problems<'_>) -> Vec<String> {
    for (index, text) in texts.iter().enumerate() {
        let is_host = text
            .parse::<Authority>()
            .is_ok_and(|authority| authority.host() == text);
        if !is_host {
            problems.add_with_help(
                &path.index(index),
                format!("`control.allowed_hosts` holds `{text}`, which is no host name"),
                "write it without scheme, port and path, such as `control.internal`",
            );
        }
    }
    texts.to_vec()
}

impl ControlConfig {
    /// `iss` of our tokens, for an API that is bound to this address.
    #[must_use]
    pub fn issuer(&self, bound: SocketAddr) -> String {
        match &self.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None if self.tls.is_some() => format!("https://{bound}"),
            None => format!("http://{bound}"),
        }
    }
}

fn tcp_ports(file: &TcpPortsFile, path: &Path, problems: &mut Problems<'_>) -> Option<TcpPorts> {
    /// Each is a socket of its own.
    const MOST: u32 = 10_000;
    let range = PortRange {
        first: file.first,
        last: file.last,
    };
    if range.last < range.first || range.count() > MOST {
        problems.add_with_help(
            &path.key("last"),
            format!(
                "`control.tcp_ports` are from `{}` to `{}`",
                file.first, file.last
            ),
            format!("write a range of 1 to {MOST} ports, the lowest first"),
        );
        return None;
    }
    let Ok(bind) = file.bind.parse() else {
        problems.add_with_help(
            &path.key("bind"),
            format!(
                "`control.tcp_ports.bind` is `{}`, which is no address",
                file.bind
            ),
            "write an address without a port, such as `0.0.0.0` or `::`",
        );
        return None;
    };
    Some(TcpPorts {
        bind,
        range,
        host: file.host.clone(),
    })
}

fn rate(file: RateFile) -> RateLimit {
    RateLimit {
        per_second: file.per_second,
        burst: file.burst.unwrap_or(file.per_second),
    }
}

/// The tenant of callers without a token. Not the default one: policies for a hub with a single
/// tenant mean people who proved who they are.
fn anonymous(file: &AnonymousFile, path: &Path, problems: &mut Problems<'_>) -> Option<TenantName> {
    let at = path.key("tenant");
    let tenant = name(TenantName::parse(&file.tenant), &at, problems)?;
    if !file.enabled {
        return None;
    }
    if file.tenant == "default" {
        problems.add_with_help(
            &at,
            "`control.anonymous.tenant` is `default`: whoever comes would be one of yours",
            "write a tenant of their own, such as `public`",
        );
    }
    Some(tenant)
}

fn clients(
    files: &[ClientFile],
    path: &Path,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Vec<ClientConfig> {
    let mut seen = BTreeSet::new();
    let mut clients = Vec::with_capacity(files.len());
    for (index, file) in files.iter().enumerate() {
        let here = path.index(index);
        if !seen.insert(&file.id) {
            problems.add(
                &here.key("id"),
                format!("the client `{}` is there twice", file.id),
            );
        }
        // The alphabet and length of agents' ids.
        let id = name(AgentId::parse(&file.id), &here.key("id"), problems);
        let tenant = name(
            TenantName::parse(&file.tenant),
            &here.key("tenant"),
            problems,
        );
        let (Some(_), Some(tenant)) = (id, tenant) else {
            continue;
        };
        clients.push(ClientConfig {
            id: file.id.clone(),
            secret_file: around.path(&file.secret_file),
            tenant,
            scopes: file
                .scopes
                .iter()
                .map(|scope| match scope {
                    ScopeFile::Tunnels => Scope::Tunnels,
                    ScopeFile::Names => Scope::Names,
                    ScopeFile::Sessions => Scope::Sessions,
                    ScopeFile::Quotas => Scope::Quotas,
                })
                .collect(),
            role: file.role.clone(),
        });
    }
    clients
}

/// A domain that leaves room for a label in front (RFC 1035 §2.3.4).
fn check_domain(domain: &str) -> Result<(), &'static str> {
    const MAX_BYTES: usize = 253 - 64;
    if domain.is_empty() || domain.len() > MAX_BYTES {
        return Err("it needs 1 to 189 characters");
    }
    let rules = NameRules::default();
    let bad = domain
        .split('.')
        // An international domain has `xn--` labels.
        .any(|label| {
            rules
                .check(label.strip_prefix("xn--").unwrap_or(label))
                .is_err()
        });
    if bad {
        return Err("its labels hold letters, digits and `-`, other scripts as `xn--`");
    }
    Ok(())
}
