//! A client who looks at what a port shows, for tests.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use super::ViewerTls;
use crate::config::TlsFiles;

const LONG: Duration = Duration::from_secs(10);

/// Writes a self-signed pair; its certificate.
pub(crate) fn pair(folder: &TempDir, name: &str) -> (TlsFiles, CertificateDer<'static>) {
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
pub(crate) async fn shown(port: &ViewerTls, name: &str) -> Result<CertificateDer<'static>, String> {
    shown_to(port, name, b"http/1.1").await
}

/// The same for a client who speaks this protocol.
pub(crate) async fn shown_to(
    port: &ViewerTls,
    name: &str,
    alpn: &[u8],
) -> Result<CertificateDer<'static>, String> {
    let (server, client) = tokio::io::duplex(64 << 10);
    let serve = port.accept(server, LONG);
    let (_served, connected) = tokio::join!(serve, connect(client, name, alpn));
    connected.map_err(|error| format!("{error:?}"))
}

async fn connect(
    io: tokio::io::DuplexStream,
    name: &str,
    alpn: &[u8],
) -> io::Result<CertificateDer<'static>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
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
