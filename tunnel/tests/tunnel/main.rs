//! Both drivers over a transport in memory, with real sockets at the flows' ends.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod harness;

use std::time::Duration;

use harness::{Pair, local};
use nowconnect_tunnel::protocol::{FlowCause, ResetCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn bytes_go_both_ways_and_each_side_ends_by_itself() {
    local(async {
        let pair = Pair::start().await;
        let (mut client, mut target) = pair.open().await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        target.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        target.write_all(b"answer").await.unwrap();
        drop(target);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        let summary = pair.ended().await;
        assert_eq!(summary.cause, FlowCause::Finished);
        assert_eq!((summary.bytes_c2a, summary.bytes_a2c), (8, 6));
    });
}

#[test]
fn the_target_may_end_first() {
    local(async {
        let pair = Pair::start().await;
        let (mut client, mut target) = pair.open().await;
        target.write_all(b"banner").await.unwrap();
        target.shutdown().await.unwrap();
        let mut banner = Vec::new();
        client.read_to_end(&mut banner).await.unwrap();
        assert_eq!(banner, b"banner");
        client.write_all(b"late").await.unwrap();
        drop(client);
        let mut late = Vec::new();
        target.read_to_end(&mut late).await.unwrap();
        assert_eq!(late, b"late");
        assert_eq!(pair.ended().await.cause, FlowCause::Finished);
    });
}

#[test]
fn bulk_both_ways_at_once_arrives_whole() {
    local(async {
        let pair = Pair::start().await;
        let (client, target) = pair.open().await;
        harness::exchange(client, target, 20_000_000).await;
        assert_eq!(pair.ended().await.cause, FlowCause::Finished);
    });
}

#[test]
fn many_flows_share_one_tunnel() {
    local(async {
        let pair = Pair::start().await;
        let mut exchanges = Vec::new();
        for _ in 0..64 {
            let (client, target) = pair.open().await;
            exchanges.push(tokio::task::spawn_local(harness::exchange(
                client, target, 300_000,
            )));
        }
        for exchange in exchanges {
            exchange.await.unwrap();
        }
    });
}

#[test]
fn a_stalled_reader_holds_up_nobody_else() {
    local(async {
        let pair = Pair::start().await;
        let mut stalled = Vec::new();
        for _ in 0..8 {
            let (client, mut target) = pair.open().await;
            let pushing = tokio::task::spawn_local(async move {
                let block = vec![7; 65_536];
                while target.write_all(&block).await.is_ok() {}
            });
            stalled.push((client, pushing));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (client, target) = pair.open().await;
        harness::exchange(client, target, 2_000_000).await;
        for (_, pushing) in stalled {
            pushing.abort();
        }
    });
}

#[test]
fn a_target_that_refuses_gives_the_client_back_with_its_bytes() {
    local(async {
        let pair = Pair::start().await;
        pair.refuse_dials(ResetCode::ConnectFailed);
        let mut client = pair.open_client().await;
        client.write_all(b"early").await.unwrap();
        let failed = pair.not_started().await;
        assert_eq!(failed.code, ResetCode::ConnectFailed);
    });
}

#[test]
fn a_broken_target_resets_the_client() {
    local(async {
        let pair = Pair::start().await;
        let (mut client, mut target) = pair.open().await;
        // A byte shows that the agent's dial is over.
        target.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
        target.set_zero_linger().unwrap();
        drop(target);
        let mut rest = Vec::new();
        // The client sees either a reset or an end; what matters is that it sees one.
        let _seen = client.read_to_end(&mut rest).await;
        let summary = pair.ended().await;
        assert!(
            matches!(
                summary.cause,
                FlowCause::Reset {
                    code: ResetCode::TargetReset,
                    local: false,
                    ..
                }
            ),
            "{summary:?}"
        );
    });
}

#[test]
fn flows_go_on_after_the_transport_broke() {
    local(async {
        let pair = Pair::start().await;
        let (client, target) = pair.open().await;
        let exchange = tokio::task::spawn_local(harness::exchange(client, target, 30_000_000));
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            pair.cut_and_reconnect().await;
        }
        exchange.await.unwrap();
        let summary = pair.ended().await;
        assert_eq!(summary.cause, FlowCause::Finished);
        assert!(summary.resumes > 0, "{summary:?}");
    });
}

#[test]
fn a_new_tunnel_takes_over_from_a_living_one() {
    local(async {
        let pair = Pair::start().await;
        let (client, target) = pair.open().await;
        let exchange = tokio::task::spawn_local(harness::exchange(client, target, 30_000_000));
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            pair.replace().await;
        }
        exchange.await.unwrap();
        assert_eq!(pair.ended().await.cause, FlowCause::Finished);
    });
}

#[test]
fn flows_asked_for_by_somebody_who_has_gone_stay_with_their_tunnel() {
    local(async {
        let pair = Pair::start().await;
        let (client, target) = pair.open().await;
        let exchange = tokio::task::spawn_local(harness::exchange(client, target, 3_000_000));
        pair.ask_and_go_away().await;
        exchange.await.unwrap();
        assert_eq!(pair.ended().await.cause, FlowCause::Finished);
    });
}

#[test]
fn an_idle_flow_is_ended_towards_the_target_and_then_reset() {
    local(async {
        let pair = Pair::start().await;
        let (mut client, mut target) = pair
            .open_with(|terms| {
                terms.idle_timeout = Duration::from_millis(100);
                terms.linger = Duration::from_millis(100);
            })
            .await;
        let mut nothing = Vec::new();
        target.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty());
        let mut rest = Vec::new();
        let _seen = client.read_to_end(&mut rest).await;
        let summary = pair.ended().await;
        assert_eq!(summary.cause.as_str(), "idle");
    });
}

#[test]
fn bytes_read_before_the_open_come_first() {
    local(async {
        let pair = Pair::start().await;
        let (mut client, mut target) = pair.open_early(b"first ").await;
        client.write_all(b"second").await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = String::new();
        target.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "first second");
    });
}
