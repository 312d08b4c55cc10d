//! Tunnels: from a wish to an agent that is let in, once for each token.

use std::collections::BTreeSet;

use nowconnect::telemetry::decisions::DecisionAction;
use serde_json::json;

use super::{agent_of, anonymous, ask_token, client, control_hub, open_hub};
use crate::cluster::{echo, eventually};

#[tokio::test]
async fn a_stranger_gets_a_name_and_its_agent_is_let_in() {
    let target = echo().await;
    let hub = open_hub().start().await;
    let created = anonymous(&hub)
        .create(json!({"requested_name": "Shop", "region_hint": "eu", "recreate_token_ttl_seconds": 60}))
        .await;
    assert_eq!(created.text("public_hostname"), "shop.tunnels.example.com");
    assert_eq!(
        created.text("public_url"),
        "https://shop.tunnels.example.com"
    );
    assert!(created.text("tunnel_id").starts_with("tun_"));
    let candidates = created.body["candidates"].as_array().unwrap();
    assert!((1..=3).contains(&candidates.len()));
    assert_eq!(candidates[0]["edge_id"], "hub");
    assert_eq!(
        candidates[0]["edge_url"],
        format!("ws://{}/tunnel", hub.tunnel_address())
    );
    assert_eq!(candidates[0]["supported_transport"], json!(["wss"]));
    for field in ["candidates_expires_at", "recreate_expires_at"] {
        assert!(created.text(field).ends_with('Z'), "{created:?}");
    }
    assert_eq!(
        created.message.field("cache-control").as_deref(),
        Some("no-store"),
        "it holds tokens"
    );

    let agent = agent_of(&hub, &created, target.address());
    let state = agent.ready().await;
    assert_eq!(state.accepted.len(), 1);
}

#[tokio::test]
async fn candidates_are_those_of_the_wished_region_first() {
    let hub = control_hub(
        "region: us\nanonymous: {enabled: true}\nmore_tunnel_urls:\n  \
         - {url: \"wss://eu.example.com/tunnel\", region: eu, note: behind the ingress}\n  \
         - {url: \"wss://ap.example.com/tunnel\", region: ap}\n  \
         - {url: \"wss://sa.example.com/tunnel\", region: sa}",
    )
    .start()
    .await;
    let regions = async |hint: serde_json::Value| -> Vec<String> {
        let created = anonymous(&hub).create(json!({"region_hint": hint})).await;
        let candidates = created.body["candidates"].as_array().unwrap().clone();
        let regions = candidates.iter().map(|one| one["region"].as_str());
        regions.map(|region| region.unwrap().to_owned()).collect()
    };
    assert_eq!(regions(json!(null)).await, ["us", "eu", "ap"]);
    assert_eq!(regions(json!("ap")).await, ["ap", "us", "eu"]);
    assert_eq!(regions(json!("sa")).await, ["sa", "us", "eu"]);
}

#[tokio::test]
async fn a_token_opens_one_tunnel() {
    let target = echo().await;
    let hub = open_hub().start().await;
    let created = anonymous(&hub).create(json!({})).await;
    let first = agent_of(&hub, &created, target.address());
    first.ready().await;
    // Whoever saw the token gets no second tunnel with it.
    agent_of(&hub, &created, target.address())
        .problem("token_used")
        .await;
    first.ready().await;

    // Of two tokens for one tunnel the newer one counts.
    let recreate = json!({"recreate_token": created.text("recreate_token")});
    let older = anonymous(&hub).create(recreate.clone()).await;
    let newer = anonymous(&hub).create(recreate).await;
    drop(first);
    agent_of(&hub, &older, target.address())
        .problem("token_used")
        .await;
    agent_of(&hub, &newer, target.address()).ready().await;
}

