//! Records of ownership in a table. A pure function of what it is asked and the time.

use std::collections::{BTreeMap, BTreeSet};

use nowconnect_protocol::{ConnectorName, Epoch};

use crate::agent::{
    AgentKey, AgentPresence, ClaimRequest, ConnectorKey, Granted, Offer, Ownership,
    ProvisionalClaim,
};
use crate::error::{ClaimLost, RegistryError};
use crate::limits::{
    MAX_AGENTS_PER_CONNECTOR, MAX_COUNTER, MAX_FIRST_WITNESS, MAX_LISTED_AGENTS, MAX_MEMORY_AGENTS,
};

/// All records, and which agents offer a connector.
#[derive(Clone, Debug, Default)]
pub(super) struct Ownerships {
    records: BTreeMap<AgentKey, Record>,
    index: BTreeMap<ConnectorKey, BTreeSet<AgentKey>>,
    /// The greatest counter of any agent that was forgotten: an unknown agent begins above it.
    forgotten_counter: u64,
}

#[derive(Clone, Debug)]
struct Record {
    epoch: Epoch,
    held: Held,
    offer: Offer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Until(u64),
    Released,
}

impl Record {
    fn owner(&self, now: u64) -> Option<Ownership> {
        match self.held {
            Held::Until(until) if until > now => Some(Ownership {
                owner: self.epoch.replica.clone(),
                epoch: self.epoch.clone(),
            }),
            Held::Until(_) | Held::Released => None,
        }
    }
}

impl Ownerships {
    pub(super) fn claim(
        &mut self,
        claim: &ClaimRequest,
        now: u64,
        lease: u64,
    ) -> Result<Granted, RegistryError> {
        let known = self.records.get(&claim.agent);
        let stored = known.map_or(self.forgotten_counter, |record| record.epoch.counter);
        let previous = known.and_then(|record| record.owner(now));
        believed(claim, known.map(|record| record.epoch.counter))?;
        let counter = next_counter(&claim.agent, stored, claim.above.as_ref())?;
        let epoch = Epoch {
            counter,
            replica: claim.replica.clone(),
        };
        self.put(&claim.agent, epoch.clone(), now, lease)?;
        Ok(Granted { epoch, previous })
    }

    pub(super) fn publish(
        &mut self,
        claim: &ProvisionalClaim,
        now: u64,
        lease: u64,
    ) -> Result<(), RegistryError> {
        match self.records.get_mut(&claim.agent) {
            // Also one that was released: only its holder can ask for it.
            Some(record) if record.epoch == claim.epoch => {
                record.held = Held::Until(now.saturating_add(lease));
                Ok(())
            }
            Some(record) if record.epoch > claim.epoch => {
                let current = record.epoch.clone();
                let why = ClaimLost::Overtaken { current };
                Err(lost(&claim.agent, &claim.epoch, why))
            }
            Some(_) | None => self.put(&claim.agent, claim.epoch.clone(), now, lease),
        }
    }

    pub(super) fn renew(
        &mut self,
        agent: &AgentKey,
        epoch: &Epoch,
        now: u64,
        lease: u64,
    ) -> Result<(), RegistryError> {
        let record = self
            .checked(agent, epoch)
            .map_err(|why| lost(agent, epoch, why))?;
        record.held = Held::Until(now.saturating_add(lease));
        Ok(())
    }

    pub(super) fn offer(
        &mut self,
        agent: &AgentKey,
        epoch: &Epoch,
        offer: &Offer,
    ) -> Result<(), RegistryError> {
        self.checked(agent, epoch)
            .map_err(|why| lost(agent, epoch, why))?;
        for name in offer.connectors() {
            let others = self.index.get(&connector(agent, name)).map_or(0, |agents| {
                agents.len() - usize::from(agents.contains(agent))
            });
            let limit = MAX_AGENTS_PER_CONNECTOR;
            RegistryError::bound("agents behind one connector", others + 1, limit)?;
        }
        self.unlist(agent);
        for name in offer.connectors() {
            self.index
                .entry(connector(agent, name))
                .or_default()
                .insert(agent.clone());
        }
        if let Some(record) = self.records.get_mut(agent) {
            record.offer = offer.clone();
        }
        Ok(())
    }

    pub(super) fn release(&mut self, agent: &AgentKey, epoch: &Epoch) -> Result<(), RegistryError> {
        self.checked(agent, epoch)
            .map_err(|why| lost(agent, epoch, why))?;
        self.unlist(agent);
        if let Some(record) = self.records.get_mut(agent) {
            record.held = Held::Released;
            record.offer = Offer::default();
        }
        Ok(())
    }

