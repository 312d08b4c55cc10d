//! Bodies on their way through: frame by frame, never gathered.
//!
//! A frame is taken from one side when the other side asks for it, so the slower end paces the
//! faster one over the flow and its windows, and what is held is bounded by those.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::headers;
use super::leash::Leash;
use super::patience::Patience;
use super::progress::{Progress, Trouble};
use super::running::Running;
use crate::viewer::IdentityNames;

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// See [`Trouble::TooLarge`].
    #[error("the request's body is larger than allowed")]
    TooLarge,
    /// See [`Trouble::Timeout`].
    #[error("the request's body did not come in time")]
    Timeout,
    /// The far side broke it.
    #[error("the body did not come to its end")]
    Broken,
    /// The hub ended it: it is no longer allowed.
    #[error("the exchange was ended by the hub")]
    Cut,
}

/// The body of a request on its way to an origin.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// None where the request has no body.
    incoming: Option<Incoming>,
    progress: Arc<Progress>,
    max_bytes: u64,
    /// With the client, while it owes bytes.
    patience: Patience,
    /// What no trailer may say.
    withheld: Option<Arc<IdentityNames>>,
}

impl RequestBody {
    /// That of a request without one.
    pub(crate) fn none(progress: &Arc<Progress>) -> Self {
        let patience = Patience::new(Duration::ZERO, None);
        Self::new(None, Arc::clone(progress), None, patience)
    }

    /// At most `max_bytes` of it, from a client with whom there is so much `patience`.
    pub(crate) fn new(
        incoming: Option<Incoming>,
        progress: Arc<Progress>,
        max_bytes: Option<u64>,
        patience: Patience,
    ) -> Self {
        Self {
            incoming,
            progress,
            max_bytes: max_bytes.unwrap_or(u64::MAX),
            patience,
            withheld: None,
        }
    }

    /// The same without trailers of these names.
    pub(crate) fn withholding(mut self, names: Arc<IdentityNames>) -> Self {
        self.withheld = Some(names);
        self
    }

    fn fail(
        &mut self,
        trouble: Trouble,
        error: BodyError,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.progress.fail(trouble);
        self.incoming = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Pending => {
                this.progress.waits();
                if this.progress.is_answered() {
                    return Poll::Pending;
                }
                ready!(this.patience.poll_over(cx));
                this.fail(Trouble::Timeout, BodyError::Timeout)
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                this.patience.moved(frame.data_ref().map_or(0, Bytes::len));
                if let Some(trailers) = frame.trailers_mut() {
                    headers::strip_trailers(trailers);
                    if let Some(names) = &this.withheld {
                        headers::strip(trailers, |name| names.contains(name));
                    }
                }
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.progress.moved(length) > this.max_bytes {
                    return this.fail(Trouble::TooLarge, BodyError::TooLarge);
                }
                let ended = this.incoming.as_ref().is_none_or(Body::is_end_stream);
                if ended {
                    this.progress.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => this.fail(Trouble::Broken, BodyError::Broken),
            Poll::Ready(None) => {
                this.progress.finish();
                this.incoming = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            Some(incoming) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// The body of a response on its way to a viewer.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// Of the hub itself or of a plugin.
    Whole(Full<Bytes>),
    /// Of an origin.
    Origin(OriginBody),
}

impl ReplyBody {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Full::new(bytes))
    }

    pub(crate) fn empty() -> Self {
        Self::whole(Bytes::new())
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match self.get_mut() {
            Self::Whole(body) => match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => {
                    Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
                }
                Poll::Pending => Poll::Pending,
            },
            Self::Origin(body) => body.poll_frame(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            Leash::given(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Origin(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Origin(body) => body.size_hint(),
        }
    }
}

/// The body that an origin sends, with all that ends when it does.
#[derive(Debug)]
pub(crate) struct OriginBody {
    incoming: Incoming,
    /// Whether it ends where the origin's connection does, for want of a length.
    until_close: bool,
    /// What of the last frame goes on after the rest.
    rest: Bytes,
    max_piece_bytes: usize,
    /// None once the body has come to its end.
    running: Option<Box<Running>>,
}

impl OriginBody {
    /// Given on in pieces of `max_piece_bytes` at most.
    pub(crate) fn new(
        incoming: Incoming,
        until_close: bool,
        max_piece_bytes: usize,
        running: Box<Running>,
    ) -> Self {
        let mut body = Self {
            incoming,
            until_close,
            rest: Bytes::new(),
            max_piece_bytes,
            running: Some(running),
        };
        body.end_if_ended();
        body
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(running) = self.running.take_if(|running| running.is_cut()) {
            running.breaks_off();
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        if !self.rest.is_empty() {
            let data = std::mem::take(&mut self.rest);
            let frame = Frame::data(self.piece(data));
            self.end_if_ended();
            return Poll::Ready(Some(Ok(frame)));
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => {
                if let Some(running) = &self.running {
                    running.has_room();
                }
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                let frame = match frame.into_data() {
                    Ok(data) => Frame::data(self.piece(data)),
                    Err(other) => other,
                };
                self.end_if_ended();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => {
                if let Some(running) = self.running.take() {
                    running.broken_by_origin();
                }
                Poll::Ready(Some(Err(BodyError::Broken)))
            }
            Poll::Ready(None) => self.incoming_ended(),
        }
    }

    /// What of `data` goes on now; the rest waits for its turn.
    fn piece(&mut self, mut data: Bytes) -> Bytes {
        if data.len() > self.max_piece_bytes {
            self.rest = data.split_off(self.max_piece_bytes);
        }
        if let Some(running) = &mut self.running {
            running.sent(data.len() as u64);
        }
        data
    }

    fn incoming_ended(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(running) = self.running.take() else {
            return Poll::Ready(None);
        };
        if self.until_close && !running.origin_finished() {
            running.broken_by_origin();
            return Poll::Ready(Some(Err(BodyError::Broken)));
        }
        running.complete();
        Poll::Ready(None)
    }

    /// Whoever sends the body may not ask for a frame after the last.
    fn end_if_ended(&mut self) {
        if self.rest.is_empty()
            && self.incoming.is_end_stream()
            && let Some(running) = self.running.take()
        {
            running.complete();
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let incoming = self.incoming.size_hint();
        let rest = self.rest.len() as u64;
        if rest == 0 {
            return incoming;
        }
        let mut hint = SizeHint::new();
        hint.set_lower(incoming.lower().saturating_add(rest));
        if let Some(upper) = incoming.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
