//! The store in this process: for a hub that stands alone, and as the model of a store in tests
//! and simulations.
//!
//! Clones share one store, so that several hubs of a simulation can. What a real store does to
//! its hubs can be done to this one: it can be cut off, lose its last writes or all of them, and
//! its clock can be given.

mod hubs;
mod ownership;
mod shared;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use nowconnect_protocol::{Epoch, ReplicaId};
use parking_lot::Mutex;
use tokio::sync::watch;

use self::hubs::Hubs;
use self::ownership::Ownerships;
use self::shared::Shared;
use crate::agent::{
    AgentKey, AgentPresence, ClaimRequest, ConnectorKey, Granted, Offer, Ownership,
    ProvisionalClaim,
};
use crate::error::{RegistryError, Unavailable};
use crate::health::Health;
use crate::hub::HubPresence;
use crate::limits::{HUB_PRESENCE, OWNERSHIP_LEASE};
use crate::registry::{Registry, SweepCursor, SweepReport};
use crate::shared::{
    Bucket, Changed, OnceKind, Revocation, RevocationCursor, RevocationPage, SharedState, Used,
};

/// Milliseconds since some moment; may be moved either way by a test.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// See the module.
#[derive(Clone)]
pub struct MemoryRegistry {
    store: Arc<Store>,
    ownership_lease: Duration,
    hub_presence: Duration,
}

struct Store {
    state: Mutex<State>,
    health: watch::Sender<Health>,
    clock: Clock,
}

#[derive(Clone, Debug, Default)]
struct State {
    ownerships: Ownerships,
    hubs: Hubs,
    shared: Shared,
}

/// What a [`MemoryRegistry`] held at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot(State);

impl Default for MemoryRegistry {
    fn default() -> Self {
        let start = Instant::now();
        let clock = move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self::with_clock(OWNERSHIP_LEASE, HUB_PRESENCE, clock)
    }
}

impl fmt::Debug for MemoryRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegistry")
            .field("health", &*self.store.health.borrow())
            .finish_non_exhaustive()
    }
}

