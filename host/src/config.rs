//! The hub's configuration.
//!
//! Two forms of the same thing. The *file form* ([`mod@file`]) is what an operator writes: strict
//! YAML whose keys, units, bounds and defaults are documented on its fields and published as a
//! JSON Schema. The *runtime form* ([`CloudConfig`] and what hangs on it) is fully typed: names
//! are parsed, durations are [`Duration`](std::time::Duration), addresses are addresses,
//! contradictions are gone. Only [`load`] and [`parse`] turn one into the other, and they
//! report every problem at once, each with its line, column and way out.
//!
//! Precedence: environment variables ([`mod@env`]) over the file over the embedded defaults. With no
//! file at all the defaults are a valid configuration: a hub that accepts no agent, because no
//! issuer is named.
//!
//! Nothing here reads the clock or binds a port; reading the one file is the only IO. A running
//! hub loads the next configuration beside the one in force and asks
//! [`CloudConfig::changes_from`] what may be taken over without a restart.

pub mod acme;
mod build;
pub mod bundle;
mod changes;
mod check;
pub mod connector;
pub mod control;
pub mod env;
pub mod file;
pub mod ha;
pub mod ingress;
pub mod limits;
pub mod listener;
mod memory;
pub mod observability;
pub mod pdp;
pub mod policy;
mod problem;
pub mod secret;
pub mod security;
mod show;
#[cfg(test)]
mod tests;
mod tree;
pub mod tunnel;
pub mod viewer_auth;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use nowconnect_control::OWN_AUDIENCES;
use nowconnect_protocol::{ConnectorName, ReplicaId, TenantName};

use build::{Surroundings, name};
use problem::Problems;
use tree::{Node, Path as At};

pub use acme::{AcmeConfig, ChallengeKind, ExternalAccount};
pub use bundle::{BundleConfig, BundleRequire, BundleSource, OnUntrusted};
pub use changes::Changes;
pub use connector::{ConnectorConfig, ConnectorKey, HealthCheck, HttpCheck};
pub use control::{ClientConfig, ControlConfig, Scope, TcpPorts, TokensConfig, TunnelUrl};
pub use env::{Env, KNOWN as KNOWN_VARIABLES, ProcessEnv};
pub use ha::{DiscoveryRule, HaConfig, HaMode, MeshConfig, MeshTls};
pub use ingress::{
    HttpListenerConfig, HttpTls, IngressConfig, IngressLimits, MinRate, OriginHttp, RouteConfig,
    Sticky,
};
pub use limits::{FlowTimes, LimitsConfig, RateLimit};
pub use listener::{Balance, ListenerConfig, ListenerName, ProxyProtocolAccept, ProxyProtocolIn};
pub use memory::{MemoryBound, MemoryPart};
pub use observability::{
    AdminConfig, AdminTls, DecisionLogConfig, DecisionsWhenFull, LogFormat, ObservabilityConfig,
    RedactionConfig,
};
pub use pdp::{PdpConfig, PdpKind, PdpOnError, PdpRecheck};
pub use policy::{
    OnSwap, PluginConfig, PluginHook, PluginLimits, PluginMode, PluginOrigin, PluginQuarantine,
    PluginsConfig, PolicyConfig,
};
pub use problem::{ConfigError, Problem, Report};
pub use secret::Secret;
pub use security::{
    ClaimsConfig, DuplicateAgent, IssuerConfig, JwksConfig, KeySource, OnExpiry, SecurityConfig,
    SignedAgentConfig, SignedConfig, TenantRule, TokenAlgorithm,
};
pub use tunnel::{HandshakeConfig, TlsFiles, TunnelConfig};
pub(crate) use viewer_auth::METHOD_TAG;
pub use viewer_auth::{
    AssertedClaim, ClientCertificates, IdentityFact, ViewerAssertion, ViewerAuthConfig,
    ViewerBearer, ViewerSignedUrl, ViewerWay,
};

