//! The YAML file: its shape, how it is read, and what is said of one that does not have it.

mod sections;

use serde_saphyr::{DuplicateKeyPolicy, Error as YamlError, Location};

use super::error::{ConfigError, ConfigProblem, nearest};

pub(super) use self::sections::{
    AuthSection, FileConfig, LimitsSection, ObservabilitySection, OidcSection, ProxySection,
    PublishSection, ServiceSection, TargetSection, TargetTlsSection, TunnelSection,
};

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
