//! How much a tenant may have.

use super::*;

fn quota(tenant: &str, endpoints: Option<u64>, names: Option<u64>) -> Quota {
    Quota {
        tenant: tenant.to_owned(),
        endpoints,
        names,
        made_by: "acme/billing".to_owned(),
        made_ms: 5,
    }
}

#[test]
fn a_tenants_own_quota_counts_instead_of_everybodys() {
    let store = Store::in_memory().unwrap();
    store.put_quota(&quota("a", Some(1), Some(0))).unwrap();
    store.put_quota(&quota("b", Some(4), None)).unwrap();
    claim(&store, &endpoint("1", "n1", "a"), false, 0).unwrap();
    let refused = claim(&store, &endpoint("2", "n2", "a"), false, 0).unwrap_err();
    assert!(
        matches!(refused, ClaimRefused::Quota { limit: 1 }),
        "{refused}"
    );
    for id in ["3", "4", "5", "6"] {
        claim(&store, &endpoint(id, &format!("n{id}"), "b"), false, 0).unwrap();
    }
    let reservation = Reservation {
        name: "shop".to_owned(),
        tenant: "a".to_owned(),
        made_by: String::new(),
        made_ms: 0,
    };
    let limits = NameLimits {
        per_tenant: 3,
        total: 3,
    };
    let reserve = || store.reserve(&reservation, 0, limits, nobody_is_here);
    let none = reserve().unwrap_err();
    assert!(matches!(none, ReserveRefused::Quota { limit: 0 }), "{none}");
    // A smaller one takes away nothing that is there.
    store.put_quota(&quota("b", Some(2), None)).unwrap();
    let (own, usage) = store.quota("b").unwrap();
    assert_eq!(own.unwrap().endpoints, Some(2));
    assert_eq!((usage.endpoints, usage.names), (4, 0));
    assert!(store.remove_quota("a").unwrap());
    assert!(!store.remove_quota("a").unwrap());
    reserve().unwrap();
    assert_eq!(store.quota("a").unwrap().0, None);
    assert_eq!(store.quota("a").unwrap().1.names, 1);
}

#[test]
fn quotas_are_in_pages_and_in_backups() {
    let folder = Folder::new();
    let (path, copy) = (folder.path("a"), folder.path("b"));
    let store = Store::open(&path).unwrap();
    for tenant in ["acme", "globex", "initech"] {
        store.put_quota(&quota(tenant, Some(7), None)).unwrap();
    }
    store.backup(&copy).unwrap();
    store.remove_quota("globex").unwrap();
    drop(store);
    Store::restore(&copy, &path).unwrap();
    let store = Store::open(&path).unwrap();
    let tenants = |after: Option<&str>| -> Vec<String> {
        let page = store.quotas(after, 2).unwrap();
        page.into_iter().map(|(quota, _)| quota.tenant).collect()
    };
    assert_eq!(tenants(None), ["acme", "globex"]);
    assert_eq!(tenants(Some("globex")), ["initech"]);
    assert_eq!(
        store.quota("acme").unwrap().0,
        Some(quota("acme", Some(7), None))
    );
}
