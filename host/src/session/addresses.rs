//! Where agents have dialled in from.
//!
//! Viewers, services, decision records and the status are told the network at most, and the logs
//! what `observability.redaction.agent_ips` lets through. Who must know an address asks here,
//! which is a decision of its own and leaves a record.
//!
//! The latest tunnels are kept in memory, and in the hub's state file where it has one, so that an
//! address can still be asked for after a restart.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use nowconnect_store::{AgentTunnel, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::error;

use crate::admin::view::{AgentAddress, AgentAddressPage};
use crate::hub::Hub;

/// Tunnels that are remembered, at some 100 bytes each.
const KEPT: usize = 4096;
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
    /// The oldest first.
    tunnels: VecDeque<AgentTunnel>,
    forgotten: u64,
    /// So many of the latest are not in the state file yet.
    unsaved: usize,
}

impl AgentAddresses {
    /// A tunnel came up.
    pub(crate) fn came(&self, tunnel: AgentTunnel) {
        let mut kept = self.kept.lock();
        kept.push(tunnel);
        kept.unsaved = (kept.unsaved + 1).min(KEPT);
        drop(kept);
        self.came.notify_one();
    }

    /// Those of earlier runs, the oldest first.
    pub(crate) fn came_before(&self, tunnels: Vec<AgentTunnel>, forgotten: u64) {
        let mut kept = self.kept.lock();
        kept.forgotten = forgotten;
        for tunnel in tunnels {
            kept.push(tunnel);
        }
    }

    /// The tunnels of an agent, or of all, the latest first; with a time only the one that was the
    /// latest of its agent then.
    pub(crate) fn of(&self, agent: Option<&str>, at_ms: Option<u64>) -> AgentAddressPage {
        let kept = self.kept.lock();
        let is_meant = |tunnel: &&AgentTunnel| {
            agent.is_none_or(|agent| tunnel.agent == agent)
                && at_ms.is_none_or(|at_ms| tunnel.since_ms <= at_ms)
        };
        let mut addresses: Vec<AgentAddress> = Vec::new();
        for tunnel in kept.tunnels.iter().rev().filter(is_meant) {
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
            forgotten: kept.forgotten,
        }
    }

    /// Writes down what is not written yet.
    ///
    /// # Errors
    /// The state file did not take it; it is tried again with what comes next.
    pub(crate) async fn save(&self, hub: &Hub, store: &Arc<Store>) -> Result<(), StoreError> {
        let tunnels: Vec<AgentTunnel> = {
            let mut kept = self.kept.lock();
            let unsaved = std::mem::take(&mut kept.unsaved);
            let known = kept.tunnels.len().saturating_sub(unsaved);
            kept.tunnels.iter().skip(known).cloned().collect()
        };
        if tunnels.is_empty() {
            return Ok(());
        }
        let count = tunnels.len();
        let store = Arc::clone(store);
        let written = hub
            .runtime
            .spawn_blocking(move || store.add_agent_tunnels(&tunnels, KEPT));
        let written = written.await.unwrap_or_else(|error| {
            Err(StoreError::Engine {
                step: "write",
                reason: error.to_string(),
            })
        });
        if written.is_err() {
            let mut kept = self.kept.lock();
            kept.unsaved = (kept.unsaved + count).min(kept.tunnels.len());
        }
        written
    }
}

impl Kept {
    fn push(&mut self, tunnel: AgentTunnel) {
        if self.tunnels.len() >= KEPT {
            self.tunnels.pop_front();
            self.forgotten += 1;
        }
        self.tunnels.push_back(tunnel);
    }
}

/// Writes tunnels down as they come, several at once where they come faster than the disk.
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

    #[test]
    fn the_latest_tunnel_before_a_time_is_the_one_that_was_up() {
        let addresses = AgentAddresses::default();
        for (agent, session, since_ms) in [("a", 1, 10), ("b", 2, 20), ("a", 3, 30)] {
            addresses.came(tunnel(agent, session, since_ms));
        }
        let sessions = |agent, at_ms| -> Vec<u64> {
            let page = addresses.of(agent, at_ms);
            let sessions = page.addresses.iter().filter_map(|tunnel| tunnel.session);
            sessions.collect()
        };
        assert_eq!(sessions(None, None), [3, 2, 1]);
        assert_eq!(sessions(Some("a"), None), [3, 1]);
        assert_eq!(sessions(Some("a"), Some(29)), [1]);
        assert_eq!(sessions(None, Some(40)), [3, 2]);
        assert!(sessions(Some("a"), Some(9)).is_empty());
    }

    #[test]
    fn old_tunnels_are_forgotten_and_counted() {
        let addresses = AgentAddresses::default();
        addresses.came_before(vec![tunnel("a", 7, 0)], 2);
        for session in 0..KEPT as u64 + 3 {
            addresses.came(tunnel("a", session, session));
        }
        let page = addresses.of(Some("a"), None);
        assert_eq!((page.addresses.len(), page.forgotten), (KEPT, 6));
    }
}
