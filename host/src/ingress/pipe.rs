//! The pipe between the HTTP client and a flow, which knows how the flow's direction ended.
//!
//! To the client of HTTP/1.1 the end of a pipe is the end of a body without a length, whether the
//! origin ended it or the flow broke in the middle. The driver of a flow tells the two apart: it
//! shuts its side down where the origin's end has come with every byte before it, and drops it
//! where the flow was reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Whether the origin itself has ended what it sends.
#[derive(Clone, Debug, Default)]
pub(super) struct OriginEnd(Arc<AtomicBool>);

impl OriginEnd {
    pub(super) fn has_come(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The flow's side of the pipe.
#[derive(Debug)]
pub(super) struct FlowSide {
    stream: DuplexStream,
    end: OriginEnd,
}

/// The client's side, the flow's, and what becomes known of the latter.
pub(super) fn pipe(bytes: usize) -> (DuplexStream, FlowSide, OriginEnd) {
    let (near, stream) = tokio::io::duplex(bytes);
    let end = OriginEnd::default();
    let far = FlowSide {
        stream,
        end: end.clone(),
    };
    (near, far, end)
}

impl AsyncRead for FlowSide {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for FlowSide {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Before the client can see it.
        self.end.0.store(true, Ordering::Release);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn only_an_end_that_was_sent_has_come() {
        for shut in [true, false] {
            let (mut near, mut far, end) = pipe(16);
            far.write_all(b"part").await.unwrap();
            if shut {
                far.shutdown().await.unwrap();
            }
            drop(far);
            let mut read = Vec::new();
            near.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, b"part");
            assert_eq!(end.has_come(), shut);
        }
    }
}
