//! Masking of log records beyond the floor: the seam to the mask plugins, and what a mask does.
//!
//! A masker sees records in batches after the floor, and can only take away: it names fields to
//! erase, to replace by a keyed hash, or to keep the last characters of. An answer that names
//! what is not there, or none at all, is a failure, and then the values of the whole batch are
//! dropped.

use std::fmt::Write as _;

use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};

use super::redact::ERASED;

/// Records in one batch for a masker.
pub const MAX_MASK_BATCH: usize = 256;

/// Masks in one answer: each field of each record at most once, with room for a few rules
/// that hit the same field.
pub const MAX_MASKS: usize = MAX_MASK_BATCH * 64;

/// Masks log records. Implemented over the mask plugins of the generation in force.
pub trait LogMasker: Send + Sync + 'static {
    /// Whether there is anything to ask; a cheap test before a batch is prepared.
    fn is_active(&self) -> bool {
        true
    }

    /// The masks for a batch. An error drops the values of the whole batch.
    fn mask<'a>(&'a self, batch: &'a [MaskEntry]) -> BoxFuture<'a, Result<Vec<Mask>, MaskFailure>>;
}

/// One record as a masker sees it, after the floor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskEntry {
    /// How important it is.
    pub level: tracing::Level,
    /// The module that wrote it.
    pub target: String,
    /// Its message.
    pub message: String,
    /// Its fields, values as text.
    pub fields: Vec<(String, String)>,
}

/// What to take away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Position of the record in the batch.
    pub entry: u32,
    /// The field's name; `None` is the message.
    pub field: Option<String>,
    /// What shows instead.
    pub cover: Cover,
}

/// What shows instead of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// Nothing but a mark.
    Erase,
    /// A hash under a key of this process: equal values show equal, and cannot be found back.
    Hash,
    /// The last characters.
    KeepLast(u8),
}

/// The masker has no valid answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("masking failed: {reason}")]
pub struct MaskFailure {
    /// For the log; must not quote what was to be masked.
    pub reason: String,
}

/// The key of [`Cover::Hash`], new in each process.
#[derive(Clone)]
pub(crate) struct HashKey([u8; 32]);

impl HashKey {
    /// A random key; where the system has no randomness, [`Cover::Hash`] erases.
    pub(crate) fn random() -> Option<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).ok()?;
        Some(Self(key))
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(***)")
    }
}

impl Cover {
    /// `value` covered.
    pub(crate) fn apply(self, key: Option<&HashKey>, value: &str) -> String {
        match self {
            Self::Erase => String::from(ERASED),
            Self::Hash => key.map_or_else(|| String::from(ERASED), |key| hashed(key, value)),
            Self::KeepLast(count) => {
                let characters = value.chars().count();
                let hidden = characters.saturating_sub(usize::from(count));
                if hidden == 0 && characters > 0 {
                    // A value no longer than what may show would show whole.
                    return String::from(ERASED);
                }
                let kept: String = value.chars().skip(hidden).collect();
                format!("{ERASED}{kept}")
            }
        }
    }
}

/// Sixteen hexadecimal digits: enough to tell values apart in a log.
fn hashed(key: &HashKey, value: &str) -> String {
    const SHOWN_BYTES: usize = 8;
    let mut hash = Sha256::new();
    hash.update(key.0);
    hash.update(value.as_bytes());
    let mut text = String::from("#");
    for byte in &hash.finalize()[..SHOWN_BYTES] {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_hash_alike_under_one_key_only() {
        let (one, two) = (HashKey([1; 32]), HashKey([2; 32]));
        let hash = |key, value| Cover::Hash.apply(Some(key), value);
        assert_eq!(hash(&one, "alice"), hash(&one, "alice"));
        assert_ne!(hash(&one, "alice"), hash(&one, "bob"));
        assert_ne!(hash(&one, "alice"), hash(&two, "alice"));
        assert!(!hash(&one, "alice").contains("alice"));
    }

    #[test]
    fn a_mask_never_shows_the_whole_value() {
        assert_eq!(
            Cover::KeepLast(4).apply(None, "4111111111111111"),
            "***1111"
        );
        assert_eq!(Cover::KeepLast(4).apply(None, "1111"), ERASED);
        assert_eq!(Cover::KeepLast(1).apply(None, "aé"), "***é");
        assert_eq!(Cover::Erase.apply(None, "x"), ERASED);
        assert_eq!(Cover::Hash.apply(None, "x"), ERASED);
    }
}
