//! `http`, `tcp`, `start` and `connect` as a person runs them, against a stub of a control API.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};

use crate::binary::{signal, text};
use crate::stub_control::{CLIENT, StubControl};
use crate::stub_hub::StubHub;
use crate::support::{echo, exchange, soon};

#[tokio::test]
async fn an_address_is_printed_once_it_works_and_then_each_request() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    let origin = origin().await;
    let service = origin.port().to_string();
    let mut agent = Foreground::start(home.path(), &control, &["http", &service]);
    let address = format!("http://t-1.localhost:8080 -> localhost:{service}");
    assert_eq!(agent.line().await, address);
    assert_eq!(
        agent.line().await,
        format!("online through {}/tunnel", hub.url())
    );

    let (mut client, _outcomes) = hub.open("tun_1").await;
    for (request, line) in [
        ("GET /a?secret=1 HTTP/1.1\r\nhost: x\r\n\r\n", "GET /a 200 "),
        (
            "POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi",
            "POST /b 200 ",
        ),
    ] {
        client.write_all(request.as_bytes()).await.unwrap();
        let seen = agent.line().await;
        assert!(seen.starts_with(line) && seen.ends_with(" ms"), "{seen}");
        let mut answer = [0; ANSWER.len()];
        soon("an answer", client.read_exact(&mut answer))
            .await
            .unwrap();
    }
    let asked = control.with(|book| book.asked.clone());
    assert_eq!(asked, [serde_json::json!({"protocol": "http"})]);
    assert_eq!(hub.with(|script| script.tokens.clone()), ["ephemeral-1"]);
    agent.end().await;
}

#[tokio::test]
async fn a_service_that_is_down_is_told() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    let nobody = nobody().await;
    let mut agent = Foreground::start(home.path(), &control, &["http", &nobody.to_string()]);
    agent.until("online").await;
    let (_client, _outcomes) = hub.open("tun_1").await;
    let told = agent.line().await;
    assert!(
        told.starts_with(&format!("{nobody} is not reached: ")),
        "{told}"
    );
    agent.end().await;
}

#[tokio::test]
async fn the_address_stays_through_a_broken_tunnel_and_a_restart() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    let service = origin().await.port().to_string();
    let command = ["http", &service, "--name", "Shop"];
    let mut agent = Foreground::start(home.path(), &control, &command);
    let first = agent.line().await;
    assert!(
        first.starts_with("http://shop.localhost:8080 -> "),
        "{first}"
    );
    agent.until("online").await;
    hub.handle().close(
        nowconnect_protocol::CloseCode::Shutdown,
        "the hub goes".to_owned(),
    );
    agent.until("offline").await;
    agent.until("online").await;
    assert_eq!(
        hub.with(|script| script.tokens.clone()),
        ["ephemeral-1", "ephemeral-2"],
        "each token counts once"
    );
    agent.kill().await;

    let mut again = Foreground::start(home.path(), &control, &command);
    assert_eq!(again.line().await, first);
    let asked = control.with(|book| book.asked.clone());
    assert_eq!(asked[0]["requested_name"], "shop");
    assert_eq!(asked[1]["recreate_token"], "recreate-1");
    assert_eq!(asked[2]["recreate_token"], "recreate-2");

    // Another name is another tunnel, and so is the same one in a second agent at once.
    let blog = ["http", &service, "--name", "blog"];
    let mut blog = Foreground::start(home.path(), &control, &blog);
    assert!(blog.line().await.starts_with("http://blog.localhost:8080"));
    let mut second = Foreground::start(home.path(), &control, &command);
    let warned = second.line().await;
    assert!(
        warned.contains("another agent on this machine uses that address"),
        "{warned}"
    );

    let folder = std::fs::read_dir(home.path().join("nowconnect")).unwrap();
    let mut files = folder.map(|entry| entry.unwrap().path());
    let is_kept = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("http-shop-") && name.ends_with(".json")
    };
    let kept = files.find(is_kept).unwrap();
    let mode = std::fs::metadata(&kept).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", kept.display());
    for agent in [again, blog, second] {
        agent.end().await;
    }
}

