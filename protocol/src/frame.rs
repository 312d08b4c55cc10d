//! Frames: what stands in the messages of a tunnel.
//!
//! A message holds one frame or several, each whole. A frame is a tag (one byte), the length
//! of its body (three bytes, big endian) and the body. A tag of 128 or more marks a frame that
//! a receiver may skip when it does not know it; an unknown tag below 128 ends the tunnel.
//!
//! One registry, [`FrameType`], holds the tags of the tunnel and of the mesh, so that none can
//! be used twice.

mod codec;
mod codes;
mod hello;
mod open;
pub(crate) mod tlv;

use bytes::Bytes;

pub use codec::{DecodeError, decode, encode};
pub(crate) use codec::{
    check_length, decode_body, encode_body, next_frame, write_data_header, write_length,
};
pub use codes::{CloseCode, ResetClass, ResetCode};
pub use hello::{
    Features, Hello, HelloAck, InstanceId, Refusal, Renew, RenewAck, ResumeToken, Role,
};
pub use open::{Open, OpenAck, ProxyProtocol};
pub(crate) use open::{put_flow_ref, take_flow_ref};

use crate::flow_ref::FlowRef;

/// The protocol version of this build. HELLO offers a range, HELLO_ACK names the choice.
pub const VERSION: u16 = 1;

/// The WebSocket subprotocol of a native tunnel.
pub const SUBPROTOCOL: &str = "nowconnect.v1";

/// Tags of frames. A retired tag stays listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// The agent's first frame.
    Hello = 0x01,
    /// The hub's answer to HELLO.
    HelloAck = 0x02,
    /// A new token, or a new list of connectors, on a living tunnel.
    Renew = 0x03,
    /// The hub's answer to RENEW.
    RenewAck = 0x04,
    /// Why the tunnel is about to close.
    Goodbye = 0x05,
    /// Open a replacement first, then finish here.
    Drain = 0x06,
    /// Asks for a PONG.
    Ping = 0x07,
    /// Answers a PING.
    Pong = 0x08,
    /// Opens a flow.
    Open = 0x10,
    /// The target is connected.
    OpenAck = 0x11,
    /// Bytes of a flow.
    Data = 0x12,
    /// One direction of a flow has ended.
    Fin = 0x13,
    /// The flow has ended at once, both ways.
    Rst = 0x14,
    /// What has been received of a flow and what will be taken.
    Window = 0x15,
    /// The agent knows this flow from an earlier tunnel.
    Resume = 0x16,
    /// The hub knows it too; it goes on here.
    Resumed = 0x17,
    /// All flows of the earlier tunnel have been named.
    ResumeEnd = 0x18,
    /// The hub does not know the flow that RESUME named.
    ResumeRst = 0x19,
    /// A UDP datagram of a flow of kind `udp`. Reserved.
    Datagram = 0x1a,
    /// Send a direction again from an offset: what a relay had of it is lost.
    Rewind = 0x1b,
    /// A hub's first frame on a link.
    MeshHello = 0x40,
    /// Proves what M_HELLO says.
    MeshProof = 0x41,
    /// Opens a flow at the hub that holds the agent.
    MeshOpen = 0x42,
    /// OPEN_ACK of a flow on a link.
    MeshOpenAck = 0x43,
    /// DATA of a flow on a link.
    MeshData = 0x44,
    /// FIN of a flow on a link.
    MeshFin = 0x45,
    /// RST of a flow on a link.
    MeshRst = 0x46,
    /// WINDOW of a flow on a link; made by an end, passed on by the relay.
    MeshWindow = 0x47,
    /// What a relay has received of a flow and what it will take.
    MeshCredit = 0x48,
    /// The agent, which is here now, knows this flow.
    MeshResume = 0x49,
    /// Its origin knows it too; it goes on here.
    MeshResumed = 0x4a,
    /// Its origin does not go on with it here.
    MeshResumeRst = 0x4b,
    /// The agent is here now and has named all its flows.
    MeshResumeEnd = 0x4c,
    /// PING of a link.
    MeshPing = 0x4d,
    /// PONG of a link.
    MeshPong = 0x4e,
    /// GOODBYE of a link.
    MeshGoodbye = 0x4f,
}

impl FrameType {
    /// Every tag in use or reserved.
    pub const ALL: [Self; 36] = [
        Self::Hello,
        Self::HelloAck,
        Self::Renew,
        Self::RenewAck,
        Self::Goodbye,
        Self::Drain,
        Self::Ping,
        Self::Pong,
        Self::Open,
        Self::OpenAck,
        Self::Data,
        Self::Fin,
        Self::Rst,
        Self::Window,
        Self::Resume,
        Self::Resumed,
        Self::ResumeEnd,
        Self::ResumeRst,
        Self::Datagram,
        Self::Rewind,
        Self::MeshHello,
        Self::MeshProof,
        Self::MeshOpen,
        Self::MeshOpenAck,
        Self::MeshData,
        Self::MeshFin,
        Self::MeshRst,
        Self::MeshWindow,
        Self::MeshCredit,
        Self::MeshResume,
        Self::MeshResumed,
        Self::MeshResumeRst,
        Self::MeshResumeEnd,
        Self::MeshPing,
        Self::MeshPong,
        Self::MeshGoodbye,
    ];

