//! What a guest may call, each linked only where it is imported and granted, and the state of
//! the one call in which it does so.
//!
//! Most of these work on memory and return at once. What waits is linked as an async function, so
//! that the wall limit of the call can cut it off.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasmtime::component::{ComponentType, Linker, LinkerInstance, Lower};
use wasmtime::{ResourceLimiter, Result, StoreContextMut};
use wasmtime_wasi::{WasiCtxView, WasiView};

use crate::contract::{ContractVersion, PACKAGE};
use crate::facts::{CallInfo, Level};
use crate::fetch::{self, FetchRequest};
use crate::grant::Capability;
use crate::guest_time::computed_since_look;
use crate::kv::{KvError, KvStore, Namespace};
use crate::observer::{Dropped, PluginLogLine};
use crate::plugin::Plugin;
use crate::wasi::Wasi;
use crate::wire::v0_1;

/// Log lines of one call.
const LOG_LINES_PER_CALL_MAX: u32 = 32;
/// Bytes of one line's message, and of its fields together.
const LOG_TEXT_BYTES_MAX: usize = 1024;
const LOG_FIELDS_MAX: usize = 16;
/// Bytes of a metric's or label's name, and labels of one sample.
const METRIC_NAME_BYTES_MAX: usize = 64;
const METRIC_LABELS_MAX: usize = 4;

/// State of one call of one plugin.
pub(crate) struct HostState {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) limiter: Limiter,
    pub(crate) guest_time: Duration,
    pub(crate) computed: Duration,
    pub(crate) out_of_time: bool,
    request_id: Box<str>,
    tenant: Box<str>,
    shadow: bool,
    wasi: Option<Box<Wasi>>,
    log_lines_left: u32,
    log_lines_dropped: u64,
    metric_samples_dropped: u64,
}

impl HostState {
    pub(crate) fn new(plugin: &Arc<Plugin>, info: &CallInfo<'_>, shadow: bool) -> Self {
        let uses = |capability| plugin.compiled.imports(capability);
        let uses_wasi = !plugin.compiled.wasi.is_empty();
        let owned = |wanted: bool, text: &str| if wanted { text.into() } else { Box::default() };
        Self {
            limiter: Limiter::new(&plugin.spec.limits),
            guest_time: plugin.spec.limits.guest_time,
            computed: Duration::ZERO,
            out_of_time: false,
            request_id: owned(uses(Capability::Log) || uses_wasi, info.request_id),
            tenant: owned(uses(Capability::Kv), info.tenant.unwrap_or_default()),
            shadow,
            wasi: None,
            log_lines_left: LOG_LINES_PER_CALL_MAX,
            log_lines_dropped: 0,
            metric_samples_dropped: 0,
            plugin: Arc::clone(plugin),
        }
    }

    /// Another call begins in this instance: everything is as at the first one, apart from what
    /// the guest holds itself.
    pub(crate) fn begin(&mut self, state: Self) {
        let (limiter, wasi) = (self.limiter.again(), self.wasi.take());
        *self = Self {
            limiter,
            wasi,
            ..state
        };
    }

    /// Called at each epoch while the guest computes; `false` where its time is used up.
    pub(crate) fn may_compute_on(&mut self) -> bool {
        self.computed += computed_since_look();
        self.out_of_time = self.computed > self.guest_time;
        !self.out_of_time
    }

    /// At the end of a call: logs what was printed, and tells the observer what was dropped.
    pub(crate) fn settle(&mut self) {
        let printed = self.wasi.as_mut().map(|wasi| wasi.take_output());
        for line in printed.unwrap_or_default().lines() {
            self.write_log(Level::Info, line, &[]);
        }
        let observer = &self.plugin.engine.observer;
        let dropped = [
            (Dropped::LogLines, self.log_lines_dropped),
            (Dropped::MetricSamples, self.metric_samples_dropped),
        ];
        for (what, number) in dropped {
            if number > 0 {
                observer.dropped(&self.plugin.name, what, number);
            }
        }
    }

    fn write_log(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        let elapsed = self.plugin.engine.started.elapsed().as_secs();
        // A second that wraps after 136 years of uptime only restarts a budget.
        let second = elapsed as u32;
        if self.log_lines_left == 0 || !self.plugin.log_budget.take(second) {
            self.log_lines_dropped += 1;
            return;
        }
        self.log_lines_left -= 1;
        let mut bytes_left = LOG_TEXT_BYTES_MAX;
        let fields: Vec<(String, String)> = fields
            .iter()
            .take(LOG_FIELDS_MAX)
            .map(|(name, value)| (take(name, &mut bytes_left), take(value, &mut bytes_left)))
            .collect();
        self.plugin.engine.observer.log_line(&PluginLogLine {
            plugin: &self.plugin.name,
            request_id: &self.request_id,
            level,
            message: &one_line(message, LOG_TEXT_BYTES_MAX),
            fields: &fields,
        });
    }

