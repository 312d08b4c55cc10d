//! The tunnel port, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RateFile;

/// The port that agents dial: the WebSocket endpoint `/tunnel`, with `/healthz` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TunnelFile {
    /// The address to listen on. A change needs a restart. Default `0.0.0.0`.
    pub host: String,
    /// The port to listen on; 0 asks the system for a free one. A change needs a restart.
    /// Default 8765.
    pub port: u16,
    /// Certificate and key for TLS in this process. `null` expects an ingress that ends TLS: then
    /// bind `host` to an address that only the ingress reaches. Default `null`.
    pub tls: Option<TlsFile>,
    /// The most payload of one DATA frame; the lower of both ends' values counts (older agents
    /// have 8192). Bytes. Default 131072.
    #[schemars(range(min = 1024, max = 131_072))]
    pub max_ws_payload: u32,
    /// The most bytes of one WebSocket message, which holds several frames; agents are told, and
    /// a longer one ends the tunnel. From agents of versions that do not know of it 262144 are
    /// taken. The longest frame fits always. Bytes. Default 262144.
    #[schemars(range(min = 139_264, max = 262_144))]
    pub max_ws_message: u32,
    /// How often an idle tunnel is pinged; a busy one is probed much sooner. Seconds. Default 20.
    #[schemars(range(min = 1, max = 3600))]
    pub ping_interval_sec: u64,
    /// How long a ping of an idle tunnel may stay unanswered. Seconds. Default 20.
    #[schemars(range(min = 1, max = 3600))]
    pub ping_timeout_sec: u64,
    /// Bounds on peers that have not proven who they are.
    pub handshake: HandshakeFile,
    /// From the upgrade until HELLO. Milliseconds. Default 10000.
    #[schemars(range(min = 1, max = 600_000))]
    pub hello_timeout_ms: u64,
    /// How long the flows of a broken tunnel wait for their agent to come back and go on from the
    /// exact byte. 0 turns resume off. Milliseconds. Default 30000.
    #[schemars(range(min = 0, max = 600_000))]
    pub resume_grace_ms: u64,
    /// At shutdown, how long running flows may go on before they are cut; a second signal cuts
    /// at once. Milliseconds. Default 60000.
    #[schemars(range(min = 0, max = 86_400_000))]
    pub drain_timeout_ms: u64,
    /// Ingress addresses, as CIDR, whose `X-Forwarded-For` is believed for an agent's address.
    /// Default empty: the socket's peer counts.
    #[schemars(length(max = 1024))]
    pub trusted_ingress: Vec<String>,
    /// Threads that drive tunnels; 0 means one for each core. A change needs a restart.
    /// Default 0.
    #[schemars(range(min = 0, max = 256))]
    pub workers: u16,
}

impl Default for TunnelFile {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".to_owned(),
            port: 8765,
            tls: None,
            max_ws_payload: 128 << 10,
            max_ws_message: 256 << 10,
            ping_interval_sec: 20,
            ping_timeout_sec: 20,
            handshake: HandshakeFile::default(),
            hello_timeout_ms: 10_000,
            resume_grace_ms: 30_000,
            drain_timeout_ms: 60_000,
            trusted_ingress: Vec::new(),
            workers: 0,
        }
    }
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// The chain as PEM, leaf first. Watched: a new one is taken over while the hub runs.
    pub cert_file: String,
    /// The leaf's private key as PEM.
    pub key_file: String,
}

/// Bounds on TLS and upgrade, before an agent is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HandshakeFile {
    /// The most handshakes at once; beyond it the answer is 503 with `Retry-After`. Default 256.
    #[schemars(range(min = 1, max = 65_536))]
    pub max_concurrent: u32,
    /// From accept until the upgrade is done. Milliseconds. Default 10000.
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout_ms: u64,
    /// The most handshakes at once from one source address (an IPv6 /64 counts as one). Behind an
    /// ingress that `tunnel.trusted_ingress` does not name, all agents are one source. Default 64.
    #[schemars(range(min = 1, max = 65_536))]
    pub max_per_source: u32,
    /// New handshakes a second from one source address. Default 50 with a burst of 100.
    pub rate_per_source: RateFile,
    /// What `Retry-After` says. Seconds. Default 5.
    #[schemars(range(min = 1, max = 3600))]
    pub retry_after_sec: u64,
    /// The most bytes of the upgrade request's line and header fields; a token must fit.
    /// Bytes. Default 32768.
    #[schemars(range(min = 4096, max = 262_144))]
    pub max_header_bytes: u32,
}

impl Default for HandshakeFile {
    fn default() -> Self {
        Self {
            max_concurrent: 256,
            timeout_ms: 10_000,
            max_per_source: 64,
            rate_per_source: RateFile {
                per_second: 50,
                burst: Some(100),
            },
            retry_after_sec: 5,
            max_header_bytes: 32 << 10,
        }
    }
}
