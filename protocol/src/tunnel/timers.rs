//! What time brings: answers that were put off, flows that are over, a far end that is gone.

use std::time::{Duration, Instant};

use super::Tunnel;
use crate::error::TunnelClosed;
use crate::flow::{Flow, Side};
use crate::frame::{CloseCode, Frame, ResetCode};
use crate::limits;
use crate::liveness::LivenessDue;

impl Tunnel {
    /// When [`Tunnel::handle_timeout`] must be called next.
    pub(crate) fn deadline(&self) -> Instant {
        let mut deadline = self.liveness.deadline();
        if !self.flows.is_empty() {
            deadline = deadline.min(self.sweep_at);
        }
        if let Some((at, _)) = self.answers.front() {
            deadline = deadline.min(*at);
        }
        deadline
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, cid)) = self.answers.front().copied()
            && at <= now
        {
            self.answers.pop_front();
            if let Some(flow) = self.flows.get_mut(&cid) {
                flow.answer_queued = false;
                if flow.recv.answer_due() && !flow.window_queued {
                    flow.window_queued = true;
                    self.windows.push_back(cid);
                }
            }
        }
        if now >= self.sweep_at {
            self.sweep(now);
        }
        while let Some(due) = self.liveness.due(now) {
            match due {
                LivenessDue::Ping(nonce) => self.control.push_back(Frame::Ping { nonce }),
                LivenessDue::Suspect => self.suspect = true,
                LivenessDue::Dead => {
                    self.close_remote(TunnelClosed::remote(
                        CloseCode::PingTimeout,
                        "the far end did not answer in time",
                    ));
                    return;
                }
            }
        }
    }

    /// Looks at the timers of all flows. They are coarse, so a look a second is enough and
    /// costs a flow nothing in between; it is more often only where a timeout is shorter.
    fn sweep(&mut self, now: Instant) {
        let mut interval = limits::SWEEP_INTERVAL;
        let mut due: Vec<(u32, SweepVerdict)> = Vec::new();
        for (cid, flow) in &self.flows {
            if flow.closed {
                continue;
            }
            let shortest = flow
                .terms
                .idle_timeout
                .min(flow.terms.stall_timeout)
                .min(flow.terms.linger);
            interval = interval.min(shortest / 4);
            if let Some(verdict) = sweep_flow(flow, now) {
                due.push((*cid, verdict));
            }
        }
        due.sort_unstable_by_key(|(cid, _)| *cid);
        self.sweep_at = now + interval.max(Duration::from_millis(5));
        for (cid, verdict) in due {
            match verdict {
                SweepVerdict::EndClientSide => self.end_idle(now, cid),
                SweepVerdict::Reset(code) => self.reset(now, cid, code, ""),
            }
        }
    }

    fn end_idle(&mut self, now: Instant, cid: u32) {
        match self.side {
            Side::Hub => {
                if let Some(flow) = self.flows.get_mut(&cid) {
                    flow.idle_since = Some(now);
                    flow.send.end();
                    flow.readable = false;
                    self.enqueue(cid);
                }
            }
            Side::Agent => self.reset(now, cid, ResetCode::Idle, ""),
        }
    }

    /// A PING whose PONG shows that the far end lives and how far away it is.
    pub fn ping(&mut self, now: Instant) {
        let nonce = self.liveness.ask(now);
        self.control.push_back(Frame::Ping { nonce });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SweepVerdict {
    EndClientSide,
    Reset(ResetCode),
}

fn sweep_flow(flow: &Flow, now: Instant) -> Option<SweepVerdict> {
    let still = now.saturating_duration_since(flow.last_progress);
    if let Some(seconds) = flow.terms.max_seconds
        && now.saturating_duration_since(flow.opened_at) >= Duration::from_secs(u64::from(seconds))
    {
        return Some(SweepVerdict::Reset(ResetCode::LimitTime));
    }
    if let Some(since) = flow.idle_since {
        return (now.saturating_duration_since(since) >= flow.terms.linger)
            .then_some(SweepVerdict::Reset(ResetCode::Idle));
    }
    if flow.recv.pending() > 0 {
        let waits = flow
            .reader_waits_since
            .map_or(still, |since| now.saturating_duration_since(since));
        return (waits >= flow.terms.stall_timeout)
            .then_some(SweepVerdict::Reset(ResetCode::Stalled));
    }
    if flow.waiting() {
        // The far end resets a reader that stalls; one that does neither is stalled itself.
        return (still >= flow.terms.stall_timeout.saturating_mul(2))
            .then_some(SweepVerdict::Reset(ResetCode::Stalled));
    }
    (still >= flow.terms.idle_timeout).then_some(SweepVerdict::EndClientSide)
}
