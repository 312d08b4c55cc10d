//! Lessons from others' advisories, one test each where they apply here.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::{Claims, SOON, echo, eventually, hub, now_s};

#[tokio::test]
async fn a_revoked_agent_loses_its_session_and_does_not_come_back() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    let line = format!("{{\"agent\":\"plant\",\"revoked_at\":{}}}\n", now_s());
    std::fs::write(hub.path("revoked.jsonl"), line).unwrap();
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    running.is_closed().await;
    agent.problem("revoked").await;
    hub.client("echo").await.is_closed().await;
}

#[tokio::test]
async fn expiry_is_checked_at_every_open_and_not_only_at_hello() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .security("on_expiry: keep\nclock_skew_ms: 0")
        .start()
        .await;
    let _agent = hub
        .agent("plant")
        .claims(|claims| claims.expires_in_s(2))
        .target("echo", target.address())
        .ready()
        .await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    hub.client("echo").await.is_closed().await;
    assert!(target.seen().is_empty());
}

#[tokio::test]
async fn handshakes_beyond_the_bound_are_told_to_come_back() {
    let hub = hub()
        .tunnel("handshake: {max_concurrent: 4, max_per_source: 4}")
        .start()
        .await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(hub.tunnel_address()).await.unwrap());
    }
    let answer = eventually_refused(&hub).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.to_ascii_lowercase().contains("retry-after:"),
        "{answer}"
    );
    drop(silent);
    eventually("there is room again", || async {
        hub.get("/healthz").await == (200, r#"{"status":"ok"}"#.to_owned())
    })
    .await;
}

async fn eventually_refused(hub: &crate::cluster::TestHub) -> String {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let mut stream = TcpStream::connect(hub.tunnel_address()).await.unwrap();
        let mut answer = String::new();
        let read = timeout(
            Duration::from_millis(500),
            stream.read_to_string(&mut answer),
        )
        .await;
        if read.is_ok() && !answer.is_empty() {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "nobody was refused");
    }
}

#[tokio::test]
async fn a_handshake_that_says_nothing_is_ended() {
    let hub = hub().tunnel("handshake: {timeout_ms: 1000}").start().await;
    let mut silent = TcpStream::connect(hub.tunnel_address()).await.unwrap();
    let mut byte = [0];
    let read = timeout(SOON, silent.read(&mut byte))
        .await
        .expect("the silent peer should have been closed");
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn an_endless_header_is_cut_off() {
    let hub = hub()
        .tunnel("handshake: {max_header_bytes: 16384}")
        .start()
        .await;
    let mut stream = TcpStream::connect(hub.tunnel_address()).await.unwrap();
    stream
        .write_all(b"GET /tunnel HTTP/1.1\r\nx-filler: ")
        .await
        .unwrap();
    let mut sent = 0;
    while stream.write_all(&[b'a'; 1024]).await.is_ok() {
        sent += 1024;
        assert!(sent < 8 << 20, "the hub takes headers without end");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_upgrade_without_hello_is_ended() {
    let hub = hub().tunnel("hello_timeout_ms: 1000").start().await;
    let mut stream = TcpStream::connect(hub.tunnel_address()).await.unwrap();
    let token = hub.issuer.sign(&Claims::of("plant"));
    let request = format!(
        "GET /tunnel HTTP/1.1\r\nhost: hub\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: nowconnect.v1\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset would do as well as an end.
    let _ = timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .expect("the silent agent should have been closed");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(
        answer
            .to_ascii_lowercase()
            .contains("sec-websocket-protocol: nowconnect.v1"),
        "{answer}"
    );
}
