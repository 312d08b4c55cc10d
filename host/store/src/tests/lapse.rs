//! How long names are kept.

use super::*;

#[test]
fn a_name_is_not_free_while_its_agent_is_here_whatever_the_time() {
    let store = Store::in_memory().unwrap();
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();
    let here = |endpoint: &Endpoint| endpoint.id == "1";
    let new = new_endpoint(&endpoint("2", "shop", "b"), false);
    let taken = store.claim_endpoint(&new, 1_000_000, LIMITS, here, None);
    assert!(matches!(taken, Err(ClaimRefused::Taken { .. })));
    let reservation = Reservation {
        name: "shop".to_owned(),
        tenant: "b".to_owned(),
        made_by: String::new(),
        made_ms: 0,
    };
    let limits = NameLimits {
        per_tenant: 1,
        total: 1,
    };
    let held = store
        .reserve(&reservation, 1_000_000, limits, here)
        .unwrap_err();
    assert!(matches!(held, ReserveRefused::Taken { .. }), "{held}");
    store
        .claim_endpoint(&new, 1_000_000, LIMITS, nobody_is_here, None)
        .unwrap();
}

#[test]
fn after_a_time_away_names_that_were_held_wait_for_their_agents() {
    let store = Store::in_memory().unwrap();
    for id in ["held", "new", "ahead"] {
        let mut endpoint = endpoint(id, id, "a");
        endpoint.was_held = id != "new";
        endpoint.kept_until_ms = if id == "ahead" { u64::MAX } else { 100 };
        claim(&store, &endpoint, false, 0).unwrap();
    }
    store.renew_endpoints(5_000, 6_000).unwrap();
    let until = |id| store.endpoint_by_id(id).unwrap().unwrap().kept_until_ms;
    assert_eq!(until("held"), 5_000);
    assert_eq!(until("new"), 100, "nobody has come for this one yet");
    assert_eq!(
        until("ahead"),
        6_000,
        "a clock that was wrong keeps nothing"
    );
}

#[test]
fn a_token_opens_its_endpoint_once() {
    let store = Store::in_memory().unwrap();
    let mut shop = endpoint("1", "shop", "a");
    shop.token_id = Some("t1".to_owned());
    claim(&store, &shop, false, 0).unwrap();
    assert_eq!(store.admit_endpoint("1", "t0", 500).unwrap(), None);
    let admitted = store.admit_endpoint("1", "t1", 500).unwrap().unwrap();
    assert_eq!(
        (admitted.was_held, admitted.kept_until_ms),
        (true, 500),
        "the name is kept in the same step"
    );
    assert_eq!(store.endpoint("shop").unwrap(), Some(admitted));
    assert_eq!(store.admit_endpoint("1", "t1", 500).unwrap(), None);
}

/// Looks at all that is due, two at a time.
fn tidy(store: &Store, now_ms: u64, is_here: impl Fn(&Endpoint) -> bool) -> Vec<String> {
    let round = Round {
        now_ms,
        due_ms: now_ms + 50,
        until_ms: now_ms + 100,
        limit: 2,
    };
    let (mut gone, mut after) = (Vec::new(), None);
    loop {
        let step = store
            .tidy_endpoints(round, after.as_deref(), &is_here)
            .unwrap();
        gone.extend(step.gone.into_iter().map(|endpoint| endpoint.id));
        match step.next {
            Some(next) => after = Some(next),
            None => return gone,
        }
    }
}

#[test]
fn names_of_agents_that_are_here_are_kept_and_others_end_with_their_time() {
    let store = Store::in_memory().unwrap();
    for (id, tenant, until) in [
        ("1", "a", 90),
        ("2", "a", 100),
        ("3", "a", 100),
        ("4", "b", 149),
        ("5", "b", 999),
    ] {
        let mut endpoint = endpoint(id, &format!("n{id}"), tenant);
        endpoint.kept_until_ms = until;
        claim(&store, &endpoint, false, 0).unwrap();
    }
    let here = |endpoint: &Endpoint| ["2", "4", "5"].contains(&endpoint.id.as_str());
    assert_eq!(tidy(&store, 100, here), ["1", "3"]);
    let kept = |id: &str| {
        let endpoint = store.endpoint_by_id(id).unwrap().unwrap();
        (endpoint.kept_until_ms, endpoint.was_held)
    };
    assert_eq!([kept("2"), kept("4")], [(200, true); 2]);
    // For that one it is time enough.
    assert_eq!(kept("5"), (999, false));
    assert_eq!(tidy(&store, 199, nobody_is_here), [""; 0]);
    assert_eq!(tidy(&store, 200, nobody_is_here), ["2", "4"]);
    assert_eq!(tidy(&store, 999, nobody_is_here), ["5"]);
    assert_eq!(tidy(&store, 1_000_000, nobody_is_here), [""; 0]);
}

/// A hub with many names that are kept for long does nothing for them each round.
#[test]
fn what_is_not_due_is_not_looked_at() {
    let store = Store::in_memory().unwrap();
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();
    let asked = std::cell::Cell::new(0);
    let count = |_: &Endpoint| {
        asked.set(asked.get() + 1);
        true
    };
    tidy(&store, 49, count);
    assert_eq!(asked.get(), 0);
    tidy(&store, 50, count);
    assert_eq!(asked.get(), 1);
    // Kept until 150 by now.
    tidy(&store, 99, count);
    assert_eq!(asked.get(), 1);
}

#[test]
fn a_file_of_an_earlier_release_gets_its_names_by_their_ends() {
    let folder = Folder::new();
    let path = folder.path("state");
    let store = Store::open(&path).unwrap();
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();
    store
        .write(|transaction| {
            schema::ENDPOINT_ENDS
                .open(transaction)?
                .remove_end(100, "shop")?;
            schema::set_version(transaction, 3)
        })
        .unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(tidy(&store, 100, nobody_is_here), ["1"]);
    assert_eq!(store.endpoint("shop").unwrap(), None);
}
