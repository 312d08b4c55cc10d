//! Which hub a certificate proves.
//!
//! A hub's leaf certificate names it in exactly one URI among its subject alternative names:
//! `nowconnect://replica/<replica id>`. The common name never counts, and neither do DNS names:
//! those say where a hub is reached, several hubs may share one, and public authorities give them
//! out. An authority that signs such a URI was made, or told, to name hubs.

use std::fmt;

use nowconnect_protocol::ReplicaId;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use webpki::{EndEntityCert, KeyUsage};

use crate::limits::MAX_CHAIN;

/// What a hub's name follows in the URI of its certificate.
pub const REPLICA_URI_PREFIX: &str = "nowconnect://replica/";

/// The URI that the certificate of `replica` has to name.
#[must_use]
pub fn replica_uri(replica: &ReplicaId) -> String {
    format!("{REPLICA_URI_PREFIX}{replica}")
}

/// In which part of a link a certificate is shown: what its extended key usage must allow, where
/// it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Of the hub that dialled: client authentication.
    Dialler,
    /// Of the hub that was dialled: server authentication.
    Acceptor,
}

impl Part {
    const fn usage(self) -> KeyUsage {
        match self {
            Self::Dialler => KeyUsage::client_auth(),
            Self::Acceptor => KeyUsage::server_auth(),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dialler => "dialler",
            Self::Acceptor => "acceptor",
        })
    }
}

/// Why a chain proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// There is no certificate.
    #[error("it shows no certificate")]
    Empty,
    /// Too many certificates.
    #[error("it shows {found} certificates, and at most {MAX_CHAIN} are read")]
    TooLong {
        /// How many there are.
        found: usize,
    },
    /// The chain leads to no root of `ca_bundle`.
    #[error(
        "its certificate is not signed by an authority in `ha.mesh.tls.ca_bundle`; while the \
         authority is being changed, let the bundle hold the old and the new one"
    )]
    UnknownAuthority,
    /// The certificate is over, or has not begun.
    #[error(
        "its certificate, or one above it, has expired or is not valid yet: renew it, or set the \
         clock"
    )]
    Expired,
    /// The certificate may not be used here.
    #[error(
        "its certificate does not allow the part of the {part}: sign it for client and for server \
         authentication"
    )]
    Usage {
        /// What it was shown as.
        part: &'static str,
    },
    /// The certificate names no hub.
    #[error(
        "its certificate names no hub: put the URI `{REPLICA_URI_PREFIX}<replica id>` among its \
         subject alternative names"
    )]
    Nameless,
    /// The certificate names more than one hub.
    #[error("its certificate names several hubs: give each hub a certificate of its own")]
    Ambiguous,
    /// The name is none.
    #[error("the URI `{uri}` in its certificate names no hub: {reason}")]
    BadName {
        /// As it stands there.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate cannot be read.
    #[error("its certificate cannot be read: {reason}")]
    Unreadable {
        /// What the library said.
        reason: String,
    },
}

/// What a chain proves.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) replica: ReplicaId,
    /// The end of the certificate in its path that ends first, in seconds since 1970.
    pub(crate) not_after: i64,
    pub(crate) leaf_sha256: [u8; 32],
}

/// Checks a chain, leaf first, and tells whom it names.
pub(crate) fn check(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    part: Part,
    now: UnixTime,
) -> Result<Identity, IdentityError> {
    let (leaf, above) = chain.split_first().ok_or(IdentityError::Empty)?;
    if chain.len() > MAX_CHAIN {
        return Err(IdentityError::TooLong { found: chain.len() });
    }
    let parsed = EndEntityCert::try_from(leaf).map_err(|error| told(&error, part))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let path = parsed
        .verify_for_usage(
            provider.signature_verification_algorithms.all,
            &roots.roots,
            above,
            now,
            part.usage(),
            None,
            None,
        )
        .map_err(|error| told(&error, part))?;
    let mut not_after = ends(leaf)?;
    for certificate in path.intermediate_certificates() {
        not_after = not_after.min(ends(&certificate.der())?);
    }
    Ok(Identity {
        replica: named(leaf)?,
        not_after,
        leaf_sha256: Sha256::digest(leaf).into(),
    })
}

/// The hub that a leaf names, whoever signed it.
pub(crate) fn named(leaf: &CertificateDer<'_>) -> Result<ReplicaId, IdentityError> {
    let parsed = EndEntityCert::try_from(leaf).map_err(|error| unreadable(&error))?;
    let mut uris = parsed
        .valid_uri_names()
        .filter(|uri| uri.starts_with("nowconnect:"));
    let uri = uris.next().ok_or(IdentityError::Nameless)?;
    if uris.next().is_some() {
        return Err(IdentityError::Ambiguous);
    }
    let bad = |reason: String| IdentityError::BadName {
        uri: uri.chars().filter(|c| !c.is_control()).take(128).collect(),
        reason,
    };
    let name = uri
        .strip_prefix(REPLICA_URI_PREFIX)
        .ok_or_else(|| bad(format!("it does not begin with `{REPLICA_URI_PREFIX}`")))?;
    ReplicaId::parse(name).map_err(|error| bad(error.to_string()))
}

/// When a certificate ends, in seconds since 1970.
pub(crate) fn ends(certificate: &CertificateDer<'_>) -> Result<i64, IdentityError> {
    x509_parser::parse_x509_certificate(certificate)
        .map(|(_, parsed)| parsed.validity().not_after.timestamp())
        .map_err(|error| IdentityError::Unreadable {
            reason: error.to_string(),
        })
}

fn unreadable(error: &webpki::Error) -> IdentityError {
    IdentityError::Unreadable {
        reason: error.to_string(),
    }
}

fn told(error: &webpki::Error, part: Part) -> IdentityError {
    use webpki::Error as Bad;
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's list grows; what is not told apart here is told in its words"
    )]
    match error {
        Bad::UnknownIssuer | Bad::InvalidSignatureForPublicKey => IdentityError::UnknownAuthority,
        Bad::CertExpired { .. } | Bad::CertNotValidYet { .. } => IdentityError::Expired,
        Bad::RequiredEkuNotFoundContext(_) => IdentityError::Usage {
            part: match part {
                Part::Dialler => "dialler",
                Part::Acceptor => "acceptor",
            },
        },
        other => unreadable(other),
    }
}
