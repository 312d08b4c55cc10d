//! Between the plugin host and the hub's logs: the mask plugins of the generation in force cover
//! log records.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use nowconnect_plugins::{Hook, LogEntry, Masked};

use crate::generation::Generations;
use crate::telemetry::mask::{LogMasker, MaskFailure};

/// Masks log records with the plugins of whatever generation is in force.
#[derive(Debug)]
pub(crate) struct GenerationMasker(pub(crate) Arc<Generations>);

impl LogMasker for GenerationMasker {
    fn is_active(&self) -> bool {
        self.0.current().plugins().has(Hook::Mask)
    }

    fn mask<'a>(&'a self, batch: &'a mut [LogEntry]) -> BoxFuture<'a, Result<Masked, MaskFailure>> {
        let generation = self.0.current();
        Box::pin(async move { Ok(generation.plugins().mask(batch).await) })
    }
}
