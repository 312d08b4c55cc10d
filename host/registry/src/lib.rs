//! What the hubs of a cluster share: which hub owns which agent, who offers what, which hubs
//! there are, and the small state that has to hold at all of them.
//!
//! ```text
//!  hub ──► Claims ──► Registry ──┬── MemoryRegistry   one hub, or a model of the store
//!            │                   └── RedisRegistry    standalone, Sentinel, Cluster
//!            └──► EpochFence
//! ```
//! A [`Registry`] keeps ownership records, each atomic and under one key. [`Claims`] is what a hub
//! holds of it: it claims, renews, and carries claims that were made while the store was away
//! until they are published. [`EpochFence`] is the receiver's memory. [`SharedState`] is the small
//! state: what counts once, values that change by comparison, counters, revocations.
//!
//! **The store is not trusted to fence.** A failover may lose its last writes. An epoch is above
//! what is stored, above what the agent has seen and above what the claiming hub has seen, so a
//! lost write cannot bring one back that was left; and receivers refuse what is below the highest
//! that they saw. Nor does presence in the store make a hub trusted: it says where to dial, and a
//! certificate proves who answers.
//!
//! Absent on purpose: HTTP, the mesh, policies, and any clock of the hub in a decision. Leases are
//! counted by the store's own clock, and no clock decides between two claims.

mod agent;
mod claims;
mod error;
mod fence;
mod health;
mod hub;
pub mod limits;
pub mod memory;
mod presence;
pub mod redis;
mod registry;
mod secret;
mod shared;
mod sweeper;

pub use crate::redis::RedisRegistry;
pub use agent::{
    AgentKey, AgentPresence, ClaimRequest, ConnectorKey, Granted, Offer, Ownership,
    ProvisionalClaim,
};
pub use claims::{Claim, ClaimSettings, Claims, LostClaim, Offered};
pub use error::{ClaimLost, RegistryError, Unavailable};
pub use fence::{EpochFence, Fenced};
pub use health::Health;
pub use hub::{HaMode, HubPresence};
pub use memory::MemoryRegistry;
pub use nowconnect_protocol::{AgentId, ConnectorName, Epoch, ReplicaId, TenantName};
pub use presence::{Joined, Presence, Seen};
pub use registry::{Registry, SweepCursor, SweepReport};
pub use secret::Secret;
pub use shared::{
    Bucket, Changed, OnceKind, Revocation, RevocationCursor, RevocationPage, SharedState, Used,
};
pub use sweeper::{Sweeper, Swept};
