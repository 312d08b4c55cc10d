//! Published names at the HTTP ports, beside configured routes.

use nowconnect::admin::view::PublishedState;
use serde_json::json;

use super::{agent_of, anonymous, control, control_hub};
use crate::cluster::web::{get, origin};
use crate::cluster::{HubPlan, TestHub, command, eventually};
use crate::ingress::{PERMIT_HTTP, closed, ingress, web};

const HOST: &str = "shop.tunnels.example.com";

const CONTROL: &str = "anonymous: {enabled: true}\ngrace_sec: 600";

/// A hub where anybody publishes names, with these configured routes.
fn publishing_hub(routes: &[&str]) -> HubPlan {
    control_hub(CONTROL)
        .policy_file("http.cedar", PERMIT_HTTP)
        .top(&with_routes(routes))
}

fn with_routes(routes: &[&str]) -> String {
    if routes.is_empty() {
        return "ingress:\n  listeners:\n    - {name: web, bind: \"127.0.0.1:0\"}\n".to_owned();
    }
    ingress(routes, "")
}

async fn answer(hub: &TestHub, host: &str) -> (u16, String) {
    let answer = get(web(hub), host, "/").await;
    let text = if answer.status() == 200 {
        answer.text()
    } else {
        answer.code()
    };
    (answer.status(), text)
}

#[tokio::test]
async fn a_published_name_is_unknown_then_offline_then_served_then_gone() {
    let hub = publishing_hub(&[]).start().await;
    let origin = origin(&[]).await;
    assert_eq!(answer(&hub, HOST).await, (404, "unknown_host".to_owned()));
    let caller = anonymous(&hub);
    let created = caller.create(json!({"requested_name": "shop"})).await;
    let port = web(&hub).port();
    assert_eq!(created.text("public_url"), format!("http://{HOST}:{port}"));
    let offline = get(web(&hub), HOST, "/").await;
    assert_eq!(
        (offline.status(), offline.code().as_str()),
        (503, "endpoint_offline")
    );
    assert_eq!(offline.field("retry-after").as_deref(), Some("5"));

    let agent = agent_of(&hub, &created, origin.address());
    agent.ready().await;
    assert_eq!(
        answer(&hub, "Shop.Tunnels.Example.com.").await,
        (200, "/".to_owned())
    );
    assert_eq!(origin.last().field("host").as_deref(), Some(HOST));
    let label = "endpoint=\"public/shop\"";
    assert!(hub.metrics().contains(&format!(
        "nowconnect_http_requests_total{{{label},status=\"2xx\"}} 1"
    )));
    drop(agent);
    eventually("the agent to be gone", || async {
        answer(&hub, HOST).await.0 == 503
    })
    .await;

    let tunnel = created.text("tunnel_id");
    let token = created.text("recreate_token");
    let gone = json!({"tunnel_id": tunnel, "recreate_token": token});
    assert_eq!(caller.post("/tunnels/delete", &gone).await.status, 204);
    assert_eq!(answer(&hub, HOST).await, (404, "unknown_host".to_owned()));
    let connector = format!("connector=\"public/{tunnel}\"");
    eventually("the series to leave", || async {
        let metrics = hub.metrics();
        !metrics.contains(label) && !metrics.contains(&connector)
    })
    .await;
}

#[tokio::test]
async fn an_exact_route_goes_before_a_published_name_and_a_wildcard_after_it() {
    let wild = "name: any, host: \"*.tunnels.example.com\", connector: any, public: true";
    let mut hub = publishing_hub(&[wild]).start().await;
    let (own, published) = (origin(&[("/", WILD)]).await, origin(&[]).await);
    let _own = hub.plant("any", own.address()).await;
    assert_eq!(answer(&hub, HOST).await, (200, "wild".to_owned()));
    let created = anonymous(&hub)
        .create(json!({"requested_name": "shop"}))
        .await;
    let agent = agent_of(&hub, &created, published.address());
    agent.ready().await;
    assert_eq!(answer(&hub, HOST).await, (200, "/".to_owned()));
    let other = "other.tunnels.example.com";
    assert_eq!(answer(&hub, other).await, (200, "wild".to_owned()));

    // The operator takes the very name, for a part of its paths: none of it is the agent's then.
    let exact = format!("name: taken, host: {HOST}, path: /api, connector: any, public: true");
    hub.clear_top();
    hub.rewrite(|plan| {
        plan.top(&control(CONTROL))
            .top(&with_routes(&[wild, &exact]))
    });
    assert!(hub.reload().await.errors.is_empty());
    assert_eq!(answer(&hub, HOST).await, (404, "unknown_path".to_owned()));
    assert_eq!(answer(&hub, other).await, (200, "wild".to_owned()));
}

const WILD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwild";

