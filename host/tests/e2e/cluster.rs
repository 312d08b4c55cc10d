//! The language of the scenarios: hubs, agents, targets, clients, a token issuer and a link that
//! can be cut.

mod bundler;
pub(crate) mod guest;
mod issuer;
mod link;
pub(crate) mod pdp;
mod process;
mod redis;
mod target;
pub(crate) mod tls;
pub(crate) mod web;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nowconnect::admin::AdminClient;
use nowconnect::admin::view::ReloadReport;
use nowconnect::config::{self, CloudConfig};
use nowconnect::gateway::{Gateway, GatewayOptions, Running};
use nowconnect::registry::Registry;
use nowconnect::telemetry::decisions::{DecisionFilter, DecisionRecord};
use nowconnect_agent::config::{BackoffSettings, TargetTls};
use nowconnect_agent::{
    Agent, AgentConfig, AgentState, Auth, HubUrl, Secret, SigningSecret, Target,
};
use nowconnect_protocol::{AgentId, ConnectorName, TenantName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

pub(crate) use bundler::Bundler;
pub(crate) use issuer::{Claims, Issuer, now_s};
pub(crate) use link::Link;
pub(crate) use process::{HubProcess, command};
pub(crate) use redis::Redis;
pub(crate) use target::{TestTarget, echo, hold, refuse};

/// How long anything may take. Reached only where a test fails.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Begins a hub.
pub(crate) fn hub() -> HubPlan {
    HubPlan {
        listeners: Vec::new(),
        tunnel: String::new(),
        limits: String::new(),
        security: String::new(),
        policy: String::new(),
        observability: String::new(),
        top: String::new(),
        policies: Vec::new(),
        files: Vec::new(),
        trusted_issuer: None,
        bundles: false,
        tls: false,
        watch: false,
        admin: false,
        registry: None,
        largest_file: None,
    }
}

/// A hub to be started.
pub(crate) struct HubPlan {
    listeners: Vec<String>,
    tunnel: String,
    limits: String,
    security: String,
    policy: String,
    observability: String,
    top: String,
    policies: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    /// Whose word the hub takes instead of a plain issuer's.
    trusted_issuer: Option<Issuer>,
    bundles: bool,
    tls: bool,
    watch: bool,
    admin: bool,
    registry: Option<Arc<dyn Registry>>,
    /// Bytes of the largest file that a hub of its own process can write.
    largest_file: Option<u64>,
}

impl HubPlan {
    /// A listener that leads to the connector of the same name.
    pub(crate) fn listener(self, name: &str) -> Self {
        self.listener_with(name, name, "")
    }

    /// A listener with more of its settings, as inline YAML.
    pub(crate) fn listener_with(mut self, name: &str, connector: &str, more: &str) -> Self {
        self.listeners.push(listener_yaml(name, connector, more));
        self
    }

    /// A listener at an address of one's choice.
    pub(crate) fn listener_at(mut self, name: &str, connector: &str, bind: SocketAddr) -> Self {
        let line = listener_yaml(name, connector, "").replace("127.0.0.1:0", &bind.to_string());
        self.listeners.push(line);
        self
    }

    /// Lines of the section `tunnel`.
    pub(crate) fn tunnel(mut self, lines: &str) -> Self {
        push_lines(&mut self.tunnel, lines);
        self
    }

    /// Lines of the section `limits`.
    pub(crate) fn limits(mut self, lines: &str) -> Self {
        push_lines(&mut self.limits, lines);
        self
    }

    /// Lines of the section `security`.
    pub(crate) fn security(mut self, lines: &str) -> Self {
        push_lines(&mut self.security, lines);
        self
    }

    /// Lines of the section `policy`.
    pub(crate) fn policy(mut self, lines: &str) -> Self {
        push_lines(&mut self.policy, lines);
        self
    }

    /// Lines of the section `observability`.
    pub(crate) fn observability(mut self, lines: &str) -> Self {
        push_lines(&mut self.observability, lines);
        self
    }

    /// Whole sections of one's own.
    pub(crate) fn top(mut self, lines: &str) -> Self {
        self.top.push_str(lines);
        self.top.push('\n');
        self
    }

    /// A file of the policy folder, which else holds what permits everything.
    pub(crate) fn policy_file(mut self, name: &str, text: &str) -> Self {
        self.policies.push((name.to_owned(), text.to_owned()));
        self
    }

    /// A file beside the configuration.
    pub(crate) fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), bytes.into()));
        self
    }

    /// Takes the word of this issuer.
    pub(crate) fn issuer(mut self, issuer: Issuer) -> Self {
        self.trusted_issuer = Some(issuer);
        self
    }

    /// Policies come in bundles of this maker, and not from the folder; further lines of
    /// `policy.bundle`.
    pub(crate) fn bundles(mut self, maker: &Bundler, lines: &str) -> Self {
        self.bundles = true;
        let key = maker.public();
        push_lines(&mut self.policy, "bundle:");
        push_lines(&mut self.policy, &format!("  trusted_keys: [\"{key}\"]"));
        push_lines(&mut self.policy, "  state_dir: state");
        for line in lines.lines() {
            push_lines(&mut self.policy, &format!("  {line}"));
        }
        self
    }

    /// TLS on the tunnel port, with a certificate of its own.
    pub(crate) fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// With the admin API on a socket in its folder.
    pub(crate) fn admin(mut self) -> Self {
        self.admin = true;
        self
    }

    /// It can write no larger file: for a hub of its own process.
    pub(crate) fn largest_file(mut self, bytes: u64) -> Self {
        self.largest_file = Some(bytes);
        self
    }

    /// Files are watched, as in production.
    pub(crate) fn watched(mut self) -> Self {
        self.watch = true;
        self
    }

    /// Agents are claimed there.
    pub(crate) fn registry(mut self, registry: Arc<dyn Registry>) -> Self {
        self.registry = Some(registry);
        self
    }

    pub(crate) async fn start(mut self) -> TestHub {
        let watch = self.watch;
        let registry = self.registry.take();
        let mut hub = self.prepare().await;
        let config = load(&hub.file);
        let file = hub.file.clone();
        let options = GatewayOptions {
            loader: Some(Arc::new(move || config::load(Some(&file), &no_env()))),
            watch,
            registry,
            ..GatewayOptions::default()
        };
        hub.running = Some(Gateway::bind(config, options).await.unwrap());
        hub
    }

    /// Starts it, and it must not start: says why.
    pub(crate) async fn refused(self) -> String {
        let hub = self.prepare().await;
        let started = Gateway::bind(load(&hub.file), GatewayOptions::default()).await;
        match started {
            Ok(_) => panic!("the hub started"),
            Err(error) => error.to_string(),
        }
    }

    /// Starts it as a process of its own.
    pub(crate) async fn start_process(self) -> TestHub {
        let mut hub = self.admin().prepare().await;
        let (socket, plan) = (hub.path("admin.sock"), &hub.plan);
        let process = HubProcess::start(&hub.file, socket, plan.largest_file, plan.bundles);
        hub.process = Some(process.await);
        hub
    }

    /// Its folder, with everything in it.
    async fn prepare(mut self) -> TestHub {
        let issuer = match self.trusted_issuer.take() {
            Some(issuer) => issuer,
            None => Issuer::start().await,
        };
        let dir = TempDir::new().unwrap();
        let policies = dir.path().join("policies");
        std::fs::create_dir(&policies).unwrap();
        std::fs::write(policies.join("base.cedar"), PERMIT_ALL).unwrap();
        for (name, text) in &self.policies {
            std::fs::write(policies.join(name), text).unwrap();
        }
        for (name, bytes) in &self.files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let ca = self.tls.then(|| {
            tls::write_pair(dir.path(), "hub");
            dir.path().join("hub.pem")
        });
        let hub = TestHub {
            running: None,
            process: None,
            issuer,
            file: dir.path().join("cloud.yaml"),
            policies,
            ca,
            plan: self,
            dir,
        };
        hub.write_config();
        hub
    }
}

