//! TLS in this process: certificates from files, taken over while it runs.
//!
//! New handshakes get the certificate of the moment; established connections keep theirs. A pair
//! that does not load, or does not belong together, leaves the last good one in place.

mod certificate_set;
mod expiry;
#[cfg(test)]
pub(crate) mod looking;
mod viewer;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{ClientCertificates, TlsFiles};
pub(crate) use certificate_set::{CertificateSet, fits};
pub(crate) use expiry::{earliest_not_after, validity};
pub(crate) use viewer::{Accepted, ViewerTls};

/// The largest PEM file that is read, in bytes: some 500 certificates.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// The server's side of TLS with a certificate that can be swapped. Cheap to clone; all clones
/// share the certificate.
#[derive(Clone, Debug)]
pub struct ServerTls {
    files: TlsFiles,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Reads chain and key, and checks that they belong together. `alpn` is what is offered, in
    /// order of preference (`http/1.1`).
    ///
    /// # Errors
    /// A file is missing, malformed or empty, or key and leaf do not match; the message names the
    /// file and the way out.
    pub fn load(files: &TlsFiles, alpn: &[&str]) -> Result<Self, TlsError> {
        Self::build(files, alpn, None)
    }

    /// The same for clients that have to prove a certificate under one of the roots in
    /// `client_ca_file`.
    ///
    /// # Errors
    /// As [`load`](Self::load), and the roots cannot be read or one of them is malformed.
    pub fn load_with_clients(
        files: &TlsFiles,
        alpn: &[&str],
        client_ca_file: &Path,
    ) -> Result<Self, TlsError> {
        let clients = ClientCertificates {
            ca_file: client_ca_file.to_path_buf(),
            required: true,
        };
        Self::build(files, alpn, Some(&clients))
    }

    fn build(
        files: &TlsFiles,
        alpn: &[&str],
        clients: Option<&ClientCertificates>,
    ) -> Result<Self, TlsError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(read_pair(files)?)));
        let resolver: Arc<Current> = Arc::clone(&current);
        let config = server_config(resolver, alpn, clients)?;
        Ok(Self {
            files: files.clone(),
            current,
            config: Arc::new(config),
        })
    }

    /// Reads the files again; new handshakes get the new certificate. On an error the last good
    /// one stays. `true` if the chain differs.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reload(&self) -> Result<bool, TlsError> {
        let next = read_pair(&self.files)?;
        let differs = self.current.0.load().cert != next.cert;
        // Also where the chain is the same: the key might come from another place.
        self.current.0.store(Arc::new(next));
        Ok(differs)
    }

    /// When the chain in force stops being good, in seconds since 1970.
    pub(crate) fn not_after(&self) -> Option<i64> {
        earliest_not_after(&self.current.0.load().cert)
    }

    /// From when until when the certificate in force is good, in seconds since 1970.
    pub(crate) fn life(&self) -> Option<(i64, i64)> {
        validity(&self.current.0.load().cert)
    }

    /// The configuration for a server of one's own.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Does the handshake within `timeout`.
    ///
    /// # Errors
    /// The peer is too slow, speaks no TLS, or shares no parameters.
    pub async fn accept<S>(&self, io: S, timeout: Duration) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accept = TlsAcceptor::from(self.config()).accept(io);
        match tokio::time::timeout(timeout, accept).await {
            Ok(Ok(mut stream)) => {
                stream
                    .get_mut()
                    .1
                    .set_buffer_limit(Some(nowconnect_tunnel::TLS_BUFFER_BYTES));
                Ok(stream)
            }
            Ok(Err(error)) => Err(TlsError::Handshake(error)),
            Err(_) => Err(TlsError::Timeout {
                timeout_ms: timeout.as_millis(),
            }),
        }
    }
}

/// What a server of this process speaks, whoever chooses its certificates. Clients are asked for
/// theirs where somebody vouches for them.
fn server_config(
    certificates: Arc<dyn ResolvesServerCert>,
    alpn: &[&str],
    clients: Option<&ClientCertificates>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?;
    let builder = match clients {
        Some(clients) => {
            let path = &clients.ca_file;
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider);
            if !clients.required {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier
                .build()
                .map_err(|error| TlsError::malformed(path, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

/// The certificate of the moment.
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(***)")
    }
}

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{path}`: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{path}`: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// Key and certificate are not a pair.
    #[error(
        "the key in `{key_file}` does not belong to the first certificate in `{cert_file}`: put \
         the leaf first, or take the key that it was made with"
    )]
    Mismatch {
        /// The chain.
        cert_file: PathBuf,
        /// The key.
        key_file: PathBuf,
    },
    /// The library refuses the parameters.
    #[error("TLS cannot be set up: {0}")]
    Unusable(rustls::Error),
    /// The peer failed the handshake.
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    /// There is no certificate for the name that the peer asks for.
    #[error("there is no certificate for the name that was asked for")]
    NoCertificate,
    /// The peer was too slow.
    #[error("the TLS handshake took longer than {timeout_ms} ms")]
    Timeout {
        /// The bound, in milliseconds.
        timeout_ms: u128,
    },
}

impl TlsError {
    fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }

    /// Whether the peer is at fault.
    #[must_use]
    pub fn is_peers_fault(&self) -> bool {
        match self {
            Self::Handshake(_) | Self::NoCertificate | Self::Timeout { .. } => true,
            Self::Unreadable { .. }
            | Self::Malformed { .. }
            | Self::Mismatch { .. }
            | Self::Unusable(_) => false,
        }
    }
}

fn read_pair(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&read(&files.cert_file)?, &files.cert_file)?;
    let pem = read(&files.key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        TlsError::malformed(
            &files.key_file,
            "it holds no private key as PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)",
        )
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            TlsError::Mismatch {
                cert_file: files.cert_file.clone(),
                key_file: files.key_file.clone(),
            }
        } else {
            TlsError::malformed(&files.key_file, error.to_string())
        }
    })
}

/// Chain and key of PEM texts that stand in no file, checked to be a pair.
///
/// # Errors
/// A sentence saying what is wrong, without a word of the key.
pub(crate) fn pair_of_pem(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| "the chain is no PEM".to_owned())?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "the key is no PEM".to_owned())?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| error.to_string())
}

/// Every certificate of a PEM file. A block that is broken refuses the file: skipping it would
/// drop a root or an intermediate without a word.
pub(crate) fn certificates(
    pem: &[u8],
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let announced = pem
        .windows(BEGIN.len())
        .filter(|window| *window == BEGIN)
        .count();
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::malformed(path, format!("a PEM block is broken: {error:?}")))?;
    if found.is_empty() {
        return Err(TlsError::malformed(path, "it holds no certificate as PEM"));
    }
    if found.len() != announced {
        return Err(TlsError::malformed(
            path,
            format!(
                "{announced} certificates begin in it, but only {} can be read",
                found.len()
            ),
        ));
    }
    Ok(found)
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(&read(path)?, path)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            TlsError::malformed(path, format!("certificate {}: {error}", index + 1))
        })?;
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error| TlsError::Unreadable {
        path: path.to_path_buf(),
        error,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(unreadable)?
        .take(MAX_PEM_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        return Err(TlsError::malformed(
            path,
            format!("it is larger than {MAX_PEM_BYTES} bytes"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
