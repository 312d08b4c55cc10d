//! Where agents have dialled in from. Whoever reads it is asked for his right elsewhere, and how
//! much of it is kept is decided there too.

use std::collections::BTreeMap;
use std::net::SocketAddr;

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
    /// Keeps tunnels under the numbers that the caller gave them, and forgets others.
    ///
    /// # Errors
    /// The store failed; then nothing has changed.
    pub fn change_agent_tunnels(
        &self,
        added: &[(u64, AgentTunnel)],
        gone: &[u64],
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = AGENT_TUNNELS.open(transaction)?;
            for (number, tunnel) in added {
                table.put(&key(*number), tunnel)?;
            }
            for number in gone {
                table.remove(&key(*number))?;
            }
            Ok(())
        })
    }

    /// Every tunnel that is kept, by its number. An entry that cannot be read is left out: what
    /// the others say holds without it.
    ///
    /// # Errors
    /// The store failed.
    pub fn agent_tunnels(&self) -> Result<BTreeMap<u64, AgentTunnel>, StoreError> {
        let mut tunnels = BTreeMap::new();
        self.read(|transaction| {
            AGENT_TUNNELS.raw(transaction, |key, bytes| {
                if let (Ok(number), Ok(tunnel)) = (key.parse(), serde_json::from_slice(bytes)) {
                    tunnels.insert(number, tunnel);
                }
                Ok(())
            })
        })?;
        Ok(tunnels)
    }
}

/// In the order of the numbers.
fn key(number: u64) -> String {
    format!("{number:020}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::schema;

    fn tunnel(session: u64) -> (u64, AgentTunnel) {
        let tunnel = AgentTunnel {
            agent: "plant".to_owned(),
            session,
            address: ([192, 0, 2, 1], 4000).into(),
            since_ms: session * 10,
        };
        (session, tunnel)
    }

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_in_a_backup() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("a"), folder.path().join("b"));
        let store = Store::open(&path).unwrap();
        assert!(store.agent_tunnels().unwrap().is_empty());
        store
            .change_agent_tunnels(&[tunnel(1), tunnel(2), tunnel(30)], &[])
            .unwrap();
        store.change_agent_tunnels(&[tunnel(4)], &[2, 7]).unwrap();
        let kept = BTreeMap::from([tunnel(1), tunnel(4), tunnel(30)]);
        store.backup(&copy).unwrap();
        drop(store);
        assert_eq!(Store::open(&path).unwrap().agent_tunnels().unwrap(), kept);
        Store::restore(&copy, &path).unwrap();
        assert_eq!(Store::open(&path).unwrap().agent_tunnels().unwrap(), kept);
    }

    #[test]
    fn an_entry_that_cannot_be_read_hides_no_other() {
        let store = Store::in_memory().unwrap();
        store
            .change_agent_tunnels(&[tunnel(1), tunnel(3)], &[])
            .unwrap();
        store
            .write(|transaction| {
                let mut table = AGENT_TUNNELS.open(transaction)?;
                table.put_raw(&key(2), b"{\"agent\": 5}")?;
                table.put_raw("no number", b"{}")
            })
            .unwrap();
        let kept = BTreeMap::from([tunnel(1), tunnel(3)]);
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
        store.change_agent_tunnels(&[tunnel(1)], &[]).unwrap();
        assert_eq!(store.agent_tunnels().unwrap(), BTreeMap::from([tunnel(1)]));
    }
}
