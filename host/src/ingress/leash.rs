//! Ends an exchange whose viewer takes nothing, from outside.
//!
//! The HTTP library asks a body for bytes only where its viewer has room for them, so a body whose
//! viewer has none is never asked again, and cannot end itself. What drives the exchange can: over
//! HTTP/1.1 that is the connection, over HTTP/2 the stream. Each of the two runs inside
//! [`Leashed`], and whoever answers a request finds its [`Leash`] by [`Leash::current`].
//!
//! The library may hold the last bytes of an answer for as long as the viewer has no room for them,
//! when all that the answer needed is given back already. So a stream stays on its leash until it
//! ends, also one whose answer is the hub's own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

use super::in_flight::{Fate, InFlight};
use super::viewer_socket::SocketFate;

tokio::task_local! {
    static CURRENT: Arc<Leash>;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Leash {
    socket: Arc<SocketFate>,
    /// How long a stream's viewer may take nothing of what waits for it. None for a connection,
    /// whose socket sees to that by itself.
    stall_timeout: Option<Duration>,
    /// The exchange whose response is on its way.
    held: Mutex<Option<Arc<InFlight>>>,
    /// When the library got the bytes that it was given last, and how many they were.
    given: Mutex<Option<(std::time::Instant, usize)>>,
}

/// What a viewer that takes something at all takes within a stall's time.
const TAKEN_AT_LEAST: usize = 64 * 1024;

/// While it lives, the exchange ends when its request is cut or stalls.
#[derive(Debug)]
pub(crate) struct Hold {
    leash: Arc<Leash>,
}

impl Leash {
    /// Of a connection that carries one exchange at a time.
    pub(crate) fn of_connection(socket: &Arc<SocketFate>) -> Arc<Self> {
        Self::new(socket, None)
    }

    /// Of one stream of a connection.
    pub(crate) fn of_stream(socket: &Arc<SocketFate>, stall_timeout: Duration) -> Arc<Self> {
        Self::new(socket, Some(stall_timeout))
    }

    fn new(socket: &Arc<SocketFate>, stall_timeout: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            socket: Arc::clone(socket),
            stall_timeout,
            held: Mutex::new(None),
            given: Mutex::new(None),
        })
    }

    /// That of the exchange which this task answers now; none outside of [`Leashed`].
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// The library has got `length` bytes of the answer that this task gives now.
    pub(crate) fn given(length: usize) {
        // Outside of `Leashed` there is nobody who could end it.
        let _ = CURRENT.try_with(|leash| {
            if leash.stall_timeout.is_some() {
                *leash.given.lock() = Some((std::time::Instant::now(), length));
            }
        });
    }

    pub(crate) fn hold(self: &Arc<Self>, request: &Arc<InFlight>) -> Hold {
        *self.held.lock() = Some(Arc::clone(request));
        Hold {
            leash: Arc::clone(self),
        }
    }

    /// What was sent so far is not all of it, and its viewer has to see that. A stream is reset by
    /// the HTTP library, of a connection it would only see the end.
    pub(crate) fn breaks_off(&self) {
        if self.stall_timeout.is_none() {
            self.socket.reset();
        }
    }

    /// Whether the viewer's connection ended because the viewer took nothing.
    pub(crate) fn is_stalled(&self) -> bool {
        self.socket.is_stalled()
    }

    /// Ready once the exchange has to end. `timer` is the caller's own.
    fn poll_end(&self, cx: &mut Context<'_>, timer: &mut Option<Pin<Box<Sleep>>>) -> Poll<()> {
        let Some(request) = self.held.lock().clone() else {
            return self.poll_taken(cx, timer);
        };
        if request.poll_fate(cx).is_ready() {
            self.breaks_off();
            return Poll::Ready(());
        }
        let Some(within) = self.stall_timeout else {
            return Poll::Pending;
        };
        loop {
            let Some(since) = request.taking.since() else {
                *timer = None;
                return Poll::Pending;
            };
            let deadline = Instant::from_std(since) + within;
            if deadline <= Instant::now() {
                request.break_off(Fate::Stalled);
                return Poll::Ready(());
            }
            // Bytes that move put the deadline off; looking at it when it comes is cheaper than
            // moving the timer with each of them.
            let sleep = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            *timer = None;
        }
    }
}

