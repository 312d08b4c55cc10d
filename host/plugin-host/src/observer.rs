//! What the plugin host tells the hub's telemetry.

use std::time::Duration;

use crate::facts::Level;
use crate::hook::{CallOutcome, Hook};

/// Receives what happens to plugins. Called on the path of traffic: implementations count and
/// return, they do not wait. Label values are bounded by the configured plugins.
pub trait PluginObserver: Send + Sync + 'static {
    /// A call ended, or was shed before it began.
    fn call_ended(&self, report: &CallReport<'_>) {
        let _ = report;
    }

    /// A plugin wrote a log line; it is bounded and escaped, not yet masked.
    fn log_line(&self, line: &PluginLogLine<'_>) {
        let _ = line;
    }

    /// Log lines or metric samples of a plugin were dropped because they were over a bound.
    fn dropped(&self, plugin: &str, what: Dropped, number: u64) {
        let _ = (plugin, what, number);
    }

    /// A plugin counted something; name and labels are within their bounds.
    fn count(&self, plugin: &str, name: &str, delta: u64, labels: &[(String, String)]) {
        let _ = (plugin, name, delta, labels);
    }

    /// A plugin measured something; name and labels are within their bounds.
    fn observe(&self, plugin: &str, name: &str, value: f64, labels: &[(String, String)]) {
        let _ = (plugin, name, value, labels);
    }

    /// A plugin sent a request, or tried to; `outcome` is `ok` or a code of `fetch`.
    fn fetched(&self, plugin: &str, outcome: &'static str, took: Duration) {
        let _ = (plugin, outcome, took);
    }

    /// A plugin entered or left quarantine.
    fn quarantine(&self, plugin: &str, quarantined: bool) {
        let _ = (plugin, quarantined);
    }
}

/// An observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl PluginObserver for NoObserver {}

/// How one call went.
#[derive(Clone, Copy, Debug)]
pub struct CallReport<'a> {
    /// The plugin's name in the configuration.
    pub plugin: &'a str,
    /// Digest of its component, 64 hex digits.
    pub digest: &'a str,
    /// Which hook was called.
    pub hook: Hook,
    /// How it ended.
    pub outcome: CallOutcome,
    /// The answer was recorded and not acted on.
    pub shadow: bool,
    /// Correlates with the decision record.
    pub request_id: &'a str,
    /// From asking for a slot to the answer.
    pub took: Duration,
    /// The part spent making the instance; zero where none was made.
    pub instantiate: Duration,
    /// The part spent waiting for a free slot.
    pub waited: Duration,
    /// Largest size of the guest's memory in bytes; 0 where no instance was made.
    pub memory_peak_bytes: u64,
    /// Why it did not answer; for the log only.
    pub detail: Option<&'a str>,
}

/// A log line of a plugin.
#[derive(Clone, Copy, Debug)]
pub struct PluginLogLine<'a> {
    /// Who wrote it.
    pub plugin: &'a str,
    /// The call in which it was written; empty while the plugin is being loaded.
    pub request_id: &'a str,
    /// Severity that the plugin gave.
    pub level: Level,
    /// At most 1 KiB, control characters escaped.
    pub message: &'a str,
    /// At most 16, together at most 1 KiB, control characters escaped.
    pub fields: &'a [(String, String)],
}

/// What was dropped over a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// Log lines over the number per call or per second.
    LogLines,
    /// Metric samples with a bad name, too many labels or too many series.
    MetricSamples,
    /// Signals that the grant does not name.
    Signals,
}

impl Dropped {
    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LogLines => "log_lines",
            Self::MetricSamples => "metric_samples",
            Self::Signals => "signals",
        }
    }
}
