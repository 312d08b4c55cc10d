//! What a hostile or broken guest does stays its own: it is ended, named and counted, and the
//! hook's failure mode applies.

use std::time::Duration;

use nowconnect_plugins::{CallOutcome, Dropped, LoadProblem, OpenOutcome, PluginSpec};

use super::harness::{Bench, grants, spec};

pub(crate) const GUESTS: &[&str] = &[
    "bad_denial_code",
    "deep_recursion",
    "endless_allocation",
    "endless_loop",
    "endless_start",
    "flood_of_logs",
    "giant_output",
    "many_attributes",
    "trap",
    "undeclared_import",
    "unknown_import",
    "wrong_version",
];

#[tokio::test]
async fn an_endless_loop_is_ended_by_its_guest_time() {
    let bench = Bench::new();
    let set = bench.load(vec![impatient("endless_loop")]).await.unwrap();
    assert_failed(&bench.open(&set).await);
    assert_eq!(bench.outcomes(), [CallOutcome::Timeout]);
    assert!(
        bench.last_detail().contains("computed"),
        "{}",
        bench.last_detail()
    );
}

#[tokio::test]
async fn an_endless_loop_is_ended_by_its_wall_time() {
    let bench = Bench::new();
    let mut spec = spec("endless_loop");
    spec.limits.wall_time = Duration::from_millis(20);
    let set = bench.load(vec![spec]).await.unwrap();
    assert_failed(&bench.open(&set).await);
    assert_eq!(bench.outcomes(), [CallOutcome::Timeout]);
    assert!(
        bench.last_detail().contains("wall time"),
        "{}",
        bench.last_detail()
    );
}

