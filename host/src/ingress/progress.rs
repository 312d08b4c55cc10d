//! How far the body of a request has come, seen from both of its ends.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Why a body did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Trouble {
    /// Larger than allowed.
    TooLarge = 1,
    /// The client sent nothing of it for too long.
    Timeout = 2,
    /// The client went away, or its framing broke.
    Broken = 3,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    base: Instant,
    moved_ms: AtomicU64,
    bytes: AtomicU64,
    done: AtomicBool,
    waits_for_client: AtomicBool,
    answered: AtomicBool,
    trouble: AtomicU8,
}

impl Progress {
    /// Of a body that begins now; `done` says that there is none.
    pub(crate) fn new(done: bool) -> Self {
        Self {
            base: Instant::now(),
            moved_ms: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            done: AtomicBool::new(done),
            waits_for_client: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            trouble: AtomicU8::new(0),
        }
    }

    /// The origin is there: it is waited for from now on.
    pub(crate) fn begin(&self) {
        self.touch();
    }

    /// Bytes went on.
    pub(crate) fn moved(&self, bytes: u64) -> u64 {
        self.touch();
        self.waits_for_client.store(false, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// The next hop asks for bytes that the client has not sent.
    pub(crate) fn waits(&self) {
        self.waits_for_client.store(true, Ordering::Relaxed);
    }

    /// All of it went on.
    pub(crate) fn finish(&self) {
        self.touch();
        self.waits_for_client.store(false, Ordering::Relaxed);
        self.done.store(true, Ordering::Release);
    }

    /// The response has begun: the client may take its time with the rest, within the bounds of
    /// the flow.
    pub(crate) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn fail(&self, trouble: Trouble) {
        self.trouble.store(trouble as u8, Ordering::Release);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        match self.trouble.load(Ordering::Acquire) {
            1 => Some(Trouble::TooLarge),
            2 => Some(Trouble::Timeout),
            3 => Some(Trouble::Broken),
            _ => None,
        }
    }

    /// Since when the origin alone is to be waited for: from the last byte that went on, and not
    /// at all while the client owes some.
    pub(crate) fn origin_waits_since(&self) -> Option<Instant> {
        if self.waits_for_client.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.base + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed)))
    }

    fn touch(&self) {
        let now = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(now, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn an_origin_is_waited_for_from_when_it_is_there() {
        let progress = Progress::new(true);
        let made = progress.origin_waits_since().unwrap();
        while progress.base.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        progress.begin();
        assert!(progress.origin_waits_since().unwrap() > made);
        progress.waits();
        assert_eq!(progress.origin_waits_since(), None);
    }
}
