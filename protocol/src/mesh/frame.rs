//! Frames of a link between two hubs.
//!
//! They stand in messages as the tunnel's do. Those about a flow are the tunnel's own bodies
//! with the counter of the flow's claim in front; M_OPEN and M_RESUMED bind the flow's number to
//! its whole claim.

use bytes::{BufMut, Bytes, BytesMut};

use super::claim::Claim;
use super::hello::{MeshHello, MeshProof};
use crate::flow_ref::FlowRef;
use crate::frame::tlv::{take_u16, take_u32, take_u64};
use crate::frame::{
    DecodeError, Frame, FrameType, Open, ResetCode, check_length, decode_body, encode_body,
    next_frame, put_flow_ref, take_flow_ref, write_length,
};
use crate::limits::FRAME_HEADER_BYTES;

/// The version of the mesh protocol of this build.
pub const VERSION: u16 = 1;

/// The WebSocket subprotocol of a link.
pub const SUBPROTOCOL: &str = "nowconnect-mesh.v1";

/// What stands in the messages of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshFrame {
    /// See [`MeshHello`].
    Hello(Box<MeshHello>),
    /// See [`MeshProof`].
    Proof(Box<MeshProof>),
    /// Opens a flow at the hub that holds the agent. `open.cid` is the origin's number for the
    /// flow on this link.
    Open {
        /// What the origin knows of the agent's owner.
        claim: Claim,
        /// The flow.
        open: Box<Open>,
    },
    /// OPEN_ACK, DATA, FIN, RST or WINDOW of a flow.
    Flow {
        /// The counter of the claim that the flow is bound to.
        epoch: u64,
        /// The tunnel's own frame.
        frame: Frame,
    },
    /// What a relay has received of a flow from this link, and what it will take: it bounds the
    /// relay's memory and acknowledges nothing.
    Credit {
        /// The counter of the claim that the flow is bound to.
        epoch: u64,
        /// The flow on this link.
        cid: u32,
        /// Every byte below this offset is off the link.
        received: u64,
        /// Bytes up to this offset will be taken.
        limit: u64,
    },
    /// The agent, which is here now, has this flow of the receiver's.
    Resume {
        /// The sender's claim on the agent.
        claim: Claim,
        /// The flow.
        flow_ref: FlowRef,
        /// What the agent has received (as in WINDOW).
        received: u64,
        /// What the agent will take (as in WINDOW).
        limit: u64,
        /// Offset of the next byte that the agent will send.
        sent: u64,
    },
    /// The flow goes on over this link.
    Resumed {
        /// The claim that the flow is bound to from now on.
        claim: Claim,
        /// The flow.
        flow_ref: FlowRef,
        /// Its number on this link, given by the origin.
        cid: u32,
        /// What the origin has received (as in WINDOW).
        received: u64,
        /// What the origin will take (as in WINDOW).
        limit: u64,
        /// Offset of the first byte that the origin will send over this link.
        from: u64,
    },
    /// The flow does not go on over this link.
    ResumeRst {
        /// The claim of M_RESUME, or a higher one where the sender knows of it.
        claim: Claim,
        /// The flow.
        flow_ref: FlowRef,
        /// Why.
        code: ResetCode,
    },
    /// The agent is here now and has named all its flows: the receiver opens those that were
    /// never acknowledged anew and ends the others.
    ResumeEnd {
        /// The sender's claim on the agent.
        claim: Claim,
    },
    /// PING, PONG or GOODBYE of the link.
    Link(Frame),
}

impl MeshFrame {
    /// The frame's tag.
    #[must_use]
    pub const fn frame_type(&self) -> FrameType {
        match self {
            Self::Hello(_) => FrameType::MeshHello,
            Self::Proof(_) => FrameType::MeshProof,
            Self::Open { .. } => FrameType::MeshOpen,
            Self::Flow { frame, .. } | Self::Link(frame) => mesh_type(frame),
            Self::Credit { .. } => FrameType::MeshCredit,
            Self::Resume { .. } => FrameType::MeshResume,
            Self::Resumed { .. } => FrameType::MeshResumed,
            Self::ResumeRst { .. } => FrameType::MeshResumeRst,
            Self::ResumeEnd { .. } => FrameType::MeshResumeEnd,
        }
    }
}

