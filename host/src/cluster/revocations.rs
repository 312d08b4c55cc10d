//! The revocation list of each hub holds at every hub.
//!
//! Each hub tells what its own list names, and takes it back when the list does not name it any
//! more; it keeps what the others tell apart from its own, by hub. So nobody's word undoes
//! another's: an agent is let in again when no hub's list names it.
//!
//! The registry carries this and is not trusted to let anybody in: what this hub's own list names
//! stays whatever stands there, and what others told stays while the registry is away, and after
//! it has lost everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use nowconnect_protocol::ReplicaId;
use nowconnect_registry::limits::MAX_REVOCATIONS;
use nowconnect_registry::{
    RegistryError, Revocation, RevocationCursor, RevocationPage, SharedState,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::authorize::unix_ms;
use crate::hub::Hub;
use crate::revocation::Revoked;
use crate::session;

/// How often the others' words are read: with the time of two calls a revocation holds at every hub
/// within a second.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// How long the registry keeps a word: longer than any token lives, and than a hub is away that
/// comes back as it was.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// When a word is said again, so that it does not end while the list still names it.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(10 * 24 * 3600);

/// When a list that has not changed is compared with what was said of it again.
const COMPARED_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// What one hub says of one entry of its list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Word {
    hub: String,
    /// When it was said, in milliseconds since 1970: makes a word that is said again another one.
    at_ms: u64,
    /// The entry, as a line of the list.
    entry: String,
    /// Whether the list names it, or does not any more.
    revoked: bool,
}

/// What is known of all hubs' lists.
#[derive(Debug)]
struct Known {
    hub: String,
    /// What this hub has said, and when.
    said: BTreeMap<String, u64>,
    /// Hub and entry.
    others: BTreeSet<(String, String)>,
    cursor: RevocationCursor,
    /// What was said may differ from what its list names, though that has not changed.
    behind: bool,
}

/// Tells and hears revocations until it is dropped. `changed` wakes it when this hub's list may
/// have changed.
pub(super) async fn keep(
    hub: Weak<Hub>,
    replica: ReplicaId,
    shared: Arc<dyn SharedState>,
    changed: Arc<Notify>,
) {
    let mut known = Known {
        hub: replica.to_string(),
        said: BTreeMap::new(),
        others: BTreeSet::new(),
        cursor: RevocationCursor::default(),
        behind: true,
    };
    let mut told: Option<(Arc<[Revoked]>, Instant)> = None;
    loop {
        match known.hear(shared.as_ref()).await {
            Ok(differs) => {
                let Some(hub) = hub.upgrade() else {
                    return;
                };
                if differs {
                    hub.authorizer().revocations().set_others(known.of_others());
                    session::end_revoked(&hub);
                }
                let own = hub.authorizer().revocations().own();
                drop(hub);
                // Lists are long, and seldom change.
                let is_told = told.as_ref().is_some_and(|(list, at)| {
                    Arc::ptr_eq(list, &own) && at.elapsed() < COMPARED_AGAIN_AFTER
                });
                if known.behind || !is_told {
                    match known.tell(shared.as_ref(), &own).await {
                        Ok(()) => told = Some((own, Instant::now())),
                        Err(error) => log(&error),
                    }
                }
            }
            Err(error) => log(&error),
        }
        // Whichever comes first.
        let _ = tokio::time::timeout(LOOK_EVERY, changed.notified()).await;
    }
}

fn log(error: &RegistryError) {
    if error.is_unavailable() {
        debug!(%error, "revocations are not exchanged");
    } else {
        warn!(%error, "revocations are not exchanged");
    }
}

impl Known {
    /// Reads what was said since the last time. Whether what the others revoke has changed.
    async fn hear(&mut self, shared: &dyn SharedState) -> Result<bool, RegistryError> {
        let mut differs = false;
        loop {
            let page = shared.revocations(&self.cursor).await?;
            differs |= self.take(&page);
            self.cursor = page.cursor;
            if !page.more {
                return Ok(differs);
            }
        }
    }

    fn take(&mut self, page: &RevocationPage) -> bool {
        if page.reset {
            // The store has lost it: it is said anew. What others said stays.
            self.said.clear();
            self.behind = true;
        }
        let mut differs = false;
        for text in &page.entries {
            let Ok(word) = serde_json::from_str::<Word>(text) else {
                debug!("a word on a revocation is of another form");
                continue;
            };
            if word.hub == self.hub {
                self.behind = true;
                match word.revoked {
                    true => self.said.insert(word.entry, word.at_ms),
                    false => self.said.remove(&word.entry),
                };
                continue;
            }
            let key = (word.hub, word.entry);
            differs |= match word.revoked {
                true if self.others.len() < MAX_REVOCATIONS => self.others.insert(key),
                true => {
                    warn!(
                        limit = MAX_REVOCATIONS,
                        "other hubs revoke more than is kept"
                    );
                    false
                }
                false => self.others.remove(&key),
            };
        }
        differs
    }

    /// What the others' lists name; what cannot be read names nobody.
    fn of_others(&self) -> Vec<Revoked> {
        let entries: BTreeSet<&str> = self
            .others
            .iter()
            .map(|(_, entry)| entry.as_str())
            .collect();
        entries
            .into_iter()
            .filter_map(|entry| Revoked::from_text(entry).ok())
            .collect()
    }

