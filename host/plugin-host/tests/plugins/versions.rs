//! Two versions of the contract, served at once.

use nowconnect_plugins::{
    CallInfo, CallOutcome, Capability, ContractVersion, Hook, HttpRequestOutcome,
    HttpResponseOutcome, OpenOutcome,
};

use super::guest;
use super::harness::{Bench, grants, info, spec};

pub(crate) const GUESTS: &[&str] = &[
    "answers_0_2",
    "carries_0_2",
    "counts_text_0_2",
    "speaks_both",
];

#[tokio::test]
async fn a_component_is_inspected_without_grants() {
    let bench = Bench::new();
    let inspect = |name| bench.engine.inspect(guest::component(name).to_vec());
    let both = inspect("speaks_both").await.unwrap();
    assert_eq!(both.hooks, [(Hook::Open, ContractVersion::V0_2)]);
    assert_eq!(both.capabilities, [Capability::Log]);
    assert!(both.unknown.is_empty() && !both.wasi);
    let wrong = inspect("wrong_version").await.unwrap();
    assert_eq!(wrong.unknown, ["nowconnect:plugin/log@0.3.0"]);
    assert!(inspect("exits").await.unwrap().wasi);
    assert!(bench.engine.inspect(b"(component)".to_vec()).await.is_err());
}

#[tokio::test]
async fn one_chain_asks_plugins_of_both_versions() {
    let bench = Bench::new();
    let specs = vec![spec("agreeable"), spec("agreeable_0_2")];
    let set = bench.load(specs).await.unwrap();
    assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
    assert_eq!(bench.outcomes(), [CallOutcome::Ok, CallOutcome::Ok]);
}

#[tokio::test]
async fn what_an_enricher_carries_reaches_every_later_hook_of_the_flow() {
    let bench = Bench::new();
    let mut spec = spec("carries_0_2");
    spec.grants = grants(&["log"]);
    let set = bench.load(vec![spec]).await.unwrap();
    let found = bench.enrich(&set).await;
    assert!(!found.carry.is_empty(), "{}", bench.last_detail());
    let info = CallInfo {
        carry: Some(&found.carry),
        generation: 7,
        ..info()
    };
    let OpenOutcome::Allow(terms) = bench.open_as(&set, &info, "public", "db").await else {
        panic!("it allows: {}", bench.last_detail());
    };
    assert_eq!(terms.carry, found.carry, "an empty carry leaves the older");
    bench.close(&set, &terms.carry).await;
    assert_eq!(*bench.seen.log_lines.lock(), ["k", "k"]);
}

#[tokio::test]
async fn answers_that_only_the_newer_version_knows() {
    let bench = Bench::new();
    let set = bench.set_of("answers_0_2").await;
    let HttpRequestOutcome::Deny(denial) = bench.request(&set).await else {
        panic!("it denies: {}", bench.last_detail());
    };
    assert_eq!(
        (&*denial.plugin, &*denial.code),
        ("answers-0-2", "too_late")
    );
    let HttpResponseOutcome::Reply { status, body, .. } = bench.response(&set).await else {
        panic!("it replies: {}", bench.last_detail());
    };
    assert_eq!((status, &*body), (451, &b"closed"[..]));
    let OpenOutcome::Deny(denial) = bench.open(&set).await else {
        panic!("it fails");
    };
    assert_eq!(denial.code, "plugin_failed");
    assert_eq!(bench.last_detail(), "no_db: it is gone");
    let outcomes = [CallOutcome::Deny, CallOutcome::Deny, CallOutcome::Error];
    assert_eq!(bench.outcomes(), outcomes);
}

#[tokio::test]
async fn failures_of_kv_are_codes() {
    let bench = Bench::new();
    let mut spec = spec("counts_text_0_2");
    spec.grants = grants(&["log", "kv"]);
    let set = bench.load(vec![spec]).await.unwrap();
    let opened = bench.open(&set).await;
    assert!(matches!(opened, OpenOutcome::Allow(_)), "{opened:?}");
    let lines = bench.seen.log_lines.lock().clone();
    assert_eq!(lines, ["not_a_counter", "bad_ttl"]);
}

#[tokio::test]
async fn of_a_plugin_for_several_versions_the_newest_is_called() {
    let bench = Bench::new();
    let mut spec = spec("speaks_both");
    spec.grants = grants(&["log"]);
    let set = bench.load(vec![spec]).await.unwrap();
    let opened = bench.open(&set).await;
    assert!(matches!(opened, OpenOutcome::Allow(_)), "{opened:?}");
    assert_eq!(*bench.seen.log_lines.lock(), ["1", "2"]);
}