impl Leash {
    /// Ready once what was given last has waited for too long, where nothing more will come.
    fn poll_taken(&self, cx: &mut Context<'_>, timer: &mut Option<Pin<Box<Sleep>>>) -> Poll<()> {
        let (Some(within), Some((since, length))) = (self.stall_timeout, *self.given.lock()) else {
            *timer = None;
            return Poll::Pending;
        };
        let times = u32::try_from(length / TAKEN_AT_LEAST).unwrap_or(u32::MAX);
        let deadline = Instant::from_std(since) + within.saturating_mul(times.saturating_add(1));
        let mut sleep = Box::pin(sleep_until(deadline));
        let polled = sleep.as_mut().poll(cx);
        // Kept, for it is what wakes this task; one that was there may be for another time.
        *timer = Some(sleep);
        polled
    }
}

impl Hold {
    pub(crate) fn leash(&self) -> &Leash {
        &self.leash
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        *self.leash.held.lock() = None;
    }
}

/// Runs `F` on its leash. Ends with `None` where the exchange has to end; then it is to be dropped,
/// which resets a stream and closes a connection.
pub(crate) struct Leashed<F> {
    inner: Pin<Box<F>>,
    leash: Arc<Leash>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F> Leashed<F> {
    pub(crate) fn new(inner: F, leash: Arc<Leash>) -> Self {
        Self {
            inner: Box::pin(inner),
            leash,
            timer: None,
        }
    }

    pub(crate) fn inner(&mut self) -> Pin<&mut F> {
        self.inner.as_mut()
    }
}

impl<F: Future> Future for Leashed<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let inner = this.inner.as_mut();
        let polled = CURRENT.sync_scope(Arc::clone(&this.leash), || inner.poll(cx));
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Some(output));
        }
        // Only now: what was polled may have begun an exchange.
        this.leash.poll_end(cx, &mut this.timer).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_exchange_that_nobody_polls_any_more_is_cut() {
        let request = InFlight::for_tests();
        let mut leashed = Box::pin(holding(&request, Duration::from_secs(3600)));
        assert!((&mut leashed).now_or_never().is_none());
        let cut = Arc::clone(&request);
        let ((), ended) = tokio::join!(async move { cut.cut() }, leashed);
        assert!(ended.is_none());
        assert!(request.is_cut());
    }

    #[tokio::test]
    async fn a_stream_stalls_only_while_something_waits_for_its_viewer() {
        let request = InFlight::for_tests();
        let within = Duration::from_millis(20);
        let mut leashed = Box::pin(holding(&request, within));
        let idle = tokio::time::timeout(within * 3, &mut leashed).await;
        assert!(idle.is_err(), "an origin that is silent is no stall");
        request.taking.given();
        assert!(leashed.await.is_none());
        assert_eq!(request.fate(), Some(Fate::Stalled));
    }

    #[tokio::test]
    async fn what_is_given_last_has_its_time_as_well() {
        let socket = Arc::default();
        let within = Duration::from_millis(20);
        let answering = |length: usize| async move {
            Leash::given(length);
            std::future::pending::<()>().await
        };
        let stream = Leashed::new(answering(100), Leash::of_stream(&socket, within));
        assert!(stream.await.is_none());
        let long = answering(100 * TAKEN_AT_LEAST);
        let long = Leashed::new(long, Leash::of_stream(&socket, within));
        let waited = tokio::time::timeout(within * 5, long).await;
        assert!(waited.is_err(), "who takes something is not stalled");
        // Of a connection its socket sees to that.
        let connection = Leashed::new(answering(100), Leash::of_connection(&socket));
        let waited = tokio::time::timeout(within * 5, connection).await;
        assert!(waited.is_err());
    }

    #[tokio::test]
    async fn an_exchange_that_has_ended_lets_go() {
        let request = InFlight::for_tests();
        let socket = Arc::default();
        let leashed = Leashed::new(
            async {
                drop(Leash::current().unwrap().hold(&request));
                request.cut();
                tokio::task::yield_now().await;
                7
            },
            Leash::of_connection(&socket),
        );
        assert_eq!(leashed.await, Some(7));
        assert!(Leash::current().is_none());
    }

    /// Goes on for ever, unless it has to end.
    fn holding(request: &Arc<InFlight>, within: Duration) -> Leashed<impl Future<Output = ()>> {
        let (request, socket) = (Arc::clone(request), Arc::default());
        let forever = async move {
            let _hold = Leash::current().unwrap().hold(&request);
            std::future::pending().await
        };
        Leashed::new(forever, Leash::of_stream(&socket, within))
    }
}
