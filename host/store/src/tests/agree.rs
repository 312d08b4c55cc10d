//! Whatever is done in whatever order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What a caller may do, small enough that collisions are the rule.
#[derive(Clone, Debug)]
enum Step {
    Claim {
        id: u8,
        name: u8,
        tenant: u8,
        again: bool,
    },
    Remove {
        id: u8,
    },
    /// Whoever's id is not above it is here.
    Tidy {
        here: u8,
    },
    Renew,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6u8, 0..4u8, 0..2u8, any::<bool>())
            .prop_map(|(id, name, tenant, again)| Step::Claim { id, name, tenant, again }),
        1 => (0..6u8).prop_map(|id| Step::Remove { id }),
        2 => (0..6u8).prop_map(|here| Step::Tidy { here }),
        1 => Just(Step::Renew),
        1 => (0..60u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done: ids and names lead to each other, and the counts are those of what is
    /// there.
    #[test]
    fn names_ids_and_counts_agree(steps in steps()) {
        let store = Store::in_memory().unwrap();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Claim { id, name, tenant, again } => {
                    let mut wanted =
                        endpoint(&id.to_string(), &format!("n{name}"), &format!("t{tenant}"));
                    wanted.kept_until_ms = now + 50;
                    let _ = claim(&store, &wanted, again, now);
                }
                Step::Remove { id } => {
                    for tenant in ["t0", "t1"] {
                        let deletion = Deletion {
                            id: id.to_string(),
                            tenant: tenant.to_owned(),
                            until_ms: now + 30,
                        };
                        let _ = store.delete_endpoint(&deletion, now, LIMITS);
                    }
                }
                Step::Tidy { here } => {
                    let round = Round { now_ms: now, due_ms: now + 20, until_ms: now + 40, limit: 2 };
                    let is_here = |one: &Endpoint| one.id <= here.to_string();
                    store.tidy_endpoints(round, None, is_here).unwrap();
                    store.forget_deleted(now, 2).unwrap();
                }
                Step::Renew => store.renew_endpoints(now + 10, now + 60).unwrap(),
                Step::Wait(ms) => now += ms,
            }
            let all = store.endpoints(&EndpointFilter::default(), 100).unwrap();
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for endpoint in &all {
                let found = store.endpoint_by_id(&endpoint.id).unwrap();
                prop_assert_eq!(found.as_ref(), Some(endpoint));
                *counts.entry(endpoint.tenant.clone()).or_default() += 1;
            }
            for tenant in ["t0", "t1"] {
                let filter = EndpointFilter { tenant: Some(tenant.to_owned()), after: None };
                let theirs = store.endpoints(&filter, 100).unwrap();
                let expected: Vec<_> =
                    all.iter().filter(|one| one.tenant == tenant).cloned().collect();
                prop_assert_eq!(theirs, expected);
            }
            let (mut marks, mut ids, mut remembered) = (0, 0, 0);
            let mut ends: Vec<(u64, String)> = Vec::new();
            store.read(|transaction| {
                schema::ENDPOINT_ENDS.each(transaction, None, |at, name: String| {
                    ends.push((at[..20].parse().unwrap(), name));
                    true
                })?;
                schema::TENANTS.each(transaction, None, |tenant, has: endpoint::Has| {
                    assert_eq!(has.endpoints, counts.remove(tenant).unwrap_or_default());
                    remembered += has.deleted;
                    true
                })?;
                schema::DELETED.each(transaction, None, |_, _: serde_json::Value| {
                    marks += 1;
                    true
                })?;
                schema::ENDPOINT_IDS.each(transaction, None, |_, _: String| {
                    ids += 1;
                    true
                })
            }).unwrap();
            let mut kept: Vec<_> =
                all.iter().map(|one| (one.kept_until_ms, one.name.clone())).collect();
            kept.sort_unstable();
            prop_assert_eq!(ends, kept);
            prop_assert!(counts.is_empty());
            prop_assert_eq!((ids, marks), (all.len(), remembered));
        }
    }
}
