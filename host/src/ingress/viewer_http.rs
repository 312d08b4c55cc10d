//! HTTP with one viewer, from the first request of its connection to the last.
//!
//! A connection has to end by itself: it holds a place in the bounds on number. It does where it is
//! idle for as long as a request's head may take, over HTTP/2 by GOAWAY, where it is as old as it
//! may be, and where its viewer takes nothing of what waits for it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::debug;

use super::bound;
use super::door::Viewer;
use super::exchange;
use super::leash::{Leash, Leashed};
use super::viewer_socket::SocketFate;
use crate::config::IngressLimits;

/// Bytes of a request's body that one HTTP/2 stream may send ahead of its origin.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of responses that wait for one HTTP/2 stream's viewer.
const STREAM_SEND_BYTES: usize = 64 * 1024;

/// How long the answer to a ping over HTTP/2 may take; then the viewer is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The least that the HTTP library takes for a buffer.
const MIN_BUFFER_BYTES: usize = 8192;

/// Serves requests until the connection ends, or becomes something else.
pub(super) async fn serve<S>(
    viewer: Arc<Viewer>,
    stream: S,
    speaks_http2: bool,
    limits: &IngressLimits,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (peer, socket) = (viewer.peer, Arc::clone(&viewer.socket));
    let ending = ending(&viewer, limits.max_connection_age);
    let service = service_fn(move |request| {
        let viewer = Arc::clone(&viewer);
        async move { Ok::<_, Infallible>(exchange::answer(viewer, request).await) }
    });
    let served = if speaks_http2 {
        let streams = Streams::new(&socket, limits.send_timeout);
        let connection = http2::Builder::new(streams.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_streams)
            .max_header_list_size(limits.max_header_bytes)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(STREAM_SEND_BYTES)
            .keep_alive_interval(limits.header_timeout)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let idle = (&streams, limits.header_timeout);
        until_idle(
            connection,
            ending,
            |connection| {
                connection.graceful_shutdown();
            },
            idle,
        )
        .await
    } else {
        let header_bytes = bound(limits.max_header_bytes).max(MIN_BUFFER_BYTES);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_headers(bound(limits.max_headers))
            .max_buf_size(header_bytes)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let connection = Leashed::new(connection, Leash::of_connection(&socket));
        until_ended(connection, ending, |connection| {
            connection.graceful_shutdown();
        })
        .await
    };
    match served {
        Some(Ok(())) => {}
        Some(Err(error)) => debug!(%peer, %error, "a viewer's connection ended"),
        None => debug!(%peer, "a viewer's connection was ended by the hub"),
    }
}

/// Ready when a connection should take no further requests.
fn ending(viewer: &Viewer, max_age: Option<Duration>) -> impl Future<Output = ()> + use<> {
    let mut phase = viewer.hub.phase();
    let mut stop = viewer.door.stop.subscribe();
    async move {
        let too_old = async {
            match max_age {
                Some(age) => tokio::time::sleep(age).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = phase.draining() => {}
            _ = stop.wait_for(|stopped| *stopped) => {}
            () = too_old => {}
        }
    }
}

/// Drives a connection of HTTP/1.1 to its end, and lets it `finish` the request under way once
/// `ending` comes true. The library ends one that waits too long for its next request.
async fn until_ended<C: Future>(
    mut connection: Leashed<C>,
    ending: impl Future<Output = ()>,
    finish: impl FnOnce(Pin<&mut C>),
) -> Option<C::Output> {
    tokio::select! {
        served = &mut connection => return served,
        () = ending => finish(connection.inner()),
    }
    connection.await
}

/// The same with one of HTTP/2, which also has to finish once it has carried no request for
/// `idle`, and is ended where it then does not.
async fn until_idle<C: Future>(
    connection: C,
    ending: impl Future<Output = ()>,
    finish: impl FnOnce(Pin<&mut C>),
    (streams, idle): (&Streams, Duration),
) -> Option<C::Output> {
    let mut connection = pin!(connection);
    tokio::select! {
        served = &mut connection => return Some(served),
        () = ending => {}
        () = streams.idle_for(idle) => {}
    }
    finish(connection.as_mut());
    // Whoever does not answer GOAWAY, or takes nothing of the last frames, is not waited for.
    streams.load.lock().idle_since = Instant::now();
    tokio::select! {
        served = connection => Some(served),
        () = streams.idle_for(idle) => None,
    }
}

/// Runs the streams of one HTTP/2 connection, each on a leash of its own.
#[derive(Clone, Debug)]
struct Streams {
    socket: Arc<SocketFate>,
    stall_timeout: Duration,
    load: Arc<Mutex<Load>>,
}

/// How many streams there are.
#[derive(Debug)]
struct Load {
    active: usize,
    /// What it means while there are none.
    idle_since: Instant,
}

/// One of the streams, while it lives.
struct Active(Arc<Mutex<Load>>);

impl Streams {
    fn new(socket: &Arc<SocketFate>, stall_timeout: Duration) -> Self {
        Self {
            socket: Arc::clone(socket),
            stall_timeout,
            load: Arc::new(Mutex::new(Load {
                active: 0,
                idle_since: Instant::now(),
            })),
        }
    }

    fn enter(&self) -> Active {
        self.load.lock().active += 1;
        Active(Arc::clone(&self.load))
    }

    /// Ready once there has been no stream for so long.
    async fn idle_for(&self, within: Duration) {
        loop {
            let silent = self.load.lock().silent();
            if silent >= within {
                return;
            }
            tokio::time::sleep(within - silent).await;
        }
    }
}

impl Load {
    fn silent(&self) -> Duration {
        match self.active {
            0 => self.idle_since.elapsed(),
            _ => Duration::ZERO,
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut load = self.0.lock();
        load.active -= 1;
        load.idle_since = Instant::now();
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let active = self.enter();
        let leash = Leash::of_stream(&self.socket, self.stall_timeout);
        tokio::spawn(async move {
            // Whether it came to its end or has to end, dropping it is all there is to do.
            drop(Leashed::new(stream, leash).await);
            drop(active);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_connection_is_idle_only_without_streams() {
        let streams = Streams::new(&Arc::default(), SHORT);
        let active = streams.enter();
        let idle = tokio::time::timeout(SHORT * 3, streams.idle_for(SHORT)).await;
        assert!(idle.is_err(), "it has a stream");
        drop(active);
        streams.idle_for(SHORT).await;
    }

    #[tokio::test]
    async fn one_that_does_not_finish_is_ended() {
        let streams = Streams::new(&Arc::default(), SHORT);
        let mut asked = false;
        let served = until_idle(
            std::future::pending::<()>(),
            std::future::pending(),
            |_| asked = true,
            (&streams, SHORT),
        );
        assert_eq!(served.await, None);
        assert!(asked);
    }
}
