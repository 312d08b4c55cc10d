#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;

use nowconnect_protocol::{AgentId, TenantName};

use super::*;

#[test]
fn least_flows_takes_the_idlest_and_leaves_out_the_tried() {
    let router = Router::default();
    let (one, two) = (stub("a1", 1, 3), stub("a2", 2, 1));
    router.attach(Arc::clone(&one), names(&["ldap"]));
    router.attach(Arc::clone(&two), names(&["ldap", "ssh"]));
    let pool = router.pool(&key("default", "ldap")).unwrap();
    assert_eq!(
        pool.pick(Balance::LeastFlows, CLIENT, &[]).unwrap().session,
        2
    );
    assert_eq!(
        pool.pick(Balance::LeastFlows, CLIENT, &[2])
            .unwrap()
            .session,
        1
    );
    assert!(pool.pick(Balance::LeastFlows, CLIENT, &[1, 2]).is_none());
}

#[test]
fn who_is_refused_changes_nothing() {
    let router = Router::default();
    let (first, second) = (stub("a1", 1, 0), stub("a1", 2, 0));
    let nobody_yet =
        router.attach_unless(Arc::clone(&first), names(&["ldap"]), |current, agents| {
            (current.is_some() || agents > 0).then_some("taken")
        });
    assert!(nobody_yet.unwrap().is_none());
    let refused = router.attach_unless(second, names(&["ldap"]), |current, agents| {
        (current.map(|stub| stub.session) == Some(1) && agents == 1).then_some("taken")
    });
    assert_eq!(refused.map(|_| ()), Err("taken"));
    assert_eq!(router.tunnel_of(&agent("a1")).unwrap().session, 1);
}

#[test]
fn round_robin_takes_each_in_turn_and_passes_over_the_draining() {
    let router = Router::default();
    for (agent, session) in [("a1", 1), ("a2", 2), ("a3", 3)] {
        router.attach(stub(agent, session, 0), names(&["ssh"]));
    }
    let pool = router.pool(&key("default", "ssh")).unwrap();
    let mut turns: Vec<u64> = (0..6)
        .map(|_| pool.pick(Balance::RoundRobin, CLIENT, &[]).unwrap().session)
        .collect();
    assert_eq!(turns[..3], turns[3..]);
    turns.truncate(3);
    turns.sort_unstable();
    assert_eq!(turns, [1, 2, 3]);

    router
        .tunnel_of(&agent("a2"))
        .unwrap()
        .draining
        .store(true, Ordering::Relaxed);
    assert!((0..6).all(|_| pool.pick(Balance::RoundRobin, CLIENT, &[]).unwrap().session != 2));
}

#[test]
fn sticky_keeps_a_client_on_its_agent_when_another_leaves() {
    let router = Router::default();
    let stubs: Vec<_> = (1..=4).map(|n| stub(&format!("a{n}"), n, 0)).collect();
    for one in &stubs {
        router.attach(Arc::clone(one), names(&["db"]));
    }
    let clients: Vec<IpAddr> = (0..200)
        .map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, n, 7)))
        .collect();
    let choose = |client: &IpAddr| {
        router
            .pool(&key("default", "db"))
            .unwrap()
            .pick(Balance::StickyClient, *client, &[])
            .unwrap()
            .session
    };
    let before: Vec<u64> = clients.iter().map(choose).collect();
    for n in 1..=4 {
        let share = before.iter().filter(|session| **session == n).count();
        assert!((20..=90).contains(&share), "agent {n} got {share} of 200");
    }
    router.detach(&stubs[2]);
    for (client, was) in clients.iter().zip(before) {
        if was != 3 {
            assert_eq!(choose(client), was);
        }
    }
}

#[test]
fn a_later_tunnel_of_the_same_agent_takes_the_place_and_the_earlier_cannot_remove_it() {
    let router = Router::default();
    let (old, new) = (stub("a1", 1, 0), stub("a1", 2, 0));
    assert!(
        router
            .attach(Arc::clone(&old), names(&["ssh", "db"]))
            .is_none()
    );
    let earlier = router.attach(Arc::clone(&new), names(&["ssh"])).unwrap();
    assert_eq!(earlier.session, 1);
    assert!(router.pool(&key("default", "db")).is_none());
    assert!(!router.detach(&old));
    router.set_connectors(&old, names(&["db"]));
    assert!(router.pool(&key("default", "db")).is_none());
    assert_eq!(router.tunnel_of(&agent("a1")).unwrap().session, 2);
    assert!(router.detach(&new));
    assert!(router.pool(&key("default", "ssh")).is_none());
    assert_eq!(router.agent_count(), 0);
}

#[test]
fn a_pool_finds_the_tunnel_of_an_agent() {
    let router = Router::default();
    for (id, session) in [("a3", 3), ("a1", 1), ("a2", 2)] {
        router.attach(stub(id, session, 0), names(&["ssh"]));
    }
    router.detach(&router.tunnel_of(&agent("a1")).unwrap());
    let pool = router.pool(&key("default", "ssh")).unwrap();
    let session = |id: &str| pool.of(&agent(id)).map(|stub| stub.session);
    assert_eq!(session("a1"), None);
    assert_eq!(session("a2"), Some(2));
    assert_eq!(session("a3"), Some(3));
}

#[test]
fn a_connector_of_another_tenant_is_another_connector() {
    let router = Router::default();
    router.attach(stub("a1", 1, 0), names(&["ldap"]));
    assert!(router.pool(&key("acme", "ldap")).is_none());
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Debug)]
struct Stub {
    agent: AgentKey,
    session: u64,
    flows: usize,
    draining: AtomicBool,
}

impl Candidate for Stub {
    fn agent(&self) -> &AgentKey {
        &self.agent
    }
    fn session(&self) -> u64 {
        self.session
    }
    fn flows(&self) -> usize {
        self.flows
    }
    fn takes_flows(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }
}

fn stub(id: &str, session: u64, flows: usize) -> Arc<Stub> {
    Arc::new(Stub {
        agent: agent(id),
        session,
        flows,
        draining: AtomicBool::new(false),
    })
}

fn agent(id: &str) -> AgentKey {
    AgentKey {
        tenant: TenantName::default(),
        agent: AgentId::parse(id).unwrap(),
    }
}

fn key(tenant: &str, name: &str) -> ConnectorKey {
    ConnectorKey {
        tenant: TenantName::parse(tenant).unwrap(),
        name: ConnectorName::parse(name).unwrap(),
    }
}

fn names(list: &[&str]) -> Vec<ConnectorName> {
    list.iter()
        .map(|name| ConnectorName::parse(name).unwrap())
        .collect()
}