/// What every test hub permits, unless it brings its own `base.cedar`.
pub(crate) const PERMIT_ALL: &str = r#"
@id("base-hello")
permit (principal is NowConnect::Agent, action == NowConnect::Action::"hello", resource);
@id("base-announce")
permit (principal is NowConnect::Agent, action == NowConnect::Action::"announce", resource);
@id("base-open")
permit (principal is NowConnect::Viewer, action == NowConnect::Action::"open", resource);
"#;

/// A policy that forbids opening one connector.
pub(crate) fn forbid_open(connector: &str) -> String {
    format!(
        "@id(\"no-{connector}\")\n@error(\"closed_today\")\n@advice(\"come back tomorrow\")\n\
         forbid (principal, action == NowConnect::Action::\"open\", \
         resource == NowConnect::Connector::\"{connector}\");\n"
    )
}

/// A running hub with its own issuer, folder and policies.
pub(crate) struct TestHub {
    running: Option<Running>,
    process: Option<HubProcess>,
    pub(crate) issuer: Issuer,
    file: PathBuf,
    policies: PathBuf,
    ca: Option<PathBuf>,
    plan: HubPlan,
    dir: TempDir,
}

impl TestHub {
    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn take_running(&mut self) -> Running {
        self.running.take().unwrap()
    }

