//! Where agents have dialled in from.
//!
//! Viewers, services, decision records and the status are told the network at most, and the logs
//! what `observability.redaction.agent_ips` lets through. Who must know an address asks here,
//! which is a decision of its own and leaves a record.
//!
//! The latest tunnels are kept in memory, and in the hub's state file where it has one, so that an
//! address can still be asked for after a restart. One agent has a small share of the room, so that
//! coming again and again washes out nobody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nowconnect_store::{AgentTunnel, Store, StoreError};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::error;

use crate::admin::view::{AgentAddress, AgentAddressPage};
use crate::hub::Hub;

/// Tunnels that are remembered, at some 200 bytes each.
const KEPT: usize = 4096;
/// Those of one agent.
const KEPT_OF_ONE: usize = 16;
/// Between two writes to the state file: what comes meanwhile is written at once.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// The pause before tunnels that the state file did not take are shown to it again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The last tunnels of all agents.
#[derive(Debug, Default)]
pub(crate) struct AgentAddresses {
    kept: Mutex<Kept>,
    /// There is something to write down.
    came: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    /// By number, the oldest first.
    tunnels: BTreeMap<u64, AgentTunnel>,
    /// How many of them an agent has.
    of_agents: FxHashMap<String, usize>,
    /// The highest number; those below it that are not kept are forgotten.
    last: u64,
    /// Numbers that are not in the state file yet, of tunnels that are kept.
    added: BTreeSet<u64>,
    /// Numbers that are in the state file still, of tunnels that are not.
    gone: BTreeSet<u64>,
}

impl AgentAddresses {
    /// A tunnel came up.
    pub(crate) fn came(&self, tunnel: AgentTunnel) {
        let mut kept = self.kept.lock();
        let number = kept.last + 1;
        kept.added.insert(number);
        kept.put(number, tunnel);
        drop(kept);
        self.came.notify_one();
    }

    /// Those of earlier runs, as the state file has them.
    pub(crate) fn came_before(&self, tunnels: BTreeMap<u64, AgentTunnel>) {
        let mut kept = self.kept.lock();
        for (number, tunnel) in tunnels {
            kept.put(number, tunnel);
        }
    }

    /// The tunnels of an agent, or of all, the latest first; with a time only the one that came up
    /// last of its agent until then.
    pub(crate) fn of(&self, agent: Option<&str>, at_ms: Option<u64>) -> AgentAddressPage {
        let kept = self.kept.lock();
        let is_meant = |tunnel: &&AgentTunnel| {
            agent.is_none_or(|agent| tunnel.agent == agent)
                && at_ms.is_none_or(|at_ms| tunnel.since_ms <= at_ms)
        };
        let mut addresses: Vec<AgentAddress> = Vec::new();
        for tunnel in kept.tunnels.values().rev().filter(is_meant) {
            let is_latest = !addresses.iter().any(|later| later.agent == tunnel.agent);
            if at_ms.is_none() || is_latest {
                addresses.push(AgentAddress {
                    agent: tunnel.agent.clone(),
                    session: Some(tunnel.session),
                    address: tunnel.address,
                    since_ms: tunnel.since_ms,
                });
            }
        }
        AgentAddressPage {
            addresses,
            forgotten: kept.forgotten(),
        }
    }

    /// Writes down what is not written yet. A file that has failed is opened anew first.
    ///
    /// # Errors
    /// The state file did not take it; it is tried again with what comes next.
    pub(crate) async fn save(&self, hub: &Hub, store: &Arc<Store>) -> Result<(), StoreError> {
        let (added, gone) = {
            let mut kept = self.kept.lock();
            (
                std::mem::take(&mut kept.added),
                std::mem::take(&mut kept.gone),
            )
        };
        if added.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let tunnels: Vec<(u64, AgentTunnel)> = {
            let kept = self.kept.lock();
            let found = added
                .iter()
                .filter_map(|number| Some((*number, kept.tunnels.get(number)?.clone())));
            found.collect()
        };
        let numbers: Vec<u64> = gone.iter().copied().collect();
        let store = Arc::clone(store);
        let written = hub.runtime.spawn_blocking(move || {
            store.heal()?;
            store.change_agent_tunnels(&tunnels, &numbers)
        });
        // A write that panicked is as good as one that failed.
        let written = written.await.unwrap_or_else(|error| {
            Err(StoreError::Engine {
                step: "write",
                reason: error.to_string(),
            })
        });
        let mut kept = self.kept.lock();
        if written.is_ok() {
            // Those that went while they were written are there now.
            let went = added
                .iter()
                .filter(|number| !kept.tunnels.contains_key(*number));
            let went: Vec<u64> = went.copied().collect();
            kept.gone.extend(went);
        } else {
            let here = added
                .into_iter()
                .filter(|number| kept.tunnels.contains_key(number));
            let here: Vec<u64> = here.collect();
            kept.added.extend(here);
            kept.gone.extend(gone);
        }
        written
    }
}

