//! Bundles that the hub finds by itself.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{in_force, ready, trouble};
use crate::cluster::tls::authority;
use crate::cluster::{Bundler, eventually, forbid_open, hub};

#[tokio::test]
async fn a_folder_is_taken_and_its_changes_too() {
    let maker = Bundler::new();
    let hub = hub()
        .admin()
        .bundles(&maker, "source: policies.bundle\npoll_ms: 100")
        .start()
        .await;
    trouble(&hub, "bundle_unreadable").await;
    maker
        .archive(1, "")
        .write_to(&hub.path("policies.bundle"))
        .unwrap();
    in_force(&hub, 1).await;
    std::fs::write(hub.path("next.tar"), maker.tar(2, &forbid_open("echo"))).unwrap();
    std::fs::remove_dir_all(hub.path("policies.bundle")).unwrap();
    std::fs::rename(hub.path("next.tar"), hub.path("policies.bundle")).unwrap();
    in_force(&hub, 2).await;
    ready(&hub).await;
}

#[tokio::test]
async fn a_server_is_asked_by_its_tag_and_what_is_wrong_with_it_is_told_until_it_is_right() {
    let maker = Bundler::new();
    let server = Server::start().await;
    server.serve("200 OK", "\"one\"", maker.tar(1, ""));
    let lines = format!("source: {}\npoll_ms: 100\nmax_bytes: 200000", server.url);
    let mut hub = hub().admin().bundles(&maker, &lines).start().await;
    in_force(&hub, 1).await;
    eventually("an unchanged bundle is not fetched again", async || {
        server.not_modified() > 2
    })
    .await;

    server.serve("200 OK", "\"two\"", b"<html>garbage</html>".to_vec());
    trouble(&hub, "bundle_malformed").await;
    let half = maker.tar(2, "");
    server.serve_cut("200 OK", "\"two\"", &half);
    trouble(&hub, "bundle_source_failed").await;
    server.serve("200 OK", "\"two\"", vec![0; 300_000]);
    trouble(&hub, "bundle_source_failed").await;
    server.serve("500 Oh", "\"two\"", Vec::new());
    trouble(&hub, "bundle_source_failed").await;
    let (status, body) = hub.get("/readyz").await;
    assert_eq!(status, 200);
    assert!(body.contains("policy_bundle"), "{body}");
    server.serve("200 OK", "\"x\"", Bundler::new().tar(9, ""));
    trouble(&hub, "bundle_untrusted_key").await;
    assert_eq!(
        hub.operator()
            .bundles()
            .await
            .unwrap()
            .active
            .unwrap()
            .revision,
        1
    );

    server.serve("200 OK", "\"two\"", half);
    in_force(&hub, 2).await;
    ready(&hub).await;

    // Away at the start: what was kept serves.
    drop(server);
    hub.restart().await;
    assert_eq!(
        hub.operator()
            .bundles()
            .await
            .unwrap()
            .active
            .unwrap()
            .revision,
        2
    );
    trouble(&hub, "bundle_source_failed").await;
    let (status, _) = hub.get("/readyz").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_server_is_asked_over_tls_and_believed_where_its_certificate_is() {
    let maker = Bundler::new();
    let (pem, acceptor) = authority();
    let server = Server::start_tls(acceptor).await;
    server.serve("200 OK", "\"one\"", maker.tar(1, ""));
    let source = format!("source: {}\npoll_ms: 100", server.url);
    let believed = hub()
        .admin()
        .file("source-ca.pem", pem)
        .bundles(&maker, &format!("{source}\nca_bundle: source-ca.pem"))
        .start()
        .await;
    in_force(&believed, 1).await;
    eventually("an unchanged bundle is not fetched again", async || {
        server.not_modified() > 2
    })
    .await;
    server.serve("200 OK", "\"two\"", maker.tar(2, ""));
    in_force(&believed, 2).await;
    ready(&believed).await;

    // Another hub does not know that authority: nothing of what comes is looked at.
    let stranger = hub().admin().bundles(&maker, &source).start().await;
    trouble(&stranger, "bundle_source_failed").await;
    let status = stranger.operator().bundles().await.unwrap();
    assert_eq!((status.active, status.highest_revision), (None, None));
}

/// A web server that says what it is told to.
struct Server {
    url: String,
    answer: Arc<Mutex<Answer>>,
    task: JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Answer {
    status: String,
    etag: String,
    body: Vec<u8>,
    /// Bytes of the body that are sent.
    sent: usize,
    not_modified: u64,
}

impl Server {
    async fn start() -> Self {
        Self::start_with("http", None).await
    }

    async fn start_tls(acceptor: TlsAcceptor) -> Self {
        Self::start_with("https", Some(acceptor)).await
    }

    async fn start_with(scheme: &str, tls: Option<TlsAcceptor>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let number = port.local_addr().unwrap().port();
        // Certificates are for the name.
        let host = if tls.is_some() {
            "localhost"
        } else {
            "127.0.0.1"
        };
        let url = format!("{scheme}://{host}:{number}/bundle.tar");
        let answer = Arc::new(Mutex::new(Answer::default()));
        let shared = Arc::clone(&answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = port.accept().await {
                match &tls {
                    None => one_request(stream, &shared).await,
                    // Who does not believe the certificate hangs up.
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            one_request(stream, &shared).await;
                        }
                    }
                }
            }
        });
        Self { url, answer, task }
    }

    fn serve(&self, status: &str, etag: &str, body: Vec<u8>) {
        let mut answer = self.answer.lock();
        answer.status = status.to_owned();
        answer.etag = etag.to_owned();
        answer.sent = body.len();
        answer.body = body;
    }

    /// Says more than it sends.
    fn serve_cut(&self, status: &str, etag: &str, body: &[u8]) {
        self.serve(status, etag, body.to_vec());
        self.answer.lock().sent = body.len() / 2;
    }

    fn not_modified(&self) -> u64 {
        self.answer.lock().not_modified
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn one_request(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Mutex<Answer>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
        head.push(byte[0]);
    }
    let bytes = respond(shared, &String::from_utf8_lossy(&head));
    // Whoever asked may have hung up on a body that is too large.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

fn respond(shared: &Mutex<Answer>, head: &str) -> Vec<u8> {
    let mut answer = shared.lock();
    let head = head.to_ascii_lowercase();
    if head.contains(&format!("if-none-match: {}\r\n", answer.etag)) {
        answer.not_modified += 1;
        return b"HTTP/1.1 304 Not Modified\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            .to_vec();
    }
    let mut bytes = format!(
        "HTTP/1.1 {}\r\netag: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.status,
        answer.etag,
        answer.body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&answer.body[..answer.sent]);
    bytes
}
