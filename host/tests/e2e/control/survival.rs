//! What is given out outlives the hub.

use nowconnect::admin::view::AgentAddressQuery;
use serde_json::{Value, json};

use super::{agent_of, anonymous, client, control_hub, open_hub};
use crate::cluster::{TestHub, command, echo, eventually};

#[tokio::test]
async fn names_keys_and_used_tokens_outlive_a_killed_hub() {
    let file = "public_url: \"http://localhost\"\nstate_file: state/control.redb\nanonymous: {enabled: true}\ngrace_sec: 600";
    let mut hub = control_hub(file).start_process().await;
    let target = echo().await;
    let caller = anonymous(&hub);
    let created = caller.create(json!({"requested_name": "shop"})).await;
    agent_of(&hub, &created, target.address()).ready().await;
    let ops = client(&hub, "ops").await;
    let reserved = ops.post("/v1/names", &json!({"name": "mine"})).await;
    assert_eq!(reserved.status, 200);
    let set = caller.get("/.well-known/jwks.json").await.body;
    hub.process().signal("KILL").await;
    hub.process().ended().await;

    hub.start_again().await;
    let caller = anonymous(&hub);
    assert_eq!(caller.get("/.well-known/jwks.json").await.body, set);
    let taken = caller
        .post("/tunnels/create", &json!({"requested_name": "shop"}))
        .await;
    assert_eq!((taken.status, taken.code()), (409, "name_taken"));
    agent_of(&hub, &created, target.address())
        .problem("token_used")
        .await;
    let again = caller
        .create(json!({"recreate_token": created.text("recreate_token")}))
        .await;
    assert_eq!(again.text("tunnel_id"), created.text("tunnel_id"));
    agent_of(&hub, &again, target.address()).ready().await;
    let names = client(&hub, "ops").await.get("/v1/names").await;
    assert_eq!(names.body["names"][0]["name"], "mine");
}

#[tokio::test]
async fn without_a_file_every_name_is_free_after_a_restart() {
    let mut hub = open_hub().start().await;
    let wish = json!({"requested_name": "shop"});
    anonymous(&hub).create(wish.clone()).await;
    hub.restart().await;
    anonymous(&hub).create(wish).await;
}

#[tokio::test]
async fn a_backup_brings_everything_back() {
    let target = echo().await;
    let file = "public_url: \"http://localhost\"\nstate_file: state/control.redb\n\
                anonymous: {enabled: true}\ngrace_sec: 600";
    let mut hub = control_hub(file).start_process().await;
    let caller = anonymous(&hub);
    let created = caller.create(json!({"requested_name": "shop"})).await;
    agent_of(&hub, &created, target.address()).ready().await;
    let ops = client(&hub, "ops").await;
    for name in ["mine", "ours"] {
        let reserved = ops.post("/v1/names", &json!({"name": name})).await;
        assert_eq!(reserved.status, 200);
    }
    let deleted = ops.create(json!({"requested_name": "gone"})).await;
    assert_eq!(ops.delete(deleted.text("tunnel_id")).await.status, 204);
    let before = everything(&hub).await;

    let (config, socket) = (hub.path("cloud.yaml"), hub.path("admin.sock"));
    let (config, socket) = (config.to_str().unwrap(), socket.to_str().unwrap());
    let backup = hub.path("backup.redb");
    let backup = backup.to_str().unwrap();
    let (code, out) = command(&["state", "backup", backup, "--socket", socket]).await;
    assert_eq!(code, Some(0), "{out}");
    let (code, _) = command(&["state", "backup", backup, "--socket", socket]).await;
    assert_eq!(code, Some(1), "what is there is not written over");
    // The hub has the file.
    let restore = ["state", "restore", backup, "--config", config];
    assert_eq!(command(&restore).await.0, Some(1));

    // Everything that comes later is lost with the file.
    for id in ["ops", "keeper"] {
        let client = client(&hub, id).await;
        let name = json!({"name": format!("later-{id}")});
        assert_eq!(client.post("/v1/names", &name).await.status, 200);
    }
    let (code, out) = command(&["state", "rotate-keys", "--distrust", "--socket", socket]).await;
    assert_eq!(code, Some(0), "{out}");
    let refused = ops.get("/v1/names").await;
    assert_eq!((refused.status, refused.code()), (401, "unauthenticated"));
    hub.process().signal("KILL").await;
    hub.process().ended().await;
    let (code, out) = command(&restore).await;
    assert_eq!(code, Some(0), "{out}");

    hub.start_again().await;
    assert_eq!(everything(&hub).await, before);
    let again = anonymous(&hub)
        .create(json!({"recreate_token": created.text("recreate_token")}))
        .await;
    assert_eq!(again.text("tunnel_id"), created.text("tunnel_id"));
    agent_of(&hub, &created, target.address())
        .problem("token_used")
        .await;
    let gone = json!({"recreate_token": deleted.text("recreate_token")});
    let still = client(&hub, "ops")
        .await
        .post("/tunnels/create", &gone)
        .await;
    assert_eq!((still.status, still.code()), (401, "unauthenticated"));
    // The token of then counts: its key came back.
    let ops = super::Caller {
        token: ops.token,
        ..anonymous(&hub)
    };
    assert_eq!(ops.get("/v1/names").await.status, 200);
}