#[tokio::test(flavor = "current_thread")]
async fn an_endless_loop_leaves_its_thread_to_others() {
    let bench = Bench::new();
    let mut spec = spec("endless_loop");
    spec.limits.guest_time = Duration::from_millis(200);
    let set = bench.load(vec![spec]).await.unwrap();
    let mut turns = 0;
    let others = async {
        loop {
            turns += 1;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = bench.open(&set) => assert_failed(&outcome),
        () = others => {}
    }
    assert!(
        turns > 3,
        "the executor's thread was given back {turns} times"
    );
}

#[tokio::test]
async fn a_plugin_that_computes_without_end_when_made_is_refused() {
    let bench = Bench::new();
    let errors = bench.load(vec![impatient("endless_start")]).await;
    let text = errors.unwrap_err()[0].to_string();
    assert!(text.contains("timeout"), "{text}");
}

#[tokio::test]
async fn endless_allocation_is_out_of_memory() {
    let bench = Bench::new();
    let mut spec = spec("endless_allocation");
    spec.limits.memory_bytes = 4 * 1024 * 1024;
    let set = bench.load(vec![spec]).await.unwrap();
    assert_failed(&bench.open(&set).await);
    assert_eq!(bench.outcomes(), [CallOutcome::Oom]);
}

#[tokio::test]
async fn deep_recursion_traps() {
    let bench = Bench::new();
    let set = bench.set_of("deep_recursion").await;
    assert_failed(&bench.open(&set).await);
    assert_eq!(bench.outcomes(), [CallOutcome::Trap]);
    assert!(
        bench.last_detail().contains("stack"),
        "{}",
        bench.last_detail()
    );
}

#[tokio::test]
async fn a_trap_is_a_trap() {
    let bench = Bench::new();
    let set = bench.set_of("trap").await;
    assert_failed(&bench.open(&set).await);
    assert_eq!(bench.outcomes(), [CallOutcome::Trap]);
}

#[tokio::test]
async fn many_attributes_of_one_plugin_leave_no_room_for_those_of_the_next() {
    let bench = Bench::new();
    let mut second = spec("many_attributes");
    second.name = "second".to_owned();
    let set = bench
        .load(vec![spec("many_attributes"), second])
        .await
        .unwrap();
    let alone = bench.set_of("many_attributes").await;
    let OpenOutcome::Allow(terms) = bench.open(&alone).await else {
        panic!("one alone is within its bound");
    };
    assert_eq!(terms.attributes.len(), 8);
    let OpenOutcome::Deny(denial) = bench.open(&set).await else {
        panic!("an OPEN could not carry both");
    };
    assert_eq!(
        (&*denial.plugin, &*denial.code),
        ("second", "plugin_failed")
    );
    assert_eq!(bench.outcomes().last(), Some(&CallOutcome::BadOutput));
}

#[tokio::test]
async fn giant_output_is_refused_before_it_is_copied() {
    let bench = Bench::new();
    let set = bench.set_of("giant_output").await;
    assert_failed(&bench.open(&set).await);
    assert_eq!(bench.outcomes(), [CallOutcome::BadOutput]);
}

#[tokio::test]
async fn a_denial_without_a_code_is_no_answer() {
    let bench = Bench::new();
    let set = bench.set_of("bad_denial_code").await;
    assert_failed(&bench.open(&set).await);
    assert_eq!(bench.outcomes(), [CallOutcome::BadOutput]);
}

#[tokio::test]
async fn a_flood_of_logs_is_cut_and_counted() {
    let bench = Bench::new();
    let mut spec = spec("flood_of_logs");
    spec.grants = grants(&["log"]);
    let set = bench.load(vec![spec]).await.unwrap();
    assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
    let lines = bench.seen.log_lines.lock().clone();
    assert_eq!(lines.len(), 32);
    assert_eq!(
        lines[0], "line\\u{1b}[2J",
        "control characters are shown, not sent"
    );
    assert_eq!(*bench.seen.dropped.lock(), [(Dropped::LogLines, 968)]);
}

#[tokio::test]
async fn an_import_without_a_grant_names_the_line_to_paste() {
    let bench = Bench::new();
    let errors = bench
        .load(vec![spec("undeclared_import")])
        .await
        .unwrap_err();
    assert_eq!(errors.len(), 1);
    let text = errors[0].to_string();
    assert!(text.contains("`kv`"), "{text}");
    assert!(text.ends_with("grants: [kv]"), "{text}");

    let mut granted = spec("undeclared_import");
    granted.grants = grants(&["kv"]);
    let set = bench.load(vec![granted]).await.unwrap();
    assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
}

#[tokio::test]
async fn another_version_of_the_contract_is_refused_with_both_versions() {
    let text = refusal("wrong_version").await;
    assert!(text.contains("`nowconnect:plugin/log@0.3.0`"), "{text}");
    assert!(
        text.contains("this hub serves nowconnect:plugin 0.1.0 and 0.2.0"),
        "{text}"
    );
}

#[tokio::test]
async fn an_unknown_import_is_refused() {
    let text = refusal("unknown_import").await;
    assert!(text.contains("`acme:machine/root`"), "{text}");
}

#[tokio::test]
async fn a_plugin_that_keeps_failing_is_quarantined_across_reloads() {
    let bench = Bench::new();
    let set = bench.set_of("trap").await;
    for _ in 0..5 {
        assert_failed(&bench.open(&set).await);
    }
    assert_eq!(*bench.seen.quarantine.lock(), [true]);
    assert_failed(&bench.open(&set).await);
    assert_eq!(bench.outcomes().last(), Some(&CallOutcome::Shed));

    let reloaded = bench.set_of("trap").await;
    assert!(
        reloaded.status()[0].quarantined,
        "an unchanged plugin keeps its quarantine"
    );
    let mut changed = spec("trap");
    changed.optional = true;
    let changed = bench.load(vec![changed]).await.unwrap();
    assert!(
        !changed.status()[0].quarantined,
        "a changed one gets a new chance"
    );
}

#[tokio::test]
async fn an_optional_plugin_that_fails_is_skipped() {
    let bench = Bench::new();
    let mut spec = spec("trap");
    spec.optional = true;
    let set = bench.load(vec![spec]).await.unwrap();
    assert!(matches!(bench.open(&set).await, OpenOutcome::Allow(_)));
    assert_eq!(bench.outcomes(), [CallOutcome::Trap]);
}

#[tokio::test]
async fn a_slow_plugin_sheds_only_itself() {
    let bench = Bench::new();
    let mut slow = spec("endless_loop");
    slow.limits.concurrency = 1;
    slow.limits.guest_time = Duration::from_secs(10);
    slow.limits.wall_time = Duration::from_millis(300);
    slow.limits.queue_time = Duration::from_millis(10);
    let slow = bench.load(vec![slow]).await.unwrap();
    let well = bench.set_of("agreeable").await;
    let (first, second, other) =
        tokio::join!(bench.open(&slow), bench.open(&slow), bench.open(&well));
    assert_failed(&first);
    assert_failed(&second);
    assert!(matches!(other, OpenOutcome::Allow(_)));
    let mut outcomes = bench.outcomes();
    outcomes.sort_unstable();
    let expected = [CallOutcome::Ok, CallOutcome::Timeout, CallOutcome::Shed];
    assert_eq!(outcomes, expected);
}

async fn refusal(name: &str) -> String {
    let bench = Bench::new();
    let errors = bench.load(vec![spec(name)]).await.unwrap_err();
    assert!(
        !matches!(errors[0].problem, LoadProblem::Invalid(_)),
        "{}",
        errors[0]
    );
    errors[0].to_string()
}

fn impatient(name: &str) -> PluginSpec {
    let mut spec = spec(name);
    spec.limits.guest_time = Duration::from_millis(5);
    spec
}

#[track_caller]
fn assert_failed(outcome: &OpenOutcome) {
    match outcome {
        OpenOutcome::Deny(denial) => assert_eq!(denial.code, "plugin_failed"),
        OpenOutcome::Allow(_) => panic!("a failed plugin must not allow"),
    }
}