#[tokio::test]
async fn an_agent_renews_with_a_new_token_and_with_each_once() {
    let target = echo().await;
    let hub = open_hub().start().await;
    let created = anonymous(&hub).create(json!({})).await;
    let agent = agent_of(&hub, &created, target.address());
    agent.ready().await;
    let recreate = json!({"recreate_token": created.text("recreate_token")});
    let renewed = anonymous(&hub).create(recreate).await;
    agent.give_token(renewed.text("ephemeral_token"));
    eventually("the agent renews", || async {
        let decided = hub.decisions();
        let hellos = decided
            .iter()
            .filter(|record| record.action == DecisionAction::Hello && record.allow);
        hellos.count() == 2
    })
    .await;
    agent_of(&hub, &renewed, target.address())
        .problem("token_used")
        .await;
    agent.ready().await;
}

#[tokio::test]
async fn an_agent_offers_its_own_name_and_no_other() {
    let target = echo().await;
    let hub = open_hub().start().await;
    let victim = anonymous(&hub).create(json!({})).await;
    let created = anonymous(&hub).create(json!({})).await;
    let id = created.text("tunnel_id");
    let agent = hub
        .agent(id)
        .token(created.text("ephemeral_token"))
        .target(id, target.address())
        .target(victim.text("tunnel_id"), target.address())
        .ready()
        .await;
    let state = agent.running.state();
    assert_eq!(state.refused.len(), 1, "{state:?}");
    assert_eq!(
        state.refused[0].connector.as_str(),
        victim.text("tunnel_id")
    );
    assert_eq!(state.refused[0].code, "connector_not_in_scope");
}

#[tokio::test]
async fn the_same_tunnel_comes_back_to_who_has_its_recreate_token() {
    let hub = open_hub().start().await;
    let caller = anonymous(&hub);
    let created = caller.create(json!({"requested_name": "shop"})).await;
    let again = caller
        .create(json!({"recreate_token": created.text("recreate_token")}))
        .await;
    for field in ["tunnel_id", "public_hostname"] {
        assert_eq!(created.text(field), again.text(field));
    }
    assert_ne!(
        created.text("ephemeral_token"),
        again.text("ephemeral_token")
    );
    let other = caller
        .post("/tunnels/create", &json!({"requested_name": "shop"}))
        .await;
    assert_eq!((other.status, other.code()), (409, "name_taken"));
    // It is for its tenant, and nothing else is a recreate token.
    let ops = client(&hub, "ops").await;
    for (who, token) in [
        (&ops, created.text("recreate_token")),
        (&caller, created.text("ephemeral_token")),
        (&caller, "a.b.c"),
    ] {
        let refused = who
            .post("/tunnels/create", &json!({"recreate_token": token}))
            .await;
        assert_eq!((refused.status, refused.code()), (401, "unauthenticated"));
    }
}

#[tokio::test]
async fn a_deleted_tunnel_ends_and_its_tokens_count_no_more() {
    let target = echo().await;
    let hub = open_hub().start().await;
    let ops = client(&hub, "ops").await;
    let created = ops.create(json!({"requested_name": "shop"})).await;
    let id = created.text("tunnel_id");
    let agent = agent_of(&hub, &created, target.address());
    agent.ready().await;
    let listed = ops.get("/tunnels/list").await;
    assert_eq!(listed.body["tunnels"][0]["state"], "ACTIVE", "{listed:?}");
    assert_eq!(listed.body["tunnels"][0]["edge_id"], "hub");

    let rival = client(&hub, "rival").await;
    for nobody in [&rival, &anonymous(&hub)] {
        let refused = nobody.delete(id).await;
        assert!([401, 404].contains(&refused.status), "{refused:?}");
    }
    assert_eq!(ops.delete(id).await.status, 204);
    agent.problem("its tunnel was deleted").await;
    let gone = ops.delete(id).await;
    assert_eq!((gone.status, gone.code()), (404, "not_found"));
    let again = ops
        .post(
            "/tunnels/create",
            &json!({"recreate_token": created.text("recreate_token")}),
        )
        .await;
    assert_eq!((again.status, again.code()), (401, "unauthenticated"));
    rival.create(json!({"requested_name": "shop"})).await;
}

