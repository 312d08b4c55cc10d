//! What an operator may set about a tunnel, and what is left when it ends.

use nowconnect_protocol::limits::MAX_MESSAGE_BYTES;
use nowconnect_protocol::{TunnelClosed, TunnelConfig};
use tokio::io::{AsyncRead, BufReader};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::detached::DetachedSession;

/// Bytes read from the transport at once. A TLS record brings at most 16 KiB, and the library
/// clears the space it offers before each read, so more would cost without gain.
const READ_BYTES: usize = 32 * 1024;

/// Bytes read from the kernel at once, below TLS.
///
/// rustls asks for one record at a time, which would be a system call for every 16 KiB.
const READ_AHEAD_BYTES: usize = 256 * 1024;

/// Wraps a transport so that it is read in large pieces; writes pass through. Goes below TLS.
pub fn read_ahead<S: AsyncRead>(transport: S) -> BufReader<S> {
    BufReader::with_capacity(READ_AHEAD_BYTES, transport)
}

/// Bytes that TLS should take from a tunnel at once (rustls calls it the buffer limit).
///
/// A whole message fits. With less, a message that the transport takes in parts is moved to
/// the front of its buffer after each.
pub const TLS_BUFFER_BYTES: usize = MAX_MESSAGE_BYTES + 65_536;

/// What an operator may set about a tunnel.
#[derive(Debug, Clone, Default)]
pub struct TunnelSettings {
    /// Limits and times of the protocol.
    pub config: TunnelConfig,
}

/// What is left of a tunnel.
#[derive(Debug)]
pub struct TunnelEnd {
    /// Why it ended.
    pub closed: TunnelClosed,
    /// Its flows, where they may go on in a later tunnel. Dropping it ends them with
    /// `ws_broken`.
    pub detached: Option<DetachedSession>,
}

/// The limits that the WebSocket of either end must have. A longer message than
/// [`MAX_MESSAGE_BYTES`] breaks the tunnel before it is read into memory; where a hub takes less,
/// its end of the protocol sees to it, which knows whether the agent was told.
#[must_use]
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE_BYTES + 4096)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}
