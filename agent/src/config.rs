//! Configuration: what an agent needs to know before it dials.
//!
//! [`AgentConfig`] is the typed form that the rest of the crate works with; a value of it has
//! passed every check that can be made without the network. It comes from a YAML file and the
//! environment through [`load`], or from code through [`AgentConfig::new`]. The file's own shape
//! is in `file`, the environment's names are in `env`, and `check` turns both into the
//! typed form and reports every problem at once.

mod check;
mod env;
mod error;
mod file;
mod publish;
mod schema;
mod url;
pub(crate) use self::url::FetchUrl;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nowconnect_protocol::{AgentId, ConnectorName, TenantName};

pub(crate) use self::check::publish::control_url;
#[cfg(test)]
pub(crate) use self::env::NAMES;
pub use self::env::{Env, NoEnv, ProcessEnv};
pub use self::error::{ConfigError, ConfigProblem};
pub use self::publish::DEFAULT_CONTROL_URL;
pub(crate) use self::publish::{PublishConfig, Service, check_name, parse_target};
pub use self::schema::json_schema;
pub use self::url::{HubUrl, ProxyKind, ProxyUrl, UrlError};
pub use crate::backoff::BackoffSettings;
pub use crate::proxy::NoProxy;
pub use crate::proxy_header::ProxyHeader;
use crate::secret::Secret;
use crate::token::TokenAsker;

/// Where the file is looked for when neither `--config` nor `NC_CONFIG` names one.
pub const DEFAULT_PATH: &str = "config/premise.yaml";

/// A config file larger than this is refused: 9,000 targets with TLS fit in a quarter of it.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// DATA payloads never exceed this many bytes, whatever both ends ask for.
pub const WS_PAYLOAD_MAX: u32 = 131_072;

/// The smallest DATA payload that may be configured, in bytes.
pub const WS_PAYLOAD_MIN: u32 = 1_024;

/// Everything an agent needs, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// The hub's tunnel address.
    pub hub: HubUrl,
    /// Hubs that are tried in this order where `hub` is not reached or refuses.
    pub other_hubs: Vec<HubUrl>,
    /// Who this agent claims to be; must equal the token's claim.
    pub agent_id: AgentId,
    /// The tenant announced in HELLO, which the hub only compares.
    pub tenant: Option<TenantName>,
    /// The connectors to offer; empty offers all of `targets`.
    pub exported_connectors: Vec<ConnectorName>,
    /// What each connector reaches.
    pub targets: BTreeMap<ConnectorName, Target>,
    /// Where the token comes from.
    pub auth: Auth,
    /// What each upgrade is signed with, beside the token; `None` where the hub asks for no
    /// signature.
    pub signing_secret: Option<SigningSecret>,
    /// Free labels sent in HELLO, for policies.
    pub labels: BTreeMap<String, String>,
    /// Whether this agent is its identity's standby.
    pub standby: bool,
    /// How the tunnel is kept.
    pub tunnel: TunnelTuning,
    /// Bounds on flows.
    pub limits: Limits,
    /// How the hub, and the token's issuer, are reached.
    pub outbound: Outbound,
    /// Where the TCP health server listens; `None` for no health server.
    pub health: Option<SocketAddr>,
    /// What is logged and traced.
    pub observability: Observability,
    /// Things that are legal but probably not meant, for the log.
    pub warnings: Vec<String>,
}

/// Where the token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A file that holds the token; read again when it changes.
    TokenFile(PathBuf),
    /// OIDC client credentials, renewed before they expire.
    Oidc(OidcAuth),
    /// Whoever started the agent is asked for each token; for embedding.
    Asked(TokenAsker),
    /// A fixed token, for embedding only: no config file can hold one.
    Fixed(Secret),
}

/// A secret that only this agent and the hub have, of at least 32 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigningSecret {
    /// Alone in a file, which is read at each dial.
    File(PathBuf),
    /// The text itself, of the environment or for embedding: no config file can hold it.
    Fixed(Secret),
}

/// OIDC client credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcAuth {
    /// Where the token endpoint is.
    pub endpoint: OidcEndpoint,
    /// The client's id.
    pub client_id: String,
    /// A file that holds the client's secret.
    pub client_secret_file: PathBuf,
    /// `audience` parameter of the token request.
    pub audience: Option<String>,
    /// `resource` parameter of the token request (RFC 8707).
    pub resource: Option<String>,
    /// `scope` parameter of the token request.
    pub scope: Option<String>,
}

/// How the token endpoint is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OidcEndpoint {
    /// By discovery under this issuer.
    Issuer(String),
    /// At this address.
    TokenUrl(String),
}

