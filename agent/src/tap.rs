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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// How much of one service's use there was, shown or not.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    passed: AtomicU64,
    failed: AtomicU64,
    /// Since it was asked for last.
    not_shown: AtomicU64,
}

impl Counts {
    /// Requests and connections.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Those among them, and those that did not reach the service, that went wrong there.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How many were not shown since the last call.
    pub(crate) fn take_not_shown(&self) -> u64 {
        self.not_shown.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn count(&self, seen: &Seen) {
        let (passed, failed) = match seen {
            Seen::Request { status, .. } => (1, u64::from(is_fault(*status))),
            Seen::Connection { .. } => (1, 0),
            Seen::Unreachable { .. } => (0, 1),
        };
        self.passed.fetch_add(passed, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
    }
}

/// Whether a response, or that there is none, is the service's fault.
pub(crate) fn is_fault(status: Option<u16>) -> bool {
    status.is_none_or(|status| status >= 500)
}

/// Tells whoever watches one service.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    protocol: Protocol,
    watcher: mpsc::Sender<Seen>,
    counts: Arc<Counts>,
}

impl Tap {
    pub(crate) fn new(
        protocol: Protocol,
        watcher: mpsc::Sender<Seen>,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            protocol,
            watcher,
            counts,
        }
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
        self.counts.count(&seen);
        // A screen that is behind misses some: traffic does not wait for it.
        if self.watcher.try_send(seen).is_err() {
            self.counts.not_shown.fetch_add(1, Ordering::Relaxed);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_counted_all_the_same() {
        let (watcher, mut seen) = mpsc::channel(1);
        let counts = Arc::new(Counts::default());
        let tap = Tap::new(Protocol::Http, watcher, Arc::clone(&counts));
        for status in [Some(200), Some(502), None, Some(404)] {
            tap.tell(Seen::Request {
                method: "GET".to_owned(),
                path: "/".to_owned(),
                status,
                took: Duration::ZERO,
            });
        }
        tap.tell(Seen::Unreachable {
            reason: "refused".to_owned(),
        });
        assert!(seen.try_recv().is_ok() && seen.try_recv().is_err());
        assert_eq!((counts.passed(), counts.failed()), (4, 3));
        assert_eq!(counts.take_not_shown(), 4);
        assert_eq!(counts.take_not_shown(), 0);
    }
}
