//! The HTTP client of one connection to an origin, in either version.

use std::fmt;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::DuplexStream;
use tracing::debug;

use super::body::RequestBody;
use crate::config::IngressLimits;

/// The least that the HTTP library takes for a buffer.
const MIN_BUFFER_BYTES: usize = 8192;

/// Bytes of a response that an origin may send ahead of its viewer over HTTP/2. The flow's window
/// holds as much at least, and grows where that pays.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// Sends requests, one at a time.
pub(super) enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// Why a request got no response.
#[derive(Debug)]
pub(crate) struct SendError {
    /// What the HTTP client says.
    pub(crate) error: hyper::Error,
    /// The request's body, where nothing of the request was sent.
    pub(crate) unsent: Option<RequestBody>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1(_) => "Http1",
            Self::Http2(_) => "Http2",
        })
    }
}

impl Sender {
    /// Speaks over `pipe`, within the bounds on what an origin may send for a head.
    pub(super) async fn over(
        pipe: DuplexStream,
        http2: bool,
        limits: &IngressLimits,
    ) -> hyper::Result<Self> {
        let bound = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        let pipe = TokioIo::new(pipe);
        if http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(STREAM_WINDOW_BYTES)
                .max_header_list_size(limits.max_header_bytes)
                .handshake(pipe)
                .await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    debug!(%error, "a connection to an origin ended");
                }
            });
            return Ok(Self::Http2(sender));
        }
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(bound(limits.max_header_bytes).max(MIN_BUFFER_BYTES))
            .max_headers(bound(limits.max_headers))
            .handshake(pipe)
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, "a connection to an origin ended");
            }
        });
        Ok(Self::Http1(sender))
    }

    pub(super) fn is_http2(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(_) => true,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// Waits until it takes a request.
    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let sent = match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        };
        sent.map_err(|mut failed| {
            let unsent = failed.take_message().map(Request::into_body);
            let error = failed.into_error();
            SendError { error, unsent }
        })
    }
}