/// Everything a hub is told, checked and typed.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudConfig {
    /// This hub's name among hubs, and the origin in every flow reference. `ha.replica_id`.
    pub replica_id: ReplicaId,
    /// The public ports, each leading to one connector. Names and ports are unique.
    pub listeners: Vec<ListenerConfig>,
    /// What differs from the defaults for a connector; a connector that is not named here has
    /// the defaults.
    pub connectors: BTreeMap<ConnectorKey, ConnectorConfig>,
    /// The port that agents dial.
    pub tunnel: TunnelConfig,
    /// Bounds on time, number and memory.
    pub limits: LimitsConfig,
    /// Who may come in.
    pub security: SecurityConfig,
    /// Where the Cedar policies are and what a new generation does to running flows.
    pub policy: PolicyConfig,
    /// The Wasm plugins in their order.
    pub plugins: PluginsConfig,
    /// Logs, metrics and traces.
    pub observability: ObservabilityConfig,
    /// The admin API.
    pub admin: AdminConfig,
    /// The external decision point, if any.
    pub pdp: PdpConfig,
    /// HTTP by host name.
    pub ingress: IngressConfig,
    /// Public names for private services.
    pub control: ControlConfig,
    /// The cluster.
    pub ha: HaConfig,
    /// The file that this was read from; `None` for the embedded defaults. Not compared by
    /// [`CloudConfig::changes_from`].
    pub source: Option<PathBuf>,
}

/// Finds the file (`path`, else `NC_CONFIG`, else `cloud.yaml` in `SERVICE_CONFIG_DIR`, else
/// none), reads it, puts the environment's overrides on top and checks the whole.
///
/// # Errors
/// The file cannot be read or is larger than [`MAX_FILE_BYTES`], or there are problems in it;
/// then all of them are in the error.
pub fn load(path: Option<&Path>, env: &dyn Env) -> Result<CloudConfig, ConfigError> {
    read(path, env).map(|loaded| loaded.config)
}

/// The same for text at hand, as if it stood in the file `path`.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, path: Option<&Path>, env: &dyn Env) -> Result<CloudConfig, ConfigError> {
    parse_both(text, path, env).map(|loaded| loaded.config)
}

/// The file form and the runtime form together, for commands that show the first.
///
/// # Errors
/// As [`load`].
pub fn read(path: Option<&Path>, env: &dyn Env) -> Result<Loaded, ConfigError> {
    let path = path.map(Path::to_path_buf).or_else(|| env::file_from(env));
    match &path {
        Some(path) => parse_both(&read_file(path)?, Some(path), env),
        None => parse_both("", None, env),
    }
}

/// What was found wrong beyond the file itself, as key, message and way out, with the places of the
/// keys in the file at `path`.
#[must_use]
pub fn placed(
    found: Vec<(&str, String, String)>,
    path: Option<&Path>,
    env: &dyn Env,
) -> ConfigError {
    // It was read a moment ago; without it the keys have no lines.
    let text = path.and_then(|path| read_file(path).ok());
    let text = text.unwrap_or_default();
    let mut root = Node::parse(&text).unwrap_or_else(|_| Node::nothing());
    env::apply(env, &mut root);
    let mut problems = Problems::new(&root);
    for (key, message, help) in found {
        problems.add_with_help(&At::dotted(key), message, help);
    }
    ConfigError::Invalid(Report::new(problems.into_found(), path, &text))
}

/// A configuration in both forms.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// As written, the environment's overrides included. Show it with [`Loaded::shown`].
    pub file: file::FileConfig,
    /// As used.
    pub config: CloudConfig,
}

impl Loaded {
    /// The effective file form as YAML, with secrets hidden.
    #[must_use]
    pub fn shown(&self) -> String {
        show::yaml(&self.file)
    }
}

/// The JSON Schema of `cloud.yaml`, for editors, as indented text with a newline at its end.
#[must_use]
pub fn json_schema() -> String {
    let mut text = serde_json::to_string_pretty(&sorted(check::schema()))
        .expect("a JSON value always has a textual form");
    text.push('\n');
    text
}

/// The same JSON with the keys of every object in order, so that the schema's text does not
/// depend on what another crate makes of JSON objects.
fn sorted(json: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match json {
        Json::Object(entries) => {
            let entries: BTreeMap<&String, &Json> = entries.iter().collect();
            Json::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key.clone(), sorted(value)))
                    .collect(),
            )
        }
        Json::Array(items) => Json::Array(items.iter().map(sorted).collect()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => json.clone(),
    }
}

/// The largest configuration file that is read, in bytes: 4 MiB, some 20,000 listeners.
pub const MAX_FILE_BYTES: u64 = 4 << 20;

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable {
        path: path.to_path_buf(),
        reason,
    };
    let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let mut text = String::new();
    // One byte more than allowed tells a file that is too large from one that just fits.
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(format!(
            "it is larger than {MAX_FILE_BYTES} bytes"
        )));
    }
    Ok(text)
}

