//! The keys that sign our tokens.
//!
//! A key signs for a time and proves for longer, so that a token outlives the change of keys:
//!
//! ```text
//!  key 1  ├── signs ──────────┤── proves ──┤
//!  key 2                ├── known ┤── signs ──────────┤── proves ──┤
//! ```
//! The next key is made, and shown in the key set, some time before it signs: whoever caches the
//! set has it when the first token comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{DecodingKey, EncodingKey, Header};
use nowconnect_store::{SigningKey, Store, StoreError};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;

use crate::id;

/// Random bytes of a shared secret: as many as the digest has (RFC 7518 §3.2).
const SECRET_BYTES: usize = 32;

/// How long a key stays in the file after it proves nothing any more, in milliseconds: ten years.
/// A clock that is wrong by less takes nobody's key away for good.
const KEPT_AFTER_MS: u64 = 10 * 365 * 86_400_000;

/// Keys in the file, whatever their time; beyond it those go that proved nothing for longest.
const KEPT_MAX: usize = 1024;

/// How far ahead of the clock a key may have been made, in milliseconds: an hour. One that was made
/// while the clock was wrong waits for its time.
const AHEAD_MS: u64 = 3_600_000;

/// Characters of a key's id.
const ID_CHARACTERS: usize = 16;

/// With which algorithm tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// RSA PKCS#1 v1.5 with SHA-256, 2048 bits.
    Rs256,
    /// HMAC with SHA-256. Nobody but this hub can check such a token: its key is in no key set.
    Hs256,
}

impl Algorithm {
    /// As `alg` names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }

    /// The algorithm that `alg` names; `None` for every other one.
    #[must_use]
    pub fn from_header(text: &str) -> Option<Self> {
        [Self::EdDsa, Self::Rs256, Self::Hs256]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
    }

    pub(crate) fn of_jwt(algorithm: jsonwebtoken::Algorithm) -> Option<Self> {
        [Self::EdDsa, Self::Rs256, Self::Hs256]
            .into_iter()
            .find(|known| known.for_jwt() == algorithm)
    }

    /// The algorithm as the JWT library names it.
    #[must_use]
    pub const fn for_jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
        }
    }
}

/// How long keys live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySettings {
    /// What new keys are.
    pub algorithm: Algorithm,
    /// How long a key signs.
    pub signs: Duration,
    /// How long before it signs a key is shown.
    pub shown_before: Duration,
    /// How long a key proves after it has signed: no token lives longer.
    pub proves_after: Duration,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no randomness, or the library refused.
    #[error("no signing key can be made")]
    NotMade,
    /// Signing failed.
    #[error("a token could not be signed")]
    NotSigned,
}

/// The keys of the moment. Readers never wait for a change.
#[derive(Debug)]
pub struct KeyRing {
    store: Arc<Store>,
    settings: RwLock<KeySettings>,
    keys: ArcSwap<BTreeMap<String, Ready>>,
    unreadable: Vec<String>,
    /// Held while keys are made: two at a time would make two.
    turn: Mutex<()>,
}

/// A key, ready to use.
#[derive(Clone)]
struct Ready {
    kept: SigningKey,
    algorithm: Algorithm,
    encoding: EncodingKey,
    decoding: DecodingKey,
    /// What the key set shows; nothing for a shared secret.
    public: Option<Jwk>,
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kept.fmt(f)
    }
}

impl KeyRing {
    /// Reads the kept keys, and makes the first where there is none.
    ///
    /// # Errors
    /// The store failed, or no key can be made.
    pub fn open(store: Arc<Store>, settings: KeySettings, now_ms: u64) -> Result<Self, KeyError> {
        let (keys, unreadable) = read(&store)?;
        let ring = Self {
            store,
            settings: RwLock::new(settings),
            keys: ArcSwap::from_pointee(keys),
            unreadable,
            turn: Mutex::new(()),
        };
        ring.tidy(now_ms)?;
        Ok(ring)
    }

    /// Ids of kept keys that cannot be read: what they signed counts no longer.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Goes by other settings from the next [`tidy`](Self::tidy) on.
    pub fn set(&self, settings: KeySettings) {
        *self.settings.write() = settings;
    }

    fn settings(&self) -> KeySettings {
        *self.settings.read()
    }

