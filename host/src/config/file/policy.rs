//! Policies and plugins, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bundle::BundleFile;

/// The Cedar policies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyFile {
    /// The folder with `*.cedar` and, optionally, `entities.json`; a change in it makes a new
    /// generation. They are not signed: for development, and where whoever may write there may
    /// decide everything. Default `null`: the policies that are built in.
    pub dir: Option<String>,
    /// Signed policy bundles, instead of `dir`.
    pub bundle: BundleFile,
    /// What a new generation does to running flows. Default `recheck_and_close`.
    pub on_swap: OnSwapFile,
    /// How often running flows are asked again, for conditions on time. 0 is never.
    /// Milliseconds. Default 60000.
    #[schemars(range(min = 0, max = 86_400_000))]
    pub recheck_interval_ms: u64,
    /// How many flows are asked again before others get their turn. Default 64.
    #[schemars(range(min = 1, max = 65_536))]
    pub recheck_batch: u32,
    /// How many decision records are kept for `nowconnect policy explain --last`. Default 4096.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub decisions_kept: u32,
    /// Distinct requests that are kept for `nowconnect policy requests`, to be tried against other
    /// policies; 0 keeps none. Bytes. A change needs a restart. Default 4194304.
    #[schemars(range(min = 0, max = 1_073_741_824))]
    pub requests_kept_bytes: u64,
    /// How long hubs of a cluster may have other policies or plugins than this one before
    /// `/readyz` says `generation_skew`. Milliseconds. Default 60000.
    #[schemars(range(min = 0, max = 86_400_000))]
    pub max_skew_ms: u64,
}

impl Default for PolicyFile {
    fn default() -> Self {
        Self {
            dir: None,
            bundle: BundleFile::default(),
            on_swap: OnSwapFile::default(),
            recheck_interval_ms: 60_000,
            recheck_batch: 64,
            decisions_kept: 4096,
            requests_kept_bytes: 4 << 20,
            max_skew_ms: 60_000,
        }
    }
}

/// What a new generation does to running flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSwapFile {
    /// They keep the generation that let them in.
    Keep,
    /// They are asked again; a deny is logged and counted, the flow goes on.
    Recheck,
    /// They are asked again; a deny ends the flow.
    #[default]
    RecheckAndClose,
}

/// The Wasm plugins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PluginsFile {
    /// Where relative plugin files are looked for. Default `null`: the configuration's folder.
    pub dir: Option<String>,
    /// Where compiled plugins are cached, a folder that only the hub's user can write.
    /// Default `null`: no cache.
    pub cache_dir: Option<String>,
    /// Instances at once, of all plugins; one generation may claim half, because another is in
    /// use while plugins are swapped. Each reserves 4 GiB of address space. Default 1024.
    #[schemars(range(min = 2, max = 16_384))]
    pub instances_max: u32,
    /// The bound on all plugins of one hook together. Milliseconds. Default 200.
    #[schemars(range(min = 1, max = 60_000))]
    pub pipeline_timeout_ms: u64,
    /// Keys (`ed25519:` and base64) whose signatures over a component count, for every plugin that
    /// has no `trust` of its own. Default empty.
    #[schemars(length(max = 64))]
    pub trust: Vec<String>,
    /// Refuses a plugin that no trusted key signed. `false` is development mode: whoever can write
    /// a plugin's file decides what the hub runs. Default `true`.
    pub require_signature: bool,
    /// Credentials for registries, as container tools keep them (`auths` of `config.json`); read
    /// at each pull. Default `null`: registries are read anonymously.
    pub registry_auth_file: Option<String>,
    /// What is to be known about registries beyond their address. Default empty.
    #[schemars(length(max = 64))]
    pub registries: Vec<RegistryFile>,
    /// Certificates in PEM that plugins' requests and fetched components trust beside those of
    /// the system. Default `null`.
    pub ca_bundle: Option<String>,
    /// The plugins. Default empty.
    #[schemars(length(max = 64))]
    pub list: Vec<PluginFile>,
}

impl Default for PluginsFile {
    fn default() -> Self {
        Self {
            dir: None,
            cache_dir: None,
            instances_max: 1024,
            pipeline_timeout_ms: 200,
            trust: Vec::new(),
            require_signature: true,
            registry_auth_file: None,
            registries: Vec::new(),
            ca_bundle: None,
            list: Vec::new(),
        }
    }
}

/// What is to be known about one registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryFile {
    /// The registry, as `source` names it: `registry.example` or `registry.example:5000`.
    pub host: String,
    /// Hosts beside its own that may hand out its tokens, and are shown its credentials; with
    /// their port where it is not that of the scheme. Default empty.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub token_hosts: Vec<String>,
}

