//! Cluster, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Secret;

/// Several hubs that serve together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HaFile {
    /// Whether this hub joins others; needs `replica_id`. Default `false`.
    pub enabled: bool,
    /// How far, where `enabled`. Default `off`.
    pub mode: HaModeFile,
    /// This hub's name among hubs, and the origin in every flow reference:
    /// `[A-Za-z0-9._-]`, at most 64 bytes, another for each hub. A change needs a restart. Default
    /// `null`: `hub`.
    pub replica_id: Option<String>,
    /// The registry: `redis://[user[:password]@]host[:port][/database]`,
    /// `redis+sentinel://sentinel,sentinel/master[/database]` or `redis+cluster://node,node`, with
    /// `rediss` for TLS. Hidden wherever the configuration is shown. Default `null`: kept in this
    /// hub's memory, where no other hub sees it.
    pub redis_url: Option<Secret>,
    /// How `redis_url` is reached.
    pub redis: RedisFile,
    /// Links to the other hubs.
    pub mesh: MeshFile,
}

/// How the registry in Redis is reached, beside its URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisFile {
    /// Holds the password, one line, instead of the URL; read at each connection. Default `null`.
    pub password_file: Option<String>,
    /// The first part of every key: clusters that share a Redis need different ones. 1 to 64
    /// letters, digits, `.`, `_`, `-` or `:`. Default `nowconnect`.
    pub key_prefix: String,
    /// How long a claim on an agent stands without renewal; it is renewed each third of it, and a
    /// hub that lost one sees it then. Seconds. Default 60.
    #[schemars(range(min = 3, max = 3600))]
    pub claim_lease_sec: u64,
    /// Roots as PEM for a TLS URL. Default `null`: the system's.
    pub ca_bundle: Option<String>,
    /// This hub's chain as PEM, where Redis asks for one. Default `null`.
    pub cert_file: Option<String>,
    /// This hub's key as PEM. Default `null`.
    pub key_file: Option<String>,
    /// The Sentinels' own user, where they ask for one. Default `null`.
    pub sentinel_username: Option<String>,
    /// Holds the Sentinels' own password, one line. Default `null`.
    pub sentinel_password_file: Option<String>,
}

impl Default for RedisFile {
    fn default() -> Self {
        Self {
            password_file: None,
            key_prefix: "nowconnect".to_owned(),
            claim_lease_sec: 60,
            ca_bundle: None,
            cert_file: None,
            key_file: None,
            sentinel_username: None,
            sentinel_password_file: None,
        }
    }
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
    /// Where other hubs dial in. A change needs a restart. Default `null`: nowhere.
    pub listen: Option<String>,
    /// What this hub says in the registry of where others may dial it, such as
    /// `wss://hub-a.example.org/mesh`. Default `null`: only `peers` of the others lead here.
    pub advertise: Option<String>,
    /// The other hubs, such as `wss://hub-b.example.org/mesh`. Default empty.
    #[schemars(length(max = 256))]
    pub peers: Vec<String>,
    /// Whether a link without a proven certificate is refused; needs `tls`, and `wss` in `peers`.
    /// `false` believes whoever reaches `listen`, as in a laboratory. Default `true`.
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
    /// Hubs that are found in the registry.
    pub discovery: DiscoveryFile,
}

/// Hubs that are found in the registry. What stands there makes nobody trusted: an address is
/// dialled only where it is allowed here, and the certificate then proves who answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoveryFile {
    /// Hosts that may be dialled: names, `*.example.org` for all names below one, addresses and
    /// networks (CIDR). Default empty: only `peers` are dialled.
    #[schemars(length(max = 256))]
    pub allow: Vec<String>,
}

impl Default for MeshFile {
    fn default() -> Self {
        Self {
            listen: None,
            peers: Vec::new(),
            require_mtls: true,
            tls: None,
            send_queue_depth: 1000,
            per_link_max_inflight_bytes: 8 << 20,
            connect_backoff_max_sec: 30,
            trusted_ingress: Vec::new(),
            advertise: None,
            discovery: DiscoveryFile::default(),
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
