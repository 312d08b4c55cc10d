//! An observer that remembers one call, and a key-value table that can be looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::answer::bytes;
use super::case::Case;
use crate::facts::Level;
use crate::hook::{CallOutcome, Hook};
use crate::kv::{KvError, KvStore, MemoryKv, MemoryKvSettings, Namespace, TTL_SECONDS_MAX};
use crate::observer::{CallReport, Dropped, PluginLogLine, PluginObserver};
use crate::spec::ALL_TENANTS;

/// Log lines and samples that are remembered of one call; a batch of several calls may have
/// more, which nobody reads.
const LINES_KEPT_MAX: usize = 256;

/// What the host told about the last call.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// How it ended; `None` where nothing was called.
    pub outcome: Option<CallOutcome>,
    /// Why it did not answer.
    pub detail: Option<String>,
    /// From asking for a slot to the answer, the instance included.
    pub took: Duration,
    /// The part spent making the instance.
    pub instantiate: Duration,
    /// Largest size of the guest's memory in bytes.
    pub memory_peak_bytes: u64,
    /// Lines of the plugin's log, as `level message name=value …`.
    pub log: Vec<String>,
    /// What was over a bound: what, and how many.
    pub dropped: Vec<(&'static str, u64)>,
    /// Its own metrics, as `name{label="value"} number`.
    pub metrics: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Recorder {
    last: Mutex<Recorded>,
}

impl Recorder {
    pub(super) fn start_anew(&self) {
        *self.last.lock() = Recorded::default();
    }

    pub(super) fn take(&self) -> Recorded {
        std::mem::take(&mut self.last.lock())
    }
}

impl PluginObserver for Recorder {
    fn call_ended(&self, report: &CallReport<'_>) {
        let mut last = self.last.lock();
        last.outcome = Some(report.outcome);
        last.detail = report.detail.map(str::to_owned);
        last.took = report.took;
        last.instantiate = report.instantiate;
        last.memory_peak_bytes = report.memory_peak_bytes;
    }

    fn log_line(&self, line: &PluginLogLine<'_>) {
        let level = match line.level {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Critical => "critical",
        };
        let mut text = format!("{level} {}", line.message);
        for (name, value) in line.fields {
            text += &format!(" {name}={value}");
        }
        keep(&mut self.last.lock().log, text);
    }

    fn dropped(&self, _: &str, what: Dropped, number: u64) {
        self.last.lock().dropped.push((what.as_str(), number));
    }

    fn count(&self, _: &str, name: &str, delta: u64, labels: &[(String, String)]) {
        let text = format!("{name}{} {delta}", shown(labels));
        keep(&mut self.last.lock().metrics, text);
    }

    fn observe(&self, _: &str, name: &str, value: f64, labels: &[(String, String)]) {
        let text = format!("{name}{} {value}", shown(labels));
        keep(&mut self.last.lock().metrics, text);
    }
}

fn keep(lines: &mut Vec<String>, line: String) {
    if lines.len() < LINES_KEPT_MAX {
        lines.push(line);
    }
}

/// As Prometheus writes them.
fn shown(labels: &[(String, String)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    format!("{{{}}}", labels.join(","))
}

/// The hub's own store in memory, made anew for each case, with the keys that were named.
#[derive(Debug, Default)]
pub(super) struct WorkbenchKv {
    now: Mutex<Table>,
}

#[derive(Clone, Debug)]
struct Table {
    store: Arc<MemoryKv>,
    keys: BTreeSet<String>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            store: Arc::new(MemoryKv::new(MemoryKvSettings::default())),
            keys: BTreeSet::new(),
        }
    }
}

impl WorkbenchKv {
    pub(super) fn start_anew(&self) {
        *self.now.lock() = Table::default();
    }

    /// Puts in what a case says is there before the call: a number is a counter.
    pub(super) fn fill(&self, plugin: &Arc<str>, case: &Case) {
        let namespace = namespace(plugin, case);
        for (key, value) in &case.kv {
            let put = match (value.as_i64(), value.as_str()) {
                (Some(count), _) => self
                    .increment(&namespace, key, count, TTL_SECONDS_MAX, u64::MAX)
                    .map(drop),
                (None, Some(text)) => {
                    self.set(&namespace, key, text.as_bytes(), TTL_SECONDS_MAX, u64::MAX)
                }
                (None, None) => {
                    let text = value.to_string();
                    self.set(&namespace, key, text.as_bytes(), TTL_SECONDS_MAX, u64::MAX)
                }
            };
            // What does not fit is not there, as in a hub whose table is full.
            let _ = put;
        }
    }

    pub(super) fn entries(&self, plugin: &Arc<str>, case: &Case) -> BTreeMap<String, Value> {
        let namespace = namespace(plugin, case);
        let Table { store, keys } = self.now.lock().clone();
        keys.into_iter()
            .filter_map(|key| {
                let value = store.get(&namespace, &key).ok().flatten()?;
                Some((key, shown_value(&value)))
            })
            .collect()
    }

    fn named(&self, key: &str) -> Arc<MemoryKv> {
        let mut table = self.now.lock();
        if !table.keys.contains(key) {
            table.keys.insert(key.to_owned());
        }
        Arc::clone(&table.store)
    }
}

/// A counter and a text of digits look the same from outside, so both are shown as a number.
fn shown_value(value: &[u8]) -> Value {
    let number = std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse::<i64>().ok());
    number.map_or_else(|| bytes(value), Value::from)
}

/// The one in which the host makes the call.
fn namespace(plugin: &Arc<str>, case: &Case) -> Namespace {
    let tenant = if case.question.hook() == Hook::Mask {
        ALL_TENANTS
    } else {
        case.call.tenant.as_deref().unwrap_or_default()
    };
    Namespace {
        plugin: Arc::clone(plugin),
        tenant: tenant.into(),
        shadow: false,
    }
}

impl KvStore for WorkbenchKv {
    fn get(&self, namespace: &Namespace, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        self.named(key).get(namespace, key)
    }

    fn set(
        &self,
        namespace: &Namespace,
        key: &str,
        value: &[u8],
        ttl_seconds: u32,
        quota_bytes: u64,
    ) -> Result<(), KvError> {
        self.named(key)
            .set(namespace, key, value, ttl_seconds, quota_bytes)
    }

    fn delete(&self, namespace: &Namespace, key: &str) -> Result<(), KvError> {
        self.named(key).delete(namespace, key)
    }

    fn increment(
        &self,
        namespace: &Namespace,
        key: &str,
        delta: i64,
        ttl_seconds: u32,
        quota_bytes: u64,
    ) -> Result<i64, KvError> {
        self.named(key)
            .increment(namespace, key, delta, ttl_seconds, quota_bytes)
    }
}
