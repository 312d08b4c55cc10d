//! Who is told about a flow.

use std::time::Duration;

use bytes::Bytes;
use nowconnect_protocol::{FlowSummary, OpenAck, ResetCode};

use crate::flow_io::FlowIo;

/// A flow that ended before anything reached its target, with all that a second try needs.
#[derive(Debug)]
pub struct FailedOpen {
    /// Why; of class [`ResetClass::NotStarted`](nowconnect_protocol::ResetClass::NotStarted).
    pub code: ResetCode,
    /// The reason in words; may be empty.
    pub message: String,
    /// The client's socket.
    pub io: FlowIo,
    /// What the client has sent so far.
    pub early: Vec<Bytes>,
}

/// What a running flow has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowProgress {
    /// Bytes from the client.
    pub bytes_c2a: u64,
    /// Bytes from the target.
    pub bytes_a2c: u64,
    /// Bytes of these that the client has not taken yet.
    pub pending_bytes: u64,
}

/// Told what becomes of one flow. Called on the driver's thread, so it must not block.
///
/// Exactly one of [`FlowObserver::not_started`] and [`FlowObserver::ended`] is called.
pub trait FlowObserver: Send {
    /// The target is connected.
    fn acknowledged(&mut self, ack: &OpenAck) {
        let _ = ack;
    }

    /// The flow has moved bytes since the last call. Called about once a second.
    fn progress(&mut self, progress: &FlowProgress) {
        let _ = progress;
    }

    /// Handing bytes to the client's socket took so long. Told of one write in about a second,
    /// the first included: a look at the clock for each would cost as much as a small write.
    fn wrote(&mut self, took: Duration) {
        let _ = took;
    }

    /// The client has taken all that waited for it, after `waited`.
    fn drained(&mut self, waited: Duration) {
        let _ = waited;
    }

    /// The flow ended before anything reached a target; it may be tried on another agent.
    fn not_started(self: Box<Self>, failed: FailedOpen);

    /// The flow ended.
    fn ended(self: Box<Self>, summary: FlowSummary);
}
