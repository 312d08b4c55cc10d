//! The configuration changes while the hub runs.

use crate::cluster::{echo, hub};

#[tokio::test]
async fn listeners_come_and_go_and_running_flows_stay() {
    let target = echo().await;
    let mut hub = hub().listener("one").start().await;
    let _agent = hub
        .agent("plant")
        .target("one", target.address())
        .target("two", target.address())
        .ready()
        .await;
    let mut running = hub.client("one").await;
    running.echoes(b"before").await;
    let old = hub.address("one");

    hub.clear_listeners();
    hub.rewrite(|plan| plan.listener("two"));
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    hub.client("two").await.echoes(b"a new listener").await;
    running.echoes(b"after").await;
    crate::cluster::eventually("the old port is closed", || async {
        tokio::net::TcpStream::connect(old).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn a_listener_keeps_its_port_when_its_limits_change() {
    let target = echo().await;
    let mut hub = hub().listener("echo").start().await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    let before = hub.address("echo");
    hub.clear_listeners();
    hub.rewrite(|plan| plan.listener_with("echo", "echo", "allow_cidrs: [10.0.0.0/8]"));
    assert!(hub.reload().await.ok);
    assert_eq!(hub.address("echo"), before);
    hub.client("echo").await.is_closed().await;
}

#[tokio::test]
async fn a_configuration_with_one_mistake_changes_nothing() {
    let target = echo().await;
    let mut hub = hub().listener("echo").start().await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    let taken = hub.tunnel_address();
    hub.rewrite(|plan| plan.listener("fresh"));
    let text = std::fs::read_to_string(hub.path("cloud.yaml")).unwrap();
    // A second listener on a port that is taken: everything else in the file is fine.
    hub.write_raw_config(&text.replacen(
        "{name: fresh, bind: \"127.0.0.1:0\"",
        &format!("{{name: fresh, bind: \"{taken}\""),
        1,
    ));
    let report = hub.reload().await;
    assert!(!report.ok, "{report:?}");
    assert!(report.errors[0].contains("fresh"), "{report:?}");

    hub.write_raw_config(&text.replace("limits:", "limitz:"));
    let report = hub.reload().await;
    assert!(!report.ok);
    assert!(report.errors[0].contains("limitz"), "{report:?}");
    assert!(hub.running().listener_address("fresh").is_none());
    hub.client("echo").await.echoes(b"nothing changed").await;

    hub.write_raw_config(&text);
    assert!(hub.reload().await.ok);
    let (_, body) = hub.get("/readyz").await;
    assert_eq!(body, r#"{"status":"ready"}"#);
}
