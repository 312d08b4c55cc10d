//! Writing messages: control first, then windows, then flows in turn.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::Tunnel;
use crate::flow::Side;
use crate::frame::{Direction, Frame, ResetCode, encode, write_data_header};
use crate::limits::{
    DATA_HEADER_BYTES, FULL_MESSAGE_BYTES, INTERACTIVE_FLOW_INFLIGHT_BYTES,
    INTERACTIVE_MESSAGE_BYTES,
};

/// Room in a message below which no DATA frame is begun: a frame that small is not worth it.
const LEAST_ROOM_BYTES: usize = 8_192;

/// Allowance below which a flow with bytes on its way waits for the WINDOW that they bring.
///
/// Frames cut small by a nearly used window cost as much as large ones (RFC 1122, 4.2.3.4), and
/// look like those of a small flow. The receiver grants at least a quarter of the smallest
/// window at a time, so the wait ends.
const LEAST_ALLOWANCE_BYTES: usize = 4_096;

/// Size below which the copy that is kept of a frame's bytes gets memory of its own: a slice
/// of the message would keep all of it, and whatever else was written into its memory.
const COPY_OUT_BELOW_BYTES: usize = 16 * 1024;

const _: () = assert!(LEAST_ALLOWANCE_BYTES < crate::limits::FLOW_WINDOW_MIN_BYTES as usize / 4);

/// What came of reading a local socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceRead {
    /// So many bytes were appended; at least one.
    Bytes(usize),
    /// Nothing is there now. Say [`Tunnel::readable`] when that changes.
    Blocked,
    /// The other side of the socket will send nothing more.
    End,
    /// The socket broke.
    Failed,
}

/// The local sockets, as the machine reads them.
pub trait FlowSource {
    /// Appends at most `max` bytes of the flow's socket to `out`, without waiting.
    fn read(&mut self, cid: u32, out: &mut BytesMut, max: usize) -> SourceRead;
}

impl Tunnel {
    /// Writes the next message into `buf` and takes it out of there; none where there is
    /// nothing to say now. `buf` should be the same each time: its memory is used again.
    pub fn poll_transmit<S: FlowSource>(
        &mut self,
        now: Instant,
        source: &mut S,
        buf: &mut BytesMut,
    ) -> Option<Bytes> {
        buf.clear();
        self.write_control(buf);
        // What follows may be about a flow whose OPEN or OPEN_ACK is still in the queue.
        if !self.goodbye_queued && self.control.is_empty() {
            self.write_windows(buf);
            self.write_flows(now, source, buf);
        }
        if buf.is_empty() {
            return None;
        }
        let message = buf.split().freeze();
        for (cid, range) in self.sealed.drain(..) {
            if let Some(flow) = self.flows.get_mut(&cid) {
                let copy = if range.len() < COPY_OUT_BELOW_BYTES {
                    Bytes::copy_from_slice(&message[range])
                } else {
                    message.slice(range)
                };
                flow.send.keep(copy);
            }
        }
        self.liveness.note_inflight(now, self.hop_inflight);
        Some(message)
    }

    /// Whether there may be something for [`Tunnel::poll_transmit`] to write now.
    #[must_use]
    pub fn may_transmit(&self) -> bool {
        !(self.control.is_empty() && self.windows.is_empty() && self.ready.is_empty())
    }

    fn write_control(&mut self, buf: &mut BytesMut) {
        let most = self.agreed_message.min(FULL_MESSAGE_BYTES);
        while let Some(frame) = self.control.pop_front() {
            let start = buf.len();
            encode(&frame, buf);
            // The first fits, however long it is.
            if start > 0 && buf.len() > most {
                buf.truncate(start);
                self.control.push_front(frame);
                return;
            }
        }
    }

    fn write_windows(&mut self, buf: &mut BytesMut) {
        while buf.len() < INTERACTIVE_MESSAGE_BYTES
            && let Some(cid) = self.windows.pop_front()
        {
            let Some(flow) = self.flows.get_mut(&cid) else {
                continue;
            };
            flow.window_queued = false;
            let (received, limit) = flow.recv.tell();
            encode(
                &Frame::Window {
                    cid,
                    received,
                    limit,
                },
                buf,
            );
            self.forget_if_done(cid);
        }
    }

    fn write_flows<S: FlowSource>(&mut self, now: Instant, source: &mut S, buf: &mut BytesMut) {
        // Flows that cannot go on now leave the list or go to its end, so a round is bounded
        // by its length at the start and by the message's size.
        let mut turns = self.ready.len().saturating_mul(2);
        while turns > 0 && self.room(now, buf) >= LEAST_ROOM_BYTES {
            let Some(cid) = self.ready.pop_front() else {
                return;
            };
            turns -= 1;
            let Some(flow) = self.flows.get_mut(&cid) else {
                continue;
            };
            flow.queued = false;
            if self.hop_inflight >= self.config.hop_inflight && !flow.send.fin_due() {
                // Every flow waits for the far side of the hop; it will say WINDOW.
                flow.queued = true;
                self.ready.push_front(cid);
                return;
            }
            if self.turn(now, cid, source, buf) {
                self.enqueue(cid);
            }
        }
    }

