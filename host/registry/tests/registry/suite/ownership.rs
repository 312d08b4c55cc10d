use std::collections::BTreeSet;

use futures_util::future::join_all;
use nowconnect_registry::limits::{MAX_COUNTER, MAX_FIRST_WITNESS, MAX_LEAP};
use nowconnect_registry::{ClaimLost, ClaimRequest, Granted, Ownership, RegistryError};

use super::Subject;
use crate::names::{agent, connector, epoch, offer, provisional, replica, request};
use crate::wait::eventually;

pub(super) async fn epochs_rise_whoever_claims(subject: &Subject) {
    let plant = agent("default", "rising");
    let mut last = None;
    for by in ["hub-b", "hub-a", "hub-a", "hub-c", "hub-b"] {
        let granted = subject
            .here
            .claim_ownership(&request(&plant, by, None))
            .await
            .unwrap();
        assert_eq!(granted.epoch.replica, replica(by));
        assert_eq!(granted.previous, last);
        let now = Ownership {
            owner: replica(by),
            epoch: granted.epoch.clone(),
        };
        if let Some(Ownership { epoch, .. }) = &last {
            assert!(granted.epoch.counter > epoch.counter);
        }
        assert_eq!(
            subject.there.get_owner(&plant).await.unwrap(),
            Some(now.clone()),
            "another hub sees another owner"
        );
        last = Some(now);
    }
}

pub(super) async fn the_agent_is_a_witness(subject: &Subject) {
    let plant = agent("default", "witness");
    let claim = request(&plant, "hub-a", Some(&epoch(1_000_000, "hub-z")));
    let first = subject.here.claim_ownership(&claim).await.unwrap().epoch;
    assert!(first > epoch(1_000_000, "hub-z"));
    // A witness of less than what is stored changes nothing.
    let claim = request(&plant, "hub-a", Some(&epoch(5, "hub-z")));
    let second = subject.here.claim_ownership(&claim).await.unwrap().epoch;
    assert!(second > first);
}

pub(super) async fn epochs_have_an_end(subject: &Subject) {
    let plant = agent("default", "spent");
    let spent = |error| {
        assert!(
            matches!(error, RegistryError::CounterSpent { limit, .. } if limit == MAX_COUNTER),
            "{error:?}"
        );
    };
    for counter in [MAX_COUNTER, u64::MAX] {
        let claim = request(&plant, "hub-a", Some(&epoch(counter, "hub-a")));
        spent(subject.here.claim_ownership(&claim).await.unwrap_err());
    }
    let claim = request(&plant, "hub-a", Some(&epoch(MAX_COUNTER - 1, "hub-a")));
    let last = subject.here.claim_ownership(&claim).await.unwrap().epoch;
    assert_eq!(last, epoch(MAX_COUNTER, "hub-a"));
    subject.there.renew(&plant, &last).await.unwrap();
    let claim = request(&plant, "hub-b", None);
    spent(subject.here.claim_ownership(&claim).await.unwrap_err());
}

pub(super) async fn only_the_holder_changes_a_record(subject: &Subject) {
    let plant = agent("default", "fenced");
    let here = &subject.here;
    let first = here
        .claim_ownership(&request(&plant, "hub-a", None))
        .await
        .unwrap()
        .epoch;
    let second = here
        .claim_ownership(&request(&plant, "hub-b", None))
        .await
        .unwrap()
        .epoch;
    let kept = offer(&["fenced-ldap"], "kept");
    here.add_connectors(&plant, &second, &kept).await.unwrap();

    let stale = offer(&["fenced-ssh"], "stale");
    for error in [
        here.renew(&plant, &first).await.unwrap_err(),
        here.add_connectors(&plant, &first, &stale)
            .await
            .unwrap_err(),
        here.release(&plant, &first).await.unwrap_err(),
        here.publish_claim(&provisional(&plant, &first))
            .await
            .unwrap_err(),
    ] {
        assert!(error.is_epoch_lost());
        let overtaken = ClaimLost::Overtaken {
            current: second.clone(),
        };
        assert!(
            matches!(&error, RegistryError::Lost { why, .. } if *why == overtaken),
            "{error:?}"
        );
    }
    // One that was never given is not taken either, though it is above: only a publication is.
    let invented = epoch(second.counter + 1, "hub-b");
    assert!(here.renew(&plant, &invented).await.is_err());
    assert!(here.release(&plant, &invented).await.is_err());
    let found = here
        .list_agents(&connector("default", "fenced-ldap"))
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].epoch, &found[0].offer), (&second, &kept));
    let stale = connector("default", "fenced-ssh");
    assert_eq!(here.list_agents(&stale).await.unwrap(), []);
}

