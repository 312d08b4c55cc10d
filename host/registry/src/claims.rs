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
use std::time::Duration;

use futures_util::StreamExt as _;
use nowconnect_protocol::{Epoch, ReplicaId};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::agent::{AgentKey, ClaimRequest, Offer, Ownership, ProvisionalClaim};
use crate::error::{ClaimLost, RegistryError};
use crate::fence::{EpochFence, Fenced};
use crate::limits::{MAX_COUNTER, RENEWALS_IN_FLIGHT};
use crate::registry::Registry;

/// Rounds of renewal after which an offer is written again, so that an index entry that was lost
/// on the way comes back.
const REOFFER_ROUNDS: u64 = 10;

/// Between two rounds while the store has yet to learn of something.
const BEHIND_PAUSE: Duration = Duration::from_secs(1);

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
        let above = last_epoch.max(self.fence.highest(agent));
        let request = ClaimRequest {
            agent: agent.clone(),
            replica: self.replica.clone(),
            above: above.clone(),
        };
        let claim = match self.registry.claim_ownership(&request).await {
            Ok(granted) => Claim {
                epoch: granted.epoch,
                provisional: false,
                previous: granted.previous,
            },
            Err(error) if error.is_of_the_store() => {
                if error.is_unavailable() {
                    debug!(%agent, %error, "claiming provisionally");
                } else {
                    warn!(%agent, %error, "claiming provisionally");
                }
                Claim {
                    epoch: self.provisional_epoch(agent, above.as_ref())?,
                    provisional: true,
                    previous: None,
                }
            }
            Err(error) => return Err(error),
        };
        self.take(agent, &claim)?;
        Ok(claim)
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
            epoch: epoch.clone(),
            provisional: true,
            unsaid: offer.is_some(),
            offer: offer.map(Arc::new),
        };
        held.insert(agent.clone(), claim);
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
        let provisional = {
            let mut held = self.held.lock();
            match held.get(agent) {
                Some(claim) if claim.epoch == *epoch => {
                    held.remove(agent).is_some_and(|claim| claim.provisional)
                }
                Some(_) | None => return Ok(()),
            }
        };
        if provisional {
            return Ok(());
        }
        self.registry.release(agent, epoch).await
    }

    /// Gives all claims up: this hub leaves. Stops at the first sign that the store is away, where
    /// they end with their leases.
    pub async fn release_all(&self) {
        let held = std::mem::take(&mut *self.held.lock());
        let shared = held.into_iter().filter(|(_, claim)| !claim.provisional);
        let away = AtomicBool::new(false);
        futures_util::stream::iter(shared)
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

    /// Whether the store has yet to learn of a claim or an offer.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let held = self.held.lock();
        held.values().any(|claim| claim.provisional || claim.unsaid)
    }

    /// Renews, publishes and offers what has to be; what was lost is returned and held no more.
    /// Stops at the first sign that the store is away.
    pub async fn renew_all(&self, round: u64) -> Vec<LostClaim> {
        let due: Vec<_> = {
            let held = self.held.lock();
            held.iter()
                .map(|(agent, claim)| (agent.clone(), claim.clone()))
                .collect()
        };
        let away = AtomicBool::new(false);
        let refused = Mutex::new(None);
        let again = round.is_multiple_of(REOFFER_ROUNDS);
        let lost = futures_util::stream::iter(due)
            .map(|(agent, claim)| {
                let (away, refused) = (&away, &refused);
                async move {
                    if away.load(Ordering::Relaxed) {
                        return None;
                    }
                    let error = self.renew(&agent, &claim, again).await.err()?;
                    if error.is_unavailable() {
                        away.store(true, Ordering::Relaxed);
                    } else if error.is_of_the_store() {
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
            warn!(%error, "claims were not renewed");
        }
        lost
    }

    /// Renews until it is dropped, and at once when the store is back. What was lost is sent to
    /// `lost`; a receiver that is slow holds the next round back.
    pub async fn run(&self, lost: mpsc::Sender<LostClaim>) {
        let mut health = self.registry.health();
        let rounds = self.registry.ownership_lease() / 3;
        for round in 1_u64.. {
            // What the store does not know yet is not left for a whole round.
            let pause = if self.is_behind() {
                rounds.min(BEHIND_PAUSE)
            } else {
                rounds
            };
            // A random part keeps the rounds of hubs that were started together apart.
            let jittered = pause.mul_f64(rand::random_range(0.8..1.0));
            let came_back = tokio::time::timeout(jittered, comes_back(&mut health)).await;
            if came_back.is_ok() {
                let spread = self.settings.recovery_spread;
                tokio::time::sleep(spread.mul_f64(rand::random_range(0.0..1.0))).await;
            }
            if !self.registry.is_healthy() {
                continue;
            }
            for claim in self.renew_all(round).await {
                if lost.send(claim).await.is_err() {
                    return;
                }
            }
            if came_back.is_ok() {
                let (held, provisional) = self.counts();
                info!(held, provisional, "the registry is back");
            }
        }
    }

    async fn renew(
        &self,
        agent: &AgentKey,
        claim: &Held,
        again: bool,
    ) -> Result<(), RegistryError> {
        let published = if claim.provisional {
            self.publish(agent, &claim.epoch).await?;
            true
        } else {
            match self.registry.renew(agent, &claim.epoch).await {
                Ok(()) => false,
                Err(RegistryError::Lost {
                    why: ClaimLost::Forgotten,
                    ..
                }) => {
                    warn!(%agent, epoch = claim.epoch.counter, "the registry lost a claim");
                    self.publish(agent, &claim.epoch).await?;
                    true
                }
                Err(error) => return Err(error),
            }
        };
        let Some(offer) = self.offer_of(agent, &claim.epoch) else {
            return Ok(());
        };
        if published || claim.unsaid || again {
            self.registry
                .add_connectors(agent, &claim.epoch, &offer)
                .await?;
            self.said(agent, &claim.epoch, &offer);
        }
        Ok(())
    }

    async fn publish(&self, agent: &AgentKey, epoch: &Epoch) -> Result<(), RegistryError> {
        let claim = ProvisionalClaim {
            agent: agent.clone(),
            epoch: epoch.clone(),
        };
        self.registry.publish_claim(&claim).await?;
        if let Some(claim) = self.held.lock().get_mut(agent)
            && claim.epoch == *epoch
        {
            claim.provisional = false;
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

    fn provisional_epoch(
        &self,
        agent: &AgentKey,
        above: Option<&Epoch>,
    ) -> Result<Epoch, RegistryError> {
        let highest = above.map_or(0, |epoch| epoch.counter);
        if highest >= MAX_COUNTER {
            return Err(RegistryError::CounterSpent {
                agent: agent.clone(),
                witnessed: highest,
                limit: MAX_COUNTER,
            });
        }
        Ok(Epoch {
            counter: highest + 1,
            replica: self.replica.clone(),
        })
    }

    /// Holds a claim, unless this hub has seen a higher one while it was made.
    fn take(&self, agent: &AgentKey, claim: &Claim) -> Result<(), RegistryError> {
        if let Fenced::Stale { highest } = self.fence.observe(agent, &claim.epoch) {
            return Err(RegistryError::Lost {
                agent: agent.clone(),
                held: claim.epoch.clone(),
                why: ClaimLost::Overtaken { current: highest },
            });
        }
        let mut held = self.held.lock();
        let overtaken = held
            .get(agent)
            .filter(|other| other.epoch > claim.epoch)
            .map(|other| other.epoch.clone());
        if let Some(current) = overtaken {
            return Err(RegistryError::Lost {
                agent: agent.clone(),
                held: claim.epoch.clone(),
                why: ClaimLost::Overtaken { current },
            });
        }
        held.insert(
            agent.clone(),
            Held {
                epoch: claim.epoch.clone(),
                provisional: claim.provisional,
                offer: None,
                unsaid: false,
            },
        );
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

/// Waits until the store is away and then answers again. Without an end if it never does.
async fn comes_back(health: &mut tokio::sync::watch::Receiver<crate::health::Health>) {
    let away = health.wait_for(|health| !health.is_healthy()).await.is_ok();
    if !away || health.wait_for(|health| health.is_healthy()).await.is_err() {
        std::future::pending::<()>().await;
    }
}