/// How the tunnel is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelTuning {
    /// An idle tunnel is pinged this often.
    pub ping_interval: Duration,
    /// An unanswered ping ends the tunnel after this long.
    pub ping_timeout: Duration,
    /// Most bytes in one DATA frame.
    pub max_ws_payload: u32,
    /// Bound on resolving, connecting, TLS and upgrade together.
    pub connect_timeout: Duration,
    /// A token is renewed this long before it expires.
    pub renew_before: Duration,
    /// Waits between dials.
    pub backoff: BackoffSettings,
}

impl Default for TunnelTuning {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(20),
            max_ws_payload: WS_PAYLOAD_MAX,
            connect_timeout: Duration::from_secs(10),
            renew_before: Duration::from_secs(60),
            backoff: BackoffSettings::default(),
        }
    }
}

/// Bounds on flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A flow that moves no byte for this long is ended here. `None` leaves it to the hub, which
    /// knows each listener's own bound.
    pub idle_timeout: Option<Duration>,
    /// A flow whose target takes none of the bytes that wait for it for this long is reset.
    pub stall_timeout: Duration,
    /// Resolving and connecting to a target, TLS included, takes at most this long.
    pub connect_timeout: Duration,
    /// Flows at once over the tunnel; the next is refused with `agent_busy`.
    pub max_inflight_cids: u32,
    /// A flow's window in DATA frames of `max_ws_payload`: with it, its ceiling in bytes.
    pub queue_depth_per_cid: u32,
    /// How long running flows may finish after a stop was asked for.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle_timeout: None,
            stall_timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_millis(3_000),
            max_inflight_cids: 2_000,
            queue_depth_per_cid: 256,
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// How the hub, and the token's issuer, are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    /// The proxy for the hub's own scheme, if any.
    pub hub_proxy: Option<ProxyUrl>,
    /// The proxy for `https` fetches (the token's issuer), if any.
    pub https_proxy: Option<ProxyUrl>,
    /// Hosts that are reached without a proxy.
    pub no_proxy: NoProxy,
    /// Whether proxies of the environment count.
    pub trust_env: bool,
    /// CA certificates that replace the system's.
    pub ca_bundle: Option<PathBuf>,
    /// The name that the hub's certificate must carry, where it is not the URL's host.
    pub server_name: Option<String>,
}

/// What is logged and traced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observability {
    /// Least severe level that is logged.
    pub log_level: LogLevel,
    /// The shape of a log line.
    pub log_format: LogFormat,
    /// Base address of an OTLP/HTTP receiver for traces; `None` sends none.
    pub otlp_endpoint: Option<String>,
}

/// Severity of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs a person.
    Error,
    /// And what may soon.
    Warn,
    /// And the life of tunnels.
    #[default]
    Info,
    /// And the life of flows.
    Debug,
    /// And everything else.
    Trace,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Plain,
    /// One JSON object per line.
    Json,
}

/// What one connector reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub address: TargetAddress,
    /// TLS to it, if the agent speaks TLS there.
    pub tls: Option<TargetTls>,
    /// The PROXY protocol header it expects; absent: the one that the hub asks for, if any.
    pub proxy_header: Option<ProxyHeader>,
    /// Overrides `limits.connect_timeout_ms` for it.
    pub connect_timeout: Option<Duration>,
    /// Overrides `limits.idle_timeout_ms` for it.
    pub idle_timeout: Option<Duration>,
}

impl Target {
    /// A plain TCP target.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self {
            address: TargetAddress::Tcp {
                host: host.into(),
                port,
            },
            tls: None,
            proxy_header: None,
            connect_timeout: None,
            idle_timeout: None,
        }
    }

    /// A Unix stream socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self {
            address: TargetAddress::Unix(path.into()),
            ..Self::tcp("", 0)
        }
    }
}

/// A target's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetAddress {
    /// A host name or IP address, resolved at each dial, and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port, never 0.
        port: u16,
    },
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

impl std::fmt::Display for TargetAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// TLS from the agent to a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetTls {
    /// CA certificates that replace the system's.
    pub ca_bundle: Option<PathBuf>,
    /// The name the certificate must carry; the target's host by default.
    pub server_name: Option<String>,
    /// Protocols offered by ALPN, in order of preference.
    pub alpn: Vec<String>,
    /// What is shown to a target that asks who is there.
    pub client_certificate: Option<ClientCertificateFiles>,
}

