//! `make demo`: watch traffic go through a gateway whose rules change while it runs.
//!
//! Hub, agent, issuer and services are all in this process. With `--once` the story is told and the
//! program ends, with exit code 0 only if everything that it shows was so; without, it stays until
//! it is stopped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nowconnect_demo::Failed;
use nowconnect_demo::address::Address;
use nowconnect_demo::flow::Flow;
use nowconnect_demo::issuer::{Client, Issuer};
use nowconnect_demo::services::{Response, serve_echo, serve_http};
use nowconnect_demo::stage::{Stage, listener_port};
use nowconnect_demo::terminal::Terminal;

/// What the agent may offer.
const CONNECTORS: [&str; 3] = ["web", "echo", "payroll"];

/// The secret that the agent gets tokens with.
const CLIENT_SECRET: &str = "a-secret-of-the-demo";

/// Nobody may reach payroll.
const PAYROLL_CLOSED: &str = r#"// Payroll is nobody's business.
@id("payroll-closed")
@error("payroll_closed")
@advice("Ask the payroll team to open it, in payroll.cedar.")
forbid (
  principal,
  action == NowConnect::Action::"open",
  resource == NowConnect::Connector::"payroll"
);
"#;

/// Payroll for this machine.
const PAYROLL_OPEN: &str = r#"// Payroll is for clients on this machine.
@id("payroll-closed")
@error("payroll_closed")
@advice("Ask the payroll team to open it, in payroll.cedar.")
forbid (
  principal,
  action == NowConnect::Action::"open",
  resource == NowConnect::Connector::"payroll"
)
unless { context.net.srcIp.isLoopback() };
"#;

/// Lets every flow pass that Cedar permits.
const PLUGINS_FIRST: &str = r#"    - name: gate
      file: scope-guard.wasm
      grants: [config]
      config: {agent_names: ["site-#"]}
"#;

/// Another component in the same place.
const PLUGINS_SECOND: &str = r#"    - name: gate
      file: rate-limit.wasm
      grants: [config, "kv:1MiB"]
      config: {limits: [{per: [client_ip, connector], flows: 3, window_seconds: 600}]}
"#;

/// Covers addresses in the log.
const PLUGINS_MASK: &str = r#"    - name: log-mask
      file: log-mask.wasm
      grants: [config]
      config: {emails: hash, tokens: erase, ips: hash}
"#;

fn main() -> ExitCode {
    let once = std::env::args().any(|argument| argument == "--once");
    let mut terminal = Terminal::default();
    match run(&mut terminal, once) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.heading("The demo could not go on");
            terminal.output(&error.0);
            ExitCode::FAILURE
        }
    }
}

fn run(terminal: &mut Terminal, once: bool) -> Result<(), Failed> {
    let own = std::env::current_exe().map_err(Failed::doing("this program's own path"))?;
    let programs = own
        .parent()
        .ok_or_else(|| Failed("this program has no folder".to_owned()))?;
    let mut demo = Demo::set_up(terminal, programs)?;
    let mut running = demo.allowed(terminal)?;
    demo.denied(terminal)?;
    demo.swap_policy(terminal, &mut running)?;
    demo.swap_plugin(terminal, &mut running)?;
    demo.mask_log(terminal)?;
    drop(running);
    let _address = demo.publish(terminal)?;
    if !once {
        demo.what_next(terminal);
        demo.stage.gateway.wait()?;
    }
    terminal.heading("Done");
    if !demo.stage.gateway.end() {
        return Err(Failed("the agent did not end in time".to_owned()));
    }
    terminal.good("hub and agent have drained and ended");
    Ok(())
}

/// The listeners' ports, and the stage.
struct Demo {
    stage: Stage,
    web: u16,
    echo: u16,
    payroll: u16,
    issuer: String,
    /// The port of the private HTTP service.
    service: u16,
}