/// How a tunnel's frame is tagged on a link. One that has no place there keeps its tag, which
/// no link takes.
const fn mesh_type(frame: &Frame) -> FrameType {
    match frame {
        Frame::OpenAck(_) => FrameType::MeshOpenAck,
        Frame::Data { .. } => FrameType::MeshData,
        Frame::Fin { .. } => FrameType::MeshFin,
        Frame::Rst { .. } => FrameType::MeshRst,
        Frame::Window { .. } => FrameType::MeshWindow,
        Frame::Ping { .. } => FrameType::MeshPing,
        Frame::Pong { .. } => FrameType::MeshPong,
        Frame::Goodbye { .. } => FrameType::MeshGoodbye,
        Frame::Hello(_)
        | Frame::HelloAck(_)
        | Frame::Renew(_)
        | Frame::RenewAck(_)
        | Frame::Drain { .. }
        | Frame::Open(_)
        | Frame::Resume { .. }
        | Frame::Resumed { .. }
        | Frame::ResumeEnd
        | Frame::ResumeRst { .. }
        | Frame::Rewind { .. } => frame.frame_type(),
    }
}

/// Appends `frame` to `out`.
pub fn encode(frame: &MeshFrame, out: &mut BytesMut) {
    framed(out, frame.frame_type(), |out| match frame {
        MeshFrame::Hello(hello) => hello.encode(out),
        MeshFrame::Proof(proof) => proof.encode(out),
        MeshFrame::Open { claim, open } => {
            claim.encode(out);
            open.encode(out);
        }
        MeshFrame::Flow { epoch, frame } => {
            out.put_u64(*epoch);
            encode_body(frame, out);
        }
        MeshFrame::Credit {
            epoch,
            cid,
            received,
            limit,
        } => {
            out.put_u64(*epoch);
            out.put_u32(*cid);
            out.put_u64(*received);
            out.put_u64(*limit);
        }
        MeshFrame::Resume {
            claim,
            flow_ref,
            received,
            limit,
            sent,
        } => {
            claim.encode(out);
            put_flow_ref(out, flow_ref);
            out.put_u64(*received);
            out.put_u64(*limit);
            out.put_u64(*sent);
        }
        MeshFrame::Resumed {
            claim,
            flow_ref,
            cid,
            received,
            limit,
            from,
        } => {
            claim.encode(out);
            put_flow_ref(out, flow_ref);
            out.put_u32(*cid);
            out.put_u64(*received);
            out.put_u64(*limit);
            out.put_u64(*from);
        }
        MeshFrame::ResumeRst {
            claim,
            flow_ref,
            code,
        } => {
            claim.encode(out);
            put_flow_ref(out, flow_ref);
            out.put_u16(code.to_wire());
        }
        MeshFrame::ResumeEnd { claim } => claim.encode(out),
        MeshFrame::Link(frame) => encode_body(frame, out),
    });
}

fn framed(out: &mut BytesMut, frame_type: FrameType, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u8(frame_type as u8);
    out.put_slice(&[0; 3]);
    body(out);
    let length = out.len() - start - FRAME_HEADER_BYTES;
    write_length(&mut out[start + 1..start + FRAME_HEADER_BYTES], length);
}

