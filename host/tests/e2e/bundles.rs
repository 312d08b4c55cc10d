//! Signed bundles change the policies of a running hub.

mod faults;
mod load;
mod sources;
mod trust;

use clap::Parser as _;
use nowconnect::admin::view::BundlePush;
use nowconnect::admin::{AdminClient, ClientError};
use nowconnect::bundle::state::Stage;
use nowconnect::bundle::view::{ActivateRequest, DeliverReport};
use nowconnect::cli::Exit;
use nowconnect::cli::policy::live::Command;

use crate::cluster::{Bundler, TestAgent, TestHub, TestTarget, echo, eventually, forbid_open, hub};

const STAGE: &str = "auto_activate: false";

#[tokio::test]
async fn until_the_first_bundle_nothing_is_permitted_and_the_hub_is_not_ready() {
    let target = echo().await;
    let maker = Bundler::new();
    let hub = hub()
        .admin()
        .listener("echo")
        .bundles(&maker, "")
        .start()
        .await;
    let agent = hub.agent("plant").target("echo", target.address()).start();
    agent.problem("not_permitted").await;
    drop(agent);
    let (status, body) = hub.get("/readyz").await;
    assert_eq!((status, body.as_str()), (503, r#"{"status":"starting"}"#));

    let report = push(&hub, maker.tar(1, "")).await.unwrap();
    assert_eq!((report.revision, report.stage), (1, Stage::Active));
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    hub.client("echo").await.echoes(b"permitted").await;
    let (status, _) = hub.get("/readyz").await;
    assert_eq!(status, 200);
    let status = hub.operator().status().await.unwrap();
    assert_eq!(status.generation.policy_revision, Some(1));
}

#[tokio::test]
async fn a_staged_bundle_is_compared_on_live_traffic_and_changes_nothing() {
    let served = serving(STAGE).await;
    let (hub, maker) = (&served.hub, &served.maker);
    let report = push(hub, maker.tar(2, &forbid_open("echo"))).await.unwrap();
    assert_eq!(report.stage, Stage::Staged);
    for _ in 0..3 {
        hub.client("echo").await.echoes(b"still permitted").await;
    }
    let operator = hub.operator();
    eventually("the shadow has seen three flows", async || {
        operator.shadow().await.unwrap().total.newly_denied == 3
    })
    .await;
    let shadow = operator.shadow().await.unwrap();
    assert_eq!(shadow.revision, Some(2));
    assert_eq!(shadow.samples[0].staged.policies, ["no-echo"]);
    assert_eq!(shadow.samples[0].count, 3);

    let request = ActivateRequest {
        require_no_new_deny: true,
        ..ActivateRequest::default()
    };
    let refused = code(operator.activate_bundle(&request).await.unwrap_err());
    assert_eq!(refused, "bundle_new_deny");
    let proof = ActivateRequest {
        require_proof: true,
        ..ActivateRequest::default()
    };
    let refused = code(operator.activate_bundle(&proof).await.unwrap_err());
    assert_eq!(refused, "bundle_unproved");
    hub.client("echo").await.echoes(b"revision 1 decides").await;
}

#[tokio::test]
async fn an_activation_says_what_it_ends_and_then_ends_it() {
    let target = echo().await;
    let maker = Bundler::new();
    let hub = hub()
        .admin()
        .listener("echo")
        .listener("other")
        .bundles(&maker, STAGE)
        .start()
        .await;
    begin(&hub, &maker).await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .target("other", target.address())
        .ready()
        .await;
    let (mut forbidden, mut other) = (hub.client("echo").await, hub.client("other").await);
    forbidden.echoes(b"before").await;
    other.echoes(b"before").await;
    push(&hub, maker.tar(2, &forbid_open("echo")))
        .await
        .unwrap();

    let dry = ActivateRequest {
        dry_run: true,
        ..ActivateRequest::default()
    };
    let foreseen = hub.operator().activate_bundle(&dry).await.unwrap();
    let forecast = foreseen.forecast.unwrap();
    assert!(!foreseen.activated && forecast.ends);
    assert_eq!((forecast.flows, forecast.flows_forbidden), (2, 1));
    assert_eq!((forecast.agents, forecast.agents_refused), (1, 0));
    forbidden.echoes(b"a dry run ends nothing").await;

    let report = hub
        .operator()
        .activate_bundle(&ActivateRequest::default())
        .await
        .unwrap();
    assert!(report.activated);
    assert_eq!((report.flows_closed, report.sessions_closed), (1, 0));
    forbidden.is_closed().await;
    other.echoes(b"after").await;
    let metrics = hub.metrics();
    for line in [
        "nowconnect_recheck_closed_flows_total 1",
        "nowconnect_policy_bundle_revision{state=\"active\"} 2",
        "nowconnect_policy_bundle_revision{state=\"staged\"} 0",
        "nowconnect_policy_bundle_highest_revision 2",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    let history = hub.operator().bundles().await.unwrap().history;
    let stages: Vec<_> = history
        .iter()
        .map(|entry| (entry.revision, entry.stage))
        .collect();
    assert_eq!(stages, [(2, Stage::Active), (1, Stage::Superseded)]);
}

#[tokio::test]
async fn flows_and_agents_go_on_where_the_operator_says_so() {
    let target = echo().await;
    let maker = Bundler::new();
    let hub = hub()
        .admin()
        .listener("echo")
        .policy("on_swap: keep")
        .bundles(&maker, "")
        .start()
        .await;
    begin(&hub, &maker).await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    let nothing = maker.exactly(2, "@id(\"none\") forbid (principal, action, resource);");
    let report = push(&hub, nothing.to_tar().unwrap()).await.unwrap();
    let activation = report.activation.unwrap();
    assert_eq!(
        (activation.flows_closed, activation.sessions_closed),
        (0, 0)
    );
    running.echoes(b"after").await;
    hub.client("echo").await.is_closed().await;
}

#[tokio::test]
async fn an_agent_whose_hello_or_connector_is_now_denied_loses_session_or_connector() {
    let target = echo().await;
    let maker = Bundler::new();
    let hub = hub()
        .admin()
        .listener("echo")
        .listener("other")
        .bundles(&maker, "")
        .start()
        .await;
    begin(&hub, &maker).await;
    let agent = hub
        .agent("plant")
        .target("echo", target.address())
        .target("other", target.address())
        .ready()
        .await;
    let (mut lost, mut kept) = (hub.client("echo").await, hub.client("other").await);
    lost.echoes(b"before").await;
    kept.echoes(b"before").await;
    let narrower = "@id(\"not-echo\")\n@error(\"retired\")\nforbid (principal, \
                    action == NowConnect::Action::\"announce\", \
                    resource == NowConnect::Connector::\"echo\");";
    let report = push(&hub, maker.tar(2, narrower)).await.unwrap();
    let activation = report.activation.unwrap();
    assert_eq!(activation.connectors_lost, 1, "{activation:?}");
    assert_eq!(activation.sessions_closed, 0);
    lost.is_closed().await;
    kept.echoes(b"after").await;
    hub.client("echo").await.is_closed().await;
    let shown = hub.operator().agents().await.unwrap().agents;
    assert_eq!(shown[0].connectors.len(), 1);
    assert_eq!(shown[0].refused[0].code, "retired");

    let nobody = "@id(\"nobody\")\n@error(\"maintenance\")\nforbid (principal, \
                  action == NowConnect::Action::\"hello\", resource);";
    let report = push(&hub, maker.tar(3, nobody)).await.unwrap();
    assert_eq!(report.activation.unwrap().sessions_closed, 1);
    agent.problem("maintenance").await;
    kept.is_closed().await;
    let metrics = hub.metrics();
    assert!(metrics.contains("nowconnect_recheck_lost_connectors_total 1"));
    assert!(metrics.contains("nowconnect_recheck_closed_sessions_total 1"));
}

#[tokio::test]
async fn what_was_in_force_serves_after_a_restart_and_nothing_older_comes_back() {
    let target = echo().await;
    let maker = Bundler::new();
    let mut hub = hub()
        .admin()
        .listener("echo")
        .bundles(&maker, "")
        .start()
        .await;
    begin(&hub, &maker).await;
    push(&hub, maker.tar(5, "")).await.unwrap();
    hub.restart().await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    hub.client("echo").await.echoes(b"kept").await;
    let refused = code(push(&hub, maker.tar(4, "")).await.unwrap_err());
    assert_eq!(refused, "bundle_rollback");
    let refused = code(
        push(&hub, maker.tar(5, &forbid_open("echo")))
            .await
            .unwrap_err(),
    );
    assert_eq!(refused, "bundle_revision_conflict");
    let same = push(&hub, maker.tar(5, "")).await.unwrap();
    assert!(same.unchanged && same.stage == Stage::Active);
    let metrics = hub.metrics();
    assert!(
        metrics.contains("nowconnect_policy_bundle_rejected_total{code=\"bundle_rollback\"} 1")
    );
}

#[tokio::test]
async fn a_rollback_is_one_command_and_a_new_revision() {
    let served = serving(STAGE).await;
    let (hub, maker) = (&served.hub, &served.maker);
    push(hub, maker.tar(2, &forbid_open("echo"))).await.unwrap();
    let (exit, said) = policy(hub, &["activate"]).await;
    assert_eq!(exit, Exit::Success, "{said}");
    hub.client("echo").await.is_closed().await;

    let key = maker.key_file(&hub.path(""));
    let key = key.to_str().unwrap();
    let (exit, said) = policy(hub, &["rollback", "--to", "1", "--key", key]).await;
    assert_eq!(exit, Exit::Success, "{said}");
    assert!(said.contains("revision 3 is in force"), "{said}");
    hub.client("echo").await.echoes(b"as before").await;
    let (_, said) = policy(hub, &["history"]).await;
    let lines: Vec<Vec<&str>> = said
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[1][..2], ["3", "active"]);
    assert_eq!(lines[2][..2], ["2", "superseded"]);
    assert!(lines[1].contains(&"rollback"), "{said}");

    // Only what was in force here can be gone back to.
    let never = maker.tar(4, "@id(\"never\") forbid (principal, action, resource);");
    let push = BundlePush {
        rollback: true,
        ..BundlePush::default()
    };
    let refused = code(hub.operator().push_bundle(never, push).await.unwrap_err());
    assert_eq!(refused, "bundle_no_rollback");
}

#[tokio::test]
async fn what_is_required_holds_a_bundle_back_until_the_shadow_has_seen_enough() {
    let target = echo().await;
    let maker = Bundler::new();
    let require = "require: {no_new_allow: true, no_new_deny: true, min_shadow_requests: 3}";
    let hub = hub()
        .admin()
        .listener("echo")
        .bundles(&maker, require)
        .start()
        .await;
    begin(&hub, &maker).await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    let same = "@id(\"unrelated\") forbid (principal, \
                action == NowConnect::Action::\"open\", \
                resource == NowConnect::Connector::\"elsewhere\");";
    let report = push(&hub, maker.tar(2, same)).await.unwrap();
    assert_eq!(report.stage, Stage::Staged);
    assert_eq!(report.waits_for[0].code, "bundle_little_traffic");
    for _ in 0..3 {
        hub.client("echo").await.echoes(b"traffic").await;
    }
    let operator = hub.operator();
    eventually("it comes into force by itself", async || {
        let status = operator.bundles().await.unwrap();
        status.active.is_some_and(|entry| entry.revision == 2)
    })
    .await;
}

#[tokio::test]
async fn refused_bundles_have_their_code_and_harm_nothing() {
    let served = serving("max_bytes: 65536").await;
    let (hub, maker) = (&served.hub, &served.maker);
    let stranger = Bundler::new().tar(2, "");
    let cut = maker.tar(2, "")[..1500].to_vec();
    let cases = [
        (stranger, "bundle_untrusted_key"),
        (b"<html>not a tar</html>".to_vec(), "bundle_malformed"),
        (cut, "bundle_malformed"),
        (vec![0; 100_000], "too_large"),
    ];
    for (bytes, expected) in cases {
        let refused = code(push(hub, bytes).await.unwrap_err());
        assert_eq!(refused, expected);
    }
    hub.client("echo").await.echoes(b"unharmed").await;
    let status = hub.operator().bundles().await.unwrap();
    assert_eq!(status.active.unwrap().revision, 1);
    assert_eq!(status.staged, None);
}

#[tokio::test]
async fn a_required_proof_keeps_out_what_is_not_proved_and_lets_in_what_is() {
    let maker = Bundler::new();
    let hub = hub().admin().bundles(&maker, STAGE).start().await;
    begin(&hub, &maker).await;
    let operator = hub.operator();
    let request = ActivateRequest {
        require_proof: true,
        ..ActivateRequest::default()
    };
    let wider = "@id(\"wider\") permit (principal, action, resource);";
    push(&hub, maker.tar(2, wider)).await.unwrap();
    let refused = code(operator.activate_bundle(&request).await.unwrap_err());
    assert_eq!(refused, "bundle_unproved");
    assert_eq!(
        operator.bundles().await.unwrap().active.unwrap().revision,
        1
    );

    // Where no policy changes its meaning there is nothing for a solver to do.
    push(&hub, maker.tar(3, "// as before")).await.unwrap();
    eventually("the proof is there", async || {
        operator.activate_bundle(&request).await.is_ok()
    })
    .await;
    assert_eq!(
        operator.bundles().await.unwrap().active.unwrap().revision,
        3
    );
}

#[tokio::test]
async fn policies_decide_who_may_change_policies() {
    let maker = Bundler::new();
    let hub = hub().admin().bundles(&maker, STAGE).start().await;
    let no_activation = "@id(\"frozen\")\n@error(\"change_freeze\")\nforbid (principal, \
                         action == NowConnect::Action::\"admin-activate-policy\", resource);";
    push(&hub, maker.tar(1, no_activation)).await.unwrap();
    let activate = ActivateRequest::default();
    hub.operator().activate_bundle(&activate).await.unwrap();
    push(&hub, maker.tar(2, "")).await.unwrap();
    let refused = hub.operator().activate_bundle(&activate).await.unwrap_err();
    assert!(refused.to_string().contains("change_freeze"), "{refused}");
    let (exit, _) = policy(&hub, &["discard"]).await;
    assert_eq!(exit, Exit::Success);
    let (_, said) = policy(&hub, &["status"]).await;
    assert!(said.contains("staged   none"), "{said}");
}

#[tokio::test]
async fn a_hub_without_trusted_keys_takes_no_bundle() {
    let hub = hub().admin().start().await;
    let refused = code(push(&hub, Bundler::new().tar(1, "")).await.unwrap_err());
    assert_eq!(refused, "bundle_off");
    let (_, said) = policy(&hub, &["status"]).await;
    assert!(said.contains("takes no bundles"), "{said}");
}

/// A hub whose revision 1 permits everything, and an agent that serves `echo` there.
pub(crate) struct Served {
    pub(crate) hub: TestHub,
    pub(crate) maker: Bundler,
    _agent: TestAgent,
    _target: TestTarget,
}

/// With these further lines of `policy.bundle`.
pub(crate) async fn serving(lines: &str) -> Served {
    let target = echo().await;
    let maker = Bundler::new();
    let hub = hub()
        .admin()
        .listener("echo")
        .bundles(&maker, lines)
        .start()
        .await;
    begin(&hub, &maker).await;
    let agent = hub.plant("echo", target.address()).await;
    Served {
        hub,
        maker,
        _agent: agent,
        _target: target,
    }
}

/// Revision 1, which permits everything, is in force.
pub(crate) async fn begin(hub: &TestHub, maker: &Bundler) {
    let report = push(hub, maker.tar(1, "")).await.unwrap();
    if report.stage == Stage::Staged {
        let request = ActivateRequest::default();
        hub.operator().activate_bundle(&request).await.unwrap();
    }
}

pub(crate) async fn push(hub: &TestHub, tar: Vec<u8>) -> Result<DeliverReport, ClientError> {
    let operator: AdminClient = hub.operator();
    operator.push_bundle(tar, BundlePush::default()).await
}

pub(crate) fn code(error: ClientError) -> String {
    match error {
        ClientError::Refused { code, .. } => code,
        other @ (ClientError::NotRunning { .. }
        | ClientError::NotPermitted { .. }
        | ClientError::Timeout { .. }
        | ClientError::Unexpected { .. }) => panic!("{other}"),
    }
}

/// Waits until this revision is in force.
pub(crate) async fn in_force(hub: &TestHub, revision: u64) {
    let operator = hub.operator();
    eventually("the bundle is in force", async || {
        let active = operator.bundles().await.unwrap().active;
        active.is_some_and(|entry| entry.revision == revision)
    })
    .await;
}

/// Waits until the operator is told of this.
pub(crate) async fn trouble(hub: &TestHub, code: &str) {
    let operator = hub.operator();
    eventually(code, async || {
        let problems = operator.bundles().await.unwrap().problems;
        problems.iter().any(|problem| problem.code == code)
    })
    .await;
}

/// Waits until nothing is wrong any more.
pub(crate) async fn ready(hub: &TestHub) {
    eventually("the trouble is over", async || {
        hub.get("/readyz").await.1 == r#"{"status":"ready"}"#
    })
    .await;
}

/// `nowconnect policy …` against this hub; the exit and all that it said.
async fn policy(hub: &TestHub, words: &[&str]) -> (Exit, String) {
    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }
    let socket = hub.path("admin.sock");
    let mut line = vec!["policy"];
    line.extend(words);
    line.extend(["--socket", socket.to_str().unwrap()]);
    let command = Line::try_parse_from(line).unwrap().command;
    tokio::task::spawn_blocking(move || {
        let (mut out, mut problems) = (Vec::new(), Vec::new());
        let exit = command.run_with(&mut out, &mut problems).unwrap();
        out.extend(problems);
        (exit, String::from_utf8(out).unwrap())
    })
    .await
    .unwrap()
}
