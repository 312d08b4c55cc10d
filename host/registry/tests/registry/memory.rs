//! The suite over the store in this process.

use std::sync::Arc;
use std::time::Duration;

use nowconnect_registry::{MemoryRegistry, RegistryError, Unavailable};

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
