//! Policies decide at HELLO and OPEN, and change while traffic runs.

use crate::cluster::{PERMIT_ALL, echo, eventually, forbid_open, hub};

#[tokio::test]
async fn a_denied_open_closes_the_client_and_leaves_a_record_that_names_the_policy() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .policy_file("closed.cedar", &forbid_open("echo"))
        .start()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut client = hub.client("echo").await;
    let address = client.stream.local_addr().unwrap();
    client.is_closed().await;
    let record = hub
        .decisions()
        .into_iter()
        .find(|record| record.client == Some(address))
        .expect("the denial should have a record");
    assert!(!record.allow);
    assert_eq!(record.code.as_deref(), Some("closed_today"));
    assert_eq!(record.policies[0].id.as_ref(), "no-echo");
    assert!(target.seen().is_empty(), "the service was reached");
}

#[tokio::test]
async fn a_policy_swapped_in_turns_the_answer_round_both_ways() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    hub.client("echo").await.echoes(b"allowed").await;

    hub.write_policy("closed.cedar", &forbid_open("echo"));
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    assert_eq!(report.generation, 2);
    hub.client("echo").await.is_closed().await;

    hub.remove_policy("closed.cedar");
    assert!(hub.reload().await.ok);
    hub.client("echo").await.echoes(b"allowed again").await;
}

#[tokio::test]
async fn a_running_flow_keeps_its_generation_where_the_operator_says_so() {
    let target = echo().await;
    let hub = hub().listener("echo").policy("on_swap: keep").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    hub.write_policy("closed.cedar", &forbid_open("echo"));
    assert_eq!(hub.reload().await.flows_closed, 0);
    running.echoes(b"after").await;
    hub.client("echo").await.is_closed().await;
}

#[tokio::test]
async fn a_running_flow_that_is_now_forbidden_ends_with_its_own_reason() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .listener("other")
        .policy("on_swap: recheck_and_close")
        .start()
        .await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .target("other", target.address())
        .ready()
        .await;
    let (mut forbidden, mut other) = (hub.client("echo").await, hub.client("other").await);
    forbidden.echoes(b"before").await;
    other.echoes(b"before").await;
    hub.write_policy("closed.cedar", &forbid_open("echo"));
    let report = hub.reload().await;
    assert_eq!(report.flows_closed, 1, "{report:?}");
    let recheck = report.recheck.unwrap();
    assert!(!recheck.running, "{recheck:?}");
    assert_eq!((recheck.flows_asked, recheck.agents_asked), (2, 1));
    forbidden.is_closed().await;
    other.echoes(b"after").await;
    eventually("the reason is counted", || async {
        hub.metrics()
            .contains("nowconnect_flow_ends_total{cause=\"policy_denied\"} 1")
    })
    .await;
}

#[tokio::test]
async fn a_bad_policy_is_kept_out_and_said_so_until_it_is_mended() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    hub.write_policy(
        "broken.cedar",
        "permit (principal, action, resource) when { context.nonsense };",
    );
    let report = hub.reload().await;
    assert!(!report.ok);
    assert!(report.errors[0].contains("broken.cedar"), "{report:?}");
    assert_eq!(report.generation, 1);
    let (status, body) = hub.get("/readyz").await;
    assert_eq!(status, 200);
    assert!(body.contains("bundle_stale"), "{body}");
    hub.client("echo")
        .await
        .echoes(b"the last good one serves")
        .await;

    hub.remove_policy("broken.cedar");
    assert!(hub.reload().await.ok);
    let (_, body) = hub.get("/readyz").await;
    assert_eq!(body, r#"{"status":"ready"}"#);
}

#[tokio::test]
async fn a_change_in_the_folder_is_taken_over_without_being_asked() {
    let target = echo().await;
    let hub = hub().listener("echo").watched().start().await;
    let _agent = hub.plant("echo", target.address()).await;
    hub.client("echo").await.echoes(b"allowed").await;
    hub.write_policy("closed.cedar", &forbid_open("echo"));
    eventually("the new generation is in force", || async {
        hub.running().hub().generations().current().number() > 1
    })
    .await;
    hub.client("echo").await.is_closed().await;
}

#[tokio::test]
async fn an_agent_that_policies_do_not_let_in_hears_the_code() {
    let hub = hub()
        .policy_file(
            "nobody.cedar",
            "@id(\"nobody\")\n@error(\"maintenance\")\nforbid (principal, action == NowConnect::Action::\"hello\", resource);",
        )
        .start()
        .await;
    let agent = hub
        .agent("plant")
        .target("echo", ([127, 0, 0, 1], 9).into())
        .start();
    agent.problem("maintenance").await;
}

#[tokio::test]
async fn a_tenants_file_decides_for_that_tenant_alone() {
    let target = echo().await;
    let hub = hub()
        .listener_with("acme-echo", "echo", "tenant: acme")
        .listener("echo")
        .policy_file("base.cedar", &without_open())
        .policy_file(
            "acme@open.cedar",
            "@id(\"open\") permit (principal, action == NowConnect::Action::\"open\", resource);",
        )
        .start()
        .await;
    let _acme = hub
        .agent("edge")
        .claims(|claims| claims.with("tenant", "acme"))
        .states_tenant("acme")
        .target("echo", target.address())
        .ready()
        .await;
    let _own = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    hub.client("acme-echo").await.echoes(b"its own").await;
    hub.client("echo").await.is_closed().await;
    let decided = hub.decisions();
    let by = |connector: &str| {
        let record = decided.iter().find(|record| {
            record.connector.as_deref() == Some(connector) && record.listener.is_some()
        });
        record.map(|record| {
            (
                record.allow,
                record.policies.first().map(|one| one.id.to_string()),
            )
        })
    };
    assert_eq!(by("acme/echo"), Some((true, Some("acme/open".to_owned()))));
    assert_eq!(by("echo"), Some((false, None)));
}

/// What every test hub permits, apart from opening.
fn without_open() -> String {
    let end = PERMIT_ALL.find("@id(\"base-open\")").unwrap();
    PERMIT_ALL[..end].to_owned()
}
