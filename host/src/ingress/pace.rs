//! Whether what is waited for comes, or goes, at the least rate.
//!
//! A bound on silence alone lets a peer that moves one byte within each such time hold its place for
//! ever. So the time in which the peer alone is waited for is summed up, and in each window of it so
//! many bytes must have moved. A peer that is quick is never waited for, and one that nobody waits
//! for, such as the viewer of a silent event stream, is never slow.

use std::time::{Duration, Instant};

use crate::config::MinRate;

/// See the module. Of one direction of one peer.
#[derive(Debug)]
pub(super) struct Pace {
    /// None where any rate will do.
    rate: Option<MinRate>,
    /// Since when the peer is waited for, where it is.
    since: Option<Instant>,
    /// Of this window, before that.
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(rate: Option<MinRate>) -> Self {
        Self {
            rate,
            since: None,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// The peer is waited for from now on, if it is not already.
    pub(super) fn waits(&mut self, now: Instant) {
        if self.rate.is_some() {
            self.since.get_or_insert(now);
        }
    }

    /// Nobody waits any more.
    pub(super) fn rests(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// So much has moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// When the peer is too slow, unless something moves before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let window = self.rate?.window;
        Some(self.since? + window.saturating_sub(self.waited))
    }

    /// Whether the window is over and too little has moved in it. One in which enough has begins the
    /// next.
    pub(super) fn is_too_slow(&mut self, now: Instant) -> bool {
        let Some(rate) = self.rate else {
            return false;
        };
        let waits = self
            .since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if self.waited + waits < rate.window {
            return false;
        }
        if self.bytes < rate.bytes_per_window() {
            return true;
        }
        self.bytes = 0;
        self.waited = Duration::ZERO;
        self.since = self.since.map(|_| now);
        false
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace() -> Pace {
        Pace::new(Some(MinRate {
            bytes_per_second: 100,
            window: 10 * SECOND,
        }))
    }

    /// `steps` times the peer takes `each` for `bytes`; whether it was too slow.
    fn drip(pace: &mut Pace, steps: u32, each: Duration, bytes: usize) -> bool {
        let mut now = Instant::now();
        for _ in 0..steps {
            pace.waits(now);
            now += each;
            if pace.is_too_slow(now) {
                return true;
            }
            pace.rests(now);
            pace.moved(bytes);
        }
        false
    }

    #[test]
    fn who_drips_is_too_slow_and_who_is_slow_is_not() {
        assert!(drip(&mut pace(), 20, SECOND, 1));
        assert!(drip(&mut pace(), 20, SECOND, 99));
        assert!(!drip(&mut pace(), 1000, SECOND, 120));
        // Much at once is as good as little at a time.
        assert!(!drip(&mut pace(), 1000, 9 * SECOND, 2000));
        assert!(!drip(&mut Pace::new(None), 1000, 60 * SECOND, 1));
    }

    #[test]
    fn only_the_time_in_which_the_peer_is_waited_for_counts() {
        let mut pace = pace();
        let mut now = Instant::now();
        assert_eq!(pace.deadline(), None);
        for _ in 0..100 {
            pace.waits(now);
            pace.waits(now + SECOND / 20);
            now += SECOND / 20;
            pace.rests(now);
            pace.moved(1);
            // Silence of somebody else.
            now += 60 * SECOND;
            assert_eq!(pace.deadline(), None);
        }
        pace.waits(now);
        assert_eq!(pace.deadline(), Some(now + 5 * SECOND));
        assert!(!pace.is_too_slow(now + 4 * SECOND));
        assert!(pace.is_too_slow(pace.deadline().unwrap()));
    }
}