/// What an operator sees of what is kept.
async fn everything(hub: &TestHub) -> Vec<Value> {
    let ops = client(hub, "ops").await;
    let mut seen = Vec::new();
    for path in ["/.well-known/jwks.json", "/v1/names", "/tunnels/list"] {
        seen.push(ops.get(path).await.body);
    }
    seen
}

#[tokio::test]
async fn keys_change_at_run_time_and_what_they_signed_stays_good() {
    let target = echo().await;
    let hub = open_hub().admin().start().await;
    let ops = client(&hub, "ops").await;
    let created = anonymous(&hub).create(json!({})).await;
    let key = hub.operator().rotate_keys(false).await.unwrap().key;
    let set = anonymous(&hub).get("/.well-known/jwks.json").await;
    let keys = set.body["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys.iter().any(|one| one["kid"] == json!(key)));
    // Signed before, and proven after.
    agent_of(&hub, &created, target.address()).ready().await;
    assert_eq!(ops.get("/tunnels/list").await.status, 200);

    let second = anonymous(&hub).create(json!({})).await;
    hub.operator().rotate_keys(true).await.unwrap();
    agent_of(&hub, &second, target.address())
        .problem("token_key_unknown")
        .await;
    let refused = ops.get("/tunnels/list").await;
    assert_eq!((refused.status, refused.code()), (401, "unauthenticated"));
    let third = anonymous(&hub).create(json!({})).await;
    agent_of(&hub, &third, target.address()).ready().await;
}

/// Only who may ask for it is told, and so also after a restart.
#[tokio::test]
async fn where_agents_were_is_known_after_a_restart() {
    let file = "public_url: \"http://localhost\"\nstate_file: state/control.redb";
    let mut hub = control_hub(file).start_process().await;
    let target = echo().await;
    let agent = hub.plant("echo", target.address()).await;
    let asked = AgentAddressQuery {
        agent: Some("plant".to_owned()),
        ..AgentAddressQuery::default()
    };
    // The agent may know that it is let in a moment before this is noted.
    eventually("the address to be noted", || async {
        let page = hub.operator().agent_addresses(&asked).await.unwrap();
        page.addresses.len() == 1
    })
    .await;
    let before = hub.operator().agent_addresses(&asked).await.unwrap();
    drop(agent);
    hub.process().signal("TERM").await;
    hub.process().ended().await;
    hub.start_again().await;
    let after = hub.operator().agent_addresses(&asked).await.unwrap();
    assert_eq!(after, before);

    let socket = hub.path("admin.sock");
    let (code, out) = command(&[
        "agent",
        "address",
        "plant",
        "--socket",
        socket.to_str().unwrap(),
    ])
    .await;
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains(&before.addresses[0].address.to_string()),
        "{out}"
    );
}

#[tokio::test]
async fn an_operator_is_told_when_the_file_fails() {
    /// Room for a new file, and for some hundred names.
    const LARGEST_BYTES: u64 = 2 << 20;
    let file =
        "state_file: state/control.redb\nmax_endpoints_per_tenant: 1000000\nmax_endpoints: 1000000";
    let any_number = "@id(\"any-number\") permit (principal, action == NowConnect::Action::\"endpoint-create\", resource);";
    let mut hub = control_hub(file)
        .policy_file("any-number.cedar", any_number)
        .largest_file(LARGEST_BYTES)
        .start_process()
        .await;
    let ready = hub.get("/readyz").await.1;
    assert!(!ready.contains("state_failed"), "{ready}");
    let caller = client(&hub, "ops").await;
    // Until the file can grow no more.
    let wish = json!({});
    loop {
        let answer = caller.post("/tunnels/create", &wish).await;
        match answer.status {
            201 => {}
            503 => break assert_eq!(answer.code(), "unavailable"),
            _ => panic!("{answer:?}"),
        }
    }
    eventually("the hub says so", async || {
        let (status, body) = hub.get("/readyz").await;
        assert_eq!(status, 200, "requests to published names are still served");
        body.contains("\"state_failed\"")
    })
    .await;
    let process = &*hub.process();
    eventually("the log says so, too", async || {
        let log = process.log();
        log.iter().any(|line| line.contains("control_state_failed"))
    })
    .await;
}
