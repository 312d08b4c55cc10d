//! What this hub shows to an authority that wants to see that a name leads here.
//!
//! An answer is there from just before the authority is told to look until its order ends, and
//! only for its token or its name; the [`Offer`] takes it away again.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustc_hash::FxHashMap;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// The protocol that an authority speaks to check a name (RFC 8737, 6.2).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

/// Where an authority asks over plain HTTP (RFC 8555, 8.3).
const HTTP_PREFIX: &str = "/.well-known/acme-challenge/";

/// The answers of the moment; as many as orders are under way.
#[derive(Default)]
pub(crate) struct Challenges {
    /// By token.
    http: RwLock<FxHashMap<Box<str>, Arc<str>>>,
    /// By name.
    tls: RwLock<FxHashMap<Box<str>, Arc<ServerConfig>>>,
}

/// An answer that could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChallengeError {
    #[error("the certificate for the challenge could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the certificate for the challenge could not be used: {0}")]
    Tls(#[from] rustls::Error),
}

impl Challenges {
    /// What an authority gets that asks for this path; `None` where nobody waits for it.
    pub(crate) fn http_answer(&self, path: &str) -> Option<Arc<str>> {
        let token = path.strip_prefix(HTTP_PREFIX)?;
        self.http.read().get(token).cloned()
    }

    /// The handshake with an authority that looks at this name, in lower case; `None` where
    /// nobody waits for it.
    pub(crate) fn tls_answer(&self, name: &str) -> Option<Arc<ServerConfig>> {
        self.tls.read().get(name).cloned()
    }

    /// Answers `http-01` until the offer is dropped.
    pub(super) fn offer_http(self: &Arc<Self>, token: &str, key_authorization: &str) -> Offer {
        self.http
            .write()
            .insert(token.into(), Arc::from(key_authorization));
        Offer {
            challenges: Arc::clone(self),
            what: Offered::Token(token.into()),
        }
    }

    /// Answers `tls-alpn-01` until the offer is dropped. `digest` is the SHA-256 of the key
    /// authorization.
    pub(super) fn offer_tls(
        self: &Arc<Self>,
        name: &str,
        digest: &[u8],
    ) -> Result<Offer, ChallengeError> {
        let config = handshake(name, digest)?;
        self.tls.write().insert(name.into(), Arc::new(config));
        Ok(Offer {
            challenges: Arc::clone(self),
            what: Offered::Name(name.into()),
        })
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges")
            .field("http", &self.http.read().len())
            .field("tls", &self.tls.read().len())
            .finish()
    }
}

/// Holds an answer; see [`Challenges`].
#[must_use = "the answer goes with its offer"]
pub(super) struct Offer {
    challenges: Arc<Challenges>,
    what: Offered,
}

enum Offered {
    Token(Box<str>),
    Name(Box<str>),
}

impl Drop for Offer {
    fn drop(&mut self) {
        match &self.what {
            Offered::Token(token) => drop(self.challenges.http.write().remove(token)),
            Offered::Name(name) => drop(self.challenges.tls.write().remove(name)),
        }
    }
}

/// A server that shows a self-signed certificate with the digest in it (RFC 8737, 3) and speaks
/// nothing else.
fn handshake(name: &str, digest: &[u8]) -> Result<ServerConfig, ChallengeError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = provider.key_provider.load_private_key(key)?;
    // Not as a usual one is taken in: the extension is critical, so libraries refuse to read it.
    let shown = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn an_answer_is_there_as_long_as_its_offer() {
        let challenges = Arc::new(Challenges::default());
        let path = "/.well-known/acme-challenge/token-1";
        assert!(challenges.http_answer(path).is_none());
        let http = challenges.offer_http("token-1", "token-1.thumb");
        let tls = challenges.offer_tls("shop.example.com", &[7; 32]).unwrap();
        assert_eq!(
            challenges.http_answer(path).as_deref(),
            Some("token-1.thumb")
        );
        for other in [
            "/.well-known/acme-challenge/token-2",
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/token-1/",
            "/token-1",
        ] {
            assert!(challenges.http_answer(other).is_none(), "{other}");
        }
        let config = challenges.tls_answer("shop.example.com").unwrap();
        assert_eq!(config.alpn_protocols, [ACME_TLS.to_vec()]);
        assert!(challenges.tls_answer("example.com").is_none());
        drop((http, tls));
        assert!(challenges.http_answer(path).is_none());
        assert!(challenges.tls_answer("shop.example.com").is_none());
    }
}
