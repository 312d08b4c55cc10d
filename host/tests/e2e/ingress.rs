//! HTTP by host name: a viewer, the hub, an agent and an origin.

mod agent_lost;
mod agents;
mod assertions;
mod certificates;
mod endings;
mod http2;
mod origins;
mod plugins;
mod repeats;
mod requests;
mod statuses;
mod streams;
mod traces;
mod viewer_files;
mod viewers;

use crate::cluster::web::{Web, get, origin};
use crate::cluster::{HubPlan, HubProcess, TestHub, hub};

/// What lets HTTP through, beside what lets agents in.
pub(crate) const PERMIT_HTTP: &str = r#"
@id("base-http")
permit (principal is NowConnect::Viewer, action == NowConnect::Action::"http-request", resource)
when { resource.public };
@id("base-upstream")
permit (principal is NowConnect::Node, action == NowConnect::Action::"upstream-open", resource);
"#;

/// A hub with one HTTP port `web` and these routes, as inline YAML.
pub(crate) fn web_hub(routes: &[&str]) -> HubPlan {
    web_hub_with(routes, "")
}

/// The same, with further lines of `ingress`.
pub(crate) fn web_hub_with(routes: &[&str], more: &str) -> HubPlan {
    hub()
        .policy_file("http.cedar", PERMIT_HTTP)
        .top(&ingress(routes, more))
}

pub(crate) fn ingress(routes: &[&str], more: &str) -> String {
    let mut text = String::from(
        "ingress:\n  listeners:\n    - {name: web, bind: \"127.0.0.1:0\"}\n  routes:\n",
    );
    for route in routes {
        text.push_str(&format!("    - {{{route}}}\n"));
    }
    for line in more.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

pub(crate) const SHOP: &str = "name: shop, host: shop.example.com, connector: shop, public: true";

/// The same, letting no request through.
pub(crate) fn closed() -> String {
    PERMIT_HTTP.replace("resource.public", "context.http.method == \"NONE\"")
}

pub(crate) fn web(hub: &TestHub) -> std::net::SocketAddr {
    hub.address("web")
}

/// Where the HTTP port of a hub of its own process is, as it says.
pub(crate) fn web_of(hub: &HubProcess) -> std::net::SocketAddr {
    let log = hub.log();
    let mut lines = log.iter();
    let line = lines.find(|line| line.contains("an HTTP listener accepts viewers"));
    let (_, rest) = line.unwrap().split_once("127.0.0.1:").unwrap();
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    ([127, 0, 0, 1], port.parse().unwrap()).into()
}

#[tokio::test]
async fn a_request_reaches_the_service_behind_its_host() {
    let origin = origin(&[]).await;
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let answer = get(web(&hub), "Shop.Example.com.:8082", "/buy/%61?q=%2e%2e").await;
    assert_eq!((answer.status(), answer.text()), (200, "/buy/a".to_owned()));
    let id = answer.field("x-request-id").unwrap();
    let seen = origin.last();
    assert_eq!(seen.first_line, "GET /buy/a?q=%2e%2e HTTP/1.1");
    assert_eq!(seen.field("host").as_deref(), Some("shop.example.com:8082"));
    assert_eq!(seen.field("x-request-id"), Some(id));
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("http"));
    assert!(
        hub.metrics()
            .contains("nowconnect_http_requests_total{endpoint=\"shop\",status=\"2xx\"} 1")
    );
}

#[tokio::test]
async fn requests_share_a_connection_to_the_origin() {
    let origin = origin(&[]).await;
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let mut viewer = Web::connect(web(&hub)).await;
    for round in 0..5 {
        viewer
            .send(format!(
                "GET /{round} HTTP/1.1\r\nhost: shop.example.com\r\n\r\n"
            ))
            .await;
        assert_eq!(viewer.response().await.text(), format!("/{round}"));
    }
    assert_eq!(get(web(&hub), "shop.example.com", "/5").await.status(), 200);
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.seen().len(), 6);
}