#[tokio::test]
async fn a_tunnel_without_a_client_is_deleted_with_its_recreate_token() {
    let hub = open_hub().start().await;
    let caller = anonymous(&hub);
    let created = caller.create(json!({})).await;
    let other = caller.create(json!({})).await;
    let with =
        |token: &str| json!({"tunnel_id": created.text("tunnel_id"), "recreate_token": token});
    let wrong = caller
        .post("/tunnels/delete", &with(other.text("recreate_token")))
        .await;
    assert_eq!((wrong.status, wrong.code()), (401, "unauthenticated"));
    let right = caller
        .post("/tunnels/delete", &with(created.text("recreate_token")))
        .await;
    assert_eq!(right.status, 204);
    // Sent again it is as deleted as before.
    let twice = caller
        .post("/tunnels/delete", &with(created.text("recreate_token")))
        .await;
    assert_eq!(twice.status, 204);
}

#[tokio::test]
async fn lists_are_of_one_tenant_and_in_pages() {
    let hub = control_hub("").start().await;
    let (ops, rival) = (client(&hub, "ops").await, client(&hub, "rival").await);
    for name in ["a", "b", "c"] {
        ops.create(json!({"requested_name": name})).await;
    }
    rival.create(json!({"requested_name": "theirs"})).await;
    let mut names = Vec::new();
    let mut path = "/tunnels/list?limit=2".to_owned();
    loop {
        let page = ops.get(&path).await;
        assert_eq!(page.status, 200, "{page:?}");
        let tunnels = page.body["tunnels"].as_array().unwrap();
        assert!(tunnels.len() <= 2);
        for tunnel in tunnels {
            assert_eq!(tunnel["tenant"], "acme");
            assert_eq!(tunnel["state"], "PENDING");
            assert!(tunnel.get("ephemeral_token").is_none());
            names.push(tunnel["name"].as_str().unwrap().to_owned());
        }
        match page.body["next"].as_str() {
            Some(after) => path = format!("/tunnels/list?limit=2&after={after}"),
            None => break,
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
    for bad in ["limit=0", "limit=1001", "limit=x", "more=1"] {
        let refused = ops.get(&format!("/tunnels/list?{bad}")).await;
        assert_eq!((refused.status, refused.code()), (400, "invalid_request"));
    }
}

#[tokio::test]
async fn nobody_is_served_without_what_he_needs() {
    let hub = control_hub("").start().await;
    let nobody = anonymous(&hub);
    let refused = nobody.post("/tunnels/create", &json!({})).await;
    assert_eq!((refused.status, refused.code()), (401, "unauthenticated"));
    assert!(refused.message.field("www-authenticate").is_some());
    for path in ["/tunnels/list", "/v1/names"] {
        let refused = nobody.get(path).await;
        assert_eq!((refused.status, refused.code()), (401, "unauthenticated"));
    }
    for (id, secret) in [("ops", "wrong"), ("nobody", super::SECRET)] {
        let refused = ask_token(&hub, id, secret).await;
        assert_eq!((refused.status, refused.code()), (401, "unauthenticated"));
        assert!(!refused.message.text().contains(super::SECRET));
    }
    // A scope that the token lacks.
    let reader = client(&hub, "reader").await;
    let refused = reader.get("/tunnels/list").await;
    assert_eq!((refused.status, refused.code()), (403, "denied"));
    // Two tokens could be two callers'.
    let ops = client(&hub, "ops").await;
    let wish = json!({"management_token": reader.token});
    let refused = ops.post("/tunnels/create", &wish).await;
    assert_eq!((refused.status, refused.code()), (401, "unauthenticated"));
    let wish = json!({"management_token": ops.token});
    assert_eq!(nobody.create(wish).await.status, 201);
}

#[tokio::test]
async fn a_wish_that_cannot_be_is_told_what_is_wrong() {
    let hub = open_hub().start().await;
    let caller = anonymous(&hub);
    for (wish, words) in [
        (json!({"requested_name": "a.b"}), "letters a to z"),
        (json!({"requested_name": "x".repeat(64)}), "at most 63"),
        (json!({"unknown": 1}), "unknown"),
        (json!({"protocol": "udp"}), "udp"),
        (json!({"recreate_token_ttl_seconds": 60.5}), "whole number"),
        (json!({"recreate_token_ttl_seconds": -60}), "whole number"),
        (json!([]), "one JSON object"),
    ] {
        let refused = caller.post("/tunnels/create", &wish).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert_eq!(refused.code(), "invalid_request");
        assert!(refused.text("detail").contains(words), "{refused:?}");
    }
    let kept = json!({"requested_name": "admin"});
    let refused = caller.post("/tunnels/create", &kept).await;
    assert_eq!((refused.status, refused.code()), (409, "name_taken"));
    let long = json!({"requested_name": "x".repeat(20_000)});
    let refused = caller.post("/tunnels/create", &long).await;
    assert_eq!((refused.status, refused.code()), (413, "too_large"));
    let refused = caller.get("/nowhere").await;
    assert_eq!((refused.status, refused.code()), (404, "not_found"));
    let refused = caller.get("/tunnels/create").await;
    assert_eq!(
        (refused.status, refused.code()),
        (405, "method_not_allowed")
    );
}

#[tokio::test]
async fn policies_decide_who_publishes_what() {
    let hub = open_hub()
        .policy_file(
            "no-banks.cedar",
            "@id(\"no-banks\")\n@error(\"reserved_word\")\n@advice(\"choose another name\")\n\
             forbid (principal, action == NowConnect::Action::\"endpoint-create\", resource)\n\
             when { resource.host like \"*bank*\" };\n",
        )
        .start()
        .await;
    let caller = anonymous(&hub);
    let refused = caller
        .post("/tunnels/create", &json!({"requested_name": "my-bank"}))
        .await;
    assert_eq!((refused.status, refused.code()), (403, "denied"));
    assert!(refused.text("detail").contains("choose another name"));
    let denied = hub.decisions();
    let denied = denied.iter().find(|record| !record.allow).unwrap();
    assert_eq!(denied.code.as_deref(), Some("reserved_word"));
    // Nothing was made.
    assert!(hub.metrics().contains("nowconnect_"), "the hub serves");
    caller.create(json!({"requested_name": "my-shop"})).await;
}

#[tokio::test]
async fn quotas_and_rates_are_bounds() {
    let hub = control_hub("max_endpoints_per_tenant: 2").start().await;
    let ops = client(&hub, "ops").await;
    for _ in 0..2 {
        ops.create(json!({})).await;
    }
    let refused = ops.post("/tunnels/create", &json!({})).await;
    assert_eq!((refused.status, refused.code()), (403, "quota_exceeded"));
    client(&hub, "rival").await.create(json!({})).await;

    let hub = crate::cluster::hub()
        .top("control: {listen: \"127.0.0.1:0\", rate_per_source: {per_second: 1, burst: 2}}")
        .start()
        .await;
    let mut statuses = BTreeSet::new();
    for _ in 0..10 {
        let answer = anonymous(&hub).get("/.well-known/jwks.json").await;
        if answer.status == 429 {
            assert_eq!(answer.code(), "rate_limited");
            assert!(answer.message.field("retry-after").is_some());
        }
        statuses.insert(answer.status);
    }
    assert_eq!(statuses, BTreeSet::from([200, 429]));
}

#[tokio::test]
async fn a_request_sent_again_with_its_key_is_done_once() {
    const KEY: &str = "9f3c1a52-7d0e-4e6b-8a53-0b1f2c3d4e5f";
    const OTHER_KEY: &str = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9";
    let hub = open_hub().start().await;
    let caller = anonymous(&hub);
    let send = async |key: &str, wish: serde_json::Value| {
        let fields = [("idempotency-key", key)];
        caller
            .call("POST", "/tunnels/create", &fields, Some(&wish))
            .await
    };
    let first = send(KEY, json!({"requested_name": "shop"})).await;
    let again = send(KEY, json!({"requested_name": "shop"})).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body);
    let other = send(KEY, json!({"requested_name": "other"})).await;
    assert_eq!((other.status, other.code()), (409, "idempotency_conflict"));
    let next = send(OTHER_KEY, json!({})).await;
    assert_ne!(next.text("tunnel_id"), first.text("tunnel_id"));
    // Whoever shares this address could have guessed it.
    let guessable = send("k-1", json!({})).await;
    assert_eq!(
        (guessable.status, guessable.code()),
        (400, "invalid_request")
    );
}
