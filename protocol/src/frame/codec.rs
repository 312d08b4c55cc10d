//! Bytes to frames and back.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::open::{put_flow_ref, take_flow_ref};
use super::tlv::{take, take_u8, take_u16, take_u32, take_u64, text};
use super::{
    CloseCode, Direction, Frame, FrameType, Hello, HelloAck, Open, OpenAck, Renew, RenewAck,
    ResetCode,
};
use crate::limits::{
    DATA_HEADER_BYTES, FRAME_HEADER_BYTES, MAX_CLAIM_BYTES, MAX_CONTROL_BODY_BYTES,
    MAX_DATA_PAYLOAD_BYTES, MAX_OPEN_BODY_BYTES, MAX_PROOF_BODY_BYTES, MAX_TEXT_BYTES,
    MESH_DATA_HEADER_BYTES,
};
use crate::name::NameError;

/// Why a message is not a sequence of frames.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The message ends within a frame.
    #[error("the message ends within a frame")]
    Truncated,
    /// The frame is longer than what it holds.
    #[error("a {frame:?} frame has {bytes} bytes too many")]
    Trailing {
        /// The frame.
        frame: FrameType,
        /// Bytes after its last field.
        bytes: usize,
    },
    /// The frame's type is unknown and may not be skipped.
    #[error("unknown frame type {tag:#04x}")]
    UnknownType {
        /// The tag found.
        tag: u8,
    },
    /// The type is known but is not spoken here: a tunnel's on a link, or a link's on a tunnel.
    #[error("a {frame:?} frame does not belong here")]
    Misplaced {
        /// The frame.
        frame: FrameType,
    },
    /// The body is larger than its type allows.
    #[error("a {frame:?} frame has at most {max} bytes, this one has {bytes}")]
    BodyTooLarge {
        /// The frame.
        frame: FrameType,
        /// Length found, in bytes.
        bytes: usize,
        /// Length allowed, in bytes.
        max: usize,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// A field has another length than its type.
    #[error("a field has the wrong length")]
    FieldLength,
    /// A value stands for nothing.
    #[error("a {what} has no such value")]
    Value {
        /// What was read.
        what: &'static str,
    },
    /// A required field is not there.
    #[error("the {what} is missing")]
    Missing {
        /// The field.
        what: &'static str,
    },
    /// A list is too long.
    #[error("more than {max} {what}")]
    TooMany {
        /// What the list holds.
        what: &'static str,
        /// Entries allowed.
        max: usize,
    },
    /// A text is too long.
    #[error("a {what} is longer than {max} bytes")]
    TooLong {
        /// What was read.
        what: &'static str,
        /// Bytes allowed.
        max: usize,
    },
    /// A name breaks the rules for names.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Appends `frame` to `out`.
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    let start = out.len();
    out.put_u8(frame.frame_type() as u8);
    out.put_slice(&[0; 3]);
    encode_body(frame, out);
    let length = out.len() - start - FRAME_HEADER_BYTES;
    write_length(&mut out[start + 1..start + FRAME_HEADER_BYTES], length);
}

/// Writes the three bytes of a body's length. Every body is bounded far below 2^24.
pub(crate) fn write_length(at: &mut [u8], length: usize) {
    debug_assert!(length < 1 << 24, "a frame's body is bounded");
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    at.copy_from_slice(&length[1..]);
}

/// Writes the header of a DATA frame into the [`DATA_HEADER_BYTES`] at `at`.
pub(crate) fn write_data_header(at: &mut [u8], cid: u32, seq: u64, payload: usize) {
    at[0] = FrameType::Data as u8;
    write_length(
        &mut at[1..4],
        payload + DATA_HEADER_BYTES - FRAME_HEADER_BYTES,
    );
    at[4..8].copy_from_slice(&cid.to_be_bytes());
    at[8..16].copy_from_slice(&seq.to_be_bytes());
}