    /// Makes the next key when it is due, and lets those that sign prove as long as tokens live by
    /// the settings. Call it now and then.
    ///
    /// # Errors
    /// As [`open`](Self::open); then the keys at hand stay.
    pub fn tidy(&self, now_ms: u64) -> Result<(), KeyError> {
        let _turn = self.turn.lock();
        let due = now_ms.saturating_add(ms(self.settings().shown_before));
        let keys = self.keys.load_full();
        let ours = || {
            keys.values().filter(|key| {
                key.algorithm == self.settings().algorithm
                    && key.kept.made_ms <= now_ms.saturating_add(AHEAD_MS)
            })
        };
        let mut changed: Vec<SigningKey> = ours()
            .filter(|key| key.kept.signs_until_ms > now_ms)
            .filter_map(|key| {
                let proves_until_ms = self.proves_until(key.kept.signs_until_ms);
                (key.kept.proves_until_ms < proves_until_ms).then(|| SigningKey {
                    proves_until_ms,
                    ..key.kept.clone()
                })
            })
            .collect();
        match ours().map(|key| key.kept.signs_until_ms).max() {
            Some(last) if last > due => {}
            // It signs when the one before it no longer does.
            Some(last) => changed.push(self.make(now_ms, last.max(now_ms))?),
            None => changed.push(self.make(now_ms, now_ms)?),
        }
        let over = over(&keys, now_ms);
        if !changed.is_empty() || !over.is_empty() {
            self.store.put_signing_keys(&changed, &over)?;
            self.keys.store(Arc::new(read(&self.store)?.0));
        }
        Ok(())
    }

    /// Makes a key that signs at once, for an operator who no longer trusts those at hand. With
    /// `distrust` these prove nothing from now on; without it what they signed stays good.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn rotate(&self, now_ms: u64, distrust: bool) -> Result<String, KeyError> {
        let _turn = self.turn.lock();
        let mut changed: Vec<SigningKey> = self
            .keys
            .load()
            .values()
            .map(|key| {
                let mut kept = key.kept.clone();
                kept.signs_until_ms = kept.signs_until_ms.min(now_ms);
                if distrust {
                    kept.proves_until_ms = now_ms;
                }
                kept
            })
            .collect();
        let new = self.make(now_ms, now_ms)?;
        let id = new.id.clone();
        changed.push(new);
        // A distrusted key goes for good, and not only until the clock is set back.
        let mut without = Vec::new();
        if distrust {
            let ids = changed.iter().map(|key| key.id.clone());
            without = ids.filter(|old| *old != id).collect();
        }
        self.store.put_signing_keys(&changed, &without)?;
        self.keys.store(Arc::new(read(&self.store)?.0));
        Ok(id)
    }

    fn make(&self, now_ms: u64, from_ms: u64) -> Result<SigningKey, KeyError> {
        let signs_until_ms = from_ms.saturating_add(ms(self.settings().signs));
        Ok(SigningKey {
            id: id::random(ID_CHARACTERS).ok_or(KeyError::NotMade)?,
            algorithm: self.settings().algorithm.as_str().to_owned(),
            private: private_half(self.settings().algorithm).ok_or(KeyError::NotMade)?,
            made_ms: now_ms,
            signs_until_ms,
            proves_until_ms: self.proves_until(signs_until_ms),
        })
    }

    fn proves_until(&self, signs_until_ms: u64) -> u64 {
        signs_until_ms.saturating_add(ms(self.settings().proves_after))
    }

    /// Signs claims that end at `exp`, in seconds since 1970, with the key whose turn it is: of the
    /// algorithm in force, and one that proves for as long before others. `kind` becomes `typ`.
    ///
    /// # Errors
    /// There is no key, or the library refused.
    pub fn sign(
        &self,
        kind: &'static str,
        claims: &impl Serialize,
        exp: u64,
        now_ms: u64,
    ) -> Result<String, KeyError> {
        let keys = self.keys.load();
        let algorithm = self.settings().algorithm;
        let signs = || {
            keys.values()
                .filter(|key| key.kept.made_ms <= now_ms.saturating_add(AHEAD_MS))
                .filter(|key| key.kept.signs_until_ms > now_ms)
        };
        let key = signs()
            .filter(|key| key.algorithm == algorithm)
            .min_by_key(|key| {
                let ends_early = key.kept.proves_until_ms < exp.saturating_mul(1000);
                (ends_early, key.kept.signs_until_ms)
            })
            // Between a change of the algorithm and the next look after the keys.
            .or_else(|| signs().min_by_key(|key| key.kept.signs_until_ms))
            .ok_or(KeyError::NotMade)?;
        let mut header = Header::new(key.algorithm.for_jwt());
        header.kid = Some(key.kept.id.clone());
        header.typ = Some(kind.to_owned());
        jsonwebtoken::encode(&header, claims, &key.encoding).map_err(|_| KeyError::NotSigned)
    }

    /// Whether what a key has signed counts now.
    #[must_use]
    pub fn counts(&self, id: &str, now_ms: u64) -> bool {
        let keys = self.keys.load();
        keys.get(id)
            .is_some_and(|key| key.kept.proves_until_ms > now_ms)
    }

    /// The public half of a key, if `algorithm` is the one it was made for: a public key must
    /// never be taken for a shared secret.
    #[must_use]
    pub fn proof(&self, id: &str, algorithm: Algorithm, now_ms: u64) -> Option<DecodingKey> {
        self.keys
            .load()
            .get(id)
            .filter(|key| key.algorithm == algorithm && key.kept.proves_until_ms > now_ms)
            .map(|key| key.decoding.clone())
    }

    /// The key set (RFC 7517 §5) of all keys that prove, also of the one that signs next.
    #[must_use]
    pub fn jwks(&self, now_ms: u64) -> serde_json::Value {
        let keys: Vec<Jwk> = self
            .keys
            .load()
            .values()
            .filter(|key| key.kept.proves_until_ms > now_ms)
            .filter_map(|key| key.public.clone())
            .collect();
        serde_json::json!({ "keys": keys })
    }
}