pub(super) async fn what_was_released_stays_released(subject: &Subject) {
    let plant = agent("default", "released");
    let here = &subject.here;
    let claim = request(&plant, "hub-a", None);
    let first = here.claim_ownership(&claim).await.unwrap().epoch;
    here.add_connectors(&plant, &first, &offer(&["released-ldap"], ""))
        .await
        .unwrap();
    here.release(&plant, &first).await.unwrap();
    assert_eq!(subject.there.get_owner(&plant).await.unwrap(), None);
    let name = connector("default", "released-ldap");
    assert_eq!(here.list_agents(&name).await.unwrap(), []);
    for error in [
        here.renew(&plant, &first).await.unwrap_err(),
        here.release(&plant, &first).await.unwrap_err(),
    ] {
        assert!(
            matches!(
                error,
                RegistryError::Lost {
                    why: ClaimLost::Released,
                    ..
                }
            ),
            "{error:?}"
        );
    }
    let granted = here.claim_ownership(&claim).await.unwrap();
    assert!(granted.epoch > first, "a release forgot the epoch");
    assert_eq!(granted.previous, None);
}

/// A hub leaves the registry and joins it again with what it has.
pub(super) async fn its_holder_takes_up_what_it_released(subject: &Subject) {
    let plant = agent("default", "taken-up");
    let here = &subject.here;
    let claim = request(&plant, "hub-a", None);
    let first = here.claim_ownership(&claim).await.unwrap().epoch;
    here.release(&plant, &first).await.unwrap();
    let again = provisional(&plant, &first);
    here.publish_claim(&again).await.unwrap();
    let owner = subject.there.get_owner(&plant).await.unwrap().unwrap();
    assert_eq!(owner.epoch, first);
    here.renew(&plant, &first).await.unwrap();
    // Not once somebody else has the agent.
    here.release(&plant, &first).await.unwrap();
    let other = request(&plant, "hub-b", None);
    let second = here.claim_ownership(&other).await.unwrap().epoch;
    let late = here.publish_claim(&again).await.unwrap_err();
    assert!(late.is_epoch_lost(), "{late:?}");
    let owner = here.get_owner(&plant).await.unwrap().unwrap();
    assert_eq!(owner.epoch, second);
}

/// Whoever has an agent's token for a moment cannot use its counter up.
pub(super) async fn a_word_far_above_what_is_known_changes_nothing(subject: &Subject) {
    let plant = agent("default", "leapt");
    let here = &subject.here;
    let said = |counter: u64| ClaimRequest {
        leap: Some(MAX_LEAP),
        ..request(&plant, "hub-a", Some(&epoch(counter, "hub-z")))
    };
    let refused = |outcome: Result<Granted, RegistryError>| {
        assert!(
            matches!(outcome, Err(RegistryError::CounterSpent { .. })),
            "{outcome:?}"
        );
    };
    refused(here.claim_ownership(&said(MAX_FIRST_WITNESS + 1)).await);
    let first = here.claim_ownership(&said(7)).await.unwrap().epoch;
    assert_eq!(first.counter, 8);
    refused(here.claim_ownership(&said(8 + MAX_LEAP + 1)).await);
    refused(here.claim_ownership(&said(MAX_COUNTER - 1)).await);
    let second = here.claim_ownership(&said(8)).await.unwrap().epoch;
    assert_eq!(second.counter, 9, "a refused word was remembered");
    let far = here.claim_ownership(&said(9 + MAX_LEAP)).await.unwrap();
    assert_eq!(far.epoch.counter, 10 + MAX_LEAP);
}

