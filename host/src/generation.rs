//! Policies and plugins in force, as one immutable value.
//!
//! A [`Generation`] is built whole, off the threads that carry traffic, and checked whole; then
//! one store puts it in force. A request reads it once and works with what it read to its end,
//! so no decision ever mixes the policies of one generation with the plugins of another. Where
//! building fails nothing changes, and the error says everything that is wrong.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use nowconnect_plugins::{
    Hook, Limits, LoadError, Mode, PluginEngine, PluginSet, PluginSource, PluginSpec, Quarantine,
};
use nowconnect_policy::{Diagnostics, PolicyBundle, SourceError, Sources};
use tokio::sync::watch;
use tracing::warn;

use crate::config::{CloudConfig, PluginConfig, PluginHook, PluginMode, PluginOrigin};
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;

/// See the module.
#[derive(Debug)]
pub struct Generation {
    number: u64,
    policies: Arc<PolicyBundle>,
    /// Of the bundle that the policies came in.
    revision: Option<u64>,
    plugins: Arc<PluginSet>,
    built_at: SystemTime,
}

/// Policies that came in a bundle and are compiled.
#[derive(Clone, Debug)]
pub struct Brought {
    /// The policies.
    pub policies: Arc<PolicyBundle>,
    /// The bundle's revision; `None` where none was ever in force.
    pub revision: Option<u64>,
}

impl Generation {
    /// Reads, compiles and checks what `config` names. Compiling runs on blocking threads.
    /// Where policies come in bundles they have been compiled: `brought` are those in force.
    ///
    /// # Errors
    /// Everything that is wrong with the policies, or with the plugins.
    pub async fn build(
        config: &CloudConfig,
        engine: &PluginEngine,
        number: u64,
        brought: Option<Brought>,
    ) -> Result<Self, GenerationError> {
        let Brought { policies, revision } = match brought {
            Some(brought) => brought,
            None => Brought {
                policies: Arc::new(Self::compile(config, number).await?),
                revision: None,
            },
        };
        let specs = config.plugins.list.iter().map(plugin_spec).collect();
        let plugins = PluginSet::load(engine, specs)
            .await
            .map_err(GenerationError::Plugins)?;
        warn_of_unsigned(config, &plugins);
        Ok(Self {
            number,
            policies,
            revision,
            plugins: Arc::new(plugins),
            built_at: SystemTime::now(),
        })
    }

    async fn compile(config: &CloudConfig, number: u64) -> Result<PolicyBundle, GenerationError> {
        let dir = config.policy.dir.clone();
        tokio::task::spawn_blocking(move || {
            let sources = match dir {
                Some(dir) => Sources::from_dir(&dir)?,
                None => nowconnect_policy::shipped(),
            };
            PolicyBundle::compile(&sources, number).map_err(GenerationError::Policies)
        })
        .await
        .map_err(|_| GenerationError::Panicked)?
    }

    /// Puts checked parts together.
    pub fn new(number: u64, policies: PolicyBundle, plugins: PluginSet) -> Self {
        Self {
            number,
            policies: Arc::new(policies),
            revision: None,
            plugins: Arc::new(plugins),
            built_at: SystemTime::now(),
        }
    }

    /// The same plugins, as they run, under other policies.
    pub(crate) fn with_policies(&self, number: u64, brought: Brought) -> Self {
        Self {
            number,
            policies: brought.policies,
            revision: brought.revision,
            plugins: Arc::clone(&self.plugins),
            built_at: SystemTime::now(),
        }
    }

    /// Grows by one with each generation of this hub's life.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The policies.
    pub fn policies(&self) -> &PolicyBundle {
        &self.policies
    }

    /// The revision of the bundle that the policies came in; `None` where they are a folder's, or
    /// no bundle was in force yet.
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// The policies with what they came in, for the generation after this one.
    pub(crate) fn brought(&self) -> Brought {
        Brought {
            policies: Arc::clone(&self.policies),
            revision: self.revision,
        }
    }

    /// The plugins.
    pub fn plugins(&self) -> &PluginSet {
        &self.plugins
    }

    /// The plugins, for who keeps them longer than the generation.
    pub fn shared_plugins(&self) -> Arc<PluginSet> {
        Arc::clone(&self.plugins)
    }

    /// Tells the metrics that it is in force now.
    pub(crate) fn activated(&self, metrics: &Metrics) {
        metrics
            .policy
            .generation_activated(self.number, SystemTime::now());
        let status = self.plugins.status();
        let active: Vec<(&str, &str)> = status
            .iter()
            .map(|plugin| (plugin.name.as_str(), plugin.digest.as_str()))
            .collect();
        metrics.plugins.set_active(&active);
        // One that was swapped for a better one is not in the quarantine of the one before.
        for plugin in &status {
            metrics
                .plugins
                .set_quarantined(&plugin.name, plugin.quarantined);
        }
    }

    /// When it was built.
    pub fn built_at(&self) -> SystemTime {
        self.built_at
    }
}

/// How often what decisions rest on has changed: with every generation, and with whatever else a
/// reload puts in force. A decision that began under one stamp and is answered under another
/// rests on what is no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// As a number, for who keeps it in an atomic.
    pub(crate) fn to_number(self) -> u64 {
        self.0
    }

    /// From such a number.
    pub(crate) fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// The generation in force, and the news when it changes.
