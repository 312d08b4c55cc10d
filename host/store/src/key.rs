//! Keys that sign tokens. More than one at a time, so that tokens outlive a change of keys.

use serde::{Deserialize, Serialize};

use crate::schema::KEYS;
use crate::{Store, StoreError};

/// A key with its private half.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// `kid` of the tokens that it signed.
    pub id: String,
    /// `alg` of the tokens that it signed.
    pub algorithm: String,
    /// The private half, in the form that the caller chose.
    pub private: String,
    /// When it was made.
    pub made_ms: u64,
    /// Until when it signs.
    pub signs_until_ms: u64,
    /// Until when its public half proves tokens.
    pub proves_until_ms: u64,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .field("signs_until_ms", &self.signs_until_ms)
            .field("proves_until_ms", &self.proves_until_ms)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Every key, in the order of their ids.
    ///
    /// # Errors
    /// The store failed.
    pub fn signing_keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        let mut keys = Vec::new();
        self.read(|transaction| {
            KEYS.each(transaction, None, |_, key: SigningKey| {
                keys.push(key);
                true
            })
        })?;
        Ok(keys)
    }

    /// Writes a new key and what changed of others, and takes away those of these ids, in one step.
    ///
    /// # Errors
    /// The store failed; then nothing has changed.
    pub fn put_signing_keys(
        &self,
        keys: &[SigningKey],
        without: &[String],
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = KEYS.open(transaction)?;
            for key in keys {
                table.put(&key.id, key)?;
            }
            for id in without {
                table.remove(id)?;
            }
            Ok(())
        })
    }
}