    pub(crate) fn process(&mut self) -> &mut HubProcess {
        self.process.as_mut().unwrap()
    }

    /// Ends it and starts it anew with what it left on disk.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Ends it; its folder stays.
    pub(crate) async fn stop(&mut self) {
        self.take_running().shutdown().await;
    }

    /// Starts it with what it finds in its folder.
    pub(crate) async fn start_again(&mut self) {
        let options = GatewayOptions::default();
        self.process = None;
        self.running = Some(Gateway::bind(load(&self.file), options).await.unwrap());
    }

    pub(crate) fn tunnel_address(&self) -> SocketAddr {
        match &self.process {
            Some(process) => process.tunnel,
            None => self.running().tunnel_address(),
        }
    }

    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        match &self.process {
            Some(process) => process
                .listeners
                .iter()
                .find(|(name, _)| name == listener)
                .map(|(_, address)| *address)
                .unwrap(),
            None => self.running().listener_address(listener).unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The operator.
    pub(crate) fn operator(&self) -> AdminClient {
        AdminClient::new(self.path("admin.sock"))
    }

    /// A client at a listener.
    pub(crate) async fn client(&self, listener: &str) -> Client {
        let stream = TcpStream::connect(self.address(listener)).await.unwrap();
        Client { stream }
    }

    /// A client at a listener who comes from this address of loopback.
    pub(crate) async fn client_from(&self, listener: &str, source: Ipv4Addr) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let stream = socket.connect(self.address(listener)).await.unwrap();
        Client { stream }
    }

    /// Begins an agent of this hub.
    pub(crate) fn agent(&self, id: &str) -> AgentPlan<'_> {
        AgentPlan {
            hub: self,
            id: id.to_owned(),
            claims: Claims::of(id),
            dial: self.tunnel_address(),
            targets: Vec::new(),
            tenant: None,
            token: None,
            signing_secret: None,
            renew_before: Duration::from_secs(1),
        }
    }

    /// Where the control API listens.
    pub(crate) fn control_address(&self) -> SocketAddr {
        match &self.process {
            Some(process) => process.control.unwrap(),
            None => self.running().control_address().unwrap(),
        }
    }

    /// An agent `plant` that offers one connector, once the hub has accepted it.
    pub(crate) async fn plant(&self, connector: &str, target: SocketAddr) -> TestAgent {
        self.agent("plant").target(connector, target).ready().await
    }

    /// Changes the plan and writes the file; nothing is reloaded yet.
    pub(crate) fn rewrite(&mut self, change: impl FnOnce(HubPlan) -> HubPlan) {
        self.plan = change(std::mem::replace(&mut self.plan, hub()));
        self.write_config();
    }

    pub(crate) fn clear_listeners(&mut self) {
        self.plan.listeners.clear();
    }

    pub(crate) fn clear_policy(&mut self) {
        self.plan.policy.clear();
    }

    pub(crate) fn clear_top(&mut self) {
        self.plan.top.clear();
    }

    pub(crate) fn write_policy(&self, name: &str, text: &str) {
        std::fs::write(self.policies.join(name), text).unwrap();
    }

    pub(crate) fn remove_policy(&self, name: &str) {
        std::fs::remove_file(self.policies.join(name)).unwrap();
    }

    pub(crate) fn write_raw_config(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    pub(crate) async fn reload(&self) -> ReloadReport {
        timeout(SOON, self.running().reload()).await.unwrap()
    }

    /// The newest decision records about opens, newest first.
    pub(crate) fn decisions(&self) -> Vec<Arc<DecisionRecord>> {
        self.running()
            .hub()
            .decisions()
            .recent(&DecisionFilter::default(), 100)
    }

    /// The metrics page as it is scraped.
    pub(crate) fn metrics(&self) -> String {
        self.running().hub().metrics().render()
    }

    /// One request to the tunnel port; status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        http_get(self.tunnel_address(), path, &[]).await
    }

    fn write_config(&self) {
        let plan = &self.plan;
        let listeners = if plan.listeners.is_empty() {
            "listeners: []\n".to_owned()
        } else {
            format!("listeners:\n{}", plan.listeners.concat())
        };
        let tls = match &self.ca {
            Some(_) => "  tls: {cert_file: hub.pem, key_file: hub.key}\n",
            None => "",
        };
        let text = format!(
            "{listeners}tunnel:\n  host: 127.0.0.1\n  port: 0\n  workers: 2\n{tls}{tunnel}\
             limits:\n  max_agents: 100\n{limits}\
             security:\n  issuers:\n    - issuer: {issuer}\n      jwks_url: {issuer}/jwks.json\n      \
             algorithms: [EdDSA]\n      tenant_claim: tenant\n      tenants: [default, acme]\n  \
             revocation_file: revoked.jsonl\n  jwks_refresh_min_ms: 1000\n{security}\
             policy:\n{dir}{policy}\
             observability:\n  metrics_port: null\n{observability}\
             admin:\n  socket: \"{admin}\"\n{top}",
            tunnel = plan.tunnel,
            limits = plan.limits,
            security = plan.security,
            dir = if plan.bundles {
                ""
            } else {
                "  dir: policies\n"
            },
            policy = plan.policy,
            observability = plan.observability,
            admin = if plan.admin { "admin.sock" } else { "" },
            top = plan.top,
            issuer = self.issuer.url(),
        );
        std::fs::write(&self.file, text).unwrap();
    }
}

