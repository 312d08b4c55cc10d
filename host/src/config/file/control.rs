//! The control plane, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RateFile, TlsFile};

/// Public names for private services, and the tokens that give them: the API that
/// `nowconnect-agent http` uses. Without `listen` there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ControlFile {
    /// The address and port of the API, such as `0.0.0.0:8766`; port 0 asks the system for a free
    /// one. A change needs a restart. Default `null`: no API.
    pub listen: Option<String>,
    /// Certificate and key of the API. Default `null`.
    pub tls: Option<TlsFile>,
    /// Whether the API may be plain HTTP beyond loopback, because something in front ends TLS.
    /// Tokens cross the network in clear otherwise. Default `false`.
    pub allow_plaintext: bool,
    /// The file that names, keys and used tokens are kept in; mode 0600. `null` keeps them in
    /// memory: after a restart every name is free and every token void. A change needs a restart.
    /// Default `null`.
    pub state_file: Option<String>,
    /// `iss` of our tokens, and where others find our keys: the URL under which the API is
    /// reached. `null` is `http://` or `https://` and the address of `listen`, which will do on
    /// loopback only. Another one voids every token. Default `null`.
    pub public_url: Option<String>,
    /// Further names by which the API is called, such as `control.internal`, without a port. That
    /// of `public_url`, `localhost` and every address may be used as it is. Default: none.
    #[schemars(length(max = 64))]
    pub allowed_hosts: Vec<String>,
    /// Networks of the proxies in front. A caller is then the last address in `X-Forwarded-For`
    /// that is not in one of them. Default: none.
    #[schemars(length(max = 64))]
    pub trusted_proxies: Vec<String>,
    /// The domain below which names are published; point `*.` and it to the HTTP ports of
    /// `ingress`. Default `localhost`, whose names every browser takes for this machine.
    pub domain: String,
    /// The URL of the tunnel port that agents are sent to. `null` is the scheme, host and port
    /// that follow from `tunnel`, which will do while the API is for this machine only. Default
    /// `null`.
    pub tunnel_url: Option<String>,
    /// What `region_hint` of a request is compared with. Default `null`.
    pub region: Option<String>,
    /// Further ways to the same tunnel port, such as through an ingress in another region; agents
    /// are told those of their region first, at most three. Default: none.
    #[schemars(length(max = 16))]
    pub more_tunnel_urls: Vec<TunnelUrlFile>,
    /// The scheme and port of public addresses as agents print them, such as
    /// `https://{host}` or `http://{host}:8082`, with `{host}` for the name. `null` follows from
    /// the first port of `ingress.listeners`. Default `null`.
    pub url_template: Option<String>,
    /// Public ports of TCP services, for `nowconnect-agent tcp`. Without them such a service is
    /// reached through a listener of the configuration. A change needs a restart. Default `null`.
    pub tcp_ports: Option<TcpPortsFile>,
    /// What callers without a token get.
    pub anonymous: AnonymousFile,
    /// Who may manage names and endpoints. Default: none.
    #[schemars(length(max = 1024))]
    pub clients: Vec<ClientFile>,
    /// How long tokens live and what signs them.
    pub tokens: TokensFile,
    /// Endpoints that a tenant may have at once that has no quota of its own (`/v1/quotas`).
    /// Default 100.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_endpoints_per_tenant: u64,
    /// Endpoints of all tenants at once; no quota is larger. Default 10000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_endpoints: u64,
    /// Names that a tenant may reserve that has no quota of its own. Default 100.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_names_per_tenant: u64,
    /// Reserved names of all tenants; no quota is larger. Default 10000.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_names: u64,
    /// How long a name is kept for its agent after the tunnel has ended, without the recreate
    /// token being shown. Seconds. Default 30.
    #[schemars(range(min = 1, max = 86_400))]
    pub grace_sec: u64,
    /// Names that nobody gets. Default: what a public site usually has at its own names.
    #[schemars(length(max = 10_000))]
    pub kept_names: Vec<String>,
    /// Requests a second from one source address (an IPv6 /64 counts as one); more are answered
    /// 429. Default 10, 20 at once.
    pub rate_per_source: RateFile,
}

/// A way to the tunnel port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TunnelUrlFile {
    /// Such as `wss://eu.hub.example.com/tunnel`.
    pub url: String,
    /// Its region, for `region_hint`. Default `null`.
    #[serde(default)]
    pub region: Option<String>,
    /// What a person should know of it. Default `null`.
    #[serde(default)]
    pub note: Option<String>,
}

/// Public ports of TCP services. Each tunnel of the protocol `tcp` gets one, which stays with its
/// name, and listens while it is published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpPortsFile {
    /// The address that they are bound to. Default `0.0.0.0`.
    #[serde(default = "all_addresses")]
    pub bind: String,
    /// The lowest.
    #[schemars(range(min = 1, max = 65_535))]
    pub first: u16,
    /// The highest; at most 10,000 together.
    #[schemars(range(min = 1, max = 65_535))]
    pub last: u16,
    /// By which name agents print them, such as `tcp.example.com`. `null` is the tunnel's own name
    /// below `domain`. Default `null`.
    #[serde(default)]
    pub host: Option<String>,
}