fn parse_both(text: &str, path: Option<&Path>, env: &dyn Env) -> Result<Loaded, ConfigError> {
    let report = |problems| ConfigError::Invalid(Report::new(problems, path, text));
    let mut root = Node::parse(text).map_err(|error| {
        let nothing = Node::nothing();
        let mut problems = Problems::new(&nothing);
        problems.add_at(&At::default(), error.at, error.message, None);
        report(problems.into_found())
    })?;
    env::apply(env, &mut root);
    let mut problems = Problems::new(&root);
    let json = check::check(&root, &mut problems);
    let file = match serde_json::from_value::<file::FileConfig>(json) {
        Ok(file) => file,
        Err(error) => {
            // The checker knows the schema; what it lets pass and the types do not is a gap of
            // the schema. It is refused all the same, only without a line.
            if problems.is_empty() {
                problems.add(&At::default(), error.to_string());
            }
            return Err(report(problems.into_found()));
        }
    };
    let around = Surroundings {
        folder: path.and_then(Path::parent),
        env,
    };
    let config = CloudConfig::build(&file, &around, &mut problems);
    match config {
        Some(mut config) if problems.is_empty() => {
            config.source = path.map(Path::to_path_buf);
            Ok(Loaded { file, config })
        }
        Some(_) | None => Err(report(problems.into_found())),
    }
}

impl Default for CloudConfig {
    /// The embedded defaults, in an empty environment.
    fn default() -> Self {
        parse("", None, &BTreeMap::new()).expect("the defaults are valid, as a test checks")
    }
}

impl CloudConfig {
    fn build(
        file: &file::FileConfig,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let root = At::default();
        let replica_id = name(
            ReplicaId::parse(file.ha.replica_id.as_deref().unwrap_or("hub")),
            &At::dotted("ha.replica_id"),
            problems,
        );
        let listeners = build_listeners(file, problems);
        let connectors = build_connectors(file, problems);
        let tunnel = TunnelConfig::build(&file.tunnel, &root.key("tunnel"), around, problems);
        let observability = ObservabilityConfig::build(
            &file.observability,
            &root.key("observability"),
            around,
            problems,
        );
        let ingress = IngressConfig::build(
            &file.ingress,
            &root.key("ingress"),
            &file.security,
            around,
            problems,
        );
        let limits = LimitsConfig::build(&file.limits, &root.key("limits"), problems);
        let security =
            SecurityConfig::build(&file.security, &root.key("security"), around, problems);
        let policy = PolicyConfig::build(&file.policy, &root.key("policy"), around, problems);
        let plugins = PluginsConfig::build(&file.plugins, &root.key("plugins"), around, problems);
        let admin = AdminConfig::build(&file.admin, &root.key("admin"), around, problems);
        let pdp = PdpConfig::build(
            &file.pdp,
            &file.security.audience,
            &root.key("pdp"),
            around,
            problems,
        );
        let ha = HaConfig::build(&file.ha, &root.key("ha"), around, problems);
        let control = ControlConfig::build(&file.control, &root.key("control"), around, problems);
        viewer_auth::check_signers(&ingress, &control, &root.key("ingress"), problems);
        let config = Self {
            replica_id: replica_id?,
            listeners,
            connectors,
            tunnel: tunnel?,
            limits,
            security,
            policy,
            plugins,
            observability: observability?,
            admin,
            pdp,
            ingress,
            control,
            ha,
            source: None,
        };
        config.check_ports(problems);
        config.check_own_issuer(problems);
        config.check_queue_depth(problems);
        config.check_listener_names(problems);
        Some(config)
    }

    /// The settings of a connector: those written under `connectors`, or the defaults.
    #[must_use]
    pub fn connector(&self, tenant: &TenantName, name: &ConnectorName) -> ConnectorConfig {
        let key = ConnectorKey {
            tenant: tenant.clone(),
            name: name.clone(),
        };
        self.connectors.get(&key).cloned().unwrap_or_default()
    }

