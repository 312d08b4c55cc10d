//! Every answer of the hub itself, by its cause.

use nowconnect::telemetry::decisions::DecisionAction;

use super::{PERMIT_HTTP, SHOP, web, web_hub};
use crate::cluster::refuse;
use crate::cluster::web::{ask, get, origin};

#[tokio::test]
async fn an_unknown_host_or_path_is_404() {
    let route = "name: shop, host: shop.example.com, path: /api, connector: shop, public: true";
    let hub = web_hub(&[route]).start().await;
    let answer = get(web(&hub), "elsewhere.example.com", "/api").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (404, "unknown_host")
    );
    let answer = get(web(&hub), "shop.example.com", "/apix").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (404, "unknown_path")
    );
}

#[tokio::test]
async fn a_route_without_an_agent_is_503_with_retry_after() {
    let hub = web_hub(&[SHOP]).start().await;
    let answer = get(web(&hub), "shop.example.com", "/").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (503, "endpoint_offline")
    );
    assert_eq!(answer.field("retry-after").as_deref(), Some("5"));
    assert_eq!(
        answer.field("content-type").as_deref(),
        Some("application/problem+json")
    );
}

#[tokio::test]
async fn an_origin_that_cannot_be_reached_is_502() {
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", refuse().await).await;
    let answer = get(web(&hub), "shop.example.com", "/").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (502, "origin_unreachable")
    );
    let post = "POST / HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: 3\r\n\r\nabc";
    let answer = ask(web(&hub), post).await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (502, "origin_unreachable")
    );
}

#[tokio::test]
async fn an_origin_that_speaks_no_http_is_502() {
    let origin = origin(&[("/", "220 mail ready\r\n"), ("/gone", "")]).await;
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let answer = get(web(&hub), "shop.example.com", "/").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (502, "origin_protocol")
    );
    let answer = get(web(&hub), "shop.example.com", "/gone").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (502, "origin_closed")
    );
}

#[tokio::test]
async fn a_policy_denies_with_its_code_and_the_decision() {
    let origin = origin(&[]).await;
    let hub = web_hub(&[SHOP])
        .policy_file(
            "admin.cedar",
            "@id(\"no-admin\")\n@error(\"admin_closed\")\n@advice(\"use the intranet\")\n\
             forbid (principal, action == NowConnect::Action::\"http-request\", resource)\n\
             when { context.http.path like \"/admin*\" };\n",
        )
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    assert_eq!(get(web(&hub), "shop.example.com", "/").await.status(), 200);
    for path in [
        "/admin",
        "/%61dmin/x",
        "/x/../admin",
        "//admin",
        "/x/%2e%2e/admin",
    ] {
        let answer = get(web(&hub), "shop.example.com", path).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (403, "admin_closed"),
            "{path}"
        );
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["detail"], "use the intranet");
        let record = hub
            .decisions()
            .into_iter()
            .find(|record| problem["decision_id"] == record.decision_id.to_string())
            .expect("the denial should have a record");
        assert_eq!(record.action, DecisionAction::HttpRequest);
        assert!(!record.allow);
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn an_endpoint_that_is_not_public_lets_nobody_in_unknown() {
    let origin = origin(&[]).await;
    let hub = web_hub(&["name: shop, host: shop.example.com, connector: shop"])
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let answer = get(web(&hub), "shop.example.com", "/").await;
    assert_eq!(answer.status(), 403);
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn swapped_policies_turn_200_into_403() {
    let origin = origin(&[]).await;
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    assert_eq!(get(web(&hub), "shop.example.com", "/").await.status(), 200);
    hub.write_policy("http.cedar", &super::closed());
    assert!(hub.reload().await.ok);
    assert_eq!(get(web(&hub), "shop.example.com", "/").await.status(), 403);
    hub.write_policy("http.cedar", PERMIT_HTTP);
    hub.write_policy("open.cedar", &crate::cluster::forbid_open("shop"));
    assert!(hub.reload().await.ok);
    let answer = get(web(&hub), "shop.example.com", "/").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (403, "closed_today")
    );
}
