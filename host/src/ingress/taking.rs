//! Whether a viewer takes what waits for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Nothing waits for the viewer.
const NOTHING: u64 = 0;

/// Set by a response's body: each frame that it gives waits for the viewer until the next is asked
/// for in vain, which says that there is room and nothing to fill it.
#[derive(Debug)]
pub(crate) struct Taking {
    base: Instant,
    /// Milliseconds from `base`, beginning with 1; or [`NOTHING`].
    given_ms: AtomicU64,
}

impl Taking {
    pub(crate) fn new() -> Self {
        Self {
            base: Instant::now(),
            given_ms: AtomicU64::new(NOTHING),
        }
    }

    /// A frame was given.
    pub(crate) fn given(&self) {
        let now = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.given_ms.store(now.max(1), Ordering::Relaxed);
    }

    /// There is room for more than the origin has sent.
    pub(crate) fn has_room(&self) {
        self.given_ms.store(NOTHING, Ordering::Relaxed);
    }

    /// Since when the viewer alone is waited for.
    pub(crate) fn since(&self) -> Option<Instant> {
        match self.given_ms.load(Ordering::Relaxed) {
            NOTHING => None,
            given_ms => Some(self.base + Duration::from_millis(given_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_is_waited_for_from_a_frame_until_there_is_room() {
        let taking = Taking::new();
        assert_eq!(taking.since(), None);
        taking.given();
        assert!(taking.since().is_some());
        taking.has_room();
        assert_eq!(taking.since(), None);
    }
}
