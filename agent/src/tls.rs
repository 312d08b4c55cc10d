//! Trust: CA bundles, and TLS clients for the hub, for proxies and for targets.

mod client_certificate;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

pub(crate) use self::client_certificate::ClientCertificate;

/// A CA bundle larger than this is refused; the public web's own is a sixteenth of it.
const BUNDLE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why no TLS client could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The bundle cannot be read.
    #[error("CA bundle `{path}` cannot be read: {reason}")]
    Unreadable {
        /// The bundle.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A block of the bundle is malformed.
    #[error("CA bundle `{path}`, block {block} (line {line}): {reason}")]
    Block {
        /// The bundle.
        path: String,
        /// Which PEM block, from 1.
        block: usize,
        /// The line of its BEGIN mark, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The bundle holds no certificate.
    #[error("CA bundle `{path}` holds no certificate")]
    Empty {
        /// The bundle.
        path: String,
    },
    /// The file of the certificate that is shown cannot be used.
    #[error("client certificate `{path}` cannot be used: {reason}")]
    ClientCertificate {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of that certificate's key cannot be used.
    #[error("key of the client certificate `{path}` cannot be used: {reason}")]
    ClientKey {
        /// The file.
        path: String,
        /// What is wrong with it; never what it holds.
        reason: String,
    },
    /// Certificate and key were read and cannot be used with one another.
    #[error("client certificate and key: {0}")]
    ClientPair(String),
    /// The system has no CA certificates.
    #[error(
        "no CA certificate was found on this system; install the `ca-certificates` package or set `proxy.ca_bundle` (`NC_CA_BUNDLE`)"
    )]
    NoSystemRoots,
    /// The TLS library refused its settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// The trusted CA certificates: those of the bundle alone, or the system's where there is none.
pub(crate) fn roots(bundle: Option<&Path>) -> Result<RootCertStore, TrustError> {
    match bundle {
        Some(path) => bundle_roots(path),
        None => system_roots(),
    }
}

fn system_roots() -> Result<RootCertStore, TrustError> {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a system CA certificate was not read");
    }
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        return Err(TrustError::NoSystemRoots);
    }
    Ok(store)
}

fn bundle_roots(path: &Path) -> Result<RootCertStore, TrustError> {
    let unreadable = |reason: String| TrustError::Unreadable {
        path: path.display().to_string(),
        reason,
    };
    let length = std::fs::metadata(path)
        .map_err(|error| unreadable(error.to_string()))?
        .len();
    if length > BUNDLE_BYTES_MAX {
        return Err(unreadable(format!(
            "it is {length} bytes long; at most {BUNDLE_BYTES_MAX} are read"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    parse_bundle(&text, &path.display().to_string())
}

/// Every block must be a certificate and every certificate must parse: a bundle that trusts less
/// than its author wrote fails far from here, in a handshake that nobody can explain.
fn parse_bundle(text: &str, path: &str) -> Result<RootCertStore, TrustError> {
    let mut store = RootCertStore::empty();
    for (index, block) in PemBlocks::new(text).enumerate() {
        let line = block.line;
        let malformed = |reason: String| TrustError::Block {
            path: path.to_owned(),
            block: index + 1,
            line,
            reason,
        };
        let der = block.certificate().map_err(malformed)?;
        store
            .add(der)
            .map_err(|error| malformed(format!("is not a usable CA certificate: {error}")))?;
    }
    if store.is_empty() {
        return Err(TrustError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(store)
}

struct PemBlock<'a> {
    label: &'a str,
    line: usize,
    body: String,
    closed: Result<(), String>,
}

impl PemBlock<'_> {
    fn certificate(self) -> Result<CertificateDer<'static>, String> {
        self.closed?;
        if self.label != "CERTIFICATE" {
            return Err(format!(
                "is a `{}`; a CA bundle holds only `CERTIFICATE` blocks",
                self.label
            ));
        }
        STANDARD
            .decode(self.body)
            .map(CertificateDer::from)
            .map_err(|error| format!("is not base64: {error}"))
    }
}

struct PemBlocks<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
}

impl<'a> PemBlocks<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            lines: text.lines().enumerate(),
        }
    }
}

impl<'a> Iterator for PemBlocks<'a> {
    type Item = PemBlock<'a>;

    fn next(&mut self) -> Option<PemBlock<'a>> {
        let (label, line) = self
            .lines
            .by_ref()
            .find_map(|(index, line)| mark(line, "-----BEGIN ").map(|label| (label, index + 1)))?;
        let mut block = PemBlock {
            label,
            line,
            body: String::new(),
            closed: Err(format!("has no `-----END {label}-----`")),
        };
        for (_, line) in self.lines.by_ref() {
            if let Some(end) = mark(line, "-----END ") {
                block.closed = if end == label {
                    Ok(())
                } else {
                    Err(format!("begins as `{label}` and ends as `{end}`"))
                };
                break;
            }
            if mark(line, "-----BEGIN ").is_some() {
                break;
            }
            block.body.push_str(line.trim());
        }
        Some(block)
    }
}

