//! Whether the store can be asked.

use std::sync::Arc;

/// Whether the store can be asked. Published by a `watch`; `/readyz` and the metrics show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers in time.
    Healthy,
    /// It does not, or may not be used. Calls fail at once, without waiting for it.
    Away {
        /// What was seen last.
        reason: Arc<str>,
    },
}

impl Health {
    pub(crate) fn away(reason: impl Into<Arc<str>>) -> Self {
        Self::Away {
            reason: reason.into(),
        }
    }

    /// Whether it answers.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy)
    }
}
