//! Who owns an agent, and which agents offer a connector.
//!
//! Ownership is *claimed* while an agent says hello, and carries an [`Epoch`], which only grows:
//! a claim takes the greatest of what is stored, what the agent has seen and what this hub has
//! seen, plus one. So a store that lost a write cannot bring an old epoch back, because the
//! agent itself is a witness. Whoever receives a frame fences by epoch; the store is not
//! trusted to do so.
//!
//! One hub alone uses [`memory::MemoryRegistry`]; a shared store offers the same trait and has
//! to pass the same tests. Presence in a registry never makes a peer trusted: it says where an
//! agent may be found, and no more.

pub mod memory;

use std::fmt;

use futures_util::future::BoxFuture;
use nowconnect_protocol::{AgentId, ConnectorName, Epoch, ReplicaId, TenantName};

pub use crate::config::ConnectorKey;

/// The whole name of an agent. Shown bare in the default tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentKey {
    /// The tenant that the token's issuer may assert.
    pub tenant: TenantName,
    /// The agent's id within the tenant.
    pub agent: AgentId,
}

impl fmt::Display for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.tenant.is_default() {
            write!(f, "{}/", self.tenant)?;
        }
        f.write_str(self.agent.as_str())
    }
}

/// An agent as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPresence {
    /// Which agent.
    pub key: AgentKey,
    /// The hub that holds its tunnel.
    pub owner: ReplicaId,
    /// The claim that is in force.
    pub epoch: Epoch,
    /// What the agent may serve there.
    pub connectors: Vec<ConnectorName>,
}

/// Why the registry did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The claim is no longer the newest: another hub, or a later tunnel, owns the agent.
    #[error("the claim of agent `{agent}` at epoch {held} was overtaken by epoch {current}")]
    Overtaken {
        /// Whose claim.
        agent: AgentKey,
        /// The epoch that was presented.
        held: u64,
        /// The epoch that is in force.
        current: u64,
    },
    /// No further agent fits; see [`memory::MAX_AGENTS`].
    #[error("the registry holds {limit} agents, which is its bound")]
    Full {
        /// The bound.
        limit: usize,
    },
    /// The store does not answer.
    #[error("the registry is not reachable: {0}")]
    Unavailable(String),
}

/// Ownership of agents and presence of connectors.
///
/// Every method is bounded in time by the implementation, and cancel-safe.
pub trait Registry: fmt::Debug + Send + Sync {
    /// Makes `replica` the owner of `agent`. The new epoch is greater than every stored one,
    /// than `last_epoch` (what the agent saw last) and than any that this registry has seen.
    fn claim_ownership(
        &self,
        agent: AgentKey,
        replica: ReplicaId,
        last_epoch: Option<Epoch>,
    ) -> BoxFuture<'_, Result<Epoch, RegistryError>>;

    /// Sets what the agent offers under the claim `epoch`; replaces what was set before.
    fn add_connectors(
        &self,
        agent: AgentKey,
        epoch: Epoch,
        connectors: Vec<ConnectorName>,
    ) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// Gives the claim `epoch` up; a later claim is left as it is.
    fn release(&self, agent: AgentKey, epoch: Epoch) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// The agents that offer `connector`, in the order of their names.
    fn list_agents(
        &self,
        connector: ConnectorKey,
    ) -> BoxFuture<'_, Result<Vec<AgentPresence>, RegistryError>>;

    /// The hub that owns `agent`, and since which claim.
    fn get_owner(
        &self,
        agent: AgentKey,
    ) -> BoxFuture<'_, Result<Option<(ReplicaId, Epoch)>, RegistryError>>;

    /// Whether the store answers.
    fn is_healthy(&self) -> bool;
}

#[cfg(test)]
pub(crate) mod tests;