/// Appends what follows the header of `frame`.
pub(crate) fn encode_body(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Hello(hello) => hello.encode(out),
        Frame::HelloAck(ack) => ack.encode(out),
        Frame::Renew(renew) => renew.encode(out),
        Frame::RenewAck(ack) => ack.encode(out),
        Frame::Goodbye { code, message } => {
            out.put_u16(code.to_wire());
            out.put_slice(clip(message));
        }
        Frame::Drain { deadline_ms } => out.put_u32(*deadline_ms),
        Frame::Ping { nonce } | Frame::Pong { nonce } => out.put_u64(*nonce),
        Frame::Open(open) => open.encode(out),
        Frame::OpenAck(ack) => ack.encode(out),
        Frame::Data { cid, seq, payload } => {
            out.put_u32(*cid);
            out.put_u64(*seq);
            out.put_slice(payload);
        }
        Frame::Fin { cid, dir, offset } => {
            out.put_u32(*cid);
            out.put_u8(u8::from(*dir == Direction::A2c));
            out.put_u64(*offset);
        }
        Frame::Rst { cid, code, message } => {
            out.put_u32(*cid);
            out.put_u16(code.to_wire());
            out.put_slice(clip(message));
        }
        Frame::Window {
            cid,
            received,
            limit,
        } => {
            out.put_u32(*cid);
            out.put_u64(*received);
            out.put_u64(*limit);
        }
        Frame::Resume {
            flow_ref,
            received,
            limit,
            sent,
        } => {
            put_flow_ref(out, flow_ref);
            out.put_u64(*received);
            out.put_u64(*limit);
            out.put_u64(*sent);
        }
        Frame::Resumed {
            flow_ref,
            cid,
            received,
            limit,
        } => {
            put_flow_ref(out, flow_ref);
            out.put_u32(*cid);
            out.put_u64(*received);
            out.put_u64(*limit);
        }
        Frame::ResumeEnd => {}
        Frame::Rewind {
            cid,
            received,
            limit,
        } => {
            out.put_u32(*cid);
            out.put_u64(*received);
            out.put_u64(*limit);
        }
        Frame::ResumeRst { flow_ref, code } => {
            put_flow_ref(out, flow_ref);
            out.put_u16(code.to_wire());
        }
    }
}

/// A text cut at the last character that fits [`MAX_TEXT_BYTES`].
fn clip(text: &str) -> &[u8] {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}

/// Takes the next frame from the front of `message`; none at its end, or after frames that
/// this build does not know and may skip.
///
/// # Errors
///
/// [`DecodeError`] where the message is not a sequence of frames. The tunnel cannot go on
/// then, since nothing says where the next frame would start.
pub fn decode(message: &mut Bytes) -> Result<Option<Frame>, DecodeError> {
    let Some((frame_type, mut body)) = next_frame(message)? else {
        return Ok(None);
    };
    check_length(frame_type, body.len())?;
    let frame = decode_body(frame_type, &mut body)?;
    if !body.is_empty() {
        return Err(DecodeError::Trailing {
            frame: frame_type,
            bytes: body.len(),
        });
    }
    Ok(Some(frame))
}

/// Takes the type and body of the next frame that this build knows.
pub(crate) fn next_frame(message: &mut Bytes) -> Result<Option<(FrameType, Bytes)>, DecodeError> {
    loop {
        if message.is_empty() {
            return Ok(None);
        }
        if message.len() < FRAME_HEADER_BYTES {
            return Err(DecodeError::Truncated);
        }
        let tag = message[0];
        let length =
            usize::from(message[1]) << 16 | usize::from(message[2]) << 8 | usize::from(message[3]);
        let body = {
            let _header = message.split_to(FRAME_HEADER_BYTES);
            take(message, length)?
        };
        if let Some(frame_type) = FrameType::from_tag(tag) {
            return Ok(Some((frame_type, body)));
        }
        if tag < 0x80 {
            return Err(DecodeError::UnknownType { tag });
        }
    }
}

/// Refuses a body that is longer than its type allows.
pub(crate) fn check_length(frame: FrameType, bytes: usize) -> Result<(), DecodeError> {
    let max = match frame {
        FrameType::Hello | FrameType::HelloAck | FrameType::Renew | FrameType::RenewAck => {
            MAX_CONTROL_BODY_BYTES
        }
        FrameType::Open => MAX_OPEN_BODY_BYTES,
        FrameType::MeshOpen => MAX_OPEN_BODY_BYTES + MAX_CLAIM_BYTES,
        FrameType::MeshProof => MAX_PROOF_BODY_BYTES,
        FrameType::Data => DATA_HEADER_BYTES - FRAME_HEADER_BYTES + MAX_DATA_PAYLOAD_BYTES as usize,
        FrameType::MeshData => {
            MESH_DATA_HEADER_BYTES - FRAME_HEADER_BYTES + MAX_DATA_PAYLOAD_BYTES as usize
        }
        FrameType::Goodbye
        | FrameType::Drain
        | FrameType::Ping
        | FrameType::Pong
        | FrameType::OpenAck
        | FrameType::Fin
        | FrameType::Rst
        | FrameType::Window
        | FrameType::Resume
        | FrameType::Resumed
        | FrameType::ResumeEnd
        | FrameType::ResumeRst
        | FrameType::Datagram
        | FrameType::Rewind
        | FrameType::MeshHello
        | FrameType::MeshOpenAck
        | FrameType::MeshFin
        | FrameType::MeshRst
        | FrameType::MeshWindow
        | FrameType::MeshCredit
        | FrameType::MeshResume
        | FrameType::MeshResumed
        | FrameType::MeshResumeRst
        | FrameType::MeshResumeEnd
        | FrameType::MeshPing
        | FrameType::MeshPong
        | FrameType::MeshGoodbye => MAX_TEXT_BYTES + 64,
    };
    if bytes > max {
        return Err(DecodeError::BodyTooLarge { frame, bytes, max });
    }
    Ok(())
}

