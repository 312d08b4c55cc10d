//! Hubs that are present, and leases that elect one of them.

use std::time::Duration;

use nowconnect_protocol::ReplicaId;

use super::script::{HUB_ANNOUNCE, HUB_LIST, HUB_WITHDRAW, LEASE_DROP, LEASE_HOLD};
use super::{RedisRegistry, ms};
use crate::error::RegistryError;
use crate::hub::HubPresence;
use crate::limits::MAX_HUBS;

impl RedisRegistry {
    pub(super) async fn announce(&self, hub: &HubPresence) -> Result<(), RegistryError> {
        let arguments = [
            hub.replica.as_str().to_owned(),
            hub.boot.to_string(),
            hub.encode()?,
            ms(self.hub_presence).to_string(),
            MAX_HUBS.to_string(),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_bytes).collect();
        let keys = self.hub_keys();
        let mut reply = self.link.run(&HUB_ANNOUNCE, &keys, &arguments).await?;
        match reply.outcome() {
            "ok" => Ok(()),
            "taken" => Err(RegistryError::ReplicaTaken {
                replica: hub.replica.clone(),
                remaining: Duration::from_millis(reply.parsed()?),
            }),
            "full" => {
                let found: usize = reply.parsed()?;
                RegistryError::bound("hubs of one cluster", found + 1, MAX_HUBS)
            }
            _ => Err(reply.unexpected()),
        }
    }

    pub(super) async fn withdraw(&self, hub: &HubPresence) -> Result<(), RegistryError> {
        let boot = hub.boot.to_string();
        let arguments = [hub.replica.as_str().as_bytes(), boot.as_bytes()];
        let keys = self.hub_keys();
        self.link.run(&HUB_WITHDRAW, &keys, &arguments).await?;
        Ok(())
    }

    pub(super) async fn hubs(&self) -> Result<Vec<HubPresence>, RegistryError> {
        let mut reply = self.link.run(&HUB_LIST, &self.hub_keys(), &[]).await?;
        let mut found = Vec::new();
        while let Some(line) = reply.next_text() {
            if let Some((_boot, about)) = line.split_once(' ') {
                found.extend(HubPresence::decode(about));
            }
        }
        found.sort_unstable_by(|one, other| one.replica.cmp(&other.replica));
        Ok(found)
    }

    pub(super) async fn take_lease(
        &self,
        name: &'static str,
        holder: &ReplicaId,
        ttl: Duration,
    ) -> Result<bool, RegistryError> {
        let ttl = ms(ttl).max(1).to_string();
        let arguments = [holder.as_str().as_bytes(), ttl.as_bytes()];
        let keys = [self.keys.lease(name)];
        let reply = self.link.run(&LEASE_HOLD, &keys, &arguments).await?;
        Ok(reply.outcome() == "ok")
    }

    pub(super) async fn leave_lease(
        &self,
        name: &'static str,
        holder: &ReplicaId,
    ) -> Result<(), RegistryError> {
        let keys = [self.keys.lease(name)];
        let arguments = [holder.as_str().as_bytes()];
        self.link.run(&LEASE_DROP, &keys, &arguments).await?;
        Ok(())
    }

    fn hub_keys(&self) -> [String; 2] {
        [self.keys.hubs_until(), self.keys.hubs_about()]
    }
}
