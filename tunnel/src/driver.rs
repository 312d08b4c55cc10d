//! What both drivers share: the transport, the sockets, the clock.

pub(crate) mod agent;
pub(crate) mod hub;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::{Sink, Stream};
use nowconnect_protocol::{AgentEnd, HubEnd, ResetCode, Tunnel};
use rustc_hash::FxHashMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::detached::{DetachedSession, DetachedSocket};
use crate::ready::ReadyList;
use crate::sockets::{FlowSocket, Sockets, Written};

/// Rounds of one poll. A driver that still has work then lets its neighbours run first.
const ROUNDS_PER_POLL: usize = 16;

/// Messages received in one round, before flows get their turn to send.
const MESSAGES_PER_ROUND: usize = 8;

/// Messages sent in one round, before the transport is read again.
const SENDS_PER_ROUND: usize = 4;

/// Time for which a tunnel that ends waits for its GOODBYE to go out.
const GOODBYE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// Time between two looks at what memory could be given back.
const TIDY_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// Messages whose memory may be used again once the far side has everything in them.
const RECYCLE_MESSAGES: usize = 12;

/// Room for what a tunnel says while it has no flows, in bytes.
const IDLE_BUFFER_BYTES: usize = 4_096;

/// Message size from which memory is worth using again, in bytes.
const RECYCLE_FROM_BYTES: usize = 65_536;

/// What a driver needs of either end's machine.
pub(crate) trait End {
    fn tunnel_mut(&mut self) -> &mut Tunnel;
    fn tunnel(&self) -> &Tunnel;
    fn handle_message(&mut self, now: Instant, message: Bytes);
    fn handle_transport_lost(&mut self, detail: &str);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_deadline(&self) -> Instant;
    /// Why a flow ends whose local socket broke.
    fn broken_code(&self) -> ResetCode;
    fn poll_transmit(
        &mut self,
        now: Instant,
        sockets: &mut Sockets,
        buf: &mut BytesMut,
    ) -> Option<Bytes>;
}

macro_rules! end {
    ($name:ident, $broken:ident) => {
        impl End for $name {
            fn tunnel_mut(&mut self) -> &mut Tunnel {
                $name::tunnel_mut(self)
            }

            fn tunnel(&self) -> &Tunnel {
                $name::tunnel(self)
            }

            fn handle_message(&mut self, now: Instant, message: Bytes) {
                $name::handle_message(self, now, message);
            }

            fn handle_transport_lost(&mut self, detail: &str) {
                $name::handle_transport_lost(self, detail);
            }

            fn handle_timeout(&mut self, now: Instant) {
                $name::handle_timeout(self, now);
            }

            fn poll_deadline(&self) -> Instant {
                $name::poll_deadline(self)
            }

            fn broken_code(&self) -> ResetCode {
                ResetCode::$broken
            }

            fn poll_transmit(
                &mut self,
                now: Instant,
                sockets: &mut Sockets,
                buf: &mut BytesMut,
            ) -> Option<Bytes> {
                $name::poll_transmit(self, now, sockets, buf)
            }
        }
    };
}

end!(HubEnd, ClientReset);
end!(AgentEnd, TargetReset);

/// The transport, the machine and the sockets of one tunnel.
pub(crate) struct Core<E, S> {
    pub(crate) end: E,
    ws: WebSocketStream<S>,
    /// The transport gave an error or ended; nothing is read or written any more.
    ws_over: bool,
    unflushed: bool,
    pub(crate) sockets: Sockets,
    /// Sockets of an earlier tunnel whose flows have not been named yet.
    pub(crate) waiting: FxHashMap<nowconnect_protocol::FlowRef, DetachedSocket>,
    pub(crate) ready: Arc<ReadyList>,
    woken: Vec<u32>,
    out: BytesMut,
    recycle: VecDeque<Bytes>,
    sleep: Pin<Box<Sleep>>,
    goodbye_by: Option<Instant>,
    tidy_at: Instant,
    sent_since_tidy: bool,
    /// Bytes wait in the memory of messages that are larger.
    scattered: bool,
}

impl<E: End, S: AsyncRead + AsyncWrite + Unpin> Core<E, S> {
    pub(crate) fn new(end: E, ws: WebSocketStream<S>) -> Self {
        let deadline = end.poll_deadline();
        Self {
            end,
            ws,
            ws_over: false,
            unflushed: false,
            sockets: Sockets::default(),
            waiting: FxHashMap::default(),
            ready: Arc::new(ReadyList::default()),
            woken: Vec::new(),
            out: BytesMut::new(),
            recycle: VecDeque::new(),
            sleep: Box::pin(tokio::time::sleep_until(deadline.into())),
            goodbye_by: None,
            tidy_at: Instant::now(),
            sent_since_tidy: false,
            scattered: false,
        }
    }

