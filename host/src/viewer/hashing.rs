//! Hashing passwords, which costs what an attacker would like to make us spend.
//!
//! A hash takes a tenth of a second and up to [`MAX_MEMORY_KIB`]. So few are under way at once,
//! few wait for them, fewer of one source, and nobody waits for long. Work runs on threads that may
//! block, and keeps its place until it is done, whether or not the viewer still waits.
//!
//! Whoever guesses wants all places. Against that, of those who wait each source gets its turn
//! before another gets its second; where all places are taken, a newcomer pushes out the latest one
//! of the source with the most; and those who have shown a right password lately, from the address
//! from which they ask now and for the same users, have places of their own and every second turn.
//! Whoever shows a wrong one waits with all others again, so that no login helps to guess at another.

mod places;

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::Path;
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

/// How long somebody does not become known again who was and then showed a wrong password.
const BARRED_FOR: Duration = Duration::from_secs(600);

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
    known: Mutex<LruCache<u64, Known>>,
    /// Makes of users, a name and a source what stands in `known`.
    marks: RandomState,
}

/// What is remembered of somebody at an address.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// The last right password.
    Right(Instant),
    /// The last wrong one, after a right one.
    Wrong(Instant),
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
    /// `users` tells names of one file from those of another.
    pub(super) fn asker(&self, users: &Path, name: &str, address: IpAddr) -> Asker {
        let source = source_of(address);
        Asker {
            source,
            mark: self.shared.marks.hash_one((users, name, source)),
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

    /// It has shown a right password, or a wrong one.
    pub(super) fn note(&self, asker: Asker, is_right: bool) {
        self.note_at(asker, is_right, Instant::now());
    }

    fn note_at(&self, asker: Asker, is_right: bool, now: Instant) {
        let mut known = self.shared.known.lock();
        match (is_right, known.get(&asker.mark)) {
            (true, Some(Known::Wrong(since)))
                if now.saturating_duration_since(*since) < BARRED_FOR => {}
            (true, _) => drop(known.put(asker.mark, Known::Right(now))),
            // Whoever was never known is none the less for it, and takes no place here.
            (false, Some(_)) => drop(known.put(asker.mark, Known::Wrong(now))),
            (false, None) => {}
        }
    }

    fn is_known(&self, asker: Asker, now: Instant) -> bool {
        match self.shared.known.lock().get(&asker.mark) {
            Some(Known::Right(since)) => now.saturating_duration_since(*since) < KNOWN_FOR,
            Some(Known::Wrong(_)) | None => false,
        }
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
        let asker = hashing.asker(Path::new("users"), "ann", [192, 0, 2, 1].into());
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
        let asker = |users: &str, name: &str, last: u8| {
            hashing.asker(Path::new(users), name, [192, 0, 2, last].into())
        };
        let here = asker("acme", "ann", 1);
        let now = Instant::now();
        assert!(!hashing.is_known(here, now));
        hashing.note_at(here, true, now);
        assert!(hashing.is_known(here, now));
        for other in [
            asker("acme", "ann", 2),
            asker("acme", "bob", 1),
            asker("beta", "ann", 1),
        ] {
            assert!(!hashing.is_known(other, now));
        }
        assert!(!hashing.is_known(here, now + KNOWN_FOR));
    }

    /// A login of one's own gives no better place for guessing at it, however often it is shown.
    #[test]
    fn who_shows_a_wrong_password_is_known_no_longer() {
        let hashing = Hashing::default();
        let ann = hashing.asker(Path::new("users"), "ann", [192, 0, 2, 1].into());
        let now = Instant::now();
        hashing.note_at(ann, false, now);
        assert_eq!(hashing.shared.known.lock().len(), 0);
        hashing.note_at(ann, true, now);
        hashing.note_at(ann, false, now);
        assert!(!hashing.is_known(ann, now));
        hashing.note_at(ann, true, now + BARRED_FOR / 2);
        assert!(!hashing.is_known(ann, now + BARRED_FOR / 2));
        hashing.note_at(ann, true, now + BARRED_FOR);
        assert!(hashing.is_known(ann, now + BARRED_FOR));
    }
}
