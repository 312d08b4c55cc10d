//! The registry of a hub that stands alone: a table in this process.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use nowconnect_protocol::{ConnectorName, Epoch, ReplicaId};
use parking_lot::Mutex;

use super::{AgentKey, AgentPresence, ConnectorKey, Registry, RegistryError};

/// How many agents the table holds, those included that have left (their epoch is kept, so
/// that it never goes back). About 300 bytes each, so 30 MB at most.
pub const MAX_AGENTS: usize = 100_000;

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryRegistry {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    agents: BTreeMap<AgentKey, Entry>,
    /// The greatest counter seen in any claim, so that an evicted agent's epoch cannot return.
    highest_counter: u64,
}

#[derive(Debug)]
struct Entry {
    epoch: Epoch,
    /// `None` after a release.
    owner: Option<ReplicaId>,
    connectors: Vec<ConnectorName>,
}

impl MemoryRegistry {
    fn claim(
        &self,
        agent: AgentKey,
        replica: ReplicaId,
        last_epoch: Option<&Epoch>,
    ) -> Result<Epoch, RegistryError> {
        let mut table = self.table.lock();
        if !table.agents.contains_key(&agent) && table.agents.len() >= MAX_AGENTS {
            let Some(left) = table
                .agents
                .iter()
                .find(|(_, entry)| entry.owner.is_none())
                .map(|(key, _)| key.clone())
            else {
                return Err(RegistryError::Full { limit: MAX_AGENTS });
            };
            // Its epoch stays below `highest_counter`, from which an unknown agent starts.
            table.agents.remove(&left);
        }
        let stored = table
            .agents
            .get(&agent)
            .map_or(table.highest_counter, |entry| entry.epoch.counter);
        let witnessed = last_epoch.map_or(0, |epoch| epoch.counter);
        let counter = stored.max(witnessed).saturating_add(1);
        let epoch = Epoch {
            counter,
            replica: replica.clone(),
        };
        table.highest_counter = table.highest_counter.max(counter);
        table.agents.insert(
            agent,
            Entry {
                epoch: epoch.clone(),
                owner: Some(replica),
                connectors: Vec::new(),
            },
        );
        Ok(epoch)
    }

    fn with_claim(
        &self,
        agent: AgentKey,
        epoch: &Epoch,
        change: impl FnOnce(&mut Entry),
    ) -> Result<(), RegistryError> {
        let mut table = self.table.lock();
        match table.agents.get_mut(&agent) {
            Some(entry) if entry.epoch == *epoch => {
                change(entry);
                Ok(())
            }
            Some(entry) => Err(RegistryError::Overtaken {
                held: epoch.counter,
                current: entry.epoch.counter,
                agent,
            }),
            None => Err(RegistryError::Overtaken {
                agent,
                held: epoch.counter,
                current: 0,
            }),
        }
    }
}

impl Registry for MemoryRegistry {
    fn claim_ownership(
        &self,
        agent: AgentKey,
        replica: ReplicaId,
        last_epoch: Option<Epoch>,
    ) -> BoxFuture<'_, Result<Epoch, RegistryError>> {
        ready(self.claim(agent, replica, last_epoch.as_ref())).boxed()
    }

    fn add_connectors(
        &self,
        agent: AgentKey,
        epoch: Epoch,
        connectors: Vec<ConnectorName>,
    ) -> BoxFuture<'_, Result<(), RegistryError>> {
        ready(self.with_claim(agent, &epoch, |entry| entry.connectors = connectors)).boxed()
    }

    fn release(&self, agent: AgentKey, epoch: Epoch) -> BoxFuture<'_, Result<(), RegistryError>> {
        ready(self.with_claim(agent, &epoch, |entry| {
            entry.owner = None;
            entry.connectors.clear();
        }))
        .boxed()
    }

    fn list_agents(
        &self,
        connector: ConnectorKey,
    ) -> BoxFuture<'_, Result<Vec<AgentPresence>, RegistryError>> {
        let found = self
            .table
            .lock()
            .agents
            .iter()
            .filter(|(key, entry)| {
                key.tenant == connector.tenant && entry.connectors.contains(&connector.name)
            })
            .filter_map(|(key, entry)| {
                Some(AgentPresence {
                    key: key.clone(),
                    owner: entry.owner.clone()?,
                    epoch: entry.epoch.clone(),
                    connectors: entry.connectors.clone(),
                })
            })
            .collect();
        ready(Ok(found)).boxed()
    }

    fn get_owner(
        &self,
        agent: AgentKey,
    ) -> BoxFuture<'_, Result<Option<(ReplicaId, Epoch)>, RegistryError>> {
        let owner = self
            .table
            .lock()
            .agents
            .get(&agent)
            .and_then(|entry| Some((entry.owner.clone()?, entry.epoch.clone())));
        ready(Ok(owner)).boxed()
    }

    fn is_healthy(&self) -> bool {
        true
    }
}
