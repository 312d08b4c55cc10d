use nowconnect_registry::limits::{MAX_CONNECTORS, MAX_FACTS_BYTES};
use nowconnect_registry::{AgentPresence, Epoch, Offer, Registry, SweepCursor};

use super::Subject;
use crate::names::{agent, connector, offer, replica, request};
use crate::wait::eventually;

pub(super) async fn agents_are_listed_by_what_they_offer_now(subject: &Subject) {
    let here = &subject.here;
    for id in ["list-2", "list-1", "list-3"] {
        offered(&**here, "default", id, &["list-ldap"]).await;
    }
    assert_eq!(
        listed(subject, "default", "list-ldap").await,
        ["list-1", "list-2", "list-3"]
    );
    let second = offered(&**here, "default", "list-2", &["list-ldap", "list-ssh"]).await;
    assert_eq!(listed(subject, "default", "list-ssh").await, ["list-2"]);

    // An offer replaces the one before, facts included.
    let plant = agent("default", "list-2");
    let changed = offer(&["list-ssh"], "r\u{e9}sum\u{e9} {}");
    here.add_connectors(&plant, &second, &changed)
        .await
        .unwrap();
    assert_eq!(
        listed(subject, "default", "list-ldap").await,
        ["list-1", "list-3"]
    );
    let name = connector("default", "list-ssh");
    assert_eq!(
        subject.there.list_agents(&name).await.unwrap(),
        [AgentPresence {
            key: plant.clone(),
            owner: replica("hub-a"),
            epoch: second.clone(),
            offer: changed,
        }]
    );
    here.add_connectors(&plant, &second, &Offer::default())
        .await
        .unwrap();
    assert!(listed(subject, "default", "list-ssh").await.is_empty());
}

pub(super) async fn a_claim_offers_nothing_until_it_says_so(subject: &Subject) {
    offered(&*subject.here, "default", "silent", &["silent-ldap"]).await;
    assert_eq!(listed(subject, "default", "silent-ldap").await, ["silent"]);
    let plant = agent("default", "silent");
    let claim = request(&plant, "hub-b", None);
    subject.there.claim_ownership(&claim).await.unwrap();
    assert!(listed(subject, "default", "silent-ldap").await.is_empty());
}

pub(super) async fn tenants_are_apart(subject: &Subject) {
    offered(&*subject.here, "acme", "shared-id", &["tenant-ldap"]).await;
    offered(&*subject.here, "default", "shared-id", &["tenant-ssh"]).await;
    assert_eq!(listed(subject, "acme", "tenant-ldap").await, ["shared-id"]);
    assert!(listed(subject, "default", "tenant-ldap").await.is_empty());
    assert!(listed(subject, "acme", "tenant-ssh").await.is_empty());
}

pub(super) async fn an_agent_may_offer_as_much_as_the_bound_allows(subject: &Subject) {
    let names: Vec<_> = (0..MAX_CONNECTORS).map(|n| format!("wide-{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let plant = agent("default", "wide");
    let claim = request(&plant, "hub-a", None);
    let epoch = subject.here.claim_ownership(&claim).await.unwrap().epoch;
    let wide = offer(&names, &"x".repeat(MAX_FACTS_BYTES));
    subject
        .here
        .add_connectors(&plant, &epoch, &wide)
        .await
        .unwrap();
    let name = connector("default", "wide-1023");
    let found = subject.there.list_agents(&name).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].offer, wide);
    subject.here.release(&plant, &epoch).await.unwrap();
    assert!(listed(subject, "default", "wide-0").await.is_empty());
}

pub(super) async fn an_agent_whose_lease_ended_is_not_listed(subject: &Subject) {
    offered(&*subject.brief, "default", "ended", &["ended-ldap"]).await;
    eventually("the agent is listed no more", async || {
        let found = listed(subject, "default", "ended-ldap").await;
        found.is_empty().then_some(())
    })
    .await;
}

pub(super) async fn a_sweep_leaves_what_is_offered(subject: &Subject) {
    offered(&*subject.brief, "default", "swept-1", &["swept-ldap"]).await;
    let lives = offered(&*subject.here, "default", "swept-2", &["swept-ldap"]).await;
    eventually("the lease ends", async || {
        (listed(subject, "default", "swept-ldap").await == ["swept-2"]).then_some(())
    })
    .await;
    // Both at once, and again.
    for _ in 0..2 {
        let (one, other) = tokio::join!(sweep(&*subject.here), sweep(&*subject.there));
        assert!(one.checked >= one.removed && other.checked >= other.removed);
    }
    assert_eq!(listed(subject, "default", "swept-ldap").await, ["swept-2"]);
    // Its entry can go and come as before.
    let plant = agent("default", "swept-2");
    let here = &subject.here;
    for connectors in [&[][..], &["swept-ldap"][..]] {
        here.add_connectors(&plant, &lives, &offer(connectors, ""))
            .await
            .unwrap();
        sweep(&**here).await;
        assert_eq!(
            listed(subject, "default", "swept-ldap").await.len(),
            connectors.len()
        );
    }
}

/// A whole round of sweeping.
pub(crate) async fn sweep(registry: &dyn Registry) -> nowconnect_registry::SweepReport {
    let mut whole = nowconnect_registry::SweepReport::default();
    loop {
        let step = registry.sweep(whole.next, 100).await.unwrap();
        whole.checked += step.checked;
        whole.removed += step.removed;
        whole.next = step.next;
        if whole.next == SweepCursor::default() {
            return whole;
        }
    }
}

/// An agent that offers something at `hub-a`.
pub(crate) async fn offered(
    registry: &dyn Registry,
    tenant: &str,
    id: &str,
    connectors: &[&str],
) -> Epoch {
    let plant = agent(tenant, id);
    let claim = request(&plant, "hub-a", None);
    let epoch = registry.claim_ownership(&claim).await.unwrap().epoch;
    registry
        .add_connectors(&plant, &epoch, &offer(connectors, ""))
        .await
        .unwrap();
    epoch
}

/// The agents that another hub finds.
async fn listed(subject: &Subject, tenant: &str, name: &str) -> Vec<String> {
    let name = connector(tenant, name);
    let found = subject.there.list_agents(&name).await.unwrap();
    found
        .into_iter()
        .map(|presence| presence.key.agent.as_str().to_owned())
        .collect()
}
