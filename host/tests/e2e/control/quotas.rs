//! How much each tenant may have, said at run time.

use serde_json::{Value, json};

use super::{Caller, anonymous, client, control_hub};
use crate::cluster::{HubPlan, TestHub, eventually};

/// A hub whose policies let the shipped role for quotas set them, and nobody else.
fn quota_hub(lines: &str) -> HubPlan {
    let role = "@id(\"quotas-by-role\") forbid (principal, action == NowConnect::Action::\"admin-set-quota\", resource) \
                unless { principal in NowConnect::Role::\"quota-admin\" };";
    control_hub(lines).policy_file("quotas.cedar", role)
}

async fn put(caller: &Caller, tenant: &str, quota: Value) -> super::Answer {
    let path = format!("/v1/quotas/{tenant}");
    caller.call("PUT", &path, &[], Some(&quota)).await
}

async fn refused(hub: &TestHub, id: &str) -> String {
    let caller = client(hub, id).await;
    let answer = caller.post("/tunnels/create", &json!({})).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    answer.code().to_owned()
}

#[tokio::test]
async fn a_tenant_gets_more_or_less_than_everybody_has() {
    let hub = quota_hub("max_endpoints_per_tenant: 1\nmax_endpoints: 50")
        .start()
        .await;
    let billing = client(&hub, "billing").await;
    let ops = client(&hub, "ops").await;
    ops.create(json!({})).await;
    assert_eq!(refused(&hub, "ops").await, "quota_exceeded");

    let given = put(&billing, "acme", json!({"endpoints": 2, "names": 0})).await;
    assert_eq!(given.status, 200, "{given:?}");
    assert_eq!(
        given.body["endpoints"],
        json!({"limit": 2, "own": true, "used": 1})
    );
    assert_eq!(given.text("changed_by"), "acme/billing");
    ops.create(json!({})).await;
    assert_eq!(refused(&hub, "ops").await, "quota_exceeded");
    let name = ops.post("/v1/names", &json!({"name": "mine"})).await;
    assert_eq!((name.status, name.code()), (403, "quota_exceeded"));

    // Less than it has takes nothing away.
    put(&billing, "acme", json!({"endpoints": 0})).await;
    let shown = billing.get("/v1/quotas/acme").await;
    assert_eq!(
        shown.body["endpoints"],
        json!({"limit": 0, "own": true, "used": 2})
    );
    assert_eq!(shown.body["names"]["own"], false);
    let list = ops.get("/tunnels/list").await;
    assert_eq!(list.body["tunnels"].as_array().unwrap().len(), 2);
    let page = billing.get("/v1/quotas").await;
    assert_eq!(page.body["quotas"][0]["tenant"], "acme");

    let gone = billing.call("DELETE", "/v1/quotas/acme", &[], None).await;
    assert_eq!(gone.status, 204);
    let gone = billing.call("DELETE", "/v1/quotas/acme", &[], None).await;
    assert_eq!((gone.status, gone.code()), (404, "not_found"));
    let shown = billing.get("/v1/quotas/acme").await;
    assert_eq!(
        shown.body["endpoints"],
        json!({"limit": 1, "own": false, "used": 2})
    );
    assert!(shown.body["changed_at"].is_null());
}

#[tokio::test]
async fn quotas_are_set_by_whom_policies_let_and_within_what_the_hub_has() {
    let hub = quota_hub("max_endpoints: 50\nmax_names: 20").start().await;
    let (billing, keeper) = (client(&hub, "billing").await, client(&hub, "keeper").await);
    let denied = put(&keeper, "acme", json!({"endpoints": 9})).await;
    assert_eq!((denied.status, denied.code()), (403, "denied"));
    // It sees its own all the same; who lacks the scope does not.
    assert_eq!(keeper.get("/v1/quotas/acme").await.status, 200);
    let unscoped = client(&hub, "ops").await.get("/v1/quotas/acme").await;
    assert_eq!((unscoped.status, unscoped.code()), (403, "denied"));
    let nobody = anonymous(&hub).get("/v1/quotas").await;
    assert_eq!((nobody.status, nobody.code()), (401, "unauthenticated"));
    for (tenant, quota, refusal, detail) in [
        (
            "acme",
            json!({"endpoints": 51}),
            (403, "quota_exceeded"),
            "control.max_endpoints",
        ),
        (
            "acme",
            json!({"names": 21}),
            (403, "quota_exceeded"),
            "control.max_names",
        ),
        (
            "not%20one",
            json!({"endpoints": 1}),
            (400, "invalid_request"),
            "tenant name",
        ),
    ] {
        let refused = put(&billing, tenant, quota).await;
        assert_eq!((refused.status, refused.code()), refusal);
        assert!(refused.text("detail").contains(detail), "{refused:?}");
    }
    put(&billing, "acme", json!({"endpoints": 50.0, "names": 20})).await;
    eventually("a record says who did it", || async {
        let records = hub.decisions();
        records
            .iter()
            .any(|record| record.principal.contains("acme/billing"))
    })
    .await;
}

#[tokio::test]
async fn quotas_outlive_a_killed_hub() {
    let file = "public_url: \"http://localhost\"\nstate_file: state/control.redb";
    let mut hub = quota_hub(file).start_process().await;
    let billing = client(&hub, "billing").await;
    let given = put(&billing, "rival", json!({"endpoints": 0})).await;
    assert_eq!(given.status, 200, "{given:?}");
    hub.process().signal("KILL").await;
    hub.process().ended().await;
    hub.start_again().await;
    assert_eq!(refused(&hub, "rival").await, "quota_exceeded");
}
