//! A tunnel that breaks need not cut its clients.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::cluster::{Link, SOON, echo, eventually, hub};

#[tokio::test]
async fn flows_go_on_from_the_exact_byte_when_the_tunnel_is_cut() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let link = Link::to(hub.tunnel_address()).await;
    let agent = hub
        .agent("plant")
        .through(&link)
        .target("echo", target.address())
        .ready()
        .await;
    let client = hub.client("echo").await;
    let (mut reader, mut writer) = client.stream.into_split();
    // 4 MiB that repeat nowhere, so that a byte lost, doubled or swapped shows.
    let sent: Vec<u8> = (0..1_048_576_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        for chunk in sent.chunks(64 * 1024) {
            writer.write_all(chunk).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::with_capacity(expected.len());
    let mut buffer = vec![0; 64 * 1024];
    let mut cuts = 0;
    loop {
        let length = timeout(SOON, reader.read(&mut buffer))
            .await
            .expect("the flow should have gone on")
            .unwrap();
        if length == 0 {
            break;
        }
        received.extend_from_slice(&buffer[..length]);
        if cuts < 3 && received.len() > (cuts + 1) * 900_000 {
            cuts += 1;
            let before = agent.running.state().tunnels;
            link.cut();
            agent.until(|state| state.tunnels > before).await;
        }
    }
    writing.await.unwrap();
    assert_eq!(cuts, 3);
    assert!(received == expected, "the bytes differ");
    assert!(
        agent.running.state().resumed >= 3,
        "{:?}",
        agent.running.state()
    );
    assert_eq!(target.seen().len(), 1, "the target was dialled again");
}

#[tokio::test]
async fn a_new_flow_waits_for_nobody_while_the_agent_is_away() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let link = Link::to(hub.tunnel_address()).await;
    let _agent = hub
        .agent("plant")
        .through(&link)
        .target("echo", target.address())
        .ready()
        .await;
    let mut waiting = hub.client("echo").await;
    waiting.echoes(b"before").await;
    link.close();
    eventually("the hub notices", || async {
        hub.metrics().contains("nowconnect_sessions_detached 1")
    })
    .await;
    hub.client("echo").await.is_closed().await;
}

#[tokio::test]
async fn flows_of_an_agent_that_stays_away_end_after_the_grace_time() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .tunnel("resume_grace_ms: 1000")
        .start()
        .await;
    let link = Link::to(hub.tunnel_address()).await;
    let _agent = hub
        .agent("plant")
        .through(&link)
        .target("echo", target.address())
        .ready()
        .await;
    let mut client = hub.client("echo").await;
    client.echoes(b"before").await;
    link.close();
    client.is_closed().await;
    eventually("the cause is counted", || async {
        hub.metrics()
            .contains("nowconnect_flow_ends_total{cause=\"ws_broken\"} 1")
    })
    .await;
}

#[tokio::test]
async fn without_a_grace_time_a_broken_tunnel_ends_its_flows() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .tunnel("resume_grace_ms: 0")
        .start()
        .await;
    let link = Link::to(hub.tunnel_address()).await;
    let agent = hub
        .agent("plant")
        .through(&link)
        .target("echo", target.address())
        .ready()
        .await;
    let mut client = hub.client("echo").await;
    client.echoes(b"before").await;
    link.cut();
    client.is_closed().await;
    agent.until(|state| state.tunnels == 2).await;
    hub.client("echo").await.echoes(b"and new ones work").await;
    assert!(link.carried() >= 2);
}
