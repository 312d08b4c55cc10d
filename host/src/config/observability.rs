//! Logs, metrics, traces and the admin API.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::build::{Surroundings, ip_address, ms, socket_address, url};
use super::file::{AdminFile, DecisionLogFile, LogFormatFile, ObservabilityFile, WhenFullFile};
use super::problem::Problems;
use super::tree::Path;

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
    /// A log of every decision.
    pub decision_log: DecisionLogConfig,
}

/// `observability.decision_log`.
#[derive(Clone, Debug, PartialEq)]
pub struct DecisionLogConfig {
    /// Where its lines go; `-` is standard output.
    pub file: Option<PathBuf>,
    /// Whether log records go to `otlp_endpoint`.
    pub otlp: bool,
    /// What may wait for each output, in bytes.
    pub queue_bytes: u64,
    /// What becomes of what there is no room for.
    pub when_full: DecisionsWhenFull,
    /// The share of allows that are kept.
    pub sample_allows: f64,
    /// Equal denies a second that stand alone.
    pub deny_burst: u32,
    /// Fields of the question that are written.
    pub context: Vec<String>,
}

/// What becomes of a decision that a queue has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionsWhenFull {
    /// It is dropped.
    DropNew,
    /// The oldest are dropped.
    DropOld,
    /// Whoever decides waits, at most so long.
    Block(Duration),
}

impl DecisionLogConfig {
    fn build(
        file: &DecisionLogFile,
        endpoint: Option<&String>,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        if file.otlp && endpoint.is_none() {
            problems.add_with_help(
                &path.key("otlp"),
                "`observability.decision_log.otlp: true` has nowhere to go",
                "set `observability.otlp_endpoint`",
            );
        }
        Self {
            file: file.file.as_ref().map(|file| match file.as_str() {
                STDOUT => PathBuf::from(STDOUT),
                file => around.path(file),
            }),
            otlp: file.otlp,
            queue_bytes: file.queue_bytes,
            when_full: match file.when_full {
                WhenFullFile::DropNew => DecisionsWhenFull::DropNew,
                WhenFullFile::DropOld => DecisionsWhenFull::DropOld,
                WhenFullFile::Block => DecisionsWhenFull::Block(ms(file.block_ms)),
            },
            sample_allows: file.sample_allows,
            deny_burst: file.deny_burst,
            context: file.context.clone(),
        }
    }
}

/// The name of standard output.
const STDOUT: &str = "-";

impl DecisionLogConfig {
    /// Whether lines go to standard output.
    #[must_use]
    pub fn to_stdout(&self) -> bool {
        self.file.as_deref() == Some(std::path::Path::new(STDOUT))
    }
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

impl ObservabilityConfig {
    pub(super) fn build(
        file: &ObservabilityFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let metrics_host = ip_address(&file.metrics_host, &path.key("metrics_host"), problems);
        if tracing_subscriber::EnvFilter::try_new(&file.log_level).is_err()
            || file.log_level.trim().is_empty()
        {
            problems.add_with_help(
                &path.key("log_level"),
                format!("`observability.log_level` cannot be `{}`", file.log_level),
                "write `error`, `warn`, `info`, `debug`, `trace` or `off`, or a filter such as \
                 `info,nowconnect::router=debug`",
            );
        }
        if let Some(endpoint) = &file.otlp_endpoint {
            url(
                endpoint,
                &["http", "https"],
                &path.key("otlp_endpoint"),
                problems,
            );
        }
        for name in file.otlp_headers.keys() {
            if http::HeaderName::try_from(name.as_str()).is_err() {
                problems.add(
                    &path.key("otlp_headers").key(name),
                    format!("`{name}` cannot be the name of a header field"),
                );
            }
        }
        Some(Self {
            metrics_host: metrics_host?,
            metrics_port: file.metrics_port,
            metrics_on_tunnel_port: file.metrics_on_tunnel_port,
            log_level: file.log_level.clone(),
            log_format: match file.log_format {
                LogFormatFile::Json => LogFormat::Json,
                LogFormatFile::Text => LogFormat::Text,
            },
            log_queue: file.log_queue,
            otlp_endpoint: file.otlp_endpoint.clone(),
            otlp_headers: file
                .otlp_headers
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            otlp_timeout: ms(file.otlp_timeout_ms),
            otlp_sample_ratio: file.otlp_sample_ratio,
            service_name: file.service_name.clone(),
            redaction: RedactionConfig {
                emails: file.redaction.emails,
                client_ips: file.redaction.client_ips,
                agent_ips: file.redaction.agent_ips,
            },
            decision_log: DecisionLogConfig::build(
                &file.decision_log,
                file.otlp_endpoint.as_ref(),
                &path.key("decision_log"),
                around,
                problems,
            ),
        })
    }
}

impl AdminConfig {
    /// The socket of a hub that is told nothing, and of a command that looks for one.
    #[must_use]
    pub fn default_socket(env: &dyn super::Env) -> PathBuf {
        env.var("XDG_RUNTIME_DIR")
            .map_or_else(|| PathBuf::from("/run"), PathBuf::from)
            .join("nowconnect/admin.sock")
    }

    pub(super) fn build(
        file: &AdminFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let at = path.key("listen");
        let listen = file
            .listen
            .as_ref()
            .and_then(|text| socket_address(text, &at, problems));
        let tls = file.tls.as_ref().map(|tls| AdminTls {
            cert_file: around.path(&tls.cert_file),
            key_file: around.path(&tls.key_file),
            client_ca_file: around.optional_path(tls.client_ca_file.as_ref()),
        });
        if let Some(listen) = listen {
            let client_certificates = tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
            if file.token_file.is_none() && !client_certificates {
                problems.add_with_help(
                    &at,
                    "the admin API would be open to everyone who reaches this port",
                    "set `admin.token_file`, or `admin.tls` with `client_ca_file`, or remove \
                     `admin.listen` and use the Unix socket",
                );
            }
            if tls.is_none() && !listen.ip().is_loopback() {
                problems.add_with_help(
                    &at,
                    format!(
                        "`admin.listen` is `{listen}`: the token would cross the network in clear"
                    ),
                    "set `admin.tls`, or listen on a loopback address",
                );
            }
        }
        Self {
            socket: match file.socket.as_deref() {
                None => Some(Self::default_socket(around.env)),
                Some("") => None,
                Some(socket) => Some(around.path(socket)),
            },
            listen,
            token_file: around.optional_path(file.token_file.as_ref()),
            tls,
            allowed_hosts: file.allowed_hosts.clone(),
        }
    }
}
