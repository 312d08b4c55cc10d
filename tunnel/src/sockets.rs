//! The local sockets of a tunnel's flows.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nowconnect_protocol::{ConnectorName, FlowSource, SourceRead};
use rustc_hash::FxHashMap;
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use crate::flow_io::FlowIo;
use crate::observer::{FlowObserver, FlowProgress};
use crate::ready::{FlowWaker, ReadyList};

/// Bytes that a waiting piece may keep alive beyond its own before it is copied out: pieces
/// share the memory of the message they came in.
const COPY_OUT_BELOW_BYTES: usize = 16 * 1024;

/// One local socket and what waits to be written to it.
pub(crate) struct FlowSocket {
    /// None while an agent dials.
    pub(crate) io: Option<FlowIo>,
    pub(crate) connector: ConnectorName,
    pub(crate) pending: VecDeque<Bytes>,
    /// Whether all of it waited already when it was looked at last.
    aged: bool,
    /// Since when something waits.
    waiting_since: Option<Instant>,
    /// What was told of the flow last.
    told: FlowProgress,
    /// Where what waits lies in memory.
    place: Place,
    /// The far side has ended: shut down once nothing is pending.
    pub(crate) finish: bool,
    pub(crate) finished: bool,
    needs_flush: bool,
    /// The next write is timed for the observer.
    times_write: bool,
    pub(crate) observer: Option<Box<dyn FlowObserver>>,
    flow_waker: Arc<FlowWaker>,
    waker: Waker,
}

/// Where the bytes that wait for a socket lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the messages that they came in, which are larger and hold bytes of other flows too.
    Messages,
    /// In one piece of their own, made while those messages were still there: beyond them.
    Beyond,
    /// In one piece that was made after they were gone: in the room that they left. What lay
    /// beyond is free then up to its end, which is what an allocator gives back.
    Settled,
}

/// What writing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Written {
    pub(crate) bytes: usize,
    /// The writing side was shut down just now.
    pub(crate) finished: bool,
    /// The socket broke.
    pub(crate) failed: bool,
}

impl FlowSocket {
    pub(crate) fn new(
        cid: u32,
        connector: ConnectorName,
        io: Option<FlowIo>,
        observer: Option<Box<dyn FlowObserver>>,
        list: &Arc<ReadyList>,
    ) -> Self {
        let flow_waker = FlowWaker::new(cid, Arc::clone(list));
        let waker = Waker::from(Arc::clone(&flow_waker));
        Self {
            io,
            connector,
            pending: VecDeque::new(),
            aged: false,
            waiting_since: None,
            told: FlowProgress::default(),
            place: Place::Messages,
            finish: false,
            finished: false,
            needs_flush: false,
            times_write: observer.is_some(),
            observer,
            flow_waker,
            waker,
        }
    }

    pub(crate) fn unlist(&self) {
        self.flow_waker.unlist();
    }

    /// Writes `payload` after what waits already.
    pub(crate) fn push(&mut self, mut payload: Bytes) -> Written {
        let mut written = Written::default();
        if self.pending.is_empty() {
            written = self.write_one(&mut payload);
            if written.failed {
                return written;
            }
        }
        if !payload.is_empty() {
            self.place = Place::Messages;
            self.waiting_since.get_or_insert_with(Instant::now);
            if payload.len() < COPY_OUT_BELOW_BYTES {
                self.push_copy(&payload);
            } else {
                self.pending.push_back(payload);
            }
        }
        written
    }

    /// Adds a small piece to the last one where that is small too: a far end that sends byte by
    /// byte must not cost more than what its window counts.
    fn push_copy(&mut self, payload: &[u8]) {
        if let Some(back) = self.pending.back_mut()
            && back.len() < COPY_OUT_BELOW_BYTES
        {
            match std::mem::take(back).try_into_mut() {
                Ok(mut whole) => {
                    whole.extend_from_slice(payload);
                    *back = whole.freeze();
                    return;
                }
                Err(shared) => *back = shared,
            }
        }
        self.pending.push_back(Bytes::copy_from_slice(payload));
    }

    /// Tells the observer what the flow has done so far, where that has changed.
    pub(crate) fn tell(&mut self, bytes_c2a: u64, bytes_a2c: u64) {
        let Some(observer) = &mut self.observer else {
            return;
        };
        self.times_write = true;
        let progress = FlowProgress {
            bytes_c2a,
            bytes_a2c,
            pending_bytes: self.pending.iter().map(|piece| piece.len() as u64).sum(),
        };
        if progress != self.told {
            self.told = progress;
            observer.progress(&progress);
        }
    }

