//! One plugin, ready to be called.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmtime::component::{InstancePre, Linker};

use crate::breaker::Breaker;
use crate::component::{Compiled, check_grants, quoted, read_bounded};
use crate::engine::{EngineInner, TABLE_ELEMENTS_MAX};
use crate::error::LoadProblem;
use crate::fetch::FETCHES_PER_PLUGIN_MAX;
use crate::grant::{Capability, Grants};
use crate::hook::Hook;
use crate::host_functions::{HostState, link};
use crate::signature::ComponentSignature;
use crate::spec::{Instances, Limits, PluginSpec};
use crate::ticker::TICK;
use crate::warm::WarmPool;

/// Files and bytes of a plugin's data folder; they are kept in memory for the life of a set.
const DATA_FILES_MAX: usize = 256;
const DATA_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Log lines that one plugin may write in a second, over all its calls.
const LOG_LINES_PER_SECOND_MAX: u32 = 200;
/// Series of metrics that one plugin may make.
const METRIC_SERIES_MAX: usize = 64;
/// Calls that may wait for a slot, as a multiple of the slots.
const WAITING_PER_SLOT_MAX: u32 = 8;
/// Upper ends of limits, so that a slip of the pen does not switch one off.
const GUEST_TIME_MAX: Duration = Duration::from_secs(10);
const WALL_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest time that an instance is kept without a call.
const WARM_IDLE_MAX: Duration = Duration::from_secs(3600);
const OUTPUT_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(crate) struct Plugin {
    pub(crate) name: Arc<str>,
    pub(crate) spec: PluginSpec,
    pub(crate) grants: Grants,
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) digest: String,
    pub(crate) pre: InstancePre<HostState>,
    pub(crate) engine: Arc<EngineInner>,
    pub(crate) slots: Semaphore,
    pub(crate) waiting: AtomicU32,
    /// Requests of the capability `fetch` at once.
    pub(crate) fetches: Semaphore,
    pub(crate) breaker: Breaker,
    pub(crate) warm: WarmPool,
    /// The signature that counted.
    pub(crate) signed_by: Option<ComponentSignature>,
    pub(crate) config: Settings,
    pub(crate) data: BTreeMap<String, Arc<[u8]>>,
    pub(crate) log_budget: LogBudget,
    pub(crate) metric_series: MetricSeries,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// Checks everything that can be checked without running the guest.
    pub(crate) fn new(
        engine: &Arc<EngineInner>,
        spec: PluginSpec,
        compiled: Arc<Compiled>,
        signed_by: Option<ComponentSignature>,
    ) -> Result<Self, LoadProblem> {
        let grants = Grants::parse(&spec.grants)?;
        check_limits(&spec.limits, engine)?;
        check_instances(spec.instances)?;
        check_hooks(&spec, &compiled)?;
        check_grants(&compiled, &grants)?;
        if !spec.config.is_object() {
            return Err(LoadProblem::Config("it must be a mapping".to_owned()));
        }
        let mut linker = Linker::new(&engine.wasm);
        if !compiled.wasi.is_empty() {
            wasmtime_wasi::p2::add_to_linker_async(&mut linker)
                .map_err(|error| LoadProblem::Invalid(format!("{error:#}")))?;
        }
        for (capability, version) in &compiled.imports {
            link(&mut linker, *capability, *version)
                .map_err(|error| LoadProblem::Invalid(format!("{error:#}")))?;
        }
        let pre = linker
            .instantiate_pre(&compiled.component)
            .map_err(|error| LoadProblem::Types {
                function: "imports".to_owned(),
                reason: crate::component::first_line(&error),
            })?;
        let data = match &spec.data {
            Some(folder) => read_data(folder)?,
            None => BTreeMap::new(),
        };
        let slots = usize::try_from(spec.limits.concurrency).unwrap_or(Semaphore::MAX_PERMITS);
        Ok(Self {
            name: spec.name.as_str().into(),
            config: Settings::new(&spec.config),
            slots: Semaphore::new(slots),
            waiting: AtomicU32::new(0),
            fetches: Semaphore::new(FETCHES_PER_PLUGIN_MAX),
            warm: WarmPool::default(),
            signed_by,
            breaker: Breaker::new(spec.limits.quarantine),
            digest: compiled.digest.to_string(),
            engine: Arc::clone(engine),
            log_budget: LogBudget::default(),
            metric_series: MetricSeries::default(),
            grants,
            compiled,
            pre,
            data,
            spec,
        })
    }

    /// Hooks that are called: what it exports, or the configured part of that.
    pub(crate) fn hooks(&self) -> impl Iterator<Item = Hook> + '_ {
        self.compiled
            .exported_hooks()
            .filter(|hook| self.spec.hooks.is_empty() || self.spec.hooks.contains(hook))
    }

    /// It may wait inside a host function, and is to blame for it.
    pub(crate) fn may_wait(&self) -> bool {
        self.compiled.imports(Capability::Fetch) || !self.compiled.wasi.is_empty()
    }

    pub(crate) fn waiting_max(&self) -> u32 {
        self.spec
            .limits
            .concurrency
            .saturating_mul(WAITING_PER_SLOT_MAX)
    }
}

