//! Two hubs on one registry: claims, presence, and what is left when the registry is away.

use std::time::Duration;

use nowconnect::cluster::{ClusterStatus, JoinedStatus};
use nowconnect::registry::ConnectorKey;
use nowconnect_protocol::{ConnectorName, TenantName};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::cluster::{HubPlan, Issuer, Redis, TestHub, echo, eventually, hub};

fn hub_of(issuer: &Issuer, ha: &str) -> HubPlan {
    hub().listener("echo").issuer(issuer.clone()).top(ha)
}

/// Two hubs that take the same tokens.
async fn pair(redis: &Redis, mode: &str) -> (TestHub, TestHub) {
    let issuer = Issuer::start().await;
    let a = hub_of(&issuer, &redis.ha("hub-a", mode)).start().await;
    let b = hub_of(&issuer, &redis.ha("hub-b", mode)).start().await;
    (a, b)
}

fn status(hub: &TestHub) -> ClusterStatus {
    hub.running().cluster()
}

/// Where the registry says that the agents of `echo` are.
async fn owners(hub: &TestHub) -> Vec<String> {
    let echo = ConnectorKey {
        tenant: TenantName::default(),
        name: ConnectorName::parse("echo").unwrap(),
    };
    let registry = hub.running().hub().cluster().registry();
    let found = registry.list_agents(&echo).await.unwrap_or_default();
    let owners = found.iter();
    owners
        .map(|agent| format!("{}@{}", agent.key, agent.owner))
        .collect()
}

async fn readyz(hub: &TestHub) -> String {
    let (code, body) = hub.get("/readyz").await;
    assert_eq!(code, 200, "{body}");
    body
}

#[tokio::test]
async fn hubs_see_each_other_and_their_agents() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (a, b) = pair(&redis, "active").await;
    let target = echo().await;
    let _agent = a.plant("echo", target.address()).await;
    for (here, other) in [(&a, "hub-b"), (&b, "hub-a")] {
        eventually("a hub sees the other", || async {
            let seen = status(here);
            seen.joined == JoinedStatus::Yes
                && seen
                    .hubs
                    .iter()
                    .any(|hub| hub.hub == other && hub.mode == "active" && !hub.skewed)
        })
        .await;
        eventually("every hub finds the agent at its owner", || async {
            owners(here).await == ["plant@hub-a"]
        })
        .await;
    }
    assert_eq!(status(&a).registry.agents, 1);
    assert_eq!(status(&b).registry.agents, 0);
    // The other hub knows why its client gets no flow.
    b.client("echo").await.is_closed().await;
    let why = b.decisions();
    assert_eq!(why[0].code.as_deref(), Some("no_agent_for_connector"));
    let message = why[0].message.as_deref().unwrap_or_default();
    assert!(message.contains("at other hubs"), "{message}");
    assert!(a.metrics().contains("nowconnect_registry_healthy 1"));
    assert!(
        b.metrics()
            .contains("nowconnect_registry_calls_total{call=\"list_agents\",result=\"ok\"}")
    );
}

#[tokio::test]
async fn an_agent_that_is_claimed_elsewhere_leaves_with_epoch_lost() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (a, b) = pair(&redis, "active").await;
    let target = echo().await;
    let first = a.plant("echo", target.address()).await;
    let epoch = |hub: &TestHub| {
        let text = hub.metrics();
        text.contains("nowconnect_registry_claims_lost_total{mode=\"active\"} ")
    };
    assert!(!epoch(&a));
    let _second = b.plant("echo", target.address()).await;
    let problem = first.problem("epoch_lost").await;
    assert!(problem.contains("overtook"), "{problem}");
    assert!(epoch(&a));
}

#[tokio::test]
async fn a_shadow_hub_tells_what_it_lost_and_goes_on() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (a, b) = pair(&redis, "shadow").await;
    let target = echo().await;
    let first = a.plant("echo", target.address()).await;
    let _second = b.plant("echo", target.address()).await;
    eventually("the lost claim is counted", || async {
        a.metrics()
            .contains("nowconnect_registry_claims_lost_total{mode=\"shadow\"} 1")
    })
    .await;
    a.client("echo").await.echoes(b"still served").await;
    assert_eq!(first.running.state().tunnels, 1);
    assert_eq!(readyz(&a).await, r#"{"status":"ready"}"#);
}

#[tokio::test]
async fn without_the_registry_local_service_goes_on_and_is_told() {
    let Some(mut redis) = Redis::start().await else {
        return;
    };
    let (a, b) = pair(&redis, "active").await;
    let target = echo().await;
    let _agent = a.plant("echo", target.address()).await;
    let mut client = a.client("echo").await;
    client.echoes(b"before").await;
    redis.kill();
    eventually("readyz says that the registry is away", || async {
        readyz(&a).await.contains("registry_unhealthy")
    })
    .await;
    client.echoes(b"a flow that ran").await;
    a.client("echo").await.echoes(b"and a new one").await;
    // The claim is this hub's own word until the registry is back.
    let late = a
        .agent("late")
        .target("echo", target.address())
        .ready()
        .await;
    assert_eq!(status(&a).registry.provisional, 1);
    redis.start_again().await;
    eventually("every hub finds both agents", || async {
        owners(&b).await == ["late@hub-a", "plant@hub-a"]
    })
    .await;
    eventually("nothing is provisional any more", || async {
        status(&a).registry.provisional == 0 && !readyz(&a).await.contains("registry_unhealthy")
    })
    .await;
    assert_eq!(late.running.state().tunnels, 1, "it stayed");
    client.echoes(b"after").await;
}

