//! The keys that vouch for what is in force stop being trusted.

use nowconnect::bundle::state::Stage;
use nowconnect::bundle::view::ActivateRequest;

use super::{Served, push, serving};
use crate::cluster::{Bundler, TestHub};

#[tokio::test]
async fn what_nobody_vouches_for_any_more_serves_on_and_the_operator_hears_of_it_at_once() {
    let mut served = serving("").await;
    let other = Bundler::new();
    trust(&mut served.hub, &other, "").await;
    let hub = &served.hub;
    hub.client("echo").await.echoes(b"it serves on").await;
    told(hub, "and a restart would not load it").await;
    let status = hub.operator().bundles().await.unwrap();
    assert_eq!(status.active.unwrap().revision, 1);
    assert!(!status.withheld);

    // Signed by a key that is trusted now, it is right again.
    push(hub, other.tar(2, "")).await.unwrap();
    right(hub).await;
    hub.client("echo").await.echoes(b"and goes on").await;
}

#[tokio::test]
async fn what_nobody_vouches_for_any_more_is_withheld_where_the_operator_says_so() {
    let mut served = serving("on_untrusted: deny").await;
    let mut running = served.hub.client("echo").await;
    running.echoes(b"before").await;
    let other = Bundler::new();
    trust(&mut served.hub, &other, "on_untrusted: deny").await;
    let hub = &served.hub;
    running.is_closed().await;
    told(hub, "nothing is permitted").await;
    assert!(hub.operator().bundles().await.unwrap().withheld);
    let status = hub.operator().status().await.unwrap();
    assert_eq!(status.generation.policy_revision, None);

    // The key was taken off the list by mistake.
    let Served { hub, maker, .. } = &mut served;
    trust(hub, maker, "on_untrusted: deny").await;
    right(hub).await;
    assert!(!hub.operator().bundles().await.unwrap().withheld);
    let status = hub.operator().status().await.unwrap();
    assert_eq!(status.generation.policy_revision, Some(1));
}

/// A disk that fails, or somebody who empties it, must not keep in force what nobody vouches for.
#[tokio::test]
async fn what_nobody_vouches_for_is_withheld_though_its_file_is_gone() {
    let mut served = serving("on_untrusted: deny").await;
    std::fs::remove_file(served.hub.path("state").join("bundle-1.tar")).unwrap();
    // As long as its signer is trusted the file is not what it rests on.
    served.hub.reload().await;
    served
        .hub
        .client("echo")
        .await
        .echoes(b"it serves on")
        .await;
    let other = Bundler::new();
    trust(&mut served.hub, &other, "on_untrusted: deny").await;
    let hub = &served.hub;
    told(hub, "nothing is permitted").await;
    assert!(hub.operator().bundles().await.unwrap().withheld);
}

/// To what permits nothing everything is new: no comparison could ever let a bundle in.
#[tokio::test]
async fn a_person_replaces_what_is_withheld_whatever_is_required_of_a_comparison() {
    let gated = "on_untrusted: deny\nrequire: { no_new_allow: true, min_shadow_requests: 1 }";
    let mut served = serving(gated).await;
    let other = Bundler::new();
    trust(&mut served.hub, &other, gated).await;
    let hub = &served.hub;
    told(hub, "nothing is permitted").await;

    let report = push(hub, other.tar(2, "")).await.unwrap();
    assert_eq!(report.stage, Stage::Staged, "nobody has looked at it");
    let request = ActivateRequest::default();
    let report = hub.operator().activate_bundle(&request).await.unwrap();
    assert!(report.activated);
    right(hub).await;
    let status = hub.operator().bundles().await.unwrap();
    assert_eq!(status.active.unwrap().revision, 2);
    assert!(!status.withheld);
}

#[tokio::test]
async fn no_restart_loads_what_nobody_vouches_for() {
    let mut served = serving("").await;
    let other = Bundler::new();
    trust(&mut served.hub, &other, "").await;
    served.hub.restart().await;
    let hub = &served.hub;
    let status = hub.operator().bundles().await.unwrap();
    assert_eq!(status.active, None);
    assert_eq!(status.problems[0].code, "bundle_lost");
    let (status, _) = hub.get("/readyz").await;
    assert_eq!(status, 503, "nothing is permitted");
    push(hub, other.tar(2, "")).await.unwrap();
    right(hub).await;
}

/// From now on only this maker's key counts.
async fn trust(hub: &mut TestHub, maker: &Bundler, lines: &str) {
    hub.clear_policy();
    hub.rewrite(|plan| plan.bundles(maker, lines));
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
}

/// At once means with the answer to the reload.
async fn told(hub: &TestHub, what: &str) {
    let (status, body) = hub.get("/readyz").await;
    assert_eq!(status, 200);
    assert!(body.contains("policy_bundle"), "{body}");
    let problems = hub.operator().bundles().await.unwrap().problems;
    assert_eq!(problems[0].code, "bundle_untrusted_key");
    assert!(problems[0].message.contains(what), "{problems:?}");
    let metrics = hub.metrics();
    assert!(metrics.contains("nowconnect_policy_bundle_problems 1\n"));
}

async fn right(hub: &TestHub) {
    let (_, body) = hub.get("/readyz").await;
    assert_eq!(body, r#"{"status":"ready"}"#);
}
