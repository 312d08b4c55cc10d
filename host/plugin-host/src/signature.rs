//! Who vouches for a component, and as what: detached Ed25519 signatures over a name, a version
//! and the exact bytes that are loaded.
//!
//! They stand beside the component in `<file>.sig`, one a line: the public key, the signature in
//! base64, the name, the version. What is verified is the buffer that is then compiled, never the
//! file a second time. The name keeps a component that somebody vouched for from being served as
//! another one. The version keeps an old one from being called a new one, and no more: who serves
//! components may still serve an old one as what it is, unless the configuration says by `version`
//! or `digest` which it takes.
//!
//! Signatures of the earlier form, which had neither, are refused by a sentence.

use std::fmt;

use nowconnect_signing::{Domain, Signature};
use semver::{Version, VersionReq};
use thiserror::Error;

pub use nowconnect_signing::{KeyError, PublicKey, SecretKey};

/// What a signature is about.
const DOMAIN: Domain = Domain::new("nowconnect plugin v2");
/// Signatures of one component; each costs a verification.
const SIGNATURES_MAX: usize = 16;
/// Bytes of a plugin's name.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Bytes of a plugin's version.
const VERSION_BYTES_MAX: usize = 64;

/// What is wrong with a component's signatures.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The signature file is not one.
    #[error(
        "line {0} of the signature file is not `ed25519:<public key> <signature> <name> <version>`"
    )]
    Malformed(usize),
    /// A signature over the bytes alone.
    #[error(
        "line {0} of the signature file is a signature of the earlier form, which binds no name \
         and no version and is no longer taken; have it signed again by `nowconnect plugin sign`"
    )]
    EarlierForm(usize),
    /// There is no signature at all.
    #[error("it has no signature; `nowconnect plugin sign` makes one")]
    Unsigned,
    /// The bytes, the name or the version are not the ones that were signed.
    #[error(
        "the signature of `{0}` does not hold: these are not the bytes, the name and the version \
         that were signed"
    )]
    DoesNotHold(String),
    /// Signed, but by nobody who is trusted.
    #[error("it is signed by {0}, and by none of the trusted keys")]
    Untrusted(String),
    /// Signed by a trusted key as something else.
    #[error(
        "it is signed as `{signed}`, and `{wanted}` is wanted; where that is the plugin you mean, \
         write `signed_as: {signed}`"
    )]
    OtherName {
        /// What the signer called it.
        signed: String,
        /// What the configuration calls it.
        wanted: String,
    },
    /// Signed by a trusted key as another version.
    #[error("it is signed as version `{signed}`, and `version` asks for `{wanted}`")]
    OtherVersion {
        /// What the signer called it.
        signed: Version,
        /// What the configuration asks for.
        wanted: VersionReq,
    },
    /// A name that no plugin can have.
    #[error("a plugin's name is 1 to 64 letters, digits, `.`, `_` and `-`")]
    BadName,
    /// A version that is none.
    #[error("a plugin's version is like `1.2.3`, with at most 64 letters")]
    BadVersion,
}

/// What a signer says that a component is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAs {
    name: String,
    version: Version,
}

impl SignedAs {
    /// Takes a name and a version such as `1.2.3`.
    ///
    /// # Errors
    /// One of them is not usable.
    pub fn new(name: &str, version: &str) -> Result<Self, SignatureError> {
        if !is_name(name) {
            return Err(SignatureError::BadName);
        }
        if version.len() > VERSION_BYTES_MAX {
            return Err(SignatureError::BadVersion);
        }
        Ok(Self {
            name: name.to_owned(),
            version: Version::parse(version).map_err(|_| SignatureError::BadVersion)?,
        })
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// Whether this is an earlier version of the same plugin (Semantic Versioning 2.0.0, §11).
    pub(crate) fn is_older_than(&self, other: &Self) -> bool {
        self.name == other.name && self.version.cmp_precedence(&other.version).is_lt()
    }

    /// In front of the component. Neither part can hold a zero, so no two of these are equal.
    fn header(&self) -> String {
        format!("{}\0{}\0", self.name, self.version)
    }
}

impl fmt::Display for SignedAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// Whether a plugin can have this name.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// One line of a signature file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentSignature {
    key: PublicKey,
    signature: Signature,
    signed_as: SignedAs,
}

impl ComponentSignature {
    /// Signs a component's bytes as this plugin.
    pub fn new(key: &SecretKey, signed_as: SignedAs, component: &[u8]) -> Self {
        Self {
            key: key.public(),
            signature: key.sign(DOMAIN, &[signed_as.header().as_bytes(), component]),
            signed_as,
        }
    }

    /// Whose it is.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// What it says that the component is.
    pub const fn signed_as(&self) -> &SignedAs {
        &self.signed_as
    }

