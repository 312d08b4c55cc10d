//! Hashing passwords, which costs what an attacker would like to make us spend.
//!
//! A hash takes a tenth of a second and up to [`MAX_MEMORY_KIB`]. So few are under way at once,
//! few wait for them, fewer of one source, and nobody waits for long. Work runs on threads that may
//! block, and keeps its place until it is done, whether or not the viewer still waits.
//!
//! Whoever guesses wants all places. Against that, of those who wait each source gets its turn
//! before another gets its second; where all places are taken, a newcomer pushes out the latest one
//! of the source with the most; and those who have shown a right password lately, from the address
//! from which they ask now, get every second turn and have places that nobody else gets.

mod places;

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::limit::source_of;
use places::Places;

/// The most memory of one Argon2 hash, in KiB: 64 MiB.
pub(super) const MAX_MEMORY_KIB: u32 = 64 << 10;

/// How long one may wait for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long somebody counts as known from an address where he has shown a right password.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);

/// Those who are known at a time, at some 60 bytes each.
const KNOWN: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// See the module. One for each hub; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Hashing {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    places: Mutex<Places>,
    known: Mutex<LruCache<u64, Instant>>,
    /// Makes of a name and a source what stands in `known`.
    marks: RandomState,
}

/// Who wants a password to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    source: IpAddr,
    mark: u64,
}

/// Too many hashes are waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being looked at")]
pub(super) struct TooBusy;

/// A place among those who wait or are under way; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    number: u64,
    /// Told when it is its turn; dropped where it was pushed out.
    turn: Option<oneshot::Receiver<()>>,
}

impl Default for Hashing {
    /// Half of the processors at once, so that traffic keeps the others.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            shared: Arc::new(Shared {
                places: Mutex::new(Places::new((processors / 2).max(1))),
                known: Mutex::new(LruCache::new(KNOWN)),
                marks: RandomState::new(),
            }),
        }
    }
}

impl Hashing {
    pub(super) fn asker(&self, name: &str, address: IpAddr) -> Asker {
        let source = source_of(address);
        Asker {
            source,
            mark: self.shared.marks.hash_one((name, source)),
        }
    }

    /// A place for one password.
    ///
    /// # Errors
    /// There is none for this source, or for anybody.
    pub(super) fn place(&self, asker: Asker) -> Result<Place, TooBusy> {
        let is_known = self.is_known(asker, Instant::now());
        let mut places = self.shared.places.lock();
        let (number, turn) = places.enter(asker.source, is_known).ok_or(TooBusy)?;
        Ok(Place {
            shared: Arc::clone(&self.shared),
            number,
            turn: Some(turn),
        })
    }

    /// It has shown a right password.
    pub(super) fn know(&self, asker: Asker) {
        self.shared.known.lock().put(asker.mark, Instant::now());
    }

    fn is_known(&self, asker: Asker, now: Instant) -> bool {
        let mut known = self.shared.known.lock();
        let since = known.get(&asker.mark);
        since.is_some_and(|since| now.saturating_duration_since(*since) < KNOWN_FOR)
    }
}

impl Place {
    /// Runs `work`, which blocks, when it is its turn.
    ///
    /// # Errors
    /// Its turn did not come in time, or somebody else got the place.
    pub(super) async fn run<T: Send + 'static>(
        mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TooBusy> {
        let turn = self.turn.take().ok_or(TooBusy)?;
        let turn = tokio::time::timeout(LONGEST_WAIT, turn).await;
        turn.map_err(|_| TooBusy)?.map_err(|_| TooBusy)?;
        let done = tokio::task::spawn_blocking(move || {
            let _place = self;
            work()
        });
        done.await.map_err(|_| TooBusy)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.places.lock().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_keeps_its_place_until_it_is_done() {
        let hashing = Hashing::default();
        let asker = hashing.asker("ann", [192, 0, 2, 1].into());
        let (release, held) = mpsc::channel::<()>();
        let (begins, mut begun) = oneshot::channel();
        let place = hashing.place(asker).unwrap();
        let asked = tokio::spawn(place.run(move || {
            begins.send(()).unwrap();
            held.recv().is_ok()
        }));
        (&mut begun).await.unwrap();
        // Nobody waits for it any more.
        asked.abort();
        assert!(asked.await.is_err());
        assert_eq!(hashing.shared.places.lock().under_way(), 1);
        release.send(()).unwrap();
        while hashing.shared.places.lock().under_way() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(hashing.place(asker).unwrap().run(|| 7).await, Ok(7));
    }

    #[test]
    fn somebody_is_known_where_he_was_proven_for_a_time() {
        let hashing = Hashing::default();
        let here = hashing.asker("ann", [192, 0, 2, 1].into());
        let now = Instant::now();
        assert!(!hashing.is_known(here, now));
        hashing.know(here);
        assert!(hashing.is_known(here, now));
        assert!(!hashing.is_known(hashing.asker("ann", [192, 0, 2, 2].into()), now));
        assert!(!hashing.is_known(hashing.asker("bob", [192, 0, 2, 1].into()), now));
        assert!(!hashing.is_known(here, now + KNOWN_FOR + Duration::from_secs(1)));
    }
}