    /// The type that `tag` stands for.
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<Self> {
        BY_TAG.get(usize::from(tag)).copied().flatten()
    }
}

/// The types at their tags: each frame that arrives is looked up here.
const BY_TAG: [Option<FrameType>; 0x50] = {
    let mut table = [None; 0x50];
    let mut at = 0;
    while at < FrameType::ALL.len() {
        table[FrameType::ALL[at] as usize] = Some(FrameType::ALL[at]);
        at += 1;
    }
    table
};

/// Which way bytes of a flow go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client, through hub and agent, to the target.
    C2a,
    /// From the target to the client.
    A2c,
}

impl Direction {
    /// The label of metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::C2a => "c2a",
            Self::A2c => "a2c",
        }
    }
}

/// One frame of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// See [`Hello`].
    Hello(Box<Hello>),
    /// See [`HelloAck`].
    HelloAck(Box<HelloAck>),
    /// See [`Renew`].
    Renew(Box<Renew>),
    /// See [`RenewAck`].
    RenewAck(Box<RenewAck>),
    /// Why the tunnel is about to close. Nothing follows it.
    Goodbye {
        /// The reason.
        code: CloseCode,
        /// The reason in words, safe to show to the far end's operator.
        message: String,
    },
    /// The hub is about to leave: open a replacement, finish what runs here by the deadline.
    Drain {
        /// Milliseconds until the tunnel is closed.
        deadline_ms: u32,
    },
    /// Asks for a PONG with the same number.
    Ping {
        /// Chosen by the sender.
        nonce: u64,
    },
    /// Answers PING.
    Pong {
        /// The number of the PING.
        nonce: u64,
    },
    /// See [`Open`].
    Open(Box<Open>),
    /// See [`OpenAck`].
    OpenAck(OpenAck),
    /// Bytes of a flow, in order.
    Data {
        /// The flow on this tunnel.
        cid: u32,
        /// Offset of the payload's first byte within its direction.
        seq: u64,
        /// The bytes; never empty.
        payload: Bytes,
    },
    /// One direction has ended at `offset`.
    Fin {
        /// The flow on this tunnel.
        cid: u32,
        /// Which direction.
        dir: Direction,
        /// Number of bytes that the direction carried.
        offset: u64,
    },
    /// Both directions end now; bytes on their way are lost.
    Rst {
        /// The flow on this tunnel.
        cid: u32,
        /// The reason.
        code: ResetCode,
        /// The reason in words; may be empty.
        message: String,
    },
    /// Flow control, made by the end that receives the direction.
    Window {
        /// The flow on this tunnel.
        cid: u32,
        /// Every byte below this offset is in the receiver's process; one past the final
        /// offset once FIN is there too.
        received: u64,
        /// Bytes up to this offset will be taken.
        limit: u64,
    },
    /// The agent has this flow from an earlier tunnel of the session.
    Resume {
        /// The flow.
        flow_ref: FlowRef,
        /// What the agent has received (as in WINDOW).
        received: u64,
        /// What the agent will take (as in WINDOW).
        limit: u64,
        /// Offset of the next new byte that the agent will send.
        sent: u64,
    },
    /// The flow goes on in this tunnel.
    Resumed {
        /// The flow.
        flow_ref: FlowRef,
        /// Its number on this tunnel.
        cid: u32,
        /// What the hub has received (as in WINDOW).
        received: u64,
        /// What the hub will take (as in WINDOW).
        limit: u64,
    },
    /// The agent has named all its flows.
    ResumeEnd,
    /// The hub does not have the flow that RESUME named.
    ResumeRst {
        /// The flow.
        flow_ref: FlowRef,
        /// The reason.
        code: ResetCode,
    },
    /// Only to an agent that names [`Features::REWIND`]: the hub that holds the client's socket
    /// has received less than the agent sent, and what was between them is lost.
    Rewind {
        /// The flow on this tunnel.
        cid: u32,
        /// What that hub has received (as in WINDOW).
        received: u64,
        /// What it will take (as in WINDOW).
        limit: u64,
    },
}

impl Frame {
    /// The frame's tag.
    #[must_use]
    pub const fn frame_type(&self) -> FrameType {
        match self {
            Self::Hello(_) => FrameType::Hello,
            Self::HelloAck(_) => FrameType::HelloAck,
            Self::Renew(_) => FrameType::Renew,
            Self::RenewAck(_) => FrameType::RenewAck,
            Self::Goodbye { .. } => FrameType::Goodbye,
            Self::Drain { .. } => FrameType::Drain,
            Self::Ping { .. } => FrameType::Ping,
            Self::Pong { .. } => FrameType::Pong,
            Self::Open(_) => FrameType::Open,
            Self::OpenAck(_) => FrameType::OpenAck,
            Self::Data { .. } => FrameType::Data,
            Self::Fin { .. } => FrameType::Fin,
            Self::Rst { .. } => FrameType::Rst,
            Self::Window { .. } => FrameType::Window,
            Self::Resume { .. } => FrameType::Resume,
            Self::Resumed { .. } => FrameType::Resumed,
            Self::ResumeEnd => FrameType::ResumeEnd,
            Self::ResumeRst { .. } => FrameType::ResumeRst,
            Self::Rewind { .. } => FrameType::Rewind,
        }
    }
}