    fn admit_metric(&mut self, name: &str, labels: &[(String, String)]) -> bool {
        let good = is_metric_name(name)
            && labels.len() <= METRIC_LABELS_MAX
            && labels
                .iter()
                .all(|(name, value)| is_metric_name(name) && value.len() <= METRIC_NAME_BYTES_MAX)
            && self.plugin.metric_series.admit(name, labels);
        if !good {
            self.metric_samples_dropped += 1;
        }
        // What is only tried must not show up as if it had happened.
        good && !self.shadow
    }

    fn kv(&self) -> (&dyn KvStore, Namespace, u64) {
        let namespace = Namespace {
            plugin: Arc::clone(&self.plugin.name),
            tenant: self.tenant.clone(),
            shadow: self.shadow,
        };
        let quota = self.plugin.grants.kv_quota_bytes();
        (&*self.plugin.engine.kv, namespace, quota)
    }
}

/// Bounds of one store, and what the guest asked for.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_bytes_max: usize,
    table_elements_max: usize,
    pub(crate) memory_peak_bytes: usize,
    /// The guest wanted more than it may have; if it traps after that, it ran out of memory.
    pub(crate) refused: bool,
}

impl Limiter {
    fn new(limits: &crate::spec::Limits) -> Self {
        Self {
            memory_bytes_max: limits.memory_bytes,
            table_elements_max: limits.table_elements,
            memory_peak_bytes: 0,
            refused: false,
        }
    }
}

impl Limiter {
    /// The same bounds for another call in the same memory.
    const fn again(&self) -> Self {
        Self {
            refused: false,
            ..*self
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        let allowed =
            desired <= self.memory_bytes_max && maximum.is_none_or(|maximum| desired <= maximum);
        if allowed {
            self.memory_peak_bytes = self.memory_peak_bytes.max(desired);
        } else {
            self.refused = true;
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        let allowed =
            desired <= self.table_elements_max && maximum.is_none_or(|maximum| desired <= maximum);
        if !allowed {
            self.refused = true;
        }
        Ok(allowed)
    }
}

/// Adds one capability to a linker, under the version for which it is wanted.
pub(crate) fn link(
    linker: &mut Linker<HostState>,
    capability: Capability,
    version: ContractVersion,
) -> Result<()> {
    let name = format!("{PACKAGE}{}@{version}", capability.as_str());
    let mut instance = linker.instance(&name)?;
    match capability {
        Capability::Log => link_log(&mut instance),
        Capability::Config => link_config(&mut instance),
        Capability::Kv => match version {
            ContractVersion::V0_1 => link_kv(&mut instance, v0_1::KvError::from),
            ContractVersion::V0_2 => link_kv(&mut instance, KvError::code),
        },
        Capability::Clock => link_clock(&mut instance),
        Capability::Metrics => link_metrics(&mut instance),
        Capability::Data => link_data(&mut instance),
        Capability::Fetch => link_fetch(&mut instance),
    }
}

type Context<'a> = StoreContextMut<'a, HostState>;
type Labels = Vec<(String, String)>;

fn link_log(instance: &mut LinkerInstance<'_, HostState>) -> Result<()> {
    instance.func_wrap(
        "write",
        |mut cx: Context<'_>, (level, message, fields): (Level, String, Labels)| {
            cx.data_mut().write_log(level, &message, &fields);
            Ok(())
        },
    )
}

fn link_config(instance: &mut LinkerInstance<'_, HostState>) -> Result<()> {
    instance.func_wrap("json", |cx: Context<'_>, (): ()| {
        Ok((Arc::clone(&cx.data().plugin.config.json),))
    })?;
    instance.func_wrap("get", |cx: Context<'_>, (key,): (String,)| {
        Ok((cx.data().plugin.config.values.get(&key).cloned(),))
    })
}

