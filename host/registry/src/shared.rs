//! Small state that has to hold at every hub.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::error::RegistryError;
use crate::limits::{MAX_NAME_BYTES, MAX_VALUE_BYTES};

type Answer<'a, T> = BoxFuture<'a, Result<T, RegistryError>>;

/// Small state that has to hold at every hub: what counts once, values that change by comparison
/// (published names among them), counters, revocations.
///
/// Bounded in time like [`Registry`](crate::Registry). Where the store is away nothing can be
/// said: a caller that guards something denies then.
pub trait SharedState: fmt::Debug + Send + Sync {
    /// Uses `id` up for `ttl`, after which it must count no longer by its own time.
    ///
    /// # Errors
    /// The store is away: then nothing may be taken for used for the first time.
    fn use_once<'a>(&'a self, kind: OnceKind, id: &'a str, ttl: Duration) -> Answer<'a, Used>;

    /// A value.
    ///
    /// # Errors
    /// The store is away.
    fn read<'a>(&'a self, bucket: Bucket, name: &'a str) -> Answer<'a, Option<Vec<u8>>>;

    /// Sets, creates (`expected: None`) or removes (`new: None`) a value, if it is as `expected`.
    /// It goes by itself after `ttl`, if one is given.
    ///
    /// # Errors
    /// The store is away; the name or the value is too long.
    fn change<'a>(
        &'a self,
        bucket: Bucket,
        name: &'a str,
        expected: Option<&'a [u8]>,
        new: Option<&'a [u8]>,
        ttl: Option<Duration>,
    ) -> Answer<'a, Changed>;

    /// Adds to a counter that begins at 0 and ends `window` after its first addition; the sum.
    /// A limit over all hubs is a sum that is compared.
    ///
    /// # Errors
    /// The store is away.
    fn count<'a>(&'a self, name: &'a str, add: u32, window: Duration) -> Answer<'a, u64>;

    /// Makes `revocation` known to every hub until its time has passed. Once more is harmless,
    /// and prolongs it if the time is later.
    ///
    /// # Errors
    /// The store is away; too many are in force; the text is too long.
    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> Answer<'a, ()>;

    /// What was revoked since `cursor`, oldest first. Asked twice a second, a revocation holds at
    /// every hub within one.
    ///
    /// # Errors
    /// The store is away.
    fn revocations<'a>(&'a self, cursor: &'a RevocationCursor) -> Answer<'a, RevocationPage>;
}

/// What counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OnceKind {
    /// A single-use token, by its id.
    Token,
    /// A nonce of a signed request, together with who signed.
    Nonce,
    /// An answer given under an idempotency key.
    Request,
}

impl OnceKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Nonce => "nonce",
            Self::Request => "request",
        }
    }
}

/// What came of using something up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// This was the first time.
    First,
    /// It had been used before, at this hub or another.
    Again,
}

/// Keeps names of different subjects apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// Published names and who has them.
    Names,
    /// Values of plugins; the name begins with the plugin's.
    Plugins,
    /// Certificates and what their issue needs at other hubs.
    Certificates,
}

impl Bucket {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Plugins => "plugins",
            Self::Certificates => "certificates",
        }
    }
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It was made.
    Done,
    /// The value is another than expected.
    Differs {
        /// As it is.
        present: Option<Vec<u8>>,
    },
}

/// Something that counts no more, before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What, in the hub's own words; two with the same text are one.
    pub entry: Arc<str>,
    /// How long it has to be remembered: until what it revokes has expired by itself.
    pub ttl: Duration,
}

/// How far a hub has read. The default reads all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationCursor {
    /// Which store it was: another after the store lost everything.
    pub(crate) incarnation: String,
    pub(crate) version: u64,
    /// The entry of that version: a store that lost it may have given the version to another.
    pub(crate) last: Arc<str>,
}

/// What was revoked since a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationPage {
    /// Oldest first.
    pub entries: Vec<Arc<str>>,
    /// Where to go on.
    pub cursor: RevocationCursor,
    /// Whether more is there already.
    pub more: bool,
    /// The store has lost what it had, and was read from the beginning. A hub lets nobody back in
    /// for that: it keeps what it knows, and revokes it anew.
    pub reset: bool,
}

pub(crate) fn check_name(name: &str) -> Result<(), RegistryError> {
    RegistryError::bound("bytes of a shared name", name.len(), MAX_NAME_BYTES)
}

pub(crate) fn check_value(value: Option<&[u8]>) -> Result<(), RegistryError> {
    let bytes = value.map_or(0, <[u8]>::len);
    RegistryError::bound("bytes of a shared value", bytes, MAX_VALUE_BYTES)
}
