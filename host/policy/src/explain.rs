//! Why a decision came out as it did, and what would have turned it.

use std::fmt;

use serde::Serialize;

use crate::Decision;

/// Why a decision came out as it did. Its `Display` is the text for a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
}

impl fmt::Display for Explanation {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