#[tokio::test]
async fn a_published_name_is_decided_about_as_any_endpoint() {
    let hub = publishing_hub(&[]).start().await;
    let origin = origin(&[]).await;
    let created = anonymous(&hub)
        .create(json!({"requested_name": "shop"}))
        .await;
    let agent = agent_of(&hub, &created, origin.address());
    agent.ready().await;
    assert_eq!(answer(&hub, HOST).await.0, 200);
    for forbids in [
        r#"@id("not-shop") @error("not_shop")
           forbid (principal, action == NowConnect::Action::"http-request", resource)
           when { resource.host == "shop.tunnels.example.com" && resource.owner == context.agent
                  && resource.tenant == NowConnect::Tenant::"public" };"#,
        r#"@id("not-connector") @error("not_shop")
           forbid (principal, action == NowConnect::Action::"open", resource)
           when { resource.tenant == NowConnect::Tenant::"public"
                  && context.net.listener == NowConnect::Listener::"public/web" };"#,
    ] {
        hub.write_policy("forbids.cedar", forbids);
        hub.reload().await;
        assert_eq!(answer(&hub, HOST).await, (403, "not_shop".to_owned()));
        hub.remove_policy("forbids.cedar");
        hub.reload().await;
        assert_eq!(answer(&hub, HOST).await.0, 200);
    }
    hub.write_policy("http.cedar", &closed());
    hub.reload().await;
    assert_eq!(answer(&hub, HOST).await.0, 403);
}

#[tokio::test]
async fn a_name_of_another_protocol_is_no_host() {
    let hub = publishing_hub(&[]).start().await;
    anonymous(&hub)
        .create(json!({"requested_name": "shop", "protocol": "tcp"}))
        .await;
    assert_eq!(answer(&hub, HOST).await, (404, "unknown_host".to_owned()));
}

/// As `nowconnect status` shows them, and as they are counted.
#[tokio::test]
async fn an_operator_sees_which_names_are_served_and_by_whom() {
    let hub = publishing_hub(&[]).admin().start().await;
    let origin = origin(&[]).await;
    let created = anonymous(&hub)
        .create(json!({"requested_name": "shop"}))
        .await;
    let tunnel = created.text("tunnel_id");
    let seen = |state: PublishedState| {
        let operator = hub.operator();
        async move {
            let published = operator.status().await.unwrap().http.published;
            let found = published.into_iter().next().unwrap();
            (found.state == state).then_some(found)
        }
    };
    let offline = seen(PublishedState::Offline).await.unwrap();
    assert_eq!(offline.host, HOST);
    assert_eq!(offline.endpoint, "public/shop");
    assert_eq!(offline.tenant, "public");
    assert_eq!(offline.agent, format!("public/{tunnel}"));
    assert_eq!(offline.since_seconds, None);

    let agent = agent_of(&hub, &created, origin.address());
    agent.ready().await;
    let online = seen(PublishedState::Online).await.unwrap();
    assert!(online.since_seconds.is_some());
    let counted = |state: &str, count: u32| {
        let line = format!("nowconnect_published_names{{state=\"{state}\"}} {count}");
        let hub = &hub;
        async move { hub.metrics().contains(&line) }
    };
    eventually("the name to be counted", || counted("online", 1)).await;
    let socket = hub.path("admin.sock");
    let (code, out) = command(&["status", "--socket", socket.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{out}");
    let line = out.lines().find(|line| line.starts_with(HOST)).unwrap();
    assert!(line.contains("online") && line.contains(tunnel), "{line}");

    drop(agent);
    eventually("the agent to be gone", || async {
        let gone = seen(PublishedState::Offline).await;
        gone.is_some_and(|name| name.since_seconds.is_some())
    })
    .await;
    eventually("that to be counted", || counted("offline", 1)).await;
}

/// Each of them moves with what it is named after.
#[tokio::test]
async fn what_passes_is_counted_by_tunnel_stream_and_endpoint() {
    let hub = publishing_hub(&[]).start().await;
    let origin = origin(&[]).await;
    let created = anonymous(&hub)
        .create(json!({"requested_name": "shop"}))
        .await;
    let agent = agent_of(&hub, &created, origin.address());
    agent.ready().await;
    assert_eq!(answer(&hub, HOST).await.0, 200);
    let label = "endpoint=\"public/shop\"";
    let tunnel = format!("public/{}", created.text("tunnel_id"));
    // Some are counted a moment after the answer.
    for line in [
        "nowconnect_tunnels 1".to_owned(),
        "nowconnect_flows_open 1".to_owned(),
        "nowconnect_handshake_seconds_count 1".to_owned(),
        format!("nowconnect_http_requests_total{{{label},status=\"2xx\"}} 1"),
        format!("nowconnect_http_response_seconds_count{{{label}}} 1"),
        format!("nowconnect_http_body_bytes_total{{direction=\"out\",{label}}} 1"),
    ] {
        eventually(&line, || async {
            hub.metrics().lines().any(|counted| counted == line)
        })
        .await;
    }
    for begin in [
        "nowconnect_tcp_bytes_total{direction=\"a2c\"} ".to_owned(),
        format!("nowconnect_connector_bytes_total{{connector=\"{tunnel}\",direction=\"a2c\"}} "),
    ] {
        eventually(&begin, || async {
            let page = hub.metrics();
            let count = page.lines().find_map(|line| line.strip_prefix(&begin));
            count.is_some_and(|count| count != "0")
        })
        .await;
    }
    drop(agent);
    eventually("the stream to end with an error", || async {
        let page = hub.metrics();
        page.contains("nowconnect_flows_open 0")
            && page.lines().any(|line| {
                line.starts_with("nowconnect_flow_ends_total{cause=")
                    && !line.contains("finished")
                    && !line.ends_with(" 0")
            })
    })
    .await;
}
