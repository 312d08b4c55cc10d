//! What an operator may set about the mesh.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::address::{AllowRule, PeerUrl};
use crate::credentials::Credentials;
use crate::limits::HANDSHAKE_TIMEOUT;

/// What an operator may set about the mesh. A change is taken over by [`Mesh::update`] without
/// ending a link that may stay.
///
/// [`Mesh::update`]: crate::Mesh::update
#[derive(Clone, Debug)]
pub struct MeshSettings {
    /// Hubs to dial, whoever they are (`ha.mesh.peers`).
    pub peers: Vec<PeerUrl>,
    /// Which addresses from the registry may be dialled (`ha.mesh.discovery.allow`). Empty: none.
    pub allow: Vec<AllowRule>,
    /// Whether a link without proven identity is refused (`ha.mesh.require_mtls`). Without it,
    /// whoever reaches the port is believed to be who he says.
    pub require_proof: bool,
    /// This hub's certificate and the roots for the others (`ha.mesh.tls`).
    pub credentials: Option<Arc<Credentials>>,
    /// From where plain text and forwarded headers are taken (`ha.mesh.trusted_ingress`).
    pub trusted_ingress: Vec<IpNet>,
    /// Bound of the pause between two dials (`ha.mesh.connect_backoff_max_sec`).
    pub connect_backoff_max: Duration,
    /// Time for a link to come to be, from the dial or the first byte at the port.
    pub handshake_timeout: Duration,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            peers: Vec::new(),
            allow: Vec::new(),
            require_proof: true,
            credentials: None,
            trusted_ingress: Vec::new(),
            connect_backoff_max: Duration::from_secs(30),
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}
