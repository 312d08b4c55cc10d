//! Hashing passwords, which costs what an attacker would like to make us spend.
//!
//! A hash takes a tenth of a second and up to [`MAX_MEMORY_KIB`]. So few are under way at once,
//! few wait for them, fewer of one source, and nobody waits for long: whoever asks for more is
//! told to come again. Work runs on threads that may block, and keeps its place until it is done,
//! whether or not the viewer still waits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::limit::{Slots, SourceSlots};

/// The most memory of one Argon2 hash, in KiB: 64 MiB.
pub(super) const MAX_MEMORY_KIB: u32 = 64 << 10;

/// Hashes that may wait or be under way, in all and of one source address.
const MAX_WAITING: usize = 64;
const MAX_WAITING_PER_SOURCE: usize = 8;

/// How long one may wait for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// See the module. One for each hub.
#[derive(Debug)]
pub(crate) struct Hashing {
    /// Under way at once: half of the processors, so that traffic keeps the others.
    turns: Arc<Semaphore>,
    waiting: Arc<Slots>,
    sources: Arc<SourceSlots>,
}

/// Too many hashes are waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being looked at")]
pub(super) struct TooBusy;

impl Default for Hashing {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            turns: Arc::new(Semaphore::new((processors / 2).max(1))),
            waiting: Slots::new(MAX_WAITING),
            sources: SourceSlots::new(MAX_WAITING_PER_SOURCE),
        }
    }
}

impl Hashing {
    /// Runs `work`, which blocks, when it is its turn.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        source: IpAddr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TooBusy> {
        let of_source = self.sources.take(source).ok_or(TooBusy)?;
        let place = self.waiting.take().ok_or(TooBusy)?;
        let turn = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.turns).acquire_owned());
        // The semaphore is never closed.
        let turn = turn.await.map_err(|_| TooBusy)?.map_err(|_| TooBusy)?;
        let done = tokio::task::spawn_blocking(move || {
            let _held = (of_source, place, turn);
            work()
        });
        done.await.map_err(|_| TooBusy)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::sync::mpsc;

    use super::*;

    /// The work of one source does not keep the others out.
    #[tokio::test]
    async fn what_one_source_asks_for_is_bounded() {
        let hashing = Arc::new(Hashing::default());
        let flood: IpAddr = "192.0.2.1".parse().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(parking_lot::Mutex::new(held));
        let mut under_way = Vec::new();
        for _ in 0..MAX_WAITING_PER_SOURCE {
            let (hashing, held) = (Arc::clone(&hashing), Arc::clone(&held));
            under_way.push(tokio::spawn(async move {
                let work = move || held.lock().recv().is_ok();
                hashing.run(flood, work).await
            }));
        }
        while hashing.waiting.taken() < MAX_WAITING_PER_SOURCE {
            tokio::task::yield_now().await;
        }
        assert_eq!(hashing.run(flood, || ()).await, Err(TooBusy));
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        let waits = tokio::spawn({
            let hashing = Arc::clone(&hashing);
            async move { hashing.run(other, || 7).await }
        });
        for _ in 0..MAX_WAITING_PER_SOURCE {
            release.send(()).unwrap();
        }
        assert_eq!(waits.await.unwrap(), Ok(7));
        for one in under_way {
            assert_eq!(one.await.unwrap(), Ok(true));
        }
        assert_eq!(hashing.run(flood, || 1).await, Ok(1));
    }
}
