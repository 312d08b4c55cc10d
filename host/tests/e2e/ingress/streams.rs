//! Bodies that take their time, and connections that become something else.

use std::time::Duration;

use nowconnect_protocol::ResetCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{SHOP, web, web_hub, web_hub_with};
use crate::cluster::web::{Web, ask, get};
use crate::cluster::{SOON, TestHub, eventually};

/// An origin that is played by hand.
pub(super) struct Played {
    listener: TcpListener,
}

impl Played {
    pub(super) async fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    pub(super) fn address(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(super) async fn accept(&self) -> Web {
        let accepted = tokio::time::timeout(SOON, self.listener.accept()).await;
        Web::over(accepted.expect("a connection should have come").unwrap().0)
    }
}

pub(super) async fn hub_before(origin: &Played) -> (TestHub, crate::cluster::TestAgent) {
    let hub = web_hub(&[SHOP]).start().await;
    let agent = hub.plant("shop", origin.address()).await;
    (hub, agent)
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let origin = Played::new().await;
    let (hub, _agent) = hub_before(&origin).await;
    let mut viewer = Web::connect(web(&hub)).await;
    viewer
        .send("GET /events HTTP/1.1\r\nhost: shop.example.com\r\naccept: text/event-stream\r\n\r\n")
        .await;
    let mut service = origin.accept().await;
    service.head().await.unwrap();
    service
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(viewer.head().await.unwrap().status(), 200);
    for number in 0..3 {
        // The next one is sent only once the one before has arrived.
        service.send(format!("9\r\ndata: {number}\n\n\r\n")).await;
        assert_eq!(
            viewer.chunk().await.unwrap(),
            format!("data: {number}\n\n").as_bytes()
        );
    }
    service.send("0\r\n\r\n").await;
    assert_eq!(viewer.chunk().await, None);
}

#[tokio::test]
async fn a_body_goes_up_while_it_is_made() {
    let origin = Played::new().await;
    let (hub, _agent) = hub_before(&origin).await;
    let mut viewer = Web::connect(web(&hub)).await;
    viewer
        .send(
            "POST /up HTTP/1.1\r\nhost: shop.example.com\r\ntransfer-encoding: chunked\r\n\
             expect: 100-continue\r\n\r\n",
        )
        .await;
    assert_eq!(viewer.head().await.unwrap().status(), 100);
    let mut service = origin.accept().await;
    service.head().await.unwrap();
    for number in 0..3 {
        viewer.send(format!("1\r\n{number}\r\n")).await;
        assert_eq!(
            service.chunk().await.unwrap(),
            number.to_string().as_bytes()
        );
    }
    viewer.send("0\r\n\r\n").await;
    assert_eq!(service.chunk().await, None);
    service
        .send("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
        .await;
    assert_eq!(viewer.response().await.status(), 201);
}

#[tokio::test]
async fn a_denied_upload_is_not_invited() {
    let hub = web_hub(&["name: shop, host: shop.example.com, connector: shop"])
        .start()
        .await;
    let origin = Played::new().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let head = "POST /up HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: 1000000\r\n\
                expect: 100-continue\r\n\r\n";
    assert_eq!(ask(web(&hub), head).await.status(), 403);
}

#[tokio::test]
async fn trailers_pass() {
    let origin = Played::new().await;
    let (hub, _agent) = hub_before(&origin).await;
    let mut viewer = Web::connect(web(&hub)).await;
    viewer
        .send("GET / HTTP/1.1\r\nhost: shop.example.com\r\nte: trailers\r\n\r\n")
        .await;
    let mut service = origin.accept().await;
    assert_eq!(
        service.head().await.unwrap().field("te").as_deref(),
        Some("trailers")
    );
    service
        .send(
            "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n",
        )
        .await;
    assert_eq!(
        viewer.head().await.unwrap().field("trailer").as_deref(),
        Some("x-sum")
    );
    assert_eq!(viewer.chunk().await.unwrap(), b"abc");
    assert_eq!(viewer.line().await, "0");
    assert_eq!(viewer.line().await, "x-sum: 42");
}

#[tokio::test]
async fn a_websocket_is_a_connection_of_its_own() {
    let origin = Played::new().await;
    let (hub, _agent) = hub_before(&origin).await;
    let (mut viewer, mut service) = switched(&hub, &origin).await;
    for round in 0..3 {
        viewer.send(format!("ping {round}")).await;
        assert_eq!(service.exactly(6).await, format!("ping {round}").as_bytes());
        service.send(format!("pong {round}")).await;
        assert_eq!(viewer.exactly(6).await, format!("pong {round}").as_bytes());
    }
    service.send("last").await;
    drop(service);
    assert_eq!(viewer.exactly(4).await, b"last");
    assert!(viewer.is_closed().await);
    drop(viewer);
    gone(&hub).await;
}

#[tokio::test]
async fn an_origin_hears_that_its_viewer_left() {
    let origin = Played::new().await;
    let (hub, _agent) = hub_before(&origin).await;
    let mut viewer = Web::connect(web(&hub)).await;
    viewer
        .send("GET /events HTTP/1.1\r\nhost: shop.example.com\r\n\r\n")
        .await;
    let mut service = origin.accept().await;
    service.head().await.unwrap();
    service.send("HTTP/1.1 200 OK\r\n\r\nfirst").await;
    assert_eq!(viewer.head().await.unwrap().status(), 200);
    drop(viewer);
    assert!(service.is_closed().await);
    gone(&hub).await;
    assert!(hub.metrics().contains(&format!(
        "nowconnect_flow_ends_total{{cause=\"{}\"}} 1",
        ResetCode::ClientReset.as_str()
    )));
}

#[tokio::test]
async fn an_origin_that_does_not_answer_is_504() {
    let origin = Played::new().await;
    let route = format!("{SHOP}, response_timeout_ms: 200");
    let hub = web_hub(&[&route]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let answer = get(web(&hub), "shop.example.com", "/").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (504, "origin_timeout")
    );
    gone(&hub).await;
}

#[tokio::test]
async fn a_client_that_owes_a_body_is_not_the_origins_fault() {
    let origin = Played::new().await;
    let route = format!("{SHOP}, response_timeout_ms: 100");
    let hub = web_hub_with(&[&route], "limits: {body_timeout_ms: 500}")
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let head = "POST / HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: 5\r\n\r\nab";
    let answer = ask(web(&hub), head).await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (408, "body_timeout")
    );
}

#[tokio::test]
async fn a_kept_connection_that_has_ended_costs_no_request() {
    let origin = Played::new().await;
    let (hub, _agent) = hub_before(&origin).await;
    let mut viewer = Web::connect(web(&hub)).await;
    viewer
        .send("GET /1 HTTP/1.1\r\nhost: shop.example.com\r\n\r\n")
        .await;
    let mut service = origin.accept().await;
    service.head().await.unwrap();
    service
        .send("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1")
        .await;
    assert_eq!(viewer.response().await.text(), "1");
    viewer
        .send("GET /2 HTTP/1.1\r\nhost: shop.example.com\r\n\r\n")
        .await;
    // It reads the request and ends instead of answering.
    service.head().await.unwrap();
    drop(service);
    let mut service = origin.accept().await;
    assert!(
        service
            .head()
            .await
            .unwrap()
            .first_line
            .starts_with("GET /2")
    );
    service
        .send("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2")
        .await;
    assert_eq!(viewer.response().await.text(), "2");
    // What may not be repeated is not.
    viewer
        .send("POST /3 HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: 1\r\n\r\n3")
        .await;
    service.head().await.unwrap();
    drop(service);
    let answer = viewer.response().await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (502, "origin_closed")
    );
}