    fn holds(&self, component: &[u8]) -> bool {
        let header = self.signed_as.header();
        self.key
            .has_signed(DOMAIN, &[header.as_bytes(), component], &self.signature)
    }

    fn parse(line: &str, number: usize) -> Result<Self, SignatureError> {
        let malformed = || SignatureError::Malformed(number);
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (key, signature, signed_as) = match fields.as_slice() {
            [key, signature] if key_and_signature(key, signature).is_some() => {
                return Err(SignatureError::EarlierForm(number));
            }
            [key, signature, name, version] => {
                let (key, signature) = key_and_signature(key, signature).ok_or_else(malformed)?;
                let signed_as = SignedAs::new(name, version).map_err(|_| malformed())?;
                (key, signature, signed_as)
            }
            _ => return Err(malformed()),
        };
        Ok(Self {
            key,
            signature,
            signed_as,
        })
    }
}

fn key_and_signature(key: &str, signature: &str) -> Option<(PublicKey, Signature)> {
    Some((PublicKey::parse(key).ok()?, Signature::parse(signature)?))
}

impl fmt::Display for ComponentSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.key, self.signature, self.signed_as)
    }
}

/// What a component must be signed as; `None` takes any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The plugin's name.
    pub name: Option<&'a str>,
    /// Its version.
    pub version: Option<&'a VersionReq>,
}

impl Wanted<'_> {
    fn is_met_by(&self, signed_as: &SignedAs) -> Result<(), SignatureError> {
        if let Some(name) = self.name.filter(|name| *name != signed_as.name) {
            return Err(SignatureError::OtherName {
                signed: signed_as.name.clone(),
                wanted: name.to_owned(),
            });
        }
        match self.version {
            Some(wanted) if !wanted.matches(&signed_as.version) => {
                Err(SignatureError::OtherVersion {
                    signed: signed_as.version.clone(),
                    wanted: wanted.clone(),
                })
            }
            Some(_) | None => Ok(()),
        }
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
        let all: Vec<ComponentSignature> = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .take(SIGNATURES_MAX + 1)
            .map(|(index, line)| ComponentSignature::parse(line, index + 1))
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

    /// Each signature.
    pub fn iter(&self) -> impl Iterator<Item = &ComponentSignature> {
        self.all.iter()
    }

    /// Whether each signature holds over these bytes, whoever made it: what an author wants to know.
    /// Each costs a hash of the whole component, so who takes files from strangers asks
    /// [`verify`](Self::verify).
    ///
    /// # Errors
    /// There is no signature, or one does not hold.
    pub fn hold(&self, component: &[u8]) -> Result<(), SignatureError> {
        if self.all.is_empty() {
            return Err(SignatureError::Unsigned);
        }
        match self.all.iter().find(|one| !one.holds(component)) {
            Some(bad) => Err(SignatureError::DoesNotHold(bad.key.to_string())),
            None => Ok(()),
        }
    }

    /// The first signature of a trusted key that is about what is wanted. One of a trusted key that
    /// does not hold refuses the component, whoever else signed it: somebody changed one or the
    /// other. Those of other keys say nothing and are not looked at, so that nobody but who is
    /// trusted can make it cost a hash of the component.
    ///
    /// # Errors
    /// There is no signature, one does not hold, nobody who signed is trusted, or they signed
    /// something else.
    pub fn verify(
        &self,
        component: &[u8],
        trusted: &[PublicKey],
        wanted: Wanted<'_>,
    ) -> Result<&ComponentSignature, SignatureError> {
        if self.all.is_empty() {
            return Err(SignatureError::Unsigned);
        }
        let by_trusted: Vec<&ComponentSignature> = self
            .all
            .iter()
            .filter(|one| trusted.contains(&one.key))
            .collect();
        if let Some(bad) = by_trusted.iter().find(|one| !one.holds(component)) {
            return Err(SignatureError::DoesNotHold(bad.key.to_string()));
        }
        let mut refused = None;
        for one in by_trusted {
            match wanted.is_met_by(&one.signed_as) {
                Ok(()) => return Ok(one),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| self.untrusted()))
    }

    fn untrusted(&self) -> SignatureError {
        let keys: Vec<String> = self
            .all
            .iter()
            .map(|one| format!("`{}`", one.key))
            .collect();
        SignatureError::Untrusted(keys.join(", "))
    }
}

