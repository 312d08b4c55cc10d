//! Quarantine: a plugin that keeps failing is not called for a while.
//!
//! ```text
//!       enough faults within the window            pause is over, one probe call
//! closed ───────────────────────────► open ──────────────────────────────► half open
//!    ▲                                  ▲  the probe is a fault: double pause   │
//!    │                                  └───────────────────────────────────────┤
//!    └────────────────────────────── the probe is none ─────────────────────────┘
//! ```
//!
//! While open, the failure mode of the hook applies without a call, so that a broken plugin
//! costs neither its time limit nor memory for each flow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::spec::Quarantine;

/// How often failed probes may double the pause.
const DOUBLINGS_MAX: u32 = 6;

#[derive(Debug)]
pub(crate) struct Breaker {
    /// Read on every call; the lock is taken only where this is set or a fault happened.
    troubled: AtomicBool,
    state: Mutex<State>,
    quarantine: Quarantine,
}

#[derive(Debug, Default)]
struct State {
    faults: u32,
    first_fault: Option<Instant>,
    open_until: Option<Instant>,
    probing: bool,
    failed_probes: u32,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Call,
    /// The one call that decides whether quarantine ends.
    Probe,
    Quarantined,
}

/// What a call did to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Opened,
    Closed,
}

impl Breaker {
    pub(crate) fn new(quarantine: Quarantine) -> Self {
        Self {
            troubled: AtomicBool::new(false),
            state: Mutex::default(),
            quarantine,
        }
    }

    pub(crate) fn admit(&self, now: Instant) -> Admission {
        if !self.troubled.load(Ordering::Acquire) {
            return Admission::Call;
        }
        let mut state = self.state.lock();
        match state.open_until {
            None => Admission::Call,
            Some(until) if now < until || state.probing => Admission::Quarantined,
            Some(_) => {
                state.probing = true;
                Admission::Probe
            }
        }
    }

    /// Takes note of how an admitted call ended. `fault` is `None` for a call that was given
    /// up before the plugin could show anything.
    pub(crate) fn record(&self, now: Instant, admission: Admission, fault: Option<bool>) -> Change {
        let quiet = !self.troubled.load(Ordering::Acquire);
        if quiet && fault != Some(true) {
            return Change::None;
        }
        let mut state = self.state.lock();
        let probe = admission == Admission::Probe;
        if probe {
            state.probing = false;
        }
        match fault {
            None => Change::None,
            Some(false) if probe => {
                *state = State::default();
                self.troubled.store(false, Ordering::Release);
                Change::Closed
            }
            Some(false) => {
                state.forget_old_faults(now, self.quarantine.window);
                if state.faults == 0 && state.open_until.is_none() {
                    self.troubled.store(false, Ordering::Release);
                }
                Change::None
            }
            Some(true) => {
                self.troubled.store(true, Ordering::Release);
                state.fault(now, probe, self.quarantine)
            }
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.troubled.load(Ordering::Acquire) && self.state.lock().open_until.is_some()
    }
}

impl State {
    fn fault(&mut self, now: Instant, probe: bool, quarantine: Quarantine) -> Change {
        if probe {
            self.failed_probes = (self.failed_probes + 1).min(DOUBLINGS_MAX);
            self.open_until = Some(now + quarantine.pause * 2u32.pow(self.failed_probes));
            return Change::None;
        }
        self.forget_old_faults(now, quarantine.window);
        self.faults += 1;
        self.first_fault.get_or_insert(now);
        if self.faults < quarantine.faults || self.open_until.is_some() {
            return Change::None;
        }
        self.open_until = Some(now + quarantine.pause);
        Change::Opened
    }

    fn forget_old_faults(&mut self, now: Instant, window: Duration) {
        if self
            .first_fault
            .is_some_and(|first| now.duration_since(first) > window)
        {
            self.faults = 0;
            self.first_fault = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Admission, Breaker, Change};
    use crate::spec::Quarantine;

    const FAULTS: u32 = 5;
    const WINDOW: Duration = Duration::from_secs(10);
    const PAUSE: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_after_enough_faults_and_closes_after_a_good_probe() {
        let (breaker, now) = opened();
        assert_eq!(breaker.admit(now), Admission::Quarantined);

        let later = now + PAUSE;
        assert_eq!(breaker.admit(later), Admission::Probe);
        assert_eq!(
            breaker.admit(later),
            Admission::Quarantined,
            "one probe at a time"
        );
        assert_eq!(
            breaker.record(later, Admission::Probe, Some(false)),
            Change::Closed
        );
        assert_eq!(breaker.admit(later), Admission::Call);
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_bad_probe_doubles_the_pause() {
        let (breaker, now) = opened();
        let later = now + PAUSE;
        assert_eq!(breaker.admit(later), Admission::Probe);
        breaker.record(later, Admission::Probe, Some(true));
        assert_eq!(breaker.admit(later + PAUSE), Admission::Quarantined);
        assert_eq!(breaker.admit(later + 2 * PAUSE), Admission::Probe);
    }

    #[test]
    fn a_probe_that_was_given_up_leaves_room_for_the_next() {
        let (breaker, now) = opened();
        let later = now + PAUSE;
        assert_eq!(breaker.admit(later), Admission::Probe);
        breaker.record(later, Admission::Probe, None);
        assert_eq!(breaker.admit(later), Admission::Probe);
    }

    #[test]
    fn faults_far_apart_do_not_open_it() {
        let breaker = closed();
        let mut now = Instant::now();
        for _ in 0..3 * FAULTS {
            assert_eq!(
                breaker.record(now, Admission::Call, Some(true)),
                Change::None
            );
            now += WINDOW + Duration::from_secs(1);
        }
        assert_eq!(breaker.admit(now), Admission::Call);
    }

    fn closed() -> Breaker {
        Breaker::new(Quarantine {
            faults: FAULTS,
            window: WINDOW,
            pause: PAUSE,
        })
    }

    fn opened() -> (Breaker, Instant) {
        let breaker = closed();
        let now = Instant::now();
        for _ in 1..FAULTS {
            assert_eq!(
                breaker.record(now, Admission::Call, Some(true)),
                Change::None
            );
        }
        assert_eq!(
            breaker.record(now, Admission::Call, Some(true)),
            Change::Opened
        );
        assert!(breaker.is_open());
        (breaker, now)
    }
}
