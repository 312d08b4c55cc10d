//! The hops, one function each.

use std::time::{Duration, SystemTime};

use nowconnect_tunnel::{WebSocketStream, read_ahead};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::certificate::describe;
use super::hello;
use super::report::Report;
use crate::config::AgentConfig;
use crate::hub_dial::{DialFailure, HubStream, Transport, open_carrier, open_tls, upgrade};
use crate::net;
use crate::signing::{Signer, authorization};
use crate::stream::MaybeTls;
use crate::tls::TrustSource;
use crate::token::{Claims, Token, TokenError, TokenSource};

pub(super) struct Walk {
    pub(super) config: AgentConfig,
    pub(super) report: Report,
}

impl Walk {
    pub(super) fn new(config: AgentConfig, report: Report) -> Self {
        Self { config, report }
    }

    pub(super) async fn run(mut self, with_hello: bool) -> Report {
        let stream = self.way_to_hub().await;
        let token = self.token().await;
        match (stream, token) {
            (Some(stream), Some(token)) => {
                if let Some(websocket) = self.upgrade(stream, &token).await {
                    self.hello(websocket, with_hello).await;
                } else {
                    self.report.skipped("hello", "the upgrade failed");
                }
            }
            (None, _) => {
                self.report.skipped("upgrade", "there is no way to the hub");
                self.report.skipped("hello", "there is no way to the hub");
            }
            (Some(_), None) => {
                self.report.skipped("upgrade", "there is no token");
                self.report.skipped("hello", "there is no token");
            }
        }
        self.targets().await;
        self.report
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.config.tunnel.connect_timeout
    }

    async fn way_to_hub(&mut self) -> Option<HubStream> {
        let config = self.config.clone();
        let route = Transport::to_hub(&config.hub, &config.outbound);
        let (first_host, first_port) = match route.proxy {
            Some(proxy) => (proxy.host.as_str(), proxy.port),
            None => (route.host, route.port),
        };
        self.dns(first_host, first_port).await?;
        match route.proxy {
            None if config.outbound.hub_proxy.is_some() => self
                .report
                .skipped("proxy", "`no_proxy` covers the hub: going straight"),
            None => self.report.skipped("proxy", "none is configured"),
            Some(_) => {}
        }
        let started = Instant::now();
        let carrier = match open_carrier(&route, self.deadline()).await {
            Ok(carrier) => carrier,
            Err(failure) => {
                self.way_failed(&failure);
                self.report.took(started.elapsed());
                return None;
            }
        };
        match route.proxy {
            Some(proxy) => {
                self.report.ok(
                    "proxy",
                    format!("{proxy} opened a way to {}", config.hub.authority()),
                );
            }
            None => self
                .report
                .ok("tcp", format!("connected to {}", peer(&carrier))),
        }
        self.report.took(started.elapsed());
        if route.tls {
            let name = route.server_name.unwrap_or(route.host);
            self.tls(carrier, name).await
        } else {
            self.report
                .skipped("tls", "the hub's address is `ws://`: plain text");
            Some(MaybeTls::Plain(read_ahead(carrier)))
        }
    }

    async fn dns(&mut self, host: &str, port: u16) -> Option<()> {
        let started = Instant::now();
        match net::resolve(host, port, self.deadline()).await {
            Ok(addresses) => {
                let list: Vec<String> = addresses
                    .iter()
                    .map(|address| address.ip().to_string())
                    .collect();
                self.report
                    .ok("dns", format!("`{host}` is {}", list.join(", ")));
                self.report.took(started.elapsed());
                Some(())
            }
            Err(error) => {
                self.report.failed(
                    "dns",
                    error.to_string(),
                    "check the name's spelling and this machine's resolver (`getent hosts`)",
                );
                self.report.took(started.elapsed());
                None
            }
        }
    }

