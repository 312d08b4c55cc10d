//! The way out: TLS to the hub, and proxies in between.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use nowconnect_agent::config::{HubUrl, NoProxy, ProxyUrl};
use nowconnect_agent::{Agent, AgentConfig};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::stub_hub::StubHub;
use crate::support::{config, echo, exchange, name, ready, state, tcp};

#[tokio::test]
async fn tls_with_a_private_ca_carries_flows() {
    let folder = tempfile::tempdir().unwrap();
    let hub = StubHub::start_with(Some(acceptor("hub.test", folder.path()))).await;
    let _running = ready(secure(&hub, folder.path(), "hub.test").await).await;
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, &vec![5; 300_000]).await;
}

#[tokio::test]
async fn a_hub_with_a_foreign_ca_or_name_is_not_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = tempfile::tempdir().unwrap();
    let hub = StubHub::start_with(Some(acceptor("hub.test", folder.path()))).await;
    let _unused = acceptor("hub.test", foreign.path());
    for (trusted, server_name, expected) in [
        (foreign.path(), "hub.test", "NC_CA_BUNDLE"),
        (folder.path(), "other.test", "server_name"),
    ] {
        let running = Agent::start(secure(&hub, trusted, server_name).await).unwrap();
        let told = state(&running, "a problem", |state| state.problem.is_some()).await;
        let problem = told.problem.unwrap();
        assert!(problem.contains(expected), "{problem}");
    }
    assert!(hub.with(|script| script.tokens.is_empty()));
}

#[tokio::test]
async fn a_broken_bundle_is_an_error_before_anything_is_dialled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    let mut config = config("wss://127.0.0.1:1").with_target(name("echo"), tcp(echo().await));
    config.outbound.ca_bundle = Some(path);
    let error = Agent::start(config).unwrap_err().to_string();
    assert!(error.contains("block 1 (line 1)"), "{error}");
}

#[tokio::test]
async fn an_http_proxy_with_login_leads_to_the_hub() {
    let hub = StubHub::start().await;
    let proxy = HttpProxy::start().await;
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.outbound.hub_proxy =
        Some(ProxyUrl::parse(&format!("http://joe:p%40ss@{}", proxy.address)).unwrap());
    let _running = ready(config).await;
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"through").await;
    let requests = proxy.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].starts_with(&format!("CONNECT {} HTTP/1.1\r\n", hub.address)));
    // joe:p@ss
    assert!(requests[0].contains("Proxy-Authorization: Basic am9lOnBAc3M=\r\n"));
}

#[tokio::test]
async fn no_proxy_goes_straight() {
    let hub = StubHub::start().await;
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.outbound.hub_proxy = Some(ProxyUrl::parse("http://127.0.0.1:1").unwrap());
    config.outbound.no_proxy = NoProxy::parse("127.0.0.0/8");
    let _running = ready(config).await;
}

#[tokio::test]
async fn a_socks_proxy_leads_to_the_hub() {
    let hub = StubHub::start().await;
    let proxy = socks_proxy().await;
    for kind in ["socks5", "socks5h"] {
        let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
        config.outbound.hub_proxy = Some(ProxyUrl::parse(&format!("{kind}://{proxy}")).unwrap());
        let running = ready(config).await;
        let (mut client, _outcomes) = hub.open("echo").await;
        exchange(&mut client, b"through").await;
        running.stop_now();
        running.stopped().await;
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_apart_from_the_hub() {
    let hub = StubHub::start().await;
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    // An echo server answers CONNECT with CONNECT.
    config.outbound.hub_proxy = Some(ProxyUrl::parse(&format!("http://{}", echo().await)).unwrap());
    let running = Agent::start(config).unwrap();
    let told = state(&running, "a problem", |state| state.problem.is_some()).await;
    let problem = told.problem.unwrap();
    assert!(problem.contains("proxy"), "{problem}");
}

/// A server for `host`, whose certificate is its own CA and lies in `folder/ca.pem`.
pub(crate) fn acceptor(host: &str, folder: &Path) -> TlsAcceptor {
    let signed = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    std::fs::write(folder.join("ca.pem"), signed.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())
        .unwrap();
    TlsAcceptor::from(Arc::new(server))
}

async fn secure(hub: &StubHub, trusted: &Path, server_name: &str) -> AgentConfig {
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.hub = HubUrl::parse(&format!("wss://{}", hub.address), false).unwrap();
    config.outbound.ca_bundle = Some(trusted.join("ca.pem"));
    config.outbound.server_name = Some(server_name.to_owned());
    config
}

/// A CONNECT proxy that remembers what it was asked.
struct HttpProxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl HttpProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(near.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let to = head.split(' ').nth(1).unwrap().to_owned();
                record.lock().unwrap().push(head);
                near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    .await
                    .unwrap();
                pipe(near, to);
            }
        });
        Self { address, requests }
    }
}

async fn socks_proxy() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut greeting = [0; 3];
            near.read_exact(&mut greeting).await.unwrap();
            near.write_all(&[5, 0]).await.unwrap();
            let mut request = [0; 10];
            near.read_exact(&mut request).await.unwrap();
            let [5, 1, 0, 1, a, b, c, d, high, low] = request else {
                panic!("{request:?}");
            };
            let port = u16::from_be_bytes([high, low]);
            near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
                .await
                .unwrap();
            pipe(near, format!("{a}.{b}.{c}.{d}:{port}"));
        }
    });
    address
}

fn pipe(mut near: TcpStream, to: String) {
    tokio::spawn(async move {
        let mut far = TcpStream::connect(to).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
}
