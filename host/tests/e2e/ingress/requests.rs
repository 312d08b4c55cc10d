//! What requests may look like, and what an origin sees of them.

use super::{SHOP, web, web_hub, web_hub_with};
use crate::cluster::eventually;
use crate::cluster::web::{Web, ask, get, origin};

/// Each is refused, or read as one request and sent on in one form; none leaves a second request
/// behind that its sender did not mean.
#[tokio::test]
async fn nothing_can_be_smuggled_past_the_hub() {
    let origin = origin(&[]).await;
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let refused = [
        "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "content-length: 3, 4\r\n\r\nabcd",
        "content-length: +3\r\n\r\nabc",
        "content-length: -1\r\n\r\n",
        "content-length: 0x3\r\n\r\nabc",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: identity\r\ncontent-length: 3\r\n\r\nabc",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding\r\n: chunked\r\n\r\n0\r\n\r\n",
        " transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "x: a\r\n b\r\n\r\n",
        "x: a\0b\r\n\r\n",
        "x y: a\r\n\r\n",
    ];
    for rest in refused {
        let head = format!("POST / HTTP/1.1\r\nhost: shop.example.com\r\n{rest}");
        let answer = ask(web(&hub), head).await;
        assert_eq!(answer.status(), 400, "{rest:?}: {answer:?}");
    }
    assert_eq!(origin.seen().len(), 0);

    // Both lengths: read as chunks, sent on without the other, and the connection ends.
    let mut viewer = Web::connect(web(&hub)).await;
    viewer
        .send(
            "POST /both HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: 4\r\n\
             transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\
             host: shop.example.com\r\n\r\n",
        )
        .await;
    assert_eq!(viewer.response().await.text(), "/both");
    assert!(viewer.is_closed().await);
    let seen = origin.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].field("content-length"), None);
    assert!(seen[0].body.is_empty());
}

#[tokio::test]
async fn a_request_names_one_host_whatever_its_form() {
    let origin = origin(&[]).await;
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: shop.example.com\r\nhost: shop.example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: shop.example.com, other\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: user@shop.example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: shop.example.com:80:80\r\n\r\n",
        "GET http://other.example.com/ HTTP/1.1\r\nhost: shop.example.com\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(ask(web(&hub), head).await.status(), 400, "{head:?}");
    }
    // An authority is looked up as a route, never dialled as it stands.
    let own = origin.address();
    let head = format!("GET http://{own}/ HTTP/1.1\r\nhost: {own}\r\n\r\n");
    assert_eq!(ask(web(&hub), head).await.code(), "unknown_host");
    let connect = format!("CONNECT {own} HTTP/1.1\r\nhost: {own}\r\n\r\n");
    assert_eq!(ask(web(&hub), connect).await.code(), "method_not_served");
    assert!(origin.seen().is_empty());

    let absolute = "GET http://SHOP.example.com/a HTTP/1.1\r\nhost: shop.example.com\r\n\r\n";
    assert_eq!(ask(web(&hub), absolute).await.text(), "/a");
    assert_eq!(origin.last().first_line, "GET /a HTTP/1.1");
    assert_eq!(
        origin.last().field("host").as_deref(),
        Some("shop.example.com")
    );
}

