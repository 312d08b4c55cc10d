//! Allows of a decision point, for a short time.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::question::Evaluation;

/// SHA-256 over the generation and all that is sent about one question.
pub(super) type Key = [u8; 32];

pub(super) fn key(generation: u64, question: &Evaluation) -> Key {
    let mut hash = Sha256::new();
    hash.update(generation.to_le_bytes());
    hash.update(question.body());
    hash.finalize().into()
}

pub(super) fn key_of_all(keys: &[Key]) -> Key {
    let mut hash = Sha256::new();
    for key in keys {
        hash.update(key);
    }
    hash.finalize().into()
}

/// When an allow was given, and how long it holds. With its key some 100 bytes.
#[derive(Clone, Copy)]
struct Allowed {
    at: Instant,
    ttl: Duration,
}

pub(super) struct Cache {
    kept: Mutex<LruCache<Key, Allowed>>,
}

impl Cache {
    pub(super) fn new(entries: u32) -> Self {
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        let entries = NonZeroUsize::new(entries).unwrap_or(NonZeroUsize::MIN);
        Self {
            kept: Mutex::new(LruCache::new(entries)),
        }
    }

    /// Whether it was allowed so shortly ago that nobody need be asked.
    pub(super) fn is_fresh(&self, key: &Key, now: Instant) -> bool {
        let mut kept = self.kept.lock();
        kept.get(key)
            .is_some_and(|allowed| now.saturating_duration_since(allowed.at) < allowed.ttl)
    }

    /// Whether it was allowed within this time.
    pub(super) fn is_within(&self, key: &Key, now: Instant, age: Duration) -> bool {
        let kept = self.kept.lock();
        kept.peek(key)
            .is_some_and(|allowed| now.saturating_duration_since(allowed.at) < age)
    }

    pub(super) fn put(&self, key: Key, at: Instant, ttl: Duration) {
        self.kept.lock().put(key, Allowed { at, ttl });
    }

    pub(super) fn forget(&self, key: &Key) {
        self.kept.lock().pop(key);
    }
}
