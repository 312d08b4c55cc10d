//! The file form: what an operator writes in `cloud.yaml`.
//!
//! These types are the single source of the accepted keys, their types, bounds and defaults: the
//! published JSON Schema is derived from them, and the [checker](super::check) reads that schema
//! to find every mistake of a file at once. Field docs become the schema's descriptions, so each
//! says the unit, the default and what it plays together with.
//!
//! Conventions: a key's unit is its last word (`_ms`, `_sec` where an older product used
//! seconds, `_bytes`); `null` means "not set"; relative paths start at the configuration file's
//! folder.

mod acme;
mod bundle;
mod control;
mod ha;
mod ingress;
mod limits;
mod listener;
mod observability;
mod pdp;
mod policy;
mod security;
mod tunnel;
mod viewer_auth;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use acme::{AcmeFile, ChallengeFile, ExternalAccountFile};
pub use bundle::{BundleFile, BundleRequireFile, OnUntrustedFile};
pub use control::{
    AnonymousFile, ClientFile, ControlAlgorithmFile, ControlFile, ScopeFile, TcpPortsFile,
    TokensFile, TunnelUrlFile,
};
pub use ha::{DiscoveryFile, HaFile, HaModeFile, MeshFile, MeshTlsFile, RedisFile};
pub use ingress::{
    ConnectionsFile, HttpListenerFile, HttpTlsFile, IngressFile, IngressLimitsFile, MinRateFile,
    OriginHttpFile, PathMatchFile, RouteFile, StickyFile,
};
pub use limits::{LimitsFile, RateFile};
pub use listener::{
    BalanceFile, ConnectorFile, HealthCheckFile, HttpCheckFile, ListenerFile,
    ProxyProtocolAcceptFile, ProxyProtocolFile, ProxyProtocolOutFile,
};
pub use observability::{
    AdminFile, AdminTlsFile, DecisionLogFile, LogFormatFile, ObservabilityFile, RedactionFile,
    WhenFullFile,
};
pub use pdp::{PdpFile, PdpKindFile, PdpOnErrorFile, PdpRecheckFile};
pub use policy::{
    OnSwapFile, PluginFile, PluginHookFile, PluginInstancesFile, PluginLimitsFile, PluginModeFile,
    PluginsFile, PolicyFile, QuarantineFile, RegistryFile, WarmFile,
};
pub(crate) use security::all_algorithms;
pub use security::{
    AlgorithmFile, ClaimsFile, DuplicateAgentFile, IssuerFile, OnExpiryFile, SecurityFile,
    SignedAgentFile,
};
pub use tunnel::{HandshakeFile, TlsFile, TunnelFile};
pub use viewer_auth::{
    ClientCertificatesFile, ViewerAssertionFile, ViewerAuthFile, ViewerBasicFile, ViewerBearerFile,
    ViewerIssuerFile, ViewerMtlsFile, ViewerSignedUrlFile, ViewerUrlKeyFile, ViewerWayFile,
};

/// The configuration of a NowConnect hub (`cloud.yaml`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "NowConnect hub")]
pub struct FileConfig {
    /// Public TCP ports, each leading to one connector. Default: none. Reloads without a restart.
    #[schemars(length(max = 4096))]
    pub listeners: Vec<ListenerFile>,
    /// Settings of single connectors, by name (`name` or `tenant/name`). A connector that is not
    /// named here has the defaults of `limits`. Default: none.
    pub connectors: BTreeMap<String, ConnectorFile>,
    /// The port that agents dial.
    pub tunnel: TunnelFile,
    /// Bounds on time, number and memory that hold for the whole hub.
    pub limits: LimitsFile,
    /// Who may come in.
    pub security: SecurityFile,
    /// The Cedar policies.
    pub policy: PolicyFile,
    /// The Wasm plugins.
    pub plugins: PluginsFile,
    /// Logs, metrics and traces.
    pub observability: ObservabilityFile,
    /// The API for operators, which `nowconnect status` and others use.
    pub admin: AdminFile,
    /// An external decision point that is asked after the policies, and can only narrow.
    pub pdp: PdpFile,
    /// Several hubs that serve together. Not built yet; its keys are read and checked.
    pub ha: HaFile,
    /// HTTP by host name. Reloads without a restart.
    pub ingress: IngressFile,
    /// Public names for private services: the API that `nowconnect-agent http` uses. Reloads
    /// without a restart, but for what says so.
    pub control: ControlFile,
}
