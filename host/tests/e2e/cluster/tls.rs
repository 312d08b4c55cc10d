//! Certificates of a test's own, and what a server shows.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Writes `<name>.pem` and `<name>.key`: a certificate for `localhost` that vouches for itself.
pub(crate) fn write_pair(folder: &Path, name: &str) {
    const YEAR_S: u64 = 365 * 86_400;
    write_pair_until(folder, name, super::now_s() + YEAR_S);
}

/// The same, good until then (seconds since 1970).
pub(crate) fn write_pair_until(folder: &Path, name: &str, not_after_s: u64) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let not_after = UNIX_EPOCH + Duration::from_secs(not_after_s);
    params.not_after = not_after.into();
    let key = KeyPair::generate().unwrap();
    let signed = params.self_signed(&key).unwrap();
    std::fs::write(folder.join(format!("{name}.pem")), signed.pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

/// Writes `<file>.pem` and `<file>.key` for this name; the certificate.
pub(crate) fn write_pair_for(folder: &Path, file: &str, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(folder.join(format!("{file}.pem")), made.cert.pem()).unwrap();
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.join(format!("{file}.key")), key).unwrap();
    made.cert.der().clone()
}

/// The first certificate of a file.
pub(crate) fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// What the server of `localhost` at `address` shows to a client who trusts `trusted`.
pub(crate) async fn shown(
    address: SocketAddr,
    trusted: &[CertificateDer<'static>],
) -> std::io::Result<CertificateDer<'static>> {
    shown_as(address, "localhost", trusted).await
}

/// The same for the server of another name.
pub(crate) async fn shown_as(
    address: SocketAddr,
    name: &str,
    trusted: &[CertificateDer<'static>],
) -> std::io::Result<CertificateDer<'static>> {
    let stream = connect_as(address, name, trusted, &[]).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    Ok(chain[0].clone())
}

/// A connection to the server of `localhost` at `address`, offering these protocols.
pub(crate) async fn connect(
    address: SocketAddr,
    trusted: &[CertificateDer<'static>],
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_with(address, "localhost", trusted, (alpn, None)).await
}

/// The same to the server of another name.
pub(crate) async fn connect_as(
    address: SocketAddr,
    name: &str,
    trusted: &[CertificateDer<'static>],
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_with(address, name, trusted, (alpn, None)).await
}

/// A certificate with what it was signed by, and its key.
pub(crate) type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A connection to `localhost` of a client who shows a certificate, where he has one.
pub(crate) async fn connect_showing(
    address: SocketAddr,
    trusted: &[CertificateDer<'static>],
    shown: Option<Shown>,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_with(address, "localhost", trusted, (&[], shown)).await
}

async fn connect_with(
    address: SocketAddr,
    name: &str,
    trusted: &[CertificateDer<'static>],
    (alpn, shown): (&[&str], Option<Shown>),
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for root in trusted {
        roots.add(root.clone()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// An authority's certificate as PEM, and a server for `localhost` with a certificate from it.
pub(crate) fn authority() -> (String, TlsAcceptor) {
    authority_of(&[])
}

/// The same with a server that speaks these protocols.
pub(crate) fn authority_of(alpn: &[&[u8]]) -> (String, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "an authority of a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    (pem, TlsAcceptor::from(Arc::new(config)))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
