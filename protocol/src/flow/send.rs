//! The direction of a flow that this end sends.

use std::collections::VecDeque;

use bytes::Bytes;

/// A WINDOW that no honest receiver makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WindowFault {
    #[error("more bytes were acknowledged ({received}) than were sent ({sent})")]
    Unsent { received: u64, sent: u64 },
    #[error("bytes were acknowledged and then taken back ({received} after {before})")]
    TakenBack { received: u64, before: u64 },
}

/// Offsets and copies of what this end sends.
///
/// `received ≤ wire ≤ next`: below `received` the far end has everything; below `wire` it was
/// written to the tunnel in use; below `next` it was read from the local socket. The copies
/// cover `received..next`.
#[derive(Debug)]
pub(crate) struct SendHalf {
    received: u64,
    wire: u64,
    next: u64,
    limit: u64,
    copies: VecDeque<Bytes>,
    /// Set when the local socket has ended.
    ended: bool,
    /// FIN was written to the tunnel in use.
    fin_sent: bool,
    /// FIN has been acknowledged.
    fin_received: bool,
}

impl SendHalf {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            received: 0,
            wire: 0,
            next: 0,
            limit,
            copies: VecDeque::new(),
            ended: false,
            fin_sent: false,
            fin_received: false,
        }
    }

    /// Takes bytes that were read before there was a tunnel to write them to.
    pub(crate) fn preload(&mut self, early: Vec<Bytes>) {
        for bytes in early {
            self.next += bytes.len() as u64;
            if !bytes.is_empty() {
                self.copies.push_back(bytes);
            }
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn fin_sent(&self) -> bool {
        self.fin_sent
    }

    /// New bytes that the far end will take.
    pub(crate) fn credit(&self) -> u64 {
        self.limit.saturating_sub(self.next)
    }

    /// Bytes written to the tunnel and not yet acknowledged.
    pub(crate) fn inflight(&self) -> u64 {
        self.wire - self.received
    }

    /// Bytes that were read, may be sent, and were not written to the tunnel in use.
    pub(crate) fn backlog(&self) -> u64 {
        self.next.min(self.limit).saturating_sub(self.wire)
    }

    /// Whether every byte and FIN has arrived.
    pub(crate) fn done(&self) -> bool {
        self.fin_received
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether FIN is what must be sent next.
    pub(crate) fn fin_due(&self) -> bool {
        self.ended && !self.fin_sent && self.wire == self.next
    }

    pub(crate) fn note_fin_sent(&mut self) {
        self.fin_sent = true;
    }

    /// Counts new bytes as written to the tunnel; [`SendHalf::keep`] brings their copy.
    pub(crate) fn commit(&mut self, bytes: usize) {
        debug_assert_eq!(self.wire, self.next, "the backlog goes first");
        self.next += bytes as u64;
        self.wire = self.next;
    }

    /// Keeps the copy of bytes that were committed.
    pub(crate) fn keep(&mut self, copy: Bytes) {
        self.copies.push_back(copy);
    }

    /// The next bytes of the backlog, at most `max`, and their offset.
    pub(crate) fn take_backlog(&mut self, max: usize) -> Option<(u64, Bytes)> {
        let room = usize::try_from(self.backlog())
            .unwrap_or(usize::MAX)
            .min(max);
        if room == 0 {
            return None;
        }
        let mut skip = usize::try_from(self.wire - self.received).unwrap_or(usize::MAX);
        for copy in &self.copies {
            if skip < copy.len() {
                let end = copy.len().min(skip + room);
                let seq = self.wire;
                self.wire += (end - skip) as u64;
                return Some((seq, copy.slice(skip..end)));
            }
            skip -= copy.len();
        }
        debug_assert!(false, "the copies cover received..next");
        None
    }

    /// Applies WINDOW. Returns how many bytes left the tunnel.
    pub(crate) fn window(&mut self, received: u64, limit: u64) -> Result<u64, WindowFault> {
        let sent = self.wire + u64::from(self.fin_sent);
        if received > sent {
            return Err(WindowFault::Unsent { received, sent });
        }
        let before = self.received + u64::from(self.fin_received);
        if received < before {
            return Err(WindowFault::TakenBack { received, before });
        }
        self.limit = self.limit.max(limit);
        let bytes = received.min(self.next);
        self.fin_received = received > self.next;
        let freed = bytes - self.received;
        self.free(freed);
        Ok(freed)
    }

    /// Starts over on a new tunnel, from what the far end has. The window holds anew: what
    /// the far end granted on the old tunnel and never took back.
    pub(crate) fn rewind(&mut self, received: u64, limit: u64) -> Result<(), WindowFault> {
        // What was written to the old tunnel counts as sent; it may have arrived.
        let sent = self.next + u64::from(self.ended);
        if received > sent {
            return Err(WindowFault::Unsent { received, sent });
        }
        let before = self.received + u64::from(self.fin_received);
        if received < before {
            return Err(WindowFault::TakenBack { received, before });
        }
        let bytes = received.min(self.next);
        self.free(bytes - self.received);
        self.wire = bytes;
        self.fin_received = self.ended && received > self.next;
        self.fin_sent = self.fin_received;
        self.limit = self.limit.max(limit);
        Ok(())
    }

    /// Takes it that the far end has everything, where this end has ended. Returns whether it
    /// has.
    pub(crate) fn finish_unheard(&mut self) -> bool {
        if self.ended {
            self.free(self.next - self.received);
            self.wire = self.next;
            self.fin_sent = true;
            self.fin_received = true;
        }
        self.ended
    }

    fn free(&mut self, mut bytes: u64) {
        self.received += bytes;
        self.wire = self.wire.max(self.received);
        while bytes > 0 {
            let Some(front) = self.copies.front_mut() else {
                debug_assert!(false, "the copies cover received..next");
                return;
            };
            let length = front.len() as u64;
            if length <= bytes {
                bytes -= length;
                self.copies.pop_front();
            } else {
                // The rest of the copy is less than 2^32 bytes: it fits a message.
                bytes::Buf::advance(front, usize::try_from(bytes).unwrap_or(usize::MAX));
                bytes = 0;
            }
        }
        if self.copies.is_empty() && self.copies.capacity() > 4 {
            self.copies = VecDeque::new();
        }
    }

    /// Gives up the copies of all that was read, for a second try elsewhere.
    pub(crate) fn take_copies(&mut self) -> Vec<Bytes> {
        debug_assert_eq!(self.received, 0, "nothing was acknowledged before OPEN_ACK");
        self.copies.drain(..).collect()
    }

    /// Drops the copies of a flow that was reset.
    pub(crate) fn abandon(&mut self) {
        self.copies = VecDeque::new();
        self.ended = true;
    }
}
