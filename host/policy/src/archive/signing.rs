//! Keys and signatures of bundles.
//!
//! A signature is over a prefix of ours and then the exact bytes of the manifest, so that it can
//! never be taken for one over something else. Keys are shown as `ed25519:BASE64`; a key's id is
//! the beginning of the digest of its public part.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::refusal::{Refusal, RefusalCode};
use super::{contents, sha256};

/// What is signed in front of the manifest.
const DOMAIN: &[u8] = b"nowconnect policy bundle manifest v1\0";

const PUBLIC_PREFIX: &str = "ed25519:";
const SECRET_PREFIX: &str = "nowconnect-secret-ed25519:";

/// Signatures of one bundle. Nobody needs more; each costs a verification.
const SIGNATURES: usize = 16;

/// Letters of a key's id.
const ID_LETTERS: usize = 16;

/// The short name of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no key. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a public key.
    #[error("not a public key; one looks like `ed25519:` and 44 letters of base64")]
    Public,
    /// Not a secret key.
    #[error("not a secret key; `nowconnect policy keygen` makes one")]
    Secret,
    /// The system has no randomness to give.
    #[error("the system gives no random bytes")]
    Random,
}

/// The public half: who holds it can verify.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads `ed25519:BASE64`.
    ///
    /// # Errors
    /// Where the text is none, or a key that anybody could sign for.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text.trim(), PUBLIC_PREFIX).ok_or(KeyError::Public)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Public)?;
        if key.is_weak() {
            return Err(KeyError::Public);
        }
        Ok(Self(key))
    }

    /// Its short name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut id = sha256(self.0.as_bytes());
        id.truncate(ID_LETTERS);
        KeyId(id)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", BASE64.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The secret half. It is wiped from memory when dropped, and nothing prints it.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// Where the system has none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).map_err(|_| KeyError::Random)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads what [`to_text`](Self::to_text) wrote.
    ///
    /// # Errors
    /// Where the text is no secret key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text.trim(), SECRET_PREFIX).ok_or(KeyError::Secret)?;
        Ok(Self(SigningKey::from_bytes(&bytes)))
    }

    /// For a file that only its owner can read, and for nothing else.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{SECRET_PREFIX}{}\n", BASE64.encode(self.0.to_bytes()))
    }

    /// The other half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().id())
    }
}

fn decode(text: &str, prefix: &str) -> Option<[u8; 32]> {
    let bytes = BASE64.decode(text.strip_prefix(prefix)?).ok()?;
    bytes.try_into().ok()
}

/// The keys that bundles are taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedKeys {
    keys: Vec<PublicKey>,
    required: usize,
}

impl TrustedKeys {
    /// Any one of these keys is enough.
    #[must_use]
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self { keys, required: 1 }
    }

    /// That many different ones of the keys must have signed; at least one always must.
    #[must_use]
    pub fn require(mut self, signers: usize) -> Self {
        self.required = signers.max(1);
        self
    }

    fn find(&self, id: &KeyId) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.id() == *id)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signatures {
    signatures: Vec<Signed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    key: KeyId,
    signature: String,
}

impl Signatures {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let malformed = |message| Refusal::new(RefusalCode::Malformed, message);
        let parsed: Self = serde_json::from_str(text)
            .map_err(|error| malformed(format!("`{}`: {error}", contents::SIGNATURES)))?;
        if parsed.signatures.len() > SIGNATURES {
            return Err(malformed(format!("more than {SIGNATURES} signatures")));
        }
        Ok(parsed)
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.signatures.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &KeyId> {
        self.signatures.iter().map(|signed| &signed.key)
    }

    pub(super) fn add(&mut self, key: &SecretKey, manifest: &[u8]) {
        let id = key.public().id();
        self.signatures.retain(|signed| signed.key != id);
        let signature = key.0.sign(&message(manifest));
        self.signatures.push(Signed {
            key: id,
            signature: BASE64.encode(signature.to_bytes()),
        });
    }

    /// The trusted keys that signed.
    pub(super) fn check(
        &self,
        manifest: &[u8],
        trusted: &TrustedKeys,
    ) -> Result<Vec<KeyId>, Refusal> {
        if self.is_empty() {
            let message = "it carries no signature; `nowconnect policy sign` adds one".to_owned();
            return Err(Refusal::new(RefusalCode::Unsigned, message));
        }
        let message = message(manifest);
        let mut signers = BTreeSet::new();
        for signed in &self.signatures {
            let Some(key) = trusted.find(&signed.key) else {
                continue;
            };
            let holds = BASE64
                .decode(&signed.signature)
                .ok()
                .and_then(|bytes| Signature::from_slice(&bytes).ok())
                .is_some_and(|signature| key.0.verify_strict(&message, &signature).is_ok());
            if !holds {
                return Err(Refusal::new(
                    RefusalCode::BadSignature,
                    format!("the signature of key {} does not hold", key.id()),
                ));
            }
            signers.insert(signed.key.clone());
        }
        // Without a key nothing can be required of one, and nothing is trusted.
        if signers.len() < trusted.required.max(1) {
            let by: Vec<String> = self
                .keys()
                .map(|id| id.0.escape_debug().to_string())
                .collect();
            return Err(Refusal::new(
                RefusalCode::UntrustedKey,
                format!(
                    "signed by {}; of these {} trusted, and {} needed",
                    by.join(", "),
                    match signers.len() {
                        0 => "none is".to_owned(),
                        1 => "1 is".to_owned(),
                        more => format!("{more} are"),
                    },
                    match trusted.required.max(1) {
                        1 => "1 is".to_owned(),
                        more => format!("{more} are"),
                    },
                ),
            ));
        }
        Ok(signers.into_iter().collect())
    }
}

fn message(manifest: &[u8]) -> Vec<u8> {
    [DOMAIN, manifest].concat()
}