fn mark<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.trim().strip_prefix(start)?.strip_suffix("-----")
}

/// A TLS client that trusts `roots`, speaks TLS 1.2 and 1.3, offers `alpn` and shows
/// `certificate` to a server that asks for one.
pub(crate) fn client(
    roots: RootCertStore,
    alpn: &[String],
    certificate: Option<ClientCertificate>,
) -> Result<Arc<ClientConfig>, TrustError> {
    let builder = builder()?.with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(found) => builder
            .with_client_auth_cert(found.chain, found.key)
            .map_err(|error| TrustError::ClientPair(explain_pair(&error)))?,
    };
    config.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
    Ok(Arc::new(config))
}

fn explain_pair(error: &rustls::Error) -> String {
    if matches!(error, rustls::Error::InconsistentKeys(_)) {
        "they do not belong together; where both are being replaced, this ends with the second"
            .to_owned()
    } else {
        error.to_string()
    }
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TrustError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TrustError::Setup(error.to_string()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Where the hub's trust comes from, read again at each dial so that a renewed bundle counts
/// without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrustSource {
    pub(crate) bundle: Option<PathBuf>,
}

impl TrustSource {
    /// A client that remembers the chain it was shown, also when it refuses it.
    pub(crate) fn recording_client(
        &self,
        alpn: &[String],
    ) -> Result<(Arc<ClientConfig>, Arc<SeenChain>), TrustError> {
        let roots = roots(self.bundle.as_deref())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| TrustError::Setup(error.to_string()))?;
        let seen = Arc::new(SeenChain::default());
        let recording = RecordingVerifier {
            inner: verifier,
            seen: Arc::clone(&seen),
        };
        let mut config = builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(recording))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
        Ok((Arc::new(config), seen))
    }
}

/// The certificates that a server showed, its own first.
#[derive(Debug, Default)]
pub(crate) struct SeenChain(Mutex<Vec<CertificateDer<'static>>>);

impl SeenChain {
    pub(crate) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.0.lock().map(|chain| chain.clone()).unwrap_or_default()
    }
}

/// Checks exactly as the wrapped verifier does and keeps a copy of what was shown.
#[derive(Debug)]
struct RecordingVerifier {
    inner: Arc<WebPkiServerVerifier>,
    seen: Arc<SeenChain>,
}

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Ok(mut chain) = self.seen.0.lock() {
            *chain = std::iter::once(end_entity)
                .chain(intermediates)
                .map(|certificate| certificate.clone().into_owned())
                .collect();
        }
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The trust that `certificates` make, for tests.
#[cfg(test)]
pub(crate) fn roots_of(certificates: &[CertificateDer<'_>]) -> Result<RootCertStore, TrustError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates.iter().cloned());
    Ok(store)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn a_good_bundle_with_comments_is_taken_whole() {
        let text = format!("# our CAs\n{}\nsecond:\n{}", ca(), ca());
        assert_eq!(parse_bundle(&text, "ca.pem").unwrap().len(), 2);
    }

    #[test]
    fn a_broken_block_is_named_and_nothing_is_skipped() {
        let good = ca();
        let broken = good.replacen("MII", "M!I", 1);
        let error = parse_bundle(&format!("{good}{broken}"), "ca.pem").unwrap_err();
        let TrustError::Block { block, line, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((block, line), (2, good.lines().count() + 1));
    }

    #[test]
    fn a_cut_block_is_an_error() {
        let cut: String = ca().lines().take(3).collect::<Vec<_>>().join("\n");
        for text in [cut.clone(), format!("{cut}\n{}", ca())] {
            let error = parse_bundle(&text, "ca.pem").unwrap_err().to_string();
            assert!(
                error.contains("block 1 (line 1): has no `-----END"),
                "{error}"
            );
        }
    }

    #[test]
    fn base64_of_something_else_is_an_error() {
        let text = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let error = parse_bundle(text, "ca.pem").unwrap_err().to_string();
        assert!(error.contains("not a usable CA certificate"), "{error}");
    }

    #[test]
    fn a_private_key_has_no_place_in_a_bundle() {
        let text = "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n";
        let error = parse_bundle(text, "ca.pem").unwrap_err().to_string();
        assert!(error.contains("`PRIVATE KEY`"), "{error}");
    }

    #[test]
    fn an_empty_bundle_trusts_nobody_and_says_so() {
        assert_eq!(
            parse_bundle("\n", "ca.pem").unwrap_err(),
            TrustError::Empty {
                path: "ca.pem".to_owned()
            }
        );
    }

    fn ca() -> String {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }
}
