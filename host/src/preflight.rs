//! What a configuration names on this machine, read as a hub reads it at its start. Nothing is
//! bound, fetched, written or kept.
//!
//! Left out is what only a start can tell: whether ports are free, what a web server or a registry
//! gives, and the state of policy bundles, which one hub alone may open.

use std::sync::Arc;

use nowconnect_plugins::{EngineSettings, MemoryKv, MemoryKvSettings, PluginEngine, PluginSet};
use nowconnect_policy::{PolicyBundle, Sources};

use crate::admin::AdminProof;
use crate::config::{CloudConfig, PluginOrigin};
use crate::gateway;
use crate::generation::plugin_spec;
use crate::identity::Authenticator;
use crate::pdp::Pdp;
use crate::reload;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::plugins::PluginTelemetry;
use crate::viewer::ViewerAuth;

/// Something that is named and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The key that names it, or the section.
    pub key: &'static str,
    /// What is wrong, with the path.
    pub message: String,
}

/// Reads all of it.
#[must_use]
pub fn unusable(config: &CloudConfig) -> Vec<Unusable> {
    let mut found = Found::default();
    if let Some(files) = &config.tunnel.tls {
        found.note("tunnel.tls", reload::load_tls(files));
    }
    if config.admin.listen.is_some() {
        found.note("admin", AdminProof::read(&config.admin));
    }
    found.note("security.issuers", Authenticator::new(&config.security));
    for set in &config.ingress.viewer_auth {
        let built = ViewerAuth::build(set, &config.security, None);
        let named = built.map_err(|error| format!("`{}`: {error}", set.name));
        found.note("ingress.viewer_auth", named);
    }
    found.note("security.revocation_file", reload::read_revocations(config));
    let metrics = Metrics::new();
    found.note("pdp", Pdp::new(&config.pdp, &metrics));
    if config.ha.enabled
        && let Some(redis) = &config.ha.redis
    {
        found.note("ha.redis", redis.check_files());
    }
    policies(config, &mut found);
    plugins(config, &metrics, &mut found);
    found.0
}

#[derive(Default)]
struct Found(Vec<Unusable>);

impl Found {
    fn note<T, E: ToString>(&mut self, key: &'static str, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| {
                self.0.push(Unusable {
                    key,
                    message: error.to_string(),
                });
            })
            .ok()
    }
}

fn policies(config: &CloudConfig, found: &mut Found) {
    let Some(dir) = &config.policy.dir else {
        return;
    };
    if config.policy.bundle.is_some() {
        return;
    }
    if let Some(sources) = found.note("policy.dir", Sources::from_dir(dir)) {
        found.note("policy.dir", PolicyBundle::compile(&sources, 1));
    }
}

/// Compiles the components that are files here; no code of theirs runs but what checks their
/// settings.
fn plugins(config: &CloudConfig, metrics: &Arc<Metrics>, found: &mut Found) {
    let Some(extra_roots) = found.note("plugins.ca_bundle", gateway::plugin_roots(config)) else {
        return;
    };
    let is_here = |source: &PluginOrigin| match source {
        PluginOrigin::File(_) => true,
        PluginOrigin::Url(_) | PluginOrigin::Oci(_) => false,
    };
    let specs: Vec<_> = config
        .plugins
        .list
        .iter()
        .filter(|plugin| is_here(&plugin.source))
        .map(plugin_spec)
        .collect();
    if specs.is_empty() {
        return;
    }
    let settings = EngineSettings {
        // Whoever checks may not be who the hub runs as, and its cache is its own.
        cache_dir: None,
        instances_max: config.plugins.instances_max,
        extra_roots,
        ..EngineSettings::default()
    };
    let engine = PluginEngine::new(
        settings,
        Arc::new(MemoryKv::new(MemoryKvSettings::default())),
        Arc::new(PluginTelemetry::new(Arc::clone(metrics))),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (Some(engine), Some(runtime)) = (
        found.note("plugins.list", engine),
        found.note("plugins.list", runtime),
    ) else {
        return;
    };
    if let Err(errors) = runtime.block_on(PluginSet::load(&engine, specs)) {
        for error in errors {
            found.note("plugins.list", Err::<(), _>(error));
        }
    }
}
