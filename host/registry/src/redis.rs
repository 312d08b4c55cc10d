//! The store in Redis 6.2 or later, or Valkey: standalone, Sentinel or Cluster.
//!
//! Keys, scripts and what they keep are written in `docs/protocols/registry.md`. Each change is
//! one script on the keys of one slot, so it is atomic in a cluster too. One connection a hub,
//! shared by all calls; a task watches it, drops it at the first sign of trouble, and dials again
//! with growing, random pauses, so that while Redis is away calls fail at once and a thousand
//! hubs do not come back in the same moment.

mod config;
mod connect;
mod eviction;
mod hubs;
mod keys;
mod link;
mod ownership;
mod reply;
mod script;
mod shared;
mod sweep;
mod url;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nowconnect_protocol::{Epoch, ReplicaId};
use tokio::sync::watch;

pub use self::config::{Address, RedisConfig, RedisConfigError, RedisTiming, RedisTls, Topology};
pub use self::eviction::Eviction;
use self::keys::Keys;
use self::link::Link;
use crate::agent::{
    AgentKey, AgentPresence, ClaimRequest, ConnectorKey, Granted, Offer, Ownership,
    ProvisionalClaim,
};
use crate::error::RegistryError;
use crate::health::Health;
use crate::hub::HubPresence;
use crate::registry::{Registry, SweepCursor, SweepReport};
use crate::shared::{
    Bucket, Changed, OnceKind, Revocation, RevocationCursor, RevocationPage, SharedState, Used,
};

/// See the module. The connection is given up when it is dropped.
#[derive(Debug)]
pub struct RedisRegistry {
    link: Link,
    keys: Keys,
    ownership_lease: Duration,
    hub_presence: Duration,
}

/// Why the store cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It removes keys when its memory is full, claims among them.
    #[error(
        "redis has `maxmemory-policy {policy}` and may remove claims at any time: set \
         `maxmemory-policy noeviction` there, or give NowConnect a redis of its own"
    )]
    Evicts {
        /// The policy found.
        policy: String,
    },
    /// It is too old for the scripts.
    #[error("redis is {found}, and 6.2 is the oldest that serves")]
    TooOld {
        /// The version found.
        found: String,
    },
    /// A file of the configuration.
    #[error(transparent)]
    Config(#[from] RedisConfigError),
}

impl RedisRegistry {
    /// Dials, looks at how Redis is set up, and keeps the connection. A Redis that is away is no
    /// error: the registry is [`Away`](Health::Away) until it answers. Needs a tokio runtime.
    ///
    /// # Errors
    /// Redis evicts keys or is too old; a file named by the configuration cannot be read.
    pub async fn open(config: RedisConfig) -> Result<Self, OpenError> {
        let keys = Keys::new(&config.prefix);
        let (ownership_lease, hub_presence) = (config.ownership_lease, config.hub_presence);
        Ok(Self {
            link: Link::open(config).await?,
            keys,
            ownership_lease,
            hub_presence,
        })
    }

    /// What is known of Redis' eviction of keys. Where it could not be read the operator is
    /// warned, since it decides whether claims stay.
    #[must_use]
    pub fn eviction(&self) -> Eviction {
        self.link.eviction()
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

type Answer<'a, T> = BoxFuture<'a, Result<T, RegistryError>>;

impl Registry for RedisRegistry {
    fn claim_ownership<'a>(&'a self, claim: &'a ClaimRequest) -> Answer<'a, Granted> {
        self.claim(claim).boxed()
    }

    fn publish_claim<'a>(&'a self, claim: &'a ProvisionalClaim) -> Answer<'a, ()> {
        self.publish(claim).boxed()
    }

    fn renew<'a>(&'a self, agent: &'a AgentKey, epoch: &'a Epoch) -> Answer<'a, ()> {
        self.renew_lease(agent, epoch).boxed()
    }

    fn add_connectors<'a>(
        &'a self,
        agent: &'a AgentKey,
        epoch: &'a Epoch,
        offer: &'a Offer,
    ) -> Answer<'a, ()> {
        self.set_offer(agent, epoch, offer).boxed()
    }

    fn release<'a>(&'a self, agent: &'a AgentKey, epoch: &'a Epoch) -> Answer<'a, ()> {
        self.give_up(agent, epoch).boxed()
    }

    fn list_agents<'a>(&'a self, connector: &'a ConnectorKey) -> Answer<'a, Vec<AgentPresence>> {
        self.list(connector).boxed()
    }

    fn get_owner<'a>(&'a self, agent: &'a AgentKey) -> Answer<'a, Option<Ownership>> {
        self.owner(agent).boxed()
    }

    fn announce_hub<'a>(&'a self, hub: &'a HubPresence) -> Answer<'a, ()> {
        self.announce(hub).boxed()
    }

    fn withdraw_hub<'a>(&'a self, hub: &'a HubPresence) -> Answer<'a, ()> {
        self.withdraw(hub).boxed()
    }

    fn list_hubs(&self) -> Answer<'_, Vec<HubPresence>> {
        self.hubs().boxed()
    }

    fn hold_lease<'a>(
        &'a self,
        name: &'static str,
        holder: &'a ReplicaId,
        ttl: Duration,
    ) -> Answer<'a, bool> {
        self.take_lease(name, holder, ttl).boxed()
    }

    fn drop_lease<'a>(&'a self, name: &'static str, holder: &'a ReplicaId) -> Answer<'a, ()> {
        self.leave_lease(name, holder).boxed()
    }

    fn sweep(&self, from: SweepCursor, budget: usize) -> Answer<'_, SweepReport> {
        self.sweep_some(from, budget).boxed()
    }

    fn ownership_lease(&self) -> Duration {
        self.ownership_lease
    }

    fn hub_presence(&self) -> Duration {
        self.hub_presence
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.link.health()
    }
}

impl SharedState for RedisRegistry {
    fn use_once<'a>(&'a self, kind: OnceKind, id: &'a str, ttl: Duration) -> Answer<'a, Used> {
        self.once(kind, id, ttl).boxed()
    }

    fn read<'a>(&'a self, bucket: Bucket, name: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        self.value(bucket, name).boxed()
    }

    fn change<'a>(
        &'a self,
        bucket: Bucket,
        name: &'a str,
        expected: Option<&'a [u8]>,
        new: Option<&'a [u8]>,
        ttl: Option<Duration>,
    ) -> Answer<'a, Changed> {
        self.compare_and_set(bucket, name, expected, new, ttl)
            .boxed()
    }

    fn count<'a>(&'a self, name: &'a str, add: u32, window: Duration) -> Answer<'a, u64> {
        self.add_to_counter(name, add, window).boxed()
    }

    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> Answer<'a, ()> {
        self.publish_revocation(revocation).boxed()
    }

    fn revocations<'a>(&'a self, cursor: &'a RevocationCursor) -> Answer<'a, RevocationPage> {
        self.revocations_since(cursor).boxed()
    }
}

/// Shown in logs, where a whole message of the client's library may be long.
fn reason(text: impl std::fmt::Display) -> Arc<str> {
    const MAX_REASON_CHARS: usize = 300;
    let text = text.to_string();
    text.chars()
        .take(MAX_REASON_CHARS)
        .collect::<String>()
        .into()
}
