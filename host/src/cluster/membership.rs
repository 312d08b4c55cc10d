//! One stay in one registry, from joining to leaving.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nowconnect_registry::redis::RedisConfig;
use nowconnect_registry::{
    ClaimSettings, Claims, EpochFence, HaMode, Health, HubPresence, Joined, LostClaim,
    MemoryRegistry, Presence, RedisRegistry, Registry, RegistryError, Seen, SharedState, Sweeper,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::metered::Metered;
use super::{JoinError, LEAVE_WITHIN, revocations};
use crate::config::CloudConfig;
use crate::hub::Hub;
use crate::session;
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;

/// Lost claims that wait for their sessions to be ended. A longer queue holds back the next round
/// of renewals.
const MAX_LOST_WAITING: usize = 256;

/// Between two steps of the sweeper, and index entries of each.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
const SWEEP_ENTRIES: usize = 1_000;

/// How long beyond its presence a hub that crashed may keep its name from its next process: the
/// store's clock and ours need not agree to the millisecond.
const NAME_GRACE: Duration = Duration::from_secs(1);

/// How often a name that is taken is asked for again.
const NAME_EVERY: Duration = Duration::from_millis(250);

/// What a membership was joined on. Another one needs another membership.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Terms {
    /// This hub's memory, and nobody is told.
    Alone,
    /// Memory too, with presence: that of this hub where it has no store yet, or one that several
    /// hubs of this process were given.
    Memory,
    /// A store of its own.
    Redis(Box<RedisConfig>),
}

