//! Public TCP ports for services that speak no HTTP.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{agent_of, anonymous, client, control_hub};
use crate::cluster::{HubPlan, SOON, echo, eventually};

/// A hub with one public port, which was free a moment ago.
async fn one_port(lines: &str) -> (HubPlan, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    let port = address.port();
    let lines = format!(
        "anonymous: {{enabled: true}}\n\
         tcp_ports: {{bind: 127.0.0.1, first: {port}, last: {port}}}\n{lines}"
    );
    (control_hub(&lines), address)
}

/// Whether the service behind the port answers.
async fn echoes(address: SocketAddr) -> bool {
    let said = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"hello").await?;
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await?;
        Ok::<_, std::io::Error>(&heard == b"hello")
    };
    timeout(SOON, said).await.unwrap().unwrap_or(false)
}

async fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err()
}

#[tokio::test]
async fn a_tcp_service_gets_a_port_as_long_as_its_tunnel_lives() {
    let target = echo().await;
    let (plan, address) = one_port("").await;
    let hub = plan.start().await;
    let caller = anonymous(&hub);
    assert!(is_closed(address).await);
    let wish = json!({"requested_name": "box", "protocol": "tcp"});
    let created = caller.create(wish).await;
    assert_eq!(created.body["public_port"], json!(address.port()));
    assert_eq!(
        created.text("public_url"),
        format!("tcp://box.tunnels.example.com:{}", address.port())
    );
    let agent = agent_of(&hub, &created, target.address());
    agent.ready().await;
    eventually("the service answers at its port", || echoes(address)).await;
    // A listener like others, to operators too.
    assert_eq!(
        hub.running().listener_address(created.text("tunnel_id")),
        Some(address)
    );

    // There is no second one, and HTTP needs none.
    let full = caller
        .post("/tunnels/create", &json!({"protocol": "tcp"}))
        .await;
    assert_eq!((full.status, full.code()), (503, "unavailable"));
    let http = caller.create(json!({})).await;
    assert!(http.body["public_port"].is_null());

    let recreate = created.text("recreate_token");
    let deleted = caller
        .post(
            "/tunnels/delete",
            &json!({"tunnel_id": created.text("tunnel_id"), "recreate_token": recreate}),
        )
        .await;
    assert_eq!(deleted.status, 204);
    eventually("the port is closed", || is_closed(address)).await;
    let next = caller.create(json!({"protocol": "tcp"})).await;
    let next = agent_of(&hub, &next, target.address());
    next.ready().await;
    eventually("the next one has it", || echoes(address)).await;
}

#[tokio::test]
async fn policies_decide_who_comes_in_by_a_tunnels_port_also_after_a_reload() {
    let target = echo().await;
    let (plan, address) = one_port("").await;
    let hub = plan.start().await;
    let created = client(&hub, "ops")
        .await
        .create(json!({"protocol": "tcp"}))
        .await;
    let agent = agent_of(&hub, &created, target.address());
    agent.ready().await;
    eventually("the service answers", || echoes(address)).await;
    let forbid = "@id(\"closed\") forbid (principal, action == NowConnect::Action::\"open\", \
                  resource) when { context.net.listener.tenant == NowConnect::Tenant::\"acme\" };";
    hub.write_policy("closed.cedar", forbid);
    assert!(hub.reload().await.ok);
    // It is let in by nobody, and the port is still there.
    assert!(!echoes(address).await && !is_closed(address).await);
    hub.remove_policy("closed.cedar");
    assert!(hub.reload().await.ok);
    assert!(echoes(address).await);
}

#[tokio::test]
async fn the_port_outlives_a_killed_hub() {
    let target = echo().await;
    let file = "public_url: \"http://localhost\"\nstate_file: state/control.redb\ngrace_sec: 600";
    let (plan, address) = one_port(file).await;
    let mut hub = plan.start_process().await;
    let created = anonymous(&hub).create(json!({"protocol": "tcp"})).await;
    hub.process().signal("KILL").await;
    hub.process().ended().await;
    hub.start_again().await;
    let again = anonymous(&hub)
        .create(json!({"protocol": "tcp", "recreate_token": created.text("recreate_token")}))
        .await;
    assert_eq!(again.body["public_port"], json!(address.port()));
    let agent = agent_of(&hub, &again, target.address());
    agent.ready().await;
    eventually("the service answers", || echoes(address)).await;
}
