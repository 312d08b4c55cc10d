//! How requests and connections end that would not end by themselves.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::http2::plain;
use super::streams::{Played, gone, hub_before};
use super::{SHOP, web, web_hub, web_hub_with};
use crate::cluster::web::{Web, get, origin};
use crate::cluster::{SOON, TestHub, eventually};

#[tokio::test]
async fn a_viewer_that_reads_nothing_is_reset_and_gives_its_place_back() {
    let origin = Played::new().await;
    let hub = web_hub_with(&[SHOP], "limits: {send_timeout_ms: 300}")
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let mut viewer = Web::connect(web(&hub)).await;
    let flooding = flood(&mut viewer, &origin).await;
    ended(&hub, "viewer_stalled").await;
    gone(&hub).await;
    assert!(is_reset(&mut viewer.stream).await);
    flooding.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset_and_no_other() {
    let origin = Played::new().await;
    let hub = web_hub_with(&[SHOP], "limits: {send_timeout_ms: 300}")
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let mut sender = plain::<Full<Bytes>>(web(&hub)).await;
    let (stalled, flooding) = flood_http2(&mut sender, &origin).await;
    ended(&hub, "viewer_stalled").await;
    flooding.await.unwrap();
    let mut body = stalled.into_body();
    let broken = loop {
        match timeout(SOON, body.frame()).await.unwrap() {
            Some(Ok(_)) => {}
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(broken, "the stream looks whole");
    let asked = sender.send_request(super::http2::get("/a"));
    let (response, ()) = tokio::join!(timeout(SOON, asked), async {
        let mut service = origin.accept().await;
        service.head().await.unwrap();
        service
            .send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await;
    });
    assert_eq!(response.unwrap().unwrap().status(), 200);
}

/// A byte within each bound on silence would hold the connection for ever.
#[tokio::test]
async fn a_viewer_that_takes_a_byte_at_a_time_is_reset() {
    let origin = Played::new().await;
    let slow = "limits: {min_rate: {bytes_per_second: 1000000000, window_ms: 1000}}";
    let hub = web_hub_with(&[SHOP], slow).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let mut viewer = Web::connect(web(&hub)).await;
    let flooding = flood(&mut viewer, &origin).await;
    let dripping = async {
        // As much as makes the kernel tell the hub of room, and far from the rate.
        let mut taken = vec![0; 64 << 10];
        while viewer
            .stream
            .read(&mut taken)
            .await
            .is_ok_and(|read| read > 0)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (_, dripped) = tokio::join!(ended(&hub, "viewer_stalled"), timeout(SOON, dripping));
    dripped.expect("it should have been reset");
    flooding.await.unwrap();
}

#[tokio::test]
async fn a_body_that_comes_a_byte_at_a_time_is_too_slow() {
    let origin = Played::new().await;
    let slow = "limits: {min_rate: {bytes_per_second: 1000, window_ms: 300}}";
    let patient = "name: slow, host: slow.example.com, connector: shop, public: true, \
                   min_rate: false";
    let hub = web_hub_with(&[SHOP, patient], slow).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let begin = async |host: &str| {
        let mut viewer = Web::connect(web(&hub)).await;
        let head =
            format!("POST / HTTP/1.1\r\nhost: {host}.example.com\r\ncontent-length: 20\r\n\r\n");
        viewer.send(head).await;
        let mut service = origin.accept().await;
        service.head().await.unwrap();
        (viewer, service)
    };
    let (mut viewer, _service) = begin("shop").await;
    let answer = loop {
        // It is refused under way, and then takes no more.
        let _ = viewer.stream.write_all(b"a").await;
        let answer = timeout(Duration::from_millis(50), viewer.response()).await;
        if let Ok(answer) = answer {
            break answer;
        }
    };
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (408, "body_timeout")
    );

    let (mut viewer, mut service) = begin("slow").await;
    for _ in 0..20 {
        viewer.send("a").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(service.exactly(20).await, [b'a'; 20]);
    service.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(viewer.response().await.status(), 204);
}

/// Neither an answer of the hub's own nor the end of a short response holds anything by then.
#[tokio::test]
async fn answers_that_are_complete_and_not_taken_end_as_well() {
    let origin = origin(&[]).await;
    let hub = web_hub_with(&[SHOP], "limits: {send_timeout_ms: 300}")
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let stream = TcpStream::connect(web(&hub)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let missing = Request::get("http://elsewhere.example.com/").body(Full::default());
    for request in [missing.unwrap(), super::http2::get("/a")] {
        let response = timeout(SOON, sender.send_request(request)).await.unwrap();
        let body = response.unwrap().into_body();
        let ended = timeout(SOON, body.collect()).await.unwrap();
        assert!(ended.is_err(), "it was taken: {ended:?}");
    }
    drop(sender);
    timeout(SOON, connection).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_response_that_says_nothing_for_long_is_not_stalled() {
    let origin = Played::new().await;
    let hub = web_hub_with(&[SHOP], "limits: {send_timeout_ms: 100}")
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let mut sender = plain::<Full<Bytes>>(web(&hub)).await;
    let asked = tokio::spawn(async move {
        let response = sender.send_request(super::http2::get("/events")).await;
        response.unwrap().into_body().collect().await.unwrap()
    });
    let mut service = origin.accept().await;
    service.head().await.unwrap();
    service
        .send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    for _ in 0..3 {
        service.send("1\r\na\r\n").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    service.send("0\r\n\r\n").await;
    let body = timeout(SOON, asked).await.unwrap().unwrap();
    assert_eq!(body.to_bytes(), "aaa");
}

#[tokio::test]
async fn swapped_policies_reach_viewers_that_read_nothing() {
    let origin = Played::new().await;
    let (hub, _agent) = hub_before(&origin).await;
    let mut viewer = Web::connect(web(&hub)).await;
    let flooding = flood(&mut viewer, &origin).await;
    let mut sender = plain::<Full<Bytes>>(web(&hub)).await;
    let (_unread, also_flooding) = flood_http2(&mut sender, &origin).await;
    stuck(&hub).await;
    hub.write_policy("http.cedar", &super::closed());
    assert!(hub.reload().await.ok);
    flooding.await.unwrap();
    also_flooding.await.unwrap();
    gone(&hub).await;
    assert!(
        hub.metrics()
            .contains("nowconnect_http_request_ends_total{end=\"cut\"} 2")
    );
    assert!(is_reset(&mut viewer.stream).await);
}

#[tokio::test]
async fn one_address_cannot_take_all_requests() {
    let origin = Played::new().await;
    let hub = web_hub_with(&[SHOP], "limits: {max_requests_per_source: 1}")
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let (viewer, _service) = streaming(&hub, &origin, "HTTP/1.1").await;
    let answer = get(web(&hub), "shop.example.com", "/").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (429, "source_busy")
    );
    assert!(answer.field("retry-after").is_some());
    drop(viewer);
    gone(&hub).await;
    let asked = get(web(&hub), "shop.example.com", "/");
    let (answer, ()) = tokio::join!(asked, async {
        let mut service = origin.accept().await;
        service.head().await.unwrap();
        service.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    });
    assert_eq!(answer.status(), 204);
}

#[tokio::test]
async fn an_idle_connection_of_http2_is_told_to_go() {
    let origin = origin(&[]).await;
    let hub = web_hub_with(&[SHOP], "limits: {header_timeout_ms: 200}")
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let stream = TcpStream::connect(web(&hub)).await.unwrap();
    let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(get_a()).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response);
    // The client answers pings all the time, and has nothing to ask.
    timeout(SOON, connection).await.unwrap().unwrap().unwrap();
    assert!(sender.send_request(get_a()).await.is_err());
    drop(sender);
    eventually("the connection has given its place back", || async {
        hub.metrics().contains("nowconnect_http_connections 0\n")
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_old_takes_no_further_request() {
    let origin = Played::new().await;
    let hub = web_hub_with(&[SHOP], "limits: {max_connection_age_ms: 1000}")
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let (mut viewer, mut service) = streaming(&hub, &origin, "HTTP/1.1").await;
    // One that waits for its next request is gone by then, though it came later.
    let mut idle = Web::connect(web(&hub)).await;
    idle.send("GET / HTTP/1.1\r\nhost: elsewhere.example.com\r\n\r\n")
        .await;
    assert_eq!(idle.response().await.status(), 404);
    assert!(idle.is_closed().await);
    // What is under way comes to its end.
    service.send("last").await;
    drop(service);
    assert_eq!(viewer.chunk().await.unwrap(), b"last");
    assert_eq!(viewer.chunk().await, None);
    assert!(viewer.is_closed().await);
}

/// A body without a length ends with its origin's connection, and so does one that is cut short.
#[tokio::test]
async fn a_response_that_was_cut_short_does_not_look_whole() {
    let origin = Played::new().await;
    let hub = web_hub(&[SHOP]).admin().start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let (mut viewer, service) = streaming(&hub, &origin, version).await;
        drop(service);
        match version {
            "HTTP/1.1" => assert_eq!(viewer.chunk().await, None),
            _ => assert_eq!(viewer.stream.read(&mut [0]).await.unwrap(), 0),
        }
        let (mut viewer, service) = streaming(&hub, &origin, version).await;
        reset(service);
        assert!(is_reset(&mut viewer.stream).await, "{version}");
    }
    let mut sender = plain::<Full<Bytes>>(web(&hub)).await;
    let asked = sender.send_request(get_a());
    let (response, service) = tokio::join!(timeout(SOON, asked), begun(&origin));
    reset(service);
    let body = response.unwrap().unwrap().into_body();
    assert!(timeout(SOON, body.collect()).await.unwrap().is_err());

    let (mut viewer, _service) = streaming(&hub, &origin, "HTTP/1.0").await;
    hub.operator().kick_agent("plant").await.unwrap();
    assert!(is_reset(&mut viewer.stream).await, "the agent was lost");
}

/// A viewer and a service in the middle of a response without a length.
async fn streaming(hub: &TestHub, origin: &Played, version: &str) -> (Web, Web) {
    let mut viewer = Web::connect(web(hub)).await;
    viewer
        .send(format!(
            "GET /a {version}\r\nhost: shop.example.com\r\n\r\n"
        ))
        .await;
    let service = begun(origin).await;
    assert_eq!(viewer.head().await.unwrap().status(), 200);
    match version {
        "HTTP/1.1" => assert_eq!(viewer.chunk().await.unwrap(), b"first"),
        _ => assert_eq!(viewer.exactly(5).await, b"first"),
    }
    (viewer, service)
}

async fn begun(origin: &Played) -> Web {
    let mut service = origin.accept().await;
    service.head().await.unwrap();
    service.send("HTTP/1.1 200 OK\r\n\r\nfirst").await;
    service
}

/// Sends without end to a viewer that reads only the head.
pub(super) async fn flood(viewer: &mut Web, origin: &Played) -> JoinHandle<()> {
    viewer
        .send("GET /flood HTTP/1.1\r\nhost: shop.example.com\r\n\r\n")
        .await;
    let flooding = pour(origin).await;
    assert_eq!(viewer.head().await.unwrap().status(), 200);
    flooding
}

async fn flood_http2(
    sender: &mut hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    origin: &Played,
) -> (http::Response<hyper::body::Incoming>, JoinHandle<()>) {
    let asked = sender.send_request(super::http2::get("/flood"));
    let (response, flooding) = tokio::join!(timeout(SOON, asked), pour(origin));
    let response = response.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    (response, flooding)
}

/// Ends when nobody listens any more.
async fn pour(origin: &Played) -> JoinHandle<()> {
    let mut service = origin.accept().await;
    service.head().await.unwrap();
    service.send("HTTP/1.1 200 OK\r\n\r\n").await;
    tokio::spawn(async move {
        let part = vec![1; 1 << 20];
        while service.stream.write_all(&part).await.is_ok() {}
    })
}

/// Waits until no more passes: viewers take nothing, and all that may wait for them does.
pub(super) async fn stuck(hub: &TestHub) {
    let passed = || {
        let metrics = hub.metrics();
        let bytes = |line: &&str| line.starts_with("nowconnect_connector_bytes_total");
        metrics.lines().filter(bytes).collect::<Vec<_>>().join("")
    };
    let standing = async {
        loop {
            let before = passed();
            // What flows have carried is told about once a second.
            tokio::time::sleep(Duration::from_millis(2500)).await;
            if passed() == before {
                return;
            }
        }
    };
    timeout(SOON, standing)
        .await
        .expect("floods should stand still");
}

pub(super) async fn ended(hub: &TestHub, how: &str) {
    let line = format!("nowconnect_http_request_ends_total{{end=\"{how}\"}} 1\n");
    eventually(&format!("a request has ended as {how}"), || async {
        hub.metrics().contains(&line)
    })
    .await;
}

/// Ends a connection as one ends that broke.
fn reset(service: Web) {
    socket2::SockRef::from(&service.stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// Reads to the end; whether that is a reset.
pub(super) async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

fn get_a() -> Request<Full<Bytes>> {
    super::http2::get("/a")
}
