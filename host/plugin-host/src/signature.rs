//! Who vouches for a component: detached Ed25519 signatures over the exact bytes that are loaded.
//!
//! They stand beside the component in `<file>.sig`, one a line: the public key, a space, the
//! signature in base64. What is verified is the buffer that is then compiled, never the file a
//! second time. A key is shown as `ed25519:BASE64`, as everywhere in the product.
//!
//! A component begins with `\0asm`, and what other parts of the product sign does not, so one
//! signature can never be taken for another.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use thiserror::Error;

const PUBLIC_PREFIX: &str = "ed25519:";
const SECRET_PREFIX: &str = "nowconnect-secret-ed25519:";
/// Signatures of one component; each costs a verification.
const SIGNATURES_MAX: usize = 16;

/// What is wrong with a key or a signature. It never repeats a text that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// Not a public key.
    #[error("not a public key; one looks like `ed25519:` and 44 letters of base64")]
    PublicKey,
    /// Not a secret key.
    #[error("not a secret key; `nowconnect plugin keygen` makes one")]
    SecretKey,
    /// The system has no randomness to give.
    #[error("the system gives no random bytes")]
    Random,
    /// The signature file is not one.
    #[error("line {0} of the signature file is not `ed25519:<public key> <signature>`")]
    Malformed(usize),
    /// There is no signature at all.
    #[error("it has no signature; `nowconnect plugin sign` makes one")]
    Unsigned,
    /// The bytes are not the ones that were signed.
    #[error("the signature of `{0}` does not hold: these are not the bytes that were signed")]
    DoesNotHold(String),
    /// Signed, but by nobody who is trusted.
    #[error("it is signed by {0}, and by none of the trusted keys")]
    Untrusted(String),
}

/// The public half of a key: who holds it can verify.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads `ed25519:BASE64`.
    ///
    /// # Errors
    /// The text is no key, or one that anybody could sign for.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        decode(text.trim(), PUBLIC_PREFIX)
            .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
            .filter(|key| !key.is_weak())
            .map(Self)
            .ok_or(SignatureError::PublicKey)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", STANDARD.encode(self.0.as_bytes()))
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
    pub fn generate() -> Result<Self, SignatureError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| SignatureError::Random)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads what [`to_text`](Self::to_text) wrote.
    ///
    /// # Errors
    /// The text is no secret key.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let bytes = decode(text.trim(), SECRET_PREFIX).ok_or(SignatureError::SecretKey)?;
        Ok(Self(SigningKey::from_bytes(&bytes)))
    }

    /// For a file that only its owner can read, and for nothing else.
    pub fn to_text(&self) -> String {
        format!("{SECRET_PREFIX}{}\n", STANDARD.encode(self.0.to_bytes()))
    }

    /// The other half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a component's bytes.
    pub fn sign(&self, component: &[u8]) -> ComponentSignature {
        ComponentSignature {
            key: self.public(),
            signature: self.0.sign(component),
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {}", self.public())
    }
}

/// One line of a signature file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentSignature {
    key: PublicKey,
    signature: Signature,
}

impl ComponentSignature {
    /// Whose it is.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    fn parse(line: &str) -> Option<Self> {
        let (key, signature) = line.split_once(' ')?;
        let bytes = STANDARD.decode(signature.trim()).ok()?;
        Some(Self {
            key: PublicKey::parse(key).ok()?,
            signature: Signature::from_slice(&bytes).ok()?,
        })
    }
}

impl fmt::Display for ComponentSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = STANDARD.encode(self.signature.to_bytes());
        write!(f, "{} {signature}", self.key)
    }
}

/// The signatures of one component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComponentSignatures {
    all: Vec<ComponentSignature>,
}