impl MemoryRegistry {
    /// An empty store with these leases and this clock, in milliseconds.
    #[must_use]
    pub fn with_clock(
        ownership_lease: Duration,
        hub_presence: Duration,
        clock: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            store: Arc::new(Store {
                state: Mutex::default(),
                health: watch::Sender::new(Health::Healthy),
                clock: Arc::new(clock),
            }),
            ownership_lease,
            hub_presence,
        }
    }

    /// The same store, as a hub with other leases sees it.
    #[must_use]
    pub fn with_leases(&self, ownership_lease: Duration, hub_presence: Duration) -> Self {
        Self {
            store: Arc::clone(&self.store),
            ownership_lease,
            hub_presence,
        }
    }

    /// Cuts the store off, or brings it back, for everyone who shares it.
    pub fn set_reachable(&self, reachable: bool) {
        self.store.health.send_replace(if reachable {
            Health::Healthy
        } else {
            Health::away("cut off")
        });
    }

    /// What the store holds now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.store.state.lock().clone())
    }

    /// Goes back to what the store held, as a failover to a replica that lagged does.
    pub fn restore(&self, snapshot: Snapshot) {
        *self.store.state.lock() = snapshot.0;
    }

    /// Forgets all.
    pub fn forget(&self) {
        *self.store.state.lock() = State::default();
    }

    fn answer<'a, T: Send + 'a>(
        &self,
        act: impl FnOnce(&mut State, u64) -> Result<T, RegistryError>,
    ) -> BoxFuture<'a, Result<T, RegistryError>> {
        let outcome = match &*self.store.health.borrow() {
            Health::Healthy => act(&mut self.store.state.lock(), (self.store.clock)()),
            Health::Away { reason } => Err(Unavailable::Away {
                reason: Arc::clone(reason),
            }
            .into()),
        };
        ready(outcome).boxed()
    }

    fn lease_ms(&self) -> u64 {
        ms(self.ownership_lease)
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

type Answer<'a, T> = BoxFuture<'a, Result<T, RegistryError>>;

impl Registry for MemoryRegistry {
    fn claim_ownership<'a>(&'a self, claim: &'a ClaimRequest) -> Answer<'a, Granted> {
        let lease = self.lease_ms();
        self.answer(|state, now| state.ownerships.claim(claim, now, lease))
    }

    fn publish_claim<'a>(&'a self, claim: &'a ProvisionalClaim) -> Answer<'a, ()> {
        let lease = self.lease_ms();
        self.answer(|state, now| state.ownerships.publish(claim, now, lease))
    }

    fn renew<'a>(&'a self, agent: &'a AgentKey, epoch: &'a Epoch) -> Answer<'a, ()> {
        let lease = self.lease_ms();
        self.answer(|state, now| state.ownerships.renew(agent, epoch, now, lease))
    }

    fn add_connectors<'a>(
        &'a self,
        agent: &'a AgentKey,
        epoch: &'a Epoch,
        offer: &'a Offer,
    ) -> Answer<'a, ()> {
        self.answer(|state, _| state.ownerships.offer(agent, epoch, offer))
    }

    fn release<'a>(&'a self, agent: &'a AgentKey, epoch: &'a Epoch) -> Answer<'a, ()> {
        self.answer(|state, _| state.ownerships.release(agent, epoch))
    }

    fn list_agents<'a>(&'a self, connector: &'a ConnectorKey) -> Answer<'a, Vec<AgentPresence>> {
        self.answer(|state, now| Ok(state.ownerships.list(connector, now)))
    }

    fn get_owner<'a>(&'a self, agent: &'a AgentKey) -> Answer<'a, Option<Ownership>> {
        self.answer(|state, now| Ok(state.ownerships.owner(agent, now)))
    }

    fn announce_hub<'a>(&'a self, hub: &'a HubPresence) -> Answer<'a, ()> {
        let presence = ms(self.hub_presence);
        self.answer(|state, now| state.hubs.announce(hub, now, presence))
    }

    fn withdraw_hub<'a>(&'a self, hub: &'a HubPresence) -> Answer<'a, ()> {
        self.answer(|state, _| {
            state.hubs.withdraw(hub);
            Ok(())
        })
    }

    fn list_hubs(&self) -> Answer<'_, Vec<HubPresence>> {
        self.answer(|state, now| Ok(state.hubs.list(now)))
    }

    fn hold_lease<'a>(
        &'a self,
        name: &'static str,
        holder: &'a ReplicaId,
        ttl: Duration,
    ) -> Answer<'a, bool> {
        self.answer(|state, now| Ok(state.hubs.hold_lease(name, holder, now, ms(ttl))))
    }

    fn drop_lease<'a>(&'a self, name: &'static str, holder: &'a ReplicaId) -> Answer<'a, ()> {
        self.answer(|state, _| {
            state.hubs.drop_lease(name, holder);
            Ok(())
        })
    }

    /// There is nothing to sweep: the index changes together with the records.
    fn sweep(&self, _from: SweepCursor, _budget: usize) -> Answer<'_, SweepReport> {
        self.answer(|_, _| Ok(SweepReport::default()))
    }

    fn ownership_lease(&self) -> Duration {
        self.ownership_lease
    }

    fn hub_presence(&self) -> Duration {
        self.hub_presence
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.store.health.subscribe()
    }
}

impl SharedState for MemoryRegistry {
    fn use_once<'a>(&'a self, kind: OnceKind, id: &'a str, ttl: Duration) -> Answer<'a, Used> {
        self.answer(|state, now| state.shared.use_once(kind, id, now, ms(ttl)))
    }

    fn read<'a>(&'a self, bucket: Bucket, name: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        self.answer(|state, now| state.shared.read(bucket, name, now))
    }

    fn change<'a>(
        &'a self,
        bucket: Bucket,
        name: &'a str,
        expected: Option<&'a [u8]>,
        new: Option<&'a [u8]>,
        ttl: Option<Duration>,
    ) -> Answer<'a, Changed> {
        self.answer(|state, now| {
            let until = ttl.map(|ttl| now.saturating_add(ms(ttl)));
            state
                .shared
                .change((bucket, name), expected, new, now, until)
        })
    }

    fn count<'a>(&'a self, name: &'a str, add: u32, window: Duration) -> Answer<'a, u64> {
        self.answer(|state, now| state.shared.count(name, add, now, ms(window)))
    }

    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> Answer<'a, ()> {
        self.answer(|state, now| state.shared.revoke(revocation, now))
    }

    fn revocations<'a>(&'a self, cursor: &'a RevocationCursor) -> Answer<'a, RevocationPage> {
        self.answer(|state, _| Ok(state.shared.revocations(cursor)))
    }
}
