//! HTTP/2 from viewers, in clear and over TLS.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{future, stream};
use http::Request;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{PERMIT_HTTP, SHOP, ingress, web, web_hub};
use crate::cluster::web::{Web, origin};
use crate::cluster::{SOON, hub, tls};

#[tokio::test]
async fn many_requests_share_one_connection() {
    let origin = origin(&[]).await;
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let sender = plain::<Full<Bytes>>(web(&hub)).await;
    let asked = (0..50).map(|number| {
        let mut sender = sender.clone();
        async move {
            let path = format!("/{number}");
            let response = sender.send_request(get(&path)).await.unwrap();
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, path);
        }
    });
    timeout(SOON, future::join_all(asked)).await.unwrap();
    assert_eq!(origin.seen().len(), 50);
    assert_eq!(
        origin.last().field("host").as_deref(),
        Some("shop.example.com")
    );
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hub = web_hub(&[SHOP]).start().await;
    let address = listener.local_addr().unwrap();
    let _agent = hub.plant("shop", address).await;
    let mut sender = plain(web(&hub)).await;
    let (feed, mut fed) = mpsc::channel::<Frame<Bytes>>(4);
    let frames = stream::poll_fn(move |cx| {
        fed.poll_recv(cx)
            .map(|frame| frame.map(Ok::<_, Infallible>))
    });
    let body = StreamBody::new(frames);
    let request = Request::post("http://shop.example.com/call")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let answering = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut service = Web::over(stream);
        let head = service.head().await.unwrap();
        assert_eq!(head.field("te").as_deref(), Some("trailers"));
        service
            .send("HTTP/1.1 200 OK\r\ntrailer: x-status\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        // Each message is answered before the next one is sent.
        while let Some(message) = service.chunk().await {
            let length = message.len();
            service.send(format!("{length:x}\r\n")).await;
            service.send(&message).await;
            service.send("\r\n").await;
        }
        service.send("0\r\nx-status: 0\r\n\r\n").await;
    });
    let response = timeout(SOON, sender.send_request(request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    for number in 0..3 {
        let message = Bytes::from(format!("message {number}"));
        feed.send(Frame::data(message.clone())).await.unwrap();
        let frame = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    drop(feed);
    let last = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap()["x-status"], "0");
    answering.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_denied_leaves_the_others_alone() {
    let origin = origin(&[]).await;
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let mut sender = plain::<Full<Bytes>>(web(&hub)).await;
    let missing = Request::get("http://elsewhere.example.com/")
        .body(Full::default())
        .unwrap();
    let response = sender.send_request(missing).await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.headers()["x-nowconnect-error"], "unknown_host");
    let response = sender.send_request(get("/a")).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn tls_agrees_on_the_protocol_and_its_certificate_is_swapped() {
    let origin = origin(&[]).await;
    let text = ingress(
        &["name: shop, host: localhost, connector: shop, public: true"],
        "",
    )
    .replace(
        "bind: \"127.0.0.1:0\"",
        "bind: \"127.0.0.1:0\", tls: {cert_file: web.pem, key_file: web.key}",
    );
    let folder = tempfile::TempDir::new().unwrap();
    tls::write_pair(folder.path(), "web");
    let file = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let hub = hub()
        .policy_file("http.cedar", PERMIT_HTTP)
        .file("web.pem", file("web.pem"))
        .file("web.key", file("web.key"))
        .top(&text)
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let known = [tls::certificate(&hub.path("web.pem"))];
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1"][..], Some(&b"http/1.1"[..])),
        (&[][..], None),
    ] {
        let stream = tls::connect(web(&hub), &known, offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        if agreed != Some(b"h2") {
            continue;
        }
        let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::get("https://localhost/a")
            .body(Full::<Bytes>::default())
            .unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        assert_eq!(
            origin.last().field("x-forwarded-proto").as_deref(),
            Some("https")
        );
    }
    tls::write_pair(&hub.path(""), "web");
    assert!(hub.reload().await.ok);
    let next = tls::certificate(&hub.path("web.pem"));
    assert_ne!(next, known[0]);
    assert_eq!(
        tls::shown(web(&hub), std::slice::from_ref(&next))
            .await
            .unwrap(),
        next
    );
}

pub(super) async fn plain<B>(address: SocketAddr) -> SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

pub(super) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://shop.example.com{path}"))
        .body(Full::default())
        .unwrap()
}
