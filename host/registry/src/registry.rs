//! The trait that both stores implement.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nowconnect_protocol::{Epoch, ReplicaId};
use tokio::sync::watch;

use crate::agent::{
    AgentKey, AgentPresence, ClaimRequest, ConnectorKey, Granted, Offer, Ownership,
    ProvisionalClaim,
};
use crate::error::RegistryError;
use crate::health::Health;
use crate::hub::HubPresence;

type Answer<'a, T> = BoxFuture<'a, Result<T, RegistryError>>;

/// Ownership of agents, presence of connectors and of hubs.
///
/// Every call is bounded in time by the implementation. A call that is dropped, or that ends with
/// [`Unavailable`](crate::Unavailable), may or may not have taken effect; each can be made again.
/// In any implementation:
///
/// - an epoch that [`claim_ownership`](Self::claim_ownership) gives is above every one that it gave
///   before for that agent, as far as the store, the agent and the claiming hub remember;
/// - only the holder of the epoch in force changes a record;
/// - [`list_agents`](Self::list_agents) and [`get_owner`](Self::get_owner) tell what records say,
///   never what an index says.
pub trait Registry: fmt::Debug + Send + Sync {
    /// Makes `claim.replica` the owner, and offers nothing until
    /// [`add_connectors`](Self::add_connectors).
    ///
    /// # Errors
    /// [`RegistryError::CounterSpent`]; the store is away, or full.
    fn claim_ownership<'a>(&'a self, claim: &'a ClaimRequest) -> Answer<'a, Granted>;

    /// Puts a claim that was made without the store in force, if it is above what is stored.
    /// Twice is as good as once.
    ///
    /// # Errors
    /// [`RegistryError::Lost`] if the stored one is above, or was given up.
    fn publish_claim<'a>(&'a self, claim: &'a ProvisionalClaim) -> Answer<'a, ()>;

    /// Starts the claim's lease anew. A lease that has ended is taken up again as long as nobody
    /// else has claimed.
    ///
    /// # Errors
    /// [`RegistryError::Lost`].
    fn renew<'a>(&'a self, agent: &'a AgentKey, epoch: &'a Epoch) -> Answer<'a, ()>;

    /// Sets what the agent offers under its claim, in place of what was set before.
    ///
    /// # Errors
    /// [`RegistryError::Lost`]; or one of the connectors has as many agents as it may have.
    fn add_connectors<'a>(
        &'a self,
        agent: &'a AgentKey,
        epoch: &'a Epoch,
        offer: &'a Offer,
    ) -> Answer<'a, ()>;

    /// Gives a claim up. Its epoch is remembered.
    ///
    /// # Errors
    /// [`RegistryError::Lost`]; a later claim is left as it is.
    fn release<'a>(&'a self, agent: &'a AgentKey, epoch: &'a Epoch) -> Answer<'a, ()>;

    /// The agents that offer `connector` now, in the order of their names; at most
    /// [`MAX_LISTED_AGENTS`](crate::limits::MAX_LISTED_AGENTS), chosen at random among more.
    ///
    /// # Errors
    /// The store is away.
    fn list_agents<'a>(&'a self, connector: &'a ConnectorKey) -> Answer<'a, Vec<AgentPresence>>;

    /// Who owns `agent` now; nobody after a release and after a lease has ended.
    ///
    /// # Errors
    /// The store is away.
    fn get_owner<'a>(&'a self, agent: &'a AgentKey) -> Answer<'a, Option<Ownership>>;

    /// Says that this hub is present, for [`hub_presence`](Self::hub_presence).
    ///
    /// # Errors
    /// [`RegistryError::ReplicaTaken`] while another process of that name is present; too many
    /// hubs, or too many bytes about one.
    fn announce_hub<'a>(&'a self, hub: &'a HubPresence) -> Answer<'a, ()>;

    /// Says that this hub leaves. One that is not present, or is another's, is left as it is.
    ///
    /// # Errors
    /// The store is away.
    fn withdraw_hub<'a>(&'a self, hub: &'a HubPresence) -> Answer<'a, ()>;

    /// The hubs that are present, in the order of their names.
    ///
    /// # Errors
    /// The store is away.
    fn list_hubs(&self) -> Answer<'_, Vec<HubPresence>>;

    /// Takes the lease `name` for `ttl`, or renews it; `false` while another holds it. It elects
    /// who does something that need not be done twice. It is no lock: a holder that is paused may
    /// find another at work, so what is done under it must be harmless when done twice.
    ///
    /// # Errors
    /// The store is away.
    fn hold_lease<'a>(
        &'a self,
        name: &'static str,
        holder: &'a ReplicaId,
        ttl: Duration,
    ) -> Answer<'a, bool>;

    /// Gives the lease `name` back, if `holder` has it.
    ///
    /// # Errors
    /// The store is away.
    fn drop_lease<'a>(&'a self, name: &'static str, holder: &'a ReplicaId) -> Answer<'a, ()>;

    /// Looks at about `budget` index entries and removes those that no record bears out.
    /// Harmless when run twice, at once too: an entry is removed only as it was read.
    ///
    /// # Errors
    /// The store is away; what was removed until then stays removed.
    fn sweep(&self, from: SweepCursor, budget: usize) -> Answer<'_, SweepReport>;

    /// How long a claim stands without renewal.
    fn ownership_lease(&self) -> Duration;

    /// How long a hub counts as present without another word.
    fn hub_presence(&self) -> Duration;

    /// Whether the store answers, and when that changes.
    fn health(&self) -> watch::Receiver<Health>;

    /// Whether the store answers.
    fn is_healthy(&self) -> bool {
        self.health().borrow().is_healthy()
    }
}

/// Where a sweep goes on. The default begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepCursor(pub(crate) u64);

impl SweepCursor {
    /// Whether the next sweep begins at the beginning.
    #[must_use]
    pub const fn is_start(self) -> bool {
        self.0 == 0
    }
}

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Entries that were looked at.
    pub checked: usize,
    /// Entries that no record bore out.
    pub removed: usize,
    /// Where to go on.
    pub next: SweepCursor,
}
