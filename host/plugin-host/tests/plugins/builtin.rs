//! The built-in plugins, as the build script makes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nowconnect_plugins::{
    CallInfo, CallOutcome, Edit, Head, HelloOutcome, HttpRequest, HttpRequestOutcome, Level,
    LogEntry, Open, OpenOutcome, PluginSet, PluginSource, PluginSpec,
};
use serde_json::{Value, json};

use super::harness::{Bench, grants, info};

#[tokio::test]
async fn scope_guard_narrows_a_hello_and_guards_listeners() {
    let bench = Bench::new();
    let config = json!({
        "connector_names": ["{agent}-*"],
        "listeners": {"public*": ["site-1-web"]},
    });
    let set = load(&bench, "scope-guard", &["config"], config).await;
    let announced = ["site-1-db", "site-2-db"];
    let HelloOutcome::Accept(welcome) = set.hello(&info(), &bench.hello(&announced)).await else {
        panic!("it joins");
    };
    assert_eq!(welcome.accepted, ["site-1-db"]);

    let OpenOutcome::Deny(denial) = bench.open_on(&set, "public-1", "site-1-db").await else {
        panic!("that listener does not lead there");
    };
    assert_eq!(denial.code, "listener_connector");
    let allowed = bench.open_on(&set, "public-1", "site-1-web").await;
    assert!(matches!(allowed, OpenOutcome::Allow(_)));
}

#[tokio::test]
async fn rate_limit_counts_per_tenant_and_across_reloads() {
    let bench = Bench::new();
    let config = |flows: u32| {
        let limit = json!({"per": ["client_ip"], "flows": flows, "window_seconds": 3600});
        json!({"limits": [limit]})
    };
    let set = load(&bench, "rate-limit", &["config", "kv"], config(2)).await;
    assert!(allows(&bench, &set, None).await);
    assert!(allows(&bench, &set, None).await);
    assert!(!allows(&bench, &set, None).await);
    assert!(
        allows(&bench, &set, Some("acme")).await,
        "tenants are counted apart"
    );

    let reloaded = load(&bench, "rate-limit", &["config", "kv"], config(3)).await;
    assert!(
        !allows(&bench, &reloaded, None).await,
        "three were counted before"
    );
    let deny = bench
        .outcomes()
        .iter()
        .filter(|one| **one == CallOutcome::Deny)
        .count();
    assert_eq!(deny, 2);
}

