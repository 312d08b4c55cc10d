//! The public keys of one issuer.
//!
//! ```text
//!            first use, background, unknown kid
//!  Empty ────────────────────────────────────────► Fresh ◄─┐ fetched
//!    │ fetch failed                                  │     │
//!    └──► unavailable (503)       fetch fails        ▼     │
//!                                                  Aging ──┘
//!                                                    │ older than jwks_stale_ms
//!                                                    ▼
//!                                              unavailable (503)
//! ```
//!
//! A fetch replaces the whole set, so a withdrawn key is gone with the next one, and a new key
//! is there as soon as a token names it. However many agents bring an unknown `kid`, there is
//! one fetch at a time, and one in `jwks_refresh_min_ms`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use reqwest::Url;
use serde::Deserialize;

use super::fetch::{FetchError, Fetcher, NamedBy};
use crate::config::{IssuerConfig, JwksConfig, KeySource, TokenAlgorithm};

/// The most keys of one issuer; real ones have two to ten.
const MAX_KEYS: usize = 128;

/// RSA keys outside these sizes are passed over, in bits of the modulus: smaller ones are
/// broken, larger ones make verifying a denial of service.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why keys could not be had. The text is for logs, not for agents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeysError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    Document(String),
}

/// A set of keys as it was fetched.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    by_id: BTreeMap<String, Vec<Key>>,
    unnamed: Vec<Key>,
}

/// One key and the algorithms that it may verify.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    algorithms: Vec<TokenAlgorithm>,
    pub(crate) decoding: DecodingKey,
}

impl KeySet {
    /// Reads a JWKS. Keys that cannot verify (encryption, other curves, weak) are passed over;
    /// what is no JWKS at all is an error.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let document: Document =
            serde_json::from_slice(bytes).map_err(|_| "it is no JSON Web Key Set".to_owned())?;
        if document.keys.len() > MAX_KEYS {
            return Err(format!("it has more than {MAX_KEYS} keys"));
        }
        let mut set = Self::default();
        for value in document.keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
                continue;
            };
            let Some(key) = Key::from_jwk(&jwk) else {
                continue;
            };
            match jwk.common.key_id {
                Some(id) => set.by_id.entry(id).or_default().push(key),
                None => set.unnamed.push(key),
            }
        }
        if set.by_id.is_empty() && set.unnamed.is_empty() {
            return Err("it has no key that can verify a token".to_owned());
        }
        Ok(set)
    }

    /// The key that a token names. Without `kid` only if there is exactly one that fits: trying
    /// several would let whoever sends tokens choose how much work that is.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: TokenAlgorithm) -> Option<&Key> {
        let fits = |key: &&Key| key.algorithms.contains(&algorithm);
        match kid {
            Some(kid) => self.by_id.get(kid)?.iter().find(fits),
            None => {
                let mut fitting = self
                    .by_id
                    .values()
                    .flatten()
                    .chain(&self.unnamed)
                    .filter(fits);
                fitting.next().filter(|_| fitting.next().is_none())
            }
        }
    }

    /// Whether a key of this name is there, whatever it is good for.
    pub(crate) fn knows(&self, kid: &str) -> bool {
        self.by_id.contains_key(kid)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.values().map(Vec::len).sum::<usize>() + self.unnamed.len()
    }
}

impl Key {
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let for_signatures = jwk
            .common
            .public_key_use
            .as_ref()
            .is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let may_verify = jwk
            .common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !for_signatures || !may_verify {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => {
                // Six bits in a character of base64url.
                let bits = rsa.n.len() * 6 / 8 * 8;
                if !RSA_BITS.contains(&bits) {
                    return None;
                }
                vec![TokenAlgorithm::Rs256, TokenAlgorithm::Ps256]
            }
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
                vec![TokenAlgorithm::Es256]
            }
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                vec![TokenAlgorithm::EdDsa]
            }
            AlgorithmParameters::EllipticCurve(_)
            | AlgorithmParameters::OctetKeyPair(_)
            | AlgorithmParameters::OctetKey(_)
            | AlgorithmParameters::Other(_) => return None,
            // The library's list is open; what it learns later is not accepted unseen.
            _ => return None,
        };
        if let Some(only) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| KeyAlgorithm::from(algorithm.for_jwt()) == only);
        }
        if algorithms.is_empty() {
            return None;
        }
        Some(Self {
            algorithms,
            decoding: DecodingKey::from_jwk(jwk).ok()?,
        })
    }
}

