//! The suite over the store in this process.

use std::sync::Arc;
use std::time::Duration;

use nowconnect_registry::{
    MemoryRegistry, RegistryError, Revocation, RevocationCursor, RevocationPage, SharedState as _,
    Unavailable,
};

use crate::names::{agent, request};
use crate::suite::{Subject, conforms};

#[tokio::test]
async fn the_store_in_memory_conforms() {
    let store = MemoryRegistry::default();
    let brief = Duration::from_millis(100);
    conforms(&Subject {
        here: Arc::new(store.clone()),
        there: Arc::new(store.clone()),
        brief: Arc::new(store.with_leases(brief, brief)),
        shared: [Arc::new(store.clone()), Arc::new(store)],
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_cut_off_says_so() {
    use nowconnect_registry::Registry as _;
    let store = MemoryRegistry::default();
    let mut health = store.health();
    store.set_reachable(false);
    assert!(!store.is_healthy() && health.has_changed().unwrap());
    health.mark_unchanged();
    let claim = request(&agent("default", "plant"), "hub-a", None);
    let error = store.claim_ownership(&claim).await.unwrap_err();
    assert!(matches!(
        error,
        RegistryError::Unavailable(Unavailable::Away { .. })
    ));
    store.set_reachable(true);
    assert!(health.has_changed().unwrap());
    store.claim_ownership(&claim).await.unwrap();
}

/// A failover loses the last entries, and their versions are given to others before anybody asks.
#[tokio::test]
async fn a_log_that_lost_its_end_is_read_anew() {
    let texts = |page: &RevocationPage| -> Vec<String> {
        page.entries.iter().map(ToString::to_string).collect()
    };
    let store = MemoryRegistry::default();
    let revoke = async |entry: &str| {
        let revocation = Revocation {
            entry: entry.into(),
            ttl: Duration::from_secs(3_600),
        };
        store.revoke(&revocation).await.unwrap();
    };
    revoke("one").await;
    let replica = store.snapshot();
    revoke("lost").await;
    let read = store.revocations(&RevocationCursor::default()).await;
    let read = read.unwrap();
    assert_eq!(texts(&read), ["one", "lost"]);
    store.restore(replica);
    revoke("in its place").await;
    let again = store.revocations(&read.cursor).await.unwrap();
    assert!(again.reset);
    assert_eq!(texts(&again), ["one", "in its place"]);
    let next = store.revocations(&again.cursor).await.unwrap();
    assert!(!next.reset && next.entries.is_empty());
}
