//! What is read and refused: nothing of it is forgotten, and nothing is said that is not so.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::{SOON, TestHub, echo, eventually, forbid_open, hub, now_s};

#[tokio::test]
async fn what_a_refused_reload_was_about_is_taken_over_with_the_next_one() {
    let target = echo().await;
    let hub = hub().watched().listener("echo").start().await;
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    hub.client("echo").await.echoes(b"permitted").await;
    let good = std::fs::read_to_string(hub.path("cloud.yaml")).unwrap();
    // A typo and a new policy in one burst.
    hub.write_policy("closed.cedar", &forbid_open("echo"));
    hub.write_raw_config(&good.replace("limits:", "limitz:"));
    readiness(&hub, r#"{"status":"degraded","reasons":["bundle_stale"]}"#).await;
    hub.client("echo").await.echoes(b"still the old one").await;
    // Only the typo is put right.
    hub.write_raw_config(&good);
    readiness(&hub, r#"{"status":"ready"}"#).await;
    hub.client("echo").await.is_closed().await;
}

#[tokio::test]
async fn a_mistake_stays_shown_while_other_files_are_read_well() {
    let hub = hub().watched().listener("echo").start().await;
    let good = std::fs::read_to_string(hub.path("cloud.yaml")).unwrap();
    hub.write_policy("broken.cedar", "permit (principal");
    readiness(&hub, r#"{"status":"degraded","reasons":["bundle_stale"]}"#).await;
    let before = refused(&hub);
    hub.write_raw_config(&good.replace("max_agents: 100", "max_agents: 99"));
    eventually("the new file was read", || async { refused(&hub) > before }).await;
    let (_, body) = hub.get("/readyz").await;
    assert_eq!(body, r#"{"status":"degraded","reasons":["bundle_stale"]}"#);
    hub.remove_policy("broken.cedar");
    readiness(&hub, r#"{"status":"ready"}"#).await;
}

#[tokio::test]
async fn a_revocation_is_in_force_though_the_rest_is_refused() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    revoke(&hub, "plant");
    let good = std::fs::read_to_string(hub.path("cloud.yaml")).unwrap();
    hub.write_raw_config(&good.replace("limits:", "limitz:"));
    let report = hub.reload().await;
    assert!(!report.ok, "{report:?}");
    running.is_closed().await;
    agent.problem("revoked").await;
}

/// The list is asked at HELLO; what follows may take seconds.
#[tokio::test]
async fn a_revocation_while_an_agent_is_being_let_in_ends_its_session() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hub = hub()
        .top(&format!(
            "pdp: {{url: \"http://{}\", timeout_ms: 2000, fail_open: true}}",
            silent.local_addr().unwrap()
        ))
        .start()
        .await;
    let target = echo().await;
    let agent = hub.agent("plant").target("echo", target.address()).start();
    let (_asked, _) = timeout(SOON, silent.accept()).await.unwrap().unwrap();
    revoke(&hub, "plant");
    assert!(hub.reload().await.ok);
    agent.problem("revoked").await;
}

#[tokio::test]
async fn a_new_admin_token_takes_the_place_of_the_old_one() {
    // More lines of the section `admin`, which comes last.
    let hub = hub()
        .file("token", OLD)
        .policy_file(
            "operators.cedar",
            "@id(\"operators\")\npermit (principal is NowConnect::Operator, \
             action in NowConnect::Action::\"admin\", resource);\n",
        )
        .top("  listen: 127.0.0.1:0\n  token_file: token")
        .start()
        .await;
    let file = hub.path("token");
    let address = hub.running().admin_address().unwrap();
    assert_eq!(status(address, OLD).await, 200);
    std::fs::write(&file, NEW).unwrap();
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    assert_eq!(status(address, OLD).await, 401);
    assert_eq!(status(address, NEW).await, 200);

    std::fs::write(&file, "short").unwrap();
    let report = hub.reload().await;
    assert!(!report.ok, "{report:?}");
    assert!(report.errors[0].contains("admin.token_file"), "{report:?}");
    assert_eq!(status(address, NEW).await, 200);
}

#[tokio::test]
async fn what_needs_a_restart_stays_named_until_there_is_one() {
    let mut hub = hub().start().await;
    hub.rewrite(|plan| plan.limits("window_pool_bytes: 1048576\nmax_conn_total: 77"));
    for _ in 0..2 {
        let report = hub.reload().await;
        assert!(report.ok, "{report:?}");
        assert_eq!(report.needs_restart, ["limits.window_pool_bytes"]);
    }
    let config = hub.running().hub().config();
    assert_eq!(config.limits.max_conn_total, 77);
    assert_ne!(config.limits.window_pool_bytes, 1_048_576);
}

const OLD: &str = "0123456789abcdef0123456789abcdef";
const NEW: &str = "fedcba9876543210fedcba9876543210";

async fn status(address: SocketAddr, token: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /v1/status HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer))
        .await
        .expect("an answer should have come")
        .unwrap();
    let status = answer.split_whitespace().nth(1);
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

async fn readiness(hub: &TestHub, expected: &str) {
    eventually(expected, || async {
        hub.get("/readyz").await.1 == expected
    })
    .await;
}

fn refused(hub: &TestHub) -> u64 {
    hub.metrics()
        .lines()
        .filter(|line| line.starts_with("nowconnect_reloads_total{"))
        .filter(|line| line.contains("result=\"refused\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn revoke(hub: &TestHub, agent: &str) {
    let line = format!("{{\"agent\":\"{agent}\",\"revoked_at\":{}}}\n", now_s());
    std::fs::write(hub.path("revoked.jsonl"), line).unwrap();
}
