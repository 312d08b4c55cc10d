//! This hub's certificate and the roots for the others, from files.
//!
//! They never change: files that changed are read into new ones, which
//! [`Mesh::update`](crate::Mesh::update) puts in force. New handshakes use them then, and links
//! that stand keep what they were made with. So a set of files that does not load, does not belong
//! together or names another hub leaves the last good one in force.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nowconnect_protocol::ReplicaId;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

use crate::identity::{self, IdentityError};
use crate::limits::{MAX_CHAIN, MAX_CHAIN_BYTES, MAX_PEM_BYTES};

/// HTTP/1.1 is the only protocol in which an upgrade is asked for.
const ALPN: &[u8] = b"http/1.1";

/// Where certificate, key and roots are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshFiles {
    /// Roots for the other hubs, and for what ends TLS in front of them, as PEM.
    pub ca_bundle: PathBuf,
    /// This hub's chain as PEM, leaf first.
    pub cert_file: PathBuf,
    /// This hub's private key as PEM.
    pub key_file: PathBuf,
}

/// One set of files, read whole and checked to belong together.
pub struct Credentials {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
    /// For dialling: shows this hub's certificate.
    pub(crate) client: Arc<ClientConfig>,
    /// For a port of the mesh: asks for a certificate and takes none; the hello proves either.
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) not_after: i64,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("chain", &self.key.cert.len())
            .field("roots", &self.roots.len())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files of the hub `replica`.
    ///
    /// A certificate that has expired is taken: the hub serves on its own then, and each link
    /// that fails for it says so.
    ///
    /// # Errors
    /// A file is missing or malformed, key and leaf are no pair, or the leaf names another hub.
    pub fn load(files: &MeshFiles, replica: &ReplicaId) -> Result<Self, CredentialsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = Arc::new(read_pair(files, &provider)?);
        let leaf = key.cert.first().ok_or_else(|| {
            CredentialsError::malformed(&files.cert_file, "it holds no certificate as PEM")
        })?;
        let wrong =
            |error: IdentityError| CredentialsError::malformed(&files.cert_file, error.to_string());
        let named = identity::named(leaf).map_err(wrong)?;
        if named != *replica {
            return Err(CredentialsError::OtherHub {
                cert_file: files.cert_file.clone(),
                named,
                replica: replica.clone(),
            });
        }
        let not_after = identity::ends(leaf).map_err(wrong)?;
        let mut roots = RootCertStore::empty();
        for (index, root) in certificates(&files.ca_bundle)?.into_iter().enumerate() {
            roots.add(root).map_err(|error| {
                CredentialsError::malformed(
                    &files.ca_bundle,
                    format!("certificate {}: {error}", index + 1),
                )
            })?;
        }
        let roots = Arc::new(roots);
        Ok(Self {
            client: Arc::new(client_config(&key, &roots, &provider)?),
            server: Arc::new(server_config(&key, &roots, &provider)?),
            key,
            roots,
            not_after,
        })
    }

    /// When this hub's leaf ends, in seconds since 1970.
    #[must_use]
    pub const fn not_after(&self) -> i64 {
        self.not_after
    }
}

fn client_config(
    key: &Arc<CertifiedKey>,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, CredentialsError> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(CredentialsError::Unusable)?
        .with_root_certificates(Arc::clone(roots))
        .with_client_cert_resolver(Arc::new(Shown(Arc::clone(key))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Without it a TLS 1.2 session has no exporter that is its own (RFC 7627).
    config.require_ems = true;
    Ok(config)
}

fn server_config(
    key: &Arc<CertifiedKey>,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, CredentialsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| {
                CredentialsError::Unusable(rustls::Error::General(error.to_string()))
            })?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(CredentialsError::Unusable)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Shown(Arc::clone(key))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.require_ems = true;
    Ok(config)
}

/// Shows one certificate to whoever asks.
struct Shown(Arc<CertifiedKey>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(***)")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
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
         the leaf first, or take the key that it was made with; where both are being replaced, \
         this ends with the second"
    )]
    Mismatch {
        /// The chain.
        cert_file: PathBuf,
        /// The key.
        key_file: PathBuf,
    },
    /// The certificate is another hub's.
    #[error(
        "the certificate in `{cert_file}` is that of hub `{named}`, and this one is `{replica}` \
         (`ha.replica_id`): give each hub a certificate of its own"
    )]
    OtherHub {
        /// The chain.
        cert_file: PathBuf,
        /// Whom it names.
        named: ReplicaId,
        /// This hub.
        replica: ReplicaId,
    },
    /// The library refuses the parameters.
    #[error("TLS for the mesh cannot be set up: {0}")]
    Unusable(rustls::Error),
}

impl CredentialsError {
    fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }
}

fn read_pair(
    files: &MeshFiles,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CredentialsError> {
    let chain = certificates(&files.cert_file)?;
    if chain.len() > MAX_CHAIN {
        let reason = IdentityError::TooLong { found: chain.len() };
        return Err(CredentialsError::malformed(
            &files.cert_file,
            reason.to_string(),
        ));
    }
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if bytes > MAX_CHAIN_BYTES {
        return Err(CredentialsError::malformed(
            &files.cert_file,
            format!("its chain has {bytes} bytes, and hubs take {MAX_CHAIN_BYTES} at most"),
        ));
    }
    let pem = read(&files.key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        CredentialsError::malformed(
            &files.key_file,
            "it holds no private key as PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)",
        )
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            CredentialsError::Mismatch {
                cert_file: files.cert_file.clone(),
                key_file: files.key_file.clone(),
            }
        } else {
            CredentialsError::malformed(&files.key_file, error.to_string())
        }
    })
}

/// Every certificate of a PEM file. A block that is broken refuses the file: skipping it would
/// drop a root or an intermediate without a word.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let pem = read(path)?;
    let announced = pem
        .windows(BEGIN.len())
        .filter(|window| *window == BEGIN)
        .count();
    let found = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            CredentialsError::malformed(path, format!("a PEM block is broken: {error:?}"))
        })?;
    if found.is_empty() {
        return Err(CredentialsError::malformed(
            path,
            "it holds no certificate as PEM",
        ));
    }
    if found.len() != announced {
        return Err(CredentialsError::malformed(
            path,
            format!(
                "{announced} certificates begin in it, but only {} can be read",
                found.len()
            ),
        ));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let unreadable = |error| CredentialsError::Unreadable {
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
        return Err(CredentialsError::malformed(
            path,
            format!("it is larger than {MAX_PEM_BYTES} bytes"),
        ));
    }
    Ok(bytes)
}
