//! What an operator sees and does at the admin socket.

use nowconnect::admin::DecisionQuery;
use nowconnect::admin::view::{
    AgentAddressQuery, AgentState, DrainRequest, ExplainRequest, FlowQuery,
};

use nowconnect::telemetry::decisions::DecisionAction;

use crate::cluster::{command, echo, eventually, forbid_open, hub};

#[tokio::test]
async fn the_operator_sees_the_hub_its_agents_and_its_flows() {
    let target = echo().await;
    let hub = hub().admin().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut client = hub.client("echo").await;
    client.echoes(b"seen").await;
    let operator = hub.operator();

    let status = operator.status().await.unwrap();
    assert_eq!(status.totals.agents, 1);
    assert_eq!(status.totals.flows, 1);
    assert_eq!(status.generation.number, 1);
    assert_eq!(status.listeners[0].name, "echo");
    assert_eq!(status.listeners[0].agents, 1);
    assert_eq!(status.listeners[0].flows, 1);
    assert_eq!(status.tunnel_address, Some(hub.tunnel_address()));

    let agents = operator.agents().await.unwrap().agents;
    assert_eq!(agents.len(), 1);
    assert_eq!(agents[0].agent, "plant");
    assert_eq!(agents[0].state, AgentState::Up);
    assert_eq!(agents[0].connectors[0].flows, 1);

    let flows = operator.flows(&FlowQuery::default()).await.unwrap();
    assert_eq!(flows.selected, 1);
    let address = client.stream.local_addr().unwrap();
    assert_eq!(flows.flows[0].client, Some(address));
    let others = FlowQuery {
        agent: Some("somebody".to_owned()),
        ..FlowQuery::default()
    };
    assert_eq!(operator.flows(&others).await.unwrap().selected, 0);

    operator.close_flow(&flows.flows[0].flow).await.unwrap();
    client.is_closed().await;
    eventually("the cause is counted", || async {
        hub.metrics()
            .contains("nowconnect_flow_ends_total{cause=\"operator_closed\"} 1")
    })
    .await;
    assert!(operator.close_flow("hub.0.999").await.is_err());
}

#[tokio::test]
async fn a_denial_is_explained_by_the_clients_address() {
    let target = echo().await;
    let hub = hub()
        .admin()
        .listener("echo")
        .policy_file("closed.cedar", &forbid_open("echo"))
        .start()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut client = hub.client("echo").await;
    let address = client.stream.local_addr().unwrap();
    client.is_closed().await;
    let explained = hub
        .operator()
        .explain(&ExplainRequest {
            client: Some(address.to_string()),
            ..ExplainRequest::default()
        })
        .await
        .unwrap();
    let text = explained.to_string();
    assert!(text.contains("no-echo"), "{text}");
    assert!(text.contains("closed_today"), "{text}");
    assert!(text.contains("come back tomorrow"), "{text}");
}

#[tokio::test]
async fn the_command_line_explains_by_decision_and_by_client() {
    let target = echo().await;
    let hub = hub()
        .admin()
        .listener("echo")
        .listener("open")
        .policy_file("closed.cedar", &forbid_open("echo"))
        .start()
        .await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .target("open", target.address())
        .ready()
        .await;
    let mut allowed = hub.client("open").await;
    allowed.echoes(b"allowed").await;
    let mut denied = hub.client("echo").await;
    denied.is_closed().await;
    let socket = hub.path("admin.sock");
    let socket = socket.to_str().unwrap();
    let explain = |what: Vec<String>| async move {
        let mut arguments = vec!["policy", "explain", "--socket", socket];
        arguments.extend(what.iter().map(String::as_str));
        command(&arguments).await
    };

    let denied_from = denied.stream.local_addr().unwrap();
    let allowed_from = allowed.stream.local_addr().unwrap();
    let record_of = |client| {
        hub.decisions()
            .into_iter()
            .find(|record| record.client == Some(client))
            .expect("each open has a record")
    };
    let id = record_of(denied_from).decision_id.to_string();
    let by_id = explain(vec![id.clone()]).await;
    let by_client = explain(vec![
        "--client".into(),
        denied_from.to_string(),
        "--last".into(),
    ])
    .await;
    // Of all clients with this address the last was the denied one.
    let ip = denied_from.ip().to_string();
    let by_ip = explain(vec!["--client".into(), ip, "--last".into()]).await;
    for (code, text) in [&by_id, &by_client, &by_ip] {
        assert_eq!(*code, Some(0), "{text}");
        for part in [
            id.as_str(),
            "denied",
            "no-echo",
            "closed_today",
            "come back tomorrow",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
    }
    let id = record_of(allowed_from).decision_id.to_string();
    let (code, text) = explain(vec![id]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("allowed") && text.contains("base-open"),
        "{text}"
    );

    let client = vec!["--client".into(), denied_from.to_string(), "--json".into()];
    let (_, json) = explain(client).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["record"]["code"], "closed_today", "{json}");

    let (code, _) = explain(vec!["--client".into(), "192.0.2.1".into(), "--last".into()]).await;
    assert_eq!(code, Some(1), "nobody came from there");
}