impl Demo {
    fn set_up(terminal: &mut Terminal, programs: &Path) -> Result<Self, Failed> {
        let root = project_root();
        let stage = Stage::new(programs)?;
        let (web, echo, payroll) = (
            listener_port(18080)?,
            listener_port(17007)?,
            listener_port(15432)?,
        );
        terminal.scene("A hub in public, an agent in private, one tunnel between them");
        let issuer = Issuer::start(Client {
            agent_id: "site-1",
            secret: CLIENT_SECRET,
            connectors: &CONNECTORS,
            lifetime: Duration::from_secs(300),
        })?;
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let web_service = serve_http(local, |request| {
            Response::text(
                200,
                &format!(
                    "Hello from a private service. You asked for {}.\n",
                    request.path
                ),
            )
        })?;
        let echo_service = serve_echo(local)?;
        terminal.good(format!("issuer of tokens     {}", issuer.url));
        terminal.good(format!(
            "private HTTP service {web_service}, private TCP echo {echo_service}"
        ));

        stage.make_certificates()?;
        let policies = stage.copy(&root.join("policies"), "cedar", "policies")?;
        stage.write("policies/payroll.cedar", PAYROLL_CLOSED)?;
        stage.copy(&root.join("plugins/target/components"), "wasm", "plugins")?;
        stage.write("client-secret", CLIENT_SECRET)?;

        let mut demo = Self {
            stage,
            web,
            echo,
            payroll,
            issuer: issuer.url,
            service: web_service.port(),
        };
        demo.write_hub_config(PLUGINS_FIRST)?;
        demo.stage.write(
            "premise.yaml",
            &demo.agent_config(web_service.port(), echo_service.port()),
        )?;

        demo.stage.start_hub()?;
        let metrics = demo.stage.metrics;
        demo.stage.eventually("the hub's /readyz", |_| {
            http_ok(metrics, "/readyz").then_some(())
        })?;
        terminal.good(format!(
            "hub                  wss://localhost:{}/tunnel, {} policy files, 1 plugin",
            demo.stage.tunnel,
            policies + 1
        ));
        demo.stage.start_agent()?;
        demo.stage.eventually("the agent's tunnel", |stage| {
            stage.gateway.is_agent_ready().then_some(())
        })?;
        terminal.good(format!(
            "agent site-1         dialled out and offers {}",
            CONNECTORS.join(", ")
        ));
        terminal.say(format!(
            "Everything lies in {}",
            demo.stage.folder.display()
        ));
        Ok(demo)
    }

    fn allowed(&mut self, terminal: &mut Terminal) -> Result<Flow, Failed> {
        terminal.scene("Allowed: client -> hub -> agent -> private service");
        terminal.command(format!("curl http://127.0.0.1:{}/", self.web));
        let port = self.web;
        let answer = self
            .stage
            .eventually("an answer of the private service", |_| get(port))?;
        terminal.output(&answer);
        let mut running = Flow::connect(self.echo)?;
        if !running.echoes("ping") {
            return Err(Failed("the TCP echo did not answer".to_owned()));
        }
        terminal.good(format!(
            "a TCP flow through port {} is open too, and stays open from here on",
            self.echo
        ));
        Ok(running)
    }

    fn denied(&mut self, terminal: &mut Terminal) -> Result<(), Failed> {
        terminal.scene("Denied, with the reason");
        let client = self.refused(self.payroll)?;
        terminal.denied(format!(
            "a client of port {} (payroll) was accepted and closed without a byte",
            self.payroll
        ));
        terminal.say("A raw TCP client cannot be told why. The operator can:");
        let explained = self.explain(terminal, &client)?;
        must_contain(&explained, "payroll-closed")
    }

    fn swap_policy(&mut self, terminal: &mut Terminal, running: &mut Flow) -> Result<(), Failed> {
        terminal.scene("A policy is swapped while traffic runs");
        self.stage.write("policies/payroll.cedar", PAYROLL_OPEN)?;
        terminal.say("policies/payroll.cedar now ends with:");
        terminal.output("unless { context.net.srcIp.isLoopback() };");
        let port = self.payroll;
        self.stage.eventually("payroll to open", |_| {
            Flow::connect(port)
                .is_ok_and(|mut flow| flow.echoes("salary?"))
                .then_some(())
        })?;
        terminal.good("the same client is let in now: no restart, no redeploy");
        still_open(terminal, running)
    }