    pub(super) fn owner(&self, agent: &AgentKey, now: u64) -> Option<Ownership> {
        self.records.get(agent)?.owner(now)
    }

    pub(super) fn list(&self, connector: &ConnectorKey, now: u64) -> Vec<AgentPresence> {
        let Some(agents) = self.index.get(connector) else {
            return Vec::new();
        };
        let present = agents.iter().filter_map(|key| {
            let record = self.records.get(key)?;
            let Ownership { owner, epoch } = record.owner(now)?;
            Some(AgentPresence {
                key: key.clone(),
                owner,
                epoch,
                offer: record.offer.clone(),
            })
        });
        let mut chosen =
            rand::seq::IteratorRandom::sample(present, &mut rand::rng(), MAX_LISTED_AGENTS);
        chosen.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        chosen
    }

    /// The record, if `epoch` is in force there.
    fn checked(&mut self, agent: &AgentKey, epoch: &Epoch) -> Result<&mut Record, ClaimLost> {
        match self.records.get_mut(agent) {
            Some(record) if record.epoch == *epoch => match record.held {
                Held::Until(_) => Ok(record),
                Held::Released => Err(ClaimLost::Released),
            },
            Some(record) if record.epoch > *epoch => Err(ClaimLost::Overtaken {
                current: record.epoch.clone(),
            }),
            Some(_) | None => Err(ClaimLost::Forgotten),
        }
    }

    fn put(
        &mut self,
        agent: &AgentKey,
        epoch: Epoch,
        now: u64,
        lease: u64,
    ) -> Result<(), RegistryError> {
        if !self.records.contains_key(agent) && self.records.len() >= MAX_MEMORY_AGENTS {
            self.make_room(now)?;
        }
        self.unlist(agent);
        let record = Record {
            epoch,
            held: Held::Until(now.saturating_add(lease)),
            offer: Offer::default(),
        };
        self.records.insert(agent.clone(), record);
        Ok(())
    }

    /// Forgets an agent that nobody owns.
    fn make_room(&mut self, now: u64) -> Result<(), RegistryError> {
        let left = self
            .records
            .iter()
            .find(|(_, record)| record.owner(now).is_none())
            .map(|(key, record)| (key.clone(), record.epoch.counter));
        let Some((left, counter)) = left else {
            let limit = MAX_MEMORY_AGENTS;
            return RegistryError::bound("agents", limit + 1, limit);
        };
        self.unlist(&left);
        self.records.remove(&left);
        self.forgotten_counter = self.forgotten_counter.max(counter);
        Ok(())
    }

    /// Takes an agent out of the index.
    fn unlist(&mut self, agent: &AgentKey) {
        let Some(record) = self.records.get(agent) else {
            return;
        };
        for name in record.offer.connectors() {
            let key = connector(agent, name);
            if let Some(agents) = self.index.get_mut(&key) {
                agents.remove(agent);
                if agents.is_empty() {
                    self.index.remove(&key);
                }
            }
        }
    }
}

/// Whether what is claimed above may be taken for seen, with this counter stored.
fn believed(claim: &ClaimRequest, stored: Option<u64>) -> Result<(), RegistryError> {
    let (Some(leap), Some(above)) = (claim.leap, &claim.above) else {
        return Ok(());
    };
    let limit = stored.map_or(MAX_FIRST_WITNESS, |stored| stored.saturating_add(leap));
    if above.counter > limit {
        return Err(RegistryError::CounterSpent {
            agent: claim.agent.clone(),
            witnessed: above.counter,
            limit,
        });
    }
    Ok(())
}

fn next_counter(
    agent: &AgentKey,
    stored: u64,
    above: Option<&Epoch>,
) -> Result<u64, RegistryError> {
    let highest = stored.max(above.map_or(0, |epoch| epoch.counter));
    if highest >= MAX_COUNTER {
        return Err(RegistryError::CounterSpent {
            agent: agent.clone(),
            witnessed: highest,
            limit: MAX_COUNTER,
        });
    }
    Ok(highest + 1)
}

fn connector(agent: &AgentKey, name: &ConnectorName) -> ConnectorKey {
    ConnectorKey {
        tenant: agent.tenant.clone(),
        name: name.clone(),
    }
}

fn lost(agent: &AgentKey, held: &Epoch, why: ClaimLost) -> RegistryError {
    RegistryError::Lost {
        agent: agent.clone(),
        held: held.clone(),
        why,
    }
}
