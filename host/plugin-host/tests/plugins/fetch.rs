//! The capability `fetch` against real servers, most of them hostile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nowconnect_plugins::{CallOutcome, EngineSettings, OpenOutcome, PluginSet, PluginSpec};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::harness::{Bench, grants, spec};

pub(crate) const GUESTS: &[&str] = &["fetches"];

#[tokio::test]
async fn a_request_goes_out_as_it_was_given_and_its_answer_comes_back() {
    let server = Server::start(|mut stream| async move {
        let request = read_request(&mut stream).await;
        let answer = format!(
            "HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n",
            request.len()
        );
        stream
            .write_all((answer + &request).as_bytes())
            .await
            .unwrap();
    })
    .await;
    let url = format!("http://127.0.0.1:{}/v1?q=1", server.port);
    let grant = format!("fetch:http://127.0.0.1:{}", server.port);
    let said = said(&url, &[&grant]).await;
    let expected = format!(
        "POST /v1?q=1 HTTP/1.1\\r\\nx-a: b\\r\\nhost: 127.0.0.1:{}\\r\\ncontent-length: 4\\r\\n\\r\\nping",
        server.port
    );
    assert_eq!(said, expected);
}

#[tokio::test]
async fn hosts_that_are_not_granted_are_never_reached() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let port = server.port;
    for (url, grant) in [
        // Another port, another scheme, another host.
        (
            format!("http://127.0.0.1:{port}/"),
            "fetch:http://127.0.0.1:1".to_owned(),
        ),
        (
            format!("http://127.0.0.1:{port}/"),
            format!("fetch:127.0.0.1:{port}"),
        ),
        (
            format!("http://localhost:{port}/"),
            format!("fetch:http://127.0.0.1:{port}"),
        ),
    ] {
        assert_eq!(said(&url, &[&grant]).await, "not_granted", "{url} {grant}");
    }
    // A granted name that leads to where nobody granted.
    let (url, grant) = (
        format!("http://localhost:{port}/"),
        format!("fetch:http://localhost:{port}"),
    );
    assert_eq!(said(&url, &[&grant]).await, "address_refused");
    assert_eq!(server.connections(), 0);
    let networks = "fetch.network:127.0.0.0/8, ::1/128";
    assert_eq!(said(&url, &[&grant, networks]).await, "hi");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let inside = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await;
    let location = format!("http://127.0.0.1:{}/", inside.port);
    let answer =
        format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 4\r\n\r\ngone");
    let server = Server::answering(answer).await;
    let url = format!("http://127.0.0.1:{}/", server.port);
    let grant = format!("fetch:http://127.0.0.1:{}", server.port);
    assert_eq!(said(&url, &[&grant]).await, "gone");
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn a_server_that_never_answers_is_cut_off_by_the_wall_time() {
    let server = Server::start(|mut stream| async move {
        read_request(&mut stream).await;
        let mut rest = Vec::new();
        // Until the other side goes.
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let bench = Bench::new();
    let url = format!("http://127.0.0.1:{}/", server.port);
    let mut spec = fetching(&url, &[&format!("fetch:http://127.0.0.1:{}", server.port)]);
    spec.limits.wall_time = Duration::from_millis(200);
    let set = bench.load(vec![spec]).await.unwrap();
    let started = Instant::now();
    let outcome = bench.open(&set).await;
    assert!(matches!(outcome, OpenOutcome::Deny(denial) if denial.code == "plugin_failed"));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(bench.outcomes(), [CallOutcome::Timeout]);
    // The connection goes with the call.
    server.all_closed().await;
}

#[tokio::test]
async fn an_endless_body_is_refused() {
    for head in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n",
    ] {
        let server = Server::start(move |mut stream| async move {
            read_request(&mut stream).await;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            if stream.write_all(head.as_bytes()).await.is_ok() {
                while stream.write_all(chunk.as_bytes()).await.is_ok() {}
            }
        })
        .await;
        let url = format!("http://127.0.0.1:{}/", server.port);
        let grant = format!("fetch:http://127.0.0.1:{}", server.port);
        assert_eq!(said(&url, &[&grant]).await, "too_large", "{head}");
        server.all_closed().await;
    }
}

#[tokio::test]
async fn what_is_not_http_or_stops_midway_is_broken() {
    let endless_head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "y".repeat(1024 * 1024));
    for answer in [
        "",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 7\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        &endless_head,
    ] {
        let server = Server::answering(answer).await;
        let url = format!("http://127.0.0.1:{}/", server.port);
        let grant = format!("fetch:http://127.0.0.1:{}", server.port);
        let shown = &answer[..answer.len().min(80)];
        assert_eq!(said(&url, &[&grant]).await, "broken", "{shown}");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_has_its_own_code() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for (url, grant, code) in [
        (
            format!("http://127.0.0.1:{port}/"),
            format!("fetch:http://127.0.0.1:{port}"),
            "connect_failed",
        ),
        (
            "https://name.invalid/".to_owned(),
            "fetch:name.invalid".to_owned(),
            "resolve_failed",
        ),
        (
            "https://user:word@a.example/".to_owned(),
            "fetch:a.example".to_owned(),
            "bad_request",
        ),
    ] {
        assert_eq!(said(&url, &[&grant]).await, code, "{url}");
    }
}

#[tokio::test]
async fn tls_is_verified_against_the_trusted_roots() {
    let issued = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let server = Server::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                read_request(&mut stream).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsafe";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        }
    })
    .await;
    let url = format!("https://127.0.0.1:{}/", server.port);
    let grant = format!("fetch:127.0.0.1:{}", server.port);
    assert_eq!(said(&url, &[&grant]).await, "tls_failed");

    let bench = Bench::with_settings(EngineSettings {
        extra_roots: vec![certificate],
        ..EngineSettings::default()
    });
    assert_eq!(said_in(&bench, &url, &[&grant]).await, "safe");
}

