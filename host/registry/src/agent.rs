//! Agents, their owners, and what they offer.

use std::fmt;
use std::sync::Arc;

use nowconnect_protocol::{AgentId, ConnectorName, Epoch, ReplicaId, TenantName};

use crate::error::RegistryError;
use crate::limits::{MAX_CONNECTORS, MAX_FACTS_BYTES};

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

/// The whole name of a connector. Shown bare in the default tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectorKey {
    /// Whose it is.
    pub tenant: TenantName,
    /// Its name within the tenant.
    pub name: ConnectorName,
}

impl fmt::Display for ConnectorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.tenant.is_default() {
            write!(f, "{}/", self.tenant)?;
        }
        f.write_str(self.name.as_str())
    }
}

/// A claim that a hub wants to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRequest {
    /// On which agent.
    pub agent: AgentKey,
    /// For which hub.
    pub replica: ReplicaId,
    /// The greatest of what the agent says it saw last and of what this hub has seen of it. The
    /// claim will be above it, whatever the store remembers.
    pub above: Option<Epoch>,
    /// How far above what is stored `above` is believed, where it is the agent's word alone; where
    /// nothing is stored, up to [`MAX_FIRST_WITNESS`](crate::limits::MAX_FIRST_WITNESS). `None`
    /// believes all of it.
    pub leap: Option<u64>,
}

/// A claim that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Its fencing number.
    pub epoch: Epoch,
    /// Who held the agent until now, if its lease had not ended.
    pub previous: Option<Ownership>,
}

/// A claim that a hub made by itself while the store was away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvisionalClaim {
    /// On which agent.
    pub agent: AgentKey,
    /// Under which epoch; its replica is the claimant.
    pub epoch: Epoch,
}

/// Who holds an agent, and since which claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The hub.
    pub owner: ReplicaId,
    /// The claim that is in force.
    pub epoch: Epoch,
}

/// What an agent offers at its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    connectors: Vec<ConnectorName>,
    facts: Arc<str>,
}

impl Offer {
    /// Connectors that were accepted, and what the owner proved of the agent, in the hub's own
    /// words: hubs at which flows begin put it into their decisions. Sorted, each connector once.
    ///
    /// # Errors
    /// More than [`MAX_CONNECTORS`] connectors or [`MAX_FACTS_BYTES`] of facts.
    pub fn new(
        mut connectors: Vec<ConnectorName>,
        facts: impl Into<Arc<str>>,
    ) -> Result<Self, RegistryError> {
        connectors.sort_unstable();
        connectors.dedup();
        let facts = facts.into();
        RegistryError::bound("connectors of one agent", connectors.len(), MAX_CONNECTORS)?;
        RegistryError::bound(
            "bytes of facts about one agent",
            facts.len(),
            MAX_FACTS_BYTES,
        )?;
        Ok(Self { connectors, facts })
    }

    /// What it offers, sorted.
    #[must_use]
    pub fn connectors(&self) -> &[ConnectorName] {
        &self.connectors
    }

    /// What its owner proved of it.
    #[must_use]
    pub fn facts(&self) -> &Arc<str> {
        &self.facts
    }

    /// Whether `name` is among what it offers.
    #[must_use]
    pub fn has(&self, name: &ConnectorName) -> bool {
        self.connectors.binary_search(name).is_ok()
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
    /// What it offers there.
    pub offer: Offer,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn name(text: &str) -> ConnectorName {
        ConnectorName::parse(text).unwrap()
    }

    #[test]
    fn an_offer_names_each_connector_once_and_in_order() {
        let offer = Offer::new(vec![name("ssh"), name("ldap"), name("ssh")], "").unwrap();
        assert_eq!(offer.connectors(), [name("ldap"), name("ssh")]);
        assert!(offer.has(&name("ssh")) && !offer.has(&name("rdp")));
    }

    #[test]
    fn an_offer_is_bounded() {
        let many = |count: usize| {
            (0..count)
                .map(|n| name(&format!("c{n}")))
                .collect::<Vec<_>>()
        };
        assert!(Offer::new(many(MAX_CONNECTORS), "x".repeat(MAX_FACTS_BYTES)).is_ok());
        assert!(matches!(
            Offer::new(many(MAX_CONNECTORS + 1), ""),
            Err(RegistryError::TooMuch { found, .. }) if found == MAX_CONNECTORS + 1
        ));
        assert!(Offer::new(Vec::new(), "x".repeat(MAX_FACTS_BYTES + 1)).is_err());
    }

    #[test]
    fn names_are_bare_in_the_default_tenant() {
        let agent = |tenant: &str| AgentKey {
            tenant: TenantName::parse(tenant).unwrap(),
            agent: AgentId::parse("plant-1").unwrap(),
        };
        assert_eq!(agent("default").to_string(), "plant-1");
        assert_eq!(agent("acme").to_string(), "acme/plant-1");
    }
}