impl Terms {
    pub(super) fn of(config: &CloudConfig) -> Self {
        match (config.ha.mode(), &config.ha.redis) {
            (HaMode::Off, _) => Self::Alone,
            (HaMode::Shadow | HaMode::Active, None) => Self::Memory,
            (HaMode::Shadow | HaMode::Active, Some(redis)) => Self::Redis(Box::new(redis.clone())),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Membership {
    terms: Terms,
    about: HubPresence,
    registry: Arc<dyn Registry>,
    shared: Option<Arc<dyn SharedState>>,
    claims: Arc<Claims>,
    seen: watch::Sender<Seen>,
    /// End with the membership.
    tasks: Mutex<JoinSet<()>>,
}

impl Membership {
    /// Opens the registry and says that this hub is there.
    pub(super) async fn join(
        terms: Terms,
        about: &watch::Sender<HubPresence>,
        given: Option<&Arc<dyn Registry>>,
        fence: &Arc<EpochFence>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, JoinError> {
        let about = about.borrow().clone();
        let (registry, shared) = match &terms {
            Terms::Alone => (own_memory(None), None),
            Terms::Memory => (own_memory(given), None),
            Terms::Redis(config) => {
                let redis = RedisRegistry::open(config.as_ref().clone()).await?;
                let redis = Arc::new(Metered::new(redis, Arc::clone(metrics)));
                let shared = Arc::clone(&redis) as Arc<dyn SharedState>;
                (redis as Arc<dyn Registry>, Some(shared))
            }
        };
        if terms != Terms::Alone {
            announce(registry.as_ref(), &about).await?;
        }
        let claims = Claims::new(
            Arc::clone(&registry),
            about.replica.clone(),
            Arc::clone(fence),
            ClaimSettings::default(),
        );
        Ok(Self {
            terms,
            about,
            registry,
            shared,
            claims: Arc::new(claims),
            seen: watch::Sender::default(),
            tasks: Mutex::default(),
        })
    }

    /// Renews, announces and sweeps from now on.
    pub(super) fn begin(
        &self,
        hub: &Arc<Hub>,
        about: &watch::Sender<HubPresence>,
        revoked: &Arc<Notify>,
    ) {
        let mut tasks = self.tasks.lock();
        let runtime = &hub.runtime;
        let (lost, ended) = mpsc::channel(MAX_LOST_WAITING);
        let claims = Arc::clone(&self.claims);
        tasks.spawn_on(async move { claims.run(lost).await }, runtime);
        tasks.spawn_on(end_lost(Arc::downgrade(hub), ended), runtime);
        if self.terms == Terms::Alone {
            return;
        }
        info!(
            event = events::CLUSTER_JOINED,
            hub = %self.about.replica,
            healthy = self.registry.is_healthy(),
            "this hub is in its cluster's registry"
        );
        let presence = Presence::new(Arc::clone(&self.registry), about.subscribe());
        let passed = pass_on(presence.seen(), self.seen.clone(), Arc::clone(&self.claims));
        tasks.spawn_on(passed, runtime);
        let mut presence = presence;
        tasks.spawn_on(async move { presence.run().await }, runtime);
        let sweeper = Sweeper::new(
            Arc::clone(&self.registry),
            self.about.replica.clone(),
            SWEEP_EVERY,
            SWEEP_ENTRIES,
        );
        tasks.spawn_on(sweeper.run(), runtime);
        tasks.spawn_on(tell_health(self.registry.health()), runtime);
        if let Some(shared) = &self.shared {
            let exchange = revocations::keep(
                Arc::downgrade(hub),
                self.about.replica.clone(),
                Arc::clone(shared),
                Arc::clone(revoked),
            );
            tasks.spawn_on(exchange, runtime);
        }
    }

    /// Gives everything up, within a bounded time.
    pub(super) async fn leave(&self) {
        self.end();
        if self.terms == Terms::Alone {
            return;
        }
        let leave = async {
            self.claims.release_all().await;
            self.registry.withdraw_hub(&self.about).await
        };
        match tokio::time::timeout(LEAVE_WITHIN, leave).await {
            Ok(Ok(())) => info!(
                event = events::CLUSTER_LEFT,
                hub = %self.about.replica,
                "this hub has left its cluster's registry"
            ),
            Ok(Err(error)) => warn!(%error, "the registry was not told that this hub leaves"),
            Err(_) => warn!("the registry did not hear in time that this hub leaves"),
        }
    }

    /// Ends what runs for it.
    pub(super) fn end(&self) {
        self.tasks.lock().abort_all();
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) fn registry(&self) -> &Arc<dyn Registry> {
        &self.registry
    }

    pub(super) fn shared(&self) -> Option<&Arc<dyn SharedState>> {
        self.shared.as_ref()
    }

    pub(super) fn claims(&self) -> &Arc<Claims> {
        &self.claims
    }

    pub(super) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// What is wrong with the registry, where something is.
    pub(super) fn trouble(&self) -> Option<String> {
        if let Health::Away { reason } = &*self.registry.health().borrow() {
            return Some(reason.to_string());
        }
        let taken = self.seen.borrow().joined == Joined::NameTaken;
        taken.then(|| {
            format!(
                "another hub is present as `{}`: give each its own `ha.replica_id`",
                self.about.replica
            )
        })
    }
}

fn own_memory(given: Option<&Arc<dyn Registry>>) -> Arc<dyn Registry> {
    match given {
        Some(given) => Arc::clone(given),
        None => Arc::new(MemoryRegistry::default()),
    }
}

/// Says that this hub is there. A name that is taken may be that of its own last process, which
/// crashed: that ends by itself, and is waited for.
async fn announce(registry: &dyn Registry, about: &HubPresence) -> Result<(), JoinError> {
    let until = Instant::now() + registry.hub_presence() + NAME_GRACE;
    loop {
        match registry.announce_hub(about).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_unavailable() => return Ok(()),
            Err(RegistryError::ReplicaTaken { .. }) if Instant::now() < until => {
                tokio::time::sleep(NAME_EVERY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends the sessions whose claims are lost.
async fn end_lost(hub: Weak<Hub>, mut lost: mpsc::Receiver<LostClaim>) {
    while let Some(LostClaim { agent, held, why }) = lost.recv().await {
        let Some(hub) = hub.upgrade() else {
            return;
        };
        session::end_lost(&hub, &agent, &held, &why);
    }
}

async fn pass_on(mut seen: watch::Receiver<Seen>, to: watch::Sender<Seen>, claims: Arc<Claims>) {
    loop {
        let now = seen.borrow_and_update().clone();
        claims.hold_back(now.joined == Joined::NameTaken);
        to.send_replace(now);
        if seen.changed().await.is_err() {
            return;
        }
    }
}

/// One line when the registry goes, and one when it is back.
async fn tell_health(mut health: watch::Receiver<Health>) {
    let mut was_healthy = true;
    loop {
        let now = health.borrow_and_update().clone();
        match now {
            Health::Away { reason } if was_healthy => {
                was_healthy = false;
                warn!(
                    event = events::REGISTRY_AWAY,
                    %reason,
                    "the registry does not answer: agents are served at this hub alone"
                );
            }
            Health::Healthy if !was_healthy => {
                was_healthy = true;
                info!(event = events::REGISTRY_BACK, "the registry answers again");
            }
            Health::Away { .. } | Health::Healthy => {}
        }
        if health.changed().await.is_err() {
            return;
        }
    }
}
