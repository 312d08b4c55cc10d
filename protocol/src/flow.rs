//! One flow, as one of its two ends sees it.
//!
//! ```text
//!            OPEN            OPEN_ACK
//!   (none) ───────► Open ───────────────► Data
//!                    │ RST              ╱  │  ╲
//!                    │        FIN(c2a) ╱   │   ╲ FIN(a2c)
//!                    │         HalfC2a     │    HalfA2c
//!                    │                ╲    │ RST ╱
//!                    │        FIN(a2c) ╲   │   ╱ FIN(c2a)
//!                    └─────────────────► Closed ◄── idle: FIN(c2a), then the peer's FIN
//! ```
//!
//! Each direction counts its bytes from 0, and FIN takes one number more, as in TCP. So
//! `received` one past the final offset says that FIN has arrived, and a half is done when
//! that number has come back.

mod recv;
mod send;

use std::time::{Duration, Instant};

pub(crate) use recv::{ReceiveFault, RecvHalf, WindowRules};
pub(crate) use send::SendHalf;

use crate::flow_ref::FlowRef;
use crate::frame::{Open, ResetCode};
use crate::limits::{IDLE_TIMEOUT, LINGER, STALL_TIMEOUT};
use crate::name::ConnectorName;

/// What a flow carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowKind {
    /// A byte stream each way.
    Tcp,
    /// Datagrams. Reserved: an agent refuses it with `unsupported_kind`.
    Udp,
}

impl FlowKind {
    pub(crate) const fn to_wire(self) -> u8 {
        match self {
            Self::Tcp => 0,
            Self::Udp => 1,
        }
    }

    pub(crate) const fn from_wire(wire: u8) -> Option<Self> {
        match wire {
            0 => Some(Self::Tcp),
            1 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// Where a flow is in its life; see the diagram in [`crate::flow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowPhase {
    /// OPEN was sent or received; the target is not connected yet.
    Open,
    /// Both directions are open.
    Data,
    /// The client has ended its direction.
    HalfC2a,
    /// The target has ended its direction.
    HalfA2c,
    /// Both have, or the flow was reset.
    Closed,
}

/// The bounds within which a flow was allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowTerms {
    /// Bytes of both directions together; none for no bound.
    pub max_bytes: Option<u64>,
    /// Seconds from OPEN; none for no bound.
    pub max_seconds: Option<u32>,
    /// Time without a byte from either end after which the flow is closed. [`Duration::MAX`]
    /// for never.
    pub idle_timeout: Duration,
    /// Time for which a reader takes nothing of what waits for it. [`Duration::MAX`] for ever.
    pub stall_timeout: Duration,
    /// Time for which an idle flow waits for the far side's FIN.
    pub linger: Duration,
}

impl Default for FlowTerms {
    fn default() -> Self {
        Self {
            max_bytes: None,
            max_seconds: None,
            idle_timeout: IDLE_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
            linger: LINGER,
        }
    }
}

/// Why a flow ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowCause {
    /// Both directions ended and every byte was handed over.
    Finished,
    /// It was reset.
    Reset {
        /// The reason.
        code: ResetCode,
        /// Whether this end reset it; otherwise the far end did.
        local: bool,
        /// The reason in words; may be empty.
        message: String,
    },
}

impl FlowCause {
    /// The label of metrics and logs: `finished` or the reset's code.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Reset { code, .. } => code.as_str(),
        }
    }
}

/// What a flow did in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowSummary {
    /// The flow.
    pub flow_ref: FlowRef,
    /// Its number on the tunnel that carried it last.
    pub cid: u32,
    /// Why it ended.
    pub cause: FlowCause,
    /// Bytes from the client to the target.
    pub bytes_c2a: u64,
    /// Bytes from the target to the client.
    pub bytes_a2c: u64,
    /// Time from OPEN to the end.
    pub lasted: Duration,
    /// Whether the target was connected.
    pub acknowledged: bool,
    /// Tunnels that the flow has moved to.
    pub resumes: u32,
}

/// Which end of a flow this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Holds the client's socket; sends c2a.
    Hub,
    /// Holds the target's socket; sends a2c.
    Agent,
}

/// One end of one flow. It outlives the tunnel that carries it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) flow_ref: FlowRef,
    pub(crate) connector: ConnectorName,
    pub(crate) terms: FlowTerms,
    /// What was asked, kept by the hub until OPEN_ACK: a new tunnel may have to ask it again.
    pub(crate) open: Option<Box<Open>>,
    pub(crate) send: SendHalf,
    pub(crate) recv: RecvHalf,
    /// The target is connected.
    pub(crate) acknowledged: bool,
    /// The local writer has been told of the far side's FIN and has carried it out.
    pub(crate) finish_delivered: bool,
    /// The local side is done with the flow; only answers of the far side are awaited.
    pub(crate) closed: bool,
    /// The local socket may have bytes to read.
    pub(crate) readable: bool,
    /// In the tunnel's list of flows that may send.
    pub(crate) queued: bool,
    /// In the tunnel's list of flows with a WINDOW to send at once.
    pub(crate) window_queued: bool,
    /// In the tunnel's list of flows with a WINDOW to send in a while.
    pub(crate) answer_queued: bool,
    /// Small frames in a row.
    pub(crate) small_run: u8,
    pub(crate) opened_at: Instant,
    /// The last time at which a byte was accepted from either end, or handed over.
    pub(crate) last_progress: Instant,
    /// Since when the local reader has taken nothing of what waits for it. Bytes that go the
    /// other way do not help: they would let a reader hold its window for ever.
    pub(crate) reader_waits_since: Option<Instant>,
    /// Since when the flow has been told to end for idleness.
    pub(crate) idle_since: Option<Instant>,
    pub(crate) resumes: u32,
}

impl Flow {
    pub(crate) fn phase(&self, side: Side) -> FlowPhase {
        let (c2a, a2c) = match side {
            Side::Hub => (self.send.fin_sent(), self.recv.finished()),
            Side::Agent => (self.recv.finished(), self.send.fin_sent()),
        };
        match (self.closed, self.acknowledged, c2a, a2c) {
            (true, ..) | (_, _, true, true) => FlowPhase::Closed,
            (_, _, true, false) => FlowPhase::HalfC2a,
            (_, _, false, true) => FlowPhase::HalfA2c,
            (_, true, false, false) => FlowPhase::Data,
            (_, false, false, false) => FlowPhase::Open,
        }
    }

    /// Whether both directions are over as far as the local side can see.
    pub(crate) fn both_ended(&self) -> bool {
        self.send.fin_sent() && self.recv.drained() && self.finish_delivered
    }

    /// Whether something waits: for the far side's window, or for the local reader.
    pub(crate) fn waiting(&self) -> bool {
        self.recv.pending() > 0
            || self.send.backlog() > 0
            || (self.readable && !self.send.ended() && self.send.credit() == 0)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.send.next() + self.recv.received()
    }

    pub(crate) fn summary(
        &self,
        side: Side,
        cid: u32,
        cause: FlowCause,
        now: Instant,
    ) -> FlowSummary {
        let (bytes_c2a, bytes_a2c) = match side {
            Side::Hub => (self.send.next(), self.recv.received()),
            Side::Agent => (self.recv.received(), self.send.next()),
        };
        FlowSummary {
            flow_ref: self.flow_ref.clone(),
            cid,
            cause,
            bytes_c2a,
            bytes_a2c,
            lasted: now.saturating_duration_since(self.opened_at),
            acknowledged: self.acknowledged,
            resumes: self.resumes,
        }
    }
}
