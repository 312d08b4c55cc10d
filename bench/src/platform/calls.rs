//! What a chain of plugins costs, each call in a fresh instance unless it says otherwise.
//!
//! Rust at `open` (`scope-guard`), JavaScript at `http-request` and Python at `enrich`, which are
//! the hooks that the example plugins of these languages have.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nowconnect_plugins::{
    Agent, CallInfo, CallReport, EngineSettings, Enrich, Head, HttpRequest, HttpRequestOutcome,
    Instances, MemoryKv, MemoryKvSettings, Open, OpenOutcome, Peer, PluginEngine, PluginObserver,
    PluginSet, PluginSource, PluginSpec, Viewer,
};
use serde_json::json;

use super::{Guest, built_examples, put_quantiles};
use crate::failure::{Context, Failure};
use crate::figures::Figures;
use crate::load::Latencies;
use crate::peers::Site;
use crate::peers::nowconnect::component;

/// Plugins in a chain.
const CHAINS: [usize; 4] = [0, 1, 4, 16];

/// One call at a time is asked here; the default for a hub would claim more than the pool has.
const CONCURRENCY: u32 = 4;

/// A tenth as many calls go before the measured ones.
const WARM_UP: usize = 10;

pub(super) fn measure(
    site: &Site,
    quick: bool,
    notes: &mut BTreeSet<String>,
) -> Result<Figures, Failure> {
    let guests = built_examples(site, notes);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let bench = Bench::new()?;
    let calls = if quick { 1_000 } else { 5_000 };
    runtime.block_on(async {
        let mut figures = Figures::new();
        for plugins in CHAINS {
            let specs = (0..plugins).map(|number| rust(site, number)).collect();
            let name = format!("plugin_call.rust_{plugins}");
            let seen = bench.measure(specs, calls, Asked::Open).await?;
            seen.put(&mut figures, &name, plugins == 1);
        }
        let mut kept = rust(site, 0);
        kept.instances = Instances::Warm {
            max_calls: u32::MAX,
            max_idle: Duration::from_secs(60),
        };
        let seen = bench.measure(vec![kept], calls, Asked::Open).await?;
        seen.put(&mut figures, "plugin_call.rust_kept_1", false);
        for guest in &guests {
            let asked = Asked::of(guest);
            for plugins in &CHAINS[1..] {
                let specs = (0..*plugins).map(|number| of_example(guest, number));
                let name = format!("plugin_call.{}_{plugins}", guest.language);
                let calls = calls / 50 / plugins + 20;
                let seen = bench.measure(specs.collect(), calls, asked).await?;
                seen.put(&mut figures, &name, *plugins == 1);
            }
        }
        Ok(figures)
    })
}

/// `scope-guard` with rules that let the question pass.
pub(super) fn rust(site: &Site, number: usize) -> PluginSpec {
    let source = PluginSource::Path(component(&site.root, "scope-guard"));
    let mut spec = PluginSpec::new(format!("guard-{number}"), source);
    spec.grants = vec!["config".to_owned()];
    spec.config = json!({"listeners": {"public-*": ["site-*"]}});
    spec.limits.concurrency = CONCURRENCY;
    spec
}

/// An example plugin, with the time that an interpreter needs.
pub(super) fn of_example(guest: &Guest, number: usize) -> PluginSpec {
    let source = PluginSource::Path(guest.component.clone());
    let mut spec = PluginSpec::new(format!("{}-{number}", guest.name), source);
    spec.limits.guest_time = Duration::from_millis(500);
    spec.limits.wall_time = Duration::from_secs(2);
    spec.limits.memory_bytes = 64 << 20;
    spec.limits.concurrency = CONCURRENCY;
    (spec.grants, spec.config) = match Asked::of(guest) {
        Asked::HttpRequest => (vec!["config".to_owned()], json!({"endpoints": ["closed"]})),
        Asked::Open | Asked::Enrich => (
            vec!["config".to_owned(), "signals:*".to_owned()],
            json!({"networks": {"198.51.100.0/24": "tor-exit"}}),
        ),
    };
    spec
}

/// An engine that tells what instances cost.
struct Bench {
    engine: PluginEngine,
    instances: Arc<InstanceTimes>,
}

/// The question that is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Open,
    Enrich,
    HttpRequest,
}

