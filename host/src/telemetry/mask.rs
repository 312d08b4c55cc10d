//! Masking of log records beyond the floor: the seam to the mask plugins.
//!
//! A masker gets records in batches after the floor and covers values in place. It can only take
//! away: names of fields stay as they are, and an answer that adds any, or none at all in time,
//! is a failure, on which the values of the whole batch are dropped.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use nowconnect_plugins::{Hook, LogEntry, Masked, PluginSet};

/// Records in one batch for a masker.
pub const MAX_MASK_BATCH: usize = 256;

/// Masks log records. Implemented over the mask plugins of the generation in force.
pub trait LogMasker: Send + Sync + 'static {
    /// Whether there is anything to ask; a cheap test before a batch is prepared.
    fn is_active(&self) -> bool {
        true
    }

    /// Covers values of the batch in place. An error drops the values of the whole batch.
    fn mask<'a>(&'a self, batch: &'a mut [LogEntry]) -> BoxFuture<'a, Result<Masked, MaskFailure>>;
}

/// The masker has no valid answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("masking failed: {reason}")]
pub struct MaskFailure {
    /// For the log; must not quote what was to be masked.
    pub reason: String,
}

/// Masks with the plugins that `current` gives: those of the generation in force.
pub struct PluginMasker<F> {
    current: F,
}

impl<F: Fn() -> Arc<PluginSet> + Send + Sync + 'static> PluginMasker<F> {
    /// `current` is called once a batch, from the log writer's thread.
    pub const fn new(current: F) -> Self {
        Self { current }
    }
}

impl<F> std::fmt::Debug for PluginMasker<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PluginMasker(..)")
    }
}

impl<F: Fn() -> Arc<PluginSet> + Send + Sync + 'static> LogMasker for PluginMasker<F> {
    fn is_active(&self) -> bool {
        (self.current)().has(Hook::Mask)
    }

    fn mask<'a>(&'a self, batch: &'a mut [LogEntry]) -> BoxFuture<'a, Result<Masked, MaskFailure>> {
        let plugins = (self.current)();
        Box::pin(async move { Ok(plugins.mask(batch).await) })
    }
}