/// The kept keys, and the ids of those that cannot be read: the others are good without them.
fn read(store: &Store) -> Result<(BTreeMap<String, Ready>, Vec<String>), KeyError> {
    let mut unreadable = Vec::new();
    let mut keys = BTreeMap::new();
    for kept in store.signing_keys()? {
        let id = kept.id.clone();
        match Ready::new(kept) {
            Some(ready) => {
                keys.insert(id, ready);
            }
            None => unreadable.push(id),
        }
    }
    Ok((keys, unreadable))
}

/// Which keys leave the file.
fn over(keys: &BTreeMap<String, Ready>, now_ms: u64) -> Vec<String> {
    let mut ended: Vec<&SigningKey> = keys
        .values()
        .map(|key| &key.kept)
        .filter(|kept| kept.proves_until_ms <= now_ms)
        .collect();
    ended.sort_unstable_by_key(|kept| kept.proves_until_ms);
    let too_many = keys.len().saturating_sub(KEPT_MAX);
    ended
        .iter()
        .enumerate()
        .filter(|(at, kept)| {
            *at < too_many || kept.proves_until_ms.saturating_add(KEPT_AFTER_MS) <= now_ms
        })
        .map(|(_, kept)| kept.id.clone())
        .collect()
}

impl Ready {
    fn new(kept: SigningKey) -> Option<Self> {
        let algorithm = Algorithm::from_header(&kept.algorithm)?;
        let encoding = match algorithm {
            Algorithm::EdDsa => EncodingKey::from_ed_pem(kept.private.as_bytes()).ok()?,
            Algorithm::Rs256 => EncodingKey::from_rsa_pem(kept.private.as_bytes()).ok()?,
            Algorithm::Hs256 => EncodingKey::from_secret(&STANDARD.decode(&kept.private).ok()?),
        };
        let (decoding, public) = if algorithm == Algorithm::Hs256 {
            let secret = STANDARD.decode(&kept.private).ok()?;
            (DecodingKey::from_secret(&secret), None)
        } else {
            let mut jwk = Jwk::from_encoding_key(&encoding, algorithm.for_jwt()).ok()?;
            jwk.common.key_id = Some(kept.id.clone());
            jwk.common.public_key_use = Some(PublicKeyUse::Signature);
            jwk.common.key_algorithm = Some(KeyAlgorithm::from(algorithm.for_jwt()));
            (DecodingKey::from_jwk(&jwk).ok()?, Some(jwk))
        };
        Some(Self {
            kept,
            algorithm,
            encoding,
            decoding,
            public,
        })
    }
}

fn private_half(algorithm: Algorithm) -> Option<String> {
    match algorithm {
        Algorithm::EdDsa => {
            let pair = Ed25519KeyPair::generate().ok()?;
            let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
            Some(pem(der.as_ref()))
        }
        Algorithm::Rs256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
            let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
            Some(pem(der.as_ref()))
        }
        Algorithm::Hs256 => {
            let mut secret = [0u8; SECRET_BYTES];
            getrandom::fill(&mut secret).ok()?;
            Some(STANDARD.encode(secret))
        }
    }
}

/// RFC 7468 §10.
fn pem(der: &[u8]) -> String {
    const COLUMNS: usize = 64;
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(COLUMNS));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