fn rest(body: &mut Bytes) -> Bytes {
    body.split_to(body.len())
}

/// Reads what follows the header of a tunnel's frame.
pub(crate) fn decode_body(frame_type: FrameType, body: &mut Bytes) -> Result<Frame, DecodeError> {
    Ok(match frame_type {
        FrameType::Hello => Frame::Hello(Box::new(Hello::decode(rest(body))?)),
        FrameType::HelloAck => Frame::HelloAck(Box::new(HelloAck::decode(rest(body))?)),
        FrameType::Renew => Frame::Renew(Box::new(Renew::decode(rest(body))?)),
        FrameType::RenewAck => Frame::RenewAck(Box::new(RenewAck::decode(rest(body))?)),
        FrameType::Goodbye => Frame::Goodbye {
            // A code of a later release still ends the tunnel; only its name is lost.
            code: CloseCode::from_wire(take_u16(body)?).unwrap_or(CloseCode::Internal),
            message: text(&rest(body))?,
        },
        FrameType::Drain => Frame::Drain {
            deadline_ms: take_u32(body)?,
        },
        FrameType::Ping => Frame::Ping {
            nonce: take_u64(body)?,
        },
        FrameType::Pong => Frame::Pong {
            nonce: take_u64(body)?,
        },
        FrameType::Open => Frame::Open(Box::new(Open::decode(rest(body))?)),
        FrameType::OpenAck => Frame::OpenAck(OpenAck::decode(rest(body))?),
        FrameType::Data => {
            let cid = take_u32(body)?;
            let seq = take_u64(body)?;
            if body.is_empty() {
                return Err(DecodeError::Missing { what: "payload" });
            }
            Frame::Data {
                cid,
                seq,
                payload: rest(body),
            }
        }
        FrameType::Fin => Frame::Fin {
            cid: take_u32(body)?,
            dir: match take_u8(body)? {
                0 => Direction::C2a,
                1 => Direction::A2c,
                _ => return Err(DecodeError::Value { what: "direction" }),
            },
            offset: take_u64(body)?,
        },
        FrameType::Rst => Frame::Rst {
            cid: take_u32(body)?,
            // A code of a later release ends the flow just the same. It counts as started:
            // without knowing it, a retry could do something twice.
            code: ResetCode::from_wire(take_u16(body)?).unwrap_or(ResetCode::Internal),
            message: text(&rest(body))?,
        },
        FrameType::Window => Frame::Window {
            cid: take_u32(body)?,
            received: take_u64(body)?,
            limit: take_u64(body)?,
        },
        FrameType::Resume => Frame::Resume {
            flow_ref: take_flow_ref(body)?,
            received: take_u64(body)?,
            limit: take_u64(body)?,
            sent: take_u64(body)?,
        },
        FrameType::Resumed => Frame::Resumed {
            flow_ref: take_flow_ref(body)?,
            cid: take_u32(body)?,
            received: take_u64(body)?,
            limit: take_u64(body)?,
        },
        FrameType::ResumeEnd => Frame::ResumeEnd,
        FrameType::ResumeRst => Frame::ResumeRst {
            flow_ref: take_flow_ref(body)?,
            code: ResetCode::from_wire(take_u16(body)?).unwrap_or(ResetCode::Internal),
        },
        FrameType::Rewind => Frame::Rewind {
            cid: take_u32(body)?,
            received: take_u64(body)?,
            limit: take_u64(body)?,
        },
        FrameType::Datagram
        | FrameType::MeshHello
        | FrameType::MeshProof
        | FrameType::MeshOpen
        | FrameType::MeshOpenAck
        | FrameType::MeshData
        | FrameType::MeshFin
        | FrameType::MeshRst
        | FrameType::MeshWindow
        | FrameType::MeshCredit
        | FrameType::MeshResume
        | FrameType::MeshResumed
        | FrameType::MeshResumeRst
        | FrameType::MeshResumeEnd
        | FrameType::MeshPing
        | FrameType::MeshPong
        | FrameType::MeshGoodbye => {
            return Err(DecodeError::Misplaced { frame: frame_type });
        }
    })
}
