//! Links between the hubs of a cluster: who is dialled, who is believed, and one WebSocket to
//! each.
//!
//! ```text
//!  config, registry ──► peers ──► keep (dial, backoff, renew) ──┐
//!                                                               ├─► hello ─► table ─► LinkUser
//!  /mesh ──► knock ──► admit (TLS, ingress) ──► accept ─────────┘    │
//!                                                       one link stays of two
//! ```
//! - [`MeshTasks`] dials whom the configuration names and whom the registry names where that is
//!   allowed, and takes links that come in through [`Mesh::accept`] or at a port of its own
//!   ([`Mesh::serve`]).
//! - A hub is who its certificate says: the hello carries its chain and a signature over both
//!   hellos and, where the acceptor ends TLS itself, that session. Presence in the registry, an
//!   address or a header prove nothing.
//! - Between two hubs one link stays. Which one both know without a word. A newer one takes its
//!   place before the older one ends.
//! - What flows over a link is not known here: [`LinkUser`] gets the WebSocket and a signal when
//!   to end.
//!
//! Trouble here leaves local service alone: a hub without links serves its own agents.
//!
//! Absent on purpose: flows, frames beyond the hello, policies, HTTP beyond the upgrade.

mod address;
mod arrival;
mod backoff;
mod choice;
mod close;
mod credentials;
mod dial;
mod handshake;
mod hello;
mod identity;
mod io;
pub mod limits;
mod link;
mod listener;
mod mesh;
mod observer;
mod peers;
mod proof;
mod settings;
mod table;

pub use address::{AllowRule, MESH_PATH, PeerUrl, PeerUrlError};
pub use arrival::{Admission, ArrivalRefused, Knock, Transport};
pub use close::{CloseCode, LinkEnd};
pub use credentials::{Credentials, CredentialsError, MeshFiles};
pub use dial::DialError;
pub use handshake::HelloError;
pub use hello::{LinkTerms, Malformed};
pub use identity::{IdentityError, REPLICA_URI_PREFIX, replica_uri};
pub use io::{MeshIo, TLS_BUFFER_BYTES, hello_config, link_config};
pub use link::{CloseSignal, LinkUser, ReadyLink};
pub use mesh::{AcceptError, Mesh, MeshTasks};
pub use nowconnect_protocol::ReplicaId;
pub use nowconnect_protocol::mesh::SUBPROTOCOL;
pub use observer::{LinkState, MeshObserver, PeerSource, PeerView};
pub use proof::Exporter;
pub use settings::MeshSettings;
