//! How much one flow may send at a time.
//!
//! Two modes. Large turns are cheap: full messages fill TLS records and save system calls. But
//! a small frame then waits behind them. So two small frames in a row on a flow, or the first
//! one of a new flow, switch the tunnel for a moment to short messages, short frames and a
//! short queue in the kernel.

use std::time::{Duration, Instant};

use crate::limits::{
    FULL_MESSAGE_BYTES, INTERACTIVE_DATA_PAYLOAD_BYTES, INTERACTIVE_FLOW_INFLIGHT_BYTES,
    INTERACTIVE_HOLD, INTERACTIVE_MESSAGE_BYTES, SHORT_PATH_RTT, SMALL_FRAME_BYTES,
};

#[derive(Debug)]
pub(crate) struct Scheduler {
    interactive_until: Option<Instant>,
    max_payload: u32,
}

impl Scheduler {
    pub(crate) fn new(max_payload: u32) -> Self {
        Self {
            interactive_until: None,
            max_payload,
        }
    }

    pub(crate) fn set_max_payload(&mut self, max_payload: u32) {
        self.max_payload = max_payload;
    }

    pub(crate) fn interactive(&self, now: Instant) -> bool {
        self.interactive_until.is_some_and(|until| now < until)
    }

    /// Size at which a message is closed.
    pub(crate) fn message_bytes(&self, now: Instant) -> usize {
        if self.interactive(now) {
            INTERACTIVE_MESSAGE_BYTES
        } else {
            FULL_MESSAGE_BYTES
        }
    }

    /// Largest payload of the next frame.
    pub(crate) fn payload_bytes(&self, now: Instant) -> usize {
        let mode = if self.interactive(now) {
            INTERACTIVE_DATA_PAYLOAD_BYTES
        } else {
            self.max_payload
        };
        mode.min(self.max_payload) as usize
    }

    /// Bytes of one flow that may be on their way at once.
    pub(crate) fn flow_inflight_bytes(&self, now: Instant, rtt_min: Option<Duration>) -> u64 {
        if self.interactive(now) && rtt_min.is_none_or(|rtt| rtt < SHORT_PATH_RTT) {
            INTERACTIVE_FLOW_INFLIGHT_BYTES
        } else {
            u64::MAX
        }
    }

    /// Notes the size of a frame that was sent. `run` counts the flow's small frames in a row.
    pub(crate) fn note_frame(&mut self, now: Instant, run: &mut u8, offset: u64, payload: usize) {
        if payload > SMALL_FRAME_BYTES {
            *run = 0;
            return;
        }
        *run = run.saturating_add(1);
        if *run >= 2 || offset == 0 {
            self.interactive_until = Some(now + INTERACTIVE_HOLD);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_first_frame_shortens_turns_for_a_while() {
        let now = test_now();
        let mut scheduler = Scheduler::new(131_072);
        assert_eq!(scheduler.payload_bytes(now), 131_072);
        scheduler.note_frame(now, &mut 0, 0, 10);
        assert_eq!(scheduler.payload_bytes(now), 32_768);
        assert_eq!(scheduler.payload_bytes(now + INTERACTIVE_HOLD), 131_072);
    }

    #[test]
    fn one_short_frame_in_bulk_changes_nothing() {
        let now = test_now();
        let mut scheduler = Scheduler::new(131_072);
        let mut run = 0;
        scheduler.note_frame(now, &mut run, 1 << 20, 1_000);
        scheduler.note_frame(now, &mut run, 1 << 21, 100_000);
        scheduler.note_frame(now, &mut run, 1 << 22, 1_000);
        assert!(!scheduler.interactive(now));
        scheduler.note_frame(now, &mut run, 1 << 23, 1_000);
        assert!(scheduler.interactive(now));
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some point in time")]
    fn test_now() -> Instant {
        Instant::now()
    }
}
