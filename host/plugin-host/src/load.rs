//! From configuration to a set that can be called: whole or not at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};
use wasmtime::component::{ComponentNamedList, Instance, Lift, Lower};

use crate::call::{Failure, Run, classify};
use crate::component::{Compiled, Function, compile, first_line};
use crate::contract::ContractVersion;
use crate::engine::{EngineInner, PluginEngine, TABLES_PER_INSTANCE};
use crate::error::{LoadError, LoadProblem};
use crate::facts::CallInfo;
use crate::guest_time::metered;
use crate::hook::Hook;
use crate::host_functions::HostState;
use crate::plugin::Plugin;
use crate::signature::is_name;
use crate::source::{self, Arrived};
use crate::spec::{Mode, PluginSource, PluginSpec};
use crate::trust;
use crate::wire::{self, Question};

/// Wall time of `describe` and `check-config` together. It is more than a call's, because a
/// first call warms caches and a check may look at large data.
const CHECK_TIME_MAX: Duration = Duration::from_secs(5);

/// A check may compute for at least this long, however little a call may.
const CHECK_GUEST_TIME_MIN: Duration = Duration::from_millis(250);

/// Components that are fetched at once. The slowest source holds up only its place.
const ARRIVALS_MAX: usize = 4;

/// Time that all components together may take to arrive.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(60);

/// A plugin with what it says about itself.
pub(crate) struct Loaded {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) about: String,
}

