//! The one engine of the process.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::EngineError;
use crate::kv::KvStore;
use crate::observer::PluginObserver;

/// Bounds of all plugins together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// Private folder for compiled code, made with mode 0700; `None` compiles at each start.
    /// A folder that belongs to somebody else or that others may write is refused.
    pub cache_dir: Option<PathBuf>,
    /// Instances at once, of all plugins of two sets: while a set is swapped for the next one,
    /// both may be in use, so one set may claim half. Each costs address space, not memory.
    pub instances_max: u32,
    /// Largest linear memory of one instance in bytes; no plugin's limit may be above it.
    pub memory_bytes_max: usize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            cache_dir: None,
            instances_max: 512,
            memory_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Compiler, instance pool, timer thread and key-value table. One per process; cheap to clone.
#[derive(Clone, Debug)]
pub struct PluginEngine {
    _private: (),
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
        let _ = (settings, kv, observer);
        todo!("the skeleton only states the interface")
    }
}