#[tokio::test]
async fn swapped_policies_end_what_is_under_way() {
    let origin = Played::new().await;
    let (hub, _agent) = hub_before(&origin).await;
    let (mut socket, mut behind_socket) = switched(&hub, &origin).await;
    let mut viewer = Web::connect(web(&hub)).await;
    viewer
        .send("GET /events HTTP/1.1\r\nhost: shop.example.com\r\n\r\n")
        .await;
    let mut service = origin.accept().await;
    service.head().await.unwrap();
    service
        .send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        .await;
    assert_eq!(viewer.head().await.unwrap().status(), 200);
    assert_eq!(viewer.chunk().await.unwrap(), b"a");
    hub.write_policy("http.cedar", &super::closed());
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    assert!(viewer.is_closed().await, "the stream should have been cut");
    assert!(socket.is_closed().await, "the socket should have been cut");
    assert!(service.is_closed().await);
    assert!(behind_socket.is_closed().await);
    gone(&hub).await;
}

#[tokio::test]
async fn a_large_body_passes_both_ways_at_the_pace_of_the_slower_end() {
    const BYTES: usize = 64 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Sends back what it gets, as it comes.
    let service = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut web = Web::over(stream);
        let head = web.head().await.unwrap();
        let length = head.field("content-length").unwrap();
        web.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
        let mut left: usize = length.parse().unwrap();
        while left > 0 {
            let part = web.exactly(left.min(64 * 1024)).await;
            web.send(&part).await;
            left -= part.len();
        }
    });
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", address).await;
    let stream = TcpStream::connect(web(&hub)).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        let head =
            format!("POST / HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: {BYTES}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.unwrap();
        let part = vec![7; 1 << 20];
        for _ in 0..BYTES / part.len() {
            writer.write_all(&part).await.unwrap();
        }
        writer
    });
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(reader.read_u8().await.unwrap());
    }
    let mut left = BYTES;
    let mut buffer = vec![0; 256 * 1024];
    while left > 0 {
        let length = tokio::time::timeout(SOON, reader.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert!(length > 0, "{left} bytes are missing");
        assert!(buffer[..length].iter().all(|byte| *byte == 7));
        left -= length;
    }
    drop(sending.await.unwrap());
    service.await.unwrap();
}