    /// The times of a flow that came in at `listener`: the listener's own values win over the
    /// connector's, those over `limits`.
    #[must_use]
    pub fn flow_times(&self, listener: &ListenerConfig) -> FlowTimes {
        let connector = self.connector(&listener.tenant, &listener.connector);
        let defaults = self.limits.flow_times;
        FlowTimes {
            idle_timeout: listener
                .idle_timeout
                .or(connector.idle_timeout)
                .unwrap_or(defaults.idle_timeout),
            stall_timeout: listener
                .stall_timeout
                .or(connector.stall_timeout)
                .unwrap_or(defaults.stall_timeout),
            linger: connector.linger.unwrap_or(defaults.linger),
        }
    }

    /// The most that one flow's window grows to, in bytes for each direction: the lower of
    /// `limits.flow_window_max` and what `limits.queue_depth_per_cid` lets wait.
    #[must_use]
    pub fn flow_window_max(&self) -> u32 {
        self.limits.flow_window_max.min(self.queued_per_flow())
    }

    /// `limits.queue_depth_per_cid` in bytes.
    fn queued_per_flow(&self) -> u32 {
        self.limits
            .queue_depth_per_cid
            .saturating_mul(self.tunnel.max_ws_payload)
    }

    /// A flow is sure of its first window, so the queue cannot be shorter.
    fn check_queue_depth(&self, problems: &mut Problems<'_>) {
        let sure = self.limits.flow_window_min;
        if self.queued_per_flow() < sure {
            let payload = self.tunnel.max_ws_payload;
            let depth = self.limits.queue_depth_per_cid;
            problems.add_with_help(
                &At::dotted("limits.queue_depth_per_cid"),
                format!(
                    "`limits.queue_depth_per_cid` is `{depth}`: with `tunnel.max_ws_payload` of \
                     `{payload}` less than the `limits.flow_window_min` of `{sure}` bytes that \
                     every flow is sure of"
                ),
                format!(
                    "write at least `{}`, or lower `limits.flow_window_min`",
                    sure.div_ceil(payload)
                ),
            );
        }
    }

    /// What is allowed but probably not meant, as sentences for the log.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.security.issuers.is_empty() && self.control.listen.is_none() {
            warnings.push(
                "no issuer is configured: no agent can get in (`security.issuers`)".to_owned(),
            );
        }
        if self.tunnel.tls.is_none() && !self.tunnel.host.is_loopback() {
            warnings.push(format!(
                "the tunnel port listens on `{}` without TLS: tokens cross the network in clear \
                 unless an ingress in front ends TLS (`tunnel.tls`)",
                self.tunnel.host
            ));
        }
        if self.security.jwks.allow_plain_http {
            warnings.push(
                "keys may be fetched by plain HTTP: whoever is on that path can mint tokens \
                 (`security.jwks_allow_plain_http`)"
                    .to_owned(),
            );
        }
        if self.ha.mode() != HaMode::Off && self.ha.redis.is_none() {
            warnings.push(
                "the registry is in this hub's memory: other hubs do not see its agents, nor it \
                 theirs (`ha.redis_url`)"
                    .to_owned(),
            );
        }
        warnings
    }

    /// Policies know listeners by name, those of HTTP and of TCP alike.
    fn check_listener_names(&self, problems: &mut Problems<'_>) {
        let mut taken: BTreeMap<&str, At> = BTreeMap::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            let at = At::default().key("listeners").index(index);
            taken.insert(listener.name.as_str(), at);
        }
        for (index, listener) in self.ingress.listeners.iter().enumerate() {
            let at = At::dotted("ingress.listeners").index(index);
            let name = listener.name.as_str();
            match taken.get(name) {
                Some(first) => problems.add_with_help(
                    &at.key("name"),
                    format!("the listener name `{name}` is used twice"),
                    format!("`{first}` has it already: give each a name of its own"),
                ),
                None => {
                    taken.insert(name, at);
                }
            }
        }
    }

    /// The tokens of our control plane are told from others by `iss`, and their kinds by `aud`.
    fn check_own_issuer(&self, problems: &mut Problems<'_>) {
        let Some(listen) = self.control.listen else {
            return;
        };
        let own = self.control.issuer(listen);
        if self.security.issuers.iter().any(|one| one.issuer == own) {
            problems.add_with_help(
                &At::dotted("control.public_url"),
                format!(
                    "`{own}` is the control plane's own `iss` and one of `security.issuers`: that \
                     issuer's tokens would count no longer"
                ),
                "name the control plane's own URL in `control.public_url`, or take the issuer out",
            );
        }
        if OWN_AUDIENCES.contains(&self.security.audience.as_str()) {
            problems.add_with_help(
                &At::dotted("security.audience"),
                format!(
                    "`security.audience` is `{}`, by which tokens of the control plane that are \
                     not for agents are told from those that are",
                    self.security.audience
                ),
                "write another one, such as the hub's name",
            );
        }
    }

    /// No two ports may be the same: the second bind would fail, on some systems silently.
    fn check_ports(&self, problems: &mut Problems<'_>) {
        let mut ports: Vec<(At, SocketAddr)> = Vec::new();
        ports.push((At::dotted("tunnel.port"), self.tunnel.listen()));
        if let Some(listen) = self.observability.metrics_listen() {
            ports.push((At::dotted("observability.metrics_port"), listen));
        }
        if let Some(listen) = self.admin.listen {
            ports.push((At::dotted("admin.listen"), listen));
        }
        if let Some(listen) = self.control.listen {
            ports.push((At::dotted("control.listen"), listen));
        }
        if let Some(listen) = self.ha.mesh.listen {
            ports.push((At::dotted("ha.mesh.listen"), listen));
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            let at = At::default().key("listeners").index(index).key("bind");
            ports.push((at, listener.bind));
        }
        for (index, listener) in self.ingress.listeners.iter().enumerate() {
            let at = At::dotted("ingress.listeners").index(index).key("bind");
            ports.push((at, listener.bind));
        }
        if let Some(tunnels) = &self.control.tcp_ports {
            let taken = ports.iter().find(|(_, address)| {
                tunnels.range.contains(address.port()) && overlap(tunnels.bind, address.ip())
            });
            if let Some((at, address)) = taken {
                problems.add_with_help(
                    &At::dotted("control.tcp_ports"),
                    format!(
                        "`{at}` has the port `{}`, which is one of `control.tcp_ports`",
                        address.port()
                    ),
                    "give it a port outside of that range, or another address",
                );
            }
        }
        // By port, so that thousands of listeners are not compared with each other.
        let mut seen: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (index, (at, address)) in ports.iter().enumerate() {
            if address.port() == 0 {
                continue;
            }
            let same_port = seen.entry(address.port()).or_default();
            let clash = same_port
                .iter()
                .find(|other| overlap(ports[**other].1.ip(), address.ip()));
            if let Some(other) = clash {
                problems.add_with_help(
                    at,
                    format!(
                        "`{at}` and `{}` share the port `{}`",
                        ports[*other].0,
                        address.port()
                    ),
                    "give one of them another port or another address",
                );
            }
            same_port.push(index);
        }
    }
}