impl TokenAlgorithm {
    /// The algorithm as the JWT library names it.
    pub(crate) fn for_jwt(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Ps256 => Algorithm::PS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }

    /// The algorithm of a token's header; `None` for `none`, shared secrets and the unknown.
    pub(crate) fn from_header(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "PS256" => Some(Self::Ps256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A fetched set and its age.
#[derive(Debug)]
struct Fetched {
    set: KeySet,
    at: Instant,
}

type Flight = Shared<BoxFuture<'static, Result<(), KeysError>>>;

/// The keys of one issuer, kept and renewed.
#[derive(Debug)]
pub(crate) struct IssuerKeys {
    source: KeySource,
    issuer: String,
    fetcher: Fetcher,
    refresh_min: Duration,
    stale: Duration,
    current: ArcSwapOption<Fetched>,
    refresh: Mutex<Refresh>,
}

#[derive(Debug, Default)]
struct Refresh {
    running: Option<Flight>,
    last_start: Option<Instant>,
    last_error: Option<KeysError>,
}

/// Keys that may be used, kept alive while they are.
pub(crate) struct Usable(Arc<Fetched>);

impl std::ops::Deref for Usable {
    type Target = KeySet;

    fn deref(&self) -> &KeySet {
        &self.0.set
    }
}

impl IssuerKeys {
    pub(crate) fn new(issuer: &IssuerConfig, config: &JwksConfig, fetcher: Fetcher) -> Self {
        Self {
            source: issuer.keys.clone(),
            issuer: issuer.issuer.clone(),
            fetcher,
            refresh_min: config.refresh_min,
            stale: config.stale,
            current: ArcSwapOption::empty(),
            refresh: Mutex::default(),
        }
    }

    /// Takes over the keys that another had at hand, with their age.
    pub(crate) fn adopt(&self, other: &Self) {
        self.current.store(other.current.load_full());
    }

    /// Reads a key file now, so that a wrong one is found at start.
    pub(crate) fn prime_from_file(&self) -> Result<(), KeysError> {
        match &self.source {
            KeySource::File(path) => {
                self.publish(read_key_file(path)?);
                Ok(())
            }
            KeySource::Discovery(_) | KeySource::Url(_) => Ok(()),
        }
    }

    /// The keys at hand, unless they are too old. Those of a file do not age: the file is there.
    pub(crate) fn usable(&self) -> Option<Usable> {
        let fetched = self.current.load_full()?;
        let ages = !matches!(self.source, KeySource::File(_));
        (!ages || fetched.at.elapsed() <= self.stale).then_some(Usable(fetched))
    }

    /// Since when the keys at hand are there.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.current
            .load()
            .as_ref()
            .map(|fetched| fetched.at.elapsed())
    }

    pub(crate) fn last_error(&self) -> Option<KeysError> {
        self.refresh.lock().last_error.clone()
    }

    /// Fetches anew, together with whoever else wants to. `Ok(false)` if it is too soon after the
    /// last time.
    pub(crate) async fn renew(self: &Arc<Self>, pace: Pace) -> Result<bool, KeysError> {
        match self.flight(pace) {
            Some(flight) => flight.await.map(|()| true),
            None => Ok(false),
        }
    }

    fn flight(self: &Arc<Self>, pace: Pace) -> Option<Flight> {
        let mut refresh = self.refresh.lock();
        if let Some(running) = &refresh.running
            && running.peek().is_none()
        {
            return Some(running.clone());
        }
        let too_soon = refresh
            .last_start
            .is_some_and(|start| start.elapsed() < self.refresh_min);
        if pace == Pace::Bounded && too_soon {
            return None;
        }
        refresh.last_start = Some(Instant::now());
        let this = Arc::clone(self);
        // A task of its own: an agent that gives up waiting must not end the fetch that others
        // wait for.
        let task = tokio::spawn(async move { this.fetch().await });
        let flight = async move {
            task.await.unwrap_or_else(|_| {
                Err(KeysError::Document(
                    "the fetch was ended with the runtime".to_owned(),
                ))
            })
        }
        .boxed()
        .shared();
        refresh.running = Some(flight.clone());
        Some(flight)
    }

    async fn fetch(&self) -> Result<(), KeysError> {
        let done = match &self.source {
            KeySource::File(path) => read_key_file(path),
            KeySource::Url(url) => {
                let url = parse_url(url)?;
                self.fetch_keys(&url, NamedBy::Operator).await
            }
            KeySource::Discovery(url) => self.discover(url).await,
        };
        match done {
            Ok(set) => {
                self.refresh.lock().last_error = None;
                self.publish(set);
                Ok(())
            }
            Err(error) => {
                self.refresh.lock().last_error = Some(error.clone());
                Err(error)
            }
        }
    }

    fn publish(&self, set: KeySet) {
        self.current.store(Some(Arc::new(Fetched {
            set,
            at: Instant::now(),
        })));
    }

    async fn discover(&self, url: &str) -> Result<KeySet, KeysError> {
        let url = parse_url(url)?;
        let document = self.fetcher.fetch(&url, NamedBy::Operator).await?;
        let provider = Provider::parse(&document)
            .ok_or_else(|| KeysError::Document(format!("`{url}` is no OpenID configuration")))?;
        // Else a provider that hosts several issuers could answer with the keys of another.
        if provider.issuer != self.issuer {
            return Err(KeysError::Document(format!(
                "`{url}` is the configuration of `{}`, not of `{}`",
                provider.issuer, self.issuer
            )));
        }
        let keys = parse_url(&provider.jwks_uri)?;
        let by = if keys.origin() == url.origin() {
            NamedBy::Operator
        } else {
            NamedBy::Document
        };
        self.fetch_keys(&keys, by).await
    }

    async fn fetch_keys(&self, url: &Url, by: NamedBy) -> Result<KeySet, KeysError> {
        let document = self.fetcher.fetch(url, by).await?;
        KeySet::parse(&document)
            .map_err(|reason| KeysError::Document(format!("the keys at `{url}`: {reason}")))
    }
}

/// Whether a fetch has to keep the least distance from the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It was caused by a token: anyone can send those.
    Bounded,
    /// It was caused by the hub itself: the background, or a changed file.
    Free,
}

/// What is needed of an OpenID configuration.
#[derive(Debug, Deserialize)]
struct Provider {
    issuer: String,
    jwks_uri: String,
}

impl Provider {
    /// Reads it as what it should be; a provider that leaves out what is required elsewhere (an
    /// authorization endpoint, for one that only serves machines) still names its keys.
    fn parse(document: &[u8]) -> Option<Self> {
        match serde_json::from_slice::<openidconnect::core::CoreProviderMetadata>(document) {
            Ok(metadata) => Some(Self {
                issuer: metadata.issuer().as_str().to_owned(),
                jwks_uri: metadata.jwks_uri().as_str().to_owned(),
            }),
            Err(_) => serde_json::from_slice(document).ok(),
        }
    }
}

fn parse_url(text: &str) -> Result<Url, KeysError> {
    Url::parse(text).map_err(|error| KeysError::Document(format!("`{text}` is no URL: {error}")))
}

fn read_key_file(path: &Path) -> Result<KeySet, KeysError> {
    /// As many bytes as [`MAX_KEYS`] of the largest kind need, twice.
    const MAX_KEY_FILE_BYTES: u64 = 1 << 20;
    let shown = path.display();
    let unreadable =
        |error: std::io::Error| KeysError::Document(format!("cannot read keys `{shown}`: {error}"));
    let mut bytes = Vec::new();
    fs::File::open(path)
        .map_err(unreadable)?
        .take(MAX_KEY_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    KeySet::parse(&bytes)
        .map_err(|reason| KeysError::Document(format!("the key file `{shown}`: {reason}")))
}
