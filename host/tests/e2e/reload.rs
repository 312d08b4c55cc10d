//! The configuration changes while the hub runs.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpStream;

use crate::cluster::{Client, TestHub, echo, eventually, hub, refuse};

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
    eventually("the old port is closed", || async {
        TcpStream::connect(old).await.is_err()
    })
    .await;
}

/// Connectors come and go over a hub's life, and each has a place in a bounded number of labels.
#[tokio::test]
async fn a_connector_that_left_the_configuration_leaves_the_scrape() {
    let target = echo().await;
    let mut hub = hub().listener("one").listener("two").start().await;
    let _agent = hub
        .agent("plant")
        .target("one", target.address())
        .target("two", target.address())
        .ready()
        .await;
    for listener in ["one", "two"] {
        hub.client(listener).await.echoes(b"counted").await;
    }
    let shows = |hub: &TestHub, connector: &str| {
        let label = format!("connector=\"{connector}\"");
        hub.metrics().contains(&label)
    };
    assert!(shows(&hub, "one") && shows(&hub, "two"));
    eventually("no flow is left", || async {
        hub.metrics().contains("\nnowconnect_flows_open 0\n")
    })
    .await;

    hub.clear_listeners();
    hub.rewrite(|plan| plan.listener("two"));
    assert!(hub.reload().await.ok);
    assert!(!shows(&hub, "one"), "{}", hub.metrics());
    assert!(shows(&hub, "two"));
}

#[tokio::test]
async fn a_listener_keeps_its_port_when_its_limits_change() {
    let target = echo().await;
    let mut hub = hub().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
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
    let _agent = hub.plant("echo", target.address()).await;
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

#[tokio::test]
async fn a_listener_moves_to_another_address_of_the_same_port() {
    let target = echo().await;
    let port = refuse().await.port();
    let wide = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let narrow = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // Loopback too, and reached by the wide address only.
    let elsewhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), port));
    let mut hub = hub().listener_at("echo", "echo", wide).start().await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = client(elsewhere).await;
    running.echoes(b"before").await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let arriving = tokio::spawn(async move {
        let mut served = 0_u32;
        while stopped.try_recv().is_err() {
            client(narrow)
                .await
                .echoes(b"a client while it moves")
                .await;
            served += 1;
        }
        served
    });

    hub.clear_listeners();
    hub.rewrite(|plan| plan.listener_at("echo", "echo", narrow));
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    assert_eq!(hub.address("echo"), narrow);
    eventually("the old address is closed", || async {
        TcpStream::connect(elsewhere).await.is_err()
    })
    .await;
    client(narrow).await.echoes(b"at the new address").await;
    running.echoes(b"after").await;
    stop.send(()).unwrap();
    assert!(arriving.await.unwrap() > 0);

    // And back.
    hub.clear_listeners();
    hub.rewrite(|plan| plan.listener_at("echo", "echo", wide));
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    client(elsewhere).await.echoes(b"at the old address").await;
    running.echoes(b"to the end").await;
    let taken = std::net::TcpListener::bind(wide);
    assert!(taken.is_err(), "the port is anybody's");
}

#[tokio::test]
async fn a_move_that_is_refused_leaves_the_listener_where_it_was() {
    let target = echo().await;
    let port = refuse().await.port();
    let wide = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let narrow = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let elsewhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), port));
    let mut hub = hub().listener_at("echo", "echo", wide).start().await;
    let _agent = hub.plant("echo", target.address()).await;
    hub.clear_listeners();
    hub.rewrite(|plan| {
        plan.listener_at("echo", "echo", narrow)
            .listener_at("other", "echo", target.address())
    });
    let report = hub.reload().await;
    assert!(!report.ok, "{report:?}");
    assert!(report.errors[0].contains("other"), "{report:?}");
    assert_eq!(hub.address("echo"), wide);
    for address in [narrow, elsewhere] {
        client(address).await.echoes(b"nothing changed").await;
    }
}

async fn client(address: SocketAddr) -> Client {
    Client {
        stream: TcpStream::connect(address).await.unwrap(),
    }
}
