//! Bounds on clients, and what comes in front of them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{SOON, echo, eventually, hold, hub};

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

/// The agent is told what the hub takes: one longer message would break the tunnel.
#[tokio::test]
async fn messages_keep_to_the_hubs_bound_in_bulk() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .tunnel("max_ws_message: 139264")
        .start()
        .await;
    let agent = hub.plant("echo", target.address()).await;
    let client = hub.client("echo").await;
    let (mut reader, mut writer) = client.stream.into_split();
    let sent: Vec<u8> = (0..2_097_152_u32).flat_map(u32::to_le_bytes).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::with_capacity(expected.len());
    tokio::time::timeout(SOON, reader.read_to_end(&mut received))
        .await
        .expect("all of it should have come back")
        .unwrap();
    writing.await.unwrap();
    assert!(received == expected, "the bytes differ");
    assert_eq!(
        agent.running.state().tunnels,
        1,
        "a tunnel broke on the way"
    );
}

#[tokio::test]
async fn a_target_is_told_the_clients_address_where_the_hub_says_so() {
    let target = hold().await;
    let hub = hub()
        .listener("v1")
        .listener("v2")
        .top("connectors:\n  v1: {proxy_protocol_out: v1}\n  v2: {proxy_protocol_out: v2}")
        .start()
        .await;
    let _agent = hub
        .agent("plant")
        .target("v1", target.address())
        .target("v2", target.address())
        .ready()
        .await;
    let mut client = hub.client("v1").await;
    let from = client.stream.local_addr().unwrap();
    client.send(b"first").await;
    let line = format!(
        "PROXY TCP4 {} {} {} {}\r\nfirst",
        from.ip(),
        target.address().ip(),
        from.port(),
        target.address().port()
    );
    eventually("the line and the first bytes", || async {
        let seen = target.seen();
        seen.first()
            .is_some_and(|seen| seen.bytes == line.as_bytes())
    })
    .await;
    let mut client = hub.client("v2").await;
    let from = client.stream.local_addr().unwrap();
    client.send(b"second").await;
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([127, 0, 0, 1, 127, 0, 0, 1]);
    header.extend(from.port().to_be_bytes());
    header.extend(target.address().port().to_be_bytes());
    header.extend(b"second");
    eventually("the header and the first bytes", || async {
        let seen = target.seen();
        seen.get(1).is_some_and(|seen| seen.bytes == header)
    })
    .await;
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
