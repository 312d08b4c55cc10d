//! What loading a plugin costs: compiled anew, and from the folder of compiled code.
//!
//! Both in a new engine each time, as at a hub's start: reading, digest, checks, the trial call
//! of `check-config`. The second differs in the compiler's part alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nowconnect_plugins::{
    EngineSettings, MemoryKv, MemoryKvSettings, NoObserver, PluginEngine, PluginSpec,
};

use super::{built_examples, calls};
use crate::failure::{Context, Failure};
use crate::figures::Figures;
use crate::load::Latencies;
use crate::peers::{Site, Yard};

pub(super) fn measure(
    site: &Site,
    quick: bool,
    notes: &mut BTreeSet<String>,
) -> Result<Figures, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let yard = Yard::new(site, "plugin-loads")?;
    let mut plugins = vec![("rust", calls::rust(site, 0), if quick { 3 } else { 10 })];
    for guest in built_examples(site, notes) {
        plugins.push((guest.language, calls::of_example(&guest, 0), 1));
    }
    let mut figures = Figures::new();
    for (language, spec, times) in plugins {
        let cache = yard.dir.join(format!("{language}-cache"));
        let mut put = |kind: &str, latencies: &Latencies| {
            let millis = latencies.micros(0.5) / 1e3;
            figures.insert(format!("plugin_load.{language}_{kind}_ms"), millis);
        };
        let cold = runtime.block_on(loads(&spec, times, None))?;
        put("cold", &cold);
        // The first fills the folder and is not measured.
        runtime.block_on(loads(&spec, 1, Some(&cache)))?;
        let cached = runtime.block_on(loads(&spec, times.max(5), Some(&cache)))?;
        put("cached", &cached);
    }
    Ok(figures)
}

async fn loads(
    spec: &PluginSpec,
    times: usize,
    cache: Option<&Path>,
) -> Result<Latencies, Failure> {
    let mut latencies = Latencies::new();
    for _ in 0..times {
        let kv = Arc::new(MemoryKv::new(MemoryKvSettings::default()));
        let settings = EngineSettings {
            cache_dir: cache.map(PathBuf::from),
            ..EngineSettings::default()
        };
        let engine = PluginEngine::new(settings, kv, Arc::new(NoObserver))
            .context(|| "start the plugin engine".to_owned())?;
        let started = Instant::now();
        let set = calls::load(&engine, vec![spec.clone()]).await?;
        latencies.record(started.elapsed());
        drop(set);
    }
    Ok(latencies)
}
