//! Plugins narrow what policies allow, and are swapped while traffic runs.

use nowconnect_plugins::signature::{ComponentSignature, SecretKey, SignedAs};

use crate::cluster::{HubPlan, SOON, TestHub, echo, eventually, guest, hub};

#[tokio::test]
async fn a_plugin_swapped_live_turns_the_answer_round() {
    let target = echo().await;
    let mut hub = with_guard(hub().listener("echo"), "echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"allowed").await;

    hub.clear_top();
    hub.rewrite(|plan| with_guard(plan, "another"));
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    assert_eq!(report.generation, 2);
    let mut client = hub.client("echo").await;
    let address = client.stream.local_addr().unwrap();
    client.is_closed().await;
    let record = hub
        .decisions()
        .into_iter()
        .find(|record| record.client == Some(address))
        .expect("the denial should have a record");
    assert_eq!(record.code.as_deref(), Some("listener_connector"));
    assert_eq!(record.plugin.as_ref().unwrap().name.as_ref(), "scope-guard");
    running
        .echoes(b"gates are not asked about running flows")
        .await;

    hub.clear_top();
    hub.rewrite(|plan| with_guard(plan, "echo"));
    assert!(hub.reload().await.ok);
    hub.client("echo").await.echoes(b"allowed again").await;
}

/// What runs is in the scrape with its digest, and nothing else is.
#[tokio::test]
async fn the_plugins_in_force_are_in_the_scrape() {
    let mut hub = with_guard(hub().listener("echo"), "echo").start().await;
    let active = |hub: &TestHub| -> Vec<String> {
        hub.metrics()
            .lines()
            .filter_map(|line| line.strip_prefix("nowconnect_plugin_active"))
            .map(str::to_owned)
            .collect()
    };
    let digest = {
        let generation = hub.running().hub().generations().current();
        generation.plugins().status()[0].digest.clone()
    };
    let guard = format!("{{digest=\"{digest}\",plugin=\"scope-guard\"}} 1");
    assert_eq!(active(&hub), [guard.as_str()]);

    // Another name, the same component.
    hub.clear_top();
    hub.rewrite(|plan| {
        plan.top(&guard_named(
            "second-guard",
            "listeners: {echo: [\"echo\"]}",
        ))
    });
    assert!(hub.reload().await.ok);
    let second = guard.replace("scope-guard", "second-guard");
    assert_eq!(active(&hub), [second.as_str()]);

    // A generation that is refused changes nothing.
    hub.clear_top();
    hub.rewrite(|plan| plan.top("plugins:\n  require_signature: false\n  list:\n    - {name: absent, file: absent.wasm}"));
    assert!(!hub.reload().await.ok);
    assert_eq!(active(&hub), [second.as_str()]);

    hub.clear_top();
    hub.rewrite(|plan| plan);
    assert!(hub.reload().await.ok);
    assert!(active(&hub).is_empty(), "{:?}", active(&hub));
}

/// A signature vouches for old versions as well, so going back to one is told and not refused.
#[tokio::test]
async fn a_reload_tells_of_a_plugin_that_went_back_to_an_earlier_version() {
    let secret = SecretKey::generate().unwrap();
    let component = std::fs::read(guest::component("scope-guard")).unwrap();
    let signed = |version: &str| {
        let signed_as = SignedAs::new("scope-guard", version).unwrap();
        let signature = ComponentSignature::new(&secret, signed_as, &component);
        format!(
            "plugins:\n  trust: [\"{}\"]\n  list:\n    - name: scope-guard\n      file: {}\n      \
             signature: \"{signature}\"\n      grants: [config]\n      \
             config: {{listeners: {{echo: [\"echo\"]}}}}",
            secret.public(),
            guest::component("scope-guard").display(),
        )
    };
    let mut hub = hub().listener("echo").top(&signed("2.1.0")).start().await;
    hub.clear_top();
    hub.rewrite(|plan| plan.top(&signed("2.0.9")));
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    let told = "plugin scope-guard went back from scope-guard 2.1.0 to scope-guard 2.0.9";
    assert!(report.changed.iter().any(|one| one == told), "{report:?}");

    hub.clear_top();
    hub.rewrite(|plan| plan.top(&signed("2.1.1")));
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    assert!(
        !report.changed.iter().any(|one| one.contains("went back")),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_plugin_that_is_refused_keeps_the_whole_generation_out() {
    let target = echo().await;
    let mut hub = hub().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    // No grant for `config`, which the plugin imports.
    hub.rewrite(|plan| {
        plan.top(&format!(
            "plugins:\n  require_signature: false\n  list:\n    - {{name: scope-guard, file: \"{}\"}}",
            guest::component("scope-guard").display()
        ))
    });
    let report = hub.reload().await;
    assert!(!report.ok);
    assert!(report.errors[0].contains("scope-guard"), "{report:?}");
    assert_eq!(report.generation, 1);
    hub.client("echo")
        .await
        .echoes(b"the last good one serves")
        .await;
}

#[tokio::test]
async fn a_plugin_leaves_connectors_out_at_hello() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .top(&guard(
            "connector_names: [\"echo\"], on_bad_connector: leave_out",
        ))
        .start()
        .await;
    let agent = hub
        .agent("plant")
        .target("echo", target.address())
        .target("strange", target.address())
        .ready()
        .await;
    let state = agent.running.state();
    assert_eq!(state.accepted.len(), 1);
    assert_eq!(state.refused[0].connector.as_str(), "strange");
    assert_eq!(state.refused[0].code, "plugin_refused");
}

#[tokio::test]
async fn a_gates_byte_limit_ends_the_flow_with_its_code() {
    let target = echo().await;
    let hub = limited(100_000, 0).await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut small = hub.client("echo").await;
    small.echoes(&[1; 20_000]).await;
    let mut large = hub.client("echo").await;
    large.echoes(&[2; 20_000]).await;
    // Both directions count together.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut large.stream, &[3; 80_000]).await;
    let mut rest = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut large.stream, &mut rest);
    // A reset would do as well as an end.
    let _ = tokio::time::timeout(SOON, ended)
        .await
        .expect("the flow should have ended");
    assert!(rest.len() < 80_000, "{} bytes came back", rest.len());
    small.echoes(&[4; 20_000]).await;
    eventually("the cause is counted", || async {
        hub.metrics()
            .contains("nowconnect_flow_ends_total{cause=\"limit_bytes\"} 1")
    })
    .await;
}

#[tokio::test]
async fn a_gates_time_limit_ends_the_flow_with_its_code() {
    let target = echo().await;
    let hub = limited(0, 1).await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut client = hub.client("echo").await;
    client.echoes(b"within the time").await;
    client.is_closed().await;
    eventually("the cause is counted", || async {
        hub.metrics()
            .contains("nowconnect_flow_ends_total{cause=\"limit_time\"} 1")
    })
    .await;
}

#[tokio::test]
async fn a_plugin_that_traps_after_its_checks_is_told_and_tried_again() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .file("limiter.wasm", guest::trapping())
        .top(
            "plugins:\n  require_signature: false\n  list:\n    \
             - {name: limiter, limits: {time_ms: 1000, wall_ms: 2000, \
             quarantine: {faults: 3, window_ms: 600000, retry_ms: 50}}}\n  \
             pipeline_timeout_ms: 5000",
        )
        .start()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    eventually("it is in quarantine", || async {
        hub.client("echo").await.is_closed().await;
        hub.get("/readyz").await.1.contains("plugin_quarantined")
    })
    .await;
    let told = "nowconnect_plugin_quarantined{plugin=\"limiter\"} 1";
    assert!(hub.metrics().contains(told), "{}", hub.metrics());
    eventually("one call now and then tries it", || async {
        hub.client("echo").await.is_closed().await;
        traps(&hub.metrics()) > 4
    })
    .await;
    std::fs::write(hub.path("limiter.wasm"), guest::limiter(0, 0)).unwrap();
    assert!(hub.reload().await.ok);
    hub.client("echo").await.echoes(b"mended").await;
    let (_, body) = hub.get("/readyz").await;
    assert!(!body.contains("plugin_quarantined"), "{body}");
    assert!(!hub.metrics().contains(told), "{}", hub.metrics());
}

