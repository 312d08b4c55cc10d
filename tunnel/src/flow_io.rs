//! The local socket of a flow.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Any other stream that can stand at the end of a flow: TLS to a target, a pipe in memory.
pub trait FlowStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> FlowStream for T {}

/// The local socket of a flow: the client's at the hub, the target's at the agent.
///
/// The two kernel sockets are told apart because a driver moves to another thread with them,
/// and then they must be registered with that thread's reactor.
pub enum FlowIo {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A Unix connection.
    Unix(UnixStream),
    /// A TCP connection that no reactor knows yet; it must be in non-blocking mode. The driver
    /// registers it on its own thread, which saves a change of reactor.
    Std(std::net::TcpStream),
    /// Anything else. It must not depend on the reactor of the thread that made it, unless
    /// driver and maker share one.
    Boxed(Box<dyn FlowStream>),
}

impl fmt::Debug for FlowIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "FlowIo::Tcp",
            Self::Unix(_) => "FlowIo::Unix",
            Self::Std(_) => "FlowIo::Std",
            Self::Boxed(_) => "FlowIo::Boxed",
        })
    }
}

impl From<TcpStream> for FlowIo {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for FlowIo {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl From<std::net::TcpStream> for FlowIo {
    fn from(stream: std::net::TcpStream) -> Self {
        Self::Std(stream)
    }
}

impl From<Box<dyn FlowStream>> for FlowIo {
    fn from(stream: Box<dyn FlowStream>) -> Self {
        Self::Boxed(stream)
    }
}

/// A socket that belongs to no reactor: on its way from one driver to another.
pub(crate) enum LooseIo {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    Boxed(Box<dyn FlowStream>),
}

impl FlowIo {
    /// Takes the socket away from its reactor.
    pub(crate) fn loosen(self) -> io::Result<LooseIo> {
        Ok(match self {
            Self::Tcp(stream) => LooseIo::Tcp(stream.into_std()?),
            Self::Unix(stream) => LooseIo::Unix(stream.into_std()?),
            Self::Std(stream) => LooseIo::Tcp(stream),
            Self::Boxed(stream) => LooseIo::Boxed(stream),
        })
    }

    /// Makes sure that the socket is known to the reactor of this thread.
    pub(crate) fn registered(self) -> io::Result<Self> {
        Ok(match self {
            Self::Std(stream) => Self::Tcp(TcpStream::from_std(stream)?),
            other @ (Self::Tcp(_) | Self::Unix(_) | Self::Boxed(_)) => other,
        })
    }
}

impl AsyncRead for FlowIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Boxed(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Std(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for FlowIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Boxed(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Std(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Unix(_) | Self::Std(_) => Poll::Ready(Ok(())),
            Self::Boxed(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Boxed(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Std(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl LooseIo {
    /// Gives the socket to the reactor of this thread.
    pub(crate) fn fasten(self) -> io::Result<FlowIo> {
        Ok(match self {
            Self::Tcp(stream) => FlowIo::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => FlowIo::Unix(UnixStream::from_std(stream)?),
            Self::Boxed(stream) => FlowIo::Boxed(stream),
        })
    }
}