pub(crate) async fn load(
    engine: &PluginEngine,
    specs: Vec<PluginSpec>,
) -> Result<Vec<Loaded>, Vec<LoadError>> {
    let inner = Arc::clone(&engine.inner);
    let arrived = arrive(&inner, specs).await;
    let built = spawn_blocking(move || build(&inner, arrived)).await;
    let built = built.unwrap_or_else(|error| {
        let problem = LoadProblem::Invalid(format!("loading it panicked: {error}"));
        vec![Err(refuse("*", problem))]
    });
    let mut loaded = Vec::new();
    let mut errors = Vec::new();
    for plugin in built {
        let checked = match plugin {
            Ok(plugin) => check(&plugin)
                .await
                .map(|about| Loaded {
                    plugin: Arc::clone(&plugin),
                    about,
                })
                .map_err(|problem| refuse(&plugin.name, problem)),
            Err(error) => Err(error),
        };
        match checked {
            Ok(plugin) => loaded.push(plugin),
            Err(error) => errors.push(error),
        }
    }
    if let Err(error) = check_pool(&engine.inner, &loaded) {
        errors.push(error);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut known = engine.inner.plugins.lock();
    known.retain(|_, plugin| plugin.strong_count() > 0);
    for one in &loaded {
        known.insert(Arc::clone(&one.plugin.name), Arc::downgrade(&one.plugin));
    }
    Ok(loaded)
}

/// What a plugin is made of.
enum Origin {
    /// Nothing of it can have changed.
    Running(Arc<Plugin>),
    Fetched(Result<Arrived, LoadProblem>),
}

/// Fetches all components, a few at once, and gives them back in the order of the specs. What
/// runs and is the same wherever it came from is not fetched, so that its server may be away.
async fn arrive(engine: &Arc<EngineInner>, specs: Vec<PluginSpec>) -> Vec<(PluginSpec, Origin)> {
    let by = Instant::now() + ARRIVAL_TIME_MAX;
    let places = Arc::new(Semaphore::new(ARRIVALS_MAX));
    // They end with this call, if it is dropped.
    let mut under_way = JoinSet::new();
    let mut running = BTreeMap::new();
    for (index, spec) in specs.iter().cloned().enumerate() {
        if let Some(plugin) = running_as_pinned(engine, &spec) {
            running.insert(index, plugin);
            continue;
        }
        let (engine, places) = (Arc::clone(engine), Arc::clone(&places));
        under_way.spawn(async move {
            // Never closed, so an error cannot be.
            let _place = places.acquire().await.ok();
            (index, source::arrive(&engine, &spec).await)
        });
    }
    let mut arrived: BTreeMap<usize, Result<Arrived, LoadProblem>> = BTreeMap::new();
    let mut missing = "fetching it panicked".to_owned();
    loop {
        match timeout_at(by, under_way.join_next()).await {
            Ok(Some(ended)) => arrived.extend(ended.ok()),
            Ok(None) => break,
            Err(_) => {
                missing = format!("it did not arrive in {ARRIVAL_TIME_MAX:?}");
                break;
            }
        }
    }
    let of = |(index, spec)| {
        let origin = match running.remove(&index) {
            Some(plugin) => Origin::Running(plugin),
            None => Origin::Fetched(
                arrived
                    .remove(&index)
                    .unwrap_or_else(|| Err(LoadProblem::Fetch(missing.clone()))),
            ),
        };
        (spec, origin)
    };
    specs.into_iter().enumerate().map(of).collect()
}

/// The plugin that runs by this very spec, where its digest leaves nothing to its server. Its
/// signature was checked against the keys of the same spec. A file is read again: that takes no
/// time, and whoever changed it is to hear of it.
fn running_as_pinned(engine: &EngineInner, spec: &PluginSpec) -> Option<Arc<Plugin>> {
    let is_pinned = match &spec.source {
        // It has no other name.
        PluginSource::Oci(_) => true,
        PluginSource::Url(_) => spec.digest.is_some(),
        PluginSource::Path(_) | PluginSource::Bytes(_) => false,
    };
    let known = upgrade(&engine.plugins.lock(), spec.name.as_str())?;
    (is_pinned && known.spec == *spec && known.data.is_empty()).then_some(known)
}

/// Everything that needs files and the compiler; runs on a thread for blocking work.
fn build(
    engine: &Arc<EngineInner>,
    arrived: Vec<(PluginSpec, Origin)>,
) -> Vec<Result<Arc<Plugin>, LoadError>> {
    let mut names = BTreeSet::new();
    arrived
        .into_iter()
        .map(|(spec, origin)| {
            let name = spec.name.clone();
            if !names.insert(name.clone()) {
                return Err(refuse(&name, LoadProblem::DuplicateName));
            }
            let built = match origin {
                Origin::Running(plugin) => Ok(plugin),
                Origin::Fetched(arrived) => build_one(engine, spec, arrived),
            };
            built.map_err(|problem| refuse(&name, problem))
        })
        .collect()
}

fn build_one(
    engine: &Arc<EngineInner>,
    spec: PluginSpec,
    arrived: Result<Arrived, LoadProblem>,
) -> Result<Arc<Plugin>, LoadProblem> {
    check_name(&spec.name)?;
    let Arrived {
        bytes,
        digest,
        signature,
    } = arrived?;
    let signed_by = trust::check(&bytes, signature.as_deref(), &spec)?;
    let known = upgrade(&engine.plugins.lock(), spec.name.as_str());
    if let Some(known) = known
        && known.compiled.digest == digest
        && known.spec == spec
        && known.signed_by == signed_by
        && known.data.is_empty()
    {
        return Ok(known);
    }
    let compiled = upgrade(&engine.compiled.lock(), &digest);
    let compiled = match compiled {
        Some(compiled) => compiled,
        None => {
            let compiled = Arc::new(compile(&engine.wasm, &bytes, digest)?);
            let mut cache = engine.compiled.lock();
            cache.retain(|_, compiled| compiled.strong_count() > 0);
            cache.insert(digest, Arc::downgrade(&compiled));
            compiled
        }
    };
    Plugin::new(engine, spec, compiled, signed_by).map(Arc::new)
}

fn upgrade<K, Q, V>(map: &HashMap<K, Weak<V>>, key: &Q) -> Option<Arc<V>>
where
    K: std::hash::Hash + Eq + std::borrow::Borrow<Q>,
    Q: std::hash::Hash + Eq + ?Sized,
{
    map.get(key).and_then(Weak::upgrade)
}

fn check_name(name: &str) -> Result<(), LoadProblem> {
    if is_name(name) {
        Ok(())
    } else {
        Err(LoadProblem::BadName)
    }
}

/// While one set is swapped for the next, calls of both may be in flight; so that the pool can
/// never be what denies traffic, one set may claim half of it.
fn check_pool(engine: &EngineInner, loaded: &[Loaded]) -> Result<(), LoadError> {
    let available = engine.settings.instances_max / 2;
    let claims: Vec<(&Plugin, u32)> = loaded
        .iter()
        .map(|one| &*one.plugin)
        .filter(|plugin| plugin.spec.mode != Mode::Off)
        .map(|plugin| (plugin, claim(plugin)))
        .collect();
    let claimed = claims
        .iter()
        .fold(0u32, |sum, (_, claim)| sum.saturating_add(*claim));
    let Some((largest, _)) = claims.iter().max_by_key(|(_, claim)| *claim) else {
        return Ok(());
    };
    if claimed <= available {
        return Ok(());
    }
    let terms: Vec<String> = claims
        .iter()
        .map(|(plugin, claim)| format!("{} {claim}", plugin.name))
        .collect();
    let problem = LoadProblem::Pool(format!(
        "with `limits.concurrency` {} it claims most of {claimed} pooled instances ({}), available \
         are {available}; lower `concurrency` or raise `plugins.instances_max`",
        largest.spec.limits.concurrency,
        terms.join(" + ")
    ));
    Err(refuse(&largest.name, problem))
}

/// What a plugin needs of the pool: an instance of many parts takes the place of several.
fn claim(plugin: &Plugin) -> u32 {
    let Compiled {
        memories, tables, ..
    } = *plugin.compiled;
    let each = memories.max(tables.div_ceil(TABLES_PER_INSTANCE)).max(1);
    each.saturating_mul(plugin.spec.limits.concurrency)
}

/// Runs the plugin for the first time: types of its functions, `describe`, `check-config`.
async fn check(plugin: &Arc<Plugin>) -> Result<String, LoadProblem> {
    let checked = timeout(CHECK_TIME_MAX, async {
        check_types(plugin).await?;
        let about = describe(plugin).await?;
        check_config(plugin).await?;
        Ok(about)
    })
    .await;
    checked.unwrap_or_else(|_| {
        Err(LoadProblem::CheckFailed {
            function: "check-config",
            reason: format!("no answer after {CHECK_TIME_MAX:?}"),
        })
    })
}

async fn describe(plugin: &Arc<Plugin>) -> Result<String, LoadProblem> {
    let function = plugin.compiled.describe;
    let answer = run::<_, wire::DescribeResult>(plugin, function, ()).await;
    let (about,) = answer.map_err(|failure| LoadProblem::CheckFailed {
        function: "describe",
        reason: format!("{}: {}", failure.outcome, failure.detail),
    })?;
    let text = format!("{} {}: {}", about.name, about.version, about.summary);
    Ok(text.chars().filter(|c| !c.is_control()).take(200).collect())
}

async fn check_config(plugin: &Arc<Plugin>) -> Result<(), LoadProblem> {
    let function = plugin.compiled.check_config;
    let json = Arc::clone(&plugin.config.json);
    let answer = match function.version {
        ContractVersion::V0_1 => {
            let params: wire::v0_1::CheckConfigParams<'_> = (&json,);
            run(plugin, function, params)
                .await
                .map(|answer: wire::v0_1::CheckConfigResult| wire::v0_1::said(answer))
        }
        ContractVersion::V0_2 => {
            let params: wire::v0_2::CheckConfigParams<'_> = (&json,);
            run(plugin, function, params)
                .await
                .map(|answer: wire::v0_2::CheckConfigResult| wire::v0_2::said(answer))
        }
    };
    let answer = answer.map_err(|failure| LoadProblem::CheckFailed {
        function: "check-config",
        reason: format!("{}: {}", failure.outcome, failure.detail),
    })?;
    answer.map_err(|error| LoadProblem::Config(error.to_string().escape_debug().to_string()))
}

async fn run<P, R>(plugin: &Arc<Plugin>, function: Function, params: P) -> Result<R, Failure>
where
    P: ComponentNamedList + Lower + Send + Sync,
    R: ComponentNamedList + Lift + Send + Sync + 'static,
{
    let mut run = Run::new(plugin, throwaway(plugin));
    let result = metered(run.call(function, params)).await;
    result.map_err(|error| classify(&error, run.store.data()))
}

fn throwaway(plugin: &Arc<Plugin>) -> HostState {
    let mut state = HostState::new(plugin, &CallInfo::default(), false);
    state.guest_time = state.guest_time.max(CHECK_GUEST_TIME_MIN);
    state
}

async fn check_types(plugin: &Arc<Plugin>) -> Result<(), LoadProblem> {
    let mut run = Run::new(plugin, throwaway(plugin));
    let instance = metered(run.instantiate()).await;
    let instance = instance.map_err(|error| {
        let failure = classify(&error, run.store.data());
        LoadProblem::CheckFailed {
            function: "instantiation",
            reason: format!("{}: {}", failure.outcome, failure.detail),
        }
    })?;
    for hook in plugin.compiled.exported_hooks() {
        check_hook_types(&mut run, instance, hook)?;
    }
    Ok(())
}

fn check_hook_types(run: &mut Run<'_>, instance: Instance, hook: Hook) -> Result<(), LoadProblem> {
    match hook {
        Hook::Hello => check_question::<wire::AskHello<'_>>(run, instance),
        Hook::Bye => check_question::<wire::TellBye<'_>>(run, instance),
        Hook::Enrich => check_question::<wire::AskEnrich<'_>>(run, instance),
        Hook::Open => check_question::<wire::AskOpen<'_>>(run, instance),
        Hook::Close => check_question::<wire::TellClose<'_>>(run, instance),
        Hook::HttpRequest => check_question::<wire::AskRequest<'_>>(run, instance),
        Hook::HttpResponse => check_question::<wire::AskResponse<'_>>(run, instance),
        Hook::Mask => check_question::<wire::AskMask<'_>>(run, instance),
    }
}

fn check_question<Q: Question>(run: &mut Run<'_>, instance: Instance) -> Result<(), LoadProblem> {
    let Some(function) = run.store.data().plugin.compiled.hooks[Q::HOOK.index()] else {
        return Ok(());
    };
    let store = &mut run.store;
    let typed = match function.version {
        ContractVersion::V0_1 => instance
            .get_typed_func::<Q::Params1, Q::Answer1>(store, function.index)
            .map(drop),
        ContractVersion::V0_2 => instance
            .get_typed_func::<Q::Params2, Q::Answer2>(store, function.index)
            .map(drop),
    };
    typed.map_err(|error| LoadProblem::Types {
        function: Q::HOOK.function().to_owned(),
        reason: first_line(&error),
    })
}

fn refuse(plugin: &str, problem: LoadProblem) -> LoadError {
    LoadError {
        plugin: plugin.to_owned(),
        problem,
    }
}
