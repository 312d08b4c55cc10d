//! What one host, one web page or one lost secret may cost others.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::{Caller, anonymous, ask_token, client, control_hub, open_hub};

/// More than one host gets; what is over is cut, and the others wait for nobody.
const TOO_MANY: usize = 20;

#[tokio::test]
async fn one_host_does_not_get_every_connection() {
    let hub = open_hub().start().await;
    let mut idle = Vec::new();
    for _ in 0..TOO_MANY {
        idle.push(TcpStream::connect(hub.control_address()).await.unwrap());
    }
    // The last one is told so at once, not after the time for a head.
    let mut last = idle.pop().unwrap();
    let mut byte = [0];
    assert!(matches!(last.read(&mut byte).await, Ok(0) | Err(_)));
    let first = idle.swap_remove(0);
    let waits = first.try_read(&mut byte).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
    drop((idle, first));
}

#[tokio::test]
async fn connections_that_ask_for_nothing_make_room() {
    /// As many addresses as it takes to have every place.
    const HOSTS: u8 = 16;
    const OF_EACH: usize = 16;
    let hub = open_hub().start().await;
    let mut idle = Vec::new();
    for host in 0..HOSTS {
        for _ in 0..OF_EACH {
            let socket = TcpSocket::new_v4().unwrap();
            socket
                .bind(SocketAddr::from(([127, 0, 1, host], 0)))
                .unwrap();
            idle.push(socket.connect(hub.control_address()).await.unwrap());
        }
    }
    anonymous(&hub).create(json!({})).await;
    // The one that had asked for nothing for longest, and none that came later.
    let mut byte = [0];
    assert!(matches!(idle[0].read(&mut byte).await, Ok(0) | Err(_)));
    let waits = idle[255].try_read(&mut byte).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
    let metrics = hub.metrics();
    let ended = "nowconnect_control_connections_ended_total{why=\"idle\"} 1\n";
    assert!(metrics.contains(ended), "{metrics}");
}

#[tokio::test]
async fn a_name_that_was_led_here_gets_nothing() {
    let hub = control_hub(
        "public_url: \"https://localhost:8766\"\nanonymous: {enabled: true}\n\
         allowed_hosts: [control.internal]",
    )
    .start()
    .await;
    let ask = async |host: &str| {
        let caller = Caller {
            host: host.to_owned(),
            ..anonymous(&hub)
        };
        caller.post("/tunnels/create", &json!({})).await
    };
    let foreign = ask("evil.example:8766").await;
    assert_eq!((foreign.status, foreign.code()), (403, "foreign_origin"));
    for ours in ["control.internal:8766", "LOCALHOST", "127.0.0.1"] {
        assert_eq!(ask(ours).await.status, 201, "{ours}");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_caller_counts_for_himself() {
    let hub = crate::cluster::hub()
        .top(
            "control: {listen: \"127.0.0.1:0\", rate_per_source: {per_second: 1, burst: 1}, \
             trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]}",
        )
        .start()
        .await;
    let caller = anonymous(&hub);
    let ask = async |forwarded: &str| {
        let fields = [("x-forwarded-for", forwarded)];
        let path = "/.well-known/jwks.json";
        caller.call("GET", path, &fields, None).await
    };
    assert_eq!(ask("192.0.2.1").await.status, 200);
    // He may write in front of it what he likes.
    let again = ask("203.0.113.9, 192.0.2.1, 10.0.0.7").await;
    assert_eq!((again.status, again.code()), (429, "rate_limited"));
    assert_eq!(ask("192.0.2.2").await.status, 200);
    let unread = ask("192.0.2.3, unknown").await;
    assert_eq!((unread.status, unread.code()), (400, "invalid_request"));
}

#[tokio::test]
async fn callers_without_a_token_have_a_quota_of_their_own() {
    let hub = control_hub("anonymous: {enabled: true, max_endpoints: 2}")
        .start()
        .await;
    let caller = anonymous(&hub);
    for _ in 0..2 {
        caller.create(json!({})).await;
    }
    let refused = caller.post("/tunnels/create", &json!({})).await;
    assert_eq!((refused.status, refused.code()), (403, "quota_exceeded"));
    let ops = client(&hub, "ops").await;
    for _ in 0..3 {
        ops.create(json!({})).await;
    }
}

#[tokio::test]
async fn an_operator_sees_what_is_called_and_what_came_of_it() {
    let hub = open_hub().start().await;
    let caller = anonymous(&hub);
    caller.create(json!({})).await;
    caller.get("/tunnels/list").await;
    caller.get("/no/such/route").await;
    client(&hub, "ops").await;
    let metrics = hub.metrics();
    for line in [
        "nowconnect_control_requests_total{operation=\"create_tunnel\",status=\"2xx\"} 1",
        "nowconnect_control_requests_total{operation=\"list_tunnels\",status=\"4xx\"} 1",
        "nowconnect_control_requests_total{operation=\"none\",status=\"4xx\"} 1",
        "nowconnect_control_request_seconds_count{operation=\"create_tunnel\"} 1",
        "nowconnect_control_refused_total{code=\"unauthenticated\"} 1",
        "nowconnect_control_tokens_total{kind=\"ephemeral\"} 1",
        "nowconnect_control_tokens_total{kind=\"management\"} 1",
        "nowconnect_control_endpoints 1",
        "nowconnect_control_state_failed 0",
    ] {
        assert!(
            metrics.lines().any(|seen| seen == line),
            "{line} in\n{metrics}"
        );
    }
}

#[tokio::test]
async fn a_web_page_of_another_host_gets_nothing() {
    let hub = open_hub().start().await;
    let caller = anonymous(&hub);
    let ask = async |origin: &str| {
        let fields = [("origin", origin)];
        let wish = json!({});
        caller
            .call("POST", "/tunnels/create", &fields, Some(&wish))
            .await
    };
    let foreign = ask("http://evil.example:8766").await;
    assert_eq!((foreign.status, foreign.code()), (403, "foreign_origin"));
    assert_eq!(ask("http://127.0.0.1:8766").await.status, 201);
}

#[tokio::test]
async fn who_shows_nothing_that_counts_gives_his_place_back() {
    let hub = control_hub("").start().await;
    let wrong = ask_token(&hub, "ops", "0123456789abcdef0123456789abcdef").await;
    assert_eq!((wrong.status, wrong.code()), (401, "unauthenticated"));
    assert_eq!(wrong.message.field("connection").as_deref(), Some("close"));
}
