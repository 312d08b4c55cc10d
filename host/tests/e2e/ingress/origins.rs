//! Services that speak HTTP/2, and those that want their connections for one viewer alone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nowconnect_agent::config::TargetTls;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::http2::plain;
use super::{SHOP, web, web_hub};
use crate::cluster::web::{Web, get, origin};
use crate::cluster::{SOON, TestAgent, TestHub, eventually, tls};

/// The agent makes TLS to the service, says in OPEN_ACK what it agreed on, and the hub speaks it.
#[tokio::test]
async fn http2_is_spoken_to_a_service_whose_tls_agreed_on_it() {
    let (hub, origin, _agent) = grpc_hub().await;
    let answer = get(web(&hub), "shop.example.com", "/a").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.field("x-version").as_deref(), Some("HTTP/2.0"));
    assert_eq!(
        answer.field("x-authority").as_deref(),
        Some("shop.example.com")
    );
    // What it was told once it knows.
    for _ in 0..3 {
        assert_eq!(get(web(&hub), "shop.example.com", "/a").await.status(), 200);
    }
    assert_eq!(origin.connections.load(Ordering::Relaxed), 1);

    let mut viewer = Web::connect(web(&hub)).await;
    viewer
        .send(
            "GET /socket HTTP/1.1\r\nhost: shop.example.com\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-version: 13\r\n\r\n",
        )
        .await;
    let answer = viewer.response().await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (502, "origin_protocol"),
        "HTTP/2 knows no upgrade"
    );
}

/// A call that goes both ways at once, as gRPC makes it: each message is answered before the next
/// one is sent, and the status comes in trailers.
#[tokio::test]
async fn a_grpc_call_goes_both_ways_at_once_and_ends_with_its_status() {
    let (hub, _origin, _agent) = grpc_hub().await;
    let mut sender = plain(web(&hub)).await;
    let (feed, body) = fed();
    let request = Request::post("http://shop.example.com/echo.Echo/Both")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let response = timeout(SOON, sender.send_request(request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["x-te"], "trailers");
    let mut body = response.into_body();
    for number in 0..5 {
        let message = Bytes::from(format!("\0\0\0\0\u{1}{number}"));
        feed.send(Frame::data(message.clone())).await.unwrap();
        let frame = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    drop(feed);
    let last = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
    let trailers = last.into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["grpc-message"], "done");
}

/// A call that fails at once has its status in the head.
#[tokio::test]
async fn a_grpc_call_that_fails_at_once_says_so() {
    let (hub, _origin, _agent) = grpc_hub().await;
    let mut sender = plain::<Full<Bytes>>(web(&hub)).await;
    let request = Request::post("http://shop.example.com/echo.Echo/Missing")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::default())
        .unwrap();
    let response = timeout(SOON, sender.send_request(request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.headers()["grpc-status"], "12");
    let rest = response.into_body().collect().await.unwrap();
    assert!(rest.to_bytes().is_empty());
}

#[tokio::test]
async fn connections_that_are_a_viewers_own_serve_no_other() {
    let origin = origin(&[]).await;
    let route = format!("{SHOP}, connections: viewer");
    let hub = web_hub(&[&route]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let request = "GET /a HTTP/1.1\r\nhost: shop.example.com\r\n\r\n";
    let mut viewers = [Web::connect(web(&hub)).await, Web::connect(web(&hub)).await];
    for _ in 0..3 {
        for viewer in &mut viewers {
            viewer.send(request).await;
            assert_eq!(viewer.response().await.status(), 200);
        }
    }
    assert_eq!(origin.connections(), 2);
    let kept = "nowconnect_http_upstream_idle_connections";
    assert!(hub.metrics().contains(&format!("{kept} 2\n")));
    // With its viewer a connection goes too.
    let [one, _other] = viewers;
    drop(one);
    eventually("its connection has ended", || async {
        hub.metrics().contains(&format!("{kept} 1\n"))
    })
    .await;
    assert_eq!(get(web(&hub), "shop.example.com", "/b").await.status(), 200);
    assert_eq!(origin.connections(), 3);
}

struct GrpcOrigin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for GrpcOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn grpc_hub() -> (TestHub, GrpcOrigin, TestAgent) {
    let hub = web_hub(&[SHOP]).start().await;
    let (ca, acceptor) = tls::authority_of(&[b"h2".as_slice()]);
    let ca_bundle = hub.path("origin-ca.pem");
    std::fs::write(&ca_bundle, ca).unwrap();
    let origin = grpc_origin(acceptor).await;
    let settings = TargetTls {
        ca_bundle: Some(ca_bundle),
        server_name: Some("localhost".to_owned()),
        alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
        client_certificate: None,
    };
    let plan = hub.agent("plant");
    let agent = plan.target_tls("shop", origin.address, settings).ready();
    let agent = agent.await;
    (hub, origin, agent)
}

async fn grpc_origin(acceptor: TlsAcceptor) -> GrpcOrigin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(
                http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer)),
            );
        }
    });
    GrpcOrigin {
        address,
        connections,
        task,
    }
}

type Fed = StreamBody<
    std::pin::Pin<
        Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync>,
    >,
>;

/// A body of what is sent into the channel.
fn fed() -> (mpsc::Sender<Frame<Bytes>>, Fed) {
    let (feed, mut fed) = mpsc::channel::<Frame<Bytes>>(4);
    let frames = stream::poll_fn(move |cx| fed.poll_recv(cx).map(|frame| frame.map(Ok)));
    (feed, StreamBody::new(Box::pin(frames)))
}

/// Echoes what it gets, as it comes.
async fn answer(request: Request<Incoming>) -> Result<Response<Fed>, Infallible> {
    let (feed, body) = fed();
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let version = match request.version() {
        Version::HTTP_2 => "HTTP/2.0",
        _ => "another",
    };
    headers.insert("x-version", version.parse().unwrap());
    let authority = request.uri().authority().map_or("", |name| name.as_str());
    headers.insert("x-authority", authority.parse().unwrap());
    if let Some(te) = request.headers().get("te") {
        headers.insert("x-te", te.clone());
    }
    if request.uri().path() == "/echo.Echo/Missing" {
        headers.insert("grpc-status", "12".parse().unwrap());
        return Ok(response);
    }
    if let Some(media) = request.headers().get("content-type") {
        headers.insert("content-type", media.clone());
        let mut incoming = request.into_body();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = incoming.frame().await {
                // A viewer that left hears nothing more.
                if feed.send(frame).await.is_err() {
                    return;
                }
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("grpc-message", "done".parse().unwrap());
            let _ = feed.send(Frame::trailers(trailers)).await;
        });
    }
    Ok(response)
}