#[tokio::test]
async fn a_viewer_that_reads_nothing_stops_its_origin() {
    let origin = Played::new().await;
    let (hub, _agent) = hub_before(&origin).await;
    let mut viewer = Web::connect(web(&hub)).await;
    viewer
        .send("GET /flood HTTP/1.1\r\nhost: shop.example.com\r\n\r\n")
        .await;
    let mut service = origin.accept().await;
    service.head().await.unwrap();
    service.send("HTTP/1.1 200 OK\r\n\r\n").await;
    let part = vec![1; 1 << 20];
    let mut sent = 0;
    // Kernels hold some; the rest must stay with the origin.
    let stopped = loop {
        let write = service.stream.write(&part);
        match tokio::time::timeout(Duration::from_secs(2), write).await {
            Ok(written) => sent += written.unwrap(),
            Err(_) => break true,
        }
        if sent > 512 << 20 {
            break false;
        }
    };
    assert!(stopped, "the origin could send {sent} bytes to nobody");
}

#[tokio::test]
async fn an_upgrade_to_another_protocol_is_an_ordinary_request() {
    let origin = Played::new().await;
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    for protocol in ["h2c", "websocket, h2c"] {
        let mut viewer = Web::connect(web(&hub)).await;
        viewer
            .send(format!(
                "GET / HTTP/1.1\r\nhost: shop.example.com\r\n\
                 connection: Upgrade, HTTP2-Settings\r\nupgrade: {protocol}\r\n\
                 http2-settings: AAMAAABkAAQAAP__\r\n\r\n"
            ))
            .await;
        let mut service = origin.accept().await;
        let head = service.head().await.unwrap();
        assert_eq!(head.field("upgrade"), None, "{protocol}");
        assert_eq!(head.field("http2-settings"), None, "{protocol}");
        // A service that switches all the same.
        service
            .send("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\n")
            .await;
        let head = viewer.head().await.unwrap();
        assert_eq!(head.status(), 502, "{protocol}");
        assert_eq!(
            head.field("x-nowconnect-error").as_deref(),
            Some("origin_protocol")
        );
    }
}

/// A viewer and a service whose connection has switched.
async fn switched(hub: &TestHub, origin: &Played) -> (Web, Web) {
    let mut viewer = Web::connect(web(hub)).await;
    viewer
        .send(
            "GET /socket HTTP/1.1\r\nhost: shop.example.com\r\nconnection: keep-alive, Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-version: 13\r\n\r\n",
        )
        .await;
    let mut service = origin.accept().await;
    let head = service.head().await.unwrap();
    assert_eq!(head.field("connection").as_deref(), Some("upgrade"));
    assert_eq!(head.field("upgrade").as_deref(), Some("websocket"));
    assert!(head.field("sec-websocket-key").is_some());
    service
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        )
        .await;
    let head = viewer.head().await.unwrap();
    assert_eq!(head.status(), 101);
    assert_eq!(head.field("upgrade").as_deref(), Some("websocket"));
    (viewer, service)
}

/// Nothing of any request is left.
pub(super) async fn gone(hub: &TestHub) {
    eventually("every flow has ended", || async {
        hub.metrics().contains("nowconnect_flows_open 0\n")
    })
    .await;
}
