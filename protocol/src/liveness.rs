//! Whether the far end is still there, and how far away it is.
//!
//! ```text
//!   idle ── ping_interval without a message ──► PING ──┐
//!   busy ── bytes unanswered for max(1 s, 4 rtt) ─► PING ┤
//!                                                        ├─ any message ──► alive
//!                                                        ├─ 2 s ──► suspect (once)
//!                                                        └─ ping_timeout ──► dead
//! ```

use std::time::{Duration, Instant};

use crate::limits::{PROBE_AFTER, RTT_PROBE_INTERVAL, SUSPECT_AFTER};

/// What has become due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LivenessDue {
    /// A PING with this number must be sent.
    Ping(u64),
    /// The far end has not answered for a while.
    Suspect,
    /// The far end is gone.
    Dead,
}

#[derive(Debug)]
pub(crate) struct Liveness {
    ping_interval: Duration,
    ping_timeout: Duration,
    last_heard: Instant,
    /// Since when sent bytes have been unanswered.
    unanswered_since: Option<Instant>,
    probe: Option<Probe>,
    /// Sent for a measurement or a question only; its loss means nothing.
    measure: Option<(u64, Instant)>,
    measured_at: Option<Instant>,
    next_nonce: u64,
    rtt_min: Option<Duration>,
    rtt_last: Option<Duration>,
}

#[derive(Debug)]
struct Probe {
    sent_at: Instant,
    suspected: bool,
}

impl Liveness {
    pub(crate) fn new(now: Instant, ping_interval: Duration, ping_timeout: Duration) -> Self {
        Self {
            ping_interval,
            ping_timeout,
            last_heard: now,
            unanswered_since: None,
            probe: None,
            measure: None,
            measured_at: None,
            next_nonce: 1,
            rtt_min: None,
            rtt_last: None,
        }
    }

    pub(crate) fn set_times(&mut self, ping_interval: Duration, ping_timeout: Duration) {
        self.ping_interval = ping_interval;
        self.ping_timeout = ping_timeout;
    }

    pub(crate) fn rtt_min(&self) -> Option<Duration> {
        self.rtt_min
    }

    pub(crate) fn rtt_last(&self) -> Option<Duration> {
        self.rtt_last
    }

    /// A message came: the far end lives.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.probe = None;
        if self.unanswered_since.is_some() {
            self.unanswered_since = Some(now);
        }
    }

    /// How many sent bytes are unanswered now.
    pub(crate) fn note_inflight(&mut self, now: Instant, bytes: u64) {
        if bytes == 0 {
            self.unanswered_since = None;
        } else if self.unanswered_since.is_none() {
            self.unanswered_since = Some(now);
        }
    }

    /// A PING for a measurement, where one is worth it.
    pub(crate) fn measure(&mut self, now: Instant) -> Option<u64> {
        let due = self
            .measured_at
            .is_none_or(|at| now.saturating_duration_since(at) >= RTT_PROBE_INTERVAL);
        if !due || self.measure.is_some() {
            return None;
        }
        self.measured_at = Some(now);
        Some(self.ask(now))
    }

    /// A PING whose PONG is wanted for its own sake.
    pub(crate) fn ask(&mut self, now: Instant) -> u64 {
        let nonce = self.nonce();
        self.measure = Some((nonce, now));
        nonce
    }

    fn nonce(&mut self) -> u64 {
        self.next_nonce += 1;
        self.next_nonce - 1
    }

    /// Whether no PONG is awaited.
    pub(crate) fn answered(&self) -> bool {
        self.measure.is_none()
    }

    /// Returns the round trip where the PONG answers a PING of ours.
    pub(crate) fn pong(&mut self, now: Instant, nonce: u64) -> Option<Duration> {
        let (asked, sent_at) = self.measure?;
        if asked != nonce {
            return None;
        }
        self.measure = None;
        let rtt = now.saturating_duration_since(sent_at);
        self.rtt_last = Some(rtt);
        self.rtt_min = Some(self.rtt_min.map_or(rtt, |least| least.min(rtt)));
        Some(rtt)
    }

    fn probe_at(&self) -> Instant {
        let idle = self.last_heard + self.ping_interval;
        match self.unanswered_since {
            Some(since) => {
                let wait = self
                    .rtt_last
                    .map_or(PROBE_AFTER, |rtt| PROBE_AFTER.max(rtt * 4));
                idle.min(since + wait)
            }
            None => idle,
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        match &self.probe {
            None => self.probe_at(),
            Some(probe) if !probe.suspected => {
                (probe.sent_at + SUSPECT_AFTER).min(probe.sent_at + self.ping_timeout)
            }
            Some(probe) => probe.sent_at + self.ping_timeout,
        }
    }

    /// What has become due by `now`. Call again until it is nothing.
    pub(crate) fn due(&mut self, now: Instant) -> Option<LivenessDue> {
        if let Some(probe) = &mut self.probe {
            if now >= probe.sent_at + self.ping_timeout {
                return Some(LivenessDue::Dead);
            }
            if !probe.suspected && now >= probe.sent_at + SUSPECT_AFTER {
                probe.suspected = true;
                return Some(LivenessDue::Suspect);
            }
            return None;
        }
        if now < self.probe_at() {
            return None;
        }
        let nonce = self.nonce();
        self.measure = Some((nonce, now));
        self.probe = Some(Probe {
            sent_at: now,
            suspected: false,
        });
        Some(LivenessDue::Ping(nonce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(20);
    const TIMEOUT: Duration = Duration::from_secs(20);

    #[test]
    fn an_idle_tunnel_pings_and_a_silent_one_dies() {
        let start = test_now();
        let mut liveness = Liveness::new(start, INTERVAL, TIMEOUT);
        assert_eq!(
            liveness.due(start + INTERVAL - Duration::from_millis(1)),
            None
        );
        assert_eq!(liveness.due(start + INTERVAL), Some(LivenessDue::Ping(1)));
        assert!(liveness.probe.is_some());
        let suspect = start + INTERVAL + SUSPECT_AFTER;
        assert_eq!(liveness.due(suspect), Some(LivenessDue::Suspect));
        assert_eq!(liveness.due(suspect), None);
        assert_eq!(
            liveness.due(start + INTERVAL + TIMEOUT),
            Some(LivenessDue::Dead)
        );
    }

    #[test]
    fn unanswered_bytes_make_it_probe_much_sooner() {
        let start = test_now();
        let mut liveness = Liveness::new(start, INTERVAL, TIMEOUT);
        liveness.note_inflight(start, 100);
        assert_eq!(liveness.deadline(), start + PROBE_AFTER);
        assert_eq!(
            liveness.due(start + PROBE_AFTER),
            Some(LivenessDue::Ping(1))
        );
        liveness.heard(start + PROBE_AFTER);
        assert!(liveness.probe.is_none());
    }

    #[test]
    fn a_long_path_gets_four_round_trips() {
        let start = test_now();
        let mut liveness = Liveness::new(start, INTERVAL, TIMEOUT);
        let nonce = liveness
            .measure(start)
            .expect("the first measurement is due");
        liveness.pong(start + Duration::from_millis(600), nonce);
        liveness.note_inflight(start, 1);
        assert_eq!(liveness.deadline(), start + Duration::from_millis(2_400));
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some point in time")]
    fn test_now() -> Instant {
        Instant::now()
    }
}