    /// Takes one message off the transport. Returns whether there was one.
    pub(crate) fn receive_one(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.ws_over {
            return false;
        }
        match Pin::new(&mut self.ws).poll_next(cx) {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(Message::Binary(message)))) => {
                self.end.handle_message(now, message);
                true
            }
            Poll::Ready(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {
                // The library answers pings when it is flushed.
                self.unflushed = true;
                true
            }
            Poll::Ready(Some(Ok(Message::Text(_)))) => {
                self.lost("a text message came where only binary ones are spoken");
                true
            }
            Poll::Ready(Some(Ok(Message::Close(_))) | None) => {
                self.lost("the far end closed the transport");
                true
            }
            Poll::Ready(Some(Err(error))) => {
                self.lost(&format!("the transport broke: {error}"));
                true
            }
        }
    }

    fn lost(&mut self, detail: &str) {
        self.ws_over = true;
        self.end.handle_transport_lost(detail);
    }

    /// Looks at the sockets that woke up.
    pub(crate) fn serve_woken(&mut self, now: Instant) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        self.ready.take(&mut woken);
        let any = !woken.is_empty();
        for cid in woken.drain(..) {
            let Some(socket) = self.sockets.by_cid.get_mut(&cid) else {
                continue;
            };
            socket.unlist();
            let written = socket.write_pending();
            self.note_written(now, cid, written);
            self.end.tunnel_mut().readable(cid);
        }
        self.woken = woken;
        any
    }

    pub(crate) fn note_written(&mut self, now: Instant, cid: u32, written: Written) {
        let broken = self.end.broken_code();
        let tunnel = self.end.tunnel_mut();
        if written.bytes > 0 {
            tunnel.delivered(now, cid, written.bytes);
        }
        if written.finished {
            tunnel.finish_delivered(now, cid);
        }
        if written.failed {
            tunnel.reset(now, cid, broken, "");
        }
    }

    /// Bytes came for a local socket.
    pub(crate) fn data(&mut self, now: Instant, cid: u32, payload: Bytes) {
        if let Some(socket) = self.sockets.by_cid.get_mut(&cid) {
            let written = socket.push(payload);
            self.scattered |= !socket.pending.is_empty();
            self.note_written(now, cid, written);
        }
    }

    /// The far side of a flow has ended.
    pub(crate) fn finish(&mut self, now: Instant, cid: u32) {
        if let Some(socket) = self.sockets.by_cid.get_mut(&cid) {
            socket.finish = true;
            let written = socket.write_pending();
            self.note_written(now, cid, written);
        }
    }

    /// Writes messages as long as the transport takes them. Returns whether any was written.
    pub(crate) fn transmit(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        for _ in 0..SENDS_PER_ROUND {
            if self.ws_over || !self.flush(cx) {
                return any;
            }
            self.prepare_buffer();
            let Some(message) = self
                .end
                .poll_transmit(now, &mut self.sockets, &mut self.out)
            else {
                return any;
            };
            any = true;
            self.sent_since_tidy = true;
            self.keep_for_later(&message);
            // The sink is ready: it was flushed.
            if let Err(error) = Pin::new(&mut self.ws).start_send(Message::Binary(message)) {
                self.lost(&format!("the transport broke: {error}"));
                return true;
            }
            self.unflushed = true;
        }
        any
    }

    /// Returns whether everything written so far has left this process.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.unflushed {
            return true;
        }
        match Pin::new(&mut self.ws).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                true
            }
            Poll::Ready(Err(error)) => {
                self.lost(&format!("the transport broke: {error}"));
                false
            }
            Poll::Pending => false,
        }
    }

    /// Large messages are written into the memory of earlier ones whose bytes have arrived:
    /// fresh memory costs a page fault for every four kilobytes.
    fn prepare_buffer(&mut self) {
        if !self.end.tunnel().may_transmit() {
            // What was given back in a quiet time would be taken again for nothing.
            return;
        }
        let idle = self.end.tunnel().flow_count() == 0;
        if self.out.capacity() >= RECYCLE_FROM_BYTES || (idle && self.out.capacity() >= 1_024) {
            return;
        }
        while let Some(front) = self.recycle.front() {
            if !front.is_unique() {
                break;
            }
            if let Some(Ok(buf)) = self.recycle.pop_front().map(Bytes::try_into_mut)
                && buf.capacity() >= self.end.tunnel().max_message()
            {
                self.out = buf;
                return;
            }
        }
        // A tunnel without flows has little to say.
        let capacity = if idle {
            IDLE_BUFFER_BYTES
        } else {
            self.end.tunnel().max_message() + IDLE_BUFFER_BYTES
        };
        self.out = BytesMut::with_capacity(capacity);
    }

    fn keep_for_later(&mut self, message: &Bytes) {
        if message.len() >= RECYCLE_FROM_BYTES && self.recycle.len() < RECYCLE_MESSAGES {
            self.recycle.push_back(message.clone());
        }
    }

    /// Lets time pass, and asks to be woken at the next deadline. Returns whether it is time to
    /// report, which is about once a second.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut deadline = self.end.poll_deadline();
        if deadline <= now {
            self.end.handle_timeout(now);
            deadline = self.end.poll_deadline();
        }
        if let Some(by) = self.goodbye_by {
            // The machine's own deadlines may have passed and mean nothing any more.
            deadline = by;
        }
        let report = now >= self.tidy_at;
        if report {
            self.tidy(now);
        }
        // Nobody else may wake a tunnel that has gone quiet.
        if self.holds_spare_memory() {
            deadline = deadline.min(self.tidy_at);
        }
        // A timer that rings early costs a look; setting it anew for each message costs more.
        let ringing = self.sleep.is_elapsed();
        if ringing || self.sleep.deadline().into_std() > deadline {
            self.sleep.as_mut().reset(deadline.into());
        }
        if self.sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        report
    }

    /// Whether memory could be given back if nothing more is sent.
    fn holds_spare_memory(&self) -> bool {
        self.scattered || !self.recycle.is_empty() || self.out.capacity() > IDLE_BUFFER_BYTES
    }

    /// Gives back memory that nothing needs now.
    fn tidy(&mut self, now: Instant) {
        self.tidy_at = now + TIDY_INTERVAL;
        if !std::mem::take(&mut self.sent_since_tidy) {
            self.recycle = VecDeque::new();
            if self.out.capacity() > IDLE_BUFFER_BYTES {
                self.out = BytesMut::new();
            }
        }
        self.scattered = false;
        for socket in self.sockets.by_cid.values_mut() {
            self.scattered |= socket.compact();
        }
    }

    /// Whether the tunnel has ended and said so as well as it could.
    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        match self.end.tunnel().closed() {
            None => return false,
            // Nobody is left to hear a GOODBYE.
            Some(closed) if !closed.local => return true,
            Some(_) => {}
        }
        let by = *self.goodbye_by.get_or_insert(now + GOODBYE_TIMEOUT);
        self.ws_over || now >= by || (self.flush(cx) && !self.transmit(cx, now) && self.flush(cx))
    }

    /// Gives the flow's socket to the driver.
    pub(crate) fn add_socket(&mut self, cid: u32, socket: FlowSocket) {
        self.sockets.by_cid.insert(cid, socket);
    }

    /// A flow of an earlier tunnel goes on here.
    pub(crate) fn resumed(
        &mut self,
        now: Instant,
        flow_ref: &nowconnect_protocol::FlowRef,
        cid: u32,
    ) {
        let Some(waiting) = self.waiting.remove(flow_ref) else {
            self.end
                .tunnel_mut()
                .reset(now, cid, ResetCode::Internal, "the flow lost its socket");
            return;
        };
        let Ok(io) = waiting.io.fasten() else {
            let broken = self.end.broken_code();
            self.end.tunnel_mut().reset(now, cid, broken, "");
            return;
        };
        let mut socket = FlowSocket::new(
            cid,
            waiting.connector,
            Some(io),
            waiting.observer,
            &self.ready,
        );
        socket.pending = waiting.pending;
        socket.finish = waiting.finish;
        socket.finished = waiting.finished;
        let written = socket.write_pending();
        self.add_socket(cid, socket);
        self.note_written(now, cid, written);
        self.end.tunnel_mut().readable(cid);
    }

    /// Takes in the flows of an earlier tunnel; the machine has their state.
    pub(crate) fn attach(
        &mut self,
        sockets: FxHashMap<nowconnect_protocol::FlowRef, DetachedSocket>,
    ) {
        self.waiting.extend(sockets);
    }

    /// Takes the flows out, for a later tunnel.
    pub(crate) fn detach(&mut self) -> DetachedSession {
        let mut refs: FxHashMap<u32, nowconnect_protocol::FlowRef> = FxHashMap::default();
        for (flow_ref, cid) in self.end.tunnel().flow_refs() {
            refs.insert(cid, flow_ref.clone());
        }
        let flows = self.end.tunnel_mut().detach();
        let mut sockets = std::mem::take(&mut self.waiting);
        for (cid, socket) in std::mem::take(&mut self.sockets.by_cid) {
            // An agent's flow without a socket is still dialling: the hub asks for it again.
            let (Some(flow_ref), Some(io)) = (refs.remove(&cid), socket.io) else {
                continue;
            };
            let Ok(io) = io.loosen() else {
                continue;
            };
            sockets.insert(
                flow_ref,
                DetachedSocket {
                    io,
                    connector: socket.connector,
                    pending: socket.pending,
                    finish: socket.finish,
                    finished: socket.finished,
                    observer: socket.observer,
                },
            );
        }
        DetachedSession { flows, sockets }
    }
}

#[cfg(test)]
mod tests;