#[tokio::test]
async fn a_tunnel_that_the_hub_forgot_is_replaced_with_a_word() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    let service = origin().await.port().to_string();
    let mut agent = Foreground::start(home.path(), &control, &["http", &service]);
    assert!(agent.line().await.starts_with("http://t-1.localhost:8080"));
    agent.until("online").await;
    control.forget();
    hub.handle().close(
        nowconnect_protocol::CloseCode::Shutdown,
        "the hub goes".to_owned(),
    );
    agent
        .until("the hub has forgotten the earlier address")
        .await;
    agent.until("http://t-2.localhost:8080").await;
    let hellos = hub.hellos(2).await;
    assert_eq!(hellos[1].agent_id.as_str(), "tun_2");
    let (_client, mut outcomes) = hub.open("tun_2").await;
    let outcome = soon("an answer to OPEN", outcomes.recv()).await.unwrap();
    assert!(
        matches!(outcome, crate::stub_hub::Outcome::Acknowledged),
        "{outcome:?}"
    );
    agent.end().await;

    let mut again = Foreground::start(home.path(), &control, &["http", &service]);
    assert!(again.line().await.starts_with("http://t-2.localhost:8080"));
    again.end().await;
}

#[tokio::test]
async fn a_hub_that_takes_the_place_of_another_is_learnt() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    let service = origin().await.port().to_string();
    let mut agent = Foreground::start(home.path(), &control, &["http", &service]);
    agent.until("online").await;
    let next = StubHub::start().await;
    control.with(|book| book.candidates[0]["edge_url"] = serde_json::json!(next.url()));
    hub.with(|script| script.refuse_upgrade = Some((503, Vec::new())));
    hub.handle().close(
        nowconnect_protocol::CloseCode::Shutdown,
        "the hub goes".to_owned(),
    );
    agent
        .until(&format!("online through {}/tunnel", next.url()))
        .await;
    assert_eq!(next.hellos(1).await[0].agent_id.as_str(), "tun_1");
    agent.end().await;
}

#[tokio::test]
async fn a_terminal_that_goes_away_ends_it() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    let service = origin().await.port().to_string();
    // Whatever the tests run below.
    let mut command = Command::new("env");
    command
        .args([
            "--default-signal=HUP",
            env!("CARGO_BIN_EXE_nowconnect-agent"),
        ])
        .args(["http", &service]);
    let mut agent = Foreground::spawn(at_home(command, home.path(), &control));
    agent.until("online").await;
    signal(&agent.child, "HUP").await;
    let status = soon("the end", agent.child.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn below_nohup_it_outlives_its_terminal() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    let service = origin().await.port().to_string();
    let mut command = Command::new("env");
    command
        .args([
            "--ignore-signal=HUP",
            env!("CARGO_BIN_EXE_nowconnect-agent"),
        ])
        .args(["http", &service]);
    let mut agent = Foreground::spawn(at_home(command, home.path(), &control));
    agent.until("online").await;
    signal(&agent.child, "HUP").await;
    let (mut client, _outcomes) = hub.open("tun_1").await;
    let request = b"GET /still-here HTTP/1.1\r\nhost: x\r\n\r\n";
    client.write_all(request).await.unwrap();
    agent.until("GET /still-here 200").await;
    agent.end().await;
}

#[tokio::test]
async fn what_cannot_be_published_stops_nothing_else() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    control.with(|book| book.refuse = Some((409, "name_taken")));
    let echo = echo().await;
    let path = home.path().join("premise.yaml");
    let (url, port, api) = (hub.url(), echo.port(), control.url());
    let file = format!(
        "tunnel: {{url: \"{url}\", agent_id: premise-1}}\ntargets:\n  echo: {{host: 127.0.0.1, port: {port}}}\n\
         observability: {{health_port: 0}}\n\
         publish: {{control_url: \"{api}\", services: [{{name: shop, target: \"{port}\"}}]}}\n"
    );
    std::fs::write(&path, file).unwrap();
    let mut start = command(home.path(), &["start", "--config", path.to_str().unwrap()]);
    start.env("NC_TOKEN", "t0ken");
    let mut agent = Foreground::spawn(start);
    let mut told = String::new();
    while !(told.contains("(name_taken)") && told.contains("echo: online")) {
        told += &format!("{}\n", agent.line().await);
    }
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"through").await;
    drop(client);
    agent.end().await;
}

