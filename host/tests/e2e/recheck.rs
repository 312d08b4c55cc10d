//! What runs, and what comes just now, when everything changes.

use std::collections::VecDeque;

use nowconnect::bundle::view::ActivateRequest;

use crate::bundles::{begin, push};
use crate::cluster::pdp::{DecisionPoint, Says};
use crate::cluster::{Bundler, Client, TestHub, echo, eventually, forbid_open, hub};

/// A policy that changes nothing for the echo connector.
const UNRELATED: &str = "@id(\"unrelated\")\nforbid (principal, action == \
                         NowConnect::Action::\"open\", \
                         resource == NowConnect::Connector::\"elsewhere\");";

#[tokio::test]
async fn no_swap_waits_for_a_decision_point_that_does_not_answer() {
    let (target, point) = (echo().await, DecisionPoint::start().await);
    let hub = hub()
        .admin()
        .listener("echo")
        .top(&point.section(""))
        .start()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    point.says(Says::Nothing);
    let asked = point.times_asked();

    // The answer says how far it is, and comes long before the decision point's time is over.
    hub.write_policy("unrelated.cedar", UNRELATED);
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    let recheck = report.recheck.unwrap();
    assert!(recheck.running, "{recheck:?}");
    assert_eq!((recheck.flows, recheck.flows_asked), (1, 0));
    point.asked(asked + 1).await;
    let shown = hub.operator().status().await.unwrap().generation;
    assert_eq!(shown.number, 2);
    assert!(shown.recheck.running);
    assert!(hub.metrics().contains("nowconnect_recheck_running 1\n"));

    // The next change takes the place of the round that hangs. Policies deny by themselves.
    hub.write_policy("closed.cedar", &forbid_open("echo"));
    let report = hub.reload().await;
    let recheck = report.recheck.unwrap();
    assert!(!recheck.running, "{recheck:?}");
    assert_eq!((report.generation, report.flows_closed), (3, 1));
    running.is_closed().await;
    let metrics = hub.metrics();
    for line in [
        "nowconnect_recheck_running 0\n",
        "nowconnect_recheck_rounds_total{end=\"superseded\"} 1\n",
        "nowconnect_recheck_rounds_total{end=\"done\"} 1\n",
        "nowconnect_recheck_closed_flows_total 1\n",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test]
async fn one_question_without_an_answer_does_not_hold_up_the_others() {
    let (target, point) = (echo().await, DecisionPoint::start().await);
    let hub = hub()
        .admin()
        .listener("one")
        .listener("two")
        .listener("three")
        .top(&point.section(""))
        .start()
        .await;
    let _agent = hub
        .agent("plant")
        .target("one", target.address())
        .target("two", target.address())
        .target("three", target.address())
        .ready()
        .await;
    let mut clients = Vec::new();
    for name in ["one", "two", "three"] {
        let mut client = hub.client(name).await;
        client.echoes(b"before").await;
        clients.push(client);
    }
    point.says(Says::Nothing);
    let asked = point.times_asked();
    // Of the three the policies forbid the last; the first two wait for the decision point.
    hub.write_policy("closed.cedar", &forbid_open("three"));
    let report = hub.reload().await;
    assert!(report.recheck.unwrap().running);
    assert_eq!(report.flows_closed, 1, "{report:?}");
    point.asked(asked + 2).await;
    clients.pop().unwrap().is_closed().await;
    point.says(Says::Deny);
    for mut client in clients {
        client.is_closed().await;
    }
    let operator = hub.operator();
    eventually("the round is over", async || {
        let recheck = operator.status().await.unwrap().generation.recheck;
        !recheck.running && recheck.flows_closed == 3
    })
    .await;
}

#[tokio::test]
async fn a_client_that_waits_across_a_swap_is_decided_by_what_is_in_force() {
    let (target, point) = (echo().await, DecisionPoint::start().await);
    let hub = hub()
        .admin()
        .listener("echo")
        .top(&point.section(""))
        .start()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    point.says(Says::Nothing);
    let mut waiting = hub.client("echo").await;
    waiting.send(b"x").await;
    point.asked(1).await;
    hub.write_policy("closed.cedar", &forbid_open("echo"));
    assert!(hub.reload().await.ok);
    point.says(Says::Allow);
    waiting.is_closed().await;
    assert!(target.seen().is_empty(), "the service was reached");
    let decided = hub.decisions();
    let open = decided.iter().find(|record| record.listener.is_some());
    let open = open.expect("the denial should have a record");
    assert_eq!(open.code.as_deref(), Some("closed_today"));
    assert_eq!(open.generation, 2);
    assert!(
        hub.metrics()
            .contains("nowconnect_policy_decided_again_total{action=\"open\"} 1\n")
    );
}

/// Clients at once, while policies change below them.
const CLIENTS: usize = 8;

/// Connections that each of them holds on to.
const KEPT: usize = 40;

/// Swaps in a row, from open to closed and back.
const SWAPS: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_came_during_a_swap_is_left_under_the_old_generation() {
    let target = echo().await;
    let maker = Bundler::new();
    let hub = hub()
        .admin()
        .listener("echo")
        .bundles(&maker, "")
        .start()
        .await;
    begin(&hub, &maker).await;
    let _agent = hub.plant("echo", target.address()).await;
    for round in 0..SWAPS {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let address = hub.address("echo");
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| tokio::spawn(keep_coming(address, stopped.clone())))
            .collect();
        eventually("clients are let in", async || open_flows(&hub) >= CLIENTS).await;
        let revision = 2 + 2 * round;
        push(&hub, maker.tar(revision, &forbid_open("echo")))
            .await
            .unwrap();
        stop.send_replace(true);
        let mut kept = Vec::new();
        for client in clients {
            kept.extend(client.await.unwrap());
        }
        // Everybody still holds on to his connection: only the hub can have ended the flows.
        eventually("no flow is left", async || open_flows(&hub) == 0).await;
        drop(kept);
        push(&hub, maker.tar(revision + 1, "")).await.unwrap();
    }
}

/// Connects again and again, and lets go of the oldest only.
async fn keep_coming(
    address: std::net::SocketAddr,
    stop: tokio::sync::watch::Receiver<bool>,
) -> VecDeque<Client> {
    let mut kept = VecDeque::new();
    while !*stop.borrow() {
        if let Ok(stream) = tokio::net::TcpStream::connect(address).await {
            kept.push_back(Client { stream });
        }
        if kept.len() > KEPT {
            kept.pop_front();
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    kept
}

fn open_flows(hub: &TestHub) -> usize {
    let metrics = hub.metrics();
    let open = metrics
        .lines()
        .find_map(|line| line.strip_prefix("nowconnect_flows_open "));
    open.and_then(|count| count.parse().ok()).unwrap()
}

#[tokio::test]
async fn an_activation_answers_while_the_decision_point_hangs_and_a_rollback_is_not_held_up() {
    let (target, point) = (echo().await, DecisionPoint::start().await);
    let maker = Bundler::new();
    let hub = hub()
        .admin()
        .listener("echo")
        .top(&point.section(""))
        .bundles(&maker, "auto_activate: false")
        .start()
        .await;
    begin(&hub, &maker).await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    point.says(Says::Nothing);
    for revision in [2, 3] {
        push(&hub, maker.tar(revision, UNRELATED)).await.unwrap();
        let request = ActivateRequest::default();
        let report = hub.operator().activate_bundle(&request).await.unwrap();
        assert!(report.activated, "{report:?}");
        assert!(report.recheck.unwrap().running, "{report:?}");
    }
    point.says(Says::Allow);
    running.echoes(b"after").await;
}
