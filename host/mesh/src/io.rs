//! What a link runs over.

use nowconnect_protocol::limits::MAX_MESSAGE_BYTES;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::limits::MAX_HELLO_BYTES;

/// A connection to another hub, with or without TLS.
pub trait MeshIo: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> MeshIo for T {}

/// Bytes that TLS should take at once: a whole message fits.
pub const TLS_BUFFER_BYTES: usize = MAX_MESSAGE_BYTES + 65_536;

/// Bytes read from the transport at once; a TLS record brings at most half of it.
const READ_BYTES: usize = 32 * 1024;

/// The limits of the WebSocket of a peer that has proven who it is. permessage-deflate is never
/// offered or accepted: the library has none.
#[must_use]
pub fn link_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE_BYTES + 4096)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// The limits of the WebSocket of a peer that has not. An acceptor has these until it welcomes:
/// up to then the peer has nothing longer to say.
#[must_use]
pub fn hello_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_HELLO_BYTES)
        .max_message_size(Some(MAX_HELLO_BYTES))
        .max_frame_size(Some(MAX_HELLO_BYTES))
}
