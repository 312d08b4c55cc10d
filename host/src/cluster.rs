//! This hub among others: what it holds of the registry, and what it knows of the other hubs.
//!
//! ```text
//!              ha.mode
//!   off ◄────────────────► shadow ◄────────────────► active
//!   claims in this hub's      claims, offers and        a claim that is lost ends its
//!   memory, nobody knows      presence in the           session with `epoch_lost`;
//!   of it                     registry, and nothing     `/readyz` says what is missing
//!                             that runs depends on it
//! ```
//! A [`Membership`] is one stay in one registry. Joining another, or none, makes a new one beside
//! the one in force; what agents have is taken over as provisional claims, which are put in force
//! there by comparison, so that no session ends for it. The [`EpochFence`] outlives them all:
//! epochs of this hub's life only rise.
//!
//! Absent on purpose: links. They are told where to dial by [`Cluster::seen`], and tell what they
//! miss by [`MeshState`].

mod facts;
mod membership;
mod metered;
mod remote;
mod revocations;
mod status;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nowconnect_protocol::Epoch;
use nowconnect_registry::redis::OpenError;
use nowconnect_registry::{
    AgentKey, Claim, ClaimLost, EpochFence, HaMode, HubPresence, Joined, Registry, RegistryError,
    Seen, SharedState,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::config::CloudConfig;
use crate::drain::Phase;
use crate::health::{Reason, ReasonCode};
use crate::hub::Hub;
use crate::session::{self, LiveTunnel};
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;

pub use facts::ProvenFacts;
pub(crate) use facts::generation;
use membership::{Membership, Terms};
pub(crate) use remote::Carrier;
pub use remote::RemoteAgent;
pub use status::{
    ClusterStatus, HubSeenStatus, JoinedStatus, MeshLinkStatus, RegistryKind, RegistryStatus,
};

/// Agents whose highest epoch is remembered, those of other hubs included. About 300 bytes each,
/// so 20 MB at most.
const FENCED_AGENTS: NonZeroUsize = NonZeroUsize::new(65_536).expect("the number is not 0");

/// How often what this hub knows of the others is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long leaving may take. What is not given up then ends with its lease.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Why a hub cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The registry cannot be used at all.
    #[error("`ha.redis_url`: {0}")]
    Open(#[from] OpenError),
    /// It will not have this hub.
    #[error("this hub cannot join the cluster: {0}")]
    Refused(#[from] RegistryError),
}

/// What the links to the other hubs tell the hub.
pub trait MeshState: fmt::Debug + Send + Sync {
    /// Every link, in the order of the peers' names.
    fn links(&self) -> Vec<MeshLinkStatus>;

    /// What is wrong where a hub that should be linked is not; for the operator.
    fn missing(&self) -> Option<String>;
}

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    metrics: Arc<Metrics>,
    fence: Arc<EpochFence>,
    membership: ArcSwap<Membership>,
    /// What this hub says of itself, wherever it has joined.
    about: watch::Sender<HubPresence>,
    /// In place of this hub's own memory.
    given: Option<Arc<dyn Registry>>,
    mesh: OnceLock<Arc<dyn MeshState>>,
    /// Since when other hubs have other policies or plugins in force.
    skewed_since: Mutex<Option<Instant>>,
    /// This hub's revocation list may have changed.
    revoked: Arc<Notify>,
    listed: remote::Listed,
    /// Held while one membership is left for the next.
    moving: Arc<tokio::sync::Mutex<()>>,
}

/// A membership that is not in force yet. Dropping it leaves everything as it was.
#[derive(Debug)]
pub(crate) struct NextMembership(Membership);

impl Cluster {
    /// Joins as `config` says. Nothing of it runs before [`begin`](Self::begin).
    ///
    /// # Errors
    /// The registry cannot be used, or another living hub has this one's name. That it is away is
    /// no error.
    pub(crate) async fn join(
        config: &CloudConfig,
        boot: u64,
        generation: String,
        given: Option<Arc<dyn Registry>>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, JoinError> {
        let about = watch::Sender::new(HubPresence {
            replica: config.replica_id.clone(),
            boot,
            address: config.ha.mesh.advertise.clone().unwrap_or_default(),
            certificate: nowconnect_mesh::replica_uri(&config.replica_id),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: config.ha.mode(),
            generation,
        });
        let fence = Arc::new(EpochFence::new(FENCED_AGENTS));
        let first =
            Membership::join(Terms::of(config), &about, given.as_ref(), &fence, &metrics).await?;
        Ok(Self {
            metrics,
            fence,
            membership: ArcSwap::from_pointee(first),
            about,
            given,
            mesh: OnceLock::new(),
            skewed_since: Mutex::default(),
            revoked: Arc::default(),
            listed: remote::Listed::default(),
            moving: Arc::default(),
        })
    }

    /// Begins what the membership in force has to do.
    pub(crate) fn begin(&self, hub: &Arc<Hub>) {
        self.membership
            .load()
            .begin(hub, &self.about, &self.revoked);
        let hub = Arc::downgrade(hub);
        // There is always room: a hub has fewer parts than the metrics have places.
        self.metrics.on_scrape(move |metrics| {
            if let Some(hub) = hub.upgrade() {
                hub.cluster().show(metrics);
            }
        });
    }

    /// What a new configuration asks for, where that is another registry, or none.
    ///
    /// # Errors
    /// As [`join`](Self::join); then nothing has changed.
    pub(crate) async fn next(
        &self,
        config: &CloudConfig,
    ) -> Result<Option<NextMembership>, JoinError> {
        let terms = Terms::of(config);
        if *self.membership.load().terms() == terms {
            return Ok(None);
        }
        let given = self.given.as_ref();
        let next = Membership::join(terms, &self.about, given, &self.fence, &self.metrics);
        Ok(Some(NextMembership(next.await?)))
    }

    /// Puts what a reload has built in force: the mode, what this hub says of itself, and another
    /// membership where there is one. `hub.config` is the new one already.
    pub(crate) fn publish(&self, hub: &Arc<Hub>, next: Option<NextMembership>) {
        let before = self.about.borrow().mode;
        self.tell(hub);
        if let Some(NextMembership(next)) = next {
            let next = Arc::new(next);
            let left = {
                // Nobody comes or goes between the two: see `uphold`.
                let _presence = hub.presence.lock();
                for (tunnel, _) in hub.router().tunnels() {
                    let offer = facts::offer(&tunnel, &tunnel.standing()).ok();
                    next.claims().adopt(&tunnel.key, &tunnel.epoch, offer);
                }
                self.membership.swap(Arc::clone(&next))
            };
            self.move_on(hub, left, next);
        }
        let now = self.mode();
        if before != now {
            info!(
                event = events::CLUSTER_MODE,
                before = status::mode(before),
                mode = status::mode(now),
                "this hub takes part in its cluster in another way"
            );
        }
        if now == HaMode::Active && before != now {
            self.end_unheld(hub);
        }
    }

    /// Leaves one membership and begins the next, in this order: both may lead to the same store,
    /// and what is given up there is taken up again by its holder. One move after the other.
    fn move_on(&self, hub: &Arc<Hub>, left: Arc<Membership>, next: Arc<Membership>) {
        let (hub, moving) = (Arc::clone(hub), Arc::clone(&self.moving));
        let runtime = hub.runtime.clone();
        runtime.spawn(async move {
            let _turn = moving.lock().await;
            left.leave().await;
            if hub.current_phase() < Phase::Cut {
                let cluster = hub.cluster();
                next.begin(&hub, &cluster.about, &cluster.revoked);
            }
        });
    }

    /// What this hub says of itself now.
    fn tell(&self, hub: &Hub) {
        let config = hub.config();
        let generation = generation(&hub.generations().current());
        let address = config.ha.mesh.advertise.clone().unwrap_or_default();
        let mode = config.ha.mode();
        self.about.send_if_modified(|about| {
            let now = HubPresence {
                address,
                mode,
                generation,
                ..about.clone()
            };
            let differs = *about != now;
            *about = now;
            differs
        });
    }

    /// Leaves: the others need not wait for this hub to be missed. It serves nobody any more.
    pub(crate) async fn leave(&self) {
        // One that is on its way ends by itself in that time.
        let _turn = tokio::time::timeout(LEAVE_WITHIN, self.moving.lock()).await;
        self.membership.load_full().leave().await;
    }

    /// Ends what runs for it, without a word.
    pub(crate) fn end(&self) {
        self.membership.load().end();
    }

    /// How far this hub takes part.
    pub fn mode(&self) -> HaMode {
        self.about.borrow().mode
    }

    /// The same, as it is written in the configuration.
    pub(crate) fn mode_name(&self) -> &'static str {
        status::mode(self.mode())
    }

    /// Whether flows may cross hubs, and lost claims end their sessions.
    pub fn is_active(&self) -> bool {
        self.mode() == HaMode::Active
    }

    /// Whether it is in a cluster at all.
    pub fn has_joined(&self) -> bool {
        self.mode() != HaMode::Off
    }

    /// Where claims are. Another one after a reload that joins another registry.
    pub fn registry(&self) -> Arc<dyn Registry> {
        Arc::clone(self.membership.load().registry())
    }

    /// The small state that holds at every hub; `None` where there is no registry beyond this hub.
    pub fn shared(&self) -> Option<Arc<dyn SharedState>> {
        self.membership.load().shared().cloned()
    }

    /// The highest epochs that this hub has seen.
    pub fn fence(&self) -> &Arc<EpochFence> {
        &self.fence
    }

    /// What this hub says of itself.
    pub fn about(&self) -> watch::Receiver<HubPresence> {
        self.about.subscribe()
    }

    /// The other hubs. Ask again after a change of `ha`: it is of the membership in force.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.membership.load().seen()
    }

    /// Takes the links' word on how they are. `false` where somebody has given his already.
    pub fn set_mesh(&self, mesh: Arc<dyn MeshState>) -> bool {
        self.mesh.set(mesh).is_ok()
    }

    /// Claims an agent that may join.
    ///
    /// # Errors
    /// See [`Claims::claim`](nowconnect_registry::Claims::claim); in an active cluster, another hub
    /// has this one's name.
    pub(crate) async fn claim(
        &self,
        agent: &AgentKey,
        last_epoch: Option<Epoch>,
    ) -> Result<Claim, RegistryError> {
        let membership = self.membership.load_full();
        if self.is_active() && membership.seen().borrow().joined == Joined::NameTaken {
            return Err(RegistryError::ReplicaTaken {
                replica: self.about.borrow().replica.clone(),
                remaining: membership.registry().hub_presence(),
            });
        }
        membership.claims().claim(agent, last_epoch).await
    }

    /// Holds the claim of a tunnel that has come into force: its hub may have joined another
    /// registry since it was made. Whoever calls it holds [`Hub::presence`].
    pub(crate) fn uphold(&self, tunnel: &LiveTunnel) {
        let membership = self.membership.load();
        if membership.claims().held(&tunnel.key).is_none() {
            let offer = facts::offer(tunnel, &tunnel.standing()).ok();
            membership.claims().adopt(&tunnel.key, &tunnel.epoch, offer);
        }
    }

    /// Says what the agent offers, and what this hub has proven of it. Nobody waits for it.
    pub(crate) fn offer(&self, hub: &Hub, tunnel: &LiveTunnel) {
        let is_held = {
            // What was said last is what holds: nobody changes it in between.
            let _presence = hub.presence.lock();
            let membership = self.membership.load();
            match facts::offer(tunnel, &tunnel.standing()) {
                Ok(offer) => membership.claims().say(&tunnel.key, &tunnel.epoch, offer),
                Err(error) => {
                    warn!(agent_id = %tunnel.key, %error, "an agent is known at this hub alone");
                    true
                }
            }
        };
        if !is_held {
            session::end_lost(hub, &tunnel.key, &tunnel.epoch, &ClaimLost::Released);
        }
    }

    /// This hub's revocation list may have changed: the others are told.
    pub(crate) fn list_changed(&self) {
        self.revoked.notify_one();
    }

    /// Gives a claim up whose session has ended.
    pub(crate) async fn release(&self, agent: &AgentKey, epoch: &Epoch) {
        // A later claim may have overtaken it, and then there is nothing to give up.
        let _ = self
            .membership
            .load_full()
            .claims()
            .release(agent, epoch)
            .await;
    }

    /// Ends sessions whose claims were lost while nothing depended on it.
    fn end_unheld(&self, hub: &Hub) {
        let membership = self.membership.load();
        for (tunnel, _) in hub.router().tunnels() {
            if membership.claims().held(&tunnel.key).as_ref() != Some(&tunnel.epoch) {
                let why = ClaimLost::Released;
                session::end_lost(hub, &tunnel.key, &tunnel.epoch, &why);
            }
        }
    }

    /// What impairs an active hub. In the other modes nothing depends on the cluster.
    pub(crate) fn reasons(&self, config: &CloudConfig) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if !self.is_active() {
            return reasons;
        }
        let membership = self.membership.load();
        if let Some(detail) = membership.trouble() {
            reasons.push(Reason {
                code: ReasonCode::RegistryUnhealthy,
                detail,
            });
        }
        if let Some(detail) = self.mesh_missing(config, &membership) {
            reasons.push(Reason {
                code: ReasonCode::MeshMissing,
                detail,
            });
        }
        let skewed = *self.skewed_since.lock();
        if skewed.is_some_and(|since| since.elapsed() >= config.policy.max_skew) {
            reasons.push(Reason {
                code: ReasonCode::GenerationSkew,
                detail: self.skewed(&membership).join(", "),
            });
        }
        reasons
    }

    fn mesh_missing(&self, config: &CloudConfig, membership: &Membership) -> Option<String> {
        match self.mesh.get() {
            Some(mesh) => mesh.missing(),
            None => {
                // A hub that knows of no other misses none.
                let others = membership.seen().borrow().others.len();
                let known = others.max(config.ha.mesh.peers.len());
                (known > 0).then(|| format!("no links, and {known} other hubs"))
            }
        }
    }

    /// The other hubs that have other policies or plugins in force.
    fn skewed(&self, membership: &Membership) -> Vec<String> {
        let here = self.about.borrow().generation.clone();
        let seen = membership.seen();
        let seen = seen.borrow();
        let others = seen.others.iter();
        others
            .filter(|hub| hub.mode != HaMode::Off && hub.generation != here)
            .map(|hub| hub.replica.to_string())
            .collect()
    }

    fn look_for_skew(&self) {
        let skewed = !self.skewed(&self.membership.load()).is_empty();
        let mut since = self.skewed_since.lock();
        *since = match *since {
            Some(since) if skewed => Some(since),
            None if skewed => Some(Instant::now()),
            Some(_) | None => None,
        };
    }

    fn show(&self, metrics: &Metrics) {
        let membership = self.membership.load();
        let cluster = &metrics.cluster;
        let (held, provisional) = membership.claims().counts();
        cluster.claims(held.saturating_sub(provisional), provisional);
        cluster.registry_healthy(membership.registry().is_healthy());
        cluster.epoch_mismatches(self.fence.stale());
        cluster.mode(status::mode(self.mode()));
        let others = membership.seen().borrow().others.len();
        cluster.hubs(others + 1, self.skewed(&membership).len());
    }
}

/// Keeps what this hub says of itself, and what it makes of the others, as they are. Ends with the
/// hub.
pub(crate) async fn keep(hub: Weak<Hub>) {
    let Some(mut generations) = hub.upgrade().map(|hub| hub.generations().subscribe()) else {
        return;
    };
    loop {
        // News of a generation come at once; skew is a matter of seconds.
        let changed = tokio::time::timeout(LOOK_EVERY, generations.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            return;
        }
        let Some(hub) = hub.upgrade() else {
            return;
        };
        hub.cluster().tell(&hub);
        hub.cluster().look_for_skew();
        if hub.current_phase() >= Phase::Cut {
            return;
        }
    }
}