    fn swap_plugin(&mut self, terminal: &mut Terminal, running: &mut Flow) -> Result<(), Failed> {
        terminal.scene("A plugin is swapped while traffic runs");
        self.write_hub_config(PLUGINS_SECOND)?;
        terminal
            .say("cloud.yaml: the plugin `gate` was scope-guard.wasm and is rate-limit.wasm now,");
        terminal.say("which counts: three flows for each client and connector in ten minutes.");
        let port = self.payroll;
        let client = self.stage.eventually("the plugin's refusal", |_| {
            let mut flow = Flow::connect(port).ok()?;
            let client = flow.client();
            (!flow.echoes("again")).then_some(client)
        })?;
        terminal.denied("and one more client was closed");
        let explained = self.explain(terminal, &client)?;
        must_contain(&explained, "rate_limited")?;
        still_open(terminal, running)
    }

    fn mask_log(&mut self, terminal: &mut Terminal) -> Result<(), Failed> {
        terminal.scene("What is logged is masked by a plugin");
        let before = self.logged_flow("127.0.0.1")?;
        terminal.say("A line of the log, as it is:");
        terminal.output(&before);
        self.write_hub_config(&format!("{PLUGINS_FIRST}{PLUGINS_MASK}"))?;
        let after = self.stage_masked()?;
        terminal.say("and with log-mask.wasm in cloud.yaml (an address becomes a keyed hash):");
        terminal.output(&after);
        Ok(())
    }

    /// Keeps running as long as what it returns.
    fn publish(&self, terminal: &mut Terminal) -> Result<Address, Failed> {
        terminal.scene("A public address for a private service, from nothing");
        terminal.say("Two programs without any configuration, in two terminals:");
        terminal.command("nowconnect dev");
        terminal.command(format!("nowconnect-agent http {}", self.service));
        let address = Address::start(&self.stage.programs, &self.stage.folder, self.service)?;
        terminal.output(&address.line);
        let url = address.url().to_owned();
        terminal.command(format!("curl {url}/"));
        let host = url.trim_start_matches("http://");
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = Flow::connect(address.port)?.ask(&request);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        must_contain(body, "Hello from a private service")?;
        terminal.output(body);
        terminal.say("and the agent shows:");
        terminal.output(&address.next_line("GET / 200 ")?);
        Ok(address)
    }

    /// A line about a new flow that contains `text`.
    fn logged_flow(&mut self, text: &str) -> Result<String, Failed> {
        self.stage
            .eventually("a line about a flow in the log", |stage| {
                let log = stage.log();
                let line = log
                    .lines()
                    .rev()
                    .find(|line| is_flow_line(line) && line.contains(text))?;
                Some(line.to_owned())
            })
    }

    fn stage_masked(&mut self) -> Result<String, Failed> {
        let port = self.web;
        self.stage.eventually("a masked line in the log", |stage| {
            let seen = stage.log().len();
            get(port)?;
            let log = stage.log();
            let line = log.get(seen..)?.lines().find(|line| is_flow_line(line))?;
            (!line.contains("127.0.0.1")).then(|| line.to_owned())
        })
    }

    fn what_next(&self, terminal: &mut Terminal) {
        let folder = self.stage.folder.display();
        let nowconnect = self.stage.programs.join("nowconnect");
        let nowconnect = nowconnect.display();
        terminal.heading("It keeps running. Try this in another terminal (Ctrl-C here ends it):");
        for (what, command) in [
            ("use it", format!("curl http://127.0.0.1:{}/", self.web)),
            (
                "look at it",
                format!("{nowconnect} status --socket {folder}/admin.sock"),
            ),
            (
                "watch it",
                format!("{nowconnect} top --socket {folder}/admin.sock"),
            ),
            (
                "count it",
                format!("curl http://127.0.0.1:{}/metrics", self.stage.metrics),
            ),
            (
                "change the rules, then use it again",
                format!("$EDITOR {folder}/policies/payroll.cedar"),
            ),
            (
                "ask why the last client was refused",
                format!(
                    "{nowconnect} policy explain --last --client 127.0.0.1 --socket {folder}/admin.sock"
                ),
            ),
            (
                "change plugins, ports, limits",
                format!("$EDITOR {folder}/cloud.yaml"),
            ),
            (
                "read the log",
                format!("tail -f {}", self.stage.log_file().display()),
            ),
        ] {
            terminal.say(format!("{what}:"));
            terminal.command(command);
        }
    }

