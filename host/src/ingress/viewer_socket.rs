//! A viewer's socket: what waits for the viewer must move.
//!
//! Silence is no fault: an event stream may have nothing to say for hours. But bytes that wait for
//! a viewer which takes none of them, or next to none, hold buffers, a flow and a place among the requests, and
//! nothing above the socket can tell: the HTTP library looks at nothing else until they are gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::patience::Patience;
use crate::config::MinRate;

/// What is to be known of the socket by those who do not hold it.
#[derive(Debug, Default)]
pub(crate) struct SocketFate {
    resets: AtomicBool,
    stalled: AtomicBool,
    /// Whether it may take as little at a time as it likes.
    unpaced: AtomicBool,
}

impl SocketFate {
    /// However it ends, its viewer must not take what it got for all there was.
    pub(crate) fn reset(&self) {
        self.resets.store(true, Ordering::Release);
    }

    /// It has become something whose pace is the service's affair.
    pub(crate) fn set_unpaced(&self) {
        self.unpaced.store(true, Ordering::Release);
    }

    /// Whether its viewer took nothing, or next to nothing, for too long.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }
}

/// See the module. Fails where a write waits for `within` and not one byte is taken, and where less
/// is taken than the least rate.
#[derive(Debug)]
pub(crate) struct ViewerSocket {
    stream: TcpStream,
    fate: Arc<SocketFate>,
    patience: Patience,
}

impl ViewerSocket {
    pub(crate) fn new(
        stream: TcpStream,
        fate: Arc<SocketFate>,
        within: Duration,
        min_rate: Option<MinRate>,
    ) -> Self {
        Self {
            stream,
            fate,
            patience: Patience::new(within, min_rate),
        }
    }

    /// Watches a write that came to this.
    fn watched(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &wrote {
            self.patience
                .moved(written.as_ref().map_or(0, |bytes| *bytes));
            return wrote;
        }
        if self.fate.unpaced.load(Ordering::Acquire) {
            self.patience.forget_rate();
        }
        ready!(self.patience.poll_over(cx));
        self.fate.stalled.store(true, Ordering::Release);
        self.fate.reset();
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the viewer takes too little of what waits for it",
        )))
    }
}

impl Drop for ViewerSocket {
    fn drop(&mut self) {
        if self.fate.resets.load(Ordering::Acquire) {
            // Closing it throws away what was not taken and says so (RFC 9293, 3.10.5). A socket
            // that is gone already needs no more.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for ViewerSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ViewerSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, data);
        self.watched(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watched(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn a_viewer_that_takes_nothing_is_reset() {
        let (mut socket, mut viewer, fate) = pair(Duration::from_millis(50)).await;
        // Kernels hold some of it.
        let part = vec![0; 1 << 20];
        let error = loop {
            match socket.write_all(&part).await {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(fate.is_stalled());
        drop(socket);
        let mut taken = Vec::new();
        let error = viewer.read_to_end(&mut taken).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn silence_is_no_fault() {
        let (mut socket, mut viewer, fate) = pair(Duration::from_millis(1)).await;
        for _ in 0..3 {
            socket.write_all(b"a").await.unwrap();
            assert_eq!(viewer.read_u8().await.unwrap(), b'a');
            sleep(Duration::from_millis(5)).await;
        }
        assert!(!fate.is_stalled());
        drop(socket);
        assert_eq!(viewer.read(&mut [0]).await.unwrap(), 0, "an ordinary end");
    }

    async fn pair(within: Duration) -> (ViewerSocket, TcpStream, Arc<SocketFate>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let viewer = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let fate = Arc::new(SocketFate::default());
        let socket = ViewerSocket::new(stream, Arc::clone(&fate), within, None);
        (socket, viewer, fate)
    }
}