/// One plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginFile {
    /// Its name, unique: metric label, prefix of its signals, owner of its key-value bucket.
    pub name: String,
    /// The component. Default: the name followed by `.wasm`.
    #[serde(default)]
    pub file: Option<String>,
    /// Where the component is instead: `oci://registry/name@sha256:…`, or `https://…` with
    /// `digest`. Default `null`: `file`.
    #[serde(default)]
    pub source: Option<String>,
    /// `sha256:` and 64 hex digits that the component must have. Default `null`: any.
    #[serde(default)]
    pub digest: Option<String>,
    /// The keys that count for this plugin, instead of those of `plugins.trust`. Default empty:
    /// those of `plugins.trust`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub trust: Vec<String>,
    /// The component's signature, where it is not found beside the component. Default `null`.
    #[serde(default)]
    pub signature: Option<String>,
    /// The name that its signer gave it, such as for the second of two plugins from one component.
    /// Default `null`: `name`.
    #[serde(default)]
    pub signed_as: Option<String>,
    /// The versions that its signer may have given it, such as `>=1.2, <2`; needs a signature.
    /// Default `null`: any.
    #[serde(default)]
    pub version: Option<String>,
    /// Whether an instance serves one call or several. Default `fresh`.
    #[serde(default)]
    pub instances: PluginInstancesFile,
    /// How long a warm instance is kept.
    #[serde(default)]
    pub warm: WarmFile,
    /// The hooks that are called. Default empty: all that it exports.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub hooks: Vec<PluginHookFile>,
    /// The tenants that it is called for; `default` is the one without a name. A plugin for some
    /// tenants never masks log records. Default empty: all.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub tenants: Vec<String>,
    /// The capabilities that are linked, such as `log` or `kv:16MiB`; a plugin that wants one it
    /// was not granted is refused. Default empty.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub grants: Vec<String>,
    /// What one call may use.
    #[serde(default)]
    pub limits: PluginLimitsFile,
    /// Handed to the plugin as JSON. Hidden wherever the configuration is shown, because it may
    /// hold secrets. Default `{}`.
    #[serde(default = "empty_object")]
    pub config: serde_json::Value,
    /// A folder with files that it may read through the grant `data`; read whole at load, a change
    /// in it makes a new generation. Default `null`: none.
    #[serde(default)]
    pub data: Option<String>,
    /// Whether its answers count. Default `enforce`.
    #[serde(default)]
    pub mode: PluginModeFile,
    /// Whether its faults are skipped; otherwise they deny. Default `false`.
    #[serde(default)]
    pub optional: bool,
    /// Lower is called earlier; equal ones by name. Default 0.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub order: i32,
}

fn empty_object() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// A point where plugins are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PluginHookFile {
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

/// Whether a plugin's answers count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PluginModeFile {
    /// They do.
    #[default]
    Enforce,
    /// It is called and its answers are only recorded.
    Shadow,
    /// It is loaded and checked, but not called.
    Off,
}

/// Whether an instance serves one call or several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PluginInstancesFile {
    /// One: nothing outlives a call.
    #[default]
    Fresh,
    /// Several of the same tenant; it is dropped at anything but an answer.
    Warm,
}

/// How long a warm instance is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WarmFile {
    /// Calls after which it is dropped. Default 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_calls: u32,
    /// Time without a call after which it is dropped. Milliseconds. Default 30000.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub max_idle_ms: u64,
}

impl Default for WarmFile {
    fn default() -> Self {
        Self {
            max_calls: 1000,
            max_idle_ms: 30_000,
        }
    }
}

/// What one call of a plugin may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PluginLimitsFile {
    /// Linear memory. Bytes. Default 33554432.
    #[schemars(range(min = 65_536, max = 1_073_741_824))]
    pub memory_bytes: u64,
    /// Guest time. Milliseconds. Default 5.
    #[schemars(range(min = 1, max = 10_000))]
    pub time_ms: u64,
    /// Wall-clock time, host calls included; at least `time_ms`. Milliseconds. Default 50.
    #[schemars(range(min = 1, max = 60_000))]
    pub wall_ms: u64,
    /// What it may return. Bytes. Default 65536.
    #[schemars(range(min = 256, max = 16_777_216))]
    pub output_bytes: u64,
    /// Calls at once; more wait for `queue_ms` and are then shed. Default 64.
    #[schemars(range(min = 1, max = 4096))]
    pub concurrency: u32,
    /// How long a call may wait for its turn. Milliseconds. Default 10.
    #[schemars(range(min = 0, max = 60_000))]
    pub queue_ms: u64,
    /// Table elements. Default 10000.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub table_elements: u32,
    /// When a plugin that faults is no longer called.
    pub quarantine: QuarantineFile,
}

impl Default for PluginLimitsFile {
    fn default() -> Self {
        Self {
            memory_bytes: 32 << 20,
            time_ms: 5,
            wall_ms: 50,
            output_bytes: 64 << 10,
            concurrency: 64,
            queue_ms: 10,
            table_elements: 10_000,
            quarantine: QuarantineFile::default(),
        }
    }
}

/// When a plugin that faults is no longer called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineFile {
    /// So many faults within `window_ms`. Default 10.
    #[schemars(range(min = 1, max = 100_000))]
    pub faults: u32,
    /// The time in which faults are counted. Milliseconds. Default 60000.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub window_ms: u64,
    /// After so long one call tries the plugin again. Milliseconds. Default 30000.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub retry_ms: u64,
}

impl Default for QuarantineFile {
    fn default() -> Self {
        Self {
            faults: 10,
            window_ms: 60_000,
            retry_ms: 30_000,
        }
    }
}
