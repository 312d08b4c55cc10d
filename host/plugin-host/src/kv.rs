//! The small table behind the `kv` capability.
//!
//! It belongs to the engine, not to a set of plugins, so that counters of a rate limit survive a
//! change of generation. Each plugin has a namespace per tenant (and another one for calls in
//! shadow), each namespace a quota. Every entry dies at its time to live, which is counted from
//! the moment it was made.

mod memory;

#[cfg(test)]
mod tests;

pub use memory::{MemoryKv, MemoryKvSettings};

/// Longest key in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 256;
/// Longest value in bytes; together with the bound on a host call it keeps copies small.
pub(crate) const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Longest time to live in seconds: a week. What must live longer belongs into a database.
pub(crate) const TTL_SECONDS_MAX: u32 = 7 * 24 * 60 * 60;

/// Whose entries: a plugin's name, a tenant, and whether the calls are made in shadow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    /// The plugin's name in the configuration.
    pub plugin: std::sync::Arc<str>,
    /// The tenant, empty for the default one; `*` for the hook `mask`, which is about all.
    pub tenant: Box<str>,
    /// Calls whose answers do not count must not use up what real calls count.
    pub shadow: bool,
}

/// Why an operation was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The namespace or the whole table is full.
    #[error("the quota is used up")]
    NoQuota,
    /// Key or value is out of bounds.
    #[error("key over {KEY_BYTES_MAX} bytes or value over {VALUE_BYTES_MAX} bytes")]
    TooLarge,
    /// Time to live is out of bounds.
    #[error("time to live not within 1 to {TTL_SECONDS_MAX} seconds")]
    BadTtl,
    /// An increment of a value that was set.
    #[error("the value is not a counter")]
    NotACounter,
    /// The store cannot be asked now.
    #[error("the store cannot do this now")]
    Unavailable,
}

impl KvError {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NoQuota,
        Self::TooLarge,
        Self::BadTtl,
        Self::NotACounter,
        Self::Unavailable,
    ];

    /// What a plugin is told, as contract 0.2 has it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoQuota => "no_quota",
            Self::TooLarge => "too_large",
            Self::BadTtl => "bad_ttl",
            Self::NotACounter => "not_a_counter",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A store of the `kv` capability. Operations run inside a guest's call, so they are short and
/// never block on anything but a short lock.
pub trait KvStore: Send + Sync + 'static {
    /// The value, `None` where there is none or it has died.
    fn get(&self, namespace: &Namespace, key: &str) -> Result<Option<Vec<u8>>, KvError>;

    /// Sets a value that dies after `ttl_seconds`. `quota_bytes` bounds the namespace.
    fn set(
        &self,
        namespace: &Namespace,
        key: &str,
        value: &[u8],
        ttl_seconds: u32,
        quota_bytes: u64,
    ) -> Result<(), KvError>;

    /// Takes a value away; it is no error where there is none.
    fn delete(&self, namespace: &Namespace, key: &str) -> Result<(), KvError>;

    /// Adds to a counter and returns the sum, in one step; a new counter starts at 0 and dies
    /// `ttl_seconds` later, whatever is added meanwhile.
    fn increment(
        &self,
        namespace: &Namespace,
        key: &str,
        delta: i64,
        ttl_seconds: u32,
        quota_bytes: u64,
    ) -> Result<i64, KvError>;
}