fn listener_yaml(name: &str, connector: &str, more: &str) -> String {
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(", {more}")
    };
    format!("  - {{name: {name}, bind: \"127.0.0.1:0\", connector: {connector}{more}}}\n")
}

fn push_lines(section: &mut String, lines: &str) {
    for line in lines.lines() {
        section.push_str("  ");
        section.push_str(line);
        section.push('\n');
    }
}

fn load(file: &std::path::Path) -> CloudConfig {
    config::load(Some(file), &no_env()).unwrap_or_else(|error| panic!("{error}"))
}

fn no_env() -> std::collections::BTreeMap<String, String> {
    std::collections::BTreeMap::new()
}

/// An agent to be started.
pub(crate) struct AgentPlan<'a> {
    hub: &'a TestHub,
    id: String,
    claims: Claims,
    dial: SocketAddr,
    targets: Vec<(String, Target)>,
    tenant: Option<String>,
    /// Instead of one that the hub's issuer signs.
    token: Option<String>,
    signing_secret: Option<String>,
    renew_before: Duration,
}

impl AgentPlan<'_> {
    /// The token that it shows.
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// It signs its upgrades with this.
    pub(crate) fn signs_with(mut self, secret: &str) -> Self {
        self.signing_secret = Some(secret.to_owned());
        self
    }

    pub(crate) fn target(mut self, connector: &str, address: SocketAddr) -> Self {
        let target = Target::tcp(address.ip().to_string(), address.port());
        self.targets.push((connector.to_owned(), target));
        self
    }

    /// A target that the agent speaks TLS to.
    pub(crate) fn target_tls(self, connector: &str, address: SocketAddr, tls: TargetTls) -> Self {
        let mut plan = self.target(connector, address);
        if let Some((_, target)) = plan.targets.last_mut() {
            target.tls = Some(tls);
        }
        plan
    }

    /// Changes what its token claims.
    pub(crate) fn claims(mut self, change: impl FnOnce(Claims) -> Claims) -> Self {
        self.claims = change(self.claims);
        self
    }

    /// It dials here instead of the hub.
    pub(crate) fn through(self, link: &Link) -> Self {
        self.dials(link.address())
    }

    /// It dials there instead of the hub.
    pub(crate) fn dials(mut self, address: SocketAddr) -> Self {
        self.dial = address;
        self
    }

    /// The tenant that its HELLO states.
    pub(crate) fn states_tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.to_owned());
        self
    }

    /// Starts it; it may or may not be let in.
    pub(crate) fn start(self) -> TestAgent {
        let token_file = self.hub.path(&format!("{}.token", self.id));
        let token = self
            .token
            .as_ref()
            .map_or_else(|| self.hub.issuer.sign(&self.claims), |token| token.clone());
        std::fs::write(&token_file, token).unwrap();
        let scheme = if self.hub.ca.is_some() { "wss" } else { "ws" };
        let host = if self.hub.ca.is_some() {
            format!("localhost:{}", self.dial.port())
        } else {
            self.dial.to_string()
        };
        let url = HubUrl::parse(&format!("{scheme}://{host}/tunnel"), true).unwrap();
        let mut config = AgentConfig::new(
            url,
            AgentId::parse(&self.id).unwrap(),
            Auth::TokenFile(token_file.clone()),
        );
        config.tenant = self
            .tenant
            .as_deref()
            .map(|tenant| TenantName::parse(tenant).unwrap());
        config.signing_secret = self
            .signing_secret
            .as_deref()
            .map(|secret| SigningSecret::Fixed(Secret::new(secret)));
        config.outbound.ca_bundle = self.hub.ca.clone();
        config.tunnel.renew_before = self.renew_before;
        config.tunnel.backoff = BackoffSettings {
            base: Duration::from_millis(20),
            cap: Duration::from_millis(200),
            ..BackoffSettings::default()
        };
        for (connector, target) in &self.targets {
            let connector = ConnectorName::parse(connector).unwrap();
            config = config.with_target(connector, target.clone());
        }
        TestAgent {
            running: Agent::start(config).unwrap(),
            token_file,
        }
    }

    /// Starts it and waits until the hub has accepted it.
    pub(crate) async fn ready(self) -> TestAgent {
        let agent = self.start();
        agent.ready().await;
        agent
    }
}

