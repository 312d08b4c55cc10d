//! Text that must not be seen.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands in for a secret wherever it would be shown.
pub const HIDDEN: &str = "***";

/// A secret: its `Debug`, `Display` and serialised forms are `***`.
///
/// It reads from a configuration file as plain text, and [`expose`](Self::expose) is the only
/// way to it, so that a search for that word finds every use.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; it must reach neither a log, nor an error, nor a metric.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Gives the text away.
    #[must_use]
    pub fn into_exposed(self) -> String {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

/// Fewest characters of a shared secret in a file: 128 bits where they are random hexadecimal
/// digits.
const MIN_CHARACTERS: usize = 32;
/// Longest file with a secret.
const MAX_FILE_BYTES: u64 = 4096;

/// A shared secret from its file, without white space around it.
///
/// # Errors
/// Why there is none, as a sentence: it cannot be read, or is too long or too short to be one.
pub(crate) fn read_file(path: &Path) -> Result<Secret, String> {
    let length = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if length > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let secret = text.trim();
    if secret.chars().count() < MIN_CHARACTERS {
        return Err(format!(
            "it needs at least {MIN_CHARACTERS} characters, such as from `openssl rand -hex 32`"
        ));
    }
    Ok(Secret::new(secret))
}