/// A plugin's settings, in the forms in which it may ask for them.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) json: Arc<str>,
    pub(crate) values: BTreeMap<String, Arc<str>>,
}

impl Settings {
    fn new(config: &serde_json::Value) -> Self {
        let text = |value: &serde_json::Value| match value.as_str() {
            Some(text) => text.into(),
            None => value.to_string().into(),
        };
        let values = config.as_object().map_or_else(BTreeMap::new, |object| {
            object
                .iter()
                .map(|(key, value)| (key.clone(), text(value)))
                .collect()
        });
        Self {
            json: config.to_string().into(),
            values,
        }
    }
}

/// Log lines left in the current second.
#[derive(Debug, Default)]
pub(crate) struct LogBudget {
    /// Second in the upper half, lines used in the lower.
    used: AtomicU64,
}

impl LogBudget {
    pub(crate) fn take(&self, second: u32) -> bool {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let lines = if used >> 32 == u64::from(second) {
                (used & u64::from(u32::MAX)) + 1
            } else {
                1
            };
            if lines > u64::from(LOG_LINES_PER_SECOND_MAX) {
                return false;
            }
            let next = (u64::from(second) << 32) | lines;
            match self
                .used
                .compare_exchange_weak(used, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => used = now,
            }
        }
    }
}

/// Which series of metrics a plugin has made.
#[derive(Debug, Default)]
pub(crate) struct MetricSeries {
    hasher: RandomState,
    seen: Mutex<HashSet<u64>>,
}

impl MetricSeries {
    pub(crate) fn admit(&self, name: &str, labels: &[(String, String)]) -> bool {
        let hash = self.hasher.hash_one((name, labels));
        let mut seen = self.seen.lock();
        if seen.contains(&hash) {
            return true;
        }
        seen.len() < METRIC_SERIES_MAX && seen.insert(hash)
    }
}

fn check_limits(limits: &Limits, engine: &EngineInner) -> Result<(), LoadProblem> {
    let refuse = |key, value: String, allowed: String| {
        Err(LoadProblem::Limit {
            key,
            value,
            allowed,
        })
    };
    let memory_max = engine.settings.memory_bytes_max;
    if limits.memory_bytes == 0 || limits.memory_bytes > memory_max {
        let allowed = format!("1 to {memory_max} bytes");
        return refuse("memory", limits.memory_bytes.to_string(), allowed);
    }
    if limits.table_elements > TABLE_ELEMENTS_MAX {
        let allowed = format!("0 to {TABLE_ELEMENTS_MAX}");
        return refuse("table_elements", limits.table_elements.to_string(), allowed);
    }
    if limits.output_bytes == 0 || limits.output_bytes > OUTPUT_BYTES_MAX {
        let allowed = format!("1 to {OUTPUT_BYTES_MAX} bytes");
        return refuse("output", limits.output_bytes.to_string(), allowed);
    }
    let times = [
        ("time", limits.guest_time, GUEST_TIME_MAX),
        ("wall", limits.wall_time, WALL_TIME_MAX),
    ];
    for (key, time, max) in times {
        if time < TICK || time > max {
            return refuse(key, format!("{time:?}"), format!("1ms to {max:?}"));
        }
    }
    if limits.quarantine.faults == 0 {
        return refuse("quarantine.faults", "0".to_owned(), "1 or more".to_owned());
    }
    if limits.concurrency == 0 {
        return refuse("concurrency", "0".to_owned(), "1 or more".to_owned());
    }
    Ok(())
}