impl Asked {
    fn of(guest: &Guest) -> Self {
        if guest.language == "javascript" {
            Self::HttpRequest
        } else {
            Self::Enrich
        }
    }
}

struct Seen {
    calls: Latencies,
    instances: Latencies,
}

impl Seen {
    fn put(&self, figures: &mut Figures, name: &str, with_instances: bool) {
        put_quantiles(figures, name, &self.calls);
        if with_instances {
            put_quantiles(figures, &format!("{name}_instance"), &self.instances);
        }
    }
}

impl Bench {
    fn new() -> Result<Self, Failure> {
        let instances = Arc::new(InstanceTimes::default());
        let kv = Arc::new(MemoryKv::new(MemoryKvSettings::default()));
        let observer = Arc::clone(&instances);
        let engine = PluginEngine::new(EngineSettings::default(), kv, observer)
            .context(|| "start the plugin engine".to_owned())?;
        Ok(Self { engine, instances })
    }

    async fn measure(
        &self,
        specs: Vec<PluginSpec>,
        calls: usize,
        asked: Asked,
    ) -> Result<Seen, Failure> {
        let set = load(&self.engine, specs).await?;
        let mut latencies = Latencies::new();
        for number in 0..calls + calls / WARM_UP {
            if number == calls / WARM_UP {
                self.instances.take();
            }
            let started = Instant::now();
            ask(&set, asked).await?;
            let took = started.elapsed();
            if number >= calls / WARM_UP {
                latencies.record(took);
            }
        }
        Ok(Seen {
            calls: latencies,
            instances: self.instances.take(),
        })
    }
}

/// A set of plugins, or everything that is wrong with it.
pub(super) async fn load(
    engine: &PluginEngine,
    specs: Vec<PluginSpec>,
) -> Result<PluginSet, Failure> {
    PluginSet::load(engine, specs).await.map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::new(errors.join("; "))
    })
}

async fn ask(set: &PluginSet, asked: Asked) -> Result<(), Failure> {
    let info = CallInfo {
        request_id: "01J0000000000000000000000",
        ..CallInfo::default()
    };
    let peer = Peer {
        ip: "192.0.2.1".to_owned(),
        port: 4711,
        ..Peer::default()
    };
    let viewer = Viewer::default();
    let agent = Agent {
        id: "site-1".to_owned(),
        version: "0.1.0".to_owned(),
        ..Agent::default()
    };
    let (connector, listener) = ("site-1-db", "public-1");
    match asked {
        Asked::Open => {
            let open = Open {
                connector,
                listener,
                peer: &peer,
                viewer: &viewer,
                agent: &agent,
                via_mesh: false,
            };
            let outcome = set.open(&info, &open).await;
            passed(matches!(outcome, OpenOutcome::Allow(_)), &outcome)
        }
        Asked::Enrich => {
            let enrich = Enrich {
                connector,
                listener,
                peer: &peer,
                viewer: &viewer,
                http: None,
            };
            let signals = set.enrich(&info, &enrich).await;
            passed(signals.missing.is_empty(), &signals)
        }
        Asked::HttpRequest => {
            let request = HttpRequest {
                head: Head {
                    method: "GET",
                    scheme: "https",
                    authority: "shop.example",
                    path_with_query: "/",
                    headers: &[],
                },
                peer: &peer,
                viewer: &viewer,
                agent: &agent,
                endpoint: "shop",
                connector,
            };
            let outcome = set.http_request(&info, &request).await;
            let goes_on = matches!(outcome, HttpRequestOutcome::Forward { .. });
            passed(goes_on, &outcome)
        }
    }
}

fn passed(as_expected: bool, answer: &dyn std::fmt::Debug) -> Result<(), Failure> {
    if as_expected {
        Ok(())
    } else {
        Err(Failure::new(format!("a plugin answered {answer:?}")))
    }
}

/// Keeps how long each instance took to make.
struct InstanceTimes(Mutex<Latencies>);

impl Default for InstanceTimes {
    fn default() -> Self {
        Self(Mutex::new(Latencies::new()))
    }
}

impl InstanceTimes {
    fn take(&self) -> Latencies {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut kept, Latencies::new())
    }
}

impl PluginObserver for InstanceTimes {
    fn call_ended(&self, report: &CallReport<'_>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.record(report.instantiate);
    }
}