impl Kept {
    fn put(&mut self, number: u64, tunnel: AgentTunnel) {
        self.last = self.last.max(number);
        let of_agent = self.of_agents.entry(tunnel.agent.clone()).or_default();
        *of_agent += 1;
        let is_too_many = *of_agent > KEPT_OF_ONE;
        let agent = tunnel.agent.clone();
        self.tunnels.insert(number, tunnel);
        if is_too_many {
            self.forget_one_of(&agent);
        } else if self.tunnels.len() > KEPT {
            let most = self.of_agents.values().copied().max().unwrap_or(0);
            // Of those who have the most, whose oldest tunnel is the oldest.
            let oldest = self
                .tunnels
                .values()
                .find(|tunnel| self.of_agents.get(&tunnel.agent) == Some(&most));
            if let Some(agent) = oldest.map(|tunnel| tunnel.agent.clone()) {
                self.forget_one_of(&agent);
            }
        }
    }

    /// Its oldest.
    fn forget_one_of(&mut self, agent: &str) {
        let mut numbers = self.tunnels.iter();
        let Some(number) = numbers
            .find(|(_, tunnel)| tunnel.agent == agent)
            .map(|(number, _)| *number)
        else {
            return;
        };
        self.tunnels.remove(&number);
        if !self.added.remove(&number) {
            self.gone.insert(number);
        }
        if let Some(count) = self.of_agents.get_mut(agent) {
            *count -= 1;
            if *count == 0 {
                self.of_agents.remove(agent);
            }
        }
    }

    fn forgotten(&self) -> u64 {
        let kept = u64::try_from(self.tunnels.len()).unwrap_or(u64::MAX);
        self.last.saturating_sub(kept)
    }
}

/// Writes tunnels down as they come, several at once where they come often.
pub(crate) async fn save_addresses(hub: Arc<Hub>, store: Arc<Store>) {
    let mut told = false;
    loop {
        hub.addresses.came.notified().await;
        while let Err(problem) = hub.addresses.save(&hub, &store).await {
            if !std::mem::replace(&mut told, true) {
                error!(
                    error = %problem,
                    "the state file does not take where agents dial in from; only this process \
                     knows it until it does"
                );
            }
            sleep(AGAIN_AFTER).await;
        }
        told = false;
        sleep(WRITE_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(agent: &str, session: u64, since_ms: u64) -> AgentTunnel {
        AgentTunnel {
            agent: agent.to_owned(),
            session,
            address: ([192, 0, 2, 1], 4000).into(),
            since_ms,
        }
    }

    fn sessions(addresses: &AgentAddresses, agent: Option<&str>, at_ms: Option<u64>) -> Vec<u64> {
        let page = addresses.of(agent, at_ms);
        let sessions = page.addresses.iter().filter_map(|tunnel| tunnel.session);
        sessions.collect()
    }

    #[test]
    fn the_latest_tunnel_before_a_time_is_the_one_that_is_told() {
        let addresses = AgentAddresses::default();
        for (agent, session, since_ms) in [("a", 1, 10), ("b", 2, 20), ("a", 3, 30)] {
            addresses.came(tunnel(agent, session, since_ms));
        }
        assert_eq!(sessions(&addresses, None, None), [3, 2, 1]);
        assert_eq!(sessions(&addresses, Some("a"), None), [3, 1]);
        assert_eq!(sessions(&addresses, Some("a"), Some(29)), [1]);
        assert_eq!(sessions(&addresses, None, Some(40)), [3, 2]);
        assert!(sessions(&addresses, Some("a"), Some(9)).is_empty());
    }

    #[test]
    fn who_comes_again_and_again_washes_out_nobody_else() {
        let addresses = AgentAddresses::default();
        let before = BTreeMap::from([(5, tunnel("quiet", 1, 0))]);
        addresses.came_before(before);
        for session in 0..2 * KEPT as u64 {
            addresses.came(tunnel("loud", session, session));
        }
        assert_eq!(sessions(&addresses, Some("quiet"), None), [1]);
        let loud = sessions(&addresses, Some("loud"), None);
        assert_eq!(loud.len(), KEPT_OF_ONE);
        assert_eq!(loud[0], 2 * KEPT as u64 - 1);
        let page = addresses.of(None, None);
        // The four before the first that was kept, and what was loud.
        let forgotten = 4 + 2 * KEPT - KEPT_OF_ONE;
        assert_eq!(page.forgotten, forgotten as u64);
        let kept = addresses.kept.lock();
        assert_eq!((kept.added.len(), kept.gone.len()), (KEPT_OF_ONE, 0));
    }

    #[test]
    fn who_has_most_makes_room_for_others() {
        let addresses = AgentAddresses::default();
        for session in 0..3 {
            addresses.came(tunnel("often", session, session));
        }
        for number in 1..KEPT as u64 {
            addresses.came(tunnel(&format!("a{number}"), number, number));
        }
        assert_eq!(sessions(&addresses, Some("often"), None), [2]);
        let page = addresses.of(None, None);
        assert_eq!((page.addresses.len(), page.forgotten), (KEPT, 2));
        // Where nobody has more than another, the oldest goes.
        addresses.came(tunnel("late", 1, 1));
        assert!(sessions(&addresses, Some("often"), None).is_empty());
        assert_eq!(sessions(&addresses, Some("a1"), None), [1]);
    }
}
