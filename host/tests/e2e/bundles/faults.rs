//! Disks that are full, clocks that jump, sources that are wrong: nothing comes in that should
//! not, what is in force goes on, and the operator is told.

use std::path::Path;
use std::time::{Duration, SystemTime};

use nowconnect::bundle::state::Stage;
use nowconnect_policy::BundleArchive;
use sha2::{Digest as _, Sha256};

use super::{begin, code, push, serving, trouble};
use crate::cluster::{Bundler, TestHub, echo, eventually, forbid_open, hub};

/// Bytes that a file of the hub may have: its state and a small bundle fit, a large one does not.
const LARGEST_FILE: u64 = 64 * 1024;

#[tokio::test]
async fn a_disk_without_room_refuses_the_next_bundle_and_harms_nothing() {
    let target = echo().await;
    let maker = Bundler::new();
    let hub = hub()
        .listener("echo")
        .bundles(&maker, "")
        .largest_file(LARGEST_FILE)
        .start_process()
        .await;
    begin(&hub, &maker).await;
    let _agent = hub.plant("echo", target.address()).await;
    let large = format!(
        "{}\n// {}",
        forbid_open("echo"),
        "x".repeat(usize::try_from(LARGEST_FILE).unwrap())
    );
    let refused = code(push(&hub, maker.tar(2, &large)).await.unwrap_err());
    assert_eq!(refused, "bundle_not_kept");
    hub.client("echo").await.echoes(b"unharmed").await;
    let status = hub.operator().bundles().await.unwrap();
    assert_eq!(status.active.unwrap().revision, 1);
    assert_eq!(status.staged, None);
    let left: Vec<_> = std::fs::read_dir(hub.path("state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("-2") || name.ends_with(".new"))
        .collect();
    assert!(left.is_empty(), "what is left takes room: {left:?}");
    // One for which there is room comes in.
    let report = push(&hub, maker.tar(3, "")).await.unwrap();
    assert_eq!(report.stage, Stage::Active);
    hub.client("echo").await.echoes(b"and goes on").await;
}

#[tokio::test]
async fn clocks_that_are_wrong_let_in_nothing_that_has_expired_or_is_yet_to_be_made() {
    let served = serving("").await;
    let (hub, maker) = (&served.hub, &served.maker);
    let hour = Duration::from_secs(3600);
    let now = SystemTime::now();
    // The builder's clock is ahead, or ours fell back.
    let early = maker.dated(2, now + hour, None);
    assert_eq!(refused(hub, &early).await, "bundle_from_future");
    // Ours is ahead, or the builder's fell back.
    let late = maker.dated(2, now - 3 * hour, Some(now - hour));
    assert_eq!(refused(hub, &late).await, "bundle_expired");
    hub.client("echo").await.echoes(b"unharmed").await;
    let status = hub.operator().bundles().await.unwrap();
    assert_eq!(status.active.unwrap().revision, 1);
    // Neither was counted as seen: the same revision comes with a right time.
    let right = maker.dated(2, now, Some(now + hour));
    let report = push(hub, right.to_tar().unwrap()).await.unwrap();
    assert_eq!(report.stage, Stage::Active);
}

#[tokio::test]
async fn what_runs_out_while_it_is_in_force_serves_on_and_is_told() {
    let served = serving("").await;
    let (hub, maker) = (&served.hub, &served.maker);
    let now = SystemTime::now();
    let short = maker.dated(2, now, Some(now + Duration::from_secs(2)));
    push(hub, short.to_tar().unwrap()).await.unwrap();
    trouble(hub, "bundle_expired").await;
    let (status, body) = hub.get("/readyz").await;
    assert_eq!(status, 200);
    assert!(body.contains("policy_bundle"), "{body}");
    hub.client("echo").await.echoes(b"it serves on").await;
    assert_eq!(refused(hub, &short).await, "bundle_expired");
}

#[tokio::test]
async fn what_its_source_still_has_and_was_refused_is_told_again_after_a_restart() {
    let maker = Bundler::new();
    let mut hub = hub()
        .admin()
        .bundles(&maker, "source: policies.bundle\npoll_ms: 100")
        .start()
        .await;
    begin(&hub, &maker).await;
    fails_its_test(&maker, &hub.path("policies.bundle"));
    let told = "bundle_tests_failed";
    trouble(&hub, told).await;
    hub.restart().await;
    trouble(&hub, told).await;
    let status = hub.operator().bundles().await.unwrap();
    assert_eq!(status.active.unwrap().revision, 1);
}

#[tokio::test]
async fn a_staged_bundle_that_is_lost_comes_again_from_its_source() {
    let maker = Bundler::new();
    let mut hub = hub()
        .admin()
        .bundles(
            &maker,
            "source: policies.tar\npoll_ms: 100\nauto_activate: false",
        )
        .start()
        .await;
    begin(&hub, &maker).await;
    std::fs::write(hub.path("next"), maker.tar(2, "")).unwrap();
    std::fs::rename(hub.path("next"), hub.path("policies.tar")).unwrap();
    staged(&hub, 2).await;
    // As when somebody tidies up while the hub is down.
    hub.stop().await;
    std::fs::remove_file(hub.path("state/staged-2.tar")).unwrap();
    hub.start_again().await;
    staged(&hub, 2).await;
}

async fn staged(hub: &TestHub, revision: u64) {
    let operator = hub.operator();
    eventually("it is staged", async || {
        let staged = operator.bundles().await.unwrap().staged;
        staged.is_some_and(|entry| entry.revision == revision)
    })
    .await;
}

async fn refused(hub: &TestHub, archive: &BundleArchive) -> String {
    code(push(hub, archive.to_tar().unwrap()).await.unwrap_err())
}

/// Revision 2 as no builder makes it: signed, and its own test fails.
fn fails_its_test(maker: &Bundler, dir: &Path) {
    let early = dir.with_extension("early");
    maker.archive(2, "").write_to(&early).unwrap();
    let case = r#"[{"name": "never", "request": {
        "principal": "NowConnect::Agent::\"a\"", "action": "NowConnect::Action::\"hello\"",
        "resource": "NowConnect::Node::\"h\"", "context": {}}, "entities": [],
        "decision": "deny"}]"#;
    std::fs::create_dir(early.join("tests")).unwrap();
    std::fs::write(early.join("tests/never.json"), case).unwrap();
    let path = early.join("manifest.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let digest: String = Sha256::digest(case)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    manifest["files"]["tests/never.json"] = digest.into();
    std::fs::write(&path, manifest.to_string()).unwrap();
    std::fs::remove_file(early.join("manifest.sig")).unwrap();
    let mut archive = BundleArchive::read(&early).unwrap();
    maker.sign(&mut archive);
    std::fs::write(dir.with_extension("next"), archive.to_tar().unwrap()).unwrap();
    std::fs::rename(dir.with_extension("next"), dir).unwrap();
}
