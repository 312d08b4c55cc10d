//! A hub says that it is present, and hears which others are.

use std::sync::Arc;

use nowconnect_protocol::ReplicaId;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::error::RegistryError;
use crate::hub::HubPresence;
use crate::registry::Registry;

/// Announces one hub until it leaves, and publishes what it hears of the others.
#[derive(Debug)]
pub struct Presence {
    registry: Arc<dyn Registry>,
    about: watch::Receiver<HubPresence>,
    seen: watch::Sender<Seen>,
}

/// What a hub knows of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether the others can see this hub.
    pub joined: Joined,
    /// The other hubs, in the order of their names. While the store is away it is the last list:
    /// links that stand go on.
    pub others: Vec<HubPresence>,
}

/// Whether the others can see this hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Joined {
    /// Not yet, or not while the store is away.
    #[default]
    No,
    /// They can.
    Yes,
    /// Another living hub has its name. It must neither claim nor link: epochs of both would be
    /// one. After a crash this ends by itself with the presence of the process before.
    NameTaken,
}

impl Presence {
    /// For a hub that says `about` of itself, and says it again when that changes.
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>, about: watch::Receiver<HubPresence>) -> Self {
        Self {
            registry,
            about,
            seen: watch::Sender::default(),
        }
    }

    /// What this hub knows of its cluster, and when that changes.
    #[must_use]
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Announces once and looks at who is there.
    ///
    /// # Errors
    /// The store is away, or will not have this hub.
    pub async fn step(&self) -> Result<(), RegistryError> {
        let about = self.about.borrow().clone();
        let (joined, refused) = match self.registry.announce_hub(&about).await {
            Ok(()) => (Joined::Yes, None),
            Err(RegistryError::ReplicaTaken { .. }) => (Joined::NameTaken, None),
            Err(error) => (Joined::No, Some(error)),
        };
        let listed = match &refused {
            Some(error) if error.is_unavailable() => Err(error.clone()),
            Some(_) | None => self.registry.list_hubs().await,
        };
        let others = listed.map(|hubs| others(hubs, &about.replica));
        self.seen.send_if_modified(|seen| {
            let now = Seen {
                others: match &others {
                    Ok(others) => others.clone(),
                    Err(_) => seen.others.clone(),
                },
                joined,
            };
            let differs = *seen != now;
            *seen = now;
            differs
        });
        others?;
        refused.map_or(Ok(()), Err)
    }

    /// Steps three times within each presence, and at once when what it says changes. Ends when
    /// whoever says it is gone.
    pub async fn run(&mut self) {
        let pause = self.registry.hub_presence() / 3;
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(error) if error.is_unavailable() => debug!(%error, "not announced"),
                Err(error) => warn!(%error, "this hub is not announced"),
            }
            if self.seen.borrow().joined == Joined::NameTaken {
                let replica = self.about.borrow().replica.clone();
                warn!(%replica, "another hub has this name: give each its own `ha.replica_id`");
            }
            let jittered = pause.mul_f64(rand::random_range(0.8..1.0));
            if let Ok(Err(_gone)) = tokio::time::timeout(jittered, self.about.changed()).await {
                return;
            }
        }
    }

    /// Leaves, so that the others need not wait for this hub to be missed.
    ///
    /// # Errors
    /// The store is away; then the presence ends by itself.
    pub async fn leave(&self) -> Result<(), RegistryError> {
        let about = self.about.borrow().clone();
        self.registry.withdraw_hub(&about).await
    }
}

fn others(mut hubs: Vec<HubPresence>, replica: &ReplicaId) -> Vec<HubPresence> {
    hubs.retain(|hub| hub.replica != *replica);
    hubs
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::hub::HaMode;
    use crate::memory::MemoryRegistry;

    #[tokio::test]
    async fn hubs_see_each_other_until_one_leaves() {
        let store = MemoryRegistry::default();
        let (_a, one) = hub(&store, "a", 1);
        let (_b, other) = hub(&store, "b", 2);
        one.step().await.unwrap();
        other.step().await.unwrap();
        one.step().await.unwrap();
        assert_eq!(names(&one), ["b"]);
        assert_eq!(names(&other), ["a"]);
        other.leave().await.unwrap();
        one.step().await.unwrap();
        assert!(names(&one).is_empty());
    }

    #[tokio::test]
    async fn what_was_seen_stays_while_the_store_is_away() {
        let store = MemoryRegistry::default();
        let (_a, one) = hub(&store, "a", 1);
        let (_b, other) = hub(&store, "b", 2);
        other.step().await.unwrap();
        one.step().await.unwrap();
        store.set_reachable(false);
        assert!(one.step().await.unwrap_err().is_unavailable());
        assert_eq!(names(&one), ["b"]);
        assert_eq!(one.seen().borrow().joined, Joined::No);
        store.set_reachable(true);
        one.step().await.unwrap();
        assert_eq!(one.seen().borrow().joined, Joined::Yes);
    }

    #[tokio::test]
    async fn a_second_hub_of_a_name_is_told_so() {
        let store = MemoryRegistry::default();
        let (_a, first) = hub(&store, "a", 1);
        let (_b, second) = hub(&store, "a", 2);
        first.step().await.unwrap();
        second.step().await.unwrap();
        assert_eq!(second.seen().borrow().joined, Joined::NameTaken);
        assert_eq!(first.seen().borrow().joined, Joined::Yes);
        first.leave().await.unwrap();
        second.step().await.unwrap();
        assert_eq!(second.seen().borrow().joined, Joined::Yes);
    }

    fn hub(
        store: &MemoryRegistry,
        name: &str,
        boot: u64,
    ) -> (watch::Sender<HubPresence>, Presence) {
        let (said, about) = watch::channel(HubPresence {
            replica: ReplicaId::parse(name).unwrap(),
            boot,
            address: String::new(),
            certificate: String::new(),
            version: String::new(),
            mode: HaMode::Active,
            generation: String::new(),
        });
        (said, Presence::new(Arc::new(store.clone()), about))
    }

    fn names(presence: &Presence) -> Vec<String> {
        let seen = presence.seen();
        let seen = seen.borrow();
        let others = seen.others.iter();
        others.map(|hub| hub.replica.to_string()).collect()
    }
}
