//! Logs, metrics, traces and the admin API.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// `observability`.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservabilityConfig {
    /// The address of the metrics port.
    pub metrics_host: IpAddr,
    /// The port that serves `/metrics`, `/healthz` and `/readyz`; 0 asks the system for one,
    /// `None` serves none.
    pub metrics_port: Option<u16>,
    /// Whether `/metrics` is served on the tunnel port too.
    pub metrics_on_tunnel_port: bool,
    /// A level or a filter in the form of `tracing`, such as `info,nowconnect::router=debug`.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Records that may wait for masking and writing; more are dropped and counted.
    pub log_queue: u32,
    /// Where traces go by OTLP over HTTP; `None` is nowhere.
    pub otlp_endpoint: Option<String>,
    /// Header fields for that endpoint, as `name: value`.
    pub otlp_headers: Vec<(String, Secret)>,
    /// The bound of one export.
    pub otlp_timeout: Duration,
    /// The share of traces that are kept, 0 to 1.
    pub otlp_sample_ratio: f64,
    /// `service.name` in traces.
    pub service_name: String,
    /// What is masked in everything that leaves the process.
    pub redaction: RedactionConfig,
}

impl ObservabilityConfig {
    /// Where metrics are served.
    #[must_use]
    pub fn metrics_listen(&self) -> Option<SocketAddr> {
        self.metrics_port
            .map(|port| SocketAddr::new(self.metrics_host, port))
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The built-in floor of masking, before any mask plugin. Bearer tokens and JWTs are always
/// masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedactionConfig {
    /// E-mail addresses.
    pub emails: bool,
    /// The last octet of IPv4 and the last 80 bits of IPv6 addresses of clients.
    pub client_ips: bool,
    /// The same for agents.
    pub agent_ips: bool,
}

/// `admin`: the API for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The Unix socket, mode 0600; `None` is no socket.
    pub socket: Option<PathBuf>,
    /// A TCP address as well; only with a token or client certificates.
    pub listen: Option<SocketAddr>,
    /// The file with the bearer token for TCP.
    pub token_file: Option<PathBuf>,
    /// TLS for TCP.
    pub tls: Option<AdminTls>,
    /// `Host` values that are answered over TCP, beside the address itself (DNS rebinding).
    pub allowed_hosts: Vec<String>,
}

/// TLS of the admin port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    /// The chain, leaf first.
    pub cert_file: PathBuf,
    /// The leaf's key.
    pub key_file: PathBuf,
    /// Roots for client certificates; `None` asks for none.
    pub client_ca_file: Option<PathBuf>,
}