fn all_addresses() -> String {
    "0.0.0.0".to_owned()
}

/// Callers without a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AnonymousFile {
    /// Whether they get endpoints at all. Default `false`.
    pub enabled: bool,
    /// The tenant that they share; one of their own, so that no policy for others lets them in.
    /// Default `public`.
    pub tenant: String,
    /// How long a recreate token of theirs lives at most. Seconds. Default 86400.
    #[schemars(range(min = 60, max = 31_536_000))]
    pub recreate_sec: u64,
    /// Endpoints that they may have at once, all of them together. Default 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_endpoints: u64,
}

/// A client of the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    /// `client_id`: `[A-Za-z0-9._-]`, at most 128 bytes.
    pub id: String,
    /// The file with `client_secret`, of at least 32 characters, such as from
    /// `openssl rand -hex 32`.
    pub secret_file: String,
    /// Whose endpoints and names it manages. Default `default`.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// What its tokens may do. Default `[tunnels, names]`.
    #[serde(default = "all_scopes")]
    pub scopes: Vec<ScopeFile>,
    /// Its role, which policies can read; by the shipped ones `quota-admin` sets quotas. Default
    /// `tenant-admin`.
    #[serde(default = "default_role")]
    pub role: String,
}

/// What a management token may do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ScopeFile {
    /// Make, list and delete endpoints.
    Tunnels,
    /// Reserve and release names.
    Names,
    /// See and end agents and flows of its tenant.
    Sessions,
    /// See how much tenants may have, and say so where policies let its role.
    Quotas,
}

/// Tokens of the control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokensFile {
    /// What signs them. Default `EdDSA`.
    pub algorithm: ControlAlgorithmFile,
    /// How long an ephemeral token lives. An agent fetches the next one in time. Seconds.
    /// Default 300.
    #[schemars(range(min = 30, max = 3600))]
    pub ephemeral_sec: u64,
    /// How long a recreate token of a registered client lives at most. Seconds.
    /// Default 2592000, 30 days.
    #[schemars(range(min = 60, max = 31_536_000))]
    pub recreate_sec: u64,
    /// How long a management token lives. Seconds. Default 86400.
    #[schemars(range(min = 60, max = 2_592_000))]
    pub management_sec: u64,
    /// How long a key signs before the next one does. Seconds. Default 2592000, 30 days.
    #[schemars(range(min = 3600, max = 31_536_000))]
    pub key_sec: u64,
}

/// What signs tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ControlAlgorithmFile {
    /// Ed25519.
    #[default]
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSA with SHA-256, for what cannot check Ed25519.
    #[serde(rename = "RS256")]
    Rs256,
    /// A secret that only this hub has: nobody else can check such a token.
    #[serde(rename = "HS256")]
    Hs256,
}

impl Default for ControlFile {
    fn default() -> Self {
        Self {
            listen: None,
            tls: None,
            allow_plaintext: false,
            state_file: None,
            public_url: None,
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            domain: "localhost".to_owned(),
            tunnel_url: None,
            region: None,
            more_tunnel_urls: Vec::new(),
            url_template: None,
            tcp_ports: None,
            anonymous: AnonymousFile::default(),
            clients: Vec::new(),
            tokens: TokensFile::default(),
            max_endpoints_per_tenant: 100,
            max_endpoints: 10_000,
            max_names_per_tenant: 100,
            max_names: 10_000,
            grace_sec: 30,
            kept_names: KEPT_NAMES.map(str::to_owned).to_vec(),
            rate_per_source: RateFile {
                per_second: 10,
                burst: Some(20),
            },
        }
    }
}

/// Names by which a visitor would take somebody else's page for the operator's, or that mail and
/// certificates use (RFC 2142, CA/Browser Forum baseline requirements 3.2.2.4.4).
const KEPT_NAMES: [&str; 20] = [
    "abuse",
    "account",
    "admin",
    "administrator",
    "api",
    "auth",
    "autoconfig",
    "autodiscover",
    "control",
    "hostmaster",
    "hub",
    "login",
    "mail",
    "mta-sts",
    "postmaster",
    "root",
    "security",
    "status",
    "webmaster",
    "www",
];

impl Default for AnonymousFile {
    fn default() -> Self {
        Self {
            enabled: false,
            tenant: "public".to_owned(),
            recreate_sec: 86_400,
            max_endpoints: 1000,
        }
    }
}

impl Default for TokensFile {
    fn default() -> Self {
        Self {
            algorithm: ControlAlgorithmFile::EdDsa,
            ephemeral_sec: 300,
            recreate_sec: 30 * 86_400,
            management_sec: 86_400,
            key_sec: 30 * 86_400,
        }
    }
}

fn default_tenant() -> String {
    "default".to_owned()
}

fn default_role() -> String {
    "tenant-admin".to_owned()
}

fn all_scopes() -> Vec<ScopeFile> {
    vec![ScopeFile::Tunnels, ScopeFile::Names]
}