/// Without it the next question would come after a minute.
#[tokio::test]
async fn an_api_that_says_when_to_ask_again_is_asked_then() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    control.with(|book| {
        book.refuse = Some((429, "quota_exceeded"));
        book.retry_after = Some(1);
    });
    let path = home.path().join("premise.yaml");
    let (service, api) = (origin().await.port(), control.url());
    let file = format!(
        "publish: {{control_url: \"{api}\", services: [{{name: shop, target: \"{service}\"}}]}}\n"
    );
    std::fs::write(&path, file).unwrap();
    let start = command(home.path(), &["start", "--config", path.to_str().unwrap()]);
    let mut agent = Foreground::spawn(start);
    agent.until("offline: ").await;
    control.with(|book| book.refuse = None);
    agent.until("online").await;
    agent.end().await;
}

#[tokio::test]
async fn hubs_are_tried_in_order() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let dead = format!("ws://{}", nobody().await);
    let control = StubControl::start(&[&dead, &hub.url()]).await;
    let service = origin().await.port().to_string();
    let mut agent = Foreground::start(home.path(), &control, &["http", &service]);
    agent.until("http://t-1").await;
    assert_eq!(
        agent.line().await,
        format!("online through {}/tunnel", hub.url())
    );
    let log = agent.end().await;
    let passed_over = log.lines().find(|line| line.contains("hub_passed_over"));
    assert!(
        passed_over.is_some_and(|line| line.contains(&dead)),
        "{log}"
    );
}

#[tokio::test]
async fn a_client_proves_itself_by_a_file() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    control.with(|book| book.asks_for_client = true);
    let secret = home.path().join("secret");
    std::fs::write(&secret, format!("{}\n", CLIENT.1)).unwrap();
    let service = origin().await.port().to_string();
    let command = [
        "http",
        &service,
        "--client-id",
        CLIENT.0,
        "--client-secret-file",
        secret.to_str().unwrap(),
    ];
    let mut agent = Foreground::start(home.path(), &control, &command);
    agent.until("online").await;
    let log = agent.end().await;
    assert!(!log.contains(CLIENT.1), "{log}");

    let refused = failing(home.path(), &control, &["http", &service]).await;
    assert!(refused.contains("unauthenticated"), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_published_ends_with_the_reason() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    control.with(|book| book.refuse = Some((409, "name_taken")));
    let told = failing(home.path(), &control, &["http", "3000", "--name", "shop"]).await;
    assert!(
        told.contains("refuses (name_taken): as the test said"),
        "{told}"
    );

    control.with(|book| book.refuse = None);
    control.with(|book| {
        book.candidates = serde_json::json!([{
            "edge_id": "h", "edge_url": "wss://hub.example.com", "supported_transport": ["quic"]
        }])
    });
    let told = failing(home.path(), &control, &["http", "3000"]).await;
    assert!(
        told.contains("no hub of the control API speaks `wss`"),
        "{told}"
    );

    let nobody = format!("http://{}", nobody().await);
    let output = command(home.path(), &["http", "3000", "--control", &nobody])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.contains(&nobody) && told.contains("nowconnect dev"),
        "{told}"
    );
    for wrong in [
        &["http", "three"][..],
        &["http", "3000", "--name", "a.b"],
        &["http", "3000", "--control", "http://hub.example.com"],
        &["tcp", "https://box"],
        &["connect", "--gateway", "wss://hub", "--id", "a", "web=x"],
    ] {
        let output = command(home.path(), wrong).output().await.unwrap();
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
    }
}

