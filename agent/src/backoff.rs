//! How long to wait before the next dial: exponential with full jitter.
//!
//! Full jitter (a uniform draw between zero and the exponential bound) spreads a fleet of agents
//! that lost the same hub at the same moment over the whole interval, so that the hub's return is
//! not met by all of them at once.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// The shape of the waits between dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackoffSettings {
    /// Bound of the first wait.
    pub base: Duration,
    /// No bound grows beyond this.
    pub cap: Duration,
    /// A tunnel that lived this long makes the next failure count as the first.
    pub stable_after: Duration,
}

impl Default for BackoffSettings {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            stable_after: Duration::from_secs(30),
        }
    }
}

/// The wait after a refusal that only a person can mend (a wrong agent id, a denied HELLO, a bad
/// token): retried so that the mend is noticed, slowly so that the hub is not bothered.
pub(crate) const REFUSED_WAIT: Duration = Duration::from_secs(60);

/// A `Retry-After` of a hub or a control API is honoured up to this, so that a mistaken header cannot park an agent.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// How long an answer asks to be left alone, where it says so in seconds.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    Some(Duration::from_secs(seconds.ok()?).min(RETRY_AFTER_MAX))
}

/// Counts failed dials and draws the waits between them.
#[derive(Debug)]
pub(crate) struct Backoff {
    settings: BackoffSettings,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(settings: BackoffSettings) -> Self {
        Self {
            settings,
            failures: 0,
        }
    }

    /// A tunnel ended after it had lived for `lifetime`.
    pub(crate) fn tunnel_ended(&mut self, lifetime: Duration) {
        if lifetime >= self.settings.stable_after {
            self.failures = 0;
        }
    }

    /// Failures in a row so far.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The next wait; `draw` is uniform in `0.0..1.0`.
    pub(crate) fn next_wait(&mut self, draw: f64) -> Duration {
        let bound = self
            .settings
            .base
            .saturating_mul(2_u32.saturating_pow(self.failures.min(16)))
            .min(self.settings.cap);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(draw.clamp(0.0, 1.0))
    }

    /// A wait of at least `floor`, spread over half as much again; and no shorter than without it,
    /// since others say what it is.
    pub(crate) fn at_least(&mut self, floor: Duration, draw: f64) -> Duration {
        let usual = self.next_wait(draw);
        usual.max(floor + floor.mul_f64(draw.clamp(0.0, 1.0) / 2.0))
    }
}

/// A uniform draw in `0.0..1.0` from the system's randomness; the middle where there is none.
pub(crate) fn draw() -> f64 {
    let mut bytes = [0_u8; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_from_the_base_to_the_cap() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        let bounds: Vec<u128> = (0..9).map(|_| backoff.next_wait(1.0).as_millis()).collect();
        assert_eq!(
            bounds,
            [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
        );
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        assert_eq!(backoff.next_wait(0.0), Duration::ZERO);
        assert_eq!(backoff.next_wait(0.5), Duration::from_millis(500));
    }

    #[test]
    fn only_a_stable_tunnel_resets_the_count() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        for _ in 0..5 {
            backoff.next_wait(1.0);
        }
        backoff.tunnel_ended(Duration::from_secs(1));
        assert_eq!(backoff.failures(), 5);
        backoff.tunnel_ended(Duration::from_secs(30));
        assert_eq!(backoff.next_wait(1.0), Duration::from_millis(500));
    }

    #[test]
    fn a_floor_is_never_undercut() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        assert_eq!(
            backoff.at_least(Duration::from_secs(60), 0.0),
            Duration::from_secs(60)
        );
        assert_eq!(
            backoff.at_least(Duration::from_secs(60), 1.0),
            Duration::from_secs(90)
        );
    }

    #[test]
    fn a_floor_of_nothing_makes_no_haste() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        let waits = (0..3).map(|_| backoff.at_least(Duration::ZERO, 1.0).as_millis());
        assert_eq!(waits.collect::<Vec<_>>(), [500, 1000, 2000]);
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        for _ in 0..10_000 {
            assert!(backoff.next_wait(1.0) <= Duration::from_secs(30));
        }
    }

    #[test]
    fn draws_stay_in_their_interval() {
        for _ in 0..1000 {
            assert!((0.0..1.0).contains(&draw()));
        }
    }
}
