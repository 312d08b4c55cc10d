//! What is given out outlives the hub.

use serde_json::json;

use super::{agent_of, anonymous, client, control_hub, open_hub};
use crate::cluster::echo;

#[tokio::test]
async fn names_keys_and_used_tokens_outlive_a_killed_hub() {
    let file = "public_url: \"http://control.test\"\nstate_file: state/control.redb\nanonymous: {enabled: true}\ngrace_sec: 600";
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