pub(super) async fn a_lease_ends_and_can_be_taken_up_again(subject: &Subject) {
    let plant = agent("default", "leased");
    let claim = request(&plant, "hub-a", None);
    let first = subject.brief.claim_ownership(&claim).await.unwrap().epoch;
    eventually("the lease ends", async || {
        let owner = subject.here.get_owner(&plant).await.unwrap();
        owner.is_none().then_some(())
    })
    .await;
    // A hub that was only slow is not overtaken by nobody.
    subject.here.renew(&plant, &first).await.unwrap();
    let owner = subject.there.get_owner(&plant).await.unwrap().unwrap();
    assert_eq!(owner.epoch, first);
    let second = subject
        .there
        .claim_ownership(&request(&plant, "hub-b", None))
        .await
        .unwrap()
        .epoch;
    assert!(second > first);
    assert!(subject.here.renew(&plant, &first).await.is_err());
}

pub(super) async fn claims_at_once_are_all_different(subject: &Subject) {
    const CLAIMS: usize = 64;
    let plant = agent("default", "contended");
    let claims = (0..CLAIMS).map(|n| {
        let registry = [&subject.here, &subject.there][n % 2];
        let claim = request(&plant, ["hub-a", "hub-b"][n % 2], None);
        async move { registry.claim_ownership(&claim).await.unwrap().epoch }
    });
    let given: BTreeSet<_> = join_all(claims).await.into_iter().collect();
    assert_eq!(given.len(), CLAIMS);
    let counters: BTreeSet<_> = given.iter().map(|epoch| epoch.counter).collect();
    assert_eq!(counters.len(), CLAIMS, "a counter was given twice");
    let owner = subject.here.get_owner(&plant).await.unwrap().unwrap();
    assert_eq!(Some(&owner.epoch), given.last());
}

pub(super) async fn the_higher_of_two_provisional_claims_stays(subject: &Subject) {
    for (name, order) in [("up", [4, 9]), ("down", [9, 4])] {
        let plant = agent("default", &format!("provisional-{name}"));
        let mut outcomes = Vec::new();
        for counter in order {
            let by = if counter == 9 { "hub-a" } else { "hub-b" };
            let claim = provisional(&plant, &epoch(counter, by));
            outcomes.push(subject.here.publish_claim(&claim).await.is_ok());
        }
        assert_eq!(outcomes, [true, name == "up"]);
        let owner = subject.there.get_owner(&plant).await.unwrap().unwrap();
        assert_eq!(owner.epoch, epoch(9, "hub-a"));
        let lower = epoch(4, "hub-b");
        let error = subject.here.renew(&plant, &lower).await.unwrap_err();
        assert!(error.is_epoch_lost(), "the lower claim goes on: {error:?}");
        let next = request(&plant, "hub-b", None);
        let next = subject.here.claim_ownership(&next).await.unwrap().epoch;
        assert!(next > epoch(9, "hub-a"));
    }
}

/// Not as words are sorted, where `a` comes before `Z`.
pub(super) async fn equal_counters_are_ordered_by_the_bytes_of_the_replica(subject: &Subject) {
    for (n, (low, high)) in [
        ("Z", "a"),
        ("hub-10", "hub-9"),
        ("hub", "hub-1"),
        ("A_", "Aa"),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(epoch(7, low) < epoch(7, high));
        let plant = agent("default", &format!("order-{n}"));
        let publish = async |by: &str| {
            let claim = provisional(&plant, &epoch(7, by));
            subject.here.publish_claim(&claim).await.is_ok()
        };
        assert!(publish(low).await);
        assert!(publish(high).await, "`{high}` is not above `{low}`");
        assert!(!publish(low).await, "`{low}` is above `{high}`");
    }
}

pub(super) async fn publishing_twice_changes_nothing(subject: &Subject) {
    let plant = agent("default", "twice");
    let claim = provisional(&plant, &epoch(3, "hub-a"));
    subject.here.publish_claim(&claim).await.unwrap();
    let offered = offer(&["twice-ldap"], "facts");
    subject
        .here
        .add_connectors(&plant, &claim.epoch, &offered)
        .await
        .unwrap();
    subject.there.publish_claim(&claim).await.unwrap();
    let name = connector("default", "twice-ldap");
    let found = subject.there.list_agents(&name).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].offer, offered);
    // One that is above starts with nothing offered.
    let above = provisional(&plant, &epoch(4, "hub-b"));
    subject.there.publish_claim(&above).await.unwrap();
    assert_eq!(subject.here.list_agents(&name).await.unwrap(), []);
}