/// Whether two sockets on one port would clash.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a == b
        || match (a.is_unspecified(), b.is_unspecified()) {
            (false, false) => false,
            // `[::]` takes the IPv4 port as well; `0.0.0.0` takes only IPv4.
            (true, _) if a.is_ipv6() => true,
            (_, true) if b.is_ipv6() => true,
            (true, false) | (false, true) | (true, true) => a.is_ipv4() == b.is_ipv4(),
        }
}

fn build_listeners(file: &file::FileConfig, problems: &mut Problems<'_>) -> Vec<ListenerConfig> {
    let path = At::default().key("listeners");
    let mut first_by_name: BTreeMap<&str, usize> = BTreeMap::new();
    let mut listeners = Vec::with_capacity(file.listeners.len());
    for (index, listener) in file.listeners.iter().enumerate() {
        let at = path.index(index);
        if let Some(first) = first_by_name.insert(&listener.name, index) {
            problems.add_with_help(
                &at.key("name"),
                format!("the listener name `{}` is used twice", listener.name),
                format!("`listeners[{first}]` has it already: give each a name of its own"),
            );
        }
        listeners.extend(ListenerConfig::build(listener, &at, problems));
    }
    listeners
}

fn build_connectors(
    file: &file::FileConfig,
    problems: &mut Problems<'_>,
) -> BTreeMap<ConnectorKey, ConnectorConfig> {
    let path = At::default().key("connectors");
    let mut connectors = BTreeMap::new();
    for (key, connector) in &file.connectors {
        let at = path.key(key);
        let settings = ConnectorConfig::build(connector, &at, problems);
        let Some(parsed) = connector::connector_key(key, connector, &at, problems) else {
            continue;
        };
        let shown = parsed.to_string();
        if connectors.insert(parsed, settings).is_some() {
            problems.add(&at, format!("the connector `{shown}` is written twice"));
        }
    }
    connectors
}
