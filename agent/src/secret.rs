//! Text that must never be shown: tokens, client secrets, proxy passwords.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer};

/// A file with a secret is at most this long.
const FILE_BYTES_MAX: u64 = 4_096;

/// A secret string. Neither `Debug` nor any log line shows it; reading it takes an explicit
/// [`expose`](Self::expose).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that must send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// The secret in a file, without white space around it. The error says why there is none.
pub(crate) fn read_file(path: &Path) -> Result<Secret, String> {
    let length = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if length > FILE_BYTES_MAX {
        return Err(format!(
            "it is {length} bytes long; at most {FILE_BYTES_MAX} are read"
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(Secret::new(text.trim()))
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_text() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(***)");
    }
}