#[tokio::test]
async fn a_path_that_services_read_differently_is_refused() {
    let origin = origin(&[]).await;
    let kept = "name: kept, host: kept.example.com, connector: shop, public: true, \
                encoded_slash: true, path_parameters: true";
    let hub = web_hub(&[SHOP, kept]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    for path in [
        "/a%2fb",
        "/a%5cb",
        "/a\\b",
        "/%00",
        "/..",
        "/%2e%2e/",
        "/a/..;/b",
        "/admin;x",
        "/;/admin",
        "/admin%3bx",
        "/%zz",
        "*",
        "/a%0d%0ab",
    ] {
        let answer = get(web(&hub), "shop.example.com", path).await;
        assert_eq!(answer.status(), 400, "{path}");
    }
    assert!(origin.seen().is_empty());
    let answer = get(web(&hub), "kept.example.com", "/a%2fb").await;
    assert_eq!(answer.text(), "/a%2Fb");
    let answer = get(web(&hub), "kept.example.com", "/a;v=1").await;
    assert_eq!(answer.text(), "/a;v=1");
}

#[tokio::test]
async fn fields_of_one_hop_and_of_the_hub_itself_do_not_pass() {
    let response = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive, x-hop\r\n\
                    x-hop: 1\r\nkeep-alive: timeout=5\r\nalt-svc: h3=\":443\"\r\n\
                    x-request-id: of-the-origin\r\nset-cookie: a=1\r\n\
                    set-cookie: b=1; Domain=example.com\r\nx-end: 1\r\n\r\n";
    let origin = origin(&[("/", response)]).await;
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let answer = ask(
        web(&hub),
        "GET / HTTP/1.1\r\nhost: shop.example.com\r\nconnection: x-mine, keep-alive\r\n\
         x-mine: 1\r\nkeep-alive: 5\r\nte: trailers, gzip\r\nproxy-authorization: Basic x\r\n\
         proxy-connection: keep-alive\r\nx-netbore-client-ip: 10.0.0.1\r\n\
         x-forwarded-for: 10.0.0.1\r\nforwarded: for=10.0.0.1\r\nx-real-ip: 10.0.0.1\r\n\
         cookie: a=1; __Host-nowconnect-x=1\r\nx-end: 1\r\n\r\n",
    )
    .await;
    let seen = origin.last();
    for gone in [
        "x-mine",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "x-netbore-client-ip",
        "x-real-ip",
    ] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.field("te").as_deref(), Some("trailers"));
    assert_eq!(seen.field("cookie").as_deref(), Some("a=1"));
    assert_eq!(seen.field("x-end").as_deref(), Some("1"));
    for gone in ["x-hop", "keep-alive", "alt-svc"] {
        assert_eq!(answer.field(gone), None, "{gone}");
    }
    assert_eq!(answer.field("set-cookie").as_deref(), Some("a=1"));
    assert_ne!(
        answer.field("x-request-id").as_deref(),
        Some("of-the-origin")
    );
    assert_eq!(answer.field("x-end").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_trusted_proxy_says_who_asks() {
    let origin = origin(&[]).await;
    let hub = web_hub_with(&[SHOP], "").start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let head = "GET / HTTP/1.1\r\nhost: shop.example.com\r\nx-forwarded-for: 192.0.2.9\r\n\
                x-forwarded-proto: https\r\n\r\n";
    assert_eq!(ask(web(&hub), head).await.status(), 200);
    assert_eq!(
        origin.last().field("x-forwarded-for").as_deref(),
        Some("127.0.0.1")
    );
    let mut hub = hub;
    hub.clear_top();
    hub.rewrite(|plan| {
        let text = super::ingress(&[SHOP], "").replace(
            "bind: \"127.0.0.1:0\"",
            "bind: \"127.0.0.1:0\", trusted_proxies: [127.0.0.0/8]",
        );
        plan.top(&text)
    });
    assert!(hub.reload().await.ok);
    assert_eq!(ask(web(&hub), head).await.status(), 200);
    let seen = origin.last();
    assert_eq!(
        seen.field("x-forwarded-for").as_deref(),
        Some("192.0.2.9, 127.0.0.1")
    );
    assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("https"));
    let from: std::net::IpAddr = "192.0.2.9".parse().unwrap();
    assert!(
        hub.decisions()
            .iter()
            .any(|record| record.client.is_some_and(|client| client.ip() == from))
    );
}

#[tokio::test]
async fn an_origin_may_have_another_name_than_its_viewers_know() {
    let moved = "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\
                 location: http://app.internal:8080/next?a=1\r\n\r\n";
    let origin = origin(&[("/", moved)]).await;
    let route = format!("{SHOP}, host_header: \"app.internal:8080\", rewrite_location: true");
    let hub = web_hub(&[&route]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let answer = get(web(&hub), "shop.example.com", "/").await;
    assert_eq!(
        origin.last().field("host").as_deref(),
        Some("app.internal:8080")
    );
    assert_eq!(
        origin.last().field("x-forwarded-host").as_deref(),
        Some("shop.example.com")
    );
    assert_eq!(
        answer.field("location").as_deref(),
        Some("http://shop.example.com/next?a=1")
    );
}

#[tokio::test]
async fn head_ranges_and_empty_answers_pass_as_they_are() {
    let part = "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 1-2/4\r\n\
                content-length: 2\r\n\r\nbc";
    let origin = origin(&[
        ("/part", part),
        ("/none", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("/same", "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n"),
        ("/head", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
    ])
    .await;
    let hub = web_hub(&[SHOP]).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let mut viewer = Web::connect(web(&hub)).await;
    viewer
        .send("GET /part HTTP/1.1\r\nhost: shop.example.com\r\nrange: bytes=1-2\r\n\r\n")
        .await;
    let answer = viewer.response().await;
    assert_eq!((answer.status(), answer.text().as_str()), (206, "bc"));
    assert_eq!(origin.last().field("range").as_deref(), Some("bytes=1-2"));
    for (path, status) in [("/none", 204), ("/same", 304)] {
        viewer
            .send(format!(
                "GET {path} HTTP/1.1\r\nhost: shop.example.com\r\n\r\n"
            ))
            .await;
        assert_eq!(viewer.response().await.status(), status);
    }
    viewer
        .send("HEAD /head HTTP/1.1\r\nhost: shop.example.com\r\n\r\n")
        .await;
    let head = viewer.head().await.unwrap();
    assert_eq!(head.field("content-length").as_deref(), Some("5"));
    viewer
        .send("GET /next HTTP/1.1\r\nhost: shop.example.com\r\n\r\n")
        .await;
    assert_eq!(viewer.response().await.text(), "/next");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn limits_have_answers_of_their_own() {
    let origin = origin(&[]).await;
    let small = format!("{SHOP}, max_body_bytes: 10");
    let slow = "name: slow, host: slow.example.com, connector: shop, public: true, \
                rate: {per_second: 1, burst: 1}";
    let hub = web_hub_with(&[&small, slow], "limits: {max_header_bytes: 8192}")
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let post = |length: &str| format!("POST / HTTP/1.1\r\nhost: shop.example.com\r\n{length}");
    let told = ask(web(&hub), post("content-length: 11\r\n\r\n")).await;
    assert_eq!(
        (told.status(), told.code().as_str()),
        (413, "body_too_large")
    );
    let chunks = post("transfer-encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n");
    let told = ask(web(&hub), chunks).await;
    assert_eq!(
        (told.status(), told.code().as_str()),
        (413, "body_too_large")
    );
    let fits = ask(web(&hub), post("content-length: 10\r\n\r\n0123456789")).await;
    assert_eq!(fits.status(), 200);

    let long = format!(
        "GET / HTTP/1.1\r\nhost: shop.example.com\r\nx: {}\r\n\r\n",
        "a".repeat(9000)
    );
    assert_eq!(ask(web(&hub), long).await.status(), 431);

    assert_eq!(get(web(&hub), "slow.example.com", "/").await.status(), 200);
    let told = get(web(&hub), "slow.example.com", "/").await;
    assert_eq!((told.status(), told.code().as_str()), (429, "rate_limited"));
    assert!(told.field("retry-after").is_some());
    eventually("no request is left in the table", || async {
        hub.metrics()
            .contains("nowconnect_http_requests_in_flight{endpoint=\"shop\"} 0")
    })
    .await;
}
