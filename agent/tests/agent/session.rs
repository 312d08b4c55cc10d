//! One session through many tunnels: retries, renewal, resume, replacement, reload.

use std::time::Duration;

use nowconnect_agent::config::{HubUrl, OidcAuth, OidcEndpoint};
use nowconnect_agent::{Agent, Auth, Phase};
use nowconnect_protocol::{CloseCode, ResetCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::outbound::acceptor;
use crate::stub_hub::{Outcome, StubHub};
use crate::support::{
    LIMIT, Relay, chatter, config, echo, eventually, exchange, name, ready, soon, state, tcp,
};

#[tokio::test]
async fn a_cut_tunnel_is_resumed_and_its_flow_goes_on() {
    let hub = StubHub::start().await;
    let relay = Relay::start(hub.address).await;
    let url = format!("ws://{}", relay.address);
    let running = ready(config(&url).with_target(name("echo"), tcp(echo().await))).await;
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"before").await;

    relay.cut();
    state(&running, "a resumed tunnel", |state| state.resumed == 1).await;
    exchange(&mut client, &vec![3; 500_000]).await;
    let hellos = hub.hellos(2).await;
    assert_eq!(hellos[0].instance, hellos[1].instance);
    assert!(hellos[1].resume.is_some());
    assert_eq!(hellos[1].last_epoch.as_ref().unwrap().counter, 1);
    assert_eq!(running.flows(), 1);
}

#[tokio::test]
async fn a_silent_hub_is_left_for_a_replacement_that_takes_the_flows() {
    let hub = StubHub::start().await;
    let relay = Relay::start(hub.address).await;
    let url = format!("ws://{}", relay.address);
    let running = ready(config(&url).with_target(name("chatter"), tcp(chatter().await))).await;
    let (mut client, _outcomes) = hub.open("chatter").await;
    let mut some = [0; 10];
    soon("bytes", client.read_exact(&mut some)).await.unwrap();

    relay.silence();
    state(&running, "a resumed tunnel", |state| state.resumed == 1).await;
    let mut more = [0; 600];
    soon("more bytes", client.read_exact(&mut more))
        .await
        .unwrap();
    assert_eq!(running.flows(), 1);
}

#[tokio::test]
async fn a_drain_is_answered_with_a_second_tunnel_before_the_first_ends() {
    let hub = StubHub::start().await;
    let running = ready(config(&hub.url()).with_target(name("echo"), tcp(echo().await))).await;
    let mut watch = running.watch();
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"before").await;

    hub.handle().drain(Duration::from_secs(30));
    state(&running, "a second tunnel", |state| state.tunnels == 2).await;
    exchange(&mut client, b"after").await;
    assert_eq!(running.state().resumed, 1);
    // It was never without a tunnel.
    assert_eq!(watch.borrow_and_update().phase, Phase::Ready);
}

/// The agent has moved to another hub, and the last flows of the hub before break off. They have
/// no part in the session with the new hub, whose flows still go on after a cut.
#[tokio::test]
async fn a_left_tunnel_that_breaks_takes_nothing_from_the_new_session() {
    let (before, now) = (StubHub::start().await, StubHub::start().await);
    now.with(|script| script.resume_grace = Some(Duration::from_secs(2)));
    let way_before = Relay::start(before.address).await;
    let way_now = Relay::start(now.address).await;
    let mut config = config(&format!("ws://{}", way_before.address))
        .with_target(name("echo"), tcp(echo().await));
    config.limits.shutdown_timeout = LIMIT;
    let running = ready(config.clone()).await;
    let (mut left, _outcomes) = before.open("echo").await;
    exchange(&mut left, b"at the hub before").await;

    config.hub = HubUrl::parse(&format!("ws://{}", way_now.address), false).unwrap();
    running.reload(config).await.unwrap();
    state(&running, "a tunnel to the new hub", |state| {
        state.tunnels == 2
    })
    .await;
    let (mut client, _outcomes) = now.open("echo").await;
    exchange(&mut client, b"at the new hub").await;
    exchange(&mut left, b"and still at the one before").await;
    assert_eq!(running.flows(), 2);

    way_before.cut();
    eventually("the lost flow is counted out", || {
        (running.flows() == 1).then_some(())
    })
    .await;
    way_now.cut();
    state(&running, "a resumed tunnel", |state| state.resumed == 1).await;
    exchange(&mut client, b"after the cut").await;
    let hellos = now.hellos(2).await;
    assert!(hellos[1].resume.is_some(), "{:?}", hellos[1]);
    assert_eq!(running.flows(), 1);
}

#[tokio::test]
async fn a_changed_token_file_is_shown_on_the_living_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let hub = StubHub::start().await;
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.auth = Auth::TokenFile(path.clone());
    let running = ready(config).await;
    assert_eq!(hub.with(|script| script.tokens.clone()), ["first"]);

    std::fs::write(&path, "second-token\n").unwrap();
    let renew = eventually("a RENEW", || {
        hub.with(|script| script.renews.first().cloned())
    })
    .await;
    assert_eq!(renew.token.as_deref(), Some("second-token"));
    assert_eq!(renew.connectors, None);
    assert_eq!(running.state().tunnels, 1);
}