    /// Copies what has been waiting out of the messages it came in, which are larger, and at the
    /// next look once more into the room that they left. Returns whether there is something that
    /// waits and has not settled yet.
    pub(crate) fn compact(&mut self) -> bool {
        if self.pending.is_empty() {
            self.aged = false;
            return false;
        }
        if !self.aged {
            self.aged = true;
            return self.place != Place::Settled;
        }
        if self.place != Place::Settled {
            let mut whole = BytesMut::with_capacity(self.pending.iter().map(Bytes::len).sum());
            for piece in self.pending.drain(..) {
                whole.extend_from_slice(&piece);
            }
            self.pending = VecDeque::from([whole.freeze()]);
            self.place = match self.place {
                Place::Messages => Place::Beyond,
                Place::Beyond | Place::Settled => Place::Settled,
            };
        }
        self.place != Place::Settled
    }

    fn write_one(&mut self, payload: &mut Bytes) -> Written {
        let mut written = Written::default();
        let Some(io) = &mut self.io else {
            return written;
        };
        let mut cx = Context::from_waker(&self.waker);
        let since = self.times_write.then(Instant::now);
        while !payload.is_empty() {
            match Pin::new(&mut *io).poll_write(&mut cx, payload) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => {
                    written.failed = true;
                    return written;
                }
                Poll::Ready(Ok(bytes)) => {
                    payload.advance(bytes);
                    written.bytes += bytes;
                }
                Poll::Pending => break,
            }
        }
        if written.bytes > 0
            && let FlowIo::Boxed(_) = io
        {
            self.needs_flush = Pin::new(io).poll_flush(&mut cx).is_pending();
        }
        if let (Some(since), Some(observer)) = (since, &mut self.observer)
            && written.bytes > 0
        {
            self.times_write = false;
            observer.wrote(since.elapsed());
        }
        written
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn write_pending(&mut self) -> Written {
        let mut total = Written::default();
        if self.io.is_none() {
            return total;
        }
        while let Some(mut front) = self.pending.pop_front() {
            let written = self.write_one(&mut front);
            total.bytes += written.bytes;
            if written.failed {
                total.failed = true;
                return total;
            }
            if !front.is_empty() {
                self.pending.push_front(front);
                return total;
            }
        }
        if let Some(since) = self.waiting_since.take()
            && let Some(observer) = &mut self.observer
        {
            observer.drained(since.elapsed());
        }
        if self.pending.capacity() > 8 {
            self.pending = VecDeque::new();
        }
        let Some(io) = &mut self.io else {
            return total;
        };
        let mut cx = Context::from_waker(&self.waker);
        if self.needs_flush {
            self.needs_flush = Pin::new(&mut *io).poll_flush(&mut cx).is_pending();
        }
        if self.finish && !self.finished && !self.needs_flush {
            match Pin::new(io).poll_shutdown(&mut cx) {
                // A socket that the far side has left already needs no end from us.
                Poll::Ready(Ok(()) | Err(_)) => {
                    self.finished = true;
                    total.finished = true;
                }
                Poll::Pending => {}
            }
        }
        total
    }
}

/// The local sockets of a tunnel, by the number of their flow.
#[derive(Default)]
pub(crate) struct Sockets {
    pub(crate) by_cid: FxHashMap<u32, FlowSocket>,
}

impl FlowSource for Sockets {
    fn read(&mut self, cid: u32, out: &mut BytesMut, max: usize) -> SourceRead {
        let Some(socket) = self.by_cid.get_mut(&cid) else {
            return SourceRead::Blocked;
        };
        let Some(io) = &mut socket.io else {
            return SourceRead::Blocked;
        };
        out.reserve(max);
        let mut cx = Context::from_waker(&socket.waker);
        match poll_read_buf(Pin::new(io), &mut cx, &mut out.limit(max)) {
            Poll::Pending => SourceRead::Blocked,
            Poll::Ready(Ok(0)) => SourceRead::End,
            Poll::Ready(Ok(bytes)) => SourceRead::Bytes(bytes),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
                socket.waker.wake_by_ref();
                SourceRead::Blocked
            }
            Poll::Ready(Err(_)) => SourceRead::Failed,
        }
    }
}
