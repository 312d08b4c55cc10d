//! Several agents for one connector: who gets the next client.

use std::net::Ipv4Addr;

use crate::cluster::{TestAgent, TestHub, TestTarget, echo, eventually, hub, refuse};
use crate::ingress::PERMIT_HTTP;

#[tokio::test]
async fn round_robin_takes_turns_whatever_each_agent_carries() {
    let (hub, targets, _agents) = three_agents("balance: round_robin").await;
    let mut kept = Vec::new();
    for _ in 0..9 {
        let before = connections(&targets);
        let mut client = hub.client("echo").await;
        client.echoes(b"x").await;
        // The first agent's flows stay, so that counting flows would leave it out.
        if changed(&before, &connections(&targets)) == 0 {
            kept.push(client);
        } else {
            client.finish().await;
            assert!(client.rest().await.is_empty());
        }
    }
    assert_eq!(connections(&targets), [3, 3, 3]);
    assert_eq!(kept.len(), 3);
}

#[tokio::test]
async fn a_sticky_client_moves_only_when_its_agent_goes() {
    let (hub, targets, mut agents) = three_agents("balance: sticky_client").await;
    let clients: Vec<Ipv4Addr> = (2..14).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect();
    let mut homes = Vec::new();
    for client in &clients {
        let home = home_of(&hub, &targets, *client).await;
        for _ in 0..3 {
            assert_eq!(home_of(&hub, &targets, *client).await, home, "{client}");
        }
        homes.push(home);
    }
    let used = (0..3).filter(|agent| homes.contains(agent)).count();
    assert!(used > 1, "every client has the same agent: {homes:?}");

    let gone = homes[0];
    drop(agents.remove(gone));
    eventually("the agent has left", || async {
        hub.running()
            .hub()
            .metrics()
            .render()
            .contains("\nnowconnect_tunnels 2\n")
    })
    .await;
    for (client, before) in clients.iter().zip(homes) {
        let now = home_of(&hub, &targets, *client).await;
        if before == gone {
            assert_ne!(now, gone, "{client}");
        } else {
            assert_eq!(now, before, "{client} moved without need");
        }
    }
}

#[tokio::test]
async fn an_agent_whose_target_is_down_gets_no_client() {
    let hub = hub()
        .listener_with("echo", "echo", "balance: round_robin")
        .policy_file("http.cedar", PERMIT_HTTP)
        .top("connectors: {echo: {health_check: {interval_ms: 100, rise: 1, fall: 1}}}")
        .start()
        .await;
    let target = echo().await;
    let _down = hub
        .agent("one")
        .target("echo", refuse().await)
        .ready()
        .await;
    let _up = hub
        .agent("two")
        .target("echo", target.address())
        .ready()
        .await;
    eventually("a target is down", || async {
        hub.metrics()
            .contains("nowconnect_targets_down{connector=\"echo\"} 1\n")
    })
    .await;
    for _ in 0..4 {
        hub.client("echo").await.echoes(b"x").await;
    }
}

async fn three_agents(balance: &str) -> (TestHub, Vec<TestTarget>, Vec<TestAgent>) {
    let hub = hub().listener_with("echo", "echo", balance).start().await;
    let (mut targets, mut agents) = (Vec::new(), Vec::new());
    for id in ["one", "two", "three"] {
        let target = echo().await;
        agents.push(hub.agent(id).target("echo", target.address()).ready().await);
        targets.push(target);
    }
    (hub, targets, agents)
}

/// The index of the agent that a new flow of this client gets.
async fn home_of(hub: &TestHub, targets: &[TestTarget], client: Ipv4Addr) -> usize {
    let before = connections(targets);
    hub.client_from("echo", client).await.echoes(b"x").await;
    changed(&before, &connections(targets))
}

fn connections(targets: &[TestTarget]) -> Vec<usize> {
    targets.iter().map(|target| target.seen().len()).collect()
}

fn changed(before: &[usize], after: &[usize]) -> usize {
    let grown: Vec<usize> = (0..before.len())
        .filter(|index| after[*index] > before[*index])
        .collect();
    assert_eq!(grown.len(), 1, "{before:?} {after:?}");
    grown[0]
}