#[tokio::test]
async fn a_token_about_to_end_is_renewed_before_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let hub = StubHub::start().await;
    hub.with(|script| script.token_expires_in = Some(Duration::from_millis(2_000)));
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.auth = Auth::TokenFile(path.clone());
    let _running = ready(config).await;
    std::fs::write(&path, "next-token\n").unwrap();
    let renew = eventually("a RENEW", || {
        hub.with(|script| script.renews.first().cloned())
    })
    .await;
    assert_eq!(renew.token.as_deref(), Some("next-token"));
}

#[tokio::test]
async fn a_token_of_an_issuer_is_renewed_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s3cret").unwrap();
    let hub = StubHub::start().await;
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.auth = Auth::Oidc(OidcAuth {
        endpoint: OidcEndpoint::TokenUrl(format!("http://{}/token", issuer().await)),
        client_id: "premise-1".to_owned(),
        client_secret_file: secret,
        audience: None,
        resource: None,
        scope: None,
    });
    let running = ready(config).await;
    assert_eq!(hub.with(|script| script.tokens.clone()), ["token-1"]);
    let renew = eventually("a RENEW", || {
        hub.with(|script| script.renews.first().cloned())
    })
    .await;
    assert_eq!(renew.token.as_deref(), Some("token-2"));
    assert_eq!(running.state().tunnels, 1);
}

#[tokio::test]
async fn a_refused_token_is_told_and_a_new_one_is_tried_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "bad\n").unwrap();
    let hub = StubHub::start().await;
    hub.with(|script| script.refuse_upgrade = Some((401, Vec::new())));
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.auth = Auth::TokenFile(path.clone());
    let running = Agent::start(config).unwrap();
    let told = state(&running, "a problem", |state| state.problem.is_some()).await;
    let problem = told.problem.unwrap();
    assert!(
        problem.contains("401 `unauthenticated` (no such token)"),
        "{problem}"
    );
    assert!(!problem.contains("bad"), "{problem}");

    hub.with(|script| script.refuse_upgrade = None);
    std::fs::write(&path, "good-token\n").unwrap();
    // Without the change it would wait for a minute.
    running.ready(LIMIT).await.unwrap();
    let tokens = hub.with(|script| script.tokens.clone());
    assert_eq!(tokens, ["bad", "good-token"]);
}

#[tokio::test]
async fn a_busy_hub_is_left_alone_for_as_long_as_it_asks() {
    let hub = StubHub::start().await;
    hub.with(|script| script.refuse_upgrade = Some((503, vec![("retry-after", "3600")])));
    let running =
        Agent::start(config(&hub.url()).with_target(name("echo"), tcp(echo().await))).unwrap();
    state(&running, "a problem", |state| state.problem.is_some()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(hub.with(|script| script.tokens.len()), 1);
}

#[tokio::test]
async fn a_refused_hello_is_told_by_code_and_not_repeated_quickly() {
    let hub = StubHub::start().await;
    hub.with(|script| script.refuse_hello = Some(CloseCode::AgentIdMismatch));
    let running =
        Agent::start(config(&hub.url()).with_target(name("echo"), tcp(echo().await))).unwrap();
    let told = state(&running, "a problem", |state| state.problem.is_some()).await;
    let problem = told.problem.unwrap();
    assert!(problem.starts_with("agent_id_mismatch"), "{problem}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(hub.hellos(1).await.len(), 1);
}

#[tokio::test]
async fn a_hub_that_comes_late_is_found() {
    let hub = StubHub::start().await;
    hub.with(|script| script.refuse_upgrade = Some((503, Vec::new())));
    let running =
        Agent::start(config(&hub.url()).with_target(name("echo"), tcp(echo().await))).unwrap();
    eventually("three dials", || {
        hub.with(|script| (script.tokens.len() >= 3).then_some(()))
    })
    .await;
    hub.with(|script| script.refuse_upgrade = None);
    running.ready(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_reload_changes_targets_at_once_and_leaves_flows_alone() {
    let hub = StubHub::start().await;
    let first = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    let running = ready(first.clone()).await;
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"before").await;

    let second = first
        .with_target(name("echo"), tcp(closed_port().await))
        .with_target(name("other"), tcp(echo().await));
    running.reload(second).await.unwrap();
    let renew = eventually("a RENEW", || {
        hub.with(|script| script.renews.first().cloned())
    })
    .await;
    assert_eq!(renew.connectors, Some(vec![name("echo"), name("other")]));
    assert_eq!(renew.token, None);
    state(&running, "the new connector", |state| {
        state.accepted.contains(&name("other"))
    })
    .await;
    let (mut other, _other_outcomes) = hub.open("other").await;
    exchange(&mut other, b"new").await;
    let (_moved, mut outcomes) = hub.open("echo").await;
    let outcome = soon("a refusal", outcomes.recv()).await.unwrap();
    assert!(
        matches!(outcome, Outcome::NotStarted(ResetCode::ConnectFailed)),
        "{outcome:?}"
    );
    exchange(&mut client, b"after").await;
    assert_eq!(running.state().tunnels, 1);
}

#[tokio::test]
async fn a_reload_of_the_tunnels_terms_moves_the_flows_to_a_new_tunnel() {
    let hub = StubHub::start().await;
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    let running = ready(config.clone()).await;
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"before").await;
    config.labels.insert("site".to_owned(), "berlin".to_owned());
    running.reload(config).await.unwrap();
    state(&running, "a second tunnel", |state| state.tunnels == 2).await;
    let hellos = hub.hellos(2).await;
    assert_eq!(hellos[1].labels, [("site".to_owned(), "berlin".to_owned())]);
    exchange(&mut client, b"after").await;
}

#[tokio::test]
async fn a_reload_that_cannot_be_built_changes_nothing() {
    let hub = StubHub::start().await;
    let config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    let running = ready(config.clone()).await;
    let mut broken = tcp(echo().await);
    broken.tls = Some(nowconnect_agent::config::TargetTls {
        ca_bundle: Some("/nowhere/ca.pem".into()),
        ..Default::default()
    });
    let error = running
        .reload(config.with_target(name("web"), broken))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("`targets.web.tls`"), "{error}");
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"still").await;
}

