//! Telling origins who asks, in a token that they can check.
//!
//! A header field is as good as the network between the hub and whoever reads it. An assertion is a
//! JWT, signed by a [key](AssertionKeys) of the hub's own or by the [control API](RingKeys), for one
//! audience, one host and a short time. Origins fetch the public halves where the route itself is
//! published, at [`KEYS_PATH`].
//!
//! One is made for each viewer and host, and told again for half of its life: what it costs does not
//! grow with requests. It never outlives what proved the viewer by more than a second, and none is
//! told again whose key counts no longer.

mod keys;

use std::num::NonZeroUsize;
use std::time::SystemTime;

use http::{HeaderName, HeaderValue};
use lru::LruCache;
use nowconnect_policy::{Viewer, ViewerFacts};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::{SignedIn, ViewerAuthError, unix_ms};
use crate::config::{AssertedClaim, ViewerAssertion};
use keys::AssertionKeys;
pub(crate) use keys::RingKeys;

/// Below the path of a route, where its services find the keys that its assertions are signed with.
pub(crate) const KEYS_PATH: &str = "/.well-known/nowconnect/jwks.json";

/// `typ` of an assertion, so that it passes for no other token (RFC 8725, 3.11).
const KIND: &str = "nowconnect-viewer+jwt";

/// Assertions of one set that are told again, at some 2 KiB each.
const TOLD_AGAIN: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// See the module. Of one set.
#[derive(Debug)]
pub(crate) struct Assertions {
    config: ViewerAssertion,
    /// None where the control API signs.
    own: Option<AssertionKeys>,
    made: Mutex<LruCache<Said, Made>>,
}

/// What an assertion says, beside its times.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    claims: String,
    /// When what proved the viewer ends.
    until_s: Option<u64>,
}

#[derive(Clone, Debug)]
struct Made {
    value: HeaderValue,
    key: String,
    again_until_ms: u64,
}

/// An assertion cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAssertion {
    /// There is no key.
    #[error("there is no key that could sign an assertion")]
    NoKey,
    /// The library refused.
    #[error("an assertion could not be signed")]
    NotSigned,
}

/// Who signs, and in whose name.
#[derive(Clone, Copy, Debug)]
enum Signer<'a> {
    Own(&'a AssertionKeys),
    Ring(RingKeys<'a>),
}

#[derive(Serialize)]
struct Timed<'a> {
    #[serde(flatten)]
    said: &'a Map<String, Json>,
    iat: u64,
    exp: u64,
    jti: String,
}

impl Assertions {
    /// Reads the keys. Nothing is made yet.
    ///
    /// # Errors
    /// A file cannot be read, or holds no such key.
    pub(super) fn build(config: &ViewerAssertion) -> Result<Self, ViewerAuthError> {
        let own = if config.key_files.is_empty() {
            None
        } else {
            Some(AssertionKeys::read(&config.key_files)?)
        };
        Ok(Self {
            config: config.clone(),
            own,
            made: Mutex::new(LruCache::new(TOLD_AGAIN)),
        })
    }

    /// The field that it stands in.
    pub(crate) fn header(&self) -> &HeaderName {
        &self.config.header
    }

    /// What services of `host` are told about a viewer; nothing about one who is nobody.
    ///
    /// # Errors
    /// None can be signed.
    pub(crate) fn tell(
        &self,
        signed_in: &SignedIn,
        host: &str,
        ring: Option<RingKeys<'_>>,
        now: SystemTime,
    ) -> Result<Option<HeaderValue>, NoAssertion> {
        let Viewer::Known(facts) = &signed_in.viewer else {
            return Ok(None);
        };
        let signer = self.signer(ring).ok_or(NoAssertion::NoKey)?;
        let now_ms = unix_ms(now);
        let claims = self.claims(signed_in, facts, host, signer);
        let said = Said {
            claims: Json::from(claims.clone()).to_string(),
            until_s: signed_in.until.map(|until| unix_ms(until).div_ceil(1000)),
        };
        if let Some(made) = self.made.lock().get(&said)
            && now_ms < made.again_until_ms
            && signer.counts(&made.key, now_ms)
        {
            return Ok(Some(made.value.clone()));
        }
        let made = self.make(&claims, said.until_s, signer, now_ms)?;
        let value = made.value.clone();
        self.made.lock().put(said, made);
        Ok(Some(value))
    }