#[tokio::test]
async fn other_calls_go_on_while_one_waits() {
    let server = Server::start(|mut stream| async move {
        read_request(&mut stream).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let bench = Bench::new();
    let url = format!("http://127.0.0.1:{}/", server.port);
    let mut slow = fetching(&url, &[&format!("fetch:http://127.0.0.1:{}", server.port)]);
    slow.limits.wall_time = Duration::from_millis(500);
    let (slow, quick) = (
        bench.load(vec![slow]).await.unwrap(),
        bench.set_of("agreeable").await,
    );
    let others = async {
        server.has_connection().await;
        let mut calls = 0;
        while server.open.load(Ordering::SeqCst) > 0 {
            assert!(matches!(bench.open(&quick).await, OpenOutcome::Allow(_)));
            calls += 1;
        }
        calls
    };
    let (_, calls) = tokio::join!(bench.open(&slow), others);
    assert!(calls > 0);
}

async fn said(url: &str, granted: &[&str]) -> String {
    said_in(&Bench::new(), url, granted).await
}

/// What the guest logs after it has tried to fetch.
async fn said_in(bench: &Bench, url: &str, granted: &[&str]) -> String {
    let set = loaded(bench, url, granted).await;
    let outcome = bench.open(&set).await;
    assert!(matches!(outcome, OpenOutcome::Allow(_)), "{outcome:?}");
    let fetched = bench.seen.fetched.lock().len();
    assert_eq!(fetched, 1, "each request is told to the observer");
    bench.seen.log_lines.lock().last().cloned().unwrap()
}

async fn loaded(bench: &Bench, url: &str, granted: &[&str]) -> PluginSet {
    bench.load(vec![fetching(url, granted)]).await.unwrap()
}

fn fetching(url: &str, granted: &[&str]) -> PluginSpec {
    let mut spec = spec("fetches");
    spec.grants = grants(&["log", "config"]);
    spec.grants.extend(grants(granted));
    spec.config = serde_json::json!({"url": url});
    spec
}

/// A server of the test's own; it ends with the test.
pub(crate) struct Server {
    pub(crate) port: u16,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    /// Says the same to everybody who has sent a request.
    pub(crate) async fn answering(answer: impl Into<String>) -> Self {
        let answer: Arc<str> = answer.into().into();
        Self::start(move |mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                read_request(&mut stream).await;
                // Some answers are cut off by who reads them.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await
    }

    pub(crate) async fn start<F, S>(serve: S) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(TcpStream) -> F + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepted, open) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counters = (Arc::clone(&accepted), Arc::clone(&open));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counters.0.fetch_add(1, Ordering::SeqCst);
                counters.1.fetch_add(1, Ordering::SeqCst);
                let (open, served) = (Arc::clone(&counters.1), serve(stream));
                tokio::spawn(async move {
                    served.await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            port,
            accepted,
            open,
            accepting,
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    async fn has_connection(&self) {
        poll_until(|| self.connections() > 0).await;
    }

    async fn all_closed(&self) {
        poll_until(|| self.open.load(Ordering::SeqCst) == 0).await;
    }
}

async fn poll_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen in 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Head and body of a request with a content length.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(length) => read.extend_from_slice(&buffer[..length]),
        }
    }
}
