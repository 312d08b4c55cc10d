//! A hub and agents as the processes that users run, with configuration files.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::parts::certificates::{Authority, Certificate};
use crate::parts::tokens::{ISSUER, Tokens};
use crate::parts::{Daemon, eventually, free_port, program, run};
use crate::repository::root;

/// How long a flow, an agent or a log line may take to appear.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A policy set that lets every agent in and every client through.
const OPEN_POLICY: &str = r#"
@id("any-hello")
permit (principal is NowConnect::Agent, action == NowConnect::Action::"hello", resource);
@id("any-announce")
permit (principal is NowConnect::Agent, action == NowConnect::Action::"announce", resource);
@id("any-open")
permit (principal is NowConnect::Viewer, action == NowConnect::Action::"open", resource);
"#;

/// The path of one of the product's programs. Without `NOWCONNECT_BIN_DIR` they are built first,
/// so that a test never runs an old one.
pub(crate) fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        if let Some(given) = std::env::var_os("NOWCONNECT_BIN_DIR") {
            return PathBuf::from(given);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args([
            "build",
            "--workspace",
            "--bin",
            "nowconnect",
            "--bin",
            "nowconnect-agent",
        ]);
        let status = build
            .current_dir(root())
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{build:?}");
        let test = std::env::current_exe().unwrap();
        test.ancestors()
            .nth(2)
            .expect("a test runs from <profile>/deps")
            .to_owned()
    });
    folder.join(name)
}

/// What a test sets up: a folder with an authority, an issuer of tokens and policies, and the
/// configuration of a hub that uses them.
pub(crate) struct Setup {
    folder: tempfile::TempDir,
    /// The authority that every certificate here comes from.
    pub(crate) authority: Authority,
    /// The hub's certificate, for `localhost`.
    pub(crate) certificate: Certificate,
    /// The issuer that the hub trusts unless the test changes it.
    pub(crate) tokens: Tokens,
    /// The hub's configuration; JSON is YAML.
    pub(crate) config: Value,
    /// The port of agents.
    pub(crate) tunnel_port: u16,
    /// The port of metrics.
    pub(crate) metrics_port: u16,
}

impl Setup {
    /// A hub with TLS in its own process and policies that allow everything.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("nc-").tempdir().unwrap();
        let path = folder.path();
        let authority = Authority::new(path);
        let certificate = authority.issue("hub", &["localhost", "127.0.0.1"]);
        let tokens = Tokens::new(path);
        std::fs::create_dir(path.join("policies")).unwrap();
        std::fs::write(path.join("policies/open.cedar"), OPEN_POLICY).unwrap();
        let (tunnel_port, metrics_port) = (free_port(), free_port());
        let config = json!({
            "listeners": [],
            "tunnel": {"host": "127.0.0.1", "port": tunnel_port,
                       "tls": {"cert_file": certificate.cert_file, "key_file": certificate.key_file}},
            "security": {"issuers": [{"issuer": ISSUER, "jwks_file": tokens.jwks(), "audience": "nowconnect"}]},
            "policy": {"dir": path.join("policies")},
            "observability": {"metrics_host": "127.0.0.1", "metrics_port": metrics_port,
                              "log_format": "json", "log_level": "debug"},
            "admin": {"socket": path.join("admin.sock")},
        });
        Self {
            folder,
            authority,
            certificate,
            tokens,
            config,
            tunnel_port,
            metrics_port,
        }
    }

    /// The folder of this test.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Adds a listener for a connector on a free port, which is returned.
    pub(crate) fn listen(&mut self, connector: &str) -> u16 {
        let port = free_port();
        let listener =
            json!({"name": connector, "bind": format!("127.0.0.1:{port}"), "connector": connector});
        self.config["listeners"]
            .as_array_mut()
            .unwrap()
            .push(listener);
        port
    }

    /// Starts the hub.
    pub(crate) fn hub(&self) -> Daemon {
        let file = self.write("cloud.yaml", &self.config);
        let mut command = clean(&binary("nowconnect"));
        command.arg("run").arg("--config").arg(file);
        let mut hub = Daemon::start("hub", &mut command, self.folder());
        hub.wait_for("/readyz", |_| {
            http(self.metrics_port, "/readyz")
                .filter(|answer| answer.starts_with("HTTP/1.1 200"))
                .map(drop)
        });
        hub
    }

    /// The configuration of an agent of this hub, as `site-1` with a token of [`Self::tokens`].
    pub(crate) fn agent_config(&self, targets: &[(&str, u16)]) -> Value {
        let names: Vec<_> = targets.iter().map(|(name, _)| *name).collect();
        let token = self
            .tokens
            .issue("site-1", &names, Duration::from_secs(600));
        let map = |port: &u16| json!({"host": "127.0.0.1", "port": port});
        let targets: serde_json::Map<_, _> = targets
            .iter()
            .map(|(name, port)| ((*name).to_owned(), map(port)))
            .collect();
        json!({
            "tunnel": {"url": format!("wss://localhost:{}/tunnel", self.tunnel_port), "agent_id": "site-1",
                       "auth": {"token_file": token}, "reconnect": {"base_ms": 50, "cap_ms": 500}},
            "targets": targets,
            "proxy": {"ca_bundle": self.authority.bundle()},
            "observability": {"health_host": "127.0.0.1", "health_port": free_port(),
                              "log_format": "json", "log_level": "debug"},
        })
    }

    /// Starts an agent and waits until it is ready.
    pub(crate) fn agent(&self, config: &Value) -> Daemon {
        let mut agent = self.agent_with(config, &[]);
        wait_until_ready(&mut agent, config);
        agent
    }

    /// Starts an agent with variables of the environment, and waits for nothing.
    pub(crate) fn agent_with(&self, config: &Value, environment: &[(&str, &str)]) -> Daemon {
        let file = self.write("premise.yaml", config);
        let mut command = clean(&binary("nowconnect-agent"));
        command
            .arg("run")
            .arg("--config")
            .arg(file)
            .envs(environment.iter().copied());
        Daemon::start("agent", &mut command, self.folder())
    }

    /// What the agent says of each hop to its hub; the exit status does not matter here.
    pub(crate) fn diagnose(&self, config: &Value, environment: &[(&str, &str)]) -> String {
        let file = self.write("premise.yaml", config);
        let mut command = clean(&binary("nowconnect-agent"));
        command
            .arg("diagnose")
            .arg("--config")
            .arg(file)
            .envs(environment.iter().copied());
        let output = run(&mut command);
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }

    /// All metrics of the hub.
    pub(crate) fn metrics(&self) -> String {
        let answer = http(self.metrics_port, "/metrics").expect("the metrics port answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        body.to_owned()
    }

    fn write(&self, name: &str, value: &Value) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::write(&path, serde_json::to_string_pretty(value).unwrap()).unwrap();
        path
    }
}

