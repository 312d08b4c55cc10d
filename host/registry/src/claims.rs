//! What a hub holds of the registry.
//!
//! ```text
//!              claim                 store answers
//!  HELLO ───────────► (none) ─────────────────────────► Shared ◄──┐ renewed each third of a lease
//!                        │                              │  │  └───┘
//!                        │ store away                   │  │ the store has lost it:
//!                        ▼               published      │  ▼ published anew
//!                   Provisional ────────────────────────┘
//!                        │ a higher claim was published first
//!                        ▼
//!                  Lost: the session ends with `epoch_lost`
//! ```
//! A provisional claim is above all that the agent and this hub have seen, so the agent takes it.
//! It serves flows of this hub only: no other hub can learn of it. When the store is back, each is
//! put in force by comparison, and the lower of two ends. Hubs come back spread over
//! [`ClaimSettings::recovery_spread`], each with at most
//! [`RENEWALS_IN_FLIGHT`] calls at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use nowconnect_protocol::{Epoch, ReplicaId};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, info, warn};

use crate::agent::{AgentKey, ClaimRequest, Offer, Ownership, ProvisionalClaim};
use crate::error::{ClaimLost, RegistryError};
use crate::fence::{EpochFence, Fenced};
use crate::health::Health;
use crate::limits::{MAX_COUNTER, MAX_FIRST_WITNESS, MAX_LEAP, RENEWALS_IN_FLIGHT};
use crate::registry::Registry;

/// Rounds of renewal after which an offer is written again, so that an index entry that was lost
/// on the way comes back.
const REOFFER_ROUNDS: u64 = 10;

/// Before what was not answered is asked again, and what was refused for the first time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Between two rounds at least.
const PACE: Duration = Duration::from_millis(50);

/// How a hub renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimSettings {
    /// When the store is back, this hub waits a random part of it before it publishes, so that
    /// not all hubs come at once.
    pub recovery_spread: Duration,
}

impl Default for ClaimSettings {
    /// Spread over 1 s.
    fn default() -> Self {
        Self {
            recovery_spread: Duration::from_secs(1),
        }
    }
}

/// The claims of one hub.
#[derive(Debug)]
pub struct Claims {
    registry: Arc<dyn Registry>,
    replica: ReplicaId,
    fence: Arc<EpochFence>,
    held: Mutex<BTreeMap<AgentKey, Held>>,
    settings: ClaimSettings,
    /// Another hub has this one's name: nothing may be written for it.
    held_back: AtomicBool,
    /// Something is due at once.
    work: Notify,
}

#[derive(Clone, Debug)]
struct Held {
    epoch: Epoch,
    /// Not in the store yet.
    provisional: bool,
    /// What the agent offers; `None` until it was said.
    offer: Option<Arc<Offer>>,
    /// The offer is not in the store yet.
    unsaid: bool,
    /// When the store is told of it next.
    due: Instant,
    /// Since when the store has known of it at least, by the last answer that it did.
    known: Option<Instant>,
    /// Answers that the store will not, in a row.
    refusals: u32,
    /// Times that it was renewed.
    renewals: u64,
}

impl Held {
    fn new(epoch: Epoch, provisional: bool, due: Instant) -> Self {
        Self {
            epoch,
            provisional,
            offer: None,
            unsaid: false,
            due,
            known: None,
            refusals: 0,
            renewals: 0,
        }
    }
}

/// A claim that this hub holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// For HELLO_ACK and every frame of the agent.
    pub epoch: Epoch,
    /// The store was away: the agent serves flows of this hub only.
    pub provisional: bool,
    /// Who held the agent until now, as far as the store knows.
    pub previous: Option<Ownership>,
}

/// What came of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Every hub can find it.
    Shared,
    /// The store is away: this hub alone knows it, and writes it when the store is back.
    LocalOnly,
}

/// A claim that is gone. Its session ends with `epoch_lost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostClaim {
    /// On which agent.
    pub agent: AgentKey,
    /// The epoch that this hub held.
    pub held: Epoch,
    /// What is in its place.
    pub why: ClaimLost,
}

impl Claims {
    /// None yet, for the hub `replica`.
    #[must_use]
    pub fn new(
        registry: Arc<dyn Registry>,
        replica: ReplicaId,
        fence: Arc<EpochFence>,
        settings: ClaimSettings,
    ) -> Self {
        Self {
            registry,
            replica,
            fence,
            held: Mutex::default(),
            settings,
            held_back: AtomicBool::new(false),
            work: Notify::new(),
        }
    }

