#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{Auth, HubUrl, ProxyHeader, TargetTls};
use crate::secret::Secret;
use nowconnect_protocol::AgentId;

#[tokio::test]
async fn a_tcp_target_gets_the_header_before_anything_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = Target {
        proxy_header: Some(ProxyHeader::V1),
        ..Target::tcp("127.0.0.1", port)
    };
    let dialed = prepared(&target).dial(&from("192.0.2.1:77")).await.unwrap();
    assert!(matches!(dialed.io, FlowIo::Tcp(_)));
    drop(dialed);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut received = String::new();
    stream.read_to_string(&mut received).await.unwrap();
    assert_eq!(
        received,
        format!("PROXY TCP4 192.0.2.1 127.0.0.1 77 {port}\r\n")
    );
}

fn from(client: &str) -> Asked<'_> {
    Asked {
        client_address: Some(client),
        ..Asked::default()
    }
}

#[tokio::test]
async fn the_hubs_word_on_the_header_counts_where_the_target_has_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for (own, asked, header) in [
        (None, ProxyHeader::V1, "PROXY UNKNOWN\r\n"),
        (None, ProxyHeader::Off, ""),
        (Some(ProxyHeader::Off), ProxyHeader::V1, ""),
        (Some(ProxyHeader::V1), ProxyHeader::V2, "PROXY UNKNOWN\r\n"),
    ] {
        let target = Target {
            proxy_header: own,
            ..Target::tcp("127.0.0.1", port)
        };
        let asked = Asked {
            proxy_header: asked,
            ..Asked::default()
        };
        drop(prepared(&target).dial(&asked).await.unwrap());
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = String::new();
        stream.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, header, "{own:?} {asked:?}");
    }
}

#[tokio::test]
async fn a_unix_target_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let dialed = prepared(&Target::unix(&path))
        .dial(&Asked::default())
        .await
        .unwrap();
    assert!(matches!(dialed.io, FlowIo::Unix(_)));

    let error = prepared(&Target::unix(folder.path().join("absent")))
        .dial(&Asked::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, ResetCode::ConnectFailed);
}

#[tokio::test]
async fn tls_is_spoken_and_its_protocol_reported() {
    let server = TlsTarget::start("target.test", &["h2", "http/1.1"]).await;
    let dialed = prepared(&server.target(Some("target.test")))
        .dial(&Asked::default())
        .await
        .unwrap();
    assert_eq!(dialed.alpn.as_deref(), Some("http/1.1"));
    let FlowIo::Boxed(mut stream) = dialed.io else {
        panic!("not boxed");
    };
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello");
}

#[tokio::test]
async fn a_target_with_another_name_is_refused() {
    let server = TlsTarget::start("target.test", &[]).await;
    let error = prepared(&server.target(Some("other.test")))
        .dial(&Asked::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, ResetCode::TargetTlsFailed);
    assert!(error.message.contains("server_name"), "{}", error.message);
}

#[tokio::test]
async fn a_refusing_and_a_silent_target_are_told_apart() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = prepared(&Target::tcp("127.0.0.1", closed))
        .dial(&Asked::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, ResetCode::ConnectFailed);

    // A listener that never answers TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Target {
        tls: Some(TargetTls {
            ca_bundle: None,
            ..TargetTls::default()
        }),
        connect_timeout: Some(Duration::from_millis(50)),
        ..Target::tcp("127.0.0.1", listener.local_addr().unwrap().port())
    };
    let folder = tempfile::tempdir().unwrap();
    let silent = with_bundle(silent, folder.path());
    let error = prepared(&silent).dial(&Asked::default()).await.unwrap_err();
    assert_eq!(error.code, ResetCode::ConnectTimeout);
}

#[test]
fn only_offered_connectors_are_found() {
    let mut config = config()
        .with_target(name("ssh"), Target::tcp("127.0.0.1", 22))
        .with_target(name("web"), Target::tcp("127.0.0.1", 80));
    config.exported_connectors = vec![name("ssh")];
    let map = ConnectorMap::build(&config).unwrap();
    assert!(map.find(&name("ssh")).is_ok());
    assert_eq!(
        map.find(&name("web")).unwrap_err().code,
        ResetCode::ConnectorDisabled
    );
    assert_eq!(
        map.find(&name("db")).unwrap_err().code,
        ResetCode::UnknownConnector
    );
}

#[test]
fn a_broken_bundle_keeps_the_whole_map_from_being_built() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let target = Target {
        tls: Some(TargetTls {
            ca_bundle: Some(path),
            ..TargetTls::default()
        }),
        ..Target::tcp("web", 443)
    };
    let error = ConnectorMap::build(&config().with_target(name("web"), target)).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("`targets.web.tls`: CA bundle") && error.contains("block 1 (line 1)"),
        "{error}"
    );
}

fn prepared(target: &Target) -> PreparedTarget {
    PreparedTarget::new(target, Duration::from_secs(5)).unwrap()
}

fn config() -> AgentConfig {
    AgentConfig::new(
        HubUrl::parse("wss://hub", false).unwrap(),
        AgentId::parse("a").unwrap(),
        Auth::Fixed(Secret::new("t")),
    )
}

fn name(text: &str) -> ConnectorName {
    ConnectorName::parse(text).unwrap()
}

fn with_bundle(mut target: Target, folder: &Path) -> Target {
    let (pem, _, _) = certificate("unused.test");
    let path = folder.join("ca.pem");
    std::fs::write(&path, pem).unwrap();
    if let Some(tls) = &mut target.tls {
        tls.ca_bundle = Some(path);
    }
    target
}

fn certificate(host: &str) -> (String, CertificateDer<'static>, PrivateKeyDer<'static>) {
    let signed = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    (signed.cert.pem(), signed.cert.der().clone(), key.into())
}

/// A TLS server that greets whoever gets through the handshake.
struct TlsTarget {
    port: u16,
    folder: tempfile::TempDir,
}

impl TlsTarget {
    async fn start(host: &str, alpn: &[&str]) -> Self {
        let (pem, der, key) = certificate(host);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der], key)
            .unwrap();
        server.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    stream.write_all(b"hello").await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
        });
        Self { port, folder }
    }

    fn target(&self, server_name: Option<&str>) -> Target {
        Target {
            tls: Some(TargetTls {
                ca_bundle: Some(self.folder.path().join("ca.pem")),
                server_name: server_name.map(str::to_owned),
                alpn: vec!["http/1.1".to_owned()],
                ..TargetTls::default()
            }),
            ..Target::tcp("127.0.0.1", self.port)
        }
    }
}