/// A running agent; it ends with its value.
pub(crate) struct TestAgent {
    pub(crate) running: nowconnect_agent::Running,
    token_file: PathBuf,
}

impl TestAgent {
    pub(crate) async fn ready(&self) -> AgentState {
        match self.running.ready(SOON).await {
            Ok(state) => state,
            Err(state) => panic!("the agent was not accepted: {state:?}"),
        }
    }

    /// Waits until its state shows what is expected.
    pub(crate) async fn until(&self, expected: impl Fn(&AgentState) -> bool) -> AgentState {
        let mut states = self.running.watch();
        let found = timeout(SOON, states.wait_for(|state| expected(state))).await;
        match found {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) | Err(_) => panic!("the agent stays at {:?}", self.running.state()),
        }
    }

    /// Waits until it reports a problem that mentions `text`.
    pub(crate) async fn problem(&self, text: &str) -> String {
        let state = self
            .until(|state| {
                state
                    .problem
                    .as_deref()
                    .is_some_and(|problem| problem.contains(text))
            })
            .await;
        state.problem.unwrap_or_default()
    }

    pub(crate) fn give_token(&self, token: &str) {
        std::fs::write(&self.token_file, token).unwrap();
    }
}

/// A client's connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        timeout(SOON, self.stream.write_all(bytes))
            .await
            .unwrap()
            .unwrap();
    }

    /// Ends its own direction.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Exactly so many bytes.
    pub(crate) async fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        timeout(SOON, self.stream.read_exact(&mut bytes))
            .await
            .expect("bytes should have come")
            .unwrap();
        bytes
    }

    /// Everything until the end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        timeout(SOON, self.stream.read_to_end(&mut bytes))
            .await
            .expect("the end should have come")
            .unwrap();
        bytes
    }

    /// Sends and expects the same back.
    pub(crate) async fn echoes(&mut self, bytes: &[u8]) {
        self.send(bytes).await;
        assert_eq!(self.receive(bytes.len()).await, bytes);
    }

    /// The connection ends without a byte, by FIN or by RST.
    pub(crate) async fn is_closed(&mut self) {
        let mut byte = [0];
        let read = timeout(SOON, self.stream.read(&mut byte))
            .await
            .expect("the connection should have been closed");
        if let Ok(length) = read {
            assert_eq!(length, 0, "a byte came instead of the end");
        }
    }
}

/// Asks again until it holds; for what has no event of its own to wait for.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it did not come true: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One plain HTTP request; status and body.
pub(crate) async fn http_get(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: hub\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .expect("an answer should have come")
        .unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let body = answer
        .split_once("\r\n\r\n")
        .map_or(String::new(), |(_, body)| body.to_owned());
    (status, body)
}
