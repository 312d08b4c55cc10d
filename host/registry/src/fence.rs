//! The receiver's memory of epochs.

use std::num::NonZeroUsize;

use lru::LruCache;
use nowconnect_protocol::Epoch;
use parking_lot::Mutex;

use crate::agent::AgentKey;

/// The highest epoch that this hub has seen of each agent; what is below is refused.
///
/// Bounded: the agent that was looked at longest ago is forgotten first, and any epoch of it is
/// taken then. So the bound has to be above the number of agents whose frames cross this hub at a
/// time; each frame keeps its agent in memory. About 300 bytes an agent.
#[derive(Debug)]
pub struct EpochFence {
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    highest: LruCache<AgentKey, Epoch>,
    forgotten: u64,
    stale: u64,
}

/// What a fence says of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// It is the highest that was seen, now or before.
    Current,
    /// It is above what was seen; from now on only it and higher ones are taken.
    Raised,
    /// It is below: whoever sent it has lost the agent, and nothing of it may be delivered.
    Stale {
        /// The highest that was seen.
        highest: Epoch,
    },
}

impl Fenced {
    /// Whether what carries the epoch may be delivered.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        matches!(self, Self::Current | Self::Raised)
    }
}

impl EpochFence {
    /// Remembers at most `agents`.
    #[must_use]
    pub fn new(agents: NonZeroUsize) -> Self {
        Self {
            seen: Mutex::new(Seen {
                highest: LruCache::new(agents),
                forgotten: 0,
                stale: 0,
            }),
        }
    }

    /// Asks about an epoch that a peer, the registry or this hub itself brings, and remembers it
    /// if it is the highest.
    pub fn observe(&self, agent: &AgentKey, epoch: &Epoch) -> Fenced {
        let mut seen = self.seen.lock();
        match seen.highest.get_mut(agent) {
            Some(highest) if *epoch == *highest => Fenced::Current,
            Some(highest) if *epoch < *highest => {
                let highest = highest.clone();
                seen.stale += 1;
                Fenced::Stale { highest }
            }
            Some(highest) => {
                *highest = epoch.clone();
                Fenced::Raised
            }
            None => {
                if seen.highest.push(agent.clone(), epoch.clone()).is_some() {
                    seen.forgotten += 1;
                }
                Fenced::Raised
            }
        }
    }

    /// The highest that was seen of `agent`.
    #[must_use]
    pub fn highest(&self, agent: &AgentKey) -> Option<Epoch> {
        self.seen.lock().highest.peek(agent).cloned()
    }

    /// How many epochs were refused because they were below the highest that was seen.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.seen.lock().stale
    }

    /// How many agents were forgotten because the bound was reached. Above 0 the bound is too
    /// low for this hub.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.seen.lock().forgotten
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::num::NonZeroUsize;

    use nowconnect_protocol::{AgentId, ReplicaId, TenantName};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_below_the_highest_is_stale() {
        let fence = fence(2);
        assert_eq!(fence.observe(&agent(1), &epoch(5, "a")), Fenced::Raised);
        assert_eq!(fence.observe(&agent(1), &epoch(5, "a")), Fenced::Current);
        assert_eq!(
            fence.observe(&agent(1), &epoch(4, "z")),
            Fenced::Stale {
                highest: epoch(5, "a")
            }
        );
        assert_eq!(fence.stale(), 1);
        assert_eq!(fence.highest(&agent(1)), Some(epoch(5, "a")));
        assert_eq!(fence.highest(&agent(2)), None);
    }

    #[test]
    fn the_replica_orders_equal_counters() {
        let fence = fence(2);
        assert!(fence.observe(&agent(1), &epoch(5, "b")).is_accepted());
        assert!(!fence.observe(&agent(1), &epoch(5, "a")).is_accepted());
        assert!(fence.observe(&agent(1), &epoch(5, "c")).is_accepted());
    }

    #[test]
    fn the_agent_that_is_in_use_is_not_forgotten() {
        let fence = fence(2);
        fence.observe(&agent(1), &epoch(9, "a"));
        for other in 2..50 {
            fence.observe(&agent(other), &epoch(1, "a"));
            assert!(fence.observe(&agent(1), &epoch(9, "a")).is_accepted());
        }
        assert!(!fence.observe(&agent(1), &epoch(8, "a")).is_accepted());
        assert_eq!(fence.forgotten(), 47, "agents 2 to 48 made room");
    }

    proptest! {
        #[test]
        fn accepted_epochs_of_an_agent_never_go_back(
            brought in prop::collection::vec((0..4u8, 0..12u64, 0..3usize), 1..200),
        ) {
            let fence = fence(4);
            let mut highest: std::collections::BTreeMap<u8, Epoch> = Default::default();
            for (of, counter, replica) in brought {
                let epoch = epoch(counter, ["a", "b", "c"][replica]);
                let accepted = fence.observe(&agent(of), &epoch).is_accepted();
                let due = highest.get(&of).is_none_or(|highest| epoch >= *highest);
                prop_assert_eq!(accepted, due);
                if due {
                    highest.insert(of, epoch);
                }
            }
        }
    }

    fn fence(agents: usize) -> EpochFence {
        EpochFence::new(NonZeroUsize::new(agents).unwrap())
    }

    fn agent(number: u8) -> AgentKey {
        AgentKey {
            tenant: TenantName::default(),
            agent: AgentId::parse(&format!("agent-{number}")).unwrap(),
        }
    }

    fn epoch(counter: u64, replica: &str) -> Epoch {
        Epoch {
            counter,
            replica: ReplicaId::parse(replica).unwrap(),
        }
    }
}
