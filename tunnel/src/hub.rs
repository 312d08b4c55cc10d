//! The hub's end of a tunnel.

use std::time::Duration;

use futures_util::future::BoxFuture;
use nowconnect_protocol::{
    CloseCode, ConnectorName, Epoch, Hello, Refusal, Renew, ReplicaId, ResumeToken, TunnelCounters,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

use crate::detached::DetachedSession;
use crate::handle::TunnelHandle;
use crate::settings::{TunnelEnd, TunnelSettings};

/// What the hub decides about one tunnel. One value per tunnel; it holds the proven identity.
pub trait HubShell: Send + 'static {
    /// The agent said HELLO. `handle` reaches the tunnel once the verdict is an acceptance.
    fn hello(&mut self, hello: Hello, handle: TunnelHandle) -> BoxFuture<'static, HelloVerdict>;

    /// The agent showed a new token, or a new list of connectors.
    fn renew(&mut self, renew: Renew) -> BoxFuture<'static, RenewVerdict>;

    /// HELLO_ACK is on its way: flows may be opened from now on.
    fn established(&mut self) {}

    /// Frames counted since the tunnel began. Called about once a second where they changed, and
    /// at the end.
    fn counted(&mut self, counters: &TunnelCounters) {
        let _ = counters;
    }
}

/// An accepted HELLO.
#[derive(Debug)]
pub struct Welcome {
    /// Names the session at this hub.
    pub session: u64,
    /// This hub.
    pub replica: ReplicaId,
    /// The claim on the agent.
    pub epoch: Epoch,
    /// Connectors that may be reached.
    pub accepted: Vec<ConnectorName>,
    /// Connectors that may not.
    pub refused: Vec<Refusal>,
    /// For the tunnel that follows this one.
    pub resume_token: ResumeToken,
    /// Flows of the agent's earlier tunnel.
    pub resume: Option<DetachedSession>,
    /// Time until the token runs out.
    pub token_expires_in: Option<Duration>,
}

/// The answer to HELLO.
#[derive(Debug)]
pub enum HelloVerdict {
    /// The agent joins.
    Accept(Box<Welcome>),
    /// It does not.
    Refuse {
        /// Why.
        code: CloseCode,
        /// Why, in words for the agent's operator.
        message: String,
    },
}

/// The answer to RENEW.
#[derive(Debug)]
pub enum RenewVerdict {
    /// The new token or list holds from now on. Flows of connectors that are not accepted any
    /// more end with `scope_lost`.
    Accept {
        /// Connectors that may be reached now.
        accepted: Vec<ConnectorName>,
        /// Connectors that may not.
        refused: Vec<Refusal>,
        /// Time until the token in force runs out.
        token_expires_in: Option<Duration>,
    },
    /// The earlier token and list stay in force.
    Refuse {
        /// Why, in words for the agent's operator.
        message: String,
    },
    /// The tunnel ends.
    Close {
        /// Why.
        code: CloseCode,
        /// Why, in words for the agent's operator.
        message: String,
    },
}

/// Serves one agent over `ws` until the tunnel ends. Runs on the thread that polls it first;
/// the future is not `Send`.
pub async fn serve_hub<S>(
    ws: WebSocketStream<S>,
    shell: Box<dyn HubShell>,
    settings: TunnelSettings,
) -> TunnelEnd
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    crate::driver::hub::serve(ws, shell, settings).await
}
