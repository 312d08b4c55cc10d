//! What is refused at load, and that a set loads whole or not at all.

use std::fs;
use std::time::Duration;

use nowconnect_plugins::{
    EngineError, EngineSettings, Hook, LoadError, MemoryKv, MemoryKvSettings, NoObserver,
    PluginEngine, PluginSource, PluginSpec,
};

use super::guest;
use super::harness::{Bench, spec};

pub(crate) const GUESTS: &[&str] = &["no_exports", "refuses_config"];

#[tokio::test]
async fn a_pinned_digest_must_be_that_of_the_bytes() {
    let bench = Bench::new();
    let set = bench.set_of("agreeable").await;
    let digest = set.status()[0].digest.clone();
    let mut pinned = spec("agreeable");
    pinned.digest = Some(format!("sha256:{digest}"));
    assert!(bench.load(vec![pinned]).await.is_ok());

    let mut other = spec("denies");
    other.digest = Some(format!("sha256:{digest}"));
    let text = refusal(&bench, other).await;
    assert!(text.contains("pins"), "{text}");
    for malformed in ["sha256:12", "md5:00", &format!("sha256:{}", "é".repeat(32))] {
        let mut bad = spec("agreeable");
        bad.digest = Some(malformed.to_owned());
        let text = refusal(&bench, bad).await;
        assert!(text.contains("64 hex digits"), "{text}");
    }
}

#[tokio::test]
async fn what_is_no_component_is_refused() {
    let bench = Bench::new();
    for bytes in [
        &b""[..],
        b"(component)",
        b"\0asm\x01\0\0\0",
        b"\0asm\x0d\0\x01\0junk",
    ] {
        let spec = PluginSpec::new("bad", PluginSource::Bytes(bytes.into()));
        let text = refusal(&bench, spec).await;
        assert!(text.contains("not a valid WebAssembly component"), "{text}");
    }
}

#[tokio::test]
async fn a_component_without_the_lifecycle_is_refused() {
    let bench = Bench::new();
    let text = refusal(&bench, spec("no_exports")).await;
    assert!(text.contains("nowconnect:plugin/lifecycle"), "{text}");
}

#[tokio::test]
async fn settings_that_the_plugin_refuses_are_refused() {
    let bench = Bench::new();
    let text = refusal(&bench, spec("refuses_config")).await;
    assert!(
        text.contains("refuses its `config`: bad_config: no"),
        "{text}"
    );
    let mut list = spec("agreeable");
    list.config = serde_json::json!([]);
    let text = refusal(&bench, list).await;
    assert!(text.contains("mapping"), "{text}");
}

#[tokio::test]
async fn a_plugin_that_cannot_be_checked_is_refused() {
    let bench = Bench::new();
    let mut small = spec("agreeable");
    small.limits.memory_bytes = 64 * 1024;
    let text = refusal(&bench, small).await;
    assert!(text.contains("oom"), "{text}");
}

#[tokio::test]
async fn every_wrong_plugin_is_named_and_nothing_is_loaded() {
    let bench = Bench::new();
    let mut no_hook = spec("denies");
    no_hook.hooks = vec![Hook::Mask];
    let mut bad_grant = spec("agreeable");
    bad_grant.name = "bad-grant".to_owned();
    bad_grant.grants = vec!["root".to_owned()];
    let mut bad_name = spec("agreeable");
    bad_name.name = "bad/name".to_owned();
    let mut missing = spec("agreeable");
    missing.name = "missing".to_owned();
    missing.source = PluginSource::Path("/nonexistent/plugin.wasm".into());
    let mut limits = spec("agreeable");
    limits.name = "limits".to_owned();
    limits.limits.wall_time = Duration::from_secs(3_600);
    let specs = vec![
        spec("agreeable"),
        spec("agreeable"),
        no_hook,
        bad_grant,
        bad_name,
        missing,
        limits,
    ];
    let errors = bench.load(specs).await.unwrap_err();
    let texts: Vec<String> = errors.iter().map(LoadError::to_string).collect();
    for (text, wanted) in texts.iter().zip([
        "used twice",
        "`mask`",
        "`root`",
        "letters, digits",
        "/nonexistent/plugin.wasm",
        "limits.wall",
    ]) {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert_eq!(texts.len(), 6);
}

#[tokio::test]
async fn a_set_that_claims_too_much_of_the_pool_is_refused() {
    let bench = Bench::new();
    let mut greedy = spec("agreeable");
    greedy.limits.concurrency = 33;
    let text = refusal(&bench, greedy).await;
    assert!(text.contains("`limits.concurrency` 33"), "{text}");
}

#[tokio::test]
async fn an_unreadable_source_and_a_private_cache() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agreeable.wasm");
    fs::write(&path, guest::component("agreeable")).unwrap();
    let cache = folder.path().join("cache");
    for start in ["cold", "warm"] {
        let engine = engine(Some(cache.clone())).unwrap();
        let spec = PluginSpec::new("agreeable", PluginSource::Path(path.clone()));
        let set = nowconnect_plugins::PluginSet::load(&engine, vec![spec]).await;
        assert_eq!(set.unwrap().status()[0].name, "agreeable", "{start}");
    }
    assert!(
        fs::read_dir(cache.join("compiled")).unwrap().count() > 0,
        "compiled code is kept"
    );
    fs::write(folder.path().join("file"), "").unwrap();
    let refused = engine(Some(folder.path().join("file")));
    assert!(matches!(refused, Err(EngineError::CacheFolder { .. })));
}

async fn refusal(bench: &Bench, spec: PluginSpec) -> String {
    let errors = bench.load(vec![spec]).await.unwrap_err();
    assert_eq!(errors.len(), 1);
    errors[0].to_string()
}

fn engine(cache_dir: Option<std::path::PathBuf>) -> Result<PluginEngine, EngineError> {
    let settings = EngineSettings {
        cache_dir,
        instances_max: 64,
        ..EngineSettings::default()
    };
    let kv = MemoryKv::new(MemoryKvSettings::default());
    PluginEngine::new(
        settings,
        std::sync::Arc::new(kv),
        std::sync::Arc::new(NoObserver),
    )
}