#[tokio::test]
async fn of_two_claims_made_without_the_registry_the_higher_stays() {
    let Some(mut redis) = Redis::start().await else {
        return;
    };
    let (a, b) = pair(&redis, "active").await;
    redis.kill();
    let target = echo().await;
    let first = a.plant("echo", target.address()).await;
    let second = b.plant("echo", target.address()).await;
    for hub in [&a, &b] {
        assert_eq!(status(hub).registry.provisional, 1);
    }
    redis.start_again().await;
    // Both counters are 1, and then the names of the hubs decide.
    first.problem("epoch_lost").await;
    assert_eq!(second.running.state().problem, None);
}

#[tokio::test]
async fn what_one_hub_revokes_holds_at_the_other_until_it_takes_it_back() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (a, b) = pair(&redis, "active").await;
    let target = echo().await;
    let agent = b.plant("echo", target.address()).await;
    let list = |lines: &str| std::fs::write(a.path("revoked.jsonl"), lines).unwrap();
    list("{\"agent\":\"plant\",\"revoked_at\":1767225600}\n");
    assert!(a.reload().await.ok);
    agent.problem("revoked").await;
    drop(agent);
    let again = b.agent("plant").target("echo", target.address()).start();
    again.problem("revoked").await;
    drop(again);

    list("");
    assert!(a.reload().await.ok);
    eventually("the other hub lets it in again", || async {
        let agent = b.agent("plant").target("echo", target.address()).start();
        agent.running.ready(Duration::from_secs(1)).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_hub_joins_and_leaves_its_cluster_while_it_serves() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let issuer = Issuer::start().await;
    let b = hub_of(&issuer, &redis.ha("hub-b", "shadow")).start().await;
    let mut a = hub_of(&issuer, "ha: {replica_id: hub-a}").start().await;
    let target = echo().await;
    let agent = a.plant("echo", target.address()).await;
    let mut client = a.client("echo").await;
    client.echoes(b"alone").await;
    assert_eq!(status(&a).joined, JoinedStatus::Alone);
    assert!(owners(&b).await.is_empty());

    a.clear_top();
    a.rewrite(|plan| plan.top(&redis.ha("hub-a", "active")));
    let report = a.reload().await;
    assert!(report.ok, "{report:?}");
    eventually("what it has is in the registry", || async {
        owners(&b).await == ["plant@hub-a"]
    })
    .await;
    client.echoes(b"joined").await;

    a.clear_top();
    a.rewrite(|plan| plan.top("ha: {replica_id: hub-a}"));
    assert!(a.reload().await.ok);
    eventually("it is gone from the registry", || async {
        owners(&b).await.is_empty() && status(&b).hubs.is_empty()
    })
    .await;
    client.echoes(b"alone again").await;

    // And once more, with the epochs that it had given up there.
    a.clear_top();
    a.rewrite(|plan| plan.top(&redis.ha("hub-a", "active")));
    assert!(a.reload().await.ok);
    eventually("what it has is in the registry again", || async {
        owners(&b).await == ["plant@hub-a"] && status(&a).registry.provisional == 0
    })
    .await;
    client.echoes(b"joined again").await;
    assert_eq!(agent.running.state().tunnels, 1, "its session stayed");
}

#[tokio::test]
async fn a_hub_with_the_name_of_another_does_not_start() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let issuer = Issuer::start().await;
    let _a = hub_of(&issuer, &redis.ha("hub-a", "shadow")).start().await;
    let refused = hub_of(&issuer, &redis.ha("hub-a", "shadow")).refused();
    let error = refused.await;
    assert!(error.contains("ha.replica_id"), "{error}");
}

/// A hub that leaves says so: its name is free at once.
#[tokio::test]
async fn a_hub_that_ends_gives_back_its_name_and_its_agents() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (mut a, b) = pair(&redis, "shadow").await;
    let target = echo().await;
    let agent = a.plant("echo", target.address()).await;
    eventually("it is seen", || async {
        owners(&b).await == ["plant@hub-a"] && !status(&b).hubs.is_empty()
    })
    .await;
    a.stop().await;
    assert!(owners(&b).await.is_empty(), "its claim still stands");
    eventually("the other sees that it left", || async {
        status(&b).hubs.is_empty()
    })
    .await;
    drop(agent);
}

/// With `ha` written but not enabled nothing of it happens: nobody is dialled, and a registry
/// that is not there impairs nothing.
#[tokio::test]
async fn a_hub_that_is_not_in_a_cluster_knows_nothing_of_it() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", nobody.local_addr().unwrap());
    let text = format!(
        "ha: {{enabled: false, mode: active, replica_id: hub-a, redis_url: \"{url}\", \
         mesh: {{peers: [\"ws://127.0.0.1:1/mesh\"]}}}}"
    );
    let hub = hub().listener("echo").top(&text).start().await;
    let target = echo().await;
    let _agent = hub.plant("echo", target.address()).await;
    hub.client("echo").await.echoes(b"served").await;
    assert_eq!(readyz(&hub).await, r#"{"status":"ready"}"#);
    let seen = status(&hub);
    assert_eq!(
        (seen.mode.as_str(), seen.joined),
        ("off", JoinedStatus::Alone)
    );
    assert!(!hub.metrics().contains("nowconnect_registry_calls_total{"));
    let dialled = timeout(Duration::from_millis(100), nobody.accept()).await;
    assert!(
        dialled.is_err(),
        "a hub that stands alone dialled its registry"
    );
}