    /// Says what this hub's list names now, as far as it differs from what was said.
    async fn tell(
        &mut self,
        shared: &dyn SharedState,
        own: &[Revoked],
    ) -> Result<(), RegistryError> {
        let now_ms = unix_ms(SystemTime::now());
        let own: BTreeSet<String> = own.iter().map(Revoked::to_text).collect();
        for (entry, revoked) in self.due(&own, now_ms) {
            let word = Word {
                hub: self.hub.clone(),
                at_ms: now_ms,
                entry: entry.clone(),
                revoked,
            };
            // A struct of strings and numbers always has a JSON form.
            let text = serde_json::to_string(&word).unwrap_or_default();
            let revocation = Revocation {
                entry: text.into(),
                ttl: KEPT_FOR,
            };
            shared.revoke(&revocation).await?;
            match revoked {
                true => self.said.insert(entry, now_ms),
                false => self.said.remove(&entry),
            };
        }
        self.behind = false;
        Ok(())
    }

    /// What is to be said: what the list names and was not said, or long ago, and what was said
    /// and it does not name any more.
    fn due(&self, own: &BTreeSet<String>, now_ms: u64) -> Vec<(String, bool)> {
        let again_ms = u64::try_from(SAID_AGAIN_AFTER.as_millis()).unwrap_or(u64::MAX);
        let is_said = |entry: &String| {
            let at = self.said.get(entry);
            at.is_some_and(|at| now_ms.saturating_sub(*at) < again_ms)
        };
        let named = own.iter().filter(|entry| !is_said(entry));
        let gone = self.said.keys().filter(|entry| !own.contains(*entry));
        named
            .map(|entry| (entry.clone(), true))
            .chain(gone.map(|entry| (entry.clone(), false)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use nowconnect_protocol::{AgentId, TenantName};
    use nowconnect_registry::MemoryRegistry;

    use super::*;

    #[tokio::test]
    async fn what_one_hub_names_holds_at_the_others_until_it_takes_it_back() {
        let store = MemoryRegistry::default();
        let (mut a, mut b) = (known("a"), known("b"));
        step(&mut a, &store, &[agent("plant")]).await;
        assert!(step(&mut b, &store, &[]).await);
        assert_eq!(b.of_others(), [agent("plant")]);
        assert!(!step(&mut b, &store, &[]).await, "nothing new was said");
        assert!(
            a.of_others().is_empty(),
            "its own words are not the others'"
        );
        step(&mut a, &store, &[]).await;
        assert!(step(&mut b, &store, &[]).await);
        assert!(b.of_others().is_empty());
    }

    #[tokio::test]
    async fn nobody_takes_back_what_another_said() {
        let store = MemoryRegistry::default();
        let (mut a, mut b, mut c) = (known("a"), known("b"), known("c"));
        step(&mut a, &store, &[agent("plant")]).await;
        step(&mut b, &store, &[agent("plant")]).await;
        step(&mut a, &store, &[]).await;
        step(&mut c, &store, &[]).await;
        assert_eq!(c.of_others(), [agent("plant")]);
    }

    #[tokio::test]
    async fn a_hub_that_starts_again_takes_back_what_its_list_lost_meanwhile() {
        let store = MemoryRegistry::default();
        step(&mut known("a"), &store, &[agent("plant"), agent("other")]).await;
        step(&mut known("a"), &store, &[agent("other")]).await;
        let mut b = known("b");
        step(&mut b, &store, &[]).await;
        assert_eq!(b.of_others(), [agent("other")]);
    }

    #[tokio::test]
    async fn a_store_that_lost_everything_lets_nobody_in_and_is_told_anew() {
        let store = MemoryRegistry::default();
        let (mut a, mut b) = (known("a"), known("b"));
        // Twice: then each has read what it said.
        for _ in 0..2 {
            step(&mut a, &store, &[agent("plant")]).await;
            step(&mut b, &store, &[agent("mine")]).await;
        }
        store.forget();
        step(&mut b, &store, &[agent("mine")]).await;
        assert_eq!(b.of_others(), [agent("plant")]);
        step(&mut a, &store, &[agent("plant")]).await;
        let mut c = known("c");
        step(&mut c, &store, &[]).await;
        assert_eq!(c.of_others(), [agent("mine"), agent("plant")]);
    }

    #[test]
    fn a_word_is_said_again_before_it_ends() {
        let mut a = known("a");
        let own = BTreeSet::from(["x".to_owned()]);
        a.said.insert("x".to_owned(), 1_000);
        let later = |days: u64| 1_000 + days * 24 * 3_600 * 1_000;
        assert!(a.due(&own, later(9)).is_empty());
        assert_eq!(a.due(&own, later(11)), [("x".to_owned(), true)]);
    }

    /// One look, with this list.
    async fn step(known: &mut Known, store: &MemoryRegistry, own: &[Revoked]) -> bool {
        let differs = known.hear(store).await.unwrap();
        known.tell(store, own).await.unwrap();
        differs
    }

    fn known(hub: &str) -> Known {
        Known {
            hub: hub.to_owned(),
            said: BTreeMap::new(),
            others: BTreeSet::new(),
            cursor: RevocationCursor::default(),
            behind: true,
        }
    }

    fn agent(id: &str) -> Revoked {
        Revoked::Agent {
            tenant: TenantName::default(),
            agent: AgentId::parse(id).unwrap(),
        }
    }
}
