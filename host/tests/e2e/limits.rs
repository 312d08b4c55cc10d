//! Bounds on clients, and what comes in front of them.

use tokio::io::AsyncWriteExt;

use crate::cluster::{echo, eventually, hub};

#[tokio::test]
async fn addresses_outside_allow_cidrs_are_closed() {
    let target = echo().await;
    let hub = hub()
        .listener_with("open", "echo", "allow_cidrs: [127.0.0.0/8]")
        .listener_with("closed", "echo", "allow_cidrs: [10.0.0.0/8]")
        .start()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    hub.client("open").await.echoes(b"inside").await;
    hub.client("closed").await.is_closed().await;
    assert!(
        hub.metrics()
            .contains("nowconnect_denied_opens_total{code=\"cidr_blocked\"} 1")
    );
}

#[tokio::test]
async fn a_listener_that_is_full_lets_the_next_client_wait() {
    let target = echo().await;
    let hub = hub()
        .listener_with("echo", "echo", "max_connections: 1")
        .start()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut first = hub.client("echo").await;
    first.echoes(b"first").await;
    let mut second = hub.client("echo").await;
    second.send(b"second").await;
    first.echoes(b"first again").await;
    assert_eq!(target.seen().len(), 1, "the second was let in too early");
    drop(first);
    assert_eq!(second.receive(6).await, b"second");
}

#[tokio::test]
async fn a_connector_carries_no_more_flows_than_it_may() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .top("connectors:\n  echo: {max_connections: 1}")
        .start()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut first = hub.client("echo").await;
    first.echoes(b"first").await;
    hub.client("echo").await.is_closed().await;
    assert!(
        hub.metrics()
            .contains("nowconnect_denied_opens_total{code=\"connection_limit\"} 1")
    );
}

#[tokio::test]
async fn a_source_that_opens_too_fast_is_closed() {
    let target = echo().await;
    let hub = hub()
        .listener_with("echo", "echo", "rate_per_source: {per_second: 1, burst: 2}")
        .start()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    for _ in 0..5 {
        let mut client = hub.client("echo").await;
        client.send(b"x").await;
    }
    eventually("the fast ones are refused", || async {
        hub.metrics()
            .contains("nowconnect_denied_opens_total{code=\"rate_limited\"}")
    })
    .await;
}

#[tokio::test]
async fn what_one_source_is_refused_costs_the_others_nothing() {
    let target = echo().await;
    let hub = hub()
        .listener_with(
            "echo",
            "echo",
            "rate: {per_second: 1, burst: 5}, rate_per_source: {per_second: 1, burst: 2}",
        )
        .start()
        .await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    for _ in 0..30 {
        let mut client = hub.client("echo").await;
        // The close may come first.
        let _ = client.stream.write_all(b"x").await;
    }
    eventually("the fast one is refused", || async {
        hub.metrics()
            .contains("nowconnect_denied_opens_total{code=\"rate_limited\"}")
    })
    .await;
    let mut other = hub
        .client_from("echo", std::net::Ipv4Addr::new(127, 0, 0, 2))
        .await;
    other.echoes(b"another address").await;
}

#[tokio::test]
async fn listeners_without_clients_hold_no_place() {
    let target = echo().await;
    let hub = hub()
        .limits("max_conn_total: 2")
        .listener_with("a", "echo", "")
        .listener_with("b", "echo", "")
        .listener_with("c", "echo", "")
        .start()
        .await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    for listener in ["a", "b", "c"] {
        hub.client(listener).await.echoes(b"there is room").await;
    }
}

#[tokio::test]
async fn a_proxy_header_names_the_client_only_where_it_is_trusted() {
    let target = echo().await;
    let hub = hub()
        .listener_with(
            "behind",
            "echo",
            "proxy_protocol: {accept: any, trusted: [127.0.0.0/8]}, allow_cidrs: [192.0.2.0/24]",
        )
        .listener_with(
            "direct",
            "echo",
            "proxy_protocol: {accept: any, trusted: [10.0.0.0/8]}",
        )
        .start()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut client = hub.client("behind").await;
    client
        .send(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 389\r\n")
        .await;
    client.echoes(b"hello from 192.0.2.7").await;
    assert!(
        hub.decisions()
            .iter()
            .any(|record| record.client == Some(([192, 0, 2, 7], 4711).into())),
        "the decision was about another address"
    );

    // The same from an address that is not trusted closes the connection.
    let mut forged = hub.client("direct").await;
    // The close may come before the write ends.
    let _ = forged
        .stream
        .write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 389\r\n")
        .await;
    forged.is_closed().await;
    hub.client("direct").await.echoes(b"no header at all").await;
}
