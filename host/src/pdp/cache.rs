//! Allows of a decision point, for a short time.
//!
//! An answer may overtake another to the same question. So that the older one is not kept when it
//! comes after a deny, the moment of each deny is remembered; where too many have come since, the
//! moment of the latest that was given up counts for all questions.

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

/// Denies whose moment is remembered by their question.
const DENIES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// When an allow was asked for, and how long it holds. With its key some 100 bytes.
#[derive(Clone, Copy)]
struct Allowed {
    asked: Instant,
    ttl: Duration,
}

pub(super) struct Cache {
    kept: Mutex<Kept>,
}

struct Kept {
    allows: LruCache<Key, Allowed>,
    denies: LruCache<Key, Instant>,
    /// The latest moment of a deny that is remembered no more.
    given_up: Option<Instant>,
}

impl Cache {
    pub(super) fn new(entries: u32) -> Self {
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        let entries = NonZeroUsize::new(entries).unwrap_or(NonZeroUsize::MIN);
        Self {
            kept: Mutex::new(Kept {
                allows: LruCache::new(entries),
                denies: LruCache::new(DENIES),
                given_up: None,
            }),
        }
    }

    /// Whether it was allowed so shortly ago that nobody need be asked.
    pub(super) fn is_fresh(&self, key: &Key, now: Instant) -> bool {
        let mut kept = self.kept.lock();
        kept.allows
            .get(key)
            .is_some_and(|allowed| now.saturating_duration_since(allowed.asked) < allowed.ttl)
    }

    /// Whether it was allowed within this time.
    pub(super) fn is_within(&self, key: &Key, now: Instant, age: Duration) -> bool {
        let kept = self.kept.lock();
        kept.allows
            .peek(key)
            .is_some_and(|allowed| now.saturating_duration_since(allowed.asked) < age)
    }

    /// Keeps an allow, unless it was asked for before a deny that is known.
    pub(super) fn put(&self, key: Key, asked: Instant, ttl: Duration) {
        let mut kept = self.kept.lock();
        let denied = kept.denies.peek(&key).copied().max(kept.given_up);
        if denied.is_none_or(|denied| denied < asked) {
            kept.allows.put(key, Allowed { asked, ttl });
        }
    }

    /// Takes a kept allow away, and keeps out any that was asked for until now.
    pub(super) fn forget(&self, key: &Key, now: Instant) {
        let mut kept = self.kept.lock();
        kept.allows.pop(key);
        let before = kept.denies.push(*key, now);
        if let Some((other, denied)) = before
            && other != *key
        {
            kept.given_up = kept.given_up.max(Some(denied));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cache, DENIES, Key};
    use std::time::{Duration, Instant};

    const LONG: Duration = Duration::from_secs(60);

    fn key(number: usize) -> Key {
        let mut key = Key::default();
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn an_allow_that_was_asked_for_before_a_deny_is_not_kept() {
        let cache = Cache::new(8);
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        cache.put(key(1), at(0), LONG);
        cache.forget(&key(1), at(2));
        cache.put(key(1), at(1), LONG);
        assert!(!cache.is_fresh(&key(1), at(3)), "it came late");
        assert!(!cache.is_within(&key(1), at(3), LONG));
        cache.put(key(2), at(1), LONG);
        assert!(cache.is_fresh(&key(2), at(3)), "another question");
        cache.put(key(1), at(3), LONG);
        assert!(cache.is_fresh(&key(1), at(4)), "asked for since");
    }

    #[test]
    fn more_denies_than_are_remembered_keep_out_what_was_asked_for_before_them() {
        let cache = Cache::new(8);
        let start = Instant::now();
        let at = |ms: usize| start + Duration::from_millis(u64::try_from(ms).unwrap_or_default());
        let denies = DENIES.get() + 2;
        for number in 0..denies {
            cache.forget(&key(number), at(10 + number));
        }
        cache.put(key(0), at(9), LONG);
        assert!(!cache.is_fresh(&key(0), at(9)));
        cache.put(key(0), at(10 + denies), LONG);
        assert!(cache.is_fresh(&key(0), at(10 + denies)));
    }
}
