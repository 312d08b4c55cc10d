//! Names that cross the wire: parsed once, bounded in length and alphabet, cheap to clone.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a {kind} must not be empty")]
    Empty {
        /// What was being parsed.
        kind: &'static str,
    },
    /// The text is longer than the kind allows.
    #[error("a {kind} has at most {max_bytes} bytes, this one has {bytes}")]
    TooLong {
        /// What was being parsed.
        kind: &'static str,
        /// Length found, in bytes.
        bytes: usize,
        /// Length allowed, in bytes.
        max_bytes: usize,
    },
    /// The text holds a character outside `A-Z a-z 0-9 . _ -`.
    #[error("`{found}` is not allowed in a {kind}: use letters, digits, `.`, `_` and `-`")]
    Character {
        /// What was being parsed.
        kind: &'static str,
        /// The first offending character.
        found: char,
    },
}

fn check(kind: &'static str, text: &str, max_bytes: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if text.len() > max_bytes {
        return Err(NameError::TooLong {
            kind,
            bytes: text.len(),
            max_bytes,
        });
    }
    match text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        Some(found) => Err(NameError::Character { kind, found }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest name of this kind, in bytes.
            pub const MAX_BYTES: usize = $max;

            /// Checks `text` and makes a name of it.
            ///
            /// # Errors
            ///
            /// [`NameError`] when the text is empty, too long or holds a character outside
            /// `A-Z a-z 0-9 . _ -`.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check($kind, text, Self::MAX_BYTES)?;
                Ok(Self(Arc::from(text)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// Names an agent within its tenant. At most 128 bytes.
    AgentId, "agent id", 128
);
name!(
    /// Names a connector within its tenant. At most 64 bytes.
    ConnectorName, "connector name", 64
);
name!(
    /// Names a hub of a cluster. At most 64 bytes.
    ReplicaId, "replica id", 64
);
name!(
    /// Names a tenant. At most 64 bytes.
    TenantName, "tenant name", 64
);

impl Default for TenantName {
    /// The tenant of a hub that has no others; it is shown bare.
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

impl TenantName {
    /// Whether this is the tenant whose names are shown without a prefix.
    #[must_use]
    pub fn is_default(&self) -> bool {
        &*self.0 == "default"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_documented_alphabet() {
        assert!(ConnectorName::parse("ldaps_dc1.corp-local").is_ok());
    }

    #[test]
    fn refuses_what_could_be_read_as_something_else() {
        for text in ["", "a/b", "a b", "ä", "a\n", "a\0"] {
            assert!(AgentId::parse(text).is_err(), "`{text:?}` was accepted");
        }
    }

    #[test]
    fn refuses_a_name_one_byte_too_long() {
        assert!(ConnectorName::parse(&"x".repeat(64)).is_ok());
        assert_eq!(
            ConnectorName::parse(&"x".repeat(65)),
            Err(NameError::TooLong {
                kind: "connector name",
                bytes: 65,
                max_bytes: 64
            })
        );
    }
}
