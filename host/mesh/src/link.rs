//! A link that is ready for flows, and whoever serves it.

use std::fmt;
use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use nowconnect_protocol::mesh::MeshHello;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;

use crate::close::{CloseCode, LinkEnd};
use crate::hello::LinkTerms;
use crate::io::MeshIo;

/// Carries flows over links.
pub trait LinkUser: Send + Sync {
    /// What the flows say about themselves in the hello.
    fn terms(&self) -> LinkTerms;

    /// Serves a link until it ends. What comes from the peer is proven to be from it; whether it
    /// may do what it asks for is decided here. When [`ReadyLink::close`] says so, the link must
    /// end soon; it is cut otherwise.
    fn serve(&self, link: ReadyLink) -> BoxFuture<'static, LinkEnd>;
}

/// A link whose hello is done.
pub struct ReadyLink {
    /// The transport. Nothing but the hello has crossed it.
    pub ws: WebSocketStream<Box<dyn MeshIo>>,
    /// What this hub said.
    pub ours: MeshHello,
    /// What the other hub said; its name is proven, the rest is its word.
    pub theirs: MeshHello,
    /// The version that both speak.
    pub version: u16,
    /// Whether this hub dialled.
    pub dialled: bool,
    /// The other end of the connection: the hub, or what stands in front of it.
    pub remote: SocketAddr,
    /// When to end.
    pub close: CloseSignal,
}

impl fmt::Debug for ReadyLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyLink")
            .field("peer", &self.theirs.replica)
            .field("dialled", &self.dialled)
            .finish_non_exhaustive()
    }
}

/// Says when a link has to end.
#[derive(Clone, Debug)]
pub struct CloseSignal(pub(crate) watch::Receiver<Option<CloseCode>>);

impl CloseSignal {
    /// Waits until the link has to end, and says why. [`CloseCode::Replaced`] comes after the
    /// newer link was handed over, so that flows can move to it. Safe to cancel.
    pub async fn wanted(&mut self) -> CloseCode {
        match self.0.wait_for(Option::is_some).await {
            Ok(code) => (*code).unwrap_or(CloseCode::Internal),
            // Whoever could say so is gone, and the mesh with it.
            Err(_) => CloseCode::Leaving,
        }
    }
}
