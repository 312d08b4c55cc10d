//! What a person who publishes a service sees of its use.
//!
//! The agent carries bytes and knows no HTTP. Where a person watches, and only there, each
//! connection to a service is read along as it passes: the first lines of requests and responses,
//! and of the rest as much as tells where the next one begins. Nothing is held back or changed, and
//! what cannot be read is passed on unread. Queries, fields and bodies are not kept.

mod conversation;
mod framing;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nowconnect_protocol::FlowSummary;
use nowconnect_tunnel::{DialError, Dialed, FlowIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use self::conversation::Conversation;
use crate::publish::Protocol;

/// Things seen that wait to be shown; more are not shown.
pub(crate) const SEEN_WAITING_MAX: usize = 1024;

/// Something that a person sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A request, once its response begins or will not.
    Request {
        method: String,
        /// Without the query, which may hold secrets.
        path: String,
        /// `None` where the connection ended without a response.
        status: Option<u16>,
        /// From the head of the request to the head of the response.
        took: Duration,
    },
    /// A connection to a service that speaks something else has ended.
    Connection {
        bytes_in: u64,
        bytes_out: u64,
        lasted: Duration,
    },
    /// The service was not reached.
    Unreachable { reason: String },
}

/// Tells whoever watches one service.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    protocol: Protocol,
    watcher: mpsc::Sender<Seen>,
}

impl Tap {
    pub(crate) fn new(protocol: Protocol, watcher: mpsc::Sender<Seen>) -> Self {
        Self { protocol, watcher }
    }

    /// Reads along where HTTP/1.1 is spoken.
    pub(crate) fn follow(&self, dialed: Dialed) -> Dialed {
        let is_http1 = dialed.alpn.as_deref().is_none_or(|alpn| alpn == "http/1.1");
        if self.protocol != Protocol::Http || !is_http1 {
            return dialed;
        }
        let followed = Followed {
            io: dialed.io,
            conversation: Conversation::new(self.clone()),
        };
        Dialed {
            io: FlowIo::Boxed(Box::new(followed)),
            ..dialed
        }
    }

    pub(crate) fn unreachable(&self, error: &DialError) {
        self.tell(Seen::Unreachable {
            reason: error.message.clone(),
        });
    }

    pub(crate) fn ended(&self, summary: &FlowSummary) {
        if self.protocol == Protocol::Tcp {
            self.tell(Seen::Connection {
                bytes_in: summary.bytes_c2a,
                bytes_out: summary.bytes_a2c,
                lasted: summary.lasted,
            });
        }
    }

    fn tell(&self, seen: Seen) {
        // A screen that is behind misses some: traffic does not wait for it.
        let _ = self.watcher.try_send(seen);
    }
}

/// A connection that is read along.
struct Followed {
    io: FlowIo,
    conversation: Conversation,
}

impl AsyncRead for Followed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled {
            this.conversation.answered(&buf.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Followed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, data);
        if let Poll::Ready(Ok(written)) = polled {
            this.conversation.asked(&data[..written]);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
