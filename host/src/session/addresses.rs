//! Where agents have dialled in from.
//!
//! Viewers, services and the status page are not told; the log has the network alone. Who must
//! know an address asks here, which is a decision of its own and leaves a record.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::admin::view::{AgentAddress, AgentAddressPage};

/// Tunnels that are remembered, at some 100 bytes each.
const KEPT: usize = 4096;

/// The last tunnels of all agents.
#[derive(Debug, Default)]
pub(crate) struct AgentAddresses(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    tunnels: VecDeque<AgentAddress>,
    forgotten: u64,
}

impl AgentAddresses {
    pub(crate) fn came(&self, tunnel: AgentAddress) {
        let mut kept = self.0.lock();
        if kept.tunnels.len() >= KEPT {
            kept.tunnels.pop_front();
            kept.forgotten += 1;
        }
        kept.tunnels.push_back(tunnel);
    }

    /// The tunnels of an agent, or of all, the latest first; with a time only the one that was the
    /// latest of its agent then.
    pub(crate) fn of(&self, agent: Option<&str>, at_ms: Option<u64>) -> AgentAddressPage {
        let kept = self.0.lock();
        let is_meant = |tunnel: &&AgentAddress| {
            agent.is_none_or(|agent| tunnel.agent == agent)
                && at_ms.is_none_or(|at_ms| tunnel.since_ms <= at_ms)
        };
        let mut addresses: Vec<AgentAddress> = Vec::new();
        for tunnel in kept.tunnels.iter().rev().filter(is_meant) {
            let is_latest = !addresses.iter().any(|later| later.agent == tunnel.agent);
            if at_ms.is_none() || is_latest {
                addresses.push(tunnel.clone());
            }
        }
        AgentAddressPage {
            addresses,
            forgotten: kept.forgotten,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_tunnel_before_a_time_is_the_one_that_was_up() {
        let addresses = AgentAddresses::default();
        for (agent, session, since_ms) in [("a", 1, 10), ("b", 2, 20), ("a", 3, 30)] {
            addresses.came(AgentAddress {
                agent: agent.to_owned(),
                session,
                address: ([192, 0, 2, 1], 4000).into(),
                since_ms,
            });
        }
        let sessions = |agent, at_ms| -> Vec<u64> {
            let page = addresses.of(agent, at_ms);
            page.addresses.iter().map(|tunnel| tunnel.session).collect()
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
        for session in 0..KEPT as u64 + 3 {
            addresses.came(AgentAddress {
                agent: "a".to_owned(),
                session,
                address: ([192, 0, 2, 1], 4000).into(),
                since_ms: session,
            });
        }
        let page = addresses.of(Some("a"), None);
        assert_eq!((page.addresses.len(), page.forgotten), (KEPT, 3));
    }
}
