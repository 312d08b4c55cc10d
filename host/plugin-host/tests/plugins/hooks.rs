//! What the chains make of answers.

use std::fs;
use std::time::Duration;

use nowconnect_plugins::{
    Bye, CallInfo, CallOutcome, Carry, Dropped, Edit, HelloOutcome, Hook, HttpRequestOutcome,
    HttpResponseOutcome, Instances, Level, LogEntry, Mode, OpenOutcome, PluginSet, Signals, Terms,
};

use super::harness::{Bench, grants, info, spec};

pub(crate) const GUESTS: &[&str] = &[
    "agreeable",
    "agreeable_0_2",
    "counts_calls",
    "counts_memory",
    "denies",
    "echoes_carry",
    "masks_everything",
    "masks_outside",
    "sets_authorization",
    "signals",
    "uses_everything",
    "widens",
];

#[tokio::test]
async fn a_plugin_for_one_tenant_is_asked_about_no_other_and_never_masks() {
    let bench = Bench::new();
    let mut one = spec("denies");
    one.tenants = vec!["acme".to_owned()];
    let set = bench.load(vec![one]).await.unwrap();
    let of = |tenant: Option<&'static str>| CallInfo { tenant, ..info() };
    for (tenant, denied) in [(Some("acme"), true), (Some("globex"), false), (None, false)] {
        let outcome = bench.open_as(&set, &of(tenant), "public", "db").await;
        assert_eq!(
            matches!(outcome, OpenOutcome::Deny(_)),
            denied,
            "{tenant:?}"
        );
    }
    let mut masks = spec("masks_everything");
    masks.tenants = vec!["acme".to_owned()];
    let set = bench.load(vec![masks]).await.unwrap();
    assert!(!set.has(Hook::Mask));
}

#[tokio::test]
async fn every_hook_has_the_types_of_the_contract_and_is_called() {
    for name in ["agreeable", "agreeable_0_2"] {
        every_hook_is_called(name).await;
    }
}

async fn every_hook_is_called(name: &str) {
    let bench = Bench::new();
    let set = bench.set_of(name).await;
    for hook in Hook::ALL {
        assert!(set.has(hook), "{hook}");
    }
    let HelloOutcome::Accept(welcome) = set.hello(&info(), &bench.hello(&["db"])).await else {
        panic!("it accepts");
    };
    assert!(welcome.accepted.is_empty(), "it accepted no connector");
    assert_eq!(
        welcome.refused,
        [("db".to_owned(), name.replace('_', "-").into())]
    );
    let bye = Bye {
        agent_id: "site-1",
        reason: "shutdown",
        lasted_ms: 1,
        flows: 0,
    };
    set.bye(&info(), &bye, &Carry::default()).await;
    assert_eq!(bench.enrich(&set).await, Signals::default());
    assert_eq!(bench.open(&set).await, OpenOutcome::Allow(Terms::default()));
    bench.close(&set, &Carry::default()).await;
    assert_eq!(
        bench.request(&set).await,
        HttpRequestOutcome::Forward {
            edits: vec![],
            carry: Carry::default()
        }
    );
    let response = bench.response(&set).await;
    assert_eq!(response, HttpResponseOutcome::Forward(vec![]));
    set.mask(&mut [entry("a")]).await;
    let hooks: Vec<Hook> = bench.seen.calls.lock().iter().map(|call| call.0).collect();
    assert_eq!(hooks, Hook::ALL);
    assert!(bench.outcomes().iter().all(|one| *one == CallOutcome::Ok));
}

#[tokio::test]
async fn the_empty_set_allows_and_keeps_everything() {
    let bench = Bench::new();
    let set = PluginSet::empty();
    assert_eq!(bench.open(&set).await, OpenOutcome::Allow(Terms::default()));
    let HelloOutcome::Accept(welcome) = set.hello(&info(), &bench.hello(&["db", "web"])).await
    else {
        panic!("it accepts");
    };
    assert_eq!(welcome.accepted, ["db", "web"]);
    let mut entries = [entry("ann@example.com")];
    set.mask(&mut entries).await;
    assert_eq!(entries, [entry("ann@example.com")]);
}

