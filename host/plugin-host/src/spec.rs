//! What the operator says about one plugin.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use semver::VersionReq;

use crate::hook::Hook;
use crate::signature::PublicKey;
use crate::source::RegistryAccess;

/// The tenant of calls that state none.
pub(crate) const DEFAULT_TENANT: &str = "default";
/// Whose a call is that is about all tenants at once. No tenant can have this name.
pub(crate) const ALL_TENANTS: &str = "*";

/// One plugin of a set, as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginSpec {
    /// Unique in the set; letters, digits, `.`, `_` and `-`, 1 to 64; prefix of its signals and
    /// attributes.
    pub name: String,
    /// Where its component is.
    pub source: PluginSource,
    /// `sha256:` and 64 hex digits; where set, anything else is refused before it is compiled.
    pub digest: Option<String>,
    /// Keys whose signatures over the component count.
    pub trust: Vec<PublicKey>,
    /// Refuse it unless one of them signed it.
    pub require_signature: bool,
    /// Its signature, where it is not found beside the component.
    pub signature: Option<String>,
    /// The name that its signer gave it; `None` where that is `name`.
    pub signed_as: Option<String>,
    /// The version that its signer must have given it; `None` takes any.
    pub version: Option<VersionReq>,
    /// How its registry is read, where it comes from one.
    pub registry: RegistryAccess,
    /// Whether instances serve one call or several.
    pub instances: Instances,
    /// The hooks to call; empty means all that the component exports.
    pub hooks: Vec<Hook>,
    /// The tenants that it is called for; empty means all. One that is for some only never masks
    /// log records, which are of all.
    pub tenants: Vec<String>,
    /// What it may do, such as `log`, `kv:1MiB`, `signals:DE`, `headers.set:x-tenant-*`.
    pub grants: Vec<String>,
    /// Bounds of each call.
    pub limits: Limits,
    /// Settings handed to the plugin as JSON.
    pub config: serde_json::Value,
    /// Whether its answers count.
    pub mode: Mode,
    /// Carry on without it when it fails, instead of denying.
    pub optional: bool,
    /// Place in the chain of a hook; equal places are ordered by name.
    pub order: i32,
    /// Folder of files that the plugin may read, copied into memory at load.
    pub data: Option<PathBuf>,
}

impl PluginSpec {
    /// Whether it is called for this tenant.
    pub(crate) fn serves(&self, tenant: &str) -> bool {
        self.tenants.is_empty() || self.tenants.iter().any(|own| own == tenant)
    }

    /// A plugin with default limits, no grants, empty settings, enforced.
    pub fn new(name: impl Into<String>, source: PluginSource) -> Self {
        Self {
            name: name.into(),
            source,
            digest: None,
            trust: Vec::new(),
            require_signature: false,
            signature: None,
            signed_as: None,
            version: None,
            registry: RegistryAccess::default(),
            instances: Instances::Fresh,
            hooks: Vec::new(),
            tenants: Vec::new(),
            grants: Vec::new(),
            limits: Limits::default(),
            config: serde_json::Value::Object(serde_json::Map::new()),
            mode: Mode::Enforce,
            optional: false,
            order: 0,
            data: None,
        }
    }
}

/// Where a component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginSource {
    /// A file, read once at load.
    Path(PathBuf),
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// A web server; needs a digest.
    Url(String),
    /// A registry, such as `oci://registry/name@sha256:…`.
    Oci(String),
}

/// Whether instances serve one call or several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Instances {
    /// Each call gets an instance of its own: nothing outlives it.
    #[default]
    Fresh,
    /// An instance is kept for later calls of the same tenant, and dropped at anything but an
    /// answer. For plugins whose start is dear.
    Warm {
        /// Calls after which it is dropped.
        max_calls: u32,
        /// Time without a call after which it is dropped.
        max_idle: Duration,
    },
}

/// Whether a plugin's answers count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Its answers count.
    #[default]
    Enforce,
    /// It is called, its answers are recorded and not acted on.
    Shadow,
    /// It is loaded and checked, not called.
    Off,
}

/// Bounds of each call of a plugin, and of how many there may be at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance in bytes. A Rust plugin starts at about 1.1 MiB.
    pub memory_bytes: usize,
    /// Elements of all tables of one instance.
    pub table_elements: usize,
    /// Processor time that the guest may use, looked at every 1 ms.
    pub guest_time: Duration,
    /// Time from start to answer, including waits for other work of the thread and machine.
    pub wall_time: Duration,
    /// Bytes that the plugin may hand to the host in one answer or one host call.
    pub output_bytes: usize,
    /// Calls at once; a slow plugin sheds only itself.
    pub concurrency: u32,
    /// How long a call may wait for one of those slots before it is shed.
    pub queue_time: Duration,
    /// When a plugin that fails is no longer called.
    pub quarantine: Quarantine,
}

/// When a plugin that fails is no longer called. Faults are traps, timeouts, exhausted memory
/// and answers that break a rule; a plugin that says no or `error` behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// So many faults ...
    pub faults: u32,
    /// ... within this time ...
    pub window: Duration,
    /// ... leave it uncalled for this long. Then one call tries it; each that fails doubles the
    /// pause, up to 64 times this.
    pub pause: Duration,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self {
            faults: 5,
            window: Duration::from_secs(10),
            pause: Duration::from_secs(1),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 32 * 1024 * 1024,
            table_elements: 10_000,
            guest_time: Duration::from_millis(25),
            wall_time: Duration::from_millis(100),
            output_bytes: 64 * 1024,
            concurrency: 16,
            queue_time: Duration::from_millis(10),
            quarantine: Quarantine::default(),
        }
    }
}
