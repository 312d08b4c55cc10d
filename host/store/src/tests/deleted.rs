//! What was deleted.

use super::*;

#[test]
fn a_deleted_endpoint_stays_deleted_until_it_is_forgotten() {
    let store = Store::in_memory().unwrap();
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();
    assert_eq!(delete(&store, "1", "b", 0), None, "another's");
    assert!(store.endpoint_by_id("1").unwrap().is_some());
    assert!(delete(&store, "1", "a", 0).is_some());
    // Also one whose name is over.
    assert_eq!(delete(&store, "lapsed", "a", 0), None);
    for id in ["1", "lapsed"] {
        let back = claim(&store, &endpoint(id, "shop", "a"), true, 0).unwrap_err();
        assert!(matches!(back, ClaimRefused::Deleted), "{back}");
    }
    assert_eq!(store.forget_deleted(99, 10).unwrap(), 0);
    assert!(store.is_deleted("a", "1").unwrap());
    assert_eq!(store.forget_deleted(100, 10).unwrap(), 2);
    assert!(!store.is_deleted("a", "1").unwrap());
}

#[test]
fn who_makes_and_deletes_without_end_shuts_out_himself_only() {
    let store = Store::in_memory().unwrap();
    let from = |id: &str, source: &str| {
        let mut endpoint = endpoint(id, &format!("n{id}"), "public");
        endpoint.source = source.to_owned();
        endpoint
    };
    for id in ["1", "2", "3", "4"] {
        claim(&store, &from(id, "192.0.2.1"), false, 0).unwrap();
        assert!(delete(&store, id, "public", 0).is_some());
    }
    let churned = claim(&store, &from("5", "192.0.2.1"), false, 0).unwrap_err();
    assert!(matches!(churned, ClaimRefused::ManyDeleted), "{churned}");
    claim(&store, &from("6", "192.0.2.2"), false, 0).unwrap();
    claim(&store, &from("7", "192.0.2.2"), false, 0).unwrap();
    let full = claim(&store, &from("8", "192.0.2.3"), false, 0).unwrap_err();
    assert!(matches!(full, ClaimRefused::ManyDeleted), "{full}");
    // What is there can always be deleted; what is not there has no room.
    let lapsed = Deletion {
        id: "9".to_owned(),
        tenant: "public".to_owned(),
        until_ms: 100,
    };
    let refused = store.delete_endpoint(&lapsed, 0, LIMITS).unwrap_err();
    assert!(matches!(refused, DeleteRefused::Full { .. }), "{refused}");
    assert!(delete(&store, "6", "public", 0).is_some());
    // Nobody else notices, agents with tokens least of all.
    let mut other = endpoint("a", "na", "acme");
    other.token_id = Some("t".to_owned());
    claim(&store, &other, false, 0).unwrap();
    assert!(store.admit_endpoint("a", "t", 50).unwrap().is_some());
    assert!(delete(&store, "a", "acme", 0).is_some());
    claim(&store, &from("5", "192.0.2.1"), false, 100).unwrap_err();
    store.forget_deleted(100, 100).unwrap();
    claim(&store, &from("5", "192.0.2.1"), false, 100).unwrap();
}