#[tokio::test]
async fn a_denial_names_its_plugin_and_ends_the_chain() {
    let bench = Bench::new();
    let mut later = spec("agreeable");
    later.order = 1;
    let set = bench.load(vec![later, spec("denies")]).await.unwrap();
    let OpenOutcome::Deny(denial) = bench.open(&set).await else {
        panic!("it denies");
    };
    assert_eq!(&*denial.plugin, "denies");
    assert_eq!(denial.code, "too_late");
    assert_eq!(denial.public, "closed");
    assert_eq!(denial.private, "after\\nhours");
    assert_eq!(bench.outcomes(), [CallOutcome::Deny]);

    let denied = set.hello(&info(), &bench.hello(&["db"])).await;
    assert!(matches!(denied, HelloOutcome::Deny(denial) if denial.code == "too_late"));
}

#[tokio::test]
async fn in_shadow_a_denial_is_recorded_and_not_acted_on() {
    let bench = Bench::new();
    let mut spec = spec("denies");
    spec.mode = Mode::Shadow;
    let set = bench.load(vec![spec]).await.unwrap();
    assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
    assert_eq!(bench.outcomes(), [CallOutcome::Deny]);
}

#[tokio::test]
async fn a_plugin_that_is_off_is_not_called() {
    let bench = Bench::new();
    let mut spec = spec("denies");
    spec.mode = Mode::Off;
    let set = bench.load(vec![spec]).await.unwrap();
    assert!(!set.has(Hook::Open));
    assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
    assert!(bench.outcomes().is_empty());
}

#[tokio::test]
async fn only_configured_hooks_are_called() {
    let bench = Bench::new();
    let mut spec = spec("denies");
    spec.hooks = vec![Hook::Hello];
    let set = bench.load(vec![spec]).await.unwrap();
    assert!(set.has(Hook::Hello) && !set.has(Hook::Open));
}

#[tokio::test]
async fn a_plugin_cannot_accept_what_was_not_announced() {
    let bench = Bench::new();
    let set = bench.set_of("widens").await;
    let HelloOutcome::Accept(welcome) = set.hello(&info(), &bench.hello(&["web", "db"])).await
    else {
        panic!("it accepts");
    };
    assert_eq!(welcome.accepted, ["db"]);
    assert_eq!(welcome.refused, [("web".to_owned(), "widens".into())]);
}

#[tokio::test]
async fn signals_are_prefixed_and_kept_as_granted() {
    let bench = Bench::new();
    let mut spec = spec("signals");
    spec.grants = grants(&["signals:DE"]);
    let set = bench.load(vec![spec]).await.unwrap();
    let found = bench.enrich(&set).await;
    assert_eq!(found.signals, ["signals/DE"]);
    assert!(found.missing.is_empty());
    assert_eq!(*bench.seen.dropped.lock(), [(Dropped::Signals, 1)]);
}

#[tokio::test]
async fn an_enricher_that_fails_is_missing() {
    let bench = Bench::new();
    let set = bench.set_of("trap").await;
    let found = bench.enrich(&set).await;
    assert!(found.signals.is_empty());
    assert_eq!(found.missing, ["trap"]);
}

#[tokio::test]
async fn an_edit_without_a_grant_is_a_fault_that_names_the_grant() {
    let bench = Bench::new();
    let mut broad = spec("sets_authorization");
    broad.grants = grants(&["headers.set:*"]);
    let set = bench.load(vec![broad]).await.unwrap();
    let outcome = bench.request(&set).await;
    assert!(
        matches!(outcome, HttpRequestOutcome::Failed(denial) if denial.code == "plugin_failed")
    );
    assert_eq!(bench.outcomes(), [CallOutcome::BadOutput]);
    let detail = bench.last_detail();
    assert!(detail.contains("headers.set:authorization"), "{detail}");

    let mut exact = spec("sets_authorization");
    exact.grants = grants(&["headers.set:authorization"]);
    let set = bench.load(vec![exact]).await.unwrap();
    let HttpRequestOutcome::Forward { edits, .. } = bench.request(&set).await else {
        panic!("it is granted");
    };
    assert_eq!(
        edits,
        [Edit::Set(("authorization".to_owned(), b"x".to_vec()))]
    );
}

#[tokio::test]
async fn a_failed_http_plugin_answers_in_place_of_the_origin() {
    let bench = Bench::new();
    let set = bench.set_of("trap").await;
    let outcome = bench.request(&set).await;
    assert!(
        matches!(outcome, HttpRequestOutcome::Failed(denial) if denial.code == "plugin_failed")
    );
}

