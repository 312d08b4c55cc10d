//! The cluster: read and checked now, in force later.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::Secret;
use super::build::{Surroundings, cidrs, socket_address, url};
use super::file::{HaFile, HaModeFile, MeshFile};
use super::problem::Problems;
use super::tree::Path;

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

impl HaConfig {
    pub(super) fn build(
        file: &HaFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        if file.enabled {
            problems.add_with_help(
                &path.key("enabled"),
                "`ha.enabled: true` is not built yet: this hub serves alone",
                "write `false`; the other keys of `ha` may stay",
            );
        }
        if let Some(redis_url) = &file.redis_url {
            url(
                redis_url.expose(),
                &["redis", "rediss"],
                &path.key("redis_url"),
                problems,
            );
        }
        Self {
            enabled: file.enabled,
            mode: match file.mode {
                HaModeFile::Off => HaMode::Off,
                HaModeFile::Shadow => HaMode::Shadow,
                HaModeFile::Active => HaMode::Active,
            },
            redis_url: file.redis_url.clone(),
            mesh: MeshConfig::build(&file.mesh, &path.key("mesh"), around, problems),
        }
    }
}

impl MeshConfig {
    fn build(
        file: &MeshFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        for (index, peer) in file.peers.iter().enumerate() {
            let at = path.key("peers").index(index);
            url(peer, &["wss", "ws"], &at, problems);
            if file.peers[..index].contains(peer) {
                problems.add(&at, format!("the peer `{peer}` is written twice"));
            }
        }
        if file.require_mtls && file.tls.is_none() {
            problems.add_with_help(
                &path.key("require_mtls"),
                "`ha.mesh.require_mtls: true` needs `ha.mesh.tls`",
                "set `ca_bundle`, `cert_file` and `key_file` there",
            );
        }
        Self {
            listen: file
                .listen
                .as_ref()
                .and_then(|text| socket_address(text, &path.key("listen"), problems)),
            peers: file.peers.clone(),
            require_mtls: file.require_mtls,
            tls: file.tls.as_ref().map(|tls| MeshTls {
                ca_bundle: around.path(&tls.ca_bundle),
                cert_file: around.path(&tls.cert_file),
                key_file: around.path(&tls.key_file),
            }),
            send_queue_depth: file.send_queue_depth,
            per_link_max_inflight_bytes: file.per_link_max_inflight_bytes,
            connect_backoff_max: Duration::from_secs(file.connect_backoff_max_sec),
            trusted_ingress: cidrs(
                &file.trusted_ingress,
                &path.key("trusted_ingress"),
                problems,
            ),
        }
    }
}
