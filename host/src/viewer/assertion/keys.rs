//! The keys that sign assertions.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::signature::Ed25519KeyPair;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nowconnect_control::KeyRing;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::NoAssertion;
use crate::viewer::ViewerAuthError;

/// The most bytes of a key file.
const MAX_KEY_FILE_BYTES: u64 = 4096;

/// Those of the control API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingKeys<'a> {
    pub(crate) keys: &'a KeyRing,
    /// `iss` of its tokens.
    pub(crate) issuer: &'a str,
}

/// Those of files: the first signs, all count. So a key is changed by adding the next at the end,
/// putting it first once origins have it, and taking the old one out when its last assertion has
/// ended.
pub(super) struct AssertionKeys(Vec<AssertionKey>);

struct AssertionKey {
    /// The thumbprint of its public half (RFC 7638).
    id: String,
    signs: EncodingKey,
    public: Jwk,
}

impl fmt::Debug for AssertionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.0.iter().map(|key| &key.id);
        f.debug_list().entries(ids).finish()
    }
}

impl AssertionKeys {
    /// # Errors
    /// A file cannot be read, or holds no Ed25519 key. Nothing of it is in the message.
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self, ViewerAuthError> {
        let keys: Result<Vec<AssertionKey>, _> =
            paths.iter().map(|path| AssertionKey::read(path)).collect();
        keys.map(Self)
    }

    pub(super) fn sign(&self, kind: &str, claims: &impl Serialize) -> Result<String, NoAssertion> {
        let key = self.0.first().ok_or(NoAssertion::NoKey)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key.id.clone());
        header.typ = Some(kind.to_owned());
        let signed = jsonwebtoken::encode(&header, claims, &key.signs);
        signed.map_err(|_| NoAssertion::NotSigned)
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    pub(super) fn jwks(&self) -> Json {
        let keys: Vec<&Jwk> = self.0.iter().map(|key| &key.public).collect();
        json!({ "keys": keys })
    }
}

impl AssertionKey {
    fn read(path: &Path) -> Result<Self, ViewerAuthError> {
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_KEY_FILE_BYTES + 1).read_to_end(&mut text))
            .map_err(|error| ViewerAuthError::Unreadable {
                path: path.to_path_buf(),
                error,
            })?;
        Self::parse(&text).ok_or_else(|| ViewerAuthError::Malformed {
            path: path.to_path_buf(),
            reason:
                "it holds no Ed25519 key as PEM; `openssl genpkey -algorithm ed25519` makes one"
                    .to_owned(),
        })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let file = PrivatePkcs8KeyDer::from_pem_slice(text).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8(file.secret_pkcs8_der()).ok()?;
        // The JWT library reads the first version of the form alone, and some programs write the
        // second.
        let first: Pkcs8V1Der<'_> = pair.as_der().ok()?;
        let signs = EncodingKey::from_ed_der(first.as_ref());
        let mut public = Jwk::from_encoding_key(&signs, Algorithm::EdDSA).ok()?;
        let id = public.thumbprint(ThumbprintHash::SHA256).ok()?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Some(Self { id, signs, public })
    }
}