    /// A client that must be refused; returns its address.
    fn refused(&mut self, port: u16) -> Result<String, Failed> {
        let mut flow = Flow::connect(port)?;
        let client = flow.client();
        if flow.ask("salary?").is_empty() {
            return Ok(client);
        }
        Err(Failed(format!(
            "a client of port {port} was let in, and should not have been"
        )))
    }

    fn explain(&mut self, terminal: &Terminal, client: &str) -> Result<String, Failed> {
        terminal.command(format!(
            "nowconnect policy explain --client {client} --last"
        ));
        let explained = self.stage.nowconnect(&[
            "policy",
            "explain",
            "--client",
            client,
            "--last",
            "--socket",
            "admin.sock",
        ])?;
        terminal.output(&explained);
        Ok(explained)
    }

    fn write_hub_config(&self, plugins: &str) -> Result<(), Failed> {
        let Self {
            stage,
            web,
            echo,
            payroll,
            issuer,
            service: _,
        } = self;
        let (tunnel, metrics) = (stage.tunnel, stage.metrics);
        stage.write(
            "cloud.yaml",
            &format!(
                "\
listeners:
  - {{name: web, bind: \"127.0.0.1:{web}\", connector: web}}
  - {{name: echo, bind: \"127.0.0.1:{echo}\", connector: echo}}
  - {{name: payroll, bind: \"127.0.0.1:{payroll}\", connector: payroll}}

connectors:
  echo: {{idle_timeout_ms: 3600000}}

tunnel:
  host: 127.0.0.1
  port: {tunnel}
  tls: {{cert_file: hub.pem, key_file: hub.key}}

security:
  require_connector_scopes: true
  revocation_file: revoked.jsonl
  issuers:
    - issuer: {issuer}
      discovery: {issuer}/.well-known/openid-configuration

policy:
  dir: policies

plugins:
  dir: plugins
  # These come with the demo, and nobody else can write here.
  require_signature: false
  list:
{plugins}
observability:
  metrics_host: 127.0.0.1
  metrics_port: {metrics}

admin:
  socket: admin.sock
"
            ),
        )
    }

    fn agent_config(&self, web_port: u16, echo_port: u16) -> String {
        let (tunnel, health, issuer) = (self.stage.tunnel, self.stage.health, &self.issuer);
        format!(
            "\
tunnel:
  url: wss://localhost:{tunnel}/tunnel
  agent_id: site-1
  auth:
    oidc: {{issuer: \"{issuer}\", client_id: site-1, client_secret_file: client-secret}}

targets:
  web: {{host: 127.0.0.1, port: {web_port}}}
  echo: {{host: 127.0.0.1, port: {echo_port}}}
  payroll: {{host: 127.0.0.1, port: {echo_port}}}

proxy:
  ca_bundle: ca.pem

observability:
  health_host: 127.0.0.1
  health_port: {health}
"
        )
    }
}

fn still_open(terminal: &Terminal, running: &mut Flow) -> Result<(), Failed> {
    if !running.echoes("still here") {
        return Err(Failed(
            "the flow that was open from the start was cut".to_owned(),
        ));
    }
    terminal.good("the flow that was open before answers as ever");
    Ok(())
}

fn must_contain(text: &str, wanted: &str) -> Result<(), Failed> {
    if text.contains(wanted) {
        return Ok(());
    }
    Err(Failed(format!("the explanation does not name `{wanted}`")))
}

/// Whether a line of the log is about a flow that was opened.
fn is_flow_line(line: &str) -> bool {
    line.contains("connection open")
}

/// The body of a page behind a listener, if it came.
fn get(port: u16) -> Option<String> {
    let answer = request(port, "/")?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

fn http_ok(port: u16, path: &str) -> bool {
    request(port, path).is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn request(port: u16, path: &str) -> Option<String> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    Some(Flow::connect(port).ok()?.ask(&request)).filter(|answer| !answer.is_empty())
}

fn project_root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}
