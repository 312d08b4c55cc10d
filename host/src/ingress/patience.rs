//! How long a peer is waited for.

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use super::pace::Pace;
use crate::config::MinRate;

/// Patience with one direction of one peer: for so long without a byte, and with no less than the
/// least rate.
pub(super) struct Patience {
    within: Duration,
    pace: Pace,
    /// While the peer is waited for: since when, and when that is to be looked at.
    waits: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience")
            .field("within", &self.within)
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}

impl Patience {
    pub(super) fn new(within: Duration, min_rate: Option<MinRate>) -> Self {
        Self {
            within,
            pace: Pace::new(min_rate),
            waits: None,
        }
    }

    /// The peer is waited for; ready once that has been for too long.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waits.is_none() {
            let now = Instant::now();
            self.pace.waits(now);
            self.wait_since(now);
        }
        while let Some((since, sleep)) = &mut self.waits {
            let since = *since;
            ready!(sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= since + self.within || self.pace.is_too_slow(now) {
                break;
            }
            self.wait_since(since);
        }
        Poll::Ready(())
    }

    /// The peer is not waited for any more: so much has moved, or somebody else is the cause.
    pub(super) fn moved(&mut self, bytes: usize) {
        if self.waits.take().is_some() {
            self.pace.rests(Instant::now());
        }
        self.pace.moved(bytes);
    }

    /// Any rate will do from now on.
    pub(super) fn forget_rate(&mut self) {
        self.pace = Pace::new(None);
    }

    fn wait_since(&mut self, since: Instant) {
        let silent = since + self.within;
        let until = self.pace.deadline().map_or(silent, |slow| slow.min(silent));
        self.waits = Some((since, Box::pin(sleep_until(until.into()))));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const STEP: Duration = Duration::from_millis(20);

    fn rate(window: Duration) -> Option<MinRate> {
        Some(MinRate {
            bytes_per_second: 1000,
            window,
        })
    }

    #[tokio::test]
    async fn silence_ends_it() {
        for min_rate in [None, rate(3600 * STEP)] {
            let mut patience = Patience::new(STEP, min_rate);
            poll_fn(|cx| patience.poll_over(cx)).await;
        }
    }

    /// A byte within each bound on silence is not enough.
    #[tokio::test]
    async fn a_drip_ends_it_too() {
        let mut patience = Patience::new(3600 * STEP, rate(5 * STEP));
        let dripped = async {
            loop {
                let waits = poll_fn(|cx| patience.poll_over(cx));
                if tokio::time::timeout(STEP, waits).await.is_ok() {
                    return;
                }
                patience.moved(1);
            }
        };
        let bound = Duration::from_secs(60);
        assert!(tokio::time::timeout(bound, dripped).await.is_ok());
        // Where any rate will do it goes on.
        patience.moved(0);
        patience.forget_rate();
        let waits = poll_fn(|cx| patience.poll_over(cx));
        assert!(tokio::time::timeout(10 * STEP, waits).await.is_err());
    }
}
