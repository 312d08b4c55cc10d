//! The external decision point, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An external decision point. It is asked what the Cedar policies have allowed, before the
/// plugins that gate, and can only take away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PdpFile {
    /// Where it answers: for `authzen` the base URL, which is its identifier; for `simple` the
    /// whole URL. Plain `http` only to this machine. Default `""`: nobody is asked.
    pub url: String,
    /// What it speaks. Default `authzen`.
    pub kind: PdpKindFile,
    /// Whether its endpoints are read from `/.well-known/authzen-configuration`, whose identifier
    /// must be `url`. Default `false`: the usual paths below `url`.
    pub discovery: bool,
    /// A file with the bearer token for it. Default `null`: none is sent.
    pub token_file: Option<String>,
    /// Roots for its certificate as PEM, beside those of the system. Default `null`.
    pub ca_bundle: Option<String>,
    /// How long an allow is kept for the same question under the same generation; denies are
    /// never kept. Seconds. Default 5.
    #[schemars(range(min = 0, max = 5))]
    pub cache_ttl_sec: u64,
    /// Allows that are kept. Default 4096.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub cache_entries: u32,
    /// The bound of one question, name lookup and body included. Milliseconds. Default 500.
    #[schemars(range(min = 1, max = 60_000))]
    pub timeout_ms: u64,
    /// Whether trouble with it allows what the policies allow. Default `false`.
    pub fail_open: bool,
    /// What trouble with it does where `fail_open` is `false`. Default `deny`.
    pub on_error: PdpOnErrorFile,
    /// How old an allow of the same question may be for `on_error: allow_if_cached`. Seconds.
    /// Default 60.
    #[schemars(range(min = 1, max = 3600))]
    pub stale_ttl_sec: u64,
    /// What a re-check of a running flow asks of it. Default `keep_on_error`.
    pub recheck: PdpRecheckFile,
    /// The largest answer that is read. Bytes. Default 65536.
    #[schemars(range(min = 256, max = 16_777_216))]
    pub max_response_bytes: u64,
    /// Questions under way at once; more wait within `timeout_ms`. Default 64.
    #[schemars(range(min = 1, max = 4096))]
    pub max_concurrent: u32,
    /// Failures in a row after which it is not asked for `breaker_pause_ms`; then one question
    /// tries it. Default 5.
    #[schemars(range(min = 1, max = 1000))]
    pub breaker_failures: u32,
    /// Milliseconds. Default 1000.
    #[schemars(range(min = 10, max = 600_000))]
    pub breaker_pause_ms: u64,
    /// Put into `properties` of every `authzen` subject, such as the roles that a decision point
    /// wants. Default `{}`.
    pub subject_properties: serde_json::Map<String, serde_json::Value>,
    /// Keys in the `context` of an allow that may be ignored. Any other that the hub does not know
    /// is taken for an obligation that it cannot meet, and denies. Default empty.
    #[schemars(length(max = 64))]
    pub ignore_context: Vec<String>,
}

impl Default for PdpFile {
    fn default() -> Self {
        Self {
            url: String::new(),
            kind: PdpKindFile::default(),
            discovery: false,
            token_file: None,
            ca_bundle: None,
            cache_ttl_sec: 5,
            cache_entries: 4096,
            timeout_ms: 500,
            fail_open: false,
            on_error: PdpOnErrorFile::default(),
            stale_ttl_sec: 60,
            recheck: PdpRecheckFile::default(),
            max_response_bytes: 64 << 10,
            max_concurrent: 64,
            breaker_failures: 5,
            breaker_pause_ms: 1000,
            subject_properties: serde_json::Map::new(),
            ignore_context: Vec::new(),
        }
    }
}

/// What a decision point speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PdpKindFile {
    /// OpenID AuthZEN 1.0: evaluation for opens, evaluations for a HELLO with its connectors.
    #[default]
    Authzen,
    /// One POST for each open, answered by `{allow, ttl_sec}`.
    Simple,
}

/// What trouble with a decision point does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PdpOnErrorFile {
    /// It denies.
    #[default]
    Deny,
    /// It denies, unless the same question was allowed less than `stale_ttl_sec` ago.
    AllowIfCached,
}

/// What a re-check of a running flow asks of a decision point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PdpRecheckFile {
    /// Nothing.
    Off,
    /// It is asked; a deny counts, trouble with it leaves the flow until it is asked again.
    #[default]
    KeepOnError,
    /// It is asked; trouble with it counts as it does for a new flow.
    CloseOnError,
}
