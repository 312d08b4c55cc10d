//! Answers to requests that carry an idempotency key, so that a request sent again gets the same
//! answer and is not done again.

use redb::WriteTransaction;
use serde::{Deserialize, Serialize};

use crate::schema::{ANSWER_ENDS, ANSWERS};
use crate::{Store, StoreError};

/// Of a caller's answers, beyond its bound, one in so many goes: not one by one, since finding the
/// earliest reads all of them.
const EVICTED_SHARE: usize = 10;

/// What was answered.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// A digest of the request, so that the key cannot stand for another one.
    pub request: String,
    /// The HTTP status.
    pub status: u16,
    /// The body; it may hold tokens.
    pub body: String,
    /// When it is forgotten.
    pub until_ms: u64,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("until_ms", &self.until_ms)
            .finish_non_exhaustive()
    }
}

/// An answer with whose it is, to be remembered in one step with what it tells of.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// Keeps one caller's keys, and how many there may be, from another's.
    pub caller: String,
    /// The idempotency key.
    pub key: String,
    /// What was answered.
    pub answer: Answer,
    /// How many the caller may have; beyond it those go whose time ends first.
    pub limit: usize,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// Nothing: do it.
    Nothing,
    /// The same request was answered so.
    Same(Answer),
    /// The key was used for another request.
    Other,
}

#[derive(Deserialize)]
struct Until {
    until_ms: u64,
}

impl Store {
    /// Looks a key up. `caller` keeps one caller's keys from another's.
    ///
    /// # Errors
    /// The store failed.
    pub fn answer(
        &self,
        caller: &str,
        key: &str,
        request: &str,
        now_ms: u64,
    ) -> Result<Remembered, StoreError> {
        let key = format!("{}{key}", prefix(caller));
        let found: Option<Answer> = self.read(|transaction| ANSWERS.get(transaction, &key))?;
        Ok(match found.filter(|answer| answer.until_ms > now_ms) {
            None => Remembered::Nothing,
            Some(answer) if answer.request == request => Remembered::Same(answer),
            Some(_) => Remembered::Other,
        })
    }

    /// Forgets at most `most` answers whose time is over: they may hold tokens. Returns how many
    /// were looked at.
    ///
    /// # Errors
    /// The store failed.
    pub fn forget_answers(&self, now_ms: u64, most: usize) -> Result<usize, StoreError> {
        let none = self.read(|transaction| ANSWER_ENDS.none_over(transaction, now_ms))?;
        if none {
            return Ok(0);
        }
        self.write(|transaction| {
            let mut answers = ANSWERS.open(transaction)?;
            let over = ANSWER_ENDS.open(transaction)?.over(now_ms, most)?;
            for key in &over {
                let kept: Option<Until> = answers.get(key)?;
                if kept.is_some_and(|kept| kept.until_ms <= now_ms) {
                    answers.remove(key)?;
                }
            }
            Ok(over.len())
        })
    }
}

/// Within the change that it tells of.
pub(crate) fn remember(transaction: &WriteTransaction, keyed: &Keyed) -> Result<(), StoreError> {
    let prefix = prefix(&keyed.caller);
    let mut answers = ANSWERS.open(transaction)?;
    let mut kept: Vec<(u64, String)> = Vec::new();
    if answers.count_of(&prefix)? >= keyed.limit {
        answers.each_of(&prefix, |key, answer: Until| {
            kept.push((answer.until_ms, key.to_owned()));
            true
        })?;
        kept.sort_unstable();
        let over = keyed.limit.div_ceil(EVICTED_SHARE);
        for (_, key) in kept.iter().take(over) {
            answers.remove(key)?;
        }
    }
    let key = format!("{prefix}{}", keyed.key);
    answers.put(&key, &keyed.answer)?;
    let mut ends = ANSWER_ENDS.open(transaction)?;
    ends.ends(keyed.answer.until_ms, &key)
}

/// The length in front keeps `a` and `b/c` apart from `a/b` and `c`.
fn prefix(caller: &str) -> String {
    format!("{}:{caller}:", caller.len())
}