/// Waits until the agent's health server says `READY`.
pub(crate) fn wait_until_ready(agent: &mut Daemon, config: &Value) {
    let port = u16::try_from(config["observability"]["health_port"].as_u64().unwrap()).unwrap();
    agent.wait_for("READY", |_| health(port).filter(|text| text == "READY"));
}

/// What an agent's health server says.
pub(crate) fn health(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

/// The whole answer to a GET on loopback.
pub(crate) fn http(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Sends JSON to a plain HTTP port, and gives the JSON of its answer.
pub(crate) fn post(port: u16, path: &str, body: &Value) -> Option<Value> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = body.to_string();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

/// A TCP service that returns what it gets, with half-close; it lives until the test's process
/// ends.
pub(crate) fn echo_service() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut back = stream.try_clone().unwrap();
                // A client that goes away is not the service's concern.
                let _ = std::io::copy(&mut stream, &mut back);
                let _ = back.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

/// One client of an echo service.
pub(crate) struct EchoClient(TcpStream);

impl EchoClient {
    /// Connects and says something; `None` if it does not come back.
    pub(crate) fn connect(port: u16) -> Option<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut client = Self(stream);
        client.say("hello").then_some(client)
    }

    /// Whether `text` comes back.
    pub(crate) fn say(&mut self, text: &str) -> bool {
        let mut back = vec![0; text.len()];
        self.0.write_all(text.as_bytes()).is_ok()
            && self.0.read_exact(&mut back).is_ok()
            && back == text.as_bytes()
    }
}

/// A flow to the echo service behind a listener, as soon as there is one.
pub(crate) fn echo_through(port: u16) -> EchoClient {
    eventually(&format!("an echo through port {port}"), PATIENCE, || {
        EchoClient::connect(port)
    })
}

/// A command without the variables that would change what our programs do.
pub(crate) fn clean(path: &Path) -> Command {
    let mut command = if path.is_absolute() {
        Command::new(path)
    } else {
        program(&path.to_string_lossy())
    };
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        let ours = [
            "NC_",
            "NOWCONNECT_",
            "OTEL_",
            "LOG_LEVEL",
            "SERVICE_CONFIG_DIR",
            "FAPI_MODE",
        ];
        if upper.ends_with("_PROXY") || ours.iter().any(|prefix| upper.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}