/// The versions differ in how they tell why an operation was not done.
fn link_kv<E>(
    instance: &mut LinkerInstance<'_, HostState>,
    kv_error: fn(KvError) -> E,
) -> Result<()>
where
    E: ComponentType + Lower + Send + Sync + 'static,
{
    instance.func_wrap("get", move |cx: Context<'_>, (key,): (String,)| {
        let (store, namespace, _) = cx.data().kv();
        Ok((store.get(&namespace, &key).map_err(kv_error),))
    })?;
    instance.func_wrap(
        "set",
        move |cx: Context<'_>, (key, value, ttl): (String, Vec<u8>, u32)| {
            let (store, namespace, quota) = cx.data().kv();
            let result = store.set(&namespace, &key, &value, ttl, quota);
            Ok((result.map_err(kv_error),))
        },
    )?;
    instance.func_wrap("delete", move |cx: Context<'_>, (key,): (String,)| {
        let (store, namespace, _) = cx.data().kv();
        Ok((store.delete(&namespace, &key).map_err(kv_error),))
    })?;
    instance.func_wrap(
        "increment",
        move |cx: Context<'_>, (key, delta, ttl): (String, i64, u32)| {
            let (store, namespace, quota) = cx.data().kv();
            let result = store.increment(&namespace, &key, delta, ttl, quota);
            Ok((result.map_err(kv_error),))
        },
    )
}

fn link_clock(instance: &mut LinkerInstance<'_, HostState>) -> Result<()> {
    instance.func_wrap("now-unix-ms", |_: Context<'_>, (): ()| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.map_or(0, |since| since.as_millis());
        Ok((u64::try_from(millis).unwrap_or(u64::MAX),))
    })?;
    instance.func_wrap("monotonic-ns", |cx: Context<'_>, (): ()| {
        let nanos = cx.data().plugin.engine.started.elapsed().as_nanos();
        Ok((u64::try_from(nanos).unwrap_or(u64::MAX),))
    })
}

fn link_metrics(instance: &mut LinkerInstance<'_, HostState>) -> Result<()> {
    instance.func_wrap(
        "count",
        |mut cx: Context<'_>, (name, delta, labels): (String, u64, Labels)| {
            if cx.data_mut().admit_metric(&name, &labels) {
                let plugin = &cx.data().plugin;
                let observer = &plugin.engine.observer;
                observer.count(&plugin.name, &name, delta, &labels);
            }
            Ok(())
        },
    )?;
    instance.func_wrap(
        "observe",
        |mut cx: Context<'_>, (name, value, labels): (String, f64, Labels)| {
            if cx.data_mut().admit_metric(&name, &labels) {
                let plugin = &cx.data().plugin;
                let observer = &plugin.engine.observer;
                observer.observe(&plugin.name, &name, value, &labels);
            }
            Ok(())
        },
    )
}

fn link_data(instance: &mut LinkerInstance<'_, HostState>) -> Result<()> {
    instance.func_wrap("read", |cx: Context<'_>, (name,): (String,)| {
        Ok((cx.data().plugin.data.get(&name).cloned(),))
    })
}

fn link_fetch(instance: &mut LinkerInstance<'_, HostState>) -> Result<()> {
    instance.func_wrap_async("send", |cx: Context<'_>, (request,): (FetchRequest,)| {
        Box::new(async move {
            let plugin = Arc::clone(&cx.data().plugin);
            Ok((fetch::send(&plugin, request).await,))
        })
    })
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi
            .get_or_insert_with(|| Box::new(Wasi::new()))
            .view()
    }
}

fn is_metric_name(name: &str) -> bool {
    (1..=METRIC_NAME_BYTES_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// The beginning of a text, at most so many bytes of it, as one line.
pub(crate) fn one_line(text: &str, bytes_max: usize) -> String {
    let mut bytes_left = bytes_max;
    take(text, &mut bytes_left)
}

/// The beginning of a text that fits, with control characters made visible: a guest's line
/// must not look like two, nor move a terminal's cursor.
fn take(text: &str, bytes_left: &mut usize) -> String {
    let text = &text[..text.floor_char_boundary(*bytes_left)];
    *bytes_left -= text.len();
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{is_metric_name, take};

    #[test]
    fn log_text_is_cut_and_escaped() {
        let mut left = 8;
        assert_eq!(take("a\nb\u{1b}[2J", &mut left), "a\\nb\\u{1b}[2J");
        assert_eq!(left, 1);
        assert_eq!(take("é", &mut left), "", "never half a character");
        assert_eq!(take("xy", &mut left), "x");
    }

    #[test]
    fn metric_names_are_plain() {
        assert!(is_metric_name("requests_total"));
        for bad in ["", "Requests", "9lives", "a-b", &"a".repeat(65)] {
            assert!(!is_metric_name(bad), "{bad}");
        }
    }
}