fn check_instances(instances: Instances) -> Result<(), LoadProblem> {
    let Instances::Warm {
        max_calls,
        max_idle,
    } = instances
    else {
        return Ok(());
    };
    let (key, value) = match (max_calls, max_idle) {
        (0, _) => ("instances.warm.max_calls", "0".to_owned()),
        (_, idle) if idle.is_zero() || idle > WARM_IDLE_MAX => {
            ("instances.warm.max_idle", format!("{idle:?}"))
        }
        _ => return Ok(()),
    };
    let allowed = format!("1 call or more and at most {WARM_IDLE_MAX:?} idle");
    Err(LoadProblem::Limit {
        key,
        value,
        allowed,
    })
}

fn check_hooks(spec: &PluginSpec, compiled: &Compiled) -> Result<(), LoadProblem> {
    let exported: Vec<&str> = compiled.exported_hooks().map(Hook::as_str).collect();
    if exported.is_empty() {
        return Err(LoadProblem::NoExport("any hook".to_owned()));
    }
    for hook in &spec.hooks {
        if compiled.hooks[hook.index()].is_none() {
            return Err(LoadProblem::NoHook {
                hook: hook.as_str(),
                exported: quoted(&exported),
            });
        }
    }
    Ok(())
}

fn read_data(folder: &Path) -> Result<BTreeMap<String, Arc<[u8]>>, LoadProblem> {
    let unreadable = |reason: String| LoadProblem::Unreadable {
        path: folder.to_owned(),
        reason,
    };
    let mut files = BTreeMap::new();
    let mut bytes_left = DATA_BYTES_MAX;
    let entries = fs::read_dir(folder).map_err(|error| unreadable(error.to_string()))?;
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(error.to_string()))?;
        if !entry.path().is_file() {
            continue;
        }
        let name = entry.file_name().into_string();
        let name = name.map_err(|name| unreadable(format!("{name:?} is not text")))?;
        let bytes = read_bounded(&entry.path(), bytes_left)?;
        bytes_left = bytes_left.saturating_sub(bytes.len() as u64);
        files.insert(name, bytes.into());
        if files.len() > DATA_FILES_MAX {
            return Err(unreadable(format!("it has over {DATA_FILES_MAX} files")));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{LOG_LINES_PER_SECOND_MAX, LogBudget, METRIC_SERIES_MAX, MetricSeries, Settings};

    #[test]
    fn log_lines_are_bounded_per_second() {
        let budget = LogBudget::default();
        let taken = (0..1_000).filter(|_| budget.take(7)).count();
        assert_eq!(taken, LOG_LINES_PER_SECOND_MAX as usize);
        assert!(budget.take(8));
    }

    #[test]
    fn metric_series_are_bounded() {
        let series = MetricSeries::default();
        let label = |n: usize| vec![("n".to_owned(), n.to_string())];
        let admitted = (0..1_000).filter(|n| series.admit("x", &label(*n))).count();
        assert_eq!(admitted, METRIC_SERIES_MAX);
        assert!(series.admit("x", &label(0)), "a known series goes on");
    }

    #[test]
    fn settings_are_text_or_json() {
        let settings = Settings::new(&serde_json::json!({"a": "text", "b": [1, 2]}));
        assert_eq!(settings.values.get("a").map(|v| &**v), Some("text"));
        assert_eq!(settings.values.get("b").map(|v| &**v), Some("[1,2]"));
    }
}
