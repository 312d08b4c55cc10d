//! Frames about flows, as they arrive.

use std::time::Instant;

use bytes::Bytes;

use super::{FlowEvent, Tunnel};
use crate::error::{ProtocolViolation, TunnelClosed};
use crate::flow::{Flow, FlowCause, ReceiveFault, Side};
use crate::frame::{Direction, Frame, ResetClass, ResetCode};
use crate::limits;

impl Tunnel {
    /// Takes a frame that either end may send. Gives back any other.
    pub(crate) fn handle_frame(
        &mut self,
        now: Instant,
        frame: Frame,
    ) -> Result<Option<Frame>, ProtocolViolation> {
        match frame {
            Frame::Data { cid, seq, payload } => self.handle_data(now, cid, seq, payload)?,
            Frame::Window {
                cid,
                received,
                limit,
            } => self.handle_window(now, cid, received, limit)?,
            Frame::Fin { cid, dir, offset } => self.handle_fin(now, cid, dir, offset)?,
            Frame::Rst { cid, code, message } => self.handle_rst(now, cid, code, message)?,
            Frame::Ping { nonce } => self.control.push_back(Frame::Pong { nonce }),
            Frame::Pong { nonce } => {
                self.liveness.pong(now, nonce);
            }
            Frame::Goodbye { code, message } => {
                self.close_remote(TunnelClosed::remote(code, message));
            }
            other @ (Frame::Hello(_)
            | Frame::HelloAck(_)
            | Frame::Renew(_)
            | Frame::RenewAck(_)
            | Frame::Drain { .. }
            | Frame::Open(_)
            | Frame::OpenAck(_)
            | Frame::Resume { .. }
            | Frame::Resumed { .. }
            | Frame::ResumeEnd
            | Frame::ResumeRst { .. }
            | Frame::Rewind { .. }) => return Ok(Some(other)),
        }
        Ok(None)
    }

    /// Must hold after each frame, whoever took it: nearly every frame can ask for an answer.
    pub(crate) fn check_read(&self) -> Result<(), ProtocolViolation> {
        if self.control.len() > limits::MAX_CONTROL_QUEUE {
            return Err(ProtocolViolation::NotReading {
                frames: self.control.len(),
            });
        }
        Ok(())
    }

    /// Frames for a flow that ended here may still be on their way; those for a number that was
    /// never given are a fault.
    pub(super) fn check_given(&self, cid: u32) -> Result<(), ProtocolViolation> {
        if cid == 0 || cid > self.last_cid {
            return Err(ProtocolViolation::Cid {
                cid,
                why: "was never given to a flow",
            });
        }
        Ok(())
    }

    /// An agent answers OPEN before it says anything else about a flow. One that took bytes
    /// and then let the hub try another agent would splice two streams.
    fn check_acknowledged(&self, flow: &Flow, cid: u32) -> Result<(), ProtocolViolation> {
        if self.side == Side::Hub && !flow.acknowledged {
            return Err(ProtocolViolation::Cid {
                cid,
                why: "was not acknowledged before it was used",
            });
        }
        Ok(())
    }

