//! Names that are kept for a tenant.

use super::*;

#[test]
fn a_reserved_name_is_only_for_its_tenant() {
    let store = Store::in_memory().unwrap();
    let reservation = |name: &str, tenant: &str| Reservation {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        made_by: "ops".to_owned(),
        made_ms: 0,
    };
    let limits = NameLimits {
        per_tenant: 1,
        total: 2,
    };
    let reserve =
        |wanted: &Reservation, now_ms| store.reserve(wanted, now_ms, limits, nobody_is_here);
    reserve(&reservation("shop", "a"), 0).unwrap();
    reserve(&reservation("shop", "a"), 0).unwrap();
    let quota = reserve(&reservation("other", "a"), 0).unwrap_err();
    assert!(
        matches!(quota, ReserveRefused::Quota { limit: 1 }),
        "{quota}"
    );
    reserve(&reservation("other", "c"), 0).unwrap();
    let full = reserve(&reservation("more", "b"), 0).unwrap_err();
    assert!(matches!(full, ReserveRefused::Full { limit: 2 }), "{full}");
    let taken = reserve(&reservation("shop", "b"), 0).unwrap_err();
    assert!(matches!(taken, ReserveRefused::Taken { .. }), "{taken}");

    let refused = claim(&store, &endpoint("1", "shop", "b"), false, 0).unwrap_err();
    assert!(
        matches!(refused, ClaimRefused::Reserved { .. }),
        "{refused}"
    );
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();

    assert!(!store.release("shop", "b").unwrap());
    assert!(store.release("shop", "a").unwrap());
    assert!(!store.release("shop", "a").unwrap());
    // Who publishes a name keeps others from reserving it.
    let held = reserve(&reservation("shop", "b"), 0).unwrap_err();
    assert!(matches!(held, ReserveRefused::Taken { .. }), "{held}");
    reserve(&reservation("shop", "b"), 100).unwrap();
    assert_eq!(store.reservations(Some("b"), None, 9).unwrap().len(), 1);
}
