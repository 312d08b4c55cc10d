//! What a client and a service see of each other.

use nowconnect::telemetry::decisions::Why;

use crate::cluster::{TestHub, echo, eventually, hold, hub, refuse};

#[tokio::test]
async fn bytes_go_both_ways_and_each_end_closes_the_other() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut client = hub.client("echo").await;
    client.echoes(b"over the tunnel and back").await;
    client.finish().await;
    assert!(client.rest().await.is_empty());
    gone(&hub).await;
    assert!(
        hub.metrics()
            .contains("nowconnect_tcp_bytes_total{direction=\"c2a\"} 24")
    );
}

#[tokio::test]
async fn bytes_go_both_ways_over_tls() {
    let target = echo().await;
    let hub = hub().tls().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    hub.client("echo").await.echoes(&vec![7; 1_000_000]).await;
}

#[tokio::test]
async fn the_client_ends_its_direction_first() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut client = hub.client("echo").await;
    client.send(b"last words").await;
    client.finish().await;
    assert_eq!(client.rest().await, b"last words");
    assert!(
        target.seen()[0].ended,
        "the service was not told of the end"
    );
}

#[tokio::test]
async fn the_service_ends_its_direction_first() {
    let target = hold().await;
    let hub = hub().listener("hold").start().await;
    let _agent = hub.plant("hold", target.address()).await;
    let mut client = hub.client("hold").await;
    assert_eq!(client.rest().await, b"hello");
    client.send(b"still talking").await;
    client.finish().await;
    eventually("the service hears the client to its end", || async {
        let seen = target.seen();
        seen[0].ended && seen[0].bytes == b"still talking"
    })
    .await;
    gone(&hub).await;
}

#[tokio::test]
async fn many_clients_at_once_do_not_mix() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    let clients = (0..64_u8).map(|n| {
        let hub = &hub;
        async move {
            let mut client = hub.client("echo").await;
            for round in 0..8 {
                client.echoes(&vec![n ^ round; 3_000]).await;
            }
        }
    });
    futures_util::future::join_all(clients).await;
}

#[tokio::test]
async fn a_target_that_refuses_closes_the_client() {
    let hub = hub().listener("echo").start().await;
    let _agent = hub.plant("echo", refuse().await).await;
    hub.client("echo").await.is_closed().await;
    eventually("the cause is counted", || async {
        hub.metrics()
            .contains("nowconnect_flow_ends_total{cause=\"connect_failed\"} 1")
    })
    .await;
}

#[tokio::test]
async fn a_connector_that_nobody_offers_closes_the_client() {
    let target = echo().await;
    let hub = hub().listener("echo").listener("other").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    hub.client("other").await.is_closed().await;
    eventually("the refusal is counted", || async {
        hub.metrics()
            .contains("nowconnect_denied_opens_total{code=\"no_agent_for_connector\"} 1")
    })
    .await;
    let record = &hub.decisions()[0];
    assert!(!record.allow);
    assert_eq!(record.why, Why::NoAgent);
    assert!(record.client.is_some(), "{record:?}");
}

#[tokio::test]
async fn a_flow_that_did_not_start_goes_to_another_agent_with_its_first_bytes() {
    let target = echo().await;
    let hub = hub()
        .listener_with("echo", "echo", "balance: round_robin")
        .start()
        .await;
    let _broken = hub
        .agent("broken")
        .target("echo", refuse().await)
        .ready()
        .await;
    let _whole = hub
        .agent("whole")
        .target("echo", target.address())
        .ready()
        .await;
    // Round robin: of any two clients in a row one meets the broken agent first.
    for _ in 0..4 {
        hub.client("echo").await.echoes(b"first bytes").await;
    }
    assert!(
        !hub.metrics().contains("nowconnect_open_retries_total 0"),
        "no client met the broken agent"
    );
}

#[tokio::test]
async fn idle_flows_are_ended() {
    let target = echo().await;
    let hub = hub()
        .listener_with("echo", "echo", "idle_timeout_ms: 1000")
        .limits("linger_ms: 1000")
        .start()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut client = hub.client("echo").await;
    client.echoes(b"and then silence").await;
    client.is_closed().await;
}

async fn gone(hub: &TestHub) {
    eventually("no flow is left", || async {
        hub.metrics()
            .contains("nowconnect_tcp_active_connections 0")
    })
    .await;
}

#[tokio::test]
async fn writes_to_clients_are_timed() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    for _ in 0..3 {
        hub.client("echo").await.echoes(b"timed").await;
    }
    // One for each flow; a flow that lasts has one about every second.
    let count = "nowconnect_write_drain_seconds_count{connector=\"echo\",phase=\"write\"} 3";
    eventually("each flow's first write is counted", || async {
        hub.metrics().contains(count)
    })
    .await;
}