#[tokio::test]
async fn an_agent_can_be_embedded_beside_any_runtime_and_dropped() {
    let hub = StubHub::start().await;
    let running = ready(config(&hub.url()).with_target(name("echo"), tcp(echo().await))).await;
    let mut watch = running.watch();
    drop(running);
    let stopped =
        tokio::time::timeout(LIMIT, watch.wait_for(|state| state.phase == Phase::Stopped));
    assert!(stopped.await.is_ok());
}

/// An issuer of numbered tokens that live for two seconds.
async fn issuer() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 1.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let body = format!(
                r#"{{"access_token":"token-{number}","token_type":"Bearer","expires_in":2}}"#
            );
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

async fn closed_port() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Their ways are opened beside each other: one after the other they would take half a minute.
#[tokio::test]
async fn hubs_that_say_nothing_hold_up_the_one_that_answers_for_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let tls = acceptor("127.0.0.1", folder.path());
    let hub = StubHub::start_with(Some(tls)).await;
    let silent = silent_hubs(3).await;
    let mut hubs = silent
        .iter()
        .map(|hub| hub.local_addr().unwrap())
        .chain([hub.address])
        .map(|address| HubUrl::parse(&format!("wss://{address}"), false).unwrap());
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.hub = hubs.next().unwrap();
    config.other_hubs = hubs.collect();
    config.outbound.ca_bundle = Some(folder.path().join("ca.pem"));
    let running = ready(config).await;
    let address = hub.address.to_string();
    let reached = running.state().hub.unwrap().to_string();
    assert!(reached.contains(&address), "{reached}");
}

/// The way to the second opens while the first is waited for, however long that takes.
#[tokio::test]
async fn a_hub_that_hangs_behind_a_slow_way_does_not_cost_the_next_one_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let tls = acceptor("127.0.0.1", folder.path());
    let hub = StubHub::start_with(Some(tls.clone())).await;
    let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = slow.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = slow.accept().await {
            // Longer than the head start of the first.
            tokio::time::sleep(Duration::from_millis(1_300)).await;
            held.push(tls.accept(stream).await);
        }
    });
    let url = |address| HubUrl::parse(&format!("wss://{address}"), false).unwrap();
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.hub = url(hanging);
    config.other_hubs = vec![url(hub.address)];
    config.outbound.ca_bundle = Some(folder.path().join("ca.pem"));
    config.tunnel.connect_timeout = Duration::from_secs(2);
    let running = ready(config).await;
    assert_eq!(running.state().hub, Some(url(hub.address)));
}

/// A round has an end, and the next one goes on where it ended.
#[tokio::test]
async fn hubs_that_take_connections_and_never_answer_are_gone_past() {
    let hub = StubHub::start().await;
    let silent = silent_hubs(5).await;
    let mut hubs = silent
        .iter()
        .map(|hub| format!("ws://{}", hub.local_addr().unwrap()))
        .chain([hub.url()])
        .map(|url| HubUrl::parse(&url, false).unwrap());
    let mut config = config(&hub.url()).with_target(name("echo"), tcp(echo().await));
    config.hub = hubs.next().unwrap();
    config.other_hubs = hubs.collect();
    config.tunnel.connect_timeout = Duration::from_millis(300);
    let running = ready(config).await;
    assert!(running.state().is_ready());
}

/// The system takes connections for them, and nobody reads.
async fn silent_hubs(count: usize) -> Vec<TcpListener> {
    let mut hubs = Vec::new();
    for _ in 0..count {
        hubs.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    hubs
}
