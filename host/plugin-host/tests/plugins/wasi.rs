//! WASI with its doors closed, and only where it is granted.

use std::time::Duration;

use nowconnect_plugins::{CallOutcome, OpenOutcome};

use super::harness::{Bench, grants, spec};

pub(crate) const GUESTS: &[&str] = &["exits", "hoards", "prints", "sleeps", "wasi_http"];

#[tokio::test]
async fn wasi_is_refused_with_the_way_out() {
    let bench = Bench::new();
    let errors = bench.load(vec![spec("exits")]).await.unwrap_err();
    let text = errors[0].to_string();
    assert!(text.contains("`wasi:cli/exit@0.2.0`"), "{text}");
    assert!(text.contains("wasm32-unknown-unknown"), "{text}");
    assert!(text.ends_with("grants: [wasi]"), "{text}");
}

#[tokio::test]
async fn what_reaches_outside_is_never_offered() {
    let bench = Bench::new();
    let mut spec = spec("wasi_http");
    spec.grants = grants(&["wasi"]);
    let errors = bench.load(vec![spec]).await.unwrap_err();
    let text = errors[0].to_string();
    assert!(
        text.contains("`wasi:http/outgoing-handler@0.2.6`"),
        "{text}"
    );
    assert!(text.contains("does not offer"), "{text}");
}

#[tokio::test]
async fn behind_wasi_there_is_nothing_and_what_is_printed_is_logged() {
    let bench = Bench::new();
    let mut spec = spec("prints");
    spec.grants = grants(&["wasi"]);
    let set = bench.load(vec![spec]).await.unwrap();
    let outcome = bench.open(&set).await;
    assert!(matches!(outcome, OpenOutcome::Allow(_)), "{outcome:?}");
    assert_eq!(*bench.seen.log_lines.lock(), ["one", "two\\u{1b}[2J"]);
}

#[tokio::test]
async fn an_exit_is_a_trap() {
    let outcomes = fails("exits", |_| {}).await;
    assert_eq!(outcomes, (CallOutcome::Trap, "it exited with 1".to_owned()));
}

#[tokio::test]
async fn a_sleep_is_cut_off_by_the_wall_time() {
    let (outcome, _) = fails("sleeps", |wall| *wall = Duration::from_millis(100)).await;
    assert_eq!(outcome, CallOutcome::Timeout);
}

#[tokio::test]
async fn what_the_host_keeps_for_a_guest_is_bounded() {
    let (outcome, detail) = fails("hoards", |_| {}).await;
    assert_ne!(outcome, CallOutcome::Timeout, "{detail}");
}

async fn fails(name: &str, limit: impl FnOnce(&mut Duration)) -> (CallOutcome, String) {
    let bench = Bench::new();
    let mut spec = spec(name);
    spec.grants = grants(&["wasi"]);
    limit(&mut spec.limits.wall_time);
    let set = bench.load(vec![spec]).await.unwrap();
    let outcome = bench.open(&set).await;
    assert!(matches!(outcome, OpenOutcome::Deny(denial) if denial.code == "plugin_failed"));
    (bench.outcomes()[0], bench.last_detail())
}
