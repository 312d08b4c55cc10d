//! Links between hubs.
//!
//! A hub that holds a client's socket (the *origin*) reaches an agent that another hub holds
//! (its *owner*) over the one link between the two. The flow's ends stay where they are: the
//! origin and the agent. The owner relays: it passes on bytes, FIN, RST and WINDOW both ways and
//! makes none of them, so nothing is acknowledged while it is only in a relay's memory.

mod claim;
mod frame;
mod hello;

pub use claim::{AgentKey, Claim};
pub use frame::{MeshFrame, SUBPROTOCOL, VERSION, decode, encode};
pub use hello::{MeshFeatures, MeshHello, MeshProof};
