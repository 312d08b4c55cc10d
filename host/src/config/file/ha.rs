//! Cluster, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Secret;

/// Several hubs that serve together. Not built yet; the keys are read and checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HaFile {
    /// Whether this hub joins others. Default `false`; `true` is refused for now.
    pub enabled: bool,
    /// How far. Default `off`.
    pub mode: HaModeFile,
    /// This hub's name among hubs, and the origin in every flow reference:
    /// `[A-Za-z0-9._-]`, at most 64 bytes. A change needs a restart. Default `null`: `hub`.
    pub replica_id: Option<String>,
    /// The registry, such as `redis://host:6379/0`. Hidden wherever the configuration is shown.
    /// Default `null`: kept in memory.
    pub redis_url: Option<Secret>,
    /// Links to the other hubs.
    pub mesh: MeshFile,
}

/// How far a hub takes part in a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HaModeFile {
    /// Not at all.
    #[default]
    Off,
    /// Links and registry run, traffic stays local.
    Shadow,
    /// Flows cross hubs.
    Active,
}

/// Links to the other hubs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MeshFile {
    /// Where other hubs dial in. Default `null`: nowhere.
    pub listen: Option<String>,
    /// The other hubs, such as `wss://hub-b.example.org/mesh`. Default empty.
    #[schemars(length(max = 256))]
    pub peers: Vec<String>,
    /// Whether a link without a proven certificate is refused; needs `tls`. Default `false`.
    pub require_mtls: bool,
    /// This hub's certificate and the others' root. Default `null`.
    pub tls: Option<MeshTlsFile>,
    /// Frames that may wait on one link. Default 1000.
    #[schemars(range(min = 1, max = 100_000))]
    pub send_queue_depth: u32,
    /// Bytes written to one link and not yet received by its far side. Bytes. Default 8388608.
    #[schemars(range(min = 65_536, max = 1_073_741_824))]
    pub per_link_max_inflight_bytes: u64,
    /// The longest pause between two dials. Seconds. Default 30.
    #[schemars(range(min = 1, max = 3600))]
    pub connect_backoff_max_sec: u64,
    /// Ingress addresses, as CIDR, whose forwarded headers may filter further. Default empty.
    #[schemars(length(max = 1024))]
    pub trusted_ingress: Vec<String>,
}

impl Default for MeshFile {
    fn default() -> Self {
        Self {
            listen: None,
            peers: Vec::new(),
            require_mtls: false,
            tls: None,
            send_queue_depth: 1000,
            per_link_max_inflight_bytes: 8 << 20,
            connect_backoff_max_sec: 30,
            trusted_ingress: Vec::new(),
        }
    }
}

/// This hub's certificate on the mesh, and the others' root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeshTlsFile {
    /// Roots for the other hubs, as PEM.
    pub ca_bundle: String,
    /// This hub's chain as PEM, leaf first; its SAN must match the others' `peers`.
    pub cert_file: String,
    /// This hub's private key as PEM.
    pub key_file: String,
}