#[tokio::test]
async fn what_a_plugin_carries_comes_back_to_it() {
    let bench = Bench::new();
    let mut spec = spec("echoes_carry");
    spec.grants = grants(&["log"]);
    let set = bench.load(vec![spec]).await.unwrap();
    let OpenOutcome::Allow(terms) = bench.open(&set).await else {
        panic!("it allows");
    };
    assert!(!terms.carry.is_empty());
    bench.close(&set, &terms.carry).await;
    assert_eq!(*bench.seen.log_lines.lock(), ["k"]);
}

#[tokio::test]
async fn a_plugin_that_fails_when_told_is_counted_and_nothing_else() {
    let bench = Bench::new();
    let set = bench.set_of("trap").await;
    bench.close(&set, &Carry::default()).await;
    assert_eq!(bench.outcomes(), [CallOutcome::Trap]);
}

#[tokio::test]
async fn each_call_has_a_fresh_memory() {
    let bench = Bench::new();
    let set = bench.set_of("counts_memory").await;
    for _ in 0..20 {
        assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
    }
}

#[tokio::test]
async fn every_capability_does_what_the_contract_says() {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("motd"), "be kind").unwrap();
    let bench = Bench::new();
    let mut spec = spec("uses_everything");
    spec.grants = grants(&["log", "config", "kv", "clock", "metrics", "data"]);
    spec.config = serde_json::json!({"greeting": "hello"});
    spec.data = Some(data.path().to_owned());
    let set = bench.load(vec![spec]).await.unwrap();
    let outcome = bench.open(&set).await;
    assert!(matches!(outcome, OpenOutcome::Allow(_)), "{outcome:?}");
    assert_eq!(*bench.seen.log_lines.lock(), ["hello", "be kind", "motd"]);
    let metrics = bench.seen.metrics.lock().clone();
    assert_eq!(metrics, ["seen 3", "seen 0.5"]);
}

#[tokio::test]
async fn masks_cover_what_they_name() {
    let bench = Bench::new();
    let set = bench.set_of("masks_everything").await;
    let mut entries = [entry("one"), entry("two")];
    let masked = set.mask(&mut entries).await;
    assert_eq!(masked.covered, 1);
    assert_eq!(entries[0].message, "***");
    assert_eq!(entries[1].message, "two");
}

#[tokio::test]
async fn a_large_batch_is_masked_in_parts() {
    let bench = Bench::new();
    let set = bench.set_of("masks_everything").await;
    let mut entries = vec![entry("x"); 600];
    let masked = set.mask(&mut entries).await;
    assert_eq!(masked.covered, 3, "one of each part of 256");
    assert_eq!(bench.outcomes().len(), 3);
}

#[tokio::test]
async fn a_masker_that_fails_lets_nothing_out() {
    for name in ["trap", "masks_outside"] {
        let bench = Bench::new();
        let mut spec = spec(name);
        spec.optional = true;
        let set = bench.load(vec![spec]).await.unwrap();
        let mut entries = [entry("ann@example.com")];
        let masked = set.mask(&mut entries).await;
        assert!(masked.erased_by_failure, "{name}");
        assert_eq!(entries[0].message, "***");
        assert_eq!(entries[0].fields, [("user".to_owned(), "***".to_owned())]);
        assert_eq!(entries[0].target, "test");
    }
}

/// Records are of all tenants, and the default tenant's calls are not.
#[tokio::test]
async fn what_a_masker_keeps_is_of_no_tenant() {
    for instances in [
        Instances::Fresh,
        Instances::Warm {
            max_calls: 100,
            max_idle: Duration::from_secs(60),
        },
    ] {
        let bench = Bench::new();
        let mut spec = spec("counts_calls");
        spec.grants = grants(&["log", "kv"]);
        spec.instances = instances;
        let set = bench.load(vec![spec]).await.unwrap();
        assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
        for _ in 0..2 {
            set.mask(&mut [entry("one")]).await;
        }
        assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
        assert_eq!(*bench.seen.log_lines.lock(), ["1", "1", "2", "2"]);
        let made = *bench.seen.instances_made.lock();
        let fresh = instances == Instances::Fresh;
        assert_eq!(made, if fresh { 4 } else { 2 }, "{instances:?}");
    }
}

fn entry(message: &str) -> LogEntry {
    LogEntry {
        level: Level::Info,
        target: "test".to_owned(),
        message: message.to_owned(),
        fields: vec![("user".to_owned(), message.to_owned())],
    }
}
