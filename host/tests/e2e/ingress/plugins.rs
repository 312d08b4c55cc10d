//! Plugins see each request and each response, and change what they were granted.

use super::{SHOP, ingress, web, web_hub};
use crate::cluster::web::{ask, get, origin};
use crate::cluster::{HubPlan, guest, hub};

#[tokio::test]
async fn headers_tell_the_origin_who_asks_and_hide_where_the_agent_is() {
    let origin = origin(&[]).await;
    let hub = with_plugin(
        "header-inject",
        "config, \"headers.set:x-forwarded-for, x-netbore-*, x-tenant-*\", \
         \"headers.remove:x-netbore-*\"",
        "set: {x-tenant-user: \"{connector} by {endpoint}\"}",
    )
    .start()
    .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let head = "GET / HTTP/1.1\r\nhost: shop.example.com\r\nx-netbore-agent-ip: 1.2.3.4\r\n\
                x-forwarded-for: 1.2.3.4\r\n\r\n";
    assert_eq!(ask(web(&hub), head).await.status(), 200);
    let seen = origin.last();
    let field = |name: &str| seen.field(name).unwrap_or_default();
    assert_eq!(field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(field("x-netbore-client-ip"), "127.0.0.1");
    assert_eq!(field("x-netbore-agent-ip"), "127.0.0.0");
    assert_eq!(field("x-tenant-user"), "shop by shop");
}

#[tokio::test]
async fn an_edit_without_its_grant_is_a_fault_and_nothing_passes() {
    let origin = origin(&[]).await;
    let hub = with_plugin("header-inject", "config, \"headers.set:x-other\"", "{}")
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let answer = get(web(&hub), "shop.example.com", "/").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (503, "plugin_failed")
    );
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn plugins_are_swapped_while_requests_pass() {
    let origin = origin(&[]).await;
    let mut hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    assert_eq!(get(web(&hub), "shop.example.com", "/").await.status(), 200);
    assert_eq!(origin.last().field("x-netbore-client-ip"), None);
    hub.clear_top();
    hub.rewrite(|plan| {
        let grants = "config, \"headers.set:x-forwarded-for, x-netbore-*\", \
                      \"headers.remove:x-netbore-*\"";
        plan.top(&plugin("header-inject", grants, "{}"))
            .top(&ingress(&[SHOP], ""))
    });
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    assert_eq!(get(web(&hub), "shop.example.com", "/").await.status(), 200);
    assert!(origin.last().field("x-netbore-client-ip").is_some());
}

fn with_plugin(name: &str, grants: &str, config: &str) -> HubPlan {
    hub()
        .policy_file("http.cedar", super::PERMIT_HTTP)
        .top(&plugin(name, grants, config))
        .top(&ingress(&[SHOP], ""))
}

fn plugin(name: &str, grants: &str, config: &str) -> String {
    let config = if config.starts_with('{') {
        config.to_owned()
    } else {
        format!("{{{config}}}")
    };
    format!(
        "plugins:\n  require_signature: false\n  list:\n    - {{name: {name}, file: \"{}\", grants: [{grants}], \
         limits: {{time_ms: 1000, wall_ms: 2000}}, config: {config}}}\n  \
         pipeline_timeout_ms: 5000",
        guest::component(name).display()
    )
}
