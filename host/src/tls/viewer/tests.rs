#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::TlsFiles;

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_viewer_is_shown_the_certificate_of_the_name_that_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let (default, default_root) = pair(&folder, "hub.example");
    let (wild, wild_root) = pair(&folder, "*.example.com");
    let (shop, shop_root) = pair(&folder, "shop.example.com");
    let mut tls = HttpTls {
        default: Some(default),
        certificates: vec![wild, shop],
    };
    let port = ViewerTls::load(&tls, None, &["http/1.1"]).unwrap();
    for (name, root) in [
        ("hub.example", &default_root),
        ("blog.example.com", &wild_root),
        ("shop.example.com", &shop_root),
        ("other.test", &default_root),
    ] {
        assert_eq!(shown(&port, name).await.unwrap(), *root, "{name}");
    }
    tls.default = None;
    let port = ViewerTls::load(&tls, None, &["http/1.1"]).unwrap();
    assert_eq!(shown(&port, "shop.example.com").await.unwrap(), shop_root);
    let refused = shown(&port, "other.test").await.unwrap_err();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    let nameless = shown(&port, "192.0.2.1").await.unwrap_err();
    assert!(nameless.contains("UnrecognisedName"), "{nameless}");
}

#[tokio::test]
async fn a_handshake_is_bounded_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let (default, _) = pair(&folder, "hub.example");
    let tls = HttpTls {
        default: Some(default),
        certificates: Vec::new(),
    };
    let port = ViewerTls::load(&tls, None, &[]).unwrap();
    let (server, _silent) = tokio::io::duplex(1024);
    let error = port.accept(server, Duration::from_millis(20)).await;
    assert!(matches!(error, Err(TlsError::Timeout { .. })));
}

/// Writes a self-signed pair; its certificate.
fn pair(folder: &TempDir, name: &str) -> (TlsFiles, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let file = name.replace('*', "any");
    let files = TlsFiles {
        cert_file: folder.path().join(format!("{file}.pem")),
        key_file: folder.path().join(format!("{file}.key")),
    };
    std::fs::write(&files.cert_file, made.cert.pem()).unwrap();
    std::fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
    (files, made.cert.der().clone())
}

/// The certificate that a client sees which asks for this name, or why it sees none.
async fn shown(port: &ViewerTls, name: &str) -> Result<CertificateDer<'static>, String> {
    let (server, client) = tokio::io::duplex(64 << 10);
    let serve = port.accept(server, LONG);
    let (_served, connected) = tokio::join!(serve, connect(client, name));
    connected.map_err(|error| format!("{error:?}"))
}

async fn connect(io: tokio::io::DuplexStream, name: &str) -> io::Result<CertificateDer<'static>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut config = config;
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(AnyCertificate));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, io)
        .await?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone())
}

/// What is shown is looked at by the test.
#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
