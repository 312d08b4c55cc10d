//! Agents that sign their upgrades, at hubs that want it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::SECRET;
use crate::cluster::{AgentPlan, HubPlan, TestHub, echo, hub};

const WRONG: &str = "00000000000000000000000000000000";

fn signing_hub() -> HubPlan {
    hub()
        .listener("echo")
        .file("plant.secret", format!("{SECRET}\n"))
        .security("signed_agents: [{agent: plant, secret_file: plant.secret}]")
}

fn plant(hub: &TestHub, target: SocketAddr) -> AgentPlan<'_> {
    hub.agent("plant").target("echo", target)
}

#[tokio::test]
async fn an_agent_with_the_secret_of_the_hub_serves() {
    let target = echo().await;
    let hub = signing_hub().start().await;
    let _agent = plant(&hub, target.address())
        .signs_with(SECRET)
        .ready()
        .await;
    hub.client("echo").await.echoes(b"signed for").await;
}

#[tokio::test]
async fn an_agent_without_it_is_told_what_is_missing() {
    let hub = signing_hub().start().await;
    let target = ([127, 0, 0, 1], 9).into();
    for (agent, code) in [
        (plant(&hub, target).start(), "`signature_missing`"),
        (
            plant(&hub, target).signs_with(WRONG).start(),
            "`signature_wrong`",
        ),
        // The hub has no secret of this one.
        (
            hub.agent("other")
                .target("echo", target)
                .signs_with(SECRET)
                .start(),
            "`signature_wrong`",
        ),
    ] {
        let told = agent.problem(code).await;
        assert!(!told.contains(SECRET) && !told.contains(WRONG), "{told}");
    }
}

/// What the hub reads is as old as what an agent sends whose clock is behind.
#[tokio::test]
async fn clocks_that_differ_are_both_told() {
    let hub = signing_hub().security("signed_window_sec: 1").start().await;
    let way = Way::to(hub.tunnel_address(), What::Keep(Duration::from_secs(2))).await;
    let late = plant(&hub, ([127, 0, 0, 1], 9).into())
        .signs_with(SECRET)
        .dials(way.address)
        .start();
    let told = late.problem("`signature_stale`").await;
    let times: Vec<&str> = told
        .split_whitespace()
        .filter(|word| word.starts_with("20") && word.contains('T'))
        .collect();
    assert_eq!(times.len(), 2, "{told}");
    assert!(times[0] < times[1], "{told}");
    assert!(told.contains("the hub's clock says"), "{told}");
}

#[tokio::test]
async fn a_request_that_somebody_sent_before_costs_the_agent_one_dial() {
    let target = echo().await;
    let hub = signing_hub().start().await;
    let way = Way::to(hub.tunnel_address(), What::SendFirst).await;
    let agent = plant(&hub, target.address())
        .signs_with(SECRET)
        .dials(way.address)
        .start();
    agent.ready().await;
    assert!(way.carried.load(Ordering::Relaxed) >= 2);
    assert!(
        hub.metrics()
            .contains("nowconnect_handshakes_total{result=\"signature_replayed\"} 1"),
    );
    hub.client("echo").await.echoes(b"with another nonce").await;
}

/// What happens to requests on their way.
#[derive(Clone, Copy)]
enum What {
    /// Each is kept for so long.
    Keep(Duration),
    /// The first is sent to the hub on a connection of somebody else before.
    SendFirst,
}

/// Somebody between agent and hub. Ends with its value.
struct Way {
    address: SocketAddr,
    carried: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Way {
    async fn to(hub: SocketAddr, what: What) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let carried = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&carried);
        let sent_first = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(pass(near, hub, what, Arc::clone(&sent_first)));
            }
        });
        Self {
            address,
            carried,
            task,
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut near: TcpStream, hub: SocketAddr, what: What, sent_first: Arc<AtomicBool>) {
    let request = head(&mut near).await;
    match what {
        What::Keep(time) => tokio::time::sleep(time).await,
        What::SendFirst if !sent_first.swap(true, Ordering::Relaxed) => {
            let mut thief = TcpStream::connect(hub).await.unwrap();
            thief.write_all(&request).await.unwrap();
            let answer = head(&mut thief).await;
            assert!(answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
        }
        What::SendFirst => {}
    }
    let mut far = TcpStream::connect(hub).await.unwrap();
    if far.write_all(&request).await.is_ok() {
        // An end that is gone is the end.
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}

/// The bytes up to the empty line.
async fn head(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    bytes
}
