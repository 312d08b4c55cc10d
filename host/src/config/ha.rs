//! The cluster and the external decision point: read and checked now, in force later.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::Secret;

/// `ha`: hubs that serve together.
#[derive(Clone, Debug, PartialEq)]
pub struct HaConfig {
    /// Whether this hub joins others. Refused for now.
    pub enabled: bool,
    /// How far.
    pub mode: HaMode,
    /// The registry; `None` keeps it in memory.
    pub redis_url: Option<Secret>,
    /// Links to the other hubs.
    pub mesh: MeshConfig,
}

/// How far a hub takes part in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaMode {
    /// Not at all.
    Off,
    /// Links and registry run, traffic stays local.
    Shadow,
    /// Flows cross hubs.
    Active,
}

/// `ha.mesh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// Where other hubs dial in.
    pub listen: Option<SocketAddr>,
    /// `ws://` or `wss://` addresses of the other hubs.
    pub peers: Vec<String>,
    /// Whether a link without a proven certificate is refused.
    pub require_mtls: bool,
    /// This hub's certificate and the others' root.
    pub tls: Option<MeshTls>,
    /// Frames that may wait on one link.
    pub send_queue_depth: u32,
    /// Bytes on their way on one link.
    pub per_link_max_inflight_bytes: u64,
    /// The longest pause between two dials.
    pub connect_backoff_max: Duration,
    /// Peers whose forwarded headers are believed.
    pub trusted_ingress: Vec<IpNet>,
}

/// `ha.mesh.tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshTls {
    /// Roots for the other hubs.
    pub ca_bundle: PathBuf,
    /// This hub's chain.
    pub cert_file: PathBuf,
    /// This hub's key.
    pub key_file: PathBuf,
}

/// `pdp`: an external decision point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PdpConfig {
    /// Where; `None` asks nobody. Refused for now.
    pub url: Option<String>,
    /// How long an answer is kept.
    pub cache_ttl: Duration,
    /// The bound of one question.
    pub timeout: Duration,
    /// Whether trouble allows.
    pub fail_open: bool,
}
