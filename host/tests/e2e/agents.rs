//! Who may join, with what, and what happens to a session as time passes.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use crate::cluster::{
    Claims, Client, SOON, TestAgent, TestHub, TestTarget, echo, eventually, http_get, hub,
};

#[tokio::test]
async fn without_a_valid_token_there_is_no_upgrade() {
    let hub = hub().start().await;
    let upgrade = upgrade("nowconnect.v1");
    let (status, body) = http_get(hub.tunnel_address(), "/tunnel", &upgrade).await;
    assert_eq!(status, 401);
    assert!(body.contains("token_missing"), "{body}");

    for (what, claims) in [
        ("another audience", Claims::of("a").with("aud", "elsewhere")),
        (
            "another issuer",
            Claims::of("a").with("iss", "http://127.0.0.1:1"),
        ),
        ("expired", Claims::of("a").expires_in_s(-3600)),
        ("no agent id", Claims::of("a").without("agent_id")),
    ] {
        let bearer = format!("Bearer {}", hub.issuer.sign(&claims));
        let mut headers = upgrade.to_vec();
        headers.push(("authorization", &bearer));
        let (status, body) = http_get(hub.tunnel_address(), "/tunnel", &headers).await;
        assert_eq!(status, 401, "{what}: {body}");
    }
}

#[tokio::test]
async fn an_unknown_subprotocol_is_refused_with_its_code() {
    let hub = hub().start().await;
    let bearer = format!("Bearer {}", hub.issuer.sign(&Claims::of("a")));
    let mut headers = upgrade("nowconnect.v9").to_vec();
    headers.push(("authorization", &bearer));
    let (status, body) = http_get(hub.tunnel_address(), "/tunnel", &headers).await;
    assert_eq!(status, 400);
    assert!(body.contains("unsupported_subprotocol"), "{body}");
}

#[tokio::test]
async fn an_agent_that_says_to_be_another_is_refused() {
    let hub = hub().start().await;
    let agent = hub
        .agent("plant")
        .target("echo", ([127, 0, 0, 1], 9).into())
        .claims(|claims| claims.with("agent_id", "somebody-else"))
        .start();
    agent.problem("agent_id_mismatch").await;
    let denied = hub.decisions();
    assert!(
        denied
            .iter()
            .any(|record| !record.allow && record.code.as_deref() == Some("agent_id_mismatch")),
        "{denied:?}"
    );
}

#[tokio::test]
async fn a_tenant_that_the_token_does_not_prove_is_refused() {
    let hub = hub().start().await;
    let agent = hub
        .agent("plant")
        .target("echo", ([127, 0, 0, 1], 9).into())
        .states_tenant("acme")
        .start();
    agent.problem("agent_id_mismatch").await;
}

#[tokio::test]
async fn connectors_beyond_the_scopes_are_refused_one_by_one() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .listener("secret")
        .security("require_connector_scopes: true")
        .start()
        .await;
    let agent = hub
        .agent("plant")
        .claims(|claims| claims.connectors(&["echo"]))
        .target("echo", target.address())
        .target("secret", target.address())
        .ready()
        .await;
    let state = agent.running.state();
    assert_eq!(state.accepted.len(), 1);
    assert_eq!(state.refused.len(), 1);
    assert_eq!(state.refused[0].connector.as_str(), "secret");
    assert_eq!(state.refused[0].code, "connector_not_in_scope");
    hub.client("echo").await.echoes(b"in scope").await;
    hub.client("secret").await.is_closed().await;
}

#[tokio::test]
async fn an_agent_of_another_tenant_never_gets_a_flow() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let stranger = hub
        .agent("stranger")
        .claims(|claims| claims.with("tenant", "acme"))
        .target("echo", target.address())
        .ready()
        .await;
    assert_eq!(stranger.running.state().accepted.len(), 1);
    hub.client("echo").await.is_closed().await;
    assert!(target.seen().is_empty());
}

#[tokio::test]
async fn a_token_that_expires_stops_new_flows_and_keeps_running_ones() {
    let mut at = expiring("on_expiry: keep\nclock_skew_ms: 0").await;
    eventually("new flows are refused", || is_refused(&at.hub)).await;
    at.running.echoes(b"after").await;
}

