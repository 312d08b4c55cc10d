//! Names and who has them.

use super::*;

#[test]
fn a_name_is_one_endpoints_until_its_time_is_over() {
    let store = Store::in_memory().unwrap();
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();
    let refused = claim(&store, &endpoint("2", "shop", "a"), false, 99).unwrap_err();
    assert!(matches!(refused, ClaimRefused::Taken { .. }), "{refused}");
    // Another tenant that says "again" has not the same endpoint.
    let foreign = claim(&store, &endpoint("1", "shop", "b"), true, 99).unwrap_err();
    assert!(matches!(foreign, ClaimRefused::Taken { .. }), "{foreign}");

    let mut later = endpoint("1", "shop", "a");
    later.kept_until_ms = 150;
    claim(&store, &later, true, 99).unwrap();
    assert_eq!(store.endpoint("shop").unwrap().unwrap(), later);

    claim(&store, &endpoint("2", "shop", "b"), false, 150).unwrap();
    assert_eq!(store.endpoint_by_id("1").unwrap(), None);
    assert_eq!(store.endpoint_by_id("2").unwrap().unwrap().tenant, "b");
}

#[test]
fn quotas_count_what_is_there_and_nothing_else() {
    let store = Store::in_memory().unwrap();
    for id in ["1", "2", "3"] {
        claim(&store, &endpoint(id, &format!("n{id}"), "a"), false, 0).unwrap();
    }
    let refused = claim(&store, &endpoint("4", "n4", "a"), false, 0).unwrap_err();
    assert!(
        matches!(refused, ClaimRefused::Quota { limit: 3 }),
        "{refused}"
    );
    // The same one again takes no more room.
    claim(&store, &endpoint("3", "n3", "a"), true, 0).unwrap();
    for id in ["5", "6"] {
        claim(&store, &endpoint(id, &format!("n{id}"), "b"), false, 0).unwrap();
    }
    let full = claim(&store, &endpoint("7", "n7", "b"), false, 0).unwrap_err();
    assert!(matches!(full, ClaimRefused::Full { limit: 5 }), "{full}");
    assert!(delete(&store, "1", "a", 0).is_some());
    assert_eq!(delete(&store, "1", "a", 0), None);
    claim(&store, &endpoint("4", "n4", "a"), false, 0).unwrap();
}

#[test]
fn the_same_endpoint_again_keeps_its_past() {
    let store = Store::in_memory().unwrap();
    let mut first = endpoint("1", "shop", "a");
    first.made_ms = 5;
    first.token_id = Some("t".to_owned());
    claim(&store, &first, false, 5).unwrap();
    store.admit_endpoint("1", "t", 9_000).unwrap().unwrap();
    let mut later = endpoint("1", "shop", "a");
    (later.made_ms, later.kept_until_ms) = (50, 150);
    claim(&store, &later, true, 50).unwrap();
    let kept = store.endpoint("shop").unwrap().unwrap();
    assert_eq!((kept.made_ms, kept.was_held), (5, true));
    assert_eq!(kept.kept_until_ms, 9_000, "no less than was promised");
}

#[test]
fn what_was_decided_on_fewer_others_is_decided_anew() {
    let store = Store::in_memory().unwrap();
    let one = endpoint("1", "n1", "a");
    assert_eq!(store.others_of_maker(&one).unwrap(), 0);
    let new = |id: &str, others| NewEndpoint {
        others: Some(others),
        ..new_endpoint(&endpoint(id, &format!("n{id}"), "a"), false)
    };
    let claim_of = |new: &NewEndpoint| store.claim_endpoint(new, 0, LIMITS, nobody_is_here, None);
    claim_of(&new("1", 0)).unwrap();
    assert_eq!(store.others_of_maker(&one).unwrap(), 0, "not itself");
    let raced = claim_of(&new("2", 0)).unwrap_err();
    assert!(matches!(raced, ClaimRefused::Overtaken), "{raced}");
    assert_eq!(store.others_of_maker(&endpoint("2", "n2", "a")).unwrap(), 1);
    claim_of(&new("2", 1)).unwrap();
    // Another maker of the tenant counts for itself.
    let mut theirs = endpoint("3", "n3", "a");
    theirs.made_by = "ops".to_owned();
    assert_eq!(store.others_of_maker(&theirs).unwrap(), 0);
}

#[test]
fn a_tenants_list_is_in_pages_and_its_own() {
    let store = Store::in_memory().unwrap();
    for (id, tenant) in [("1", "a"), ("2", "ab"), ("3", "a")] {
        claim(&store, &endpoint(id, &format!("n{id}"), tenant), false, 0).unwrap();
    }
    let page = |after: Option<&str>| -> Vec<String> {
        let filter = EndpointFilter {
            tenant: Some("a".to_owned()),
            after: after.map(str::to_owned),
        };
        let found = store.endpoints(&filter, 1).unwrap();
        found.into_iter().map(|endpoint| endpoint.name).collect()
    };
    assert_eq!(page(None), ["n1"]);
    assert_eq!(page(Some("n1")), ["n3"]);
    assert_eq!(page(Some("n3")), Vec::<String>::new());
}
