//! Passwords that were proven, and those that are being looked at.
//!
//! What was proven is remembered, not as the password but as a digest with a key of this process,
//! as long as it is used, and at most for [`LONGEST_KEPT`]. While one password is looked at, all
//! who show the same one wait for the same answer, and take no place of their own.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::super::hashing::{Place, TooBusy};
use crate::config::Secret;

/// How long a proven password is remembered without being shown.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// How long it is remembered however often it is shown.
const LONGEST_KEPT: Duration = Duration::from_secs(3600);

/// Proven passwords that are remembered, at some 100 bytes each.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Of a name and a password.
pub(super) type Seal = [u8; 32];

/// What a look has come to; nothing as long as it lasts.
type Flight = watch::Receiver<Option<Result<bool, TooBusy>>>;

/// See the module. Of one file, and forgotten with it.
pub(super) struct Proofs {
    key: [u8; 32],
    kept: Mutex<LruCache<Seal, Proof>>,
    /// One for each [`Place`] at most.
    flights: Mutex<FxHashMap<Seal, Flight>>,
}

#[derive(Clone, Copy, Debug)]
struct Proof {
    made: Instant,
    used: Instant,
}

impl Proofs {
    /// # Errors
    /// The system has no random bytes.
    pub(super) fn new() -> Result<Arc<Self>, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Arc::new(Self {
            key,
            kept: Mutex::new(LruCache::new(KEPT)),
            flights: Mutex::default(),
        }))
    }

    pub(super) fn seal(&self, name: &str, password: &Secret) -> Seal {
        // The length keeps `a` with `bc` apart from `ab` with `c`.
        let length = u64::try_from(name.len()).unwrap_or(u64::MAX);
        Sha256::new()
            .chain_update(self.key)
            .chain_update(length.to_be_bytes())
            .chain_update(name)
            .chain_update(password.expose())
            .finalize()
            .into()
    }

    /// Whether a password fits: from memory, from a look that is under way, or by `look`, for which
    /// `place` is asked. A look goes on to its end, also where nobody waits for it any more.
    ///
    /// # Errors
    /// There was no place, or its turn did not come in time.
    pub(super) async fn prove(
        self: &Arc<Self>,
        seal: Seal,
        place: impl FnOnce() -> Result<Place, TooBusy>,
        look: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool, TooBusy> {
        let mut flight = {
            let mut flights = self.flights.lock();
            // With the flights held: one that ends is remembered before it leaves them.
            if self.is_kept(&seal, Instant::now()) {
                return Ok(true);
            }
            match flights.get(&seal) {
                Some(flight) => flight.clone(),
                None => {
                    let place = place()?;
                    let (told, flight) = watch::channel(None);
                    flights.insert(seal, flight.clone());
                    let leaves = Leaves(Arc::clone(self), seal);
                    tokio::spawn(async move {
                        let looked = place.run(look).await;
                        if looked == Ok(true) {
                            leaves.0.keep(seal, Instant::now());
                        }
                        drop(leaves);
                        told.send_replace(Some(looked));
                    });
                    flight
                }
            }
        };
        // Gone without a word only with the runtime.
        let told = flight
            .wait_for(Option::is_some)
            .await
            .map_err(|_| TooBusy)?;
        told.unwrap_or(Err(TooBusy))
    }

    fn is_kept(&self, seal: &Seal, now: Instant) -> bool {
        let mut kept = self.kept.lock();
        let Some(proof) = kept.get_mut(seal) else {
            return false;
        };
        let since = |then| now.saturating_duration_since(then);
        if since(proof.used) >= KEPT_FOR || since(proof.made) >= LONGEST_KEPT {
            kept.pop(seal);
            return false;
        }
        proof.used = now;
        true
    }

    fn keep(&self, seal: Seal, now: Instant) {
        let proof = Proof {
            made: now,
            used: now,
        };
        self.kept.lock().put(seal, proof);
    }
}

/// Takes a flight out when dropped.
struct Leaves(Arc<Proofs>, Seal);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.flights.lock().remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::super::Hashing;
    use super::*;

    #[tokio::test]
    async fn one_password_is_looked_at_once_for_all_who_show_it() {
        let proofs = Proofs::new().unwrap();
        let hashing = Hashing::default();
        let asker = hashing.asker(Path::new("users"), "ann", [192, 0, 2, 1].into());
        let looks = Arc::new(AtomicUsize::new(0));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let asks: Vec<_> = (0..30)
            .map(|_| {
                let (proofs, hashing) = (Arc::clone(&proofs), hashing.clone());
                let (looks, held) = (Arc::clone(&looks), Arc::clone(&held));
                tokio::spawn(async move {
                    let look = move || {
                        looks.fetch_add(1, Ordering::Relaxed);
                        held.lock().recv().is_ok()
                    };
                    proofs.prove([7; 32], || hashing.place(asker), look).await
                })
            })
            .collect();
        while looks.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        // The first of them no longer waits, which is not the others' loss.
        asks[0].abort();
        release.send(()).unwrap();
        for ask in asks.into_iter().skip(1) {
            assert_eq!(ask.await.unwrap(), Ok(true));
        }
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        assert!(proofs.flights.lock().is_empty());
    }

    #[tokio::test]
    async fn where_there_is_no_place_nothing_is_left_behind() {
        let proofs = Proofs::new().unwrap();
        let refused = proofs.prove([7; 32], || Err(TooBusy), || true).await;
        assert_eq!(refused, Err(TooBusy));
        assert!(proofs.flights.lock().is_empty());
    }

    #[test]
    fn a_proof_lives_while_it_is_used_and_not_for_ever() {
        let proofs = Proofs::new().unwrap();
        let begin = Instant::now();
        let seal = [7; 32];
        assert!(!proofs.is_kept(&seal, begin));
        proofs.keep(seal, begin);
        let step = KEPT_FOR - Duration::from_secs(1);
        let mut at = begin;
        while at + step < begin + LONGEST_KEPT {
            at += step;
            assert!(proofs.is_kept(&seal, at), "it was used {step:?} ago");
        }
        assert!(!proofs.is_kept(&seal, begin + LONGEST_KEPT));
        proofs.keep(seal, begin);
        assert!(!proofs.is_kept(&seal, begin + KEPT_FOR), "it was not used");
    }
}