#[tokio::test]
async fn a_token_that_expires_can_end_running_flows_at_once() {
    let mut at = expiring("on_expiry: close\nclock_skew_ms: 0").await;
    at.running.is_closed().await;
}

#[tokio::test]
async fn a_token_that_expires_gives_running_flows_a_time_to_end() {
    let mut at = expiring("on_expiry: drain\non_expiry_drain_ms: 3000\nclock_skew_ms: 0").await;
    eventually("new flows are refused", || is_refused(&at.hub)).await;
    at.running.echoes(b"within the time to end").await;
    at.running.is_closed().await;
    eventually("the cause is counted", || async {
        at.hub
            .metrics()
            .contains("nowconnect_flow_ends_total{cause=\"token_expired\"} 1")
    })
    .await;
}

#[tokio::test]
async fn a_new_token_is_taken_on_the_living_tunnel() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .security("on_expiry: close\nclock_skew_ms: 0")
        .start()
        .await;
    let agent = hub
        .agent("plant")
        .claims(|claims| claims.expires_in_s(6))
        .target("echo", target.address())
        .ready()
        .await;
    let mut running = hub.client("echo").await;
    running.echoes(b"first token").await;
    let before = agent.running.state();
    agent.give_token(&hub.issuer.sign(&Claims::of("plant")));
    agent
        .until(|state| state.token_expires_at > before.token_expires_at)
        .await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    running.echoes(b"second token").await;
    assert_eq!(agent.running.state().tunnels, 1, "it reconnected instead");
}

#[tokio::test]
async fn a_renewal_with_fewer_scopes_ends_the_flows_that_lost_theirs() {
    let target = echo().await;
    let hub = hub()
        .listener("keep")
        .listener("lose")
        .security("require_connector_scopes: true")
        .start()
        .await;
    let agent = hub
        .agent("plant")
        .claims(|claims| claims.connectors(&["keep", "lose"]).expires_in_s(60))
        .target("keep", target.address())
        .target("lose", target.address())
        .ready()
        .await;
    let (mut keep, mut lose) = (hub.client("keep").await, hub.client("lose").await);
    keep.echoes(b"a").await;
    lose.echoes(b"b").await;
    agent.give_token(&hub.issuer.sign(&Claims::of("plant").connectors(&["keep"])));
    lose.is_closed().await;
    keep.echoes(b"still here").await;
    hub.client("lose").await.is_closed().await;
    eventually("the cause is counted", || async {
        hub.metrics()
            .contains("nowconnect_flow_ends_total{cause=\"scope_lost\"} 1")
    })
    .await;
}

#[tokio::test]
async fn a_second_instance_of_a_live_agent_is_refused() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let first = hub.plant("echo", target.address()).await;
    let second = hub.agent("plant").target("echo", target.address()).start();
    second.problem("agent_id_in_use").await;
    assert_eq!(first.running.state().tunnels, 1);
    hub.client("echo").await.echoes(b"the first serves").await;
}

