//! Whose fault it was, and why a tunnel ended.

use thiserror::Error;

use crate::frame::{CloseCode, DecodeError, FrameType};

/// What a peer did that no honest peer does. It ends the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolViolation {
    /// The message is not a sequence of frames.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The frame may not come now, or not from that end.
    #[error("a {frame:?} frame is out of place: {why}")]
    Unexpected {
        /// The frame.
        frame: FrameType,
        /// What rule it breaks.
        why: &'static str,
    },
    /// A flow's number was never given, or was given before.
    #[error("cid {cid} {why}")]
    Cid {
        /// The number.
        cid: u32,
        /// What rule it breaks.
        why: &'static str,
    },
    /// A flow's offsets do not add up.
    #[error("cid {cid}: {detail}")]
    Offsets {
        /// The flow.
        cid: u32,
        /// What does not add up.
        detail: String,
    },
    /// The message is longer than the agent was told.
    #[error("a message has {bytes} bytes where HELLO_ACK allows {max}")]
    LongMessage {
        /// How long it is.
        bytes: usize,
        /// How long it may be, in bytes.
        max: usize,
    },
    /// The peer does not read, and what this end must tell it piles up.
    #[error("{frames} frames wait for a peer that does not read")]
    NotReading {
        /// Frames that wait.
        frames: usize,
    },
}

/// Why a tunnel ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {detail}")]
pub struct TunnelClosed {
    /// The reason.
    pub code: CloseCode,
    /// The reason in words.
    pub detail: String,
    /// Whether this end ended it.
    pub local: bool,
}

impl TunnelClosed {
    /// This end ended the tunnel.
    #[must_use]
    pub fn local(code: CloseCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            local: true,
        }
    }

    /// The far end did, or the transport broke.
    #[must_use]
    pub fn remote(code: CloseCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            local: false,
        }
    }

    /// Whether the same agent may come back and be taken.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        self.code.is_retryable()
    }

    /// Whether the flows may go on in a later tunnel: the transport failed, nobody decided.
    #[must_use]
    pub const fn is_resumable(&self) -> bool {
        matches!(
            self.code,
            CloseCode::TransportLost
                | CloseCode::PingTimeout
                | CloseCode::Replaced
                | CloseCode::DrainDone
        )
    }
}

impl From<ProtocolViolation> for TunnelClosed {
    fn from(violation: ProtocolViolation) -> Self {
        Self::local(CloseCode::ProtocolViolation, violation.to_string())
    }
}
