//! Public ports.

use super::*;

const RANGE: PortRange = PortRange {
    first: 20_000,
    last: 20_002,
};

fn with_port(id: &str, port: u16) -> Endpoint {
    Endpoint {
        port: Some(port),
        ..endpoint(id, &format!("n{id}"), "a")
    }
}

#[test]
fn a_port_is_one_endpoints_as_long_as_its_name() {
    let store = Store::in_memory().unwrap();
    let choice = store.port_for(RANGE, "1").unwrap().unwrap();
    claim(&store, &with_port("1", choice), false, 0).unwrap();
    assert_eq!(store.port_for(RANGE, "1").unwrap(), Some(choice));
    // Somebody has chosen the same at the same time.
    let late = claim(&store, &with_port("2", choice), false, 0).unwrap_err();
    assert!(matches!(late, ClaimRefused::Overtaken), "{late}");
    for id in ["2", "3"] {
        let port = store.port_for(RANGE, id).unwrap().unwrap();
        assert_ne!(port, choice);
        claim(&store, &with_port(id, port), false, 0).unwrap();
    }
    assert_eq!(store.port_for(RANGE, "4").unwrap(), None);
    // The same again keeps it.
    claim(&store, &with_port("1", choice), true, 0).unwrap();
    assert!(delete(&store, "1", "a", 0).is_some());
    assert_eq!(store.port_for(RANGE, "4").unwrap(), Some(choice));
}

#[test]
fn who_comes_back_gets_the_same_port_while_it_is_free() {
    let store = Store::in_memory().unwrap();
    let choice = store.port_for(RANGE, "1").unwrap().unwrap();
    claim(&store, &with_port("1", choice), false, 0).unwrap();
    let round = Round {
        now_ms: 200,
        due_ms: 200,
        until_ms: 300,
        limit: 9,
    };
    let over = store.tidy_endpoints(round, None, nobody_is_here).unwrap();
    assert_eq!(over.gone.len(), 1);
    assert_eq!(store.port_for(RANGE, "1").unwrap(), Some(choice));
}

#[test]
fn a_port_of_a_range_before_is_given_up_for_one_of_todays() {
    let store = Store::in_memory().unwrap();
    claim(&store, &with_port("1", 30_000), false, 0).unwrap();
    let port = store.port_for(RANGE, "1").unwrap().unwrap();
    assert!(RANGE.contains(port));
    claim(&store, &with_port("1", port), true, 0).unwrap();
    let before = PortRange {
        first: 30_000,
        last: 30_000,
    };
    assert_eq!(store.port_for(before, "2").unwrap(), Some(30_000));
}

#[test]
fn every_port_of_a_range_is_somebodys_choice() {
    let all = PortRange {
        first: 1,
        last: u16::MAX,
    };
    assert_eq!((RANGE.count(), all.count()), (3, 65_535));
    let store = Store::in_memory().unwrap();
    let chosen: std::collections::BTreeSet<u16> = (0..100)
        .map(|id| {
            store
                .port_for(RANGE, &format!("tun_{id}"))
                .unwrap()
                .unwrap()
        })
        .collect();
    assert_eq!(chosen.len(), 3);
}
