#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsConnector;

use super::*;

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_handshake_gets_the_certificate_of_the_moment() {
    let folder = Folder::new();
    let first = folder.write_pair("hub.example");
    let tls = ServerTls::load(&folder.files, &["http/1.1"]).unwrap();
    assert_eq!(handshake(&tls, &first).await.unwrap(), b"http/1.1");

    let second = folder.write_pair("hub.example");
    handshake(&tls, &first).await.unwrap();
    assert!(tls.clone().reload().unwrap());
    assert!(!tls.reload().unwrap());
    handshake(&tls, &second).await.unwrap();
    assert!(
        handshake(&tls, &first).await.is_err(),
        "the old root is no more"
    );
}

#[tokio::test]
async fn a_bad_pair_leaves_the_last_good_one() {
    let folder = Folder::new();
    let root = folder.write_pair("hub.example");
    let tls = ServerTls::load(&folder.files, &[]).unwrap();
    let (cert, key) = (
        std::fs::read(&folder.files.cert_file).unwrap(),
        std::fs::read(&folder.files.key_file).unwrap(),
    );
    let other = Folder::new();
    other.write_pair("hub.example");
    let other_key = std::fs::read(&other.files.key_file).unwrap();
    let half = cert[..cert.len() / 2].to_vec();
    let good_cert = cert.clone();
    for (cert, key, part) in [
        (
            cert.clone(),
            other_key,
            "does not belong to the first certificate",
        ),
        (cert.clone(), Vec::new(), "no private key"),
        (cert.clone(), b"nonsense".to_vec(), "no private key"),
        (Vec::new(), key.clone(), "no certificate"),
        (half, key.clone(), "hub.pem"),
        (
            [
                cert.clone(),
                b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n".to_vec(),
            ]
            .concat(),
            key.clone(),
            "hub.pem",
        ),
        (vec![b' '; 2 << 20], key.clone(), "larger than"),
    ] {
        std::fs::write(&folder.files.cert_file, cert).unwrap();
        std::fs::write(&folder.files.key_file, key).unwrap();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
        handshake(&tls, &root).await.unwrap();
    }
    std::fs::write(&folder.files.cert_file, good_cert).unwrap();
    std::fs::remove_file(&folder.files.key_file).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Unreadable { .. })));
    handshake(&tls, &root).await.unwrap();
}

#[tokio::test]
async fn a_handshake_is_bounded_in_time() {
    let folder = Folder::new();
    folder.write_pair("hub.example");
    let tls = ServerTls::load(&folder.files, &[]).unwrap();
    let (server, _silent) = tokio::io::duplex(1024);
    let error = tls
        .accept(server, Duration::from_millis(20))
        .await
        .unwrap_err();
    assert!(matches!(error, TlsError::Timeout { .. }));
    assert!(error.is_peers_fault());

    let (server, mut client) = tokio::io::duplex(1024);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = tls.accept(server, LONG).await.unwrap_err();
    assert!(matches!(error, TlsError::Handshake(_)), "{error}");
}

#[tokio::test]
async fn clients_prove_themselves_where_roots_are_given() {
    let folder = Folder::new();
    let root = folder.write_pair("hub.example");
    let tls = ServerTls::load_with_clients(&folder.files, &[], &folder.files.cert_file).unwrap();
    let refused = handshake(&tls, &root).await;
    assert!(
        refused.is_err(),
        "a client without a certificate is refused"
    );
    let broken = folder.folder.path().join("ca.pem");
    std::fs::write(
        &broken,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    assert!(ServerTls::load_with_clients(&folder.files, &[], &broken).is_err());
}

struct Folder {
    folder: TempDir,
    files: TlsFiles,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            cert_file: folder.path().join("hub.pem"),
            key_file: folder.path().join("hub.key"),
        };
        Self { folder, files }
    }

    /// Writes a new self-signed pair; the certificate is its own root.
    fn write_pair(&self, name: &str) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(&self.files.cert_file, made.cert.pem()).unwrap();
        std::fs::write(&self.files.key_file, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }
}

/// A whole handshake and one byte each way; the protocol that was agreed on.
async fn handshake(tls: &ServerTls, root: &CertificateDer<'static>) -> io::Result<Vec<u8>> {
    let (server, client) = tokio::io::duplex(64 << 10);
    let serve = async {
        let mut stream = tls.accept(server, LONG).await.map_err(io::Error::other)?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.flush().await
    };
    let (served, connected) = tokio::join!(serve, connect(client, root));
    served?;
    connected
}

async fn connect(io: DuplexStream, root: &CertificateDer<'static>) -> io::Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("hub.example").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, io)
        .await?;
    stream.write_u8(7).await?;
    stream.flush().await?;
    assert_eq!(stream.read_u8().await?, 7);
    let agreed = stream.get_ref().1.alpn_protocol().unwrap_or_default();
    Ok(agreed.to_vec())
}
