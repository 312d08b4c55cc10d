//! The PROXY protocol on the way in: who a client is when a load balancer stands in front.
//!
//! [`read_header`] is called right after accept, before anything is decided about the client. It
//! reads no byte beyond the header, so that the service's bytes stay in the socket.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::config::ProxyProtocolIn;

/// What a header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client's address; `None` for `LOCAL` and `UNKNOWN` (health checks of the proxy): then
    /// the socket's own peer counts.
    pub source: Option<SocketAddr>,
    /// The address that the client dialled.
    pub destination: Option<SocketAddr>,
}

/// Why a client is closed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProxyProtocolError(String);

/// Finds the client's address of a fresh connection whose socket peer is `peer`.
///
/// With `accept: off` nothing is read. From a trusted peer a header is required within
/// `header_timeout_ms`. From any other peer the connection passes as it is, unless it begins like
/// a header: then it is closed, because it would be believed further on.
///
/// # Errors
/// The connection has to be closed.
pub async fn read_header(
    stream: &mut TcpStream,
    peer: SocketAddr,
    config: &ProxyProtocolIn,
) -> Result<ProxyHeader, ProxyProtocolError> {
    let _ = (stream, peer, config);
    todo!()
}
