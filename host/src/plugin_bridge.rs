//! Between the plugin host and the hub's telemetry: what plugins do is counted and logged, and
//! the mask plugins of the generation in force cover log records.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nowconnect_plugins::{
    CallReport, Dropped, Hook, Level, LogEntry, PluginLogLine, PluginObserver,
};
use tracing::{debug, error, info, trace, warn};

use crate::generation::Generations;
use crate::telemetry::events;
use crate::telemetry::mask::{Cover, LogMasker, Mask, MaskEntry, MaskFailure};
use crate::telemetry::metrics::Metrics;

/// Counts and logs what plugins do.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) metrics: Arc<Metrics>,
}

impl PluginObserver for Bridge {
    fn call_ended(&self, report: &CallReport<'_>) {
        let metrics = &self.metrics.plugins;
        metrics.called(
            report.plugin,
            report.hook.as_str(),
            report.outcome.as_str(),
            report.took,
        );
        if !report.instantiate.is_zero() {
            metrics.instantiated(report.plugin, report.instantiate);
            metrics.memory_used(report.plugin, report.memory_peak_bytes);
        }
        if !report.waited.is_zero() {
            metrics.waited(report.plugin, report.waited);
        }
        if let Some(detail) = report.detail {
            warn!(
                target: events::PLUGIN,
                plugin = report.plugin,
                hook = report.hook.as_str(),
                outcome = report.outcome.as_str(),
                request = report.request_id,
                detail,
                "a plugin did not answer"
            );
        }
    }

    fn log_line(&self, line: &PluginLogLine<'_>) {
        let fields = line
            .fields
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" ");
        macro_rules! say {
            ($at:ident) => {
                $at!(
                    target: events::PLUGIN,
                    event = events::PLUGIN_LOG,
                    plugin = line.plugin,
                    request = line.request_id,
                    fields,
                    "{}",
                    line.message
                )
            };
        }
        match line.level {
            Level::Trace => say!(trace),
            Level::Debug => say!(debug),
            Level::Info => say!(info),
            Level::Warn => say!(warn),
            Level::Error | Level::Critical => say!(error),
        }
    }

    fn dropped(&self, plugin: &str, what: Dropped, number: u64) {
        debug!(
            target: events::PLUGIN,
            plugin,
            what = what.as_str(),
            number,
            "what a plugin wrote was dropped"
        );
    }

    fn quarantine(&self, plugin: &str, quarantined: bool) {
        self.metrics.plugins.set_quarantined(plugin, quarantined);
        warn!(
            event = events::PLUGIN_QUARANTINE,
            plugin, quarantined, "a plugin's quarantine changed"
        );
    }
}

/// Masks log records with the plugins of whatever generation is in force.
#[derive(Debug)]
pub(crate) struct GenerationMasker(pub(crate) Arc<Generations>);

impl LogMasker for GenerationMasker {
    fn is_active(&self) -> bool {
        self.0.current().plugins().has(Hook::Mask)
    }

    fn mask<'a>(&'a self, batch: &'a [MaskEntry]) -> BoxFuture<'a, Result<Vec<Mask>, MaskFailure>> {
        async move {
            let generation = self.0.current();
            let mut entries: Vec<LogEntry> = batch.iter().map(log_entry).collect();
            let masked = generation.plugins().mask(&mut entries).await;
            if masked.erased_by_failure {
                return Err(MaskFailure {
                    reason: "a mask plugin failed".to_owned(),
                });
            }
            Ok(masks(batch, &entries))
        }
        .boxed()
    }
}

fn log_entry(entry: &MaskEntry) -> LogEntry {
    LogEntry {
        level: match entry.level {
            tracing::Level::TRACE => Level::Trace,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::INFO => Level::Info,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::ERROR => Level::Error,
        },
        target: entry.target.clone(),
        message: entry.message.clone(),
        fields: entry.fields.clone(),
    }
}

/// The plugin host covers values itself; the log wants to know which and how.
fn masks(before: &[MaskEntry], after: &[LogEntry]) -> Vec<Mask> {
    let mut masks = Vec::new();
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        let entry = u32::try_from(index).unwrap_or(u32::MAX);
        if before.message != after.message {
            masks.push(Mask {
                entry,
                field: None,
                cover: cover(&after.message),
            });
        }
        for ((name, value), (_, covered)) in before.fields.iter().zip(&after.fields) {
            if value != covered {
                masks.push(Mask {
                    entry,
                    field: Some(name.clone()),
                    cover: cover(covered),
                });
            }
        }
    }
    masks
}

/// Reads the plugin host's three forms of a covered value; what it does not know is erased.
fn cover(covered: &str) -> Cover {
    if covered.starts_with("hash:") {
        return Cover::Hash;
    }
    match covered.strip_prefix("***").map(|kept| kept.chars().count()) {
        Some(kept) if kept > 0 => u8::try_from(kept).map_or(Cover::Erase, Cover::KeepLast),
        Some(_) | None => Cover::Erase,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_covered_value_has_its_mask() {
        assert_eq!(cover("***"), Cover::Erase);
        assert_eq!(cover("hash:0011223344556677"), Cover::Hash);
        assert_eq!(cover("***1234"), Cover::KeepLast(4));
        assert_eq!(cover("anything else"), Cover::Erase);
    }

    #[test]
    fn only_what_was_covered_is_masked() {
        let before = [MaskEntry {
            level: tracing::Level::INFO,
            target: "t".to_owned(),
            message: "a client".to_owned(),
            fields: vec![
                ("user".to_owned(), "alice".to_owned()),
                ("port".to_owned(), "389".to_owned()),
            ],
        }];
        let mut after = vec![log_entry(&before[0])];
        assert!(masks(&before, &after).is_empty());
        after[0].fields[0].1 = "***".to_owned();
        assert_eq!(
            masks(&before, &after),
            [Mask {
                entry: 0,
                field: Some("user".to_owned()),
                cover: Cover::Erase
            }]
        );
    }
}