#[tokio::test]
async fn a_second_instance_replaces_the_first_where_the_operator_chose_so() {
    let (one, two) = (echo().await, echo().await);
    let hub = hub()
        .listener("echo")
        .security("duplicate_agent: replace")
        .start()
        .await;
    let first = hub.plant("echo", one.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"the first serves").await;
    let second = hub.agent("plant").target("echo", two.address()).start();
    // A tunnel that has just come is not thrown out, so that two instances do not do so in turn.
    second.problem("agent_id_in_use").await;
    running.echoes(b"the first stays for a while").await;
    drop(second);
    // An agent that was refused for this waits long; an impatient one finds out when it may come.
    let _second = first_accepted(|| hub.agent("plant").target("echo", two.address()).start()).await;
    // Another instance has none of the first one's flows.
    running.is_closed().await;
    hub.client("echo").await.echoes(b"the second serves").await;
    assert_eq!((one.seen().len(), two.seen().len()), (1, 1));
    let metrics = hub.metrics();
    let uptime = metrics
        .lines()
        .find_map(|line| line.strip_prefix("nowconnect_tunnel_uptime_seconds{agent=\"plant\"} "))
        .and_then(|seconds| seconds.parse::<f64>().ok());
    assert!(uptime.is_some_and(|seconds| seconds > 0.0), "{uptime:?}");
    // Now the first is the newcomer.
    first.problem("agent_id_in_use").await;
    let metrics = hub.metrics();
    assert!(
        metrics.contains("nowconnect_duplicate_agents_total{result=\"replaced\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("nowconnect_duplicate_agents_total{result=\"refused\"}"),
        "{metrics}"
    );
}

#[tokio::test]
async fn of_two_instances_that_say_hello_at_once_one_gets_in() {
    let target = echo().await;
    // It never answers, so that both are decided about at the same time.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hub = hub()
        .top(&format!(
            "pdp: {{url: \"http://{}\", timeout_ms: 2000, fail_open: true}}",
            silent.local_addr().unwrap()
        ))
        .start()
        .await;
    let start = || hub.agent("plant").target("echo", target.address()).start();
    let both = [start(), start()];
    // The same question of both is asked once.
    let _asked = tokio::time::timeout(SOON, silent.accept())
        .await
        .unwrap()
        .unwrap();
    eventually("one is told so", || async {
        let refused = both.iter().filter(|agent| {
            let state = agent.running.state();
            state
                .problem
                .is_some_and(|problem| problem.contains("agent_id_in_use"))
        });
        refused.count() == 1
    })
    .await;
    let metrics = hub.metrics();
    assert!(
        metrics.contains("nowconnect_handshakes_total{result=\"accepted\"} 1\n"),
        "{metrics}"
    );
}

/// The head of a request for a tunnel, with this subprotocol.
fn upgrade(subprotocol: &str) -> [(&str, &str); 5] {
    [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", subprotocol),
    ]
}

/// An agent whose token is good for three seconds, and a flow that runs.
struct Expiring {
    hub: TestHub,
    running: Client,
    _agent: TestAgent,
    _target: TestTarget,
}

/// With these lines of the section `security`.
async fn expiring(security: &str) -> Expiring {
    let target = echo().await;
    let hub = hub().listener("echo").security(security).start().await;
    let agent = hub
        .agent("plant")
        .claims(|claims| claims.expires_in_s(3))
        .target("echo", target.address())
        .ready()
        .await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    Expiring {
        hub,
        running,
        _agent: agent,
        _target: target,
    }
}

/// Whether a new client gets no answer from the target.
async fn is_refused(hub: &TestHub) -> bool {
    let mut client = hub.client("echo").await;
    client.send(b"x").await;
    let mut byte = [0];
    !matches!(client.stream.read(&mut byte).await, Ok(1))
}

/// Starts one agent after another until one is accepted.
async fn first_accepted(start: impl Fn() -> TestAgent) -> TestAgent {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let agent = start();
        if agent.running.ready(Duration::from_secs(1)).await.is_ok() {
            return agent;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "nobody was accepted"
        );
    }
}

#[tokio::test]
async fn the_flows_of_two_agents_are_balanced() {
    let (one, two) = (echo().await, echo().await);
    let hub = hub().listener("echo").start().await;
    let _one = hub.agent("one").target("echo", one.address()).ready().await;
    let _two = hub.agent("two").target("echo", two.address()).ready().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = hub.client("echo").await;
        client.echoes(b"x").await;
        clients.push(client);
    }
    assert_eq!((one.seen().len(), two.seen().len()), (4, 4));
}

/// What a scrape shows while an agent serves: flows come and go, and the uptime is the tunnel's.
#[tokio::test]
async fn a_flow_is_in_the_scrape_while_it_is_open() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    assert!(hub.metrics().contains("\nnowconnect_flows_open 0\n"));
    let mut client = hub.client("echo").await;
    client.echoes(b"open").await;
    assert!(hub.metrics().contains("\nnowconnect_flows_open 1\n"));
    drop(client);
    eventually("the flow has ended", || async {
        hub.metrics().contains("\nnowconnect_flows_open 0\n")
    })
    .await;
}
