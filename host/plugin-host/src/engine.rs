//! The one engine of the process: compiler, instance pool, timer thread, key-value table.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use wasmtime::{Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy};
use wasmtime::{Enabled, PoolingAllocationConfig};

use crate::component::{Compiled, Digest};
use crate::error::EngineError;
use crate::kv::KvStore;
use crate::observer::PluginObserver;
use crate::plugin::Plugin;
use crate::ticker::Ticker;
use crate::web::WebClient;

/// Stack of guest code in bytes; recursion deeper than this traps.
const GUEST_STACK_BYTES: usize = 256 * 1024;
/// Stack on which guest and host functions run together; the host's part needs the rest.
const CALL_STACK_BYTES: usize = 1024 * 1024;
/// Memories of one component: a program, its adapter, and what a toolchain puts between them.
pub(crate) const MEMORIES_PER_COMPONENT_MAX: u32 = 4;
/// Tables of one component.
pub(crate) const TABLES_PER_COMPONENT_MAX: u32 = 8;
/// Core instances of one component; a Python component has 38.
const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 64;
/// Tables that the pool has for each of its instances; a component with more of them counts as
/// several. Core instances there are enough of for the largest component in each.
pub(crate) const TABLES_PER_INSTANCE: u32 = 2;
/// Elements of one table.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Bytes of the host's bookkeeping for one component instance.
const INSTANCE_STATE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a used instance's memory that are wiped in place instead of being given back to the
/// operating system and faulted in again by the next call.
const KEEP_RESIDENT_BYTES: usize = 256 * 1024;

/// Where in the cache folder compiled code is.
const COMPILED_FOLDER: &str = "compiled";

/// Bounds of all plugins together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// Private folder for compiled code and for what came over the network, made with mode 0700;
    /// `None` compiles and fetches at each start.
    /// A folder that belongs to somebody else or that others may use is refused, because
    /// whoever writes there decides what this process runs.
    pub cache_dir: Option<PathBuf>,
    /// Instances at once, of all plugins of two sets: while a set is swapped for the next one,
    /// both may be in use, so one set may claim half. Each costs 4 GiB of address space, and
    /// memory only while it is used.
    pub instances_max: u32,
    /// Largest linear memory of one instance in bytes; no plugin's limit may be above it.
    pub memory_bytes_max: usize,
    /// Certificates that plugins' requests trust beside those of the system.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            cache_dir: None,
            instances_max: 1024,
            memory_bytes_max: 64 * 1024 * 1024,
            extra_roots: Vec::new(),
        }
    }
}

/// Compiler, instance pool, timer thread and key-value table. One per process; cheap to clone.
#[derive(Clone)]
pub struct PluginEngine {
    pub(crate) inner: Arc<EngineInner>,
}

pub(crate) struct EngineInner {
    pub(crate) wasm: Engine,
    pub(crate) ticker: Ticker,
    pub(crate) settings: EngineSettings,
    pub(crate) kv: Arc<dyn KvStore>,
    pub(crate) observer: Arc<dyn PluginObserver>,
    /// Sends the requests of the capability `fetch`, and fetches components.
    pub(crate) web: WebClient,
    /// Zero of the plugins' monotonic clock.
    pub(crate) started: Instant,
    /// Key of the `hash` cover, new with each process.
    pub(crate) hash_key: [u8; 32],
    /// Compiled code in use, so that a reload compiles only what changed.
    pub(crate) compiled: Mutex<HashMap<Digest, Weak<Compiled>>>,
    /// Plugins in use by name, so that one that did not change keeps its quarantine and slots.
    pub(crate) plugins: Mutex<HashMap<Arc<str>, Weak<Plugin>>>,
}

impl std::fmt::Debug for PluginEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginEngine")
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

impl PluginEngine {
    /// Makes the engine and starts its timer thread, which rests while no call runs.
    ///
    /// # Errors
    /// The cache folder is not private or not usable, the pool does not fit the address space,
    /// or the thread does not start.
    pub fn new(
        settings: EngineSettings,
        kv: Arc<dyn KvStore>,
        observer: Arc<dyn PluginObserver>,
    ) -> Result<Self, EngineError> {
        let runtime = |error: wasmtime::Error| EngineError::Runtime(format!("{error:#}"));
        let mut config = guest_config();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool_config(&settings)));
        if let Some(folder) = &settings.cache_dir {
            config.cache(Some(open_cache(folder)?));
        }
        let wasm = Engine::new(&config).map_err(runtime)?;
        let ticker = Ticker::start(&wasm).map_err(EngineError::Ticker)?;
        let mut hash_key = [0; 32];
        getrandom::fill(&mut hash_key)
            .map_err(|error| EngineError::Runtime(format!("no random numbers: {error}")))?;
        Ok(Self {
            inner: Arc::new(EngineInner {
                wasm,
                ticker,
                web: WebClient::new(settings.extra_roots.clone()),
                settings,
                kv,
                observer,
                started: Instant::now(),
                hash_key,
                compiled: Mutex::default(),
                plugins: Mutex::default(),
            }),
        })
    }
}

fn guest_config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .concurrency_support(false)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(CALL_STACK_BYTES)
        .wasm_memory64(false);
    config
}

fn pool_config(settings: &EngineSettings) -> PoolingAllocationConfig {
    let instances = settings.instances_max;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT_MAX))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(TABLES_PER_INSTANCE))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX)
        .max_memories_per_component(MEMORIES_PER_COMPONENT_MAX)
        .max_tables_per_component(TABLES_PER_COMPONENT_MAX)
        .max_component_instance_size(INSTANCE_STATE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_STATE_BYTES_MAX)
        .max_memory_size(settings.memory_bytes_max)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}

fn open_cache(folder: &Path) -> Result<Cache, EngineError> {
    let refuse = |problem: String| EngineError::CacheFolder {
        path: folder.to_owned(),
        problem,
    };
    make_private(folder).map_err(refuse)?;
    // The runtime cleans up in its folder and takes away what it does not know.
    let compiled = folder.join(COMPILED_FOLDER);
    make_private(&compiled).map_err(refuse)?;
    let folder = compiled
        .canonicalize()
        .map_err(|error| refuse(error.to_string()))?;
    let mut config = CacheConfig::new();
    config.with_directory(folder);
    Cache::new(config).map_err(|error| refuse(format!("{error:#}")))
}

fn make_private(folder: &Path) -> Result<(), String> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|error| error.to_string())?;
    let metadata = fs::symlink_metadata(folder).map_err(|error| error.to_string())?;
    if !metadata.is_dir() {
        return Err("it is not a folder".to_owned());
    }
    if metadata.uid() != own_uid().map_err(|error| error.to_string())? {
        return Err("it belongs to another user".to_owned());
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err("others may use it; run `chmod 700` on it".to_owned());
    }
    Ok(())
}

/// The process's own folder in `/proc` belongs to its effective user.
fn own_uid() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::make_private;

    #[test]
    fn the_cache_folder_is_made_private_and_others_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        make_private(&folder).unwrap();
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);

        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(make_private(&folder).unwrap_err().contains("chmod 700"));
        fs::write(parent.path().join("file"), "").unwrap();
        assert!(make_private(&parent.path().join("file")).is_err());
    }
}
