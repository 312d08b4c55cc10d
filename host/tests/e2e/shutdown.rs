//! How a hub ends.

use std::time::Duration;

use crate::cluster::{TestHub, command, echo, eventually, hub};

#[tokio::test]
async fn a_draining_hub_lets_nobody_in_and_lets_flows_finish() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    let listener = hub.address("echo");
    let draining = hub.running().drain(Duration::from_secs(20));
    let during = async {
        eventually("readiness says so", || async {
            hub.get("/readyz").await == (503, r#"{"status":"draining"}"#.to_owned())
        })
        .await;
        eventually("the listener is closed", || async {
            let Ok(mut stream) = tokio::net::TcpStream::connect(listener).await else {
                return true;
            };
            let mut byte = [0];
            let read = tokio::time::timeout(
                Duration::from_millis(200),
                tokio::io::AsyncReadExt::read(&mut stream, &mut byte),
            );
            matches!(read.await, Ok(Ok(0) | Err(_)))
        })
        .await;
        running.echoes(b"during").await;
        running.finish().await;
        assert!(running.rest().await.is_empty());
    };
    tokio::join!(draining, during);
}

#[tokio::test]
async fn at_the_deadline_the_rest_is_cut() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    hub.running().drain(Duration::from_millis(300)).await;
    running.is_closed().await;
    drop(agent);
}

#[tokio::test]
async fn shutting_down_ends_everything_at_once() {
    let target = echo().await;
    let mut hub = hub().listener("echo").start().await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    hub.take_running().shutdown().await;
    running.is_closed().await;
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_at_once() {
    let target = echo().await;
    let mut hub = hub()
        .listener("echo")
        .tunnel("drain_timeout_ms: 600000")
        .start_process()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    hub.process().signal("TERM").await;
    eventually("the hub drains", || async {
        hub.get("/readyz").await == (503, r#"{"status":"draining"}"#.to_owned())
    })
    .await;
    running.echoes(b"the first signal lets it finish").await;
    hub.process().signal("TERM").await;
    assert!(hub.process().ended().await.success());
    running.is_closed().await;
}

#[tokio::test]
async fn a_drain_that_is_followed_tells_when_the_last_flow_has_finished() {
    let target = echo().await;
    let mut hub = hub().listener("echo").start_process().await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    let socket = socket(&hub);
    let arguments = ["drain", "--wait", "--timeout", "60", "--socket", &socket];
    let following = command(&arguments);
    let finishing = async {
        is_draining(&hub).await;
        running.echoes(b"during").await;
        // A second order changes nothing, and says so.
        let (exit, _) = command(&["drain", "--timeout", "0", "--socket", &socket]).await;
        assert_eq!(exit, Some(1));
        running.echoes(b"still").await;
        running.finish().await;
        assert!(running.rest().await.is_empty());
    };
    let ((exit, told), ()) = tokio::join!(following, finishing);
    assert_eq!(exit, Some(0), "{told}");
    assert!(told.contains("1 flow and 1 agent left"), "{told}");
    assert!(
        told.ends_with("every flow has finished; the hub ends\n"),
        "{told}"
    );
    assert!(hub.process().ended().await.success());
}

#[tokio::test]
async fn a_drain_that_has_to_cut_flows_fails() {
    let target = echo().await;
    let mut hub = hub()
        .listener("echo")
        .tunnel("drain_timeout_ms: 600000")
        .start_process()
        .await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    let socket = socket(&hub);
    let (exit, told) = command(&["drain", "--wait", "--timeout", "1", "--socket", &socket]).await;
    assert_eq!(exit, Some(1), "{told}");
    assert!(told.ends_with("1 flow cut; the hub ends\n"), "{told}");
    running.is_closed().await;
    assert!(hub.process().ended().await.success());
    // Nobody is left to be asked.
    let (exit, _) = command(&["drain", "--socket", &socket]).await;
    assert_eq!(exit, Some(1));
}

#[tokio::test]
async fn a_drain_that_is_only_asked_for_goes_on_by_itself() {
    let target = echo().await;
    let mut hub = hub().listener("echo").start_process().await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    let (exit, told) = command(&["drain", "--socket", &socket(&hub)]).await;
    assert_eq!(exit, Some(0), "{told}");
    is_draining(&hub).await;
    running.echoes(b"during").await;
    drop(running);
    assert!(hub.process().ended().await.success());
}

fn socket(hub: &TestHub) -> String {
    hub.path("admin.sock").display().to_string()
}

async fn is_draining(hub: &TestHub) {
    eventually("the hub drains", || async {
        hub.get("/readyz").await == (503, r#"{"status":"draining"}"#.to_owned())
    })
    .await;
}
