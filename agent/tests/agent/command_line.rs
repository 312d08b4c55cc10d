//! The binary: config check, diagnose, run with signals, service manager and traces.

use std::net::SocketAddr;

use nowconnect_protocol::CloseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixDatagram};
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::binary::{Setup, agent, diagnose, hop, signal, text};
use crate::outbound::acceptor;
use crate::stub_hub::StubHub;
use crate::support::{echo, eventually, exchange, soon};

const TRACE_PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_bad_config_ends_with_64_and_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("premise.yaml");
    std::fs::write(&path, "tunnel:\n  urll: wss://hub\n").unwrap();
    for command in [&["config", "check"][..], &["run"]] {
        let output = agent(&path, command).output().await.unwrap();
        assert_eq!(output.status.code(), Some(64));
        let told = text(&output.stderr);
        assert!(
            told.contains("premise.yaml:2:3: unknown key `urll`; did you mean `url`?"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_good_config_is_called_ok() {
    let setup = Setup::new(&StubHub::start().await, echo().await);
    let output = agent(&setup.path, &["config", "check"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("ok; agent `premise-1` offers 1 connectors"));
}

/// Every file at once, and the file itself alone.
#[tokio::test]
async fn files_that_are_named_and_not_here_are_all_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("premise.yaml");
    let config = "tunnel:\n  url: wss://hub.example.com\n  agent_id: a\n  auth: {token_file: absent.token}\n\
                  targets:\n  web: {host: web, port: 443, tls: {ca_bundle: absent.ca}}\n\
                  proxy: {ca_bundle: absent.pem}\n";
    std::fs::write(&path, config).unwrap();
    let output = agent(&path, &["config", "check"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(64));
    let told = text(&output.stderr);
    for (key, file) in [
        ("`tunnel.auth.token_file`", "absent.token"),
        ("`proxy.ca_bundle`", "absent.pem"),
        ("`targets.web.tls`", "absent.ca"),
    ] {
        let line = told.lines().find(|line| line.contains(key));
        assert!(line.is_some_and(|line| line.contains(file)), "{told}");
    }
    assert!(told.contains("--syntax-only"), "{told}");
    let alone = ["config", "check", "--syntax-only"];
    let output = agent(&path, &alone).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_changed_file_is_put_in_force_and_a_broken_one_is_not() {
    let hub = StubHub::start().await;
    let setup = Setup::new(&hub, echo().await);
    let mut child = agent(&setup.path, &["run"]).spawn().unwrap();
    eventually("a tunnel", || {
        hub.with(|script| script.is_up().then_some(()))
    })
    .await;
    setup.write(
        &hub.url(),
        &[("echo", echo().await), ("more", echo().await)],
    );
    eventually("a RENEW", || {
        hub.with(|script| script.renews.first().cloned())
    })
    .await;

    std::fs::write(&setup.path, "tunnel: {urll: x}\n").unwrap();
    signal(&child, "HUP").await;
    let (mut client, _outcomes) = hub.open("more").await;
    exchange(&mut client, b"still in force").await;
    drop(client);
    signal(&child, "TERM").await;
    soon("the end", child.wait()).await.unwrap();
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .await
        .unwrap();
    assert!(log.contains("the configuration in force stays"), "{log}");
}

#[tokio::test]
async fn help_teaches_the_variables() {
    let output = Command::new(env!("CARGO_BIN_EXE_nowconnect-agent"))
        .args(["run", "--help"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let output = Command::new(env!("CARGO_BIN_EXE_nowconnect-agent"))
        .arg("--help")
        .output()
        .await
        .unwrap();
    assert!(text(&output.stdout).contains("NC_TARGET_<name>_HOST"));
    let output = Command::new(env!("CARGO_BIN_EXE_nowconnect-agent"))
        .arg("rnu")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[tokio::test]
async fn diagnose_walks_the_whole_way() {
    let hub = StubHub::start().await;
    let setup = Setup::new(&hub, echo().await);
    let (report, output) = diagnose(&setup.path).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert_eq!(report["ok"], true);
    let hops: Vec<(&str, &str)> = report["hops"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hop| {
            (
                hop["hop"].as_str().unwrap(),
                hop["status"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        hops,
        [
            ("config", "ok"),
            ("dns", "ok"),
            ("proxy", "skipped"),
            ("tcp", "ok"),
            ("tls", "skipped"),
            ("token", "ok"),
            ("upgrade", "ok"),
            ("hello", "ok"),
            ("target echo", "ok"),
        ]
    );
    assert!(!text(&output.stdout).contains("t0ken"));
}

#[tokio::test]
async fn diagnose_names_each_hop_that_fails() {
    let hub = StubHub::start().await;
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let setup = Setup::new(&hub, closed);

    let (report, output) = diagnose(&setup.path).await;
    assert_eq!(output.status.code(), Some(1));
    let target = hop(&report, "target echo");
    assert_eq!(target["status"], "failed");
    assert!(
        target["detail"]
            .as_str()
            .unwrap()
            .contains("connect_failed")
    );

    hub.with(|script| script.refuse_hello = Some(CloseCode::Denied));
    let (report, _) = diagnose(&setup.path).await;
    assert_eq!(hop(&report, "hello")["status"], "failed");
    assert!(
        hop(&report, "hello")["advice"]
            .as_str()
            .unwrap()
            .contains("policies")
    );

    hub.with(|script| script.refuse_upgrade = Some((401, Vec::new())));
    let (report, _) = diagnose(&setup.path).await;
    assert_eq!(hop(&report, "upgrade")["status"], "failed");
    assert!(
        hop(&report, "upgrade")["detail"]
            .as_str()
            .unwrap()
            .contains("401")
    );
    assert_eq!(hop(&report, "hello")["status"], "skipped");

    std::fs::remove_file(setup.folder.path().join("token")).unwrap();
    let (report, _) = diagnose(&setup.path).await;
    assert_eq!(hop(&report, "token")["status"], "failed");

    let setup = Setup::with_url(&format!("ws://{closed}"), echo().await);
    let (report, _) = diagnose(&setup.path).await;
    assert_eq!(hop(&report, "tcp")["status"], "failed");

    let server = tempfile::tempdir().unwrap();
    let foreign = StubHub::start_with(Some(acceptor("hub.test", server.path()))).await;
    let setup = Setup::with_url(&format!("wss://{}", foreign.address), echo().await);
    let (report, _) = diagnose(&setup.path).await;
    let tls = hop(&report, "tls");
    assert_eq!(tls["status"], "failed");
    let shown = tls["notes"][0].as_str().unwrap();
    for part in [
        "rcgen self signed cert",
        "issued by",
        "valid until",
        "hub.test",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }

    let setup = Setup::with_url(&format!("wss://{}", hub.address), echo().await);
    let (report, _) = diagnose(&setup.path).await;
    assert_eq!(hop(&report, "tls")["status"], "failed");
}

#[tokio::test]
async fn run_tells_the_service_manager_and_ends_on_a_signal() {
    let hub = StubHub::start().await;
    let setup = Setup::new(&hub, echo().await);
    let socket = setup.folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let mut child = agent(&setup.path, &["run"])
        .env("NOTIFY_SOCKET", &socket)
        .env("NC_LOG_FORMAT", "json")
        .env("WATCHDOG_USEC", "400000")
        .spawn()
        .unwrap();
    let mut seen = Vec::new();
    for wanted in ["READY=1", "STATUS=ready", "WATCHDOG=1"] {
        heard(&manager, &mut seen, wanted).await;
    }
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"through the binary").await;

    // A changed file is put in force by SIGHUP.
    setup.write(
        &hub.url(),
        &[("echo", echo().await), ("more", echo().await)],
    );
    signal(&child, "HUP").await;
    let renew = eventually("a RENEW", || {
        hub.with(|script| script.renews.first().cloned())
    })
    .await;
    assert_eq!(renew.connectors.unwrap().len(), 2);
    exchange(&mut client, b"still").await;
    drop(client);

    signal(&child, "TERM").await;
    heard(&manager, &mut seen, "STOPPING=1").await;
    let status = soon("the end", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .await
        .unwrap();
    assert!(!log.contains("t0ken"), "{log}");
    let connected: serde_json::Value = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|line| line["event"] == "agent_connected")
        .unwrap();
    assert_eq!(connected["agent_id"], "premise-1");
    assert_eq!(connected["connectors"], "echo");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let hub = StubHub::start().await;
    let setup = Setup::new(&hub, echo().await);
    let mut child = agent(&setup.path, &["run"]).spawn().unwrap();
    hub.hellos(1).await;
    eventually("a tunnel", || {
        hub.with(|script| script.is_up().then_some(()))
    })
    .await;
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"held").await;
    signal(&child, "TERM").await;
    signal(&child, "INT").await;
    let status = soon("the end", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn spans_continue_the_trace_that_open_carries() {
    let hub = StubHub::start().await;
    let setup = Setup::new(&hub, echo().await);
    let (receiver, mut bodies) = otlp_receiver().await;
    let mut child = agent(&setup.path, &["run"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{receiver}"))
        .spawn()
        .unwrap();
    eventually("a tunnel", || {
        hub.with(|script| script.is_up().then_some(()))
    })
    .await;
    let (mut client, _outcomes) = hub.open_traced("echo", Some(TRACE_PARENT)).await;
    exchange(&mut client, b"traced").await;
    drop(client);
    signal(&child, "TERM").await;
    let body = soon("a span", bodies.recv()).await.unwrap();
    soon("the end", child.wait()).await.unwrap();
    let has = |wanted: &[u8]| body.windows(wanted.len()).any(|window| window == wanted);
    assert!(has(&hex("4bf92f3577b34da6a3ce929d0e0e4736")), "trace id");
    assert!(has(&hex("00f067aa0ba902b7")), "parent span");
    assert!(has(b"agent dial") && has(b"nowconnect-agent"));
}

async fn heard(manager: &UnixDatagram, seen: &mut Vec<String>, wanted: &str) {
    while !seen.iter().any(|message| message.contains(wanted)) {
        let mut buffer = [0; 1024];
        let length = soon(wanted, manager.recv(&mut buffer)).await.unwrap();
        seen.push(text(&buffer[..length]));
    }
}

/// An HTTP server that takes whatever is posted to `/v1/traces`.
async fn otlp_receiver() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move { take_post(stream, &sender).await });
        }
    });
    (address, receiver)
}

async fn take_post(mut stream: TcpStream, sender: &mpsc::UnboundedSender<Vec<u8>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = text(&head).to_ascii_lowercase();
    assert!(head.starts_with("post /v1/traces "), "{head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let _ = sender.send(body);
    let _ = stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await;
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
