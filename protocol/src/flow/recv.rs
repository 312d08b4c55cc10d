//! The direction of a flow that this end receives.

use std::time::{Duration, Instant};

use crate::limits::{
    FLOW_WINDOW_GATE_BYTES, FLOW_WINDOW_SHORT_PATH_BYTES, FLOW_WINDOW_SHORT_PATH_LATE_BYTES,
    SHORT_PATH_RTT, WINDOW_UPDATE_BYTES,
};
use crate::window_pool::PoolShare;

/// Bytes that no honest sender sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReceiveFault {
    #[error("bytes up to {end} were sent where {limit} were granted")]
    Overflow { end: u64, limit: u64 },
    #[error("bytes from {expected} on are missing: the next ones start at {seq}")]
    Gap { expected: u64, seq: u64 },
    #[error("bytes follow the end at {end}")]
    AfterEnd { end: u64 },
    #[error("the end at {fin} does not follow the last byte at {received}")]
    EndMisplaced { fin: u64, received: u64 },
}

/// What decides how far a window grows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowRules {
    /// The least round trip seen; none before the first.
    pub(crate) rtt_min: Option<Duration>,
    /// The operator's upper bound, in bytes.
    pub(crate) window_max: u64,
}

impl WindowRules {
    fn long_path(&self) -> bool {
        self.rtt_min.is_some_and(|rtt| rtt >= SHORT_PATH_RTT)
    }
}

/// Offsets and window of what this end receives.
#[derive(Debug)]
pub(crate) struct RecvHalf {
    /// Every byte below is in this process.
    received: u64,
    /// Every byte below was handed to the local socket.
    delivered: u64,
    /// What the far end was told it may send up to.
    limit: u64,
    window: u64,
    /// `received` as last told.
    told: u64,
    fin: Option<u64>,
    share: PoolShare,
    /// The window grows once in a round trip, so that a burst does not count twice.
    grown_at: Option<Instant>,
}

impl RecvHalf {
    pub(crate) fn new(window: u64, share: PoolShare) -> Self {
        Self {
            received: 0,
            delivered: 0,
            limit: window,
            window,
            told: 0,
            fin: None,
            share,
            grown_at: None,
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// `received` as WINDOW states it.
    pub(crate) fn answer(&self) -> u64 {
        self.received + u64::from(self.fin.is_some())
    }

    /// Bytes that wait for the local reader.
    pub(crate) fn pending(&self) -> u64 {
        self.received - self.delivered
    }

    pub(crate) fn finished(&self) -> bool {
        self.fin.is_some()
    }

    /// Whether the direction has ended and every byte was handed over.
    pub(crate) fn drained(&self) -> bool {
        self.fin == Some(self.delivered)
    }

    /// Takes `length` bytes at `seq`. Returns how many of them, from the front, are already
    /// here: after a resume a sender may repeat what crossed its answer.
    pub(crate) fn data(&mut self, seq: u64, length: usize) -> Result<usize, ReceiveFault> {
        let end = seq.saturating_add(length as u64);
        if end > self.limit {
            return Err(ReceiveFault::Overflow {
                end,
                limit: self.limit,
            });
        }
        if seq > self.received {
            return Err(ReceiveFault::Gap {
                expected: self.received,
                seq,
            });
        }
        if let Some(fin) = self.fin
            && end > fin
        {
            return Err(ReceiveFault::AfterEnd { end: fin });
        }
        // At most `length`, which is a usize.
        let known = usize::try_from((self.received - seq).min(length as u64)).unwrap_or(length);
        self.received = self.received.max(end);
        Ok(known)
    }

    pub(crate) fn fin(&mut self, offset: u64) -> Result<(), ReceiveFault> {
        if offset != self.received {
            return Err(ReceiveFault::EndMisplaced {
                fin: offset,
                received: self.received,
            });
        }
        self.fin = Some(offset);
        Ok(())
    }

    pub(crate) fn deliver(&mut self, bytes: u64) {
        debug_assert!(
            bytes <= self.pending(),
            "only received bytes are handed over"
        );
        self.delivered = (self.delivered + bytes).min(self.received);
    }

    /// Widens the window where the reader keeps up and the sender used what it had.
    pub(crate) fn grow(&mut self, now: Instant, rules: WindowRules) {
        let used = self.window.saturating_sub(self.limit - self.received);
        if self.pending() > self.window / 4 || used < self.window / 2 {
            return;
        }
        if let (Some(grown_at), Some(rtt)) = (self.grown_at, rules.rtt_min)
            && now.saturating_duration_since(grown_at) < rtt
        {
            return;
        }
        let cap = if rules.long_path() {
            rules.window_max
        } else if self.delivered < FLOW_WINDOW_GATE_BYTES {
            u64::from(FLOW_WINDOW_SHORT_PATH_BYTES).min(rules.window_max)
        } else {
            u64::from(FLOW_WINDOW_SHORT_PATH_LATE_BYTES).min(rules.window_max)
        };
        let wider = (self.window * 2).min(cap);
        if wider > self.window && self.share.grow(wider - self.window) {
            self.window = wider;
            self.grown_at = Some(now);
        }
    }

    /// Whether a WINDOW should go out now: the sender could soon run dry, or holds many copies
    /// for nothing.
    pub(crate) fn update_due(&self) -> bool {
        let step = (self.window / 4).min(WINDOW_UPDATE_BYTES);
        !self.finished() && self.delivered + self.window >= self.limit + step
            || self.received >= self.told + WINDOW_UPDATE_BYTES
    }

    /// Whether the sender waits for an answer that could be put off a little.
    pub(crate) fn answer_due(&self) -> bool {
        self.answer() > self.told
    }

    /// What WINDOW says now: `received` and `limit`.
    pub(crate) fn tell(&mut self) -> (u64, u64) {
        self.told = self.answer();
        self.limit = self.limit.max(self.delivered + self.window);
        (self.told, self.limit)
    }

    /// What RESUME or RESUMED says.
    pub(crate) fn restate(&mut self) -> (u64, u64) {
        self.tell()
    }
}
