//! When a decision point that fails is left alone.
//!
//! ```text
//!          n failures in a row              pause over: one question
//! closed ─────────────────────► open ───────────────────────────────► trying
//!    ▲                           ▲  it fails, or nobody waits for it     │
//!    │                           └───────────────────────────────────────┤
//!    └───────────────────────────────────────────────────────────────────┘ it succeeds
//! ```

use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub(super) struct Breaker {
    limit: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Trying,
}

/// What the operator is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened,
    Closed,
}

/// The right to ask once. Dropped without a word, it changes nothing but ends a trial.
#[must_use]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    trial: bool,
    told: bool,
}

impl Breaker {
    pub(super) fn new(limit: u32, pause: Duration) -> Self {
        Self {
            limit: limit.max(1),
            pause,
            state: Mutex::new(State::Closed { failures: 0 }),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match *self.state.lock() {
            State::Closed { .. } => true,
            State::Open { .. } | State::Trying => false,
        }
    }

    pub(super) fn pass(&self, now: Instant) -> Option<Pass<'_>> {
        let mut state = self.state.lock();
        let trial = match *state {
            State::Closed { .. } => false,
            State::Open { until } if now >= until => {
                *state = State::Trying;
                true
            }
            State::Open { .. } | State::Trying => return None,
        };
        Some(Pass {
            breaker: self,
            trial,
            told: false,
        })
    }
}

impl Pass<'_> {
    pub(super) fn succeeded(mut self) -> Option<Change> {
        self.told = true;
        let mut state = self.breaker.state.lock();
        match *state {
            // An answer to a question from before the pause shows nothing about now.
            State::Open { .. } | State::Trying if !self.trial => None,
            State::Open { .. } | State::Trying => {
                *state = State::Closed { failures: 0 };
                Some(Change::Closed)
            }
            State::Closed { .. } => {
                *state = State::Closed { failures: 0 };
                None
            }
        }
    }

    pub(super) fn failed(mut self, now: Instant) -> Option<Change> {
        self.told = true;
        let until = now + self.breaker.pause;
        let mut state = self.breaker.state.lock();
        match *state {
            State::Closed { failures } if failures + 1 < self.breaker.limit => {
                *state = State::Closed {
                    failures: failures + 1,
                };
                None
            }
            State::Closed { .. } => {
                *state = State::Open { until };
                Some(Change::Opened)
            }
            State::Trying if self.trial => {
                *state = State::Open { until };
                None
            }
            State::Open { .. } | State::Trying => None,
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.trial && !self.told {
            let mut state = self.breaker.state.lock();
            if *state == State::Trying {
                *state = State::Open {
                    until: Instant::now(),
                };
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_open_it_and_one_question_tries_again() {
        let breaker = Breaker::new(2, PAUSE);
        let start = Instant::now();
        assert_eq!(breaker.pass(start).unwrap().failed(start), None);
        assert_eq!(
            breaker.pass(start).unwrap().failed(start),
            Some(Change::Opened)
        );
        assert!(breaker.pass(start).is_none());
        let later = start + PAUSE;
        let trial = breaker.pass(later).unwrap();
        assert!(breaker.pass(later).is_none(), "two questions try it");
        assert_eq!(trial.failed(later), None);
        assert!(breaker.pass(later).is_none());
        let trial = breaker.pass(later + PAUSE).unwrap();
        assert_eq!(trial.succeeded(), Some(Change::Closed));
        assert!(breaker.is_closed());
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let breaker = Breaker::new(2, PAUSE);
        let now = Instant::now();
        for _ in 0..5 {
            assert_eq!(breaker.pass(now).unwrap().failed(now), None);
            assert_eq!(breaker.pass(now).unwrap().succeeded(), None);
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn a_trial_that_nobody_waits_for_lets_the_next_one_try() {
        let breaker = Breaker::new(1, PAUSE);
        let start = Instant::now();
        assert!(breaker.pass(start).unwrap().failed(start).is_some());
        drop(breaker.pass(start + PAUSE).unwrap());
        assert!(breaker.pass(Instant::now() + PAUSE).is_some());
    }

    #[test]
    fn an_answer_from_before_the_pause_does_not_end_it() {
        let breaker = Breaker::new(1, PAUSE);
        let start = Instant::now();
        let early = breaker.pass(start).unwrap();
        assert!(breaker.pass(start).unwrap().failed(start).is_some());
        assert_eq!(early.succeeded(), None);
        assert!(!breaker.is_closed());
    }
}
