//! What the mesh tells the hub about itself.

use std::net::IpAddr;

use nowconnect_protocol::ReplicaId;

/// The state of the link to one peer.
///
/// ```text
///              ┌────────────── the link ends ──────────────┐
///              ▼                                           │
///  Backoff ──pause over──► Connecting ──hello──► Established
///     ▲                        │                           │
///     └──────── fails ─────────┘     nobody dials the peer │
///                                                          ▼
///                                                       Closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkState {
    /// Nothing is tried: the peer is no longer dialled, or its address led back to this hub.
    Closed,
    /// A dial failed; the next comes after a pause, and flows to the peer are refused at once.
    Backoff,
    /// A dial is under way.
    Connecting,
    /// The link stands.
    Established,
}

impl LinkState {
    /// Every state.
    pub const ALL: [Self; 4] = [
        Self::Closed,
        Self::Backoff,
        Self::Connecting,
        Self::Established,
    ];

    /// The name in metrics and views.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Backoff => "backoff",
            Self::Connecting => "connecting",
            Self::Established => "established",
        }
    }
}

/// How this hub came to know a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerSource {
    /// It stands in `ha.mesh.peers`.
    Configured,
    /// It says in the registry that it is there.
    Discovered,
    /// It dialled.
    Arrived,
}

impl PeerSource {
    /// The name in views.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Discovered => "discovered",
            Self::Arrived => "arrived",
        }
    }
}

/// One peer, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Its name, or host and port of its address while it has never been reached.
    pub peer: String,
    /// Its name, once proven or promised by the registry.
    pub replica: Option<ReplicaId>,
    /// Where it is dialled.
    pub address: Option<String>,
    /// How this hub came to know it.
    pub source: PeerSource,
    /// The state of the link to it.
    pub state: LinkState,
    /// Of a standing link: whether this hub dialled it.
    pub dialled: Option<bool>,
    /// Of a standing link: the version of the protocol.
    pub version: Option<u16>,
    /// Of a standing link: whether a certificate proved who the peer is.
    pub proven: Option<bool>,
    /// Of a standing link: when the first certificate of the two hubs ends, seconds since 1970.
    pub not_after: Option<i64>,
    /// Failed dials in a row.
    pub failures: u32,
    /// Why the last dial failed, or the last link ended.
    pub last_error: Option<String>,
}

/// Told what becomes of the links. Must not block.
pub trait MeshObserver: Send + Sync {
    /// All peers, whenever something about one has changed.
    fn peers(&self, peers: &[PeerView]);

    /// A link to a peer that had one before stands again.
    fn reconnected(&self, peer: &str);

    /// A dial failed, or a link broke.
    fn failed(&self, peer: &str, code: &'static str);

    /// Somebody at the port was turned away before he had proven who he is.
    fn turned_away(&self, source: IpAddr, code: &'static str);
}
