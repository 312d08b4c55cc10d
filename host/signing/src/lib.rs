//! Ed25519 keys and signatures, as everything signed in the product has them.
//!
//! A public key is shown as `ed25519:BASE64`, a secret one stands in a file of its own. What is
//! signed always begins with a [`Domain`], so that a signature over one kind of thing can never
//! be taken for one over another, although one key may sign both.
//!
//! Absent: which keys are trusted, and what is signed. Those who sign and verify say so.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const PUBLIC_PREFIX: &str = "ed25519:";
const SECRET_PREFIX: &str = "nowconnect-secret-ed25519:";

/// Bytes of a public key's digest that name it.
const ID_BYTES: usize = 8;

/// What a signature is about. It stands in front of what is signed and ends with a zero, so that
/// no domain is the beginning of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(&'static str);

impl Domain {
    /// A kind of thing with its version, such as `nowconnect policy bundle manifest v1`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    fn message(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut message = Vec::with_capacity(
            self.0.len() + 1 + parts.iter().map(|part| part.len()).sum::<usize>(),
        );
        message.extend_from_slice(self.0.as_bytes());
        message.push(0);
        for part in parts {
            message.extend_from_slice(part);
        }
        message
    }
}

/// A text that is no key. It never repeats the text, which may be secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not a public key.
    #[error("not a public key; one looks like `ed25519:` and 44 letters of base64")]
    Public,
    /// Not a secret key.
    #[error(
        "not a secret key; `nowconnect policy keygen` and `nowconnect plugin keygen` make the \
         same kind"
    )]
    Secret,
    /// The system has no randomness to give.
    #[error("the system gives no random bytes")]
    Random,
}

/// The short name of a key: the beginning of the SHA-256 of its public half, in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// As it is shown.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The public half of a key: who holds it can verify.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads `ed25519:BASE64`.
    ///
    /// # Errors
    /// The text is no key, or one that anybody could sign for.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        decode(text.trim(), PUBLIC_PREFIX)
            .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
            .filter(|key| !key.is_weak())
            .map(Self)
            .ok_or(KeyError::Public)
    }

    /// Its short name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = Sha256::digest(self.0.as_bytes());
        let hex = digest
            .iter()
            .take(ID_BYTES)
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        KeyId(hex)
    }

    /// Whether the signature is this key's over these parts, one after the other. Who signs
    /// several parts must make sure that they can be told apart.
    #[must_use]
    pub fn has_signed(&self, domain: Domain, parts: &[&[u8]], signature: &Signature) -> bool {
        let message = domain.message(parts);
        self.0.verify_strict(&message, &signature.0).is_ok()
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

/// The secret half of a key. It is wiped from memory when dropped, and nothing prints it.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// The system has none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).map_err(|_| KeyError::Random)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads what [`to_text`](Self::to_text) wrote.
    ///
    /// # Errors
    /// The text is no secret key.
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

    /// Signs these parts, one after the other.
    #[must_use]
    pub fn sign(&self, domain: Domain, parts: &[&[u8]]) -> Signature {
        Signature(self.0.sign(&domain.message(parts)))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().id())
    }
}

/// A signature, in base64 where it is written.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(ed25519_dalek::Signature);

impl Signature {
    /// Reads base64; `None` where it is no signature.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64.decode(text).ok()?;
        ed25519_dalek::Signature::from_slice(&bytes).ok().map(Self)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0.to_bytes()))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn decode(text: &str, prefix: &str) -> Option<[u8; 32]> {
    let bytes = BASE64.decode(text.strip_prefix(prefix)?).ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::{Domain, KeyError, PublicKey, SecretKey, Signature};

    const BUNDLES: Domain = Domain::new("bundle v1");
    const PLUGINS: Domain = Domain::new("plugin v2");

    #[test]
    fn a_signature_is_over_exactly_this_and_of_this_kind() {
        let (ours, theirs) = (
            SecretKey::generate().unwrap(),
            SecretKey::generate().unwrap(),
        );
        let signature = ours.sign(PLUGINS, &[b"name\0", b"bytes"]);
        let read = Signature::parse(&signature.to_string()).unwrap();
        assert!(
            ours.public()
                .has_signed(PLUGINS, &[b"name\0", b"bytes"], &read)
        );
        assert!(
            !ours
                .public()
                .has_signed(PLUGINS, &[b"name\0", b"byteS"], &read)
        );
        assert!(
            !ours
                .public()
                .has_signed(BUNDLES, &[b"name\0", b"bytes"], &read)
        );
        assert!(
            !theirs
                .public()
                .has_signed(PLUGINS, &[b"name\0", b"bytes"], &read)
        );
        assert_eq!(Signature::parse("AAAA"), None);
    }

    #[test]
    fn keys_are_read_as_they_are_written_and_secrets_never_shown() {
        let key = SecretKey::generate().unwrap();
        let again = SecretKey::parse(&key.to_text()).unwrap();
        assert_eq!(again.public(), key.public());
        let public = key.public().to_string();
        assert_eq!(PublicKey::parse(&public), Ok(key.public()));
        assert_eq!(key.public().id().as_str().len(), 16);
        let secret = key.to_text();
        let letters = secret.trim().rsplit_once(':').unwrap().1;
        assert!(!format!("{key:?}").contains(letters));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let weak = format!("ed25519:{}=", "A".repeat(43));
        for text in ["", "ed25519:", "ed25519:AAAA", &weak] {
            assert_eq!(PublicKey::parse(text), Err(KeyError::Public), "{text}");
        }
        let error = SecretKey::parse("nowconnect-secret-ed25519:AAAA").unwrap_err();
        assert!(!error.to_string().contains("AAAA"), "{error}");
    }
}
