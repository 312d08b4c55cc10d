//! Tokens and agents that count no more, before their time.
//!
//! `nowconnect agent revoke` writes a list of JSON lines; every hub that shares the file reads it
//! anew when it changes and asks it at HELLO, RENEW, RESUME and every OPEN, before any policy.
//! A list that cannot be read leaves the last good one in force. Looking up is a few hash
//! lookups, whatever the length. Beside a hub's own list stand those of the other hubs of its
//! cluster, as far as they have told them; what either names is revoked.

mod list_file;
#[cfg(test)]
mod tests;
pub mod time;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use nowconnect_protocol::{AgentId, TenantName};

use crate::identity::AgentIdentity;

pub use list_file::{Revocation, RevocationError, Revoked, edit, read};

/// The list in force. Cheap to clone; all clones share it.
#[derive(Clone, Debug)]
pub struct RevocationList {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: Option<(PathBuf, u32)>,
    index: ArcSwap<Index>,
    /// What other hubs have told.
    others: ArcSwap<Index>,
}

impl RevocationList {
    /// A list that revokes nothing and has no file.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            shared: Arc::new(Shared {
                file: None,
                index: ArcSwap::default(),
                others: ArcSwap::default(),
            }),
        }
    }

    /// Reads the file; one that does not exist is an empty list.
    ///
    /// # Errors
    /// It cannot be read, holds a bad line, or has more than `max_entries`.
    pub fn open(path: &Path, max_entries: u32) -> Result<Self, RevocationError> {
        let entries = read(path, max_entries)?.unwrap_or_default();
        Ok(Self {
            shared: Arc::new(Shared {
                file: Some((path.to_path_buf(), max_entries)),
                index: ArcSwap::from_pointee(Index::of_list(entries)),
                others: ArcSwap::default(),
            }),
        })
    }

    /// Reads the file again and publishes it whole. On an error the last good list stays; so it
    /// does when the file is gone, because a lost file must not let anyone back in.
    /// `true` if it now differs.
    ///
    /// # Errors
    /// As [`open`](Self::open), and the file of a list with entries does not exist any more.
    pub fn reload(&self) -> Result<bool, RevocationError> {
        let Some((path, max_entries)) = &self.shared.file else {
            return Ok(false);
        };
        let current = self.shared.index.load();
        let next = match read(path, *max_entries)? {
            Some(entries) => Index::of_list(entries),
            None if current.list.is_empty() => return Ok(false),
            None => return Err(RevocationError::Gone { path: path.clone() }),
        };
        let differs = **current != next;
        if differs {
            self.shared.index.store(Arc::new(next));
        }
        Ok(differs)
    }

    /// Whether the identity counts no more.
    #[must_use]
    pub fn is_revoked(&self, identity: &AgentIdentity) -> bool {
        self.shared.index.load().revokes(identity) || self.shared.others.load().revokes(identity)
    }

    /// What this hub's own list names. The same `Arc` as long as that stays the same.
    pub(crate) fn own(&self) -> Arc<[Revoked]> {
        Arc::clone(&self.shared.index.load().list)
    }

    /// What the other hubs' lists name, instead of what they told before.
    pub(crate) fn set_others(&self, revoked: Vec<Revoked>) {
        self.shared.others.store(Arc::new(Index::new(revoked)));
    }

    /// Takes over what the other hubs have told `before`, the list that this one follows.
    pub(crate) fn keep_others(&self, before: &Self) {
        self.shared.others.store(before.shared.others.load_full());
    }

    /// How many entries are in force, those of other hubs included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.index.load().list.len() + self.shared.others.load().list.len()
    }

    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The entries, arranged for looking up.
#[derive(Debug, Default, PartialEq)]
struct Index {
    list: Arc<[Revoked]>,
    jtis: HashSet<String>,
    tenants: HashMap<TenantName, Tenant>,
    /// Every token issued before this time.
    all_before: Option<SystemTime>,
}

#[derive(Debug, Default, PartialEq)]
struct Tenant {
    agents: HashSet<AgentId>,
    before: HashMap<AgentId, SystemTime>,
}

impl Index {
    fn of_list(entries: Vec<Revocation>) -> Self {
        Self::new(entries.into_iter().map(|entry| entry.revoked).collect())
    }

    fn new(revoked: Vec<Revoked>) -> Self {
        let list: Arc<[Revoked]> = revoked.into();
        let mut index = Self {
            list: Arc::clone(&list),
            ..Self::default()
        };
        for revoked in list.iter() {
            index.add(revoked);
        }
        index
    }

    fn add(&mut self, revoked: &Revoked) {
        match revoked {
            Revoked::Agent { tenant, agent } => {
                let tenant = self.tenants.entry(tenant.clone()).or_default();
                tenant.agents.insert(agent.clone());
            }
            Revoked::Jti { jti } => {
                self.jtis.insert(jti.clone());
            }
            Revoked::IssuedBefore { issued_before } => {
                self.all_before = self.all_before.max(Some(at(*issued_before)));
            }
            Revoked::AgentIssuedBefore {
                tenant,
                agent,
                issued_before,
            } => {
                let tenant = self.tenants.entry(tenant.clone()).or_default();
                let before = tenant.before.entry(agent.clone()).or_insert(UNIX_EPOCH);
                *before = (*before).max(at(*issued_before));
            }
        }
    }

    fn revokes(&self, identity: &AgentIdentity) -> bool {
        // Without `iat` nobody knows when it was issued: then it was too early.
        let issued_at = identity.issued_at.unwrap_or(UNIX_EPOCH);
        if self.all_before.is_some_and(|before| issued_at < before) {
            return true;
        }
        if !self.jtis.is_empty()
            && identity
                .jti
                .as_ref()
                .is_some_and(|jti| self.jtis.contains(jti))
        {
            return true;
        }
        self.tenants.get(&identity.tenant).is_some_and(|tenant| {
            tenant.agents.contains(&identity.agent_id)
                || tenant
                    .before
                    .get(&identity.agent_id)
                    .is_some_and(|before| issued_at < *before)
        })
    }
}

/// Seconds since 1970 as a time; the reader bounds them.
fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}