#[tokio::test]
async fn an_agent_that_is_kicked_loses_its_flows_and_may_come_back() {
    let target = echo().await;
    let hub = hub().admin().listener("echo").start().await;
    let agent = hub.plant("echo", target.address()).await;
    let mut client = hub.client("echo").await;
    client.echoes(b"before").await;
    hub.operator().kick_agent("plant").await.unwrap();
    client.is_closed().await;
    agent.until(|state| state.tunnels >= 2).await;
    assert!(hub.operator().kick_agent("nobody").await.is_err());
}

#[tokio::test]
async fn a_reload_and_a_drain_can_be_asked_for() {
    let mut hub = hub().admin().start().await;
    let operator = hub.operator();
    let report = operator.reload().await.unwrap();
    assert!(report.ok, "{report:?}");
    operator
        .drain(&DrainRequest {
            deadline_ms: Some(1_500),
        })
        .await
        .unwrap();
    let mut running = hub.take_running();
    let within = running.end_asked().await;
    assert_eq!(within.as_millis(), 1_500);
}

/// The status shows the network alone. The address is asked for by itself, and each time there is
/// a record of who asked.
#[tokio::test]
async fn where_an_agent_is_is_told_to_few_and_each_time_recorded() {
    let target = echo().await;
    let hub = hub().admin().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    let operator = hub.operator();
    let agents = operator.agents().await.unwrap().agents;
    assert_eq!(agents[0].network.unwrap().to_string(), "127.0.0.0/24");

    let asked = AgentAddressQuery {
        agent: Some("plant".to_owned()),
        ..AgentAddressQuery::default()
    };
    // The agent may know that it is let in a moment before this is noted.
    eventually("the address to be noted", || async {
        let page = operator.agent_addresses(&asked).await.unwrap();
        page.addresses.len() == 1
    })
    .await;
    let page = operator.agent_addresses(&asked).await.unwrap();
    let seen = &page.addresses[0];
    assert!(seen.address.ip().is_loopback() && seen.address.port() > 0);
    let record = hub.decisions()[0].clone();
    assert!(
        record.allow && record.resource.contains("read-agent-address"),
        "{record:?}"
    );

    // By a decision that a request's log line names, and not before its tunnel.
    let mut client = hub.client("echo").await;
    client.echoes(b"hello").await;
    let decisions = hub.decisions();
    let mut of_echo = decisions
        .iter()
        .filter(|one| one.listener.as_deref() == Some("echo"));
    let opened = of_echo.next().unwrap();
    let by = AgentAddressQuery {
        decision: Some(opened.decision_id.to_string()),
        ..AgentAddressQuery::default()
    };
    let page = operator.agent_addresses(&by).await.unwrap();
    assert_eq!(page.addresses, std::slice::from_ref(seen));
    let earlier = AgentAddressQuery {
        at_ms: Some(1),
        ..asked.clone()
    };
    assert!(
        operator
            .agent_addresses(&earlier)
            .await
            .unwrap()
            .addresses
            .is_empty()
    );

    // What was decided of the agent itself tells the network alone, whoever reads it.
    let all = operator.decisions(&DecisionQuery::default()).await.unwrap();
    let mut of_agent = 0;
    for record in &all.decisions {
        if matches!(
            record.action,
            DecisionAction::Hello | DecisionAction::Announce
        ) {
            of_agent += 1;
            let network = record.agent_network.map(|network| network.to_string());
            assert_eq!(network.as_deref(), Some("127.0.0.0/24"));
            assert_eq!(record.client, None);
            let told = serde_json::to_string(record).unwrap();
            assert!(!told.contains(&seen.address.to_string()), "{told}");
        }
    }
    assert!(of_agent >= 2);

    hub.write_policy(
        "addresses.cedar",
        "@id(\"nobody\") forbid (principal, action == \
         NowConnect::Action::\"admin-read-agent-address\", resource);",
    );
    assert!(hub.reload().await.ok);
    assert!(operator.agent_addresses(&asked).await.is_err());
    let record = hub.decisions()[0].clone();
    assert!(
        !record.allow && record.resource.contains("read-agent-address"),
        "{record:?}"
    );
}
