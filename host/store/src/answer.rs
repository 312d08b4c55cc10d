//! Answers to requests that carry an idempotency key, so that a request sent again gets the same
//! answer and is not done again.

use serde::{Deserialize, Serialize};

use crate::schema::ANSWERS;
use crate::{Store, StoreError};

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
        let found: Option<Answer> = ANSWERS.get(&self.read()?, &entry(caller, key))?;
        Ok(match found.filter(|answer| answer.until_ms > now_ms) {
            None => Remembered::Nothing,
            Some(answer) if answer.request == request => Remembered::Same(answer),
            Some(_) => Remembered::Other,
        })
    }

    /// Remembers an answer. At most `limit` are kept; beyond that those go whose time ends first.
    ///
    /// # Errors
    /// The store failed.
    pub fn remember_answer(
        &self,
        caller: &str,
        key: &str,
        answer: &Answer,
        now_ms: u64,
        limit: u64,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut answers = ANSWERS.open(transaction)?;
            if answers.len()? >= limit {
                let mut kept: Vec<(u64, String)> = Vec::new();
                answers.each(|key, answer: Answer| {
                    kept.push((answer.until_ms, key.to_owned()));
                    true
                })?;
                kept.sort_unstable();
                let over = kept
                    .iter()
                    .take_while(|(until, _)| *until <= now_ms)
                    .count();
                for (_, key) in kept.iter().take(over.max(1)) {
                    answers.remove(key)?;
                }
            }
            answers.put(&entry(caller, key), answer)
        })
    }
}

/// The length in front keeps `a` and `b/c` apart from `a/b` and `c`.
fn entry(caller: &str, key: &str) -> String {
    format!("{}:{caller}:{key}", caller.len())
}