/// Calls that ended in a trap.
fn traps(metrics: &str) -> u64 {
    metrics
        .lines()
        .filter(|line| line.starts_with("nowconnect_plugin_calls_total{"))
        .filter(|line| line.contains("outcome=\"trap\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// A hub whose plugin limits every flow.
async fn limited(max_bytes: u64, max_seconds: u32) -> TestHub {
    hub()
        .listener("echo")
        .file("limiter.wasm", guest::limiter(max_bytes, max_seconds))
        .top(
            "plugins:\n  require_signature: false\n  list:\n    - {name: limiter, limits: {time_ms: 1000, wall_ms: 2000}}\n  \
             pipeline_timeout_ms: 5000",
        )
        .start()
        .await
}

/// The listener `echo` may lead to `connector` and to nothing else.
fn with_guard(plan: HubPlan, connector: &str) -> HubPlan {
    plan.top(&guard(&format!("listeners: {{echo: [\"{connector}\"]}}")))
}

fn guard(config: &str) -> String {
    guard_named("scope-guard", config)
}

fn guard_named(name: &str, config: &str) -> String {
    format!(
        "plugins:\n  require_signature: false\n  list:\n    - name: {name}\n      file: \"{}\"\n      \
         grants: [config]\n      limits: {{time_ms: 1000, wall_ms: 2000}}\n      \
         config: {{{config}}}\n  pipeline_timeout_ms: 5000",
        guest::component("scope-guard").display()
    )
}
