//! Signatures of bundles, and the keys that they are taken from.
//!
//! A signature is over the exact bytes of the manifest, in a [`Domain`] of its own.

use std::collections::BTreeSet;

use nowconnect_signing::{Domain, KeyId, PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};

use super::contents;
use super::refusal::{Refusal, RefusalCode};

/// What a signature is about.
const DOMAIN: Domain = Domain::new("nowconnect policy bundle manifest v1");

/// Signatures of one bundle. Nobody needs more; each costs a verification.
const SIGNATURES: usize = 16;

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

    /// Whether enough of these signers are trusted, by their ids as [`KeyId`] writes them. It says
    /// something of signers alone that were verified before.
    #[must_use]
    pub fn vouch<'a>(&self, signers: impl IntoIterator<Item = &'a str>) -> bool {
        let trusted: BTreeSet<&str> = signers
            .into_iter()
            .filter(|id| self.keys.iter().any(|key| key.id().as_str() == *id))
            .collect();
        trusted.len() >= self.required.max(1)
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
        let signature = key.sign(DOMAIN, &[manifest]).to_string();
        self.signatures.push(Signed { key: id, signature });
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
        let mut signers = BTreeSet::new();
        for signed in &self.signatures {
            let Some(key) = trusted.find(&signed.key) else {
                continue;
            };
            let holds = Signature::parse(&signed.signature)
                .is_some_and(|signature| key.has_signed(DOMAIN, &[manifest], &signature));
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
                .map(|id| id.as_str().escape_debug().to_string())
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
