//! Agents, flows and routes as their tenant's client sees and ends them.

use serde_json::json;

use super::{Caller, SECRET, agent_of, anonymous, ask_token, client, control_hub};
use crate::cluster::{TestHub, echo};

/// A client with every scope.
async fn keeper(hub: &TestHub, id: &str) -> Caller {
    let asked = ask_token(hub, id, SECRET).await;
    Caller {
        token: Some(asked.text("token").to_owned()),
        ..anonymous(hub)
    }
}

fn keepers() -> crate::cluster::HubPlan {
    control_hub("").listener_with("echo", "echo", "tenant: acme")
}

#[tokio::test]
async fn a_tenants_agents_are_seen_and_sent_away_by_it_alone() {
    let target = echo().await;
    let hub = keepers().start().await;
    let (ops, rival) = (keeper(&hub, "keeper").await, keeper(&hub, "rival").await);
    let agent = hub
        .agent("plant")
        .claims(|claims| claims.with("tenant", "acme"))
        .target("echo", target.address())
        .ready()
        .await;
    let listed = ops.get("/v1/agents").await;
    assert_eq!(listed.status, 200, "{listed:?}");
    assert_eq!(listed.body["agents"][0]["agent_id"], "plant");
    assert_eq!(listed.body["agents"][0]["state"], "up");
    assert_eq!(listed.body["agents"][0]["connectors"], json!(["echo"]));
    assert!(!listed.message.text().contains("127.0.0.1"), "no addresses");
    let theirs = rival.get("/v1/agents").await;
    assert_eq!(theirs.body["agents"], json!([]));
    let reader = client(&hub, "ops").await;
    let refused = reader.get("/v1/agents").await;
    assert_eq!((refused.status, refused.code()), (403, "denied"));

    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    let flows = ops.get("/v1/flows").await;
    let flow = flows.body["flows"][0].clone();
    assert_eq!(flow["agent_id"], "plant", "{flows:?}");
    assert_eq!(flow["connector"], "echo");
    assert_eq!(rival.get("/v1/flows").await.body["flows"], json!([]));
    let close = format!("/v1/flows/{}/close", flow["flow"].as_str().unwrap());
    let no = rival.post(&close, &json!({})).await;
    assert_eq!((no.status, no.code()), (404, "not_found"));
    assert_eq!(ops.post(&close, &json!({})).await.status, 204);
    running.is_closed().await;

    let no = rival.post("/v1/agents/plant/kick", &json!({})).await;
    assert_eq!((no.status, no.code()), (404, "not_found"));
    let session = agent.running.state().session;
    let drained = ops.post("/v1/agents/plant/drain", &json!({})).await;
    assert_eq!(drained.status, 204, "{drained:?}");
    agent
        .until(|state| state.session.is_some() && state.session != session)
        .await;
    let session = agent.running.state().session;
    let kicked = ops.post("/v1/agents/plant/kick", &json!({})).await;
    assert_eq!(kicked.status, 204);
    agent
        .until(|state| state.session.is_some() && state.session != session)
        .await;
    let revoked = ops.post("/v1/agents/plant/revoke", &json!({})).await;
    assert_eq!(revoked.status, 204, "{revoked:?}");
    agent.problem("revoked").await;
}

#[tokio::test]
async fn the_agent_of_a_tunnel_is_revoked_with_it() {
    let target = echo().await;
    let hub = keepers().start().await;
    let ops = keeper(&hub, "keeper").await;
    let created = ops.create(json!({"requested_name": "shop"})).await;
    let id = created.text("tunnel_id");
    let agent = agent_of(&hub, &created, target.address());
    agent.ready().await;
    let shown = ops.get(&format!("/v1/endpoints/{id}")).await;
    assert_eq!(shown.text("state"), "ACTIVE");
    let rival = keeper(&hub, "rival").await;
    for (method, path) in [
        ("GET", format!("/v1/endpoints/{id}")),
        ("DELETE", format!("/v1/endpoints/{id}")),
    ] {
        let no = rival.call(method, &path, &[], None).await;
        assert_eq!((no.status, no.code()), (404, "not_found"));
    }
    let revoke = format!("/v1/agents/{id}/revoke");
    assert_eq!(ops.post(&revoke, &json!({})).await.status, 204);
    agent.problem("its tunnel was deleted").await;
    let gone = ops.get(&format!("/v1/endpoints/{id}")).await;
    assert_eq!((gone.status, gone.code()), (404, "not_found"));
    let second = ops
        .post("/v1/endpoints", &json!({"requested_name": "shop"}))
        .await;
    assert_eq!(second.status, 201, "{second:?}");
    let path = format!("/v1/endpoints/{}", second.text("tunnel_id"));
    assert_eq!(ops.call("DELETE", &path, &[], None).await.status, 204);
    assert_eq!(ops.get("/v1/endpoints").await.body["tunnels"], json!([]));
}

#[tokio::test]
async fn names_of_routes_are_shown_and_given_to_nobody() {
    let hub = keepers()
        .top(
            "ingress:\n  routes:\n    - {name: shop, tenant: acme, host: shop.example.com, \
             connector: shop}\n    - {name: other, tenant: acme, host: taken.tunnels.example.com, \
             connector: shop}\n",
        )
        .start()
        .await;
    let ops = keeper(&hub, "keeper").await;
    let routes = ops.get("/v1/routes?limit=1").await;
    assert_eq!(routes.body["routes"][0]["name"], "other", "{routes:?}");
    let rest = ops.get("/v1/routes?after=other").await;
    assert_eq!(rest.body["routes"][0]["host"], "shop.example.com");
    assert_eq!(rest.body["routes"][0]["path"], "/");
    for name in ["shop", "taken"] {
        let refused = ops
            .post("/tunnels/create", &json!({"requested_name": name}))
            .await;
        assert_eq!((refused.status, refused.code()), (409, "name_taken"));
    }
    keeper(&hub, "rival")
        .await
        .create(json!({"requested_name": "shop"}))
        .await;
}