    /// The public halves of all keys that count (RFC 7517, 5).
    pub(crate) fn jwks(&self, ring: Option<RingKeys<'_>>, now: SystemTime) -> Option<Json> {
        match self.signer(ring)? {
            Signer::Own(keys) => Some(keys.jwks()),
            Signer::Ring(ring) => Some(ring.keys.jwks(unix_ms(now))),
        }
    }

    fn signer<'a>(&'a self, ring: Option<RingKeys<'a>>) -> Option<Signer<'a>> {
        match &self.own {
            Some(own) => Some(Signer::Own(own)),
            None => ring.map(Signer::Ring),
        }
    }

    fn claims(
        &self,
        signed_in: &SignedIn,
        facts: &ViewerFacts,
        host: &str,
        signer: Signer<'_>,
    ) -> Map<String, Json> {
        let config = &self.config;
        let issuer = match (&config.issuer, signer) {
            (Some(issuer), _) => issuer,
            (None, Signer::Ring(ring)) => ring.issuer,
            // The configuration wants one where there are files.
            (None, Signer::Own(_)) => "",
        };
        let mut claims = Map::new();
        let mut say = |name: &str, value: Json| claims.insert(name.to_owned(), value);
        say("iss", issuer.into());
        say("sub", signed_in.plugin.subject.clone().into());
        say("tenant", facts.viewer.tenant().into());
        say("aud", config.audience.as_str().into());
        say("host", host.into());
        let mut tags = Map::new();
        for claim in &config.claims {
            match claim {
                AssertedClaim::Groups => {
                    let groups = facts.groups.iter().map(|group| Json::from(&**group));
                    say("groups", groups.collect());
                }
                AssertedClaim::Amr => drop(say("amr", facts.amr.clone().into())),
                AssertedClaim::Method => drop(say("method", signed_in.method.into())),
                AssertedClaim::Issuer => drop(say("viewer_iss", facts.issuer.clone().into())),
                AssertedClaim::Tag(wanted) => {
                    let mut known = facts.tags.iter();
                    if let Some((name, value)) = known.find(|(name, _)| name == wanted) {
                        tags.insert(name.clone(), value.as_str().into());
                    }
                }
            }
        }
        if !tags.is_empty() {
            claims.insert("tags".to_owned(), tags.into());
        }
        claims
    }

    fn make(
        &self,
        claims: &Map<String, Json>,
        until_s: Option<u64>,
        signer: Signer<'_>,
        now_ms: u64,
    ) -> Result<Made, NoAssertion> {
        let lifetime_ms = u64::try_from(self.config.lifetime.as_millis()).unwrap_or(u64::MAX);
        let whole = now_ms.saturating_add(lifetime_ms).div_ceil(1000);
        let exp = until_s.map_or(whole, |until| until.min(whole));
        let timed = Timed {
            said: claims,
            iat: now_ms / 1000,
            exp,
            jti: format!("{:032x}", rand::random::<u128>()),
        };
        let token = signer.sign(&timed, exp, now_ms)?;
        let key = jsonwebtoken::decode_header(&token)
            .ok()
            .and_then(|header| header.kid);
        let mut value = HeaderValue::try_from(token).map_err(|_| NoAssertion::NotSigned)?;
        // Whoever has it is the viewer, for its time.
        value.set_sensitive(true);
        let again_until_ms = exp.saturating_mul(1000).min(now_ms + lifetime_ms / 2);
        Ok(Made {
            value,
            key: key.unwrap_or_default(),
            again_until_ms,
        })
    }
}

impl Signer<'_> {
    fn sign(self, claims: &Timed<'_>, exp: u64, now_ms: u64) -> Result<String, NoAssertion> {
        match self {
            Self::Own(keys) => keys.sign(KIND, claims),
            Self::Ring(ring) => {
                let signed = ring.keys.sign(KIND, claims, exp, now_ms);
                signed.map_err(|_| NoAssertion::NotSigned)
            }
        }
    }

    /// Whether what a key has signed still counts.
    fn counts(self, key: &str, now_ms: u64) -> bool {
        match self {
            Self::Own(keys) => keys.has(key),
            Self::Ring(ring) => ring.keys.counts(key, now_ms),
        }
    }
}

#[cfg(test)]
mod tests;
