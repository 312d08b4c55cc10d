//! Flows from the stub hub's clients to targets.

use std::time::Duration;

use nowconnect_agent::config::ProxyHeader;
use nowconnect_agent::{Agent, Target};
use nowconnect_protocol::ResetCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::stub_hub::{Outcome, StubHub};
use crate::support::{LIMIT, config, echo, eventually, exchange, name, ready, soon, tcp};

#[tokio::test]
async fn bytes_go_both_ways_and_half_close_is_kept() {
    let hub = StubHub::start().await;
    let running = ready(config(&hub.url()).with_target(name("echo"), tcp(echo().await))).await;
    assert_eq!(running.state().accepted, [name("echo")]);

    let (mut client, mut outcomes) = hub.open("echo").await;
    let sent = vec![7_u8; 3_000_000];
    let (mut read, mut write) = client.split();
    let mut back = Vec::new();
    soon("the echo", async {
        let send = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let (_, received) = tokio::join!(send, read.read_to_end(&mut back));
        received.unwrap();
    })
    .await;
    assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    acknowledged(&mut outcomes).await;
    let summary = ended(&mut outcomes).await;
    assert_eq!(
        (summary.bytes_c2a, summary.bytes_a2c),
        (3_000_000, 3_000_000)
    );
    eventually("no flow", || (running.flows() == 0).then_some(())).await;
}

#[tokio::test]
async fn targets_that_are_not_reached_are_told_by_code() {
    let hub = StubHub::start().await;
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut config = config(&hub.url())
        .with_target(name("closed"), tcp(closed))
        .with_target(name("hidden"), tcp(closed))
        .with_target(name("nowhere"), Target::tcp("no-such-host.invalid", 1));
    config.exported_connectors = vec![name("closed"), name("nowhere")];
    let _running = ready(config).await;
    for (connector, code) in [
        ("closed", ResetCode::ConnectFailed),
        ("nowhere", ResetCode::ConnectFailed),
        ("hidden", ResetCode::ConnectorDisabled),
        ("absent", ResetCode::UnknownConnector),
    ] {
        let (_client, mut outcomes) = hub.open(connector).await;
        assert_eq!(not_started(&mut outcomes).await, code, "{connector}");
    }
}

#[tokio::test]
async fn the_flow_after_the_last_allowed_one_finds_the_agent_busy() {
    let hub = StubHub::start().await;
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.limits.max_inflight_cids = 2;
    let _running = ready(config).await;
    let (mut first, _first_outcomes) = hub.open("echo").await;
    let (mut second, _second_outcomes) = hub.open("echo").await;
    exchange(&mut first, b"one").await;
    exchange(&mut second, b"two").await;
    let (_third, mut outcomes) = hub.open("echo").await;
    assert_eq!(not_started(&mut outcomes).await, ResetCode::AgentBusy);
}

#[tokio::test]
async fn a_unix_target_is_told_who_the_client_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let hub = StubHub::start().await;
    let target = Target {
        proxy_header: Some(ProxyHeader::V1),
        ..Target::unix(path)
    };
    let _running = ready(config(&hub.url()).with_target(name("unix"), target)).await;
    let (mut client, _outcomes) = hub.open("unix").await;
    client.write_all(b"payload").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut stream, _) = soon("a connect", listener.accept()).await.unwrap();
    let mut received = String::new();
    soon("the payload", stream.read_to_string(&mut received))
        .await
        .unwrap();
    assert_eq!(received, "PROXY TCP4 192.0.2.1 0.0.0.0 77 0\r\npayload");
}

