//! Hubs that are present, and leases that elect one of them.

use std::collections::BTreeMap;
use std::time::Duration;

use nowconnect_protocol::ReplicaId;

use crate::error::RegistryError;
use crate::hub::HubPresence;
use crate::limits::MAX_HUBS;

#[derive(Clone, Debug, Default)]
pub(super) struct Hubs {
    present: BTreeMap<ReplicaId, (u64, HubPresence)>,
    leases: BTreeMap<&'static str, (u64, ReplicaId)>,
}

impl Hubs {
    pub(super) fn announce(
        &mut self,
        hub: &HubPresence,
        now: u64,
        presence: u64,
    ) -> Result<(), RegistryError> {
        hub.encode()?;
        self.present.retain(|_, (until, _)| *until > now);
        if let Some((until, other)) = self.present.get(&hub.replica)
            && other.boot != hub.boot
        {
            return Err(RegistryError::ReplicaTaken {
                replica: hub.replica.clone(),
                remaining: Duration::from_millis(until - now),
            });
        }
        let others = self.present.len() - usize::from(self.present.contains_key(&hub.replica));
        RegistryError::bound("hubs of one cluster", others + 1, MAX_HUBS)?;
        let until = now.saturating_add(presence);
        self.present
            .insert(hub.replica.clone(), (until, hub.clone()));
        Ok(())
    }

    pub(super) fn withdraw(&mut self, hub: &HubPresence) {
        let same = |(_, present): &(u64, HubPresence)| present.boot == hub.boot;
        if self.present.get(&hub.replica).is_some_and(same) {
            self.present.remove(&hub.replica);
        }
    }

    pub(super) fn list(&self, now: u64) -> Vec<HubPresence> {
        self.present
            .values()
            .filter(|(until, _)| *until > now)
            .map(|(_, hub)| hub.clone())
            .collect()
    }

    pub(super) fn hold_lease(
        &mut self,
        name: &'static str,
        holder: &ReplicaId,
        now: u64,
        ttl: u64,
    ) -> bool {
        let free = self
            .leases
            .get(name)
            .is_none_or(|(until, other)| *until <= now || other == holder);
        if free {
            let until = now.saturating_add(ttl);
            self.leases.insert(name, (until, holder.clone()));
        }
        free
    }

    pub(super) fn drop_lease(&mut self, name: &'static str, holder: &ReplicaId) {
        if self
            .leases
            .get(name)
            .is_some_and(|(_, other)| other == holder)
        {
            self.leases.remove(name);
        }
    }
}
