//! Logs, metrics, traces and the admin API, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Secret;

/// Logs, metrics and traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ObservabilityFile {
    /// The address of the metrics port. A change needs a restart. Default `0.0.0.0`.
    pub metrics_host: String,
    /// The port of `/metrics`, `/healthz` and `/readyz`; 0 asks the system for a free one,
    /// `null` opens none. A change needs a restart. Default 8000.
    pub metrics_port: Option<u16>,
    /// Whether `/metrics` is served on the tunnel port too, where agents can read it.
    /// Default `false`.
    pub metrics_on_tunnel_port: bool,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as
    /// `info,nowconnect::router=debug`. Default `info`.
    pub log_level: String,
    /// How log lines look. A change needs a restart. Default `json`.
    pub log_format: LogFormatFile,
    /// Records that may wait to be masked and written; more are dropped and counted. A change
    /// needs a restart. Default 8192.
    #[schemars(range(min = 64, max = 1_048_576))]
    pub log_queue: u32,
    /// Where traces go by OTLP over HTTP: the base URL, to which `/v1/traces` is added.
    /// A change needs a restart. Default `null`: nowhere.
    pub otlp_endpoint: Option<String>,
    /// Header fields for that endpoint, such as an API key. Hidden wherever the configuration is
    /// shown. Default none.
    pub otlp_headers: BTreeMap<String, Secret>,
    /// The bound of one export. Milliseconds. Default 10000.
    #[schemars(range(min = 1, max = 60_000))]
    pub otlp_timeout_ms: u64,
    /// The share of traces that are kept, from 0 to 1. Default 1.
    #[schemars(range(min = 0, max = 1))]
    pub otlp_sample_ratio: f64,
    /// `service.name` in traces. Default `nowconnect`.
    pub service_name: String,
    /// What is masked in everything that leaves the process.
    pub redaction: RedactionFile,
    /// A log of every decision, beside the hub's own log.
    pub decision_log: DecisionLogFile,
}

impl Default for ObservabilityFile {
    fn default() -> Self {
        Self {
            metrics_host: "0.0.0.0".to_owned(),
            metrics_port: Some(8000),
            metrics_on_tunnel_port: false,
            log_level: "info".to_owned(),
            log_format: LogFormatFile::default(),
            log_queue: 8192,
            otlp_endpoint: None,
            otlp_headers: BTreeMap::new(),
            otlp_timeout_ms: 10_000,
            otlp_sample_ratio: 1.0,
            service_name: "nowconnect".to_owned(),
            redaction: RedactionFile::default(),
            decision_log: DecisionLogFile::default(),
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormatFile {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// The built-in floor of masking, before any mask plugin. Bearer tokens and JWTs are always
/// masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedactionFile {
    /// E-mail addresses. Default `true`.
    pub emails: bool,
    /// Client addresses: the last octet of IPv4, the last 80 bits of IPv6. Default `false`.
    pub client_ips: bool,
    /// Agents' addresses, in the same way. Default `true`.
    pub agent_ips: bool,
}

impl Default for RedactionFile {
    fn default() -> Self {
        Self {
            emails: true,
            client_ips: false,
            agent_ips: true,
        }
    }
}

/// A log of every decision: one line of JSON each, or OTLP log records. A change needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionLogFile {
    /// The file, appended to and opened again on SIGHUP; `-` is standard output. Default `null`:
    /// none.
    pub file: Option<String>,
    /// Whether decisions go to `otlp_endpoint` as log records, to whose URL `/v1/logs` is added.
    /// Default `false`.
    pub otlp: bool,
    /// What may wait for each output. Bytes. Default 8388608.
    #[schemars(range(min = 65_536, max = 1_073_741_824))]
    pub queue_bytes: u64,
    /// What becomes of a decision that there is no room for; each is counted and stands in the log
    /// as a gap. Default `drop_new`.
    pub when_full: WhenFullFile,
    /// The longest wait of `when_full: block`. Milliseconds. Default 100.
    #[schemars(range(min = 1, max = 1000))]
    pub block_ms: u64,
    /// The share of allows that are kept, from 0 to 1. Denies and operators' deeds are all kept.
    /// Default 1.
    #[schemars(range(min = 0, max = 1))]
    pub sample_allows: f64,
    /// Equal denies in one second that stand alone; those beyond become one line with their
    /// number. 0 lets all stand alone. Default 20.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub deny_burst: u32,
    /// Fields of the question that are written, such as `net.source_ip`. Default empty: none.
    #[schemars(length(max = 64))]
    pub context: Vec<String>,
}

impl Default for DecisionLogFile {
    fn default() -> Self {
        Self {
            file: None,
            otlp: false,
            queue_bytes: 8 << 20,
            when_full: WhenFullFile::default(),
            block_ms: 100,
            sample_allows: 1.0,
            deny_burst: 20,
            context: Vec::new(),
        }
    }
}

/// What becomes of what a full queue has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFullFile {
    /// It is dropped.
    #[default]
    DropNew,
    /// The oldest are dropped.
    DropOld,
    /// Whoever decides waits, at most `block_ms`.
    Block,
}

/// The API for operators.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminFile {
    /// The Unix socket, mode 0600; `""` is none. A change needs a restart. Default `null`:
    /// `$XDG_RUNTIME_DIR/nowconnect/admin.sock`, or `/run/nowconnect/admin.sock` without that
    /// variable.
    pub socket: Option<String>,
    /// A TCP address as well; needs `token_file`, or `tls` with `client_ca_file`, and `tls`
    /// beyond loopback. A change needs a restart. Default `null`.
    pub listen: Option<String>,
    /// A file with the bearer token for TCP, of at least 16 characters. Default `null`.
    pub token_file: Option<String>,
    /// TLS for TCP. Default `null`.
    pub tls: Option<AdminTlsFile>,
    /// `Host` values that are answered over TCP beside the address itself, against DNS rebinding.
    /// Default empty.
    #[schemars(length(max = 64))]
    pub allowed_hosts: Vec<String>,
}

/// TLS of the admin port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTlsFile {
    /// The chain as PEM, leaf first.
    pub cert_file: String,
    /// The leaf's private key as PEM.
    pub key_file: String,
    /// Roots for client certificates as PEM. Default `null`: none is asked for.
    #[serde(default)]
    pub client_ca_file: Option<String>,
}
