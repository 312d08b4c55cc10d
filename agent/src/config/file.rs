//! The YAML file's own shape: every key optional, unknown keys refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::{DuplicateKeyPolicy, Error as YamlError, Location, Spanned};

use super::error::{ConfigError, ConfigProblem, nearest};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileConfig {
    pub(super) tunnel: Option<TunnelSection>,
    pub(super) targets: Option<BTreeMap<String, Spanned<TargetSection>>>,
    pub(super) limits: Option<LimitsSection>,
    pub(super) observability: Option<ObservabilitySection>,
    pub(super) proxy: Option<ProxySection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TunnelSection {
    pub(super) url: Option<Spanned<String>>,
    pub(super) agent_id: Option<Spanned<String>>,
    pub(super) tenant: Option<Spanned<String>>,
    pub(super) exported_connectors: Option<Vec<Spanned<String>>>,
    pub(super) auth: Option<AuthSection>,
    pub(super) labels: Option<BTreeMap<String, Spanned<String>>>,
    pub(super) role: Option<Spanned<String>>,
    pub(super) allow_plaintext: Option<bool>,
    pub(super) server_name: Option<Spanned<String>>,
    pub(super) ping_interval_sec: Option<Spanned<u64>>,
    pub(super) ping_timeout_sec: Option<Spanned<u64>>,
    pub(super) max_ws_payload: Option<Spanned<u64>>,
    pub(super) connect_timeout_ms: Option<Spanned<u64>>,
    pub(super) renew_before_sec: Option<Spanned<u64>>,
    pub(super) reconnect: Option<ReconnectSection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuthSection {
    pub(super) token_file: Option<Spanned<String>>,
    pub(super) oidc: Option<Spanned<OidcSection>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OidcSection {
    pub(super) issuer: Option<Spanned<String>>,
    pub(super) token_url: Option<Spanned<String>>,
    pub(super) client_id: Option<Spanned<String>>,
    pub(super) client_secret_file: Option<Spanned<String>>,
    pub(super) audience: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) scope: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReconnectSection {
    pub(super) base_ms: Option<Spanned<u64>>,
    pub(super) cap_ms: Option<Spanned<u64>>,
    pub(super) stable_after_sec: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TargetSection {
    pub(super) host: Option<Spanned<String>>,
    pub(super) port: Option<Spanned<u64>>,
    pub(super) unix: Option<Spanned<String>>,
    pub(super) tls: Option<TargetTlsSection>,
    pub(super) proxy_protocol: Option<Spanned<String>>,
    pub(super) connect_timeout_ms: Option<Spanned<u64>>,
    pub(super) idle_timeout_ms: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TargetTlsSection {
    pub(super) ca_bundle: Option<Spanned<String>>,
    pub(super) server_name: Option<Spanned<String>>,
    pub(super) alpn: Option<Vec<Spanned<String>>>,
    pub(super) cert_file: Option<Spanned<String>>,
    pub(super) key_file: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsSection {
    pub(super) idle_timeout_ms: Option<Spanned<u64>>,
    pub(super) stall_timeout_ms: Option<Spanned<u64>>,
    pub(super) connect_timeout_ms: Option<Spanned<u64>>,
    pub(super) queue_depth_per_cid: Option<Spanned<u64>>,
    pub(super) max_inflight_cids: Option<Spanned<u64>>,
    pub(super) shutdown_timeout_sec: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ObservabilitySection {
    pub(super) log_level: Option<Spanned<String>>,
    pub(super) log_format: Option<Spanned<String>>,
    pub(super) health_host: Option<Spanned<String>>,
    pub(super) health_port: Option<Spanned<u64>>,
    pub(super) otlp_endpoint: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ProxySection {
    pub(super) https_proxy: Option<Spanned<String>>,
    pub(super) no_proxy: Option<Spanned<HostList>>,
    pub(super) ca_bundle: Option<Spanned<String>>,
    pub(super) trust_env: Option<bool>,
}

/// `NO_PROXY` is known as one text with commas; a YAML list reads better. Both are taken.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum HostList {
    Text(String),
    List(Vec<String>),
}

impl HostList {
    pub(super) fn joined(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::List(hosts) => hosts.join(","),
        }
    }
}

pub(super) fn parse(text: &str, label: &str) -> Result<FileConfig, ConfigError> {
    if text.trim().is_empty() {
        return Ok(FileConfig::default());
    }
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options::<Option<FileConfig>>(text, options)
        .map(Option::unwrap_or_default)
        .map_err(|error| ConfigError::one(explain(&error, text, label)))
}

/// A YAML error in the project's words, with the key and the unit that its line names.
fn explain(error: &YamlError, text: &str, label: &str) -> ConfigProblem {
    let error = error.without_snippet();
    let position = error.location().and_then(known);
    let message = if let YamlError::SerdeUnknownField {
        field, expected, ..
    } = error
    {
        unknown_key(field, expected)
    } else {
        let plain = first_line(&error.to_string());
        match position.and_then(|(line, _)| key_on_line(text, line)) {
            Some(key) => match unit_of(key) {
                Some(unit) => format!("`{key}` must be {unit} ({plain})"),
                None => format!("`{key}`: {plain}"),
            },
            None => plain,
        }
    };
    ConfigProblem {
        source: label.to_owned(),
        position,
        message,
    }
}

pub(super) fn known(location: Location) -> Option<(u64, u64)> {
    (location != Location::UNKNOWN).then(|| (location.line(), location.column()))
}

fn unknown_key(field: &str, expected: &[&'static str]) -> String {
    let known = expected.join(", ");
    match nearest(field, expected.iter().copied()) {
        Some(near) => match unit_of(near).filter(|_| unit_of(field) != unit_of(near)) {
            Some(unit) => {
                format!(
                    "unknown key `{field}`; did you mean `{near}`, {unit}? (known here: {known})"
                )
            }
            None => format!("unknown key `{field}`; did you mean `{near}`? (known here: {known})"),
        },
        None => format!("unknown key `{field}` (known here: {known})"),
    }
}

/// What a number means, told by its key's last word.
pub(super) fn unit_of(key: &str) -> Option<&'static str> {
    if key.ends_with("_ms") {
        Some("a whole number of milliseconds")
    } else if key.ends_with("_sec") {
        Some("a whole number of seconds")
    } else if key == "port" || key.ends_with("_port") {
        Some("a port number from 1 to 65535")
    } else if key == "max_ws_payload" {
        Some("a whole number of bytes")
    } else {
        None
    }
}

fn key_on_line(text: &str, line: u64) -> Option<&str> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let (key, _) = text.lines().nth(index)?.split_once(':')?;
    let key = key
        .trim()
        .trim_start_matches("- ")
        .trim_matches(['"', '\'']);
    let wordy = |char: char| char.is_ascii_alphanumeric() || "_-.".contains(char);
    (!key.is_empty() && key.chars().all(wordy)).then_some(key)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