/// Where a client certificate and its key are; both are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificateFiles {
    /// The certificate, followed by those that vouch for it (PEM).
    pub cert_file: PathBuf,
    /// Its private key (PEM, not encrypted).
    pub key_file: PathBuf,
}

impl TargetTls {
    /// Every file that TLS to the target is made of.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pair = self.client_certificate.iter();
        let pair = pair.flat_map(|files| [files.cert_file.as_path(), files.key_file.as_path()]);
        self.ca_bundle.as_deref().into_iter().chain(pair)
    }
}

impl AgentConfig {
    /// A config with every default, without health server; for embedding.
    #[must_use]
    pub fn new(hub: HubUrl, agent_id: AgentId, auth: Auth) -> Self {
        Self {
            hub,
            other_hubs: Vec::new(),
            agent_id,
            tenant: None,
            exported_connectors: Vec::new(),
            targets: BTreeMap::new(),
            auth,
            signing_secret: None,
            labels: BTreeMap::new(),
            standby: false,
            tunnel: TunnelTuning::default(),
            limits: Limits::default(),
            outbound: Outbound::default(),
            health: None,
            observability: Observability::default(),
            warnings: Vec::new(),
        }
    }

    /// Adds a connector and its target.
    #[must_use]
    pub fn with_target(mut self, connector: ConnectorName, target: Target) -> Self {
        self.targets.insert(connector, target);
        self
    }

    /// The connectors that HELLO offers.
    #[must_use]
    pub fn offered_connectors(&self) -> Vec<ConnectorName> {
        if self.exported_connectors.is_empty() {
            self.targets.keys().cloned().collect()
        } else {
            self.exported_connectors.clone()
        }
    }
}

/// Reads the file at `path` (none: the environment alone) and lets `env` override it. Relative
/// paths in the file start at its folder.
///
/// # Errors
/// Every problem found, each with its file position or variable.
pub fn load(path: Option<&Path>, env: &dyn Env) -> Result<AgentConfig, ConfigError> {
    let Some(path) = path else {
        return check::check(file::FileConfig::default(), None, None, env);
    };
    let label = path.display().to_string();
    let file = file::parse(&read(path, &label)?, &label)?;
    check::check(file, Some(&label), path.parent(), env)
}

/// What `start` runs: all that a file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StartConfig {
    /// The agent with an identity of its own, where there is one.
    pub(crate) agent: Option<AgentConfig>,
    /// What gets public names.
    pub(crate) publish: Option<PublishConfig>,
    /// The way out.
    pub(crate) outbound: Outbound,
    /// What is logged and traced.
    pub(crate) observability: Observability,
    /// The least that is logged, where somebody said so.
    pub(crate) log_level: Option<LogLevel>,
    /// Whether a hub on another host may be dialled in plain text.
    pub(crate) allow_plaintext: bool,
    /// How long what runs may finish after a stop was asked for.
    pub(crate) shutdown_timeout: Duration,
    /// As of [`AgentConfig`].
    pub(crate) warnings: Vec<String>,
}

/// The same as [`load`] for `start`: the file may have an agent, services to publish, or both.
///
/// # Errors
/// Every problem found, each with its file position or variable.
pub(crate) fn load_start(path: Option<&Path>, env: &dyn Env) -> Result<StartConfig, ConfigError> {
    let Some(path) = path else {
        return check::check_all(file::FileConfig::default(), None, None, env);
    };
    let label = path.display().to_string();
    let file = file::parse(&read(path, &label)?, &label)?;
    check::check_all(file, Some(&label), path.parent(), env)
}

/// What the environment alone says of the way out and of logs, for commands that have no file.
///
/// # Errors
/// Every problem found, each with its variable.
pub(crate) fn load_around(env: &dyn Env) -> Result<StartConfig, ConfigError> {
    check::check_around(env)
}

/// Parses YAML `text`, named `label` in errors, and lets `env` override it.
///
/// # Errors
/// Every problem found, each with its file position or variable.
pub fn parse(text: &str, label: &str, env: &dyn Env) -> Result<AgentConfig, ConfigError> {
    let file = file::parse(text, label)?;
    check::check(file, Some(label), None, env)
}

fn read(path: &Path, label: &str) -> Result<String, ConfigError> {
    read_bounded(path)
        .map_err(|problem| ConfigError::one(ConfigProblem::whole_file(label, problem)))
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path)
        .map_err(|error| format!("cannot be read: {error}"))?
        .len();
    if length > FILE_BYTES_MAX {
        return Err(format!(
            "is {length} bytes long; at most {FILE_BYTES_MAX} are read"
        ));
    }
    std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests;
