//! Names that a tenant keeps for itself.

use serde_json::json;

use super::{client, control_hub};

#[tokio::test]
async fn a_reserved_name_is_its_tenants_until_it_is_released() {
    let hub = control_hub("max_names_per_tenant: 2").start().await;
    let (ops, rival) = (client(&hub, "ops").await, client(&hub, "rival").await);
    let reserved = ops.post("/v1/names", &json!({"name": "Shop"})).await;
    assert_eq!(reserved.status, 200, "{reserved:?}");
    assert_eq!(reserved.text("name"), "shop");
    assert_eq!(reserved.text("public_hostname"), "shop.tunnels.example.com");
    assert_eq!(reserved.text("tenant"), "acme");
    // Again changes nothing.
    let again = ops.post("/v1/names", &json!({"name": "shop"})).await;
    assert_eq!(again.body, reserved.body);

    let taken = rival.post("/v1/names", &json!({"name": "shop"})).await;
    assert_eq!((taken.status, taken.code()), (409, "name_taken"));
    let taken = rival
        .post("/tunnels/create", &json!({"requested_name": "shop"}))
        .await;
    assert_eq!((taken.status, taken.code()), (409, "name_taken"));
    assert!(!taken.text("detail").contains("acme"), "{taken:?}");
    ops.create(json!({"requested_name": "shop"})).await;

    assert_eq!(
        ops.post("/v1/names", &json!({"name": "b"})).await.status,
        200
    );
    let full = ops.post("/v1/names", &json!({"name": "c"})).await;
    assert_eq!((full.status, full.code()), (403, "quota_exceeded"));

    let listed = ops.get("/v1/names").await;
    assert_eq!(listed.body["names"].as_array().unwrap().len(), 2);
    let theirs = rival.get("/v1/names").await;
    assert_eq!(theirs.body["names"], json!([]));

    let no = rival.call("DELETE", "/v1/names/shop", &[], None).await;
    assert_eq!((no.status, no.code()), (404, "not_found"));
    let yes = ops.call("DELETE", "/v1/names/b", &[], None).await;
    assert_eq!(yes.status, 204);
    let reserved = rival.post("/v1/names", &json!({"name": "b"})).await;
    assert_eq!(reserved.status, 200);
}

#[tokio::test]
async fn policies_can_keep_what_is_reserved_from_being_taken_away() {
    let keep = "@id(\"reserved-stays\") forbid (principal, \
                action == NowConnect::Action::\"admin-close-endpoint\", \
                resource is NowConnect::Endpoint) when { resource.reserved };";
    let hub = control_hub("")
        .policy_file("keep.cedar", keep)
        .start()
        .await;
    let ops = client(&hub, "ops").await;
    let name = ops.post("/v1/names", &json!({"name": "mine"})).await;
    assert_eq!(name.status, 200);
    let reserved = ops.create(json!({"requested_name": "mine"})).await;
    let other = ops.create(json!({"requested_name": "other"})).await;
    let kept = ops.delete(reserved.text("tunnel_id")).await;
    assert_eq!((kept.status, kept.code()), (403, "denied"));
    let kept = ops.call("DELETE", "/v1/names/mine", &[], None).await;
    assert_eq!((kept.status, kept.code()), (403, "denied"));
    assert_eq!(ops.delete(other.text("tunnel_id")).await.status, 204);
}