    fn way_failed(&mut self, failure: &DialFailure) {
        let (hop, advice) = match failure {
            DialFailure::Connect { error, .. } if error.is_timeout() => (
                "tcp",
                "something drops the packets: is outbound traffic to this port allowed, or is a proxy needed (`proxy.https_proxy`)?",
            ),
            DialFailure::Connect { .. } => (
                "tcp",
                "nothing listens there or a firewall refuses: check host and port of `tunnel.url`",
            ),
            DialFailure::ConnectProxy { .. } => (
                "proxy",
                "the proxy itself is not reached: check host and port of `proxy.https_proxy` (or HTTPS_PROXY)",
            ),
            DialFailure::ProxyTls { .. } => (
                "proxy",
                "an `http://` proxy does not speak TLS; for a private CA set `proxy.ca_bundle`",
            ),
            DialFailure::Proxy { .. } => (
                "proxy",
                "ask whoever runs the proxy to allow CONNECT to the hub's host and port",
            ),
            DialFailure::Trust(_) => ("tls", "mend the CA bundle"),
            DialFailure::Tls { .. } | DialFailure::TlsTimeout { .. } => {
                ("tls", "see the reason above")
            }
            DialFailure::Signing(_)
            | DialFailure::Refused(_)
            | DialFailure::UpgradeTimeout
            | DialFailure::Upgrade(_) => ("upgrade", "see the reason above"),
        };
        self.report.failed(hop, failure.to_string(), advice);
    }

    async fn tls(&mut self, carrier: MaybeTls<TcpStream>, name: &str) -> Option<HubStream> {
        let trust = TrustSource {
            bundle: self.config.outbound.ca_bundle.clone(),
        };
        let trusted = trust.bundle.as_ref().map_or_else(
            || "the system's CAs".to_owned(),
            |path| format!("CA bundle `{}`", path.display()),
        );
        let (client, seen) = match trust.recording_client(&["http/1.1".to_owned()]) {
            Ok(made) => made,
            Err(error) => {
                self.report
                    .failed("tls", error.to_string(), "mend the CA bundle");
                return None;
            }
        };
        let started = Instant::now();
        let result = open_tls(read_ahead(carrier), client, name, self.deadline()).await;
        let stream = match result {
            Ok(stream) => {
                let version = stream
                    .tls()
                    .and_then(|tls| tls.protocol_version())
                    .and_then(|version| version.as_str())
                    .unwrap_or("TLS");
                self.report.ok(
                    "tls",
                    format!("{version} to `{name}`, trusted through {trusted}"),
                );
                Some(stream)
            }
            Err(failure) => {
                self.report.failed(
                    "tls",
                    failure.to_string(),
                    format!("trusted are only {trusted}; the certificates below were shown"),
                );
                None
            }
        };
        self.report.took(started.elapsed());
        for certificate in seen.certificates() {
            self.report.note(describe(&certificate));
        }
        stream
    }

    async fn token(&mut self) -> Option<Token> {
        let mut source = TokenSource::new(&self.config.auth, &self.config.outbound);
        let started = Instant::now();
        let result = source.fetch(self.deadline()).await;
        let origin = source.describe();
        match result {
            Ok(token) => {
                self.judge_token(&token, &origin);
                self.report.took(started.elapsed());
                Some(token)
            }
            Err(error) => {
                let advice = match &error {
                    TokenError::Unreadable { .. } | TokenError::Empty { .. } => {
                        "check the path and that this user may read the file; `tunnel.auth.token_file` (`NC_TOKEN_FILE`) names it"
                    }
                    TokenError::Malformed { .. } => {
                        "the file must hold the token alone, in one line"
                    }
                    TokenError::ClientSecret { .. } => {
                        "check `tunnel.auth.oidc.client_secret_file`"
                    }
                    TokenError::NotGiven { .. } => "whoever started the agent gives its tokens",
                    TokenError::Issuer { .. } => {
                        "check the issuer's address, the client's id and secret, and the way to the issuer"
                    }
                };
                self.report.failed("token", error.to_string(), advice);
                self.report.took(started.elapsed());
                None
            }
        }
    }

    /// What can be seen from here; the signature only the hub can judge.
    fn judge_token(&mut self, token: &Token, origin: &str) {
        let Some(claims) = &token.claims else {
            self.report.ok(
                "token",
                format!("from {origin}; it is not a JWT, so its claims are not known here"),
            );
            return;
        };
        let now = SystemTime::now();
        let problem = self.token_problem(claims, token.lifetime(now), now);
        match problem {
            Some((problem, advice)) => self.report.failed("token", problem, advice),
            None => self.report.ok("token", format!("from {origin}")),
        }
        for line in claim_lines(claims, token.lifetime(now)) {
            self.report.note(line);
        }
    }

