//! Where agents have dialled in from. Whoever reads it is asked for his right elsewhere.

use std::net::SocketAddr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::schema::AGENT_TUNNELS;
use crate::{Store, StoreError};

/// A tunnel of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentTunnel {
    /// Whose it was.
    pub agent: String,
    /// Its session, a number of that run of the hub.
    pub session: u64,
    /// Its far end.
    pub address: SocketAddr,
    /// When it came up.
    pub since_ms: u64,
}

impl Store {
    /// Keeps further tunnels, the oldest first, and forgets the oldest of more than `limit`.
    ///
    /// # Errors
    /// The store failed; then nothing has changed.
    pub fn add_agent_tunnels(
        &self,
        tunnels: &[AgentTunnel],
        limit: usize,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = AGENT_TUNNELS.open(transaction)?;
            let mut number = table.last_key()?.map_or(0, |key| number_of(&key));
            for tunnel in tunnels {
                number = number.saturating_add(1);
                table.put(&format!("{number:020}"), tunnel)?;
            }
            let kept = usize::try_from(table.len()?).unwrap_or(usize::MAX);
            let mut over = Vec::with_capacity(kept.saturating_sub(limit));
            table.each_of("", |key, _: IgnoredAny| {
                let is_over = over.len() < kept.saturating_sub(limit);
                if is_over {
                    over.push(key.to_owned());
                }
                is_over
            })?;
            for key in over {
                table.remove(&key)?;
            }
            Ok(())
        })
    }

    /// Every tunnel that is kept, the oldest first, and how many were forgotten before them.
    ///
    /// # Errors
    /// The store failed.
    pub fn agent_tunnels(&self) -> Result<(Vec<AgentTunnel>, u64), StoreError> {
        let (mut tunnels, mut forgotten) = (Vec::new(), 0);
        self.read(|transaction| {
            AGENT_TUNNELS.each(transaction, None, |key, tunnel: AgentTunnel| {
                if tunnels.is_empty() {
                    forgotten = number_of(key).saturating_sub(1);
                }
                tunnels.push(tunnel);
                true
            })
        })?;
        Ok((tunnels, forgotten))
    }
}

/// Tunnels are numbered from 1 on, and a number is never used again while a later one is kept.
fn number_of(key: &str) -> u64 {
    key.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::schema;

    fn tunnel(session: u64) -> AgentTunnel {
        AgentTunnel {
            agent: "plant".to_owned(),
            session,
            address: ([192, 0, 2, 1], 4000).into(),
            since_ms: session * 10,
        }
    }

    #[test]
    fn the_latest_are_there_after_a_restart_and_in_a_backup() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("a"), folder.path().join("b"));
        let store = Store::open(&path).unwrap();
        assert_eq!(store.agent_tunnels().unwrap(), (Vec::new(), 0));
        store.add_agent_tunnels(&[tunnel(1), tunnel(2)], 3).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        store.add_agent_tunnels(&[tunnel(3), tunnel(4)], 3).unwrap();
        let kept = (vec![tunnel(2), tunnel(3), tunnel(4)], 1);
        assert_eq!(store.agent_tunnels().unwrap(), kept);
        store.backup(&copy).unwrap();
        drop(store);
        Store::restore(&copy, &path).unwrap();
        assert_eq!(Store::open(&path).unwrap().agent_tunnels().unwrap(), kept);
    }

    #[test]
    fn more_at_once_than_are_kept_leave_the_latest() {
        let store = Store::in_memory().unwrap();
        let many: Vec<AgentTunnel> = (1..=5).map(tunnel).collect();
        store.add_agent_tunnels(&many, 2).unwrap();
        let kept = (vec![tunnel(4), tunnel(5)], 3);
        assert_eq!(store.agent_tunnels().unwrap(), kept);
    }

    #[test]
    fn a_file_of_an_earlier_release_gets_room_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let store = Store::open(&path).unwrap();
        store
            .write(|transaction| schema::set_version(transaction, 2))
            .unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        store.add_agent_tunnels(&[tunnel(1)], 3).unwrap();
        assert_eq!(store.agent_tunnels().unwrap(), (vec![tunnel(1)], 0));
    }
}