#[tokio::test]
async fn a_targets_own_bound_on_silence_wins() {
    let hub = StubHub::start().await;
    let echo = echo().await;
    let hasty = Target {
        idle_timeout: Some(Duration::from_millis(100)),
        ..tcp(echo)
    };
    let patient = Target {
        idle_timeout: Some(Duration::from_secs(3600)),
        ..tcp(echo)
    };
    let mut config = config(&hub.url())
        .with_target(name("hasty"), hasty)
        .with_target(name("patient"), patient)
        .with_target(name("usual"), tcp(echo));
    config.limits.idle_timeout = Some(Duration::from_millis(200));
    let _running = ready(config).await;
    let (mut patient, _outcomes) = hub.open("patient").await;
    exchange(&mut patient, b"before").await;
    for connector in ["usual", "hasty"] {
        let (mut client, mut outcomes) = hub.open(connector).await;
        exchange(&mut client, b"once").await;
        acknowledged(&mut outcomes).await;
        assert_eq!(
            ended(&mut outcomes).await.cause.as_str(),
            "idle",
            "{connector}"
        );
    }
    exchange(&mut patient, b"after").await;
}

#[tokio::test]
async fn a_graceful_stop_lets_flows_finish_and_takes_no_new_ones() {
    let hub = StubHub::start().await;
    let running = ready(config(&hub.url()).with_target(name("echo"), tcp(echo().await))).await;
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"before").await;

    running.stop();
    eventually("stopping", || {
        (running.state().phase == nowconnect_agent::Phase::Stopping).then_some(())
    })
    .await;
    let (_late, mut outcomes) = hub.open("echo").await;
    assert_eq!(not_started(&mut outcomes).await, ResetCode::Draining);
    exchange(&mut client, b"after").await;
    assert_eq!(running.flows(), 1);

    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon("the end", client.read_to_end(&mut rest))
        .await
        .unwrap();
    soon("the stop", running.stopped()).await;
}

#[tokio::test]
async fn a_second_stop_ends_at_once() {
    let hub = StubHub::start().await;
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.limits.shutdown_timeout = Duration::from_secs(3600);
    let running = ready(config).await;
    let (mut client, mut outcomes) = hub.open("echo").await;
    exchange(&mut client, b"before").await;
    running.stop();
    running.stop_now();
    soon("the stop", running.stopped()).await;
    acknowledged(&mut outcomes).await;
    ended(&mut outcomes).await;
}

#[tokio::test]
async fn the_deadline_of_a_stop_ends_what_still_runs() {
    let hub = StubHub::start().await;
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.limits.shutdown_timeout = Duration::from_millis(100);
    let running = ready(config).await;
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"before").await;
    running.stop();
    soon("the stop", running.stopped()).await;
}

#[tokio::test]
async fn health_says_ok_without_and_ready_with_a_tunnel() {
    let hub = StubHub::start().await;
    hub.with(|script| script.refuse_upgrade = Some((503, Vec::new())));
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.health = Some("127.0.0.1:0".parse().unwrap());
    let running = Agent::start(config).unwrap();
    let address = running.health_address().unwrap();
    assert_eq!(probe(address).await, "OK\n");
    hub.with(|script| script.refuse_upgrade = None);
    running.ready(LIMIT).await.unwrap();
    let give_up = std::time::Instant::now() + LIMIT;
    while probe(address).await != "READY\n" {
        assert!(std::time::Instant::now() < give_up);
    }
}

async fn probe(address: std::net::SocketAddr) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn acknowledged(outcomes: &mut UnboundedReceiver<Outcome>) {
    let outcome = soon("an OPEN_ACK", outcomes.recv()).await.unwrap();
    assert!(matches!(outcome, Outcome::Acknowledged), "{outcome:?}");
}

async fn not_started(outcomes: &mut UnboundedReceiver<Outcome>) -> ResetCode {
    match soon("a refusal", outcomes.recv()).await.unwrap() {
        Outcome::NotStarted(code) => code,
        other @ (Outcome::Acknowledged | Outcome::Ended(_)) => panic!("{other:?}"),
    }
}

async fn ended(outcomes: &mut UnboundedReceiver<Outcome>) -> nowconnect_protocol::FlowSummary {
    match soon("an end", outcomes.recv()).await.unwrap() {
        Outcome::Ended(summary) => summary,
        other @ (Outcome::Acknowledged | Outcome::NotStarted(_)) => panic!("{other:?}"),
    }
}
