//! Programs that are slow, broken, or none. What the real one proves is tested end to end.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;

fn program(dir: &Path, script: &str) -> PathBuf {
    let path = dir.join("prove.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

fn limits(total_ms: u64) -> ProofLimits {
    ProofLimits {
        total_ms,
        ..ProofLimits::default()
    }
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = format!(
        "echo '{{\"query\":0,\"answer\":\"proved\"}}'\nsleep 600 &\necho $$ $! >{}\nwait",
        pids.display()
    );
    let program = program(dir.path(), &script);
    let began = Instant::now();
    let (output, missing) = ask(&program, "{}".to_owned(), limits(1500)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(60));
    assert!(output.contains("proved"), "what was answered is kept");
    assert!(missing.contains("no answer within 1 s"), "{missing}");
    let text = std::fs::read_to_string(&pids).unwrap();
    for id in text.split_whitespace() {
        let id = Pid::from_raw(id.parse().unwrap()).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while is_running(id) {
            assert!(Instant::now() < until, "{id:?} goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A zombie that nobody has reaped yet has ended too.
fn is_running(id: Pid) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero()));
    state.is_ok_and(|state| !state.contains(") Z ") && !state.contains(") X "))
}

#[tokio::test]
async fn exit_codes_tell_what_is_the_matter() {
    let dir = tempfile::tempdir().unwrap();
    let ask = async |script: &str| {
        ask(
            &program(dir.path(), script),
            "{}".to_owned(),
            limits(60_000),
        )
        .await
    };
    let none = ask("cat >/dev/null; echo nowconnect-prove: get one >&2; exit 69").await;
    let none = none.unwrap_err();
    assert!(none.is_missing());
    assert_eq!(none.to_string(), "get one");
    let bad = ask("echo what is this >&2; exit 64").await.unwrap_err();
    assert!(!bad.is_missing());
    assert!(bad.to_string().contains("what is this"), "{bad}");
    let (output, missing) = ask("cat >/dev/null; echo half; kill -9 $$").await.unwrap();
    assert_eq!(output, "half\n");
    assert!(missing.contains("broke off"), "{missing}");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let gone = ask(Path::new("/nonexistent/prove"), String::new(), limits(1000)).await;
    let gone = gone.unwrap_err();
    assert!(gone.is_missing());
    assert!(gone.to_string().contains("NOWCONNECT_PROVE"), "{gone}");
}

#[tokio::test]
async fn an_unchanged_set_needs_no_program() {
    let sources = nowconnect_policy::shipped();
    let report = compare(&sources, &sources, limits(1)).await.unwrap();
    assert!(report.lets_nothing_new_in() && report.denies_nothing_new());
    assert!(report.results.len() > 40);
}
