//! Connections to origins that are no longer there, and who is asked instead.

use super::streams::Played;
use super::{SHOP, web, web_hub, web_hub_with};
use crate::cluster::web::{Message, Web, get, origin};
use crate::cluster::{TestAgent, TestHub, refuse};

#[tokio::test]
async fn a_kept_connection_gives_its_place_up() {
    let origin = origin(&[]).await;
    // Connections of the one are not for the other: they may be silent for another time.
    let other = format!(
        "{}, path: /other, idle_timeout_ms: 50000",
        SHOP.replace("name: shop", "name: other")
    );
    let hub = web_hub(&[SHOP, &other])
        .top("connectors: {shop: {max_connections: 1}}")
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    for path in ["/a", "/other", "/b", "/other/c"] {
        let answer = get(web(&hub), "shop.example.com", path).await;
        assert_eq!((answer.status(), answer.text()), (200, path.to_owned()));
    }
    assert_eq!(origin.connections(), 4);
    let metrics = hub.metrics();
    assert!(metrics.contains("nowconnect_http_upstream_evictions_total 3\n"));
}

#[tokio::test]
async fn what_the_hub_itself_ends_is_not_repeated() {
    let origin = Played::new().await;
    let hub = web_hub(&[SHOP]).admin().start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let mut viewer = Web::connect(web(&hub)).await;
    viewer.send(request("GET", "/1")).await;
    let mut service = origin.accept().await;
    service.head().await.unwrap();
    service.send(ONE).await;
    assert_eq!(viewer.response().await.text(), "1");
    viewer.send(request("GET", "/2")).await;
    service.head().await.unwrap();
    let operator = hub.operator();
    let flows = operator.flows(&Default::default()).await.unwrap().flows;
    operator.close_flow(&flows[0].flow).await.unwrap();
    let answer = viewer.response().await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (502, "origin_closed")
    );
    assert!(!hub.metrics().contains("nowconnect_http_retries_total{"));
}

#[tokio::test]
async fn a_request_that_may_be_repeated_is_tried_on_another_agent() {
    let (hub, services, _agents) = two_agents().await;
    let mut viewer = Web::connect(web(&hub)).await;
    viewer.send(request("GET", "/a")).await;
    let (first, service, head) = reached(&services).await;
    assert_eq!(head.first_line, "GET /a HTTP/1.1");
    // It has read the request, and breaks.
    drop(service);
    let mut service = services[1 - first].accept().await;
    let head = service.head().await.unwrap();
    assert_eq!(head.first_line, "GET /a HTTP/1.1");
    service.send(ONE).await;
    assert_eq!(viewer.response().await.text(), "1");
    assert!(
        hub.metrics()
            .contains("nowconnect_http_retries_total{why=\"lost\"} 1\n")
    );
}

#[tokio::test]
async fn a_request_that_may_not_be_repeated_is_not() {
    let (hub, services, _agents) = two_agents().await;
    for (method, body) in [("POST", ""), ("POST", "abc"), ("PUT", "abc")] {
        let mut viewer = Web::connect(web(&hub)).await;
        let length = body.len();
        viewer
            .send(format!(
                "{method} /a HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: {length}\r\n\r\n{body}"
            ))
            .await;
        let (_, mut service, _) = reached(&services).await;
        service.exactly(length).await;
        drop(service);
        let answer = viewer.response().await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (502, "origin_closed"),
            "{method} {body}"
        );
    }
}

#[tokio::test]
async fn what_reached_no_origin_is_tried_on_another_agent_with_its_body() {
    let there = origin(&[]).await;
    let route = format!("{SHOP}, balance: round_robin");
    let hub = web_hub_with(&[&route], "").start().await;
    let _dead = hub
        .agent("one")
        .target("shop", refuse().await)
        .ready()
        .await;
    let _alive = hub
        .agent("two")
        .target("shop", there.address())
        .ready()
        .await;
    for _ in 0..4 {
        let answer = crate::cluster::web::ask(
            web(&hub),
            "POST /a HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: 3\r\n\r\nabc",
        )
        .await;
        assert_eq!(answer.status(), 200);
        assert_eq!(there.last().body, b"abc");
    }
    assert!(
        hub.metrics()
            .contains("nowconnect_http_retries_total{why=\"not_reached\"}")
    );
}

const ONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1";

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: shop.example.com\r\n\r\n")
}

async fn two_agents() -> (TestHub, [Played; 2], [TestAgent; 2]) {
    let services = [Played::new().await, Played::new().await];
    let hub = web_hub(&[SHOP]).start().await;
    let one = hub.agent("one").target("shop", services[0].address());
    let one = one.ready().await;
    let two = hub.agent("two").target("shop", services[1].address());
    let two = two.ready().await;
    (hub, services, [one, two])
}

/// Which service a request reaches, and its head there.
async fn reached(services: &[Played; 2]) -> (usize, Web, Message) {
    let (reached, mut service) = tokio::select! {
        service = services[0].accept() => (0, service),
        service = services[1].accept() => (1, service),
    };
    let head = service.head().await.unwrap();
    (reached, service, head)
}
