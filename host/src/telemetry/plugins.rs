//! What the plugin host reports, as metrics and log records.

use std::sync::Arc;
use std::time::Duration;

use nowconnect_plugins::{CallOutcome, CallReport, Dropped, Level, PluginLogLine, PluginObserver};
use tracing::{debug, error, info, trace, warn};

use super::events;
use super::metrics::Metrics;
use super::traces;

/// Give it to the plugin engine.
#[derive(Debug, Clone)]
pub struct PluginTelemetry {
    metrics: Arc<Metrics>,
}

impl PluginTelemetry {
    /// Reports to these metrics and to the log.
    pub const fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl PluginObserver for PluginTelemetry {
    fn call_ended(&self, report: &CallReport<'_>) {
        let plugins = &self.metrics.plugins;
        let (plugin, hook, outcome) = (report.plugin, report.hook.as_str(), report.outcome);
        plugins.called(plugin, hook, outcome.as_str(), report.took);
        if report.shadow && outcome == CallOutcome::Deny {
            plugins.would_deny(plugin, hook);
        }
        traces::plugin_called(plugin, hook, outcome.as_str(), report.took);
        if !report.instantiate.is_zero() {
            plugins.instantiated(plugin, report.instantiate);
        }
        plugins.waited(plugin, report.waited);
        if report.memory_peak_bytes > 0 {
            plugins.memory_used(plugin, report.memory_peak_bytes);
        }
        let is_fault = match outcome {
            CallOutcome::Ok | CallOutcome::Deny => false,
            CallOutcome::Error
            | CallOutcome::Trap
            | CallOutcome::Timeout
            | CallOutcome::Oom
            | CallOutcome::Shed
            | CallOutcome::BadOutput => true,
        };
        if is_fault {
            warn!(
                plugin,
                hook,
                outcome = outcome.as_str(),
                request_id = report.request_id,
                detail = report.detail.unwrap_or_default(),
                "a plugin did not answer"
            );
        }
    }

    fn log_line(&self, line: &PluginLogLine<'_>) {
        let fields = joined(line.fields);
        let (plugin, request_id, message) = (line.plugin, line.request_id, line.message);
        macro_rules! write_line {
            ($write:ident) => {
                $write!(
                    target: events::PLUGIN,
                    event = events::PLUGIN_LOG,
                    plugin,
                    request_id,
                    fields,
                    "{message}"
                )
            };
        }
        match line.level {
            Level::Trace => write_line!(trace),
            Level::Debug => write_line!(debug),
            Level::Info => write_line!(info),
            Level::Warn => write_line!(warn),
            Level::Error | Level::Critical => write_line!(error),
        }
    }

    fn dropped(&self, plugin: &str, what: Dropped, number: u64) {
        self.metrics.plugins.dropped(plugin, what.as_str(), number);
    }

    fn count(&self, plugin: &str, name: &str, delta: u64, labels: &[(String, String)]) {
        self.metrics.plugins.own_count(plugin, name, delta, labels);
    }

    fn observe(&self, plugin: &str, name: &str, value: f64, labels: &[(String, String)]) {
        self.metrics.plugins.own_value(plugin, name, value, labels);
    }

    fn fetched(&self, plugin: &str, outcome: &'static str, took: Duration) {
        self.metrics.plugins.fetched(plugin, outcome, took);
    }

    fn quarantine(&self, plugin: &str, quarantined: bool) {
        self.metrics.plugins.set_quarantined(plugin, quarantined);
        if quarantined {
            error!(
                target: events::SECURITY,
                event = events::PLUGIN_QUARANTINE,
                plugin,
                "a plugin failed too often and is not called"
            );
        } else {
            info!(
                target: events::SECURITY,
                event = events::PLUGIN_QUARANTINE,
                plugin,
                "a plugin is called again"
            );
        }
    }
}

/// Fields as `name=value`, each value where it has a sensitive name erased: joined, the floor
/// would take a value with spaces for several words.
fn joined(fields: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(name);
        text.push('=');
        if super::redact::is_sensitive_key(name) {
            text.push_str(super::redact::ERASED);
        } else {
            text.push_str(&super::redact::floor(value));
        }
    }
    text
}