    fn handle_data(
        &mut self,
        now: Instant,
        cid: u32,
        seq: u64,
        mut payload: Bytes,
    ) -> Result<(), ProtocolViolation> {
        if payload.len() > self.max_payload() {
            return Err(ProtocolViolation::Offsets {
                cid,
                detail: format!(
                    "a frame of {} bytes came where {} were agreed on",
                    payload.len(),
                    self.max_payload()
                ),
            });
        }
        let Some(flow) = self.flows.get(&cid) else {
            return self.check_given(cid);
        };
        self.check_acknowledged(flow, cid)?;
        let Some(flow) = self.flows.get_mut(&cid) else {
            return self.check_given(cid);
        };
        match flow.recv.data(seq, payload.len()) {
            Ok(known) => bytes::Buf::advance(&mut payload, known),
            Err(ReceiveFault::Overflow { .. }) => {
                self.counters.queue_overflows += 1;
                self.reset(
                    now,
                    cid,
                    ResetCode::QueueOverflow,
                    "more was sent than the window allows",
                );
                return Ok(());
            }
            Err(fault) => {
                return Err(ProtocolViolation::Offsets {
                    cid,
                    detail: fault.to_string(),
                });
            }
        }
        flow.last_progress = now;
        flow.reader_waits_since.get_or_insert(now);
        let over = flow.terms.max_bytes.is_some_and(|max| flow.bytes() > max);
        if !payload.is_empty() && !flow.closed {
            self.counters.bytes_received += payload.len() as u64;
            self.events.push_back(FlowEvent::Data { cid, payload });
        }
        if over {
            self.reset(now, cid, ResetCode::LimitBytes, "");
            return Ok(());
        }
        self.schedule_window(now, cid);
        Ok(())
    }

    fn handle_window(
        &mut self,
        now: Instant,
        cid: u32,
        received: u64,
        limit: u64,
    ) -> Result<(), ProtocolViolation> {
        let Some(flow) = self.flows.get(&cid) else {
            return self.check_given(cid);
        };
        self.check_acknowledged(flow, cid)?;
        let Some(flow) = self.flows.get_mut(&cid) else {
            return self.check_given(cid);
        };
        match flow.send.window(received, limit) {
            Ok(freed) => self.hop_inflight -= freed,
            Err(fault) => {
                return Err(ProtocolViolation::Offsets {
                    cid,
                    detail: fault.to_string(),
                });
            }
        }
        self.liveness.note_inflight(now, self.hop_inflight);
        self.enqueue(cid);
        self.forget_if_done(cid);
        Ok(())
    }

    fn handle_fin(
        &mut self,
        now: Instant,
        cid: u32,
        dir: Direction,
        offset: u64,
    ) -> Result<(), ProtocolViolation> {
        let incoming = match self.side {
            Side::Hub => Direction::A2c,
            Side::Agent => Direction::C2a,
        };
        if dir != incoming {
            return Err(ProtocolViolation::Cid {
                cid,
                why: "was ended in the direction that this end sends",
            });
        }
        let Some(flow) = self.flows.get(&cid) else {
            return self.check_given(cid);
        };
        self.check_acknowledged(flow, cid)?;
        let Some(flow) = self.flows.get_mut(&cid) else {
            return self.check_given(cid);
        };
        self.counters.fin_received += 1;
        if flow.recv.finished() {
            return Ok(());
        }
        if let Err(fault) = flow.recv.fin(offset) {
            return Err(ProtocolViolation::Offsets {
                cid,
                detail: fault.to_string(),
            });
        }
        flow.last_progress = now;
        self.events.push_back(FlowEvent::Finish { cid });
        self.schedule_window(now, cid);
        Ok(())
    }

    fn handle_rst(
        &mut self,
        now: Instant,
        cid: u32,
        code: ResetCode,
        message: String,
    ) -> Result<(), ProtocolViolation> {
        if !self.flows.contains_key(&cid) {
            return self.check_given(cid);
        }
        self.counters.rst_received += 1;
        let Some(mut flow) = self.remove(cid) else {
            return Ok(());
        };
        if flow.closed {
            return Ok(());
        }
        let retry =
            self.side == Side::Hub && !flow.acknowledged && code.class() == ResetClass::NotStarted;
        if retry {
            let early = flow.send.take_copies();
            self.events.push_back(FlowEvent::NotStarted {
                cid,
                code,
                message,
                early,
            });
            return Ok(());
        }
        let cause = FlowCause::Reset {
            code,
            local: false,
            message,
        };
        let summary = flow.summary(self.side, cid, cause, now);
        self.events.push_back(FlowEvent::Closed { cid, summary });
        Ok(())
    }
}
