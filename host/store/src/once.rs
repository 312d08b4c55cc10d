//! What counts one time only: ids of single-use tokens, nonces of signed requests.

use serde::{Deserialize, Serialize};

use crate::schema::ONCE;
use crate::{Store, StoreError};

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// An ephemeral token, by its id.
    Token,
    /// A nonce of a signed request, together with who signed.
    Nonce,
    /// An endpoint that was deleted, by its id: nobody may have it again.
    Deleted,
}

impl Once {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Token => "token/",
            Self::Nonce => "nonce/",
            Self::Deleted => "deleted/",
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// This was the first time.
    First,
    /// It had been used before.
    Again,
    /// As many are remembered as may be, none of which may be forgotten yet: nothing can be
    /// said, so it does not count.
    Full,
}

#[derive(Serialize, Deserialize)]
struct Until {
    #[serde(rename = "u")]
    ms: u64,
}

impl Store {
    /// Whether something was used before, without using it.
    ///
    /// # Errors
    /// The store failed.
    pub fn was_used(&self, what: Once, id: &str) -> Result<bool, StoreError> {
        let key = format!("{}{id}", what.prefix());
        Ok(ONCE.get::<Until>(&self.read()?, &key)?.is_some())
    }

    /// Uses something up. It is remembered until `until_ms`, when it must count no longer by
    /// its own time; at most `limit` are remembered.
    ///
    /// # Errors
    /// The store failed; then nothing may be taken for used for the first time.
    pub fn use_once(
        &self,
        what: Once,
        id: &str,
        now_ms: u64,
        until_ms: u64,
        limit: u64,
    ) -> Result<Used, StoreError> {
        let key = format!("{}{id}", what.prefix());
        self.write(|transaction| {
            let mut once = ONCE.open(transaction)?;
            if once.get::<Until>(&key)?.is_some() {
                // Also after its time: by then it is refused for that.
                return Ok(Used::Again);
            }
            if once.len()? >= limit {
                let mut over = Vec::new();
                once.each(|key, until: Until| {
                    if until.ms <= now_ms {
                        over.push(key.to_owned());
                    }
                    true
                })?;
                for key in &over {
                    once.remove(key)?;
                }
                if over.is_empty() {
                    return Ok(Used::Full);
                }
            }
            once.put(&key, &Until { ms: until_ms })?;
            Ok(Used::First)
        })
    }
}