#[tokio::test]
async fn start_runs_all_that_the_file_names() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let control = StubControl::start(&[&hub.url()]).await;
    let (origin, echo) = (origin().await, echo().await);
    let path = home.path().join("premise.yaml");
    let file = format!(
        "publish:\n  control_url: {}\n  services:\n    - {{name: shop, target: \"{origin}\"}}\n    \
         - {{protocol: tcp, target: \"{echo}\"}}\n",
        control.url()
    );
    std::fs::write(&path, file).unwrap();
    let check = ["config", "check", path.to_str().unwrap()];
    let output = command(home.path(), &check).output().await.unwrap();
    assert!(
        text(&output.stdout).contains("`start` publishes 2 services"),
        "{output:?}"
    );
    let arguments = ["start", "--config", path.to_str().unwrap()];
    let mut agent = Foreground::spawn(command(home.path(), &arguments));
    let mut told = String::new();
    for _ in 0..4 {
        told += &format!("{}\n", agent.line().await);
    }
    assert!(
        told.contains(&format!("http://shop.localhost:8080 -> {origin}")),
        "{told}"
    );
    let tcp = told.lines().find_map(|line| {
        let (id, target) = line.strip_prefix("connector ")?.split_once(" -> ")?;
        (target == echo.to_string()).then(|| id.to_owned())
    });
    let tcp = tcp.unwrap_or_else(|| panic!("{told}"));
    let hellos = hub.hellos(2).await;
    // The stub opens flows over the tunnel that came last.
    let last = hellos.last().unwrap().agent_id.to_string();
    let (mut client, _outcomes) = hub.open(&last).await;
    if last == tcp {
        exchange(&mut client, b"ping").await;
        drop(client);
        agent
            .until(&format!("{echo}: connection in 4 B out 4 B"))
            .await;
    }
    agent.end().await;

    let empty = home.path().join("empty.yaml");
    std::fs::write(&empty, "publish: {services: []}\n").unwrap();
    let output = command(home.path(), &["start", "--config", empty.to_str().unwrap()])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("`publish.services` is empty"));
}

#[tokio::test]
async fn connect_takes_all_from_the_command_line_but_the_token() {
    let (hub, home) = (StubHub::start().await, tempfile::tempdir().unwrap());
    let echo = echo().await;
    let service = format!("echo={echo}");
    let url = hub.url();
    let arguments = ["connect", "--gateway", &url, "--id", "premise-1", &service];
    let mut with_variable = command(home.path(), &arguments);
    with_variable.env("NC_TOKEN", "t0ken");
    let mut agent = Foreground::spawn(with_variable);
    assert_eq!(agent.line().await, "premise-1 -> echo");
    agent.until("online").await;
    let (mut client, _outcomes) = hub.open("echo").await;
    exchange(&mut client, b"through").await;
    drop(client);
    agent.until("connection in 7 B out 7 B").await;
    assert_eq!(hub.with(|script| script.tokens.clone()), ["t0ken"]);
    agent.end().await;

    let token = home.path().join("token");
    std::fs::write(&token, "fr0m-file\n").unwrap();
    let mut with_file = command(home.path(), &arguments);
    with_file.args(["--token-file", token.to_str().unwrap()]);
    let mut agent = Foreground::spawn(with_file);
    agent.until("online").await;
    assert_eq!(hub.with(|script| script.tokens[1].clone()), "fr0m-file");
    agent.end().await;
}

/// An agent whose standard output is read line by line.
struct Foreground {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Foreground {
    fn start(home: &Path, control: &StubControl, arguments: &[&str]) -> Self {
        let mut command = command(home, arguments);
        command.env("NC_CONTROL_URL", control.url());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = soon("a line", self.lines.next_line()).await.unwrap();
        match line {
            Some(line) => line,
            None => panic!("the agent ended: {}", self.log().await),
        }
    }

    /// Reads up to a line that begins so.
    async fn until(&mut self, begin: &str) {
        while !self.line().await.starts_with(begin) {}
    }

    async fn log(&mut self) -> String {
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut log).await.unwrap();
        log
    }

    /// Asks for the end, which must come with success; gives the log.
    async fn end(mut self) -> String {
        signal(&self.child, "INT").await;
        let status = soon("the end", self.child.wait()).await.unwrap();
        let log = self.log().await;
        assert!(status.success(), "{status} {log}");
        log
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nowconnect-agent"));
    command.args(arguments);
    alone(command, home)
}

/// With nothing of this process' environment, and its state there.
fn alone(mut command: Command, home: &Path) -> Command {
    command
        .env_clear()
        .env("XDG_STATE_HOME", home)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The same for a program of the system that starts an agent of this API.
fn at_home(command: Command, home: &Path, control: &StubControl) -> Command {
    let mut command = alone(command, home);
    command
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("NC_CONTROL_URL", control.url());
    command
}

/// One that ends with 1; gives what it said.
async fn failing(home: &Path, control: &StubControl, arguments: &[&str]) -> String {
    let output = command(home, arguments)
        .env("NC_CONTROL_URL", control.url())
        .output();
    let output = soon("the end", output).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    text(&output.stderr)
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A service that answers each read with a response: a request of these tests comes in one.
async fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    stream.write_all(ANSWER).await.unwrap();
                }
            });
        }
    });
    address
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
