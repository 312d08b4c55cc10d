//! Policies and plugins.

use std::path::PathBuf;
use std::time::Duration;

/// `policy`: where the Cedar policies are and what a swap does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyConfig {
    /// The folder with `*.cedar` and, optionally, `entities.json`; `None` means the policies that
    /// are built in.
    pub dir: Option<PathBuf>,
    /// What a new generation does to running flows.
    pub on_swap: OnSwap,
    /// How often running flows are asked again; `None` is never.
    pub recheck_interval: Option<Duration>,
    /// How many flows are asked again before others get their turn.
    pub recheck_batch: u32,
    /// How many decision records are kept for `policy explain --last`.
    pub decisions_kept: u32,
}

/// What a new generation does to running flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSwap {
    /// They keep the generation that let them in.
    Keep,
    /// They are asked again; a deny is logged and counted, the flow goes on.
    Recheck,
    /// They are asked again; a deny ends the flow with `policy_denied`.
    RecheckAndClose,
}

/// `plugins`: the Wasm plugins.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginsConfig {
    /// Where relative plugin files are looked for; `None` if every plugin names its whole path.
    pub dir: Option<PathBuf>,
    /// Where compiled plugins are cached, a folder only this user can read; `None` is no cache.
    pub cache_dir: Option<PathBuf>,
    /// The bound on all plugins of one hook together.
    pub pipeline_timeout: Duration,
    /// In the order in which they are called (`order`, then as written). Names are unique.
    pub list: Vec<PluginConfig>,
}

/// One plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConfig {
    /// Its name: metric label, prefix of its signals, owner of its key-value bucket.
    pub name: String,
    /// The component's file, already joined with `plugins.dir`.
    pub file: PathBuf,
    /// The SHA-256 that the file must have.
    pub digest: Option<[u8; 32]>,
    /// The hooks that are called; empty means all that it exports.
    pub hooks: Vec<PluginHook>,
    /// The capabilities that are linked, such as `log` or `kv:16MiB`.
    pub grants: Vec<String>,
    /// What it may use.
    pub limits: PluginLimits,
    /// Handed to the plugin as JSON. May hold secrets: never logged.
    pub config: serde_json::Value,
    /// Whether its answers count.
    pub mode: PluginMode,
    /// Whether its faults are skipped instead of denying.
    pub optional: bool,
    /// Lower is called earlier.
    pub order: i32,
}

/// A point where plugins are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PluginHook {
    /// An agent's HELLO, after policy.
    Hello,
    /// An agent's end.
    Bye,
    /// Before policy: adds signals.
    Enrich,
    /// A client's OPEN, after policy.
    Open,
    /// A flow's end.
    Close,
    /// A request on its way to the origin.
    HttpRequest,
    /// A response on its way to the client.
    HttpResponse,
    /// Records before they leave the process.
    Mask,
}

/// What one call of a plugin may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// Linear memory in bytes.
    pub memory_bytes: u64,
    /// Guest time.
    pub time: Duration,
    /// Wall-clock time, host calls included.
    pub wall: Duration,
    /// What it may return, in bytes.
    pub output_bytes: u64,
    /// Calls at once; more are shed.
    pub concurrency: u32,
    /// Table elements.
    pub table_elements: u32,
    /// Faults that quarantine it.
    pub quarantine: PluginQuarantine,
}

/// When a plugin that faults is no longer called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginQuarantine {
    /// So many faults …
    pub faults: u32,
    /// … in this time …
    pub window: Duration,
    /// … leave it uncalled for this long; then one call tries it.
    pub retry_after: Duration,
}

/// Whether a plugin's answers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginMode {
    /// They do.
    Enforce,
    /// It is called and its answers are only recorded.
    Shadow,
    /// It is loaded and checked, but not called.
    Off,
}
