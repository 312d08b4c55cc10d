//! Why the registry did not do what it was asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nowconnect_protocol::{Epoch, ReplicaId};

use crate::agent::AgentKey;

/// Why the registry did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The claim is not in force. What hangs on it ends with `epoch_lost`.
    #[error(
        "the claim on agent `{agent}` at epoch {} is not in force: {why}",
        show(held)
    )]
    Lost {
        /// Whose claim.
        agent: AgentKey,
        /// The epoch that was presented.
        held: Epoch,
        /// What is in its place.
        why: ClaimLost,
    },
    /// The agent says that it saw an epoch beyond any that can be given, or beyond what is believed
    /// of it. Nothing has changed: with its true last epoch it is claimed.
    #[error(
        "agent `{agent}` names epoch {witnessed} as its last, and {limit} is the highest that can \
         be"
    )]
    CounterSpent {
        /// Which agent.
        agent: AgentKey,
        /// The counter it named, or that is stored.
        witnessed: u64,
        /// The bound.
        limit: u64,
    },
    /// A living hub has this name already.
    #[error(
        "another hub is present as `{replica}` for {} ms more: give each hub its own \
         `ha.replica_id`",
        remaining.as_millis()
    )]
    ReplicaTaken {
        /// The name.
        replica: ReplicaId,
        /// After this time it is free if that hub is gone.
        remaining: Duration,
    },
    /// A bound of the registry; see [`limits`](crate::limits).
    #[error("{found} {what}, and {limit} is the bound")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How many there are or would be.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The store does not answer. Local service goes on.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The store answered that it will not; asking again does not help.
    #[error("the registry's store refused `{what}`: {reason}")]
    Refused {
        /// The operation.
        what: &'static str,
        /// What the store said.
        reason: Arc<str>,
    },
}

impl RegistryError {
    /// Checks `found` against its bound.
    pub(crate) const fn bound(what: &'static str, found: usize, limit: usize) -> Result<(), Self> {
        if found > limit {
            return Err(Self::TooMuch { what, found, limit });
        }
        Ok(())
    }

    /// Whether the claim is gone for good, so that its session ends with `epoch_lost`.
    #[must_use]
    pub const fn is_epoch_lost(&self) -> bool {
        matches!(
            self,
            Self::Lost {
                why: ClaimLost::Overtaken { .. } | ClaimLost::Released,
                ..
            }
        )
    }

    /// Whether it says something of the store, and nothing of the claim or the hub: it is away,
    /// full, or will not. Local service goes on.
    #[must_use]
    pub const fn is_of_the_store(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::Refused { .. } | Self::TooMuch { .. }
        )
    }

    /// Whether the store could not be asked; it may be back any time.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// What is in the place of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimLost {
    /// A newer claim.
    Overtaken {
        /// The one in force.
        current: Epoch,
    },
    /// Nothing: it was given up.
    Released,
    /// Nothing, or an older claim: the store lost what it had. The claim may be published anew.
    Forgotten,
}

impl fmt::Display for ClaimLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overtaken { current } => write!(f, "epoch {} overtook it", show(current)),
            Self::Released => f.write_str("it was given up"),
            Self::Forgotten => f.write_str("the store has lost it"),
        }
    }
}

/// Why the store could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// It is known to be away, and was not asked.
    #[error("the registry's store is away: {reason}")]
    Away {
        /// What was seen last.
        reason: Arc<str>,
    },
    /// No answer in time. The store may have done what was asked.
    #[error("the registry's store did not answer within {} ms", after.as_millis())]
    TimedOut {
        /// The bound.
        after: Duration,
    },
    /// The way to it broke, or it cannot serve now. It may have done what was asked.
    #[error("the registry's store failed: {reason}")]
    Failed {
        /// What was seen.
        reason: Arc<str>,
    },
}

pub(crate) fn show(epoch: &Epoch) -> impl fmt::Display {
    struct Show(u64, ReplicaId);
    impl fmt::Display for Show {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}@{}", self.0, self.1)
        }
    }
    Show(epoch.counter, epoch.replica.clone())
}
