//! How long to wait before the next dial of one peer.
//!
//! The circuit breaker of a peer is the state of its link. Established, flows pass. After a
//! failure the circuit is open ([`LinkState::Backoff`](crate::LinkState::Backoff)): nothing is
//! tried and flows are refused at once. Then one dial tries
//! ([`LinkState::Connecting`](crate::LinkState::Connecting)), and closes it or opens it for
//! longer. A link that breaks soon after it stood counts as a failure, so that one that flaps is
//! dialled less and less.

use std::time::Duration;

use crate::limits::{BACKOFF_BASE, STABLE_AFTER};

/// Counts failures in a row and draws the pauses between dials.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A link ended after it had stood for `lifetime`.
    pub(crate) fn link_ended(&mut self, lifetime: Duration) {
        if lifetime >= STABLE_AFTER {
            self.failures = 0;
        }
    }

    /// The next pause: between half of an exponential bound and all of it, so that hubs which lost
    /// the same peer at one moment do not meet it again at one moment. `draw` is uniform in
    /// `0.0..1.0`.
    pub(crate) fn next_pause(&mut self, cap: Duration, draw: f64) -> Duration {
        let bound = BACKOFF_BASE
            .saturating_mul(2_u32.saturating_pow(self.failures.min(16)))
            .min(cap);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(0.5 + draw.clamp(0.0, 1.0) / 2.0)
    }

    /// Failures in a row.
    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(30);

    #[test]
    fn the_bound_doubles_up_to_the_cap_and_jitter_takes_at_most_half() {
        let mut backoff = Backoff::default();
        let bounds: Vec<_> = (0..9)
            .map(|_| backoff.next_pause(CAP, 1.0).as_millis())
            .collect();
        assert_eq!(
            bounds,
            [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]
        );
        assert_eq!(backoff.next_pause(CAP, 0.0), CAP / 2);
    }

    #[test]
    fn only_a_link_that_stood_for_a_while_resets_the_count() {
        let mut backoff = Backoff::default();
        for _ in 0..3 {
            backoff.next_pause(CAP, 1.0);
        }
        backoff.link_ended(STABLE_AFTER - Duration::from_millis(1));
        assert_eq!(backoff.failures(), 3);
        backoff.link_ended(STABLE_AFTER);
        assert_eq!(backoff.next_pause(CAP, 1.0), BACKOFF_BASE);
    }

    #[test]
    fn a_cap_below_the_base_and_many_failures_hold() {
        let mut backoff = Backoff::default();
        let cap = Duration::from_millis(100);
        for _ in 0..10_000 {
            assert!(backoff.next_pause(cap, 1.0) <= cap);
        }
    }
}