impl fmt::Display for ComponentSignatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.iter().try_for_each(|one| writeln!(f, "{one}"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::{
        ComponentSignature, ComponentSignatures, SecretKey, SignatureError, SignedAs, Wanted,
    };

    const COMPONENT: &[u8] = b"\0asm";

    fn signed(key: &SecretKey, name: &str, version: &str) -> ComponentSignature {
        ComponentSignature::new(key, SignedAs::new(name, version).unwrap(), COMPONENT)
    }

    fn wanted(name: &str) -> Wanted<'_> {
        Wanted {
            name: Some(name),
            version: None,
        }
    }

    #[test]
    fn a_signature_holds_over_exactly_these_bytes_and_is_told_by_its_key() {
        let (ours, theirs) = (
            SecretKey::generate().unwrap(),
            SecretKey::generate().unwrap(),
        );
        let trusted = [ours.public()];
        let mut signatures = ComponentSignatures::default();
        assert_eq!(
            signatures.verify(COMPONENT, &trusted, wanted("guard")),
            Err(SignatureError::Unsigned)
        );
        signatures.add(signed(&theirs, "guard", "1.0.0"));
        let error = signatures
            .verify(COMPONENT, &trusted, wanted("guard"))
            .unwrap_err();
        assert!(matches!(error, SignatureError::Untrusted(_)), "{error}");
        signatures.add(signed(&ours, "guard", "0.9.0"));
        signatures.add(signed(&ours, "guard", "1.0.0"));

        let read = ComponentSignatures::parse(&signatures.to_string()).unwrap();
        assert_eq!(read, signatures);
        assert_eq!(read.iter().count(), 2, "one for each key");
        let found = read.verify(COMPONENT, &trusted, wanted("guard")).unwrap();
        assert_eq!(found.key(), &ours.public());
        let error = read
            .verify(b"\0asn", &trusted, wanted("guard"))
            .unwrap_err();
        assert!(matches!(error, SignatureError::DoesNotHold(_)), "{error}");
    }

    #[test]
    fn what_is_signed_as_one_plugin_is_not_another() {
        let key = SecretKey::generate().unwrap();
        let trusted = [key.public()];
        let mut signatures = ComponentSignatures::default();
        signatures.add(signed(&key, "guard", "1.2.0"));
        let error = signatures
            .verify(COMPONENT, &trusted, wanted("gate"))
            .unwrap_err();
        assert!(matches!(error, SignatureError::OtherName { .. }), "{error}");
        for (asked, right) in [
            (">=1.2", true),
            ("^1", true),
            (">=1.3", false),
            ("2", false),
        ] {
            let version = asked.parse().unwrap();
            let wanted = Wanted {
                name: Some("guard"),
                version: Some(&version),
            };
            let found = signatures.verify(COMPONENT, &trusted, wanted);
            assert_eq!(found.is_ok(), right, "{asked}: {found:?}");
        }
        // A name or version that was written over is one that nobody signed.
        for text in [
            signatures.to_string().replace("guard", "gate"),
            signatures.to_string().replace("1.2.0", "1.3.0"),
        ] {
            let read = ComponentSignatures::parse(&text).unwrap();
            let error = read.hold(COMPONENT).unwrap_err();
            assert!(matches!(error, SignatureError::DoesNotHold(_)), "{error}");
        }
    }

    #[test]
    fn what_strangers_add_neither_helps_nor_harms() {
        let (ours, theirs) = (
            SecretKey::generate().unwrap(),
            SecretKey::generate().unwrap(),
        );
        let other = ComponentSignature::new(
            &theirs,
            SignedAs::new("guard", "9.0.0").unwrap(),
            b"other bytes",
        );
        let text = format!("{other}\n{}", signed(&ours, "guard", "1.0.0"));
        let read = ComponentSignatures::parse(&text).unwrap();
        let find = |key: &SecretKey| read.verify(COMPONENT, &[key.public()], wanted("guard"));
        assert_eq!(find(&ours).unwrap().key(), &ours.public());
        assert!(matches!(find(&theirs), Err(SignatureError::DoesNotHold(_))));
        let many = format!("{other}\n").repeat(17);
        assert_eq!(
            ComponentSignatures::parse(&many),
            Err(SignatureError::Malformed(17))
        );
    }

    #[test]
    fn what_is_no_signature_is_refused_and_an_earlier_one_by_name() {
        let malformed = ComponentSignatures::parse("\ned25519:AAAA BBBB a 1.0.0\n");
        assert_eq!(malformed, Err(SignatureError::Malformed(2)));
        let key = SecretKey::generate().unwrap();
        let line = signed(&key, "guard", "1.0.0").to_string();
        let earlier = line.strip_suffix(" guard 1.0.0").unwrap();
        assert_eq!(
            ComponentSignatures::parse(earlier),
            Err(SignatureError::EarlierForm(1))
        );
        let bad_name = line.replace("guard", "gu/ard");
        assert_eq!(
            ComponentSignatures::parse(&bad_name),
            Err(SignatureError::Malformed(1))
        );
        let long = "x".repeat(65);
        assert_eq!(SignedAs::new(&long, "1.0.0"), Err(SignatureError::BadName));
        assert_eq!(
            SignedAs::new("guard", "one"),
            Err(SignatureError::BadVersion)
        );
    }
}
