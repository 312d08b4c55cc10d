//! A store whose calls are counted and timed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use nowconnect_protocol::{Epoch, ReplicaId};
use nowconnect_registry::{
    AgentKey, AgentPresence, Bucket, Changed, ClaimRequest, ConnectorKey, Granted, Health,
    HubPresence, Offer, OnceKind, Ownership, ProvisionalClaim, Registry, RegistryError, Revocation,
    RevocationCursor, RevocationPage, SharedState, SweepCursor, SweepReport, Used,
};
use tokio::sync::watch;

use crate::telemetry::metrics::{Metrics, RegistryResult};

type Answer<'a, T> = BoxFuture<'a, Result<T, RegistryError>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Metered<R> {
    store: R,
    metrics: Arc<Metrics>,
}

impl<R: Sync> Metered<R> {
    pub(super) fn new(store: R, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    fn timed<'a, T: Send + 'a>(
        &'a self,
        call: &'static str,
        answer: Answer<'a, T>,
    ) -> Answer<'a, T> {
        let began = Instant::now();
        async move {
            let answer = answer.await;
            let result = result(answer.as_ref().err());
            self.metrics.cluster.called(call, result, began.elapsed());
            answer
        }
        .boxed()
    }
}

fn result(error: Option<&RegistryError>) -> RegistryResult {
    match error {
        None => RegistryResult::Ok,
        Some(RegistryError::Unavailable(_)) => RegistryResult::Unavailable,
        Some(RegistryError::Lost { .. }) => RegistryResult::Lost,
        Some(
            RegistryError::CounterSpent { .. }
            | RegistryError::ReplicaTaken { .. }
            | RegistryError::TooMuch { .. }
            | RegistryError::Refused { .. },
        ) => RegistryResult::Refused,
    }
}

impl<R: Registry> Registry for Metered<R> {
    fn claim_ownership<'a>(&'a self, claim: &'a ClaimRequest) -> Answer<'a, Granted> {
        self.timed("claim", self.store.claim_ownership(claim))
    }

    fn publish_claim<'a>(&'a self, claim: &'a ProvisionalClaim) -> Answer<'a, ()> {
        self.timed("publish", self.store.publish_claim(claim))
    }

    fn renew<'a>(&'a self, agent: &'a AgentKey, epoch: &'a Epoch) -> Answer<'a, ()> {
        self.timed("renew", self.store.renew(agent, epoch))
    }

    fn add_connectors<'a>(
        &'a self,
        agent: &'a AgentKey,
        epoch: &'a Epoch,
        offer: &'a Offer,
    ) -> Answer<'a, ()> {
        self.timed("offer", self.store.add_connectors(agent, epoch, offer))
    }

    fn release<'a>(&'a self, agent: &'a AgentKey, epoch: &'a Epoch) -> Answer<'a, ()> {
        self.timed("release", self.store.release(agent, epoch))
    }

    fn list_agents<'a>(&'a self, connector: &'a ConnectorKey) -> Answer<'a, Vec<AgentPresence>> {
        self.timed("list_agents", self.store.list_agents(connector))
    }

    fn get_owner<'a>(&'a self, agent: &'a AgentKey) -> Answer<'a, Option<Ownership>> {
        self.timed("get_owner", self.store.get_owner(agent))
    }

    fn announce_hub<'a>(&'a self, hub: &'a HubPresence) -> Answer<'a, ()> {
        self.timed("announce", self.store.announce_hub(hub))
    }

    fn withdraw_hub<'a>(&'a self, hub: &'a HubPresence) -> Answer<'a, ()> {
        self.timed("withdraw", self.store.withdraw_hub(hub))
    }

    fn list_hubs(&self) -> Answer<'_, Vec<HubPresence>> {
        self.timed("list_hubs", self.store.list_hubs())
    }

    fn hold_lease<'a>(
        &'a self,
        name: &'static str,
        holder: &'a ReplicaId,
        ttl: Duration,
    ) -> Answer<'a, bool> {
        self.timed("lease", self.store.hold_lease(name, holder, ttl))
    }

    fn drop_lease<'a>(&'a self, name: &'static str, holder: &'a ReplicaId) -> Answer<'a, ()> {
        self.timed("lease", self.store.drop_lease(name, holder))
    }

    fn sweep(&self, from: SweepCursor, budget: usize) -> Answer<'_, SweepReport> {
        self.timed("sweep", self.store.sweep(from, budget))
    }

    fn ownership_lease(&self) -> Duration {
        self.store.ownership_lease()
    }

    fn hub_presence(&self) -> Duration {
        self.store.hub_presence()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.store.health()
    }
}

impl<R: SharedState> SharedState for Metered<R> {
    fn use_once<'a>(&'a self, kind: OnceKind, id: &'a str, ttl: Duration) -> Answer<'a, Used> {
        self.timed("use_once", self.store.use_once(kind, id, ttl))
    }

    fn read<'a>(&'a self, bucket: Bucket, name: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        self.timed("read", self.store.read(bucket, name))
    }

    fn change<'a>(
        &'a self,
        bucket: Bucket,
        name: &'a str,
        expected: Option<&'a [u8]>,
        new: Option<&'a [u8]>,
        ttl: Option<Duration>,
    ) -> Answer<'a, Changed> {
        let answer = self.store.change(bucket, name, expected, new, ttl);
        self.timed("change", answer)
    }

    fn count<'a>(&'a self, name: &'a str, add: u32, window: Duration) -> Answer<'a, u64> {
        let answer = self.store.count(name, add, window);
        self.timed("count", answer)
    }

    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> Answer<'a, ()> {
        self.timed("revoke", self.store.revoke(revocation))
    }

    fn revocations<'a>(&'a self, cursor: &'a RevocationCursor) -> Answer<'a, RevocationPage> {
        self.timed("revocations", self.store.revocations(cursor))
    }
}
