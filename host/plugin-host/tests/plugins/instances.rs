//! Kept instances, and sets that come and go.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nowconnect_plugins::{CallInfo, Instances, OpenOutcome, PluginSet, PluginSpec};

use super::harness::{Bench, grants, info, spec};

pub(crate) const GUESTS: &[&str] = &["remembers"];

#[tokio::test]
async fn a_kept_instance_serves_so_many_calls() {
    let bench = Bench::new();
    let set = bench
        .load(vec![warm(3, Duration::from_secs(60))])
        .await
        .unwrap();
    for _ in 0..5 {
        assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
    }
    assert_eq!(*bench.seen.log_lines.lock(), ["1", "2", "3", "1", "2"]);
    assert_eq!(*bench.seen.instances_made.lock(), 2);
}

#[tokio::test]
async fn a_kept_instance_is_dropped_when_it_fails() {
    let bench = Bench::new();
    let set = bench
        .load(vec![warm(100, Duration::from_secs(60))])
        .await
        .unwrap();
    assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
    let failed = bench.open_on(&set, "public", "x").await;
    assert!(matches!(failed, OpenOutcome::Deny(_)));
    assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
    assert_eq!(*bench.seen.log_lines.lock(), ["1", "2", "1"]);
}

#[tokio::test]
async fn a_kept_instance_serves_one_tenant() {
    let bench = Bench::new();
    let set = bench
        .load(vec![warm(100, Duration::from_secs(60))])
        .await
        .unwrap();
    for tenant in [None, Some("acme"), None, Some("acme")] {
        let info = CallInfo { tenant, ..info() };
        let opened = bench.open_as(&set, &info, "public", "db").await;
        assert!(matches!(opened, OpenOutcome::Allow(_)));
    }
    assert_eq!(*bench.seen.log_lines.lock(), ["1", "1", "2", "2"]);
}

#[tokio::test]
async fn kept_instances_never_take_more_than_the_plugins_concurrency() {
    let bench = Bench::new();
    let mut spec = warm(100, Duration::from_secs(60));
    spec.limits.concurrency = 2;
    let set = bench.load(vec![spec]).await.unwrap();
    // Three tenants take turns; the oldest of two kept instances makes room each time.
    for tenant in ["a", "b", "c", "a", "c"] {
        let info = CallInfo {
            tenant: Some(tenant),
            ..info()
        };
        let opened = bench.open_as(&set, &info, "public", "db").await;
        assert!(matches!(opened, OpenOutcome::Allow(_)));
    }
    assert_eq!(*bench.seen.log_lines.lock(), ["1", "1", "1", "1", "2"]);
}

#[tokio::test]
async fn a_kept_instance_goes_after_some_time_without_a_call() {
    let bench = Bench::new();
    let set = bench
        .load(vec![warm(100, Duration::from_millis(20))])
        .await
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while *bench.seen.instances_made.lock() < 2 {
        assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(Instant::now() < deadline, "it was kept for 20 s");
    }
}

#[tokio::test]
async fn fresh_instances_are_the_default() {
    let bench = Bench::new();
    let mut spec = spec("remembers");
    spec.grants = grants(&["log"]);
    let set = bench.load(vec![spec]).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
    }
    assert_eq!(*bench.seen.log_lines.lock(), ["1", "1", "1"]);
}

/// Any executor may carry a call from one thread to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_the_old_set_end_well_while_the_new_one_serves() {
    let bench = Arc::new(Bench::new());
    let mut slow = spec("endless_loop");
    slow.limits.guest_time = Duration::from_millis(300);
    let old = Arc::new(bench.load(vec![slow]).await.unwrap());
    let call = tokio::spawn({
        let (bench, old) = (Arc::clone(&bench), Arc::clone(&old));
        async move { bench.open(&old).await }
    });
    let new = bench.set_of("agreeable").await;
    drop(old);
    assert!(matches!(bench.open(&new).await, OpenOutcome::Allow(_)));
    let ended = call.await.unwrap();
    assert!(matches!(ended, OpenOutcome::Deny(denial) if denial.code == "plugin_failed"));
}

/// A plugin that gets through every check and then fails each call harms nobody but itself.
#[tokio::test]
async fn a_plugin_that_passes_its_checks_and_always_traps_ends_in_quarantine() {
    let bench = Bench::new();
    let mut optional = spec("trap");
    optional.optional = true;
    let set = bench.load(vec![optional, spec("agreeable")]).await.unwrap();
    for _ in 0..50 {
        assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
    }
    let quarantined: Vec<bool> = set.status().iter().map(|one| one.quarantined).collect();
    assert_eq!(quarantined, [false, true], "the agreeable one comes first");
}

#[tokio::test]
#[ignore = "slow: 10,000 swaps"]
async fn memory_does_not_grow_over_ten_thousand_swaps() {
    let bench = Bench::new();
    let mut current = None;
    let mut swap = async |round: u32| {
        let mut one = warm(100, Duration::from_secs(60));
        // Each set is different, so that nothing is taken over from the one before.
        one.config = serde_json::json!({"round": round});
        let set = bench.load(vec![one, spec("agreeable_0_2")]).await.unwrap();
        assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
        bench.seen.log_lines.lock().clear();
        bench.seen.calls.lock().clear();
        current = Some::<PluginSet>(set);
    };
    for round in 0..1_000 {
        swap(round).await;
    }
    let before = resident_kib();
    for round in 1_000..10_000 {
        swap(round).await;
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(
        grown < 4 * 1024,
        "{grown} KiB more after 9,000 swaps, {before} KiB before"
    );
    assert_eq!(current.map(|set| set.status().len()), Some(2));
}

fn warm(max_calls: u32, max_idle: Duration) -> PluginSpec {
    let mut spec = spec("remembers");
    spec.grants = grants(&["log"]);
    spec.instances = Instances::Warm {
        max_calls,
        max_idle,
    };
    spec
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