#[tokio::test]
async fn header_inject_tells_the_origin_who_asks() {
    let mut bench = Bench::new();
    bench.agent.attributes = vec![("ip".to_owned(), "198.51.100.23".to_owned())];
    let granted = [
        "config",
        "headers.set:x-forwarded-for, x-netbore-*, datum-*, x-tenant-*",
        "headers.remove:x-netbore-*, datum-*, x-tenant-*",
    ];
    let config = json!({"datum": true, "set": {"x-tenant-user": "{viewer.subject}"}});
    let set = load(&bench, "header-inject", &granted, config).await;
    let headers = [
        ("x-forwarded-for".to_owned(), b"10.9.9.9".to_vec()),
        ("x-tenant-user".to_owned(), b"root".to_vec()),
    ];
    let HttpRequestOutcome::Forward { edits, .. } = request(&bench, &set, &headers).await else {
        panic!("it forwards: {}", bench.last_detail());
    };
    let mut headers = headers.to_vec();
    edits.iter().for_each(|edit| edit.apply(&mut headers));
    headers.sort_unstable();
    let expected = [
        ("datum-node-id", "site-1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-netbore-agent-ip", "198.51.100.0"),
        ("x-netbore-client-ip", "192.0.2.1"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    assert_eq!(headers, expected);
    assert!(edits.contains(&Edit::Remove("x-tenant-user".to_owned())));
}

#[tokio::test]
async fn log_mask_covers_people_and_secrets() {
    let bench = Bench::new();
    let set = load(&bench, "log-mask", &["config"], json!({})).await;
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let entry = |user: &str| LogEntry {
        level: Level::Info,
        target: "hub".to_owned(),
        message: "connection open".to_owned(),
        fields: vec![
            field("user", user),
            field("token", "Bearer abc"),
            field("connector", "db"),
        ],
    };
    let mut entries = [
        entry("ann@example.com"),
        entry("bob@example.com"),
        entry("ann@example.com"),
    ];
    let masked = set.mask(&mut entries).await;
    assert_eq!((masked.covered, masked.erased_by_failure), (6, false));
    let user = |entry: &LogEntry| entry.fields[0].1.clone();
    assert!(user(&entries[0]).starts_with("hash:"));
    assert_eq!(user(&entries[0]), user(&entries[2]));
    assert_ne!(user(&entries[0]), user(&entries[1]));
    assert_eq!(entries[0].message, "connection open");
    assert_eq!(entries[0].fields[1].1, "***");
    assert_eq!(entries[0].fields[2].1, "db");
}

#[tokio::test]
async fn each_refuses_settings_that_it_does_not_know() {
    let bench = Bench::new();
    for (name, needs) in PLUGINS {
        let spec = spec(name, needs, json!({"no_such_setting": 1}));
        let errors = bench.load(vec![spec]).await.unwrap_err();
        let text = errors[0].to_string();
        assert!(text.contains("no_such_setting"), "{text}");
    }
}

/// The manifest is what an operator reads before he grants anything, so it must be true.
#[tokio::test]
async fn manifests_say_what_the_components_do() {
    let bench = Bench::new();
    for (name, needs) in PLUGINS {
        let folder = repository().join("plugins").join(name);
        let manifest = fs::read_to_string(folder.join("plugin.toml")).unwrap();
        let line = |key: &str| {
            let prefix = format!("{key} = ");
            let line = manifest.lines().find_map(|line| line.strip_prefix(&prefix));
            serde_json::from_str::<Value>(line.unwrap()).unwrap()
        };
        assert_eq!(line("name"), *name);
        assert_eq!(line("imports"), json!(needs));
        let errors = bench
            .load(vec![spec(name, &[], json!({}))])
            .await
            .unwrap_err();
        let text = errors[0].to_string();
        assert!(
            text.ends_with(&format!("grants: [{}]", needs.join(", "))),
            "{text}"
        );
        let config = if *name == "rate-limit" {
            json!({"limits": [{"flows": 1, "window_seconds": 1}]})
        } else {
            json!({})
        };
        let set = load(&bench, name, needs, config).await;
        let hooks: Vec<&str> = set.status()[0]
            .hooks
            .iter()
            .map(|hook| hook.as_str())
            .collect();
        assert_eq!(line("hooks"), json!(hooks));
        let schema = fs::read_to_string(folder.join(line("config_schema").as_str().unwrap()));
        serde_json::from_str::<Value>(&schema.unwrap()).unwrap();
    }
}

/// The built-in plugins and the capabilities that they import.
const PLUGINS: &[(&str, &[&str])] = &[
    ("geo-signal", &["log", "config"]),
    ("header-inject", &["config"]),
    ("jwt-claims-header", &["log", "config"]),
    ("log-mask", &["config"]),
    ("pii-mask", &["log", "config"]),
    ("rate-limit", &["config", "kv"]),
    ("scope-guard", &["config"]),
];

async fn load(bench: &Bench, name: &str, granted: &[&str], config: Value) -> PluginSet {
    let loaded = bench.load(vec![spec(name, granted, config)]).await;
    loaded.unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn spec(name: &str, granted: &[&str], config: Value) -> PluginSpec {
    let path = repository().join(format!("plugins/target/components/{name}.wasm"));
    assert!(
        path.exists(),
        "{} is not there; run scripts/build-guests.sh first",
        path.display()
    );
    let mut spec = PluginSpec::new(name, PluginSource::Path(path));
    spec.grants = grants(granted);
    spec.config = config;
    spec.limits.guest_time = Duration::from_secs(5);
    spec.limits.wall_time = Duration::from_secs(20);
    spec
}

async fn allows(bench: &Bench, set: &PluginSet, tenant: Option<&str>) -> bool {
    let open = Open {
        connector: "db",
        listener: "public",
        peer: &bench.peer,
        viewer: &bench.viewer,
        agent: &bench.agent,
        via_mesh: false,
    };
    let info = CallInfo { tenant, ..info() };
    match set.open(&info, &open).await {
        OpenOutcome::Allow(_) => true,
        OpenOutcome::Deny(denial) => {
            assert_eq!(denial.code, "rate_limited", "{}", denial.private);
            false
        }
    }
}

async fn request(
    bench: &Bench,
    set: &PluginSet,
    headers: &[(String, Vec<u8>)],
) -> HttpRequestOutcome {
    let request = HttpRequest {
        head: Head {
            method: "GET",
            scheme: "https",
            authority: "app.example",
            path_with_query: "/",
            headers,
        },
        peer: &bench.peer,
        viewer: &bench.viewer,
        agent: &bench.agent,
        endpoint: "app",
        connector: "web",
    };
    set.http_request(&info(), &request).await
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