/// Takes the next frame from the front of `message`; none at its end, or after frames that
/// this build does not know and may skip.
///
/// # Errors
///
/// [`DecodeError`] where the message is not a sequence of a link's frames. The link cannot go on
/// then.
pub fn decode(message: &mut Bytes) -> Result<Option<MeshFrame>, DecodeError> {
    let Some((frame_type, mut body)) = next_frame(message)? else {
        return Ok(None);
    };
    check_length(frame_type, body.len())?;
    let frame = decode_one(frame_type, &mut body)?;
    if !body.is_empty() {
        return Err(DecodeError::Trailing {
            frame: frame_type,
            bytes: body.len(),
        });
    }
    Ok(Some(frame))
}

fn rest(body: &mut Bytes) -> Bytes {
    body.split_to(body.len())
}

fn about_flow(inner: FrameType, body: &mut Bytes) -> Result<MeshFrame, DecodeError> {
    Ok(MeshFrame::Flow {
        epoch: take_u64(body)?,
        frame: decode_body(inner, body)?,
    })
}

fn decode_one(frame_type: FrameType, body: &mut Bytes) -> Result<MeshFrame, DecodeError> {
    Ok(match frame_type {
        FrameType::MeshData => about_flow(FrameType::Data, body)?,
        FrameType::MeshWindow => about_flow(FrameType::Window, body)?,
        FrameType::MeshOpenAck => about_flow(FrameType::OpenAck, body)?,
        FrameType::MeshFin => about_flow(FrameType::Fin, body)?,
        FrameType::MeshRst => about_flow(FrameType::Rst, body)?,
        FrameType::MeshPing => MeshFrame::Link(decode_body(FrameType::Ping, body)?),
        FrameType::MeshPong => MeshFrame::Link(decode_body(FrameType::Pong, body)?),
        FrameType::MeshGoodbye => MeshFrame::Link(decode_body(FrameType::Goodbye, body)?),
        FrameType::MeshHello => MeshFrame::Hello(Box::new(MeshHello::decode(rest(body))?)),
        FrameType::MeshProof => MeshFrame::Proof(Box::new(MeshProof::decode(rest(body))?)),
        FrameType::MeshOpen => MeshFrame::Open {
            claim: Claim::decode(body)?,
            open: Box::new(Open::decode(rest(body))?),
        },
        FrameType::MeshCredit => MeshFrame::Credit {
            epoch: take_u64(body)?,
            cid: take_u32(body)?,
            received: take_u64(body)?,
            limit: take_u64(body)?,
        },
        FrameType::MeshResume => MeshFrame::Resume {
            claim: Claim::decode(body)?,
            flow_ref: take_flow_ref(body)?,
            received: take_u64(body)?,
            limit: take_u64(body)?,
            sent: take_u64(body)?,
        },
        FrameType::MeshResumed => MeshFrame::Resumed {
            claim: Claim::decode(body)?,
            flow_ref: take_flow_ref(body)?,
            cid: take_u32(body)?,
            received: take_u64(body)?,
            limit: take_u64(body)?,
            from: take_u64(body)?,
        },
        FrameType::MeshResumeRst => MeshFrame::ResumeRst {
            claim: Claim::decode(body)?,
            flow_ref: take_flow_ref(body)?,
            // A code of a later release ends the flow just the same.
            code: ResetCode::from_wire(take_u16(body)?).unwrap_or(ResetCode::Internal),
        },
        FrameType::MeshResumeEnd => MeshFrame::ResumeEnd {
            claim: Claim::decode(body)?,
        },
        FrameType::Hello
        | FrameType::HelloAck
        | FrameType::Renew
        | FrameType::RenewAck
        | FrameType::Goodbye
        | FrameType::Drain
        | FrameType::Ping
        | FrameType::Pong
        | FrameType::Open
        | FrameType::OpenAck
        | FrameType::Data
        | FrameType::Fin
        | FrameType::Rst
        | FrameType::Window
        | FrameType::Resume
        | FrameType::Resumed
        | FrameType::ResumeEnd
        | FrameType::ResumeRst
        | FrameType::Datagram
        | FrameType::Rewind => return Err(DecodeError::Misplaced { frame: frame_type }),
    })
}