#[derive(Debug)]
pub struct Generations {
    current: ArcSwap<Generation>,
    last_number: AtomicU64,
    stamp: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Generations {
    /// Begins with `first`.
    pub fn new(first: Generation) -> Self {
        let number = first.number;
        Self {
            current: ArcSwap::from_pointee(first),
            last_number: AtomicU64::new(number),
            stamp: AtomicU64::new(1),
            changed: watch::channel(number).0,
        }
    }

    /// The one in force. Read it once for each request.
    pub fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// A number that no generation had; a build that fails has used it up.
    pub fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Puts `next` in force in one step.
    pub fn publish(&self, next: Generation) {
        let number = next.number;
        self.current.store(Arc::new(next));
        self.touch();
        self.changed.send_replace(number);
    }

    /// Something else that decisions rest on has changed, such as the external decision point.
    pub(crate) fn touch(&self) {
        self.stamp.fetch_add(1, Ordering::AcqRel);
    }

    /// Read it *before* whatever a decision rests on, and compare it afterwards.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.stamp.load(Ordering::Acquire))
    }

    /// Tells when another generation is in force.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Why a generation could not be built; the one in force stays.
#[derive(Debug)]
pub enum GenerationError {
    /// The policy folder could not be read.
    Sources(SourceError),
    /// The policies do not hold.
    Policies(Diagnostics),
    /// One or more plugins were refused.
    Plugins(Vec<LoadError>),
    /// The compiler panicked, which is a fault of ours.
    Panicked,
}

impl From<SourceError> for GenerationError {
    fn from(error: SourceError) -> Self {
        Self::Sources(error)
    }
}

impl fmt::Display for GenerationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sources(error) => error.fmt(f),
            Self::Policies(diagnostics) => diagnostics.fmt(f),
            Self::Plugins(errors) => {
                for (index, error) in errors.iter().enumerate() {
                    if index > 0 {
                        f.write_str("\n")?;
                    }
                    error.fmt(f)?;
                }
                Ok(())
            }
            Self::Panicked => f.write_str("the policy compiler panicked; please report this"),
        }
    }
}

impl std::error::Error for GenerationError {}

/// Whoever can write such a file decides what the hub runs, so its operator is told. A pinned
/// component is one that he has vouched for himself.
fn warn_of_unsigned(config: &CloudConfig, plugins: &PluginSet) {
    for status in plugins.status() {
        let is_pinned = config.plugins.list.iter().any(|plugin| {
            let by_source = matches!(plugin.source, PluginOrigin::Oci(_));
            plugin.name == status.name && (plugin.digest.is_some() || by_source)
        });
        if status.signed_by.is_none() && !is_pinned {
            warn!(
                target: events::SECURITY,
                event = events::PLUGIN_UNSIGNED,
                plugin = status.name,
                digest = status.digest,
                "a plugin is neither signed by a key of `plugins.trust` nor pinned by `digest`"
            );
        }
    }
}

/// The plugin host's form of a configured plugin.
pub(crate) fn plugin_spec(config: &PluginConfig) -> PluginSpec {
    let source = match &config.source {
        PluginOrigin::File(path) => PluginSource::Path(path.clone()),
        PluginOrigin::Url(url) => PluginSource::Url(url.clone()),
        PluginOrigin::Oci(reference) => PluginSource::Oci(reference.clone()),
    };
    let mut spec = PluginSpec::new(config.name.clone(), source);
    spec.trust.clone_from(&config.trust);
    spec.require_signature = config.require_signature;
    spec.signature.clone_from(&config.signature);
    spec.signed_as.clone_from(&config.signed_as);
    spec.version.clone_from(&config.version);
    spec.registry.clone_from(&config.registry);
    spec.instances = config.instances;
    spec.digest = config.digest.as_ref().map(|digest| {
        let mut text = String::from("sha256:");
        for byte in digest {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    });
    spec.hooks = config.hooks.iter().copied().map(hook).collect();
    spec.tenants.clone_from(&config.tenants);
    spec.grants.clone_from(&config.grants);
    spec.limits = Limits {
        memory_bytes: bytes(config.limits.memory_bytes),
        table_elements: bytes(u64::from(config.limits.table_elements)),
        guest_time: config.limits.time,
        wall_time: config.limits.wall,
        output_bytes: bytes(config.limits.output_bytes),
        concurrency: config.limits.concurrency,
        queue_time: config.limits.queue,
        quarantine: Quarantine {
            faults: config.limits.quarantine.faults,
            window: config.limits.quarantine.window,
            pause: config.limits.quarantine.retry_after,
        },
    };
    spec.config.clone_from(&config.config);
    spec.data.clone_from(&config.data);
    spec.mode = match config.mode {
        PluginMode::Enforce => Mode::Enforce,
        PluginMode::Shadow => Mode::Shadow,
        PluginMode::Off => Mode::Off,
    };
    spec.optional = config.optional;
    spec.order = config.order;
    spec
}

fn bytes(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn hook(hook: PluginHook) -> Hook {
    match hook {
        PluginHook::Hello => Hook::Hello,
        PluginHook::Bye => Hook::Bye,
        PluginHook::Enrich => Hook::Enrich,
        PluginHook::Open => Hook::Open,
        PluginHook::Close => Hook::Close,
        PluginHook::HttpRequest => Hook::HttpRequest,
        PluginHook::HttpResponse => Hook::HttpResponse,
        PluginHook::Mask => Hook::Mask,
    }
}