    fn token_problem(
        &self,
        claims: &Claims,
        lifetime: Option<Duration>,
        now: SystemTime,
    ) -> Option<(String, &'static str)> {
        if lifetime == Some(Duration::ZERO) {
            return Some((
                "the token has expired".to_owned(),
                "get a new token, and check this machine's clock",
            ));
        }
        let starts = claims
            .not_before_s
            .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(1 << 40)));
        if starts.is_some_and(|starts| starts > now + Duration::from_secs(60)) {
            return Some((
                "the token is not valid yet".to_owned(),
                "check this machine's clock",
            ));
        }
        let own_id = self.config.agent_id.as_str();
        match &claims.agent_id {
            Some(claimed) if claimed != own_id => Some((
                format!("the token is for agent `{claimed}`, but `tunnel.agent_id` is `{own_id}`"),
                "set `tunnel.agent_id` to the token's claim, or get a token for this agent",
            )),
            Some(_) | None => None,
        }
    }

    async fn upgrade(
        &mut self,
        stream: HubStream,
        token: &Token,
    ) -> Option<WebSocketStream<HubStream>> {
        let started = Instant::now();
        let signer = Signer::of(&self.config);
        let shown = authorization(&token.secret, signer.as_ref(), SystemTime::now());
        let result = match shown {
            Ok(shown) => upgrade(stream, &self.config.hub, shown, self.deadline()).await,
            Err(error) => Err(error.into()),
        };
        let websocket = match result {
            Ok(websocket) => {
                let what = if signer.is_some() {
                    "token and signature"
                } else {
                    "token"
                };
                self.report.ok(
                    "upgrade",
                    format!("{} accepted the {what}", self.config.hub),
                );
                Some(websocket)
            }
            Err(failure) => {
                let advice = match &failure {
                    DialFailure::Refused(refused) => refused.advice(),
                    DialFailure::Signing(error) => error.advice(),
                    DialFailure::Connect { .. }
                    | DialFailure::ConnectProxy { .. }
                    | DialFailure::ProxyTls { .. }
                    | DialFailure::Proxy { .. }
                    | DialFailure::Trust(_)
                    | DialFailure::Tls { .. }
                    | DialFailure::TlsTimeout { .. }
                    | DialFailure::UpgradeTimeout
                    | DialFailure::Upgrade(_) => {
                        "check that the path leads to a hub and that whatever stands in front of it lets WebSockets through"
                    }
                };
                self.report.failed("upgrade", failure.to_string(), advice);
                None
            }
        };
        self.report.took(started.elapsed());
        websocket
    }

    async fn hello(&mut self, websocket: WebSocketStream<HubStream>, with_hello: bool) {
        if !with_hello {
            self.report.skipped("hello", "left out by `--no-hello`");
            return;
        }
        let started = Instant::now();
        let answer = hello::say(&self.config, websocket).await;
        hello::judge(&mut self.report, &answer);
        self.report.took(started.elapsed());
    }
}

fn peer(carrier: &MaybeTls<TcpStream>) -> String {
    let tcp = match carrier {
        MaybeTls::Plain(tcp) => tcp,
        MaybeTls::Tls(stream) => stream.get_ref().0,
    };
    tcp.peer_addr()
        .map_or_else(|_| "the hub".to_owned(), |address| address.to_string())
}

fn claim_lines(claims: &Claims, lifetime: Option<Duration>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: Option<String>| {
        lines.push(format!(
            "{name}: {}",
            value.unwrap_or_else(|| "none".to_owned())
        ));
    };
    line("issuer", claims.issuer.clone());
    line("subject", claims.subject.clone());
    line("audience", some_list(&claims.audience));
    line("agent_id", claims.agent_id.clone());
    if let Some(connectors) = &claims.connectors {
        line("connectors", some_list(connectors));
    }
    line("algorithm", claims.algorithm.clone());
    line(
        "expires in",
        lifetime.map(|lifetime| format!("{} s", lifetime.as_secs())),
    );
    lines
}

fn some_list(items: &[String]) -> Option<String> {
    (!items.is_empty()).then(|| items.join(", "))
}