    fn room(&self, now: Instant, buf: &BytesMut) -> usize {
        self.scheduler
            .message_bytes(now)
            .min(self.agreed_message)
            .saturating_sub(buf.len() + DATA_HEADER_BYTES)
    }

    /// Bytes that the flow may send now, in one frame.
    fn allowance(&self, now: Instant, cid: u32, buf: &BytesMut) -> usize {
        let Some(flow) = self.flows.get(&cid) else {
            return 0;
        };
        let hop = self.config.hop_inflight.saturating_sub(self.hop_inflight);
        // While others wait, none keeps more of the hop than its share.
        let others = self.ready.len() as u64 + 1;
        let share = (self.config.hop_inflight / others).max(INTERACTIVE_FLOW_INFLIGHT_BYTES);
        let flow_max = self
            .scheduler
            .flow_inflight_bytes(now, self.liveness.rtt_min())
            .min(if others > 1 { share } else { u64::MAX });
        let bytes = hop.min(flow_max.saturating_sub(flow.send.inflight()));
        usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(self.scheduler.payload_bytes(now))
            .min(self.room(now, buf))
    }

    /// Gives the flow a turn. Returns whether it may have more to say.
    fn turn<S: FlowSource>(
        &mut self,
        now: Instant,
        cid: u32,
        source: &mut S,
        buf: &mut BytesMut,
    ) -> bool {
        let allowance = self.allowance(now, cid, buf);
        let Some(flow) = self.flows.get_mut(&cid) else {
            return false;
        };
        if flow.send.backlog() > 0 {
            if let Some((seq, bytes)) = flow.send.take_backlog(allowance) {
                self.hop_inflight += bytes.len() as u64;
                self.counters.bytes_sent += bytes.len() as u64;
                encode(
                    &Frame::Data {
                        cid,
                        seq,
                        payload: bytes,
                    },
                    buf,
                );
                flow.last_progress = now;
                self.write_fin(cid, now, buf);
                return true;
            }
            return false;
        }
        if flow.send.fin_due() {
            self.write_fin(cid, now, buf);
            return false;
        }
        if !flow.readable || flow.send.ended() {
            return false;
        }
        let credit = usize::try_from(flow.send.credit()).unwrap_or(usize::MAX);
        self.read_turn(now, cid, allowance.min(credit), source, buf)
    }

    fn read_turn<S: FlowSource>(
        &mut self,
        now: Instant,
        cid: u32,
        max: usize,
        source: &mut S,
        buf: &mut BytesMut,
    ) -> bool {
        let waits = self
            .flows
            .get(&cid)
            .is_some_and(|flow| flow.send.inflight() > 0);
        if max == 0 || (waits && max < LEAST_ALLOWANCE_BYTES) {
            // The next WINDOW puts the flow back on the list.
            return false;
        }
        let start = buf.len();
        buf.put_bytes(0, DATA_HEADER_BYTES);
        let read = source.read(cid, buf, max);
        let Some(flow) = self.flows.get_mut(&cid) else {
            buf.truncate(start);
            return false;
        };
        match read {
            SourceRead::Bytes(bytes) => {
                debug_assert_eq!(
                    buf.len(),
                    start + DATA_HEADER_BYTES + bytes,
                    "the source says what it wrote"
                );
                debug_assert!(
                    bytes > 0 && bytes <= max,
                    "the source keeps to its allowance"
                );
                let seq = flow.send.next();
                write_data_header(&mut buf[start..], cid, seq, bytes);
                flow.send.commit(bytes);
                flow.last_progress = now;
                self.hop_inflight += bytes as u64;
                self.counters.bytes_sent += bytes as u64;
                if bytes < max {
                    self.scheduler
                        .note_frame(now, &mut flow.small_run, seq, bytes);
                }
                self.sealed
                    .push((cid, start + DATA_HEADER_BYTES..buf.len()));
                if flow.terms.max_bytes.is_some_and(|most| flow.bytes() > most) {
                    self.reset(now, cid, ResetCode::LimitBytes, "");
                    return false;
                }
                true
            }
            SourceRead::Blocked => {
                flow.readable = false;
                buf.truncate(start);
                false
            }
            SourceRead::End => {
                flow.readable = false;
                flow.send.end();
                buf.truncate(start);
                self.write_fin(cid, now, buf);
                false
            }
            SourceRead::Failed => {
                buf.truncate(start);
                let code = match self.side {
                    Side::Hub => ResetCode::ClientReset,
                    Side::Agent => ResetCode::TargetReset,
                };
                self.reset(now, cid, code, "");
                false
            }
        }
    }

    fn write_fin(&mut self, cid: u32, now: Instant, buf: &mut BytesMut) {
        let Some(flow) = self.flows.get_mut(&cid) else {
            return;
        };
        if !flow.send.fin_due() {
            return;
        }
        let dir = match self.side {
            Side::Hub => Direction::C2a,
            Side::Agent => Direction::A2c,
        };
        encode(
            &Frame::Fin {
                cid,
                dir,
                offset: flow.send.next(),
            },
            buf,
        );
        flow.send.note_fin_sent();
        self.counters.fin_sent += 1;
        self.close_if_over(now, cid);
    }
}
