//! The hub's grip on a tunnel, from any thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nowconnect_protocol::{CloseCode, ConnectorName, FlowRef, FlowTerms, ProxyProtocol, ResetCode};
use tokio::sync::{mpsc, oneshot};

use crate::detached::DetachedSession;
use crate::flow_io::FlowIo;
use crate::observer::FlowObserver;

/// Acts that wait for one driver. A driver takes them between two messages; a longer queue
/// means that it is too slow for what is asked, and the asker must look elsewhere.
pub(crate) const COMMAND_QUEUE: usize = 4096;

/// A flow to be opened.
pub struct OpenFlow {
    /// The flow for its whole life.
    pub flow_ref: FlowRef,
    /// What the client wants to reach.
    pub connector: ConnectorName,
    /// The client's address, where the agent may know it.
    pub client_address: Option<String>,
    /// Facts that policies and plugins attached.
    pub metadata: Vec<(String, String)>,
    /// W3C `traceparent` of the flow's trace.
    pub trace_parent: Option<String>,
    /// The PROXY protocol header that the target expects before the first byte.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The bounds within which the flow was allowed.
    pub terms: FlowTerms,
    /// The client's socket.
    pub io: FlowIo,
    /// Bytes already read from it.
    pub early: Vec<Bytes>,
    /// Who is told what becomes of it.
    pub observer: Box<dyn FlowObserver>,
}

impl fmt::Debug for OpenFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFlow")
            .field("flow_ref", &self.flow_ref)
            .field("connector", &self.connector)
            .finish_non_exhaustive()
    }
}

/// Why a tunnel did not take a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// The tunnel has ended.
    Closed,
    /// The tunnel is about to end and takes no new flows.
    Draining,
    /// The tunnel's driver has too much to do.
    Busy,
}

/// The flow that a tunnel did not take, and why.
#[derive(Debug)]
pub struct RejectedOpen {
    /// Why.
    pub reason: Rejected,
    /// The flow, untouched.
    pub flow: Box<OpenFlow>,
}

pub(crate) enum Command {
    Open(Box<OpenFlow>),
    CloseFlow(FlowRef, ResetCode, String),
    Withdraw(Vec<ConnectorName>),
    Drain(Duration),
    Close(CloseCode, String),
    Probe(oneshot::Sender<()>),
    Detach(oneshot::Sender<Option<DetachedSession>>),
}

/// Figures of a tunnel, kept up to date by its driver.
#[derive(Debug, Default)]
pub(crate) struct SharedStats {
    pub(crate) flows: AtomicU32,
    pub(crate) rtt_us: AtomicU32,
    pub(crate) bytes_c2a: AtomicU64,
    pub(crate) bytes_a2c: AtomicU64,
    pub(crate) draining: AtomicBool,
}

/// Figures of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunnelStats {
    /// Flows that are open or being opened.
    pub flows: u32,
    /// The last measured round trip in microseconds; 0 before the first.
    pub rtt_us: u32,
    /// Bytes from clients to targets.
    pub bytes_c2a: u64,
    /// Bytes from targets to clients.
    pub bytes_a2c: u64,
    /// Whether the tunnel takes no new flows.
    pub draining: bool,
}

/// The hub's grip on one tunnel. Cheap to clone; the tunnel does not depend on it.
#[derive(Clone)]
pub struct TunnelHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) stats: Arc<SharedStats>,
}

impl fmt::Debug for TunnelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelHandle")
            .field("stats", &self.stats())
            .finish()
    }
}

impl TunnelHandle {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let stats = Arc::new(SharedStats::default());
        (Self { commands, stats }, receiver)
    }

    /// Opens a flow through this tunnel.
    ///
    /// # Errors
    ///
    /// [`RejectedOpen`] gives the flow back where the tunnel does not take it now.
    pub fn open(&self, flow: OpenFlow) -> Result<(), RejectedOpen> {
        let flow = Box::new(flow);
        if self.stats.draining.load(Ordering::Relaxed) {
            return Err(RejectedOpen {
                reason: Rejected::Draining,
                flow,
            });
        }
        // Counted here, so that two flows that choose an agent at once see each other.
        self.stats.flows.fetch_add(1, Ordering::Relaxed);
        let (reason, command) = match self.commands.try_send(Command::Open(flow)) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(command)) => (Rejected::Busy, command),
            Err(mpsc::error::TrySendError::Closed(command)) => (Rejected::Closed, command),
        };
        self.stats.flows.fetch_sub(1, Ordering::Relaxed);
        match command {
            Command::Open(flow) => Err(RejectedOpen { reason, flow }),
            Command::CloseFlow(..)
            | Command::Withdraw(_)
            | Command::Drain(_)
            | Command::Close(..)
            | Command::Probe(_)
            | Command::Detach(_) => unreachable!("the command that was sent comes back"),
        }
    }

    /// Ends one flow, and tells the agent `message` with the code. Returns whether the driver was
    /// told.
    pub fn close_flow(&self, flow_ref: FlowRef, code: ResetCode, message: String) -> bool {
        self.commands
            .try_send(Command::CloseFlow(flow_ref, code, message))
            .is_ok()
    }

    /// Ends the flows of connectors that the agent may no longer serve, with `scope_lost`.
    pub fn withdraw(&self, connectors: Vec<ConnectorName>) -> bool {
        self.commands
            .try_send(Command::Withdraw(connectors))
            .is_ok()
    }

    /// Asks the agent to open a replacement and finish here within `deadline`.
    pub fn drain(&self, deadline: Duration) -> bool {
        self.stats.draining.store(true, Ordering::Relaxed);
        self.commands.try_send(Command::Drain(deadline)).is_ok()
    }

    /// Ends the tunnel with a GOODBYE; its flows end too.
    pub fn close(&self, code: CloseCode, message: String) -> bool {
        self.stats.draining.store(true, Ordering::Relaxed);
        self.commands
            .try_send(Command::Close(code, message))
            .is_ok()
    }

    /// Whether the agent answers a ping within `timeout`.
    pub async fn probe(&self, timeout: Duration) -> bool {
        let (answer, answered) = oneshot::channel();
        if self.commands.try_send(Command::Probe(answer)).is_err() {
            return false;
        }
        matches!(tokio::time::timeout(timeout, answered).await, Ok(Ok(())))
    }

    /// Ends the tunnel and takes its flows for a newer tunnel of the same session. None where
    /// the tunnel has already ended.
    pub async fn detach(&self) -> Option<DetachedSession> {
        self.stats.draining.store(true, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Detach(answer)).await.ok()?;
        answered.await.ok().flatten()
    }

    /// Whether the tunnel has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }

    /// The tunnel's figures.
    #[must_use]
    pub fn stats(&self) -> TunnelStats {
        TunnelStats {
            flows: self.stats.flows.load(Ordering::Relaxed),
            rtt_us: self.stats.rtt_us.load(Ordering::Relaxed),
            bytes_c2a: self.stats.bytes_c2a.load(Ordering::Relaxed),
            bytes_a2c: self.stats.bytes_a2c.load(Ordering::Relaxed),
            draining: self.stats.draining.load(Ordering::Relaxed),
        }
    }
}
