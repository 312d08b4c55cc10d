//! What plugins cost at OPEN: the `open` chain with 0, 1, 4 and 16 plugins, each call in a fresh
//! instance, then one in a kept instance. Prints p50 and p99 in microseconds, and what loading a
//! plugin costs with nothing compiled before.
//!
//! `scripts/build-guests.sh && cargo bench -p nowconnect-plugins`

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "printing is what a bench is for")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nowconnect_plugins::{
    Agent, CallInfo, EngineSettings, Instances, MemoryKv, MemoryKvSettings, NoObserver, Open,
    OpenOutcome, Peer, PluginEngine, PluginSet, PluginSource, PluginSpec, Viewer,
};
use serde_json::{Value, json};

const WARMUP: usize = 500;
const CALLS: usize = 5_000;
const COLD_LOADS: usize = 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let kv = Arc::new(MemoryKv::new(MemoryKvSettings::default()));
        let settings = EngineSettings::default();
        let engine = PluginEngine::new(settings, kv, Arc::new(NoObserver)).unwrap();
        let limit = json!({"per": ["client_ip"], "flows": u32::MAX, "window_seconds": 3600});
        let limits = json!({"limits": [limit]});
        let names = json!({"listeners": {"public-*": ["site-*"]}});
        let guard = |name: &str| spec(name, "scope-guard", &["config"], names.clone());
        let rate = |name: &str| spec(name, "rate-limit", &["config", "kv"], limits.clone());
        measure(&engine, "no plugin", vec![]).await;
        measure(&engine, "scope-guard", vec![guard("guard-1")]).await;
        measure(&engine, "rate-limit", vec![rate("rate-1")]).await;
        let four = vec![
            guard("guard-1"),
            guard("guard-2"),
            rate("rate-1"),
            rate("rate-2"),
        ];
        measure(&engine, "four plugins", four).await;
        let many = (0..16).map(|n| guard(&format!("guard-{n}"))).collect();
        measure(&engine, "16 plugins", many).await;
        let mut kept = guard("kept");
        kept.instances = Instances::Warm {
            max_calls: u32::MAX,
            max_idle: Duration::from_secs(60),
        };
        measure(&engine, "scope-guard kept", vec![kept]).await;
        cold_load(guard("cold")).await;
    });
}

/// Reading, compiling and checking, in an engine that has compiled nothing.
async fn cold_load(spec: PluginSpec) {
    let mut took = Vec::with_capacity(COLD_LOADS);
    for _ in 0..COLD_LOADS {
        let kv = Arc::new(MemoryKv::new(MemoryKvSettings::default()));
        let engine =
            PluginEngine::new(EngineSettings::default(), kv, Arc::new(NoObserver)).unwrap();
        let before = Instant::now();
        PluginSet::load(&engine, vec![spec.clone()]).await.unwrap();
        took.push(before.elapsed());
    }
    took.sort_unstable();
    let (median, worst) = (took[COLD_LOADS / 2], took[COLD_LOADS - 1]);
    println!("{:16} p50 {median:?}   max {worst:?}", "cold load");
}

async fn measure(engine: &PluginEngine, what: &str, specs: Vec<PluginSpec>) {
    let set = PluginSet::load(engine, specs).await.unwrap();
    let agent = Agent {
        id: "site-1".to_owned(),
        version: "0.1.0".to_owned(),
        ..Agent::default()
    };
    let peer = Peer {
        ip: "192.0.2.1".to_owned(),
        port: 4711,
        ..Peer::default()
    };
    let viewer = Viewer::default();
    let open = Open {
        connector: "site-1-db",
        listener: "public-1",
        peer: &peer,
        viewer: &viewer,
        agent: &agent,
        via_mesh: false,
    };
    let call = CallInfo {
        request_id: "01J0000000000000000000000",
        ..CallInfo::default()
    };
    let mut took = Vec::with_capacity(CALLS);
    for round in 0..WARMUP + CALLS {
        let before = Instant::now();
        let outcome = set.open(&call, &open).await;
        if round >= WARMUP {
            took.push(before.elapsed());
        }
        assert!(matches!(outcome, OpenOutcome::Allow(_)), "{outcome:?}");
    }
    took.sort_unstable();
    let micros = |percent: usize| took[CALLS * percent / 100].as_secs_f64() * 1e6;
    println!(
        "{what:16} p50 {:7.1} us   p99 {:7.1} us",
        micros(50),
        micros(99)
    );
}

fn spec(name: &str, component: &str, grants: &[&str], config: Value) -> PluginSpec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../plugins/target/components/{component}.wasm"));
    let mut spec = PluginSpec::new(name, PluginSource::Path(path));
    spec.grants = grants.iter().map(|grant| (*grant).to_owned()).collect();
    spec.config = config;
    spec
}
