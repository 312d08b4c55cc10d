//! The port that agents dial.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use nowconnect_protocol::limits::{MAX_MESSAGE_BYTES, MIN_MESSAGE_BYTES};

use super::RateLimit;
use super::build::{Surroundings, cidrs, ip_address, ms};
use super::file::{HandshakeFile, TlsFile, TunnelFile};
use super::problem::Problems;
use super::tree::Path;

/// `tunnel`: the WebSocket endpoint `/tunnel`, with `/healthz` and `/readyz` beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct TunnelConfig {
    /// The address to listen on.
    pub host: IpAddr,
    /// The port to listen on; 0 asks the system for a free one.
    pub port: u16,
    /// The certificate for TLS in this process; `None` where an ingress ends TLS.
    pub tls: Option<TlsFiles>,
    /// The most payload of one DATA frame in bytes; the lower of both ends' values counts.
    pub max_ws_payload: u32,
    /// The most bytes of one WebSocket message, which holds several frames.
    pub max_ws_message: u32,
    /// How often an idle tunnel is pinged.
    pub ping_interval: Duration,
    /// How long a ping of an idle tunnel may stay unanswered.
    pub ping_timeout: Duration,
    /// Bounds on TLS and upgrade, before an agent is known.
    pub handshake: HandshakeConfig,
    /// From the upgrade until HELLO.
    pub hello_timeout: Duration,
    /// How long the flows of a broken tunnel wait for the agent to come back; zero turns resume
    /// off.
    pub resume_grace: Duration,
    /// From the first signal until what still runs is cut.
    pub drain_timeout: Duration,
    /// Peers whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed for the agent's
    /// address.
    pub trusted_ingress: Vec<IpNet>,
    /// Threads that drive tunnels; 0 means one for each core.
    pub workers: u16,
}

impl TunnelConfig {
    /// Host and port together.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}

/// A certificate chain and its key, as PEM files that are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert_file: PathBuf,
    /// The private key of the leaf.
    pub key_file: PathBuf,
}

/// Bounds on what has not proven who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeConfig {
    /// The most handshakes at once; beyond it the answer is 503 with `Retry-After`.
    pub max_concurrent: u32,
    /// From accept until the upgrade is done.
    pub timeout: Duration,
    /// The most handshakes at once from one source address (an IPv6 /64 counts as one).
    pub max_per_source: u32,
    /// New handshakes a second from one source address.
    pub rate_per_source: RateLimit,
    /// What `Retry-After` says.
    pub retry_after: Duration,
    /// The most bytes of the upgrade request's line and header fields.
    pub max_header_bytes: u32,
}

/// The schema's bounds on `max_ws_message` are those of the protocol.
const _: () = assert!(MIN_MESSAGE_BYTES == 139_264 && MAX_MESSAGE_BYTES == 262_144);

impl TunnelConfig {
    pub(super) fn build(
        file: &TunnelFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let host = ip_address(&file.host, &path.key("host"), problems);
        let trusted_ingress = cidrs(
            &file.trusted_ingress,
            &path.key("trusted_ingress"),
            problems,
        );
        Some(Self {
            host: host?,
            port: file.port,
            tls: file.tls.as_ref().map(|tls| TlsFiles::build(tls, around)),
            max_ws_payload: file.max_ws_payload,
            max_ws_message: file.max_ws_message,
            ping_interval: Duration::from_secs(file.ping_interval_sec),
            ping_timeout: Duration::from_secs(file.ping_timeout_sec),
            handshake: HandshakeConfig::build(&file.handshake),
            hello_timeout: ms(file.hello_timeout_ms),
            resume_grace: ms(file.resume_grace_ms),
            drain_timeout: ms(file.drain_timeout_ms),
            trusted_ingress,
            workers: file.workers,
        })
    }
}

impl TlsFiles {
    pub(super) fn build(file: &TlsFile, around: &Surroundings<'_>) -> Self {
        Self {
            cert_file: around.path(&file.cert_file),
            key_file: around.path(&file.key_file),
        }
    }
}

impl HandshakeConfig {
    fn build(file: &HandshakeFile) -> Self {
        Self {
            max_concurrent: file.max_concurrent,
            timeout: ms(file.timeout_ms),
            max_per_source: file.max_per_source,
            rate_per_source: RateLimit {
                per_second: file.rate_per_source.per_second,
                burst: file
                    .rate_per_source
                    .burst
                    .unwrap_or(file.rate_per_source.per_second),
            },
            retry_after: Duration::from_secs(file.retry_after_sec),
            max_header_bytes: file.max_header_bytes,
        }
    }
}
