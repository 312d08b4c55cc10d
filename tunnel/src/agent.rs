//! The agent's end of a tunnel.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use nowconnect_protocol::{
    CloseCode, ConnectorName, FlowRef, FlowSummary, Hello, HelloAck, ProxyProtocol, RenewAck,
    ResetCode,
};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;

use crate::detached::DetachedSession;
use crate::flow_io::FlowIo;
use crate::settings::{TunnelEnd, TunnelSettings};

/// Acts that wait for an agent's driver.
const COMMAND_QUEUE: usize = 64;

/// A target to be reached.
#[derive(Debug, Clone)]
pub struct Dial {
    /// The flow.
    pub flow_ref: FlowRef,
    /// The flow on this tunnel.
    pub cid: u32,
    /// What the client wants to reach.
    pub connector: ConnectorName,
    /// The client's address and port, where the hub tells it.
    pub client_address: Option<String>,
    /// Facts that the hub's policies and plugins attached.
    pub metadata: Vec<(String, String)>,
    /// W3C `traceparent` of the flow's trace.
    pub trace_parent: Option<String>,
    /// The PROXY protocol header that the hub says the target expects before the first byte.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A target that was reached.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub io: FlowIo,
    /// The protocol that TLS to the target agreed on.
    pub alpn: Option<String>,
    /// A bound on silence of this flow, in place of the tunnel's.
    pub idle_timeout: Option<Duration>,
}

impl Dialed {
    /// A connection without TLS, under the tunnel's bounds.
    pub fn plain(io: impl Into<FlowIo>) -> Self {
        Self {
            io: io.into(),
            alpn: None,
            idle_timeout: None,
        }
    }
}

/// A target that was not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialError {
    /// Why; of class [`ResetClass::NotStarted`](nowconnect_protocol::ResetClass::NotStarted).
    pub code: ResetCode,
    /// Why, in words for the operator.
    pub message: String,
}

/// What an agent's driver reports.
#[derive(Debug)]
pub enum AgentEvent {
    /// The hub accepted HELLO; the tunnel is up.
    Welcomed(Box<HelloAck>),
    /// The hub answered a RENEW.
    Renewed(Box<RenewAck>),
    /// The hub is about to leave: a replacement should be opened now.
    Drain {
        /// Time until the hub closes this tunnel.
        deadline: Duration,
    },
    /// The hub has not answered for a while: a replacement should be dialled in parallel.
    Suspect,
    /// A target is connected.
    FlowOpened {
        /// The flow.
        flow_ref: FlowRef,
        /// Its connector.
        connector: ConnectorName,
        /// The flow on this tunnel.
        cid: u32,
    },
    /// A flow ended.
    FlowEnded {
        /// Its connector.
        connector: ConnectorName,
        /// What it carried and why it ended.
        summary: FlowSummary,
    },
    /// A measured round trip to the hub.
    RoundTrip(Duration),
}

/// What the agent does for its tunnels. Lives on the thread of the driver.
pub trait AgentShell {
    /// Reaches the target of a connector. The future must end within a bound of its own.
    fn dial(&self, dial: Dial) -> LocalBoxFuture<'static, Result<Dialed, DialError>>;

    /// Something happened. Must not block.
    fn event(&self, event: AgentEvent);
}

pub(crate) enum AgentCommand {
    Renew(Option<String>, Option<Vec<ConnectorName>>),
    Close(CloseCode, String),
    Detach(oneshot::Sender<Option<DetachedSession>>),
}

/// Flows left by a tunnel that ended while its successor was being set up.
#[derive(Default)]
struct Left {
    successor: bool,
    session: Option<DetachedSession>,
}

/// The agent's grip on one of its tunnels.
#[derive(Clone)]
pub struct AgentTunnelHandle {
    commands: mpsc::Sender<AgentCommand>,
    left: Arc<Mutex<Left>>,
}

impl fmt::Debug for AgentTunnelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentTunnelHandle")
    }
}

/// The driver's side of an [`AgentTunnelHandle`].
pub struct AgentCommands {
    pub(crate) receiver: mpsc::Receiver<AgentCommand>,
    left: Arc<Mutex<Left>>,
}

impl AgentCommands {
    /// Leaves the flows to the successor, where there is one; else gives them back.
    pub(crate) fn leave(&self, session: DetachedSession) -> Option<DetachedSession> {
        let mut left = self.left.lock();
        if left.successor {
            left.session = Some(session);
            None
        } else {
            Some(session)
        }
    }
}

impl fmt::Debug for AgentCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentCommands")
    }
}

/// Makes the grip on a tunnel that is about to be served.
#[must_use]
pub fn agent_channel() -> (AgentTunnelHandle, AgentCommands) {
    let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
    let left = Arc::new(Mutex::new(Left::default()));
    let handle = AgentTunnelHandle {
        commands,
        left: Arc::clone(&left),
    };
    (handle, AgentCommands { receiver, left })
}

impl AgentTunnelHandle {
    /// A successor is being set up: flows that this tunnel leaves are for it.
    pub(crate) fn expect_successor(&self) {
        self.left.lock().successor = true;
    }

    /// The successor did not come about.
    pub(crate) fn forget_successor(&self) {
        self.left.lock().successor = false;
    }

    /// The flows that the tunnel left when it ended.
    pub(crate) fn take_left(&self) -> Option<DetachedSession> {
        self.left.lock().session.take()
    }

    /// Shows a new token, a new list of connectors, or both. Secret: the token is never logged.
    /// Returns whether the driver was told; the answer comes as [`AgentEvent::Renewed`].
    pub fn renew(&self, token: Option<String>, connectors: Option<Vec<ConnectorName>>) -> bool {
        self.commands
            .try_send(AgentCommand::Renew(token, connectors))
            .is_ok()
    }

    /// Ends the tunnel with a GOODBYE; its flows end too.
    pub fn close(&self, code: CloseCode, message: String) -> bool {
        self.commands
            .try_send(AgentCommand::Close(code, message))
            .is_ok()
    }

    /// Ends the tunnel and takes its flows. None where it has already ended.
    pub async fn detach(&self) -> Option<DetachedSession> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(AgentCommand::Detach(answer))
            .await
            .ok()?;
        answered.await.ok().flatten()
    }

    /// Whether the tunnel has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }
}

/// Where the flows of the session are when a new tunnel begins.
#[derive(Debug)]
pub enum ResumeFrom {
    /// There are none.
    Nothing,
    /// Their tunnel has ended.
    Detached(DetachedSession),
    /// Their tunnel still lives; it is asked for them once the hub has accepted this one.
    Living(AgentTunnelHandle),
}

/// Serves one hub over `ws` until the tunnel ends. Runs on the thread that polls it first; the
/// future is not `Send`.
///
/// Where `resume` holds flows, `hello.resume` must be the token of their last HELLO_ACK.
pub async fn serve_agent<S>(
    ws: WebSocketStream<S>,
    hello: Hello,
    resume: ResumeFrom,
    shell: Rc<dyn AgentShell>,
    commands: AgentCommands,
    settings: TunnelSettings,
) -> TunnelEnd
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    crate::driver::agent::serve(ws, hello, resume, shell, commands, settings).await
}