impl ComponentSignatures {
    /// Reads a signature file.
    ///
    /// # Errors
    /// The first line that is not a signature.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let lines = text.lines().enumerate();
        let all: Vec<ComponentSignature> = lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(index, line)| {
                ComponentSignature::parse(line.trim()).ok_or(SignatureError::Malformed(index + 1))
            })
            .collect::<Result<_, _>>()?;
        if all.len() > SIGNATURES_MAX {
            return Err(SignatureError::Malformed(SIGNATURES_MAX + 1));
        }
        Ok(Self { all })
    }

    /// Adds a signature; an older one of the same key goes.
    pub fn add(&mut self, signature: ComponentSignature) {
        self.all.retain(|other| other.key != signature.key);
        self.all.push(signature);
    }

    /// Whose signatures there are.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.all.iter().map(ComponentSignature::key)
    }

    /// The first trusted key whose signature holds over these bytes. A signature that does not
    /// hold refuses the component, whoever else signed it: somebody changed one or the other.
    ///
    /// # Errors
    /// There is no signature, one does not hold, or nobody who signed is trusted.
    pub fn verify<'a>(
        &self,
        component: &[u8],
        trusted: &'a [PublicKey],
    ) -> Result<&'a PublicKey, SignatureError> {
        if self.all.is_empty() {
            return Err(SignatureError::Unsigned);
        }
        for one in &self.all {
            if one.key.0.verify_strict(component, &one.signature).is_err() {
                return Err(SignatureError::DoesNotHold(one.key.to_string()));
            }
        }
        let found = trusted
            .iter()
            .find(|key| self.keys().any(|other| other == *key));
        found.ok_or_else(|| {
            let keys: Vec<String> = self.keys().map(|key| format!("`{key}`")).collect();
            SignatureError::Untrusted(keys.join(", "))
        })
    }
}

impl fmt::Display for ComponentSignatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.iter().try_for_each(|one| writeln!(f, "{one}"))
    }
}

fn decode(text: &str, prefix: &str) -> Option<[u8; 32]> {
    let bytes = STANDARD.decode(text.strip_prefix(prefix)?).ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::{ComponentSignatures, PublicKey, SecretKey, SignatureError};

    #[test]
    fn a_signature_holds_over_exactly_these_bytes() {
        let (ours, theirs) = (
            SecretKey::generate().unwrap(),
            SecretKey::generate().unwrap(),
        );
        let mut signatures = ComponentSignatures::default();
        let trusted = [ours.public()];
        assert_eq!(
            signatures.verify(b"\0asm", &trusted),
            Err(SignatureError::Unsigned)
        );
        signatures.add(theirs.sign(b"\0asm"));
        let error = signatures.verify(b"\0asm", &trusted).unwrap_err();
        assert!(matches!(error, SignatureError::Untrusted(_)), "{error}");
        signatures.add(ours.sign(b"\0asm"));
        signatures.add(ours.sign(b"\0asm"));

        let read = ComponentSignatures::parse(&signatures.to_string()).unwrap();
        assert_eq!(read, signatures);
        assert_eq!(read.keys().count(), 2, "one for each key");
        assert_eq!(read.verify(b"\0asm", &trusted), Ok(&trusted[0]));
        let error = read.verify(b"\0asn", &trusted).unwrap_err();
        assert!(matches!(error, SignatureError::DoesNotHold(_)), "{error}");
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = SecretKey::generate().unwrap();
        let again = SecretKey::parse(&key.to_text()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(
            PublicKey::parse(&key.public().to_string()),
            Ok(key.public())
        );
        assert!(!format!("{key:?}").contains(key.to_text().trim()));
    }

    #[test]
    fn what_is_no_key_or_signature_is_refused() {
        let weak = format!("ed25519:{}=", "A".repeat(43));
        for text in ["", "ed25519:", "ed25519:AAAA", &weak] {
            assert_eq!(
                PublicKey::parse(text),
                Err(SignatureError::PublicKey),
                "{text}"
            );
        }
        let error = SecretKey::parse("nowconnect-secret-ed25519:AAAA").unwrap_err();
        assert!(!error.to_string().contains("AAAA"), "{error}");
        let malformed = ComponentSignatures::parse("\ned25519:AAAA BBBB\n");
        assert_eq!(malformed, Err(SignatureError::Malformed(2)));
    }
}