    /// Claims an agent that was authenticated and permitted. `last_epoch` is what it says it saw
    /// last.
    ///
    /// # Errors
    /// [`RegistryError::Lost`] if a later claim overtook this one before it was answered;
    /// [`RegistryError::CounterSpent`]; another hub has this one's name. That the store is away,
    /// full or refuses is no error: the claim is provisional then.
    pub async fn claim(
        &self,
        agent: &AgentKey,
        last_epoch: Option<Epoch>,
    ) -> Result<Claim, RegistryError> {
        let seen = self.fence.highest(agent);
        // What this hub has seen itself needs no belief.
        let is_word_alone = last_epoch > seen;
        if is_word_alone {
            believed(agent, last_epoch.as_ref(), seen.as_ref())?;
        }
        let request = ClaimRequest {
            agent: agent.clone(),
            replica: self.replica.clone(),
            above: last_epoch.clone().max(seen),
            leap: is_word_alone.then_some(MAX_LEAP),
        };
        let began = Instant::now();
        match self.registry.claim_ownership(&request).await {
            Ok(granted) => {
                let claim = Claim {
                    epoch: granted.epoch,
                    provisional: false,
                    previous: granted.previous,
                };
                self.take(agent, &claim, began)?;
                Ok(claim)
            }
            Err(error) if error.is_of_the_store() => {
                if error.is_unavailable() {
                    debug!(%agent, %error, "claiming provisionally");
                } else {
                    warn!(%agent, %error, "claiming provisionally");
                }
                self.claim_provisionally(agent, last_epoch)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes over a claim that this hub made in another store, with what the agent offers where it
    /// was said. It is provisional: the next round puts it in force here, or finds it lost.
    pub fn adopt(&self, agent: &AgentKey, epoch: &Epoch, offer: Option<Offer>) {
        self.fence.observe(agent, epoch);
        let mut held = self.held.lock();
        if held.get(agent).is_some_and(|claim| claim.epoch >= *epoch) {
            return;
        }
        let claim = Held {
            unsaid: offer.is_some(),
            offer: offer.map(Arc::new),
            ..Held::new(epoch.clone(), true, Instant::now())
        };
        held.insert(agent.clone(), claim);
        self.work.notify_one();
    }

    /// Says what the agent offers under its claim, with the next round of [`run`](Self::run), which
    /// follows at once. `false` where this hub holds no such claim.
    pub fn say(&self, agent: &AgentKey, epoch: &Epoch, offer: Offer) -> bool {
        let mut held = self.held.lock();
        let Some(claim) = held.get_mut(agent).filter(|claim| claim.epoch == *epoch) else {
            return false;
        };
        claim.offer = Some(Arc::new(offer));
        claim.unsaid = true;
        claim.due = Instant::now();
        self.work.notify_one();
        true
    }

    /// Writes nothing from now on, or goes on: while another living hub has this one's name, each
    /// would act for the other.
    pub fn hold_back(&self, hold: bool) {
        self.held_back.store(hold, Ordering::Relaxed);
        self.work.notify_one();
    }

    /// Says what the agent offers under its claim.
    ///
    /// # Errors
    /// [`RegistryError::Lost`]: the session ends. [`RegistryError::TooMuch`]: a connector has as
    /// many agents as it may have. That the store is away is no error.
    pub async fn offer(
        &self,
        agent: &AgentKey,
        epoch: &Epoch,
        offer: Offer,
    ) -> Result<Offered, RegistryError> {
        let offer = Arc::new(offer);
        let provisional = {
            let mut held = self.held.lock();
            let Some(claim) = held.get_mut(agent).filter(|claim| claim.epoch == *epoch) else {
                return Err(self.gone(agent, epoch));
            };
            claim.offer = Some(Arc::clone(&offer));
            claim.unsaid = true;
            claim.due = Instant::now();
            claim.provisional
        };
        if provisional {
            return Ok(Offered::LocalOnly);
        }
        match self.registry.add_connectors(agent, epoch, &offer).await {
            Ok(()) => {
                self.said(agent, epoch, &offer);
                Ok(Offered::Shared)
            }
            // It is still unsaid: the next renewal publishes the claim anew, then the offer.
            Err(RegistryError::Lost {
                why: ClaimLost::Forgotten,
                ..
            }) => Ok(Offered::LocalOnly),
            Err(error) if error.is_unavailable() => Ok(Offered::LocalOnly),
            Err(error) => {
                self.note(agent, epoch, &error);
                Err(error)
            }
        }
    }

    /// Gives a claim up: its session has ended. A later claim of the same agent here is kept.
    ///
    /// # Errors
    /// The store is away or has another claim; either way this hub holds it no more.
    pub async fn release(&self, agent: &AgentKey, epoch: &Epoch) -> Result<(), RegistryError> {
        {
            let mut held = self.held.lock();
            let holds = held.get(agent).is_some_and(|claim| claim.epoch == *epoch);
            if !holds {
                return Ok(());
            }
            held.remove(agent);
        }
        // Also a provisional one: a call that was not answered in time may have been done.
        self.registry.release(agent, epoch).await
    }

    /// Gives all claims up: this hub leaves. Stops at the first sign that the store is away, where
    /// they end with their leases.
    pub async fn release_all(&self) {
        let held = std::mem::take(&mut *self.held.lock());
        let away = AtomicBool::new(false);
        futures_util::stream::iter(held)
            .for_each_concurrent(RENEWALS_IN_FLIGHT, |(agent, claim)| {
                let away = &away;
                async move {
                    if away.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Err(error) = self.registry.release(&agent, &claim.epoch).await {
                        away.fetch_or(error.is_unavailable(), Ordering::Relaxed);
                        debug!(%agent, %error, "a claim was not given up");
                    }
                }
            })
            .await;
    }

    /// The claim that this hub holds on `agent`.
    #[must_use]
    pub fn held(&self, agent: &AgentKey) -> Option<Epoch> {
        self.held.lock().get(agent).map(|claim| claim.epoch.clone())
    }

    /// How many claims are held, and how many of them provisionally.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let held = self.held.lock();
        let provisional = held.values().filter(|claim| claim.provisional).count();
        (held.len(), provisional)
    }

    /// Renews, publishes and offers everything, whether it is due or not; what was lost is returned
    /// and held no more. Stops when the store is away.
    pub async fn renew_all(&self) -> Vec<LostClaim> {
        self.round(true).await
    }

    /// The same for what is due, or for all. What was not reached is due soon.
    async fn round(&self, all: bool) -> Vec<LostClaim> {
        let now = Instant::now();
        let due: Vec<_> = {
            let held = self.held.lock();
            let due = held.iter().filter(|(_, claim)| all || claim.due <= now);
            due.map(|(agent, claim)| (agent.clone(), claim.clone()))
                .collect()
        };
        let refused = Mutex::new(None);
        let lost = futures_util::stream::iter(due)
            .map(|(agent, claim)| {
                let refused = &refused;
                async move {
                    if !self.registry.is_healthy() {
                        return None;
                    }
                    let outcome = self.renew(&agent, &claim, all).await;
                    self.plan(&agent, &claim.epoch, &outcome);
                    let error = outcome.err()?;
                    if error.is_of_the_store() && !error.is_unavailable() {
                        refused.lock().get_or_insert_with(|| error.clone());
                    }
                    self.note(&agent, &claim.epoch, &error)
                }
            })
            .buffer_unordered(RENEWALS_IN_FLIGHT)
            .filter_map(std::future::ready)
            .collect()
            .await;
        // One line a round: what the store refuses of one it refuses of a thousand.
        if let Some(error) = refused.into_inner() {
            warn!(%error, "claims or offers are known at this hub alone");
        }
        lost
    }

    /// Renews until it is dropped, and at once when the store is back. What was lost is sent to
    /// `lost`; a receiver that is slow holds the next round back.
    pub async fn run(&self, lost: mpsc::Sender<LostClaim>) {
        let mut health = self.registry.health();
        loop {
            let came_back = self.wait(&mut health).await;
            if came_back {
                let spread = self.settings.recovery_spread;
                tokio::time::sleep(spread.mul_f64(rand::random_range(0.0..1.0))).await;
            }
            if !self.registry.is_healthy() || self.held_back.load(Ordering::Relaxed) {
                continue;
            }
            for claim in self.round(came_back).await {
                if lost.send(claim).await.is_err() {
                    return;
                }
            }
            if came_back {
                let (held, provisional) = self.counts();
                info!(held, provisional, "the registry is back");
            }
        }
    }

    /// Waits until something is due. `true` when the store is back.
    async fn wait(&self, health: &mut watch::Receiver<Health>) -> bool {
        let works = health.borrow_and_update().is_healthy();
        let idle = self.registry.ownership_lease() / 3;
        let pause = if works && !self.held_back.load(Ordering::Relaxed) {
            self.until_due().clamp(PACE, idle.max(PACE))
        } else {
            idle.max(PACE)
        };
        tokio::select! {
            () = comes_back(health) => true,
            () = tokio::time::sleep(pause) => false,
            () = self.work.notified(), if works => {
                // Those that come together go together.
                tokio::time::sleep(PACE).await;
                false
            }
        }
    }

    fn until_due(&self) -> Duration {
        let held = self.held.lock();
        let first = held.values().map(|claim| claim.due).min();
        first.map_or(Duration::MAX, |due| {
            due.saturating_duration_since(Instant::now())
        })
    }

    /// When a claim is looked at next, after this came of it.
    fn plan(&self, agent: &AgentKey, epoch: &Epoch, outcome: &Result<(), RegistryError>) {
        let third = self.registry.ownership_lease() / 3;
        let mut held = self.held.lock();
        let Some(claim) = held.get_mut(agent).filter(|claim| claim.epoch == *epoch) else {
            return;
        };
        let pause = match outcome {
            Ok(()) => {
                claim.refusals = 0;
                claim.renewals += 1;
                // A random part keeps the rounds of hubs that were started together apart.
                third.mul_f64(rand::random_range(0.8..1.0))
            }
            Err(error) if error.is_unavailable() => AGAIN_AFTER.min(third),
            Err(_) => {
                let grown = AGAIN_AFTER.saturating_mul(1 << claim.refusals.min(16));
                claim.refusals += 1;
                grown.min(third)
            }
        };
        // Something may have been said meanwhile.
        if outcome.is_err() || !claim.unsaid {
            claim.due = Instant::now() + pause;
        }
    }

    async fn renew(&self, agent: &AgentKey, claim: &Held, all: bool) -> Result<(), RegistryError> {
        let lease = self.registry.ownership_lease();
        let age = claim.known.map(|at| at.elapsed());
        // A lease that ended may have been swept with what stood behind it.
        let ended = age.is_none_or(|age| age >= lease);
        let mut again = all || ended || claim.unsaid;
        again |= claim.renewals % REOFFER_ROUNDS == REOFFER_ROUNDS - 1;
        let began = Instant::now();
        if claim.provisional {
            self.publish(agent, &claim.epoch).await?;
            again = true;
        } else if all || age.is_none_or(|age| age >= lease / 6) {
            match self.registry.renew(agent, &claim.epoch).await {
                Ok(()) => {}
                Err(RegistryError::Lost {
                    why: ClaimLost::Forgotten,
                    ..
                }) => {
                    warn!(%agent, epoch = claim.epoch.counter, "the registry lost a claim");
                    self.publish(agent, &claim.epoch).await?;
                    again = true;
                }
                Err(error) => return Err(error),
            }
            self.known_since(agent, &claim.epoch, began);
        }
        let Some(offer) = self.offer_of(agent, &claim.epoch).filter(|_| again) else {
            return Ok(());
        };
        self.registry
            .add_connectors(agent, &claim.epoch, &offer)
            .await?;
        self.said(agent, &claim.epoch, &offer);
        Ok(())
    }

    fn known_since(&self, agent: &AgentKey, epoch: &Epoch, began: Instant) {
        if let Some(claim) = self.held.lock().get_mut(agent)
            && claim.epoch == *epoch
        {
            claim.known = Some(began);
        }
    }

    async fn publish(&self, agent: &AgentKey, epoch: &Epoch) -> Result<(), RegistryError> {
        let claim = ProvisionalClaim {
            agent: agent.clone(),
            epoch: epoch.clone(),
        };
        let began = Instant::now();
        self.registry.publish_claim(&claim).await?;
        let still_held = match self.held.lock().get_mut(agent) {
            Some(claim) if claim.epoch == *epoch => {
                claim.provisional = false;
                claim.known = Some(began);
                true
            }
            Some(_) | None => false,
        };
        if !still_held {
            // Its session ended meanwhile: nobody has what was put in force.
            self.registry.release(agent, epoch).await?;
        }
        Ok(())
    }

    /// As it is now: it may have changed since the round began.
    fn offer_of(&self, agent: &AgentKey, epoch: &Epoch) -> Option<Arc<Offer>> {
        let held = self.held.lock();
        let claim = held.get(agent).filter(|claim| claim.epoch == *epoch)?;
        claim.offer.clone()
    }

    fn said(&self, agent: &AgentKey, epoch: &Epoch, offer: &Arc<Offer>) {
        if let Some(claim) = self.held.lock().get_mut(agent)
            && claim.epoch == *epoch
            && claim
                .offer
                .as_ref()
                .is_some_and(|now| Arc::ptr_eq(now, offer))
        {
            claim.unsaid = false;
        }
    }

    /// Claims without the store, above all that this hub knows of; in one step, so that two claims
    /// at once are different.
    fn claim_provisionally(
        &self,
        agent: &AgentKey,
        last_epoch: Option<Epoch>,
    ) -> Result<Claim, RegistryError> {
        let mut held = self.held.lock();
        let seen = self.fence.highest(agent);
        let seen = seen.max(held.get(agent).map(|claim| claim.epoch.clone()));
        if last_epoch > seen {
            believed(agent, last_epoch.as_ref(), seen.as_ref())?;
        }
        let highest = last_epoch.max(seen).map_or(0, |epoch| epoch.counter);
        if highest >= MAX_COUNTER {
            return Err(spent(agent, highest, MAX_COUNTER));
        }
        let epoch = Epoch {
            counter: highest + 1,
            replica: self.replica.clone(),
        };
        self.fence.observe(agent, &epoch);
        held.insert(
            agent.clone(),
            Held::new(epoch.clone(), true, Instant::now() + AGAIN_AFTER),
        );
        self.work.notify_one();
        Ok(Claim {
            epoch,
            provisional: true,
            previous: None,
        })
    }

    /// Holds a claim that was granted, unless this hub has seen one that is not below it while it
    /// was made.
    fn take(&self, agent: &AgentKey, claim: &Claim, began: Instant) -> Result<(), RegistryError> {
        let overtaken = |current| RegistryError::Lost {
            agent: agent.clone(),
            held: claim.epoch.clone(),
            why: ClaimLost::Overtaken { current },
        };
        let mut held = self.held.lock();
        if let Fenced::Stale { highest } = self.fence.observe(agent, &claim.epoch) {
            return Err(overtaken(highest));
        }
        let other = held.get(agent).filter(|other| other.epoch >= claim.epoch);
        if let Some(other) = other {
            return Err(overtaken(other.epoch.clone()));
        }
        let third = self.registry.ownership_lease() / 3;
        let held_now = Held {
            known: Some(began),
            ..Held::new(claim.epoch.clone(), false, began + third)
        };
        held.insert(agent.clone(), held_now);
        Ok(())
    }

    /// Drops a claim that is lost, and remembers what overtook it.
    fn note(&self, agent: &AgentKey, epoch: &Epoch, error: &RegistryError) -> Option<LostClaim> {
        let RegistryError::Lost { why, .. } = error else {
            if !error.is_unavailable() {
                debug!(%agent, %error, "a claim was not renewed");
            }
            return None;
        };
        match why {
            ClaimLost::Overtaken { current } => {
                self.fence.observe(agent, current);
            }
            ClaimLost::Released => {}
            // Lost between two calls; the next round publishes it.
            ClaimLost::Forgotten => return None,
        }
        let mut held = self.held.lock();
        // One that was released or claimed again meanwhile is nobody's loss.
        held.get(agent).filter(|claim| claim.epoch == *epoch)?;
        held.remove(agent);
        Some(LostClaim {
            agent: agent.clone(),
            held: epoch.clone(),
            why: why.clone(),
        })
    }

    fn gone(&self, agent: &AgentKey, epoch: &Epoch) -> RegistryError {
        let why = match self.fence.highest(agent) {
            Some(current) if current > *epoch => ClaimLost::Overtaken { current },
            Some(_) | None => ClaimLost::Released,
        };
        RegistryError::Lost {
            agent: agent.clone(),
            held: epoch.clone(),
            why,
        }
    }
}

/// Whether an agent's word on its last epoch is taken for true, by what this hub has seen of it.
fn believed(
    agent: &AgentKey,
    last_epoch: Option<&Epoch>,
    seen: Option<&Epoch>,
) -> Result<(), RegistryError> {
    let witnessed = last_epoch.map_or(0, |epoch| epoch.counter);
    let limit = seen.map_or(MAX_FIRST_WITNESS, |seen| {
        seen.counter.saturating_add(MAX_LEAP)
    });
    if witnessed > limit {
        return Err(spent(agent, witnessed, limit));
    }
    Ok(())
}

fn spent(agent: &AgentKey, witnessed: u64, limit: u64) -> RegistryError {
    RegistryError::CounterSpent {
        agent: agent.clone(),
        witnessed,
        limit,
    }
}

/// Waits until the store is away and then answers again. Without an end if it never does.
async fn comes_back(health: &mut watch::Receiver<Health>) {
    let away = health.wait_for(|health| !health.is_healthy()).await.is_ok();
    if !away || health.wait_for(|health| health.is_healthy()).await.is_err() {
        std::future::pending::<()>().await;
    }
}
