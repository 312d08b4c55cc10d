//! What counts one time only: nonces of signed requests.

use redb::WriteTransaction;
use serde::{Deserialize, Serialize};

use crate::schema::{ONCE, ONCE_ENDS};
use crate::{Store, StoreError};

/// Entries whose time is over that go with each new one: more than come, so that they run out.
const FORGOTTEN_EACH: usize = 16;

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// A nonce of a signed request, together with who signed.
    Nonce,
}

impl Once {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Nonce => "nonce/",
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
            if ONCE.open(transaction)?.get::<Until>(&key)?.is_some() {
                // Also after its time: by then it is refused for that.
                return Ok(Used::Again);
            }
            forget(transaction, now_ms)?;
            let mut once = ONCE.open(transaction)?;
            if once.len()? >= limit {
                return Ok(Used::Full);
            }
            once.put(&key, &Until { ms: until_ms })?;
            ONCE_ENDS.open(transaction)?.ends(until_ms, &key)?;
            Ok(Used::First)
        })
    }
}

fn forget(transaction: &WriteTransaction, now_ms: u64) -> Result<(), StoreError> {
    let mut once = ONCE.open(transaction)?;
    for key in ONCE_ENDS.open(transaction)?.over(now_ms, FORGOTTEN_EACH)? {
        once.remove(&key)?;
    }
    Ok(())
}
