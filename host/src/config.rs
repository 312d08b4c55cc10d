//! The hub's configuration.
//!
//! Two forms of the same thing. The *file form* ([`file`]) is what an operator writes: strict
//! YAML whose keys, units, bounds and defaults are documented on its fields and published as a
//! JSON Schema. The *runtime form* ([`CloudConfig`] and what hangs on it) is fully typed: names
//! are parsed, durations are [`Duration`](std::time::Duration), addresses are addresses,
//! contradictions are gone. Only [`load`] and [`parse`] turn one into the other, and they
//! report every problem at once, each with its line, column and way out.
//!
//! Precedence: environment variables ([`env`]) over the file over the embedded defaults. With no
//! file at all the defaults are a valid configuration: a hub that accepts no agent, because no
//! issuer is named.
//!
//! Nothing here reads the clock or binds a port; reading the one file is the only IO. A running
//! hub loads the next configuration beside the one in force and asks
//! [`CloudConfig::changes_from`] what may be taken over without a restart.

pub mod connector;
pub mod env;
pub mod ha;
pub mod limits;
pub mod listener;
pub mod observability;
pub mod policy;
pub mod secret;
pub mod security;
pub mod tunnel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nowconnect_protocol::{ConnectorName, ReplicaId, TenantName};

pub use connector::{ConnectorConfig, ConnectorKey};
pub use env::{Env, ProcessEnv};
pub use ha::{HaConfig, HaMode, MeshConfig, MeshTls, PdpConfig};
pub use limits::{FlowTimes, LimitsConfig, RateLimit};
pub use listener::{Balance, ListenerConfig, ListenerName, ProxyProtocolAccept, ProxyProtocolIn};
pub use observability::{AdminConfig, AdminTls, LogFormat, ObservabilityConfig, RedactionConfig};
pub use policy::{
    OnSwap, PluginConfig, PluginHook, PluginLimits, PluginMode, PluginQuarantine, PluginsConfig,
    PolicyConfig,
};
pub use secret::Secret;
pub use security::{
    ClaimsConfig, DuplicateAgent, IssuerConfig, JwksConfig, KeySource, OnExpiry, SecurityConfig,
    TenantRule, TokenAlgorithm,
};
pub use tunnel::{HandshakeConfig, TlsFiles, TunnelConfig};

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
    let _ = (path, env);
    todo!()
}

/// The largest configuration file that is read, in bytes: 4 MiB, some 20,000 listeners.
pub const MAX_FILE_BYTES: u64 = 4 << 20;

/// A configuration that cannot be used. Its `Display` is one paragraph per problem, with line,
/// column and an excerpt; exit with [`Exit::Usage`](crate::cli::Exit::Usage).
#[derive(Debug, thiserror::Error)]
#[error("the configuration cannot be used")]
pub struct ConfigError {}

impl CloudConfig {
    /// The settings of a connector: those written under `connectors`, or the defaults.
    #[must_use]
    pub fn connector(&self, tenant: &TenantName, name: &ConnectorName) -> ConnectorConfig {
        let _ = (tenant, name);
        todo!()
    }

    /// The times of a flow that came in at `listener`: the listener's own values win over the
    /// connector's, those over `limits`.
    #[must_use]
    pub fn flow_times(&self, listener: &ListenerConfig) -> FlowTimes {
        let _ = listener;
        todo!()
    }

    /// What changed from `old`, by section, and whether a running hub can take it over.
    #[must_use]
    pub fn changes_from(&self, old: &Self) -> Changes {
        let _ = old;
        todo!()
    }
}

/// The difference of two configurations, for a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Sections (dotted keys such as `listeners`, `tunnel.tls`) that a running hub takes over.
    pub live: Vec<&'static str>,
    /// Keys whose new value needs a restart; the hub goes on with the old value of these.
    pub restart: Vec<&'static str>,
}
