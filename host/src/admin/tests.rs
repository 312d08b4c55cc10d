#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::view::*;
use super::*;
use crate::config::{Secret, TlsFiles};
use crate::health::{Readiness, Reason, ReasonCode};
use crate::telemetry::decisions::requests::Requests;
use crate::telemetry::decisions::{DecisionAction, DecisionIds, DecisionRecord, DecisionRing, Why};
use crate::telemetry::redact::Covers;
use crate::tls::ServerTls;

#[tokio::test]
async fn what_the_hub_shows_arrives_at_the_client() {
    let hub = Hub::start().await;
    let status = hub.client.status().await.unwrap();
    assert_eq!(status.hub, "hub-1");
    assert_eq!(status.readiness.as_str(), "degraded");
    let agents = hub.client.agents().await.unwrap();
    assert_eq!(agents.agents[0].agent, "acme/dc1");
    let query = FlowQuery {
        client: Some(String::from("192.0.2.7")),
        limit: Some(1),
        ..FlowQuery::default()
    };
    let page = hub.client.flows(&query).await.unwrap();
    assert_eq!((page.flows.len(), page.selected), (1, 2));
    assert_eq!(hub.client.generation().await.unwrap().number, 7);
}

#[tokio::test]
async fn what_the_client_orders_arrives_at_the_hub() {
    let hub = Hub::start().await;
    hub.client.kick_agent("acme/dc1").await.unwrap();
    hub.client.close_flow("hub-1.5.9").await.unwrap();
    let drain = DrainRequest {
        deadline_ms: Some(5),
    };
    hub.client.drain(&drain).await.unwrap();
    let report = hub.client.reload().await.unwrap();
    assert_eq!(report.errors, ["policies/base.cedar:3:1: unexpected token"]);
    assert_eq!(
        *hub.view.orders.lock(),
        [
            "kick acme/dc1",
            "close hub-1.5.9",
            "drain Some(5)",
            "reload"
        ]
    );
}

#[tokio::test]
async fn decisions_are_found_by_client_and_id() {
    let hub = Hub::start().await;
    let query = DecisionQuery {
        client: Some(String::from("192.0.2.7")),
        ..DecisionQuery::default()
    };
    let page = hub.client.decisions(&query).await.unwrap();
    assert_eq!(page.decisions.len(), 2);
    let newest = page.decisions[0].decision_id.to_string();
    assert_eq!(newest, "b-3");
    let one = hub.client.decision(&newest).await.unwrap();
    assert_eq!(one.client, page.decisions[0].client);
    let query = DecisionQuery {
        allow: Some(true),
        action: Some(DecisionAction::Open),
        ..DecisionQuery::default()
    };
    assert_eq!(
        hub.client.decisions(&query).await.unwrap().decisions.len(),
        0
    );
}

#[tokio::test]
async fn refusals_have_codes() {
    let hub = Hub::start().await;
    let client = &hub.client;
    assert_eq!(code(client.close_flow("../../x?y").await), "not_found");
    assert_eq!(code(client.kick_agent("nobody").await), "not_found");
    assert_eq!(code(client.decision("b-99").await), "not_found");
    assert_eq!(code(client.decision("x").await), "invalid_request");
    let query = DecisionQuery {
        client: Some(String::from("example.org")),
        ..DecisionQuery::default()
    };
    assert_eq!(code(client.decisions(&query).await), "invalid_request");
    let both = ExplainRequest {
        decision: Some(String::from("b-1")),
        client: Some(String::from("192.0.2.7")),
        ..ExplainRequest::default()
    };
    assert_eq!(code(client.explain(&both).await), "invalid_request");
    let one = ExplainRequest {
        client: None,
        ..both
    };
    assert_eq!(client.explain(&one).await.unwrap(), json!({"why": "b-1"}));
    assert_eq!(code(client.set_log_level("debug").await), "unavailable");
}

#[tokio::test]
async fn a_hub_that_panics_still_answers() {
    let hub = Hub::start().await;
    assert_eq!(code(hub.client.kick_agent("panic").await), "unavailable");
    assert_eq!(hub.client.status().await.unwrap().hub, "hub-1");
}

#[tokio::test]
async fn the_hub_may_deny() {
    let hub = Hub::start().await;
    *hub.view.deny.lock() = true;
    assert_eq!(code(hub.client.status().await), "denied");
    assert_eq!(code(hub.client.reload().await), "denied");
    assert_eq!(hub.view.orders.lock().len(), 0);
}

#[tokio::test]
async fn malformed_requests_are_answered_with_problems() {
    let hub = Hub::start().await;
    let large = "x".repeat(MAX_BODY_BYTES + 1);
    for (request, status, code) in [
        (
            "GET /v2/status HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            404,
            "not_found",
        ),
        (
            "DELETE /v1/status HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            405,
            "method_not_allowed",
        ),
        (
            "GET /v1/flows?nope=1 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            400,
            "invalid_request",
        ),
        (
            post("/v1/drain", "{\"deadline_s\":1}"),
            400,
            "invalid_request",
        ),
        (post("/v1/drain", "{"), 400, "invalid_request"),
        (post("/v1/explain", &large), 413, "too_large"),
        (
            "GET /v1/status HTTP/1.1\r\nHost: h\r\nOrigin: https://evil.example\r\n\r\n".to_owned(),
            403,
            "foreign_origin",
        ),
    ] {
        let stream = UnixStream::connect(hub.client.socket()).await.unwrap();
        let answer = exchange(stream, &request).await;
        let start = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&start), "{request}\n{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
        assert!(answer.contains("no-store") || status == 403, "{answer}");
    }
}

const TOKEN: &str = "t0ken-of-sixteen-or-more";

#[tokio::test]
async fn tcp_asks_for_the_token() {
    let hub = Hub::start_with(Some(tcp("127.0.0.1:0", Some(TOKEN)))).await;
    let address = hub.server.tcp_address().unwrap();
    for (headers, status) in [
        (
            format!("Host: {address}\r\nAuthorization: Bearer {TOKEN}\r\n"),
            200,
        ),
        (format!("Host: {address}\r\n"), 401),
        (
            format!("Host: {address}\r\nAuthorization: Bearer {TOKEN}x\r\n"),
            401,
        ),
        (
            format!("Host: evil.example\r\nAuthorization: Bearer {TOKEN}\r\n"),
            403,
        ),
    ] {
        let stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /v1/status HTTP/1.1\r\n{headers}\r\n");
        let answer = exchange(stream, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn tcp_with_certificates_serves_only_who_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (ca, chain, key) = authority.server_files(folder.path());
    let files = TlsFiles {
        cert_file: chain,
        key_file: key,
    };
    let tls = ServerTls::load_with_clients(&files, &["http/1.1"], &ca).unwrap();
    let mut port = tcp("127.0.0.1:0", None);
    port.proof.tls = Some(tls);
    let hub = Hub::start_with(Some(port)).await;
    let address = hub.server.tcp_address().unwrap();
    let request = format!("GET /v1/status HTTP/1.1\r\nHost: {address}\r\n\r\n");

    let stream = authority.connect(address, true).await.unwrap();
    let answer = exchange(stream, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    // In TLS 1.3 the client learns of the refusal with its first read.
    if let Ok(mut stream) = authority.connect(address, false).await {
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        assert!(stream.read_to_end(&mut answer).await.is_err(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_renewed_token_ends_the_connections_of_the_old_one() {
    /// Less than [`HEAD_TIMEOUT`], which ends an idle connection anyway.
    const SOON: std::time::Duration = std::time::Duration::from_secs(5);
    let hub = Hub::start_with(Some(tcp("127.0.0.1:0", Some(TOKEN)))).await;
    let access = hub.server.tcp_access().unwrap();
    let address = hub.server.tcp_address().unwrap();
    let request = |token: &str| {
        format!(
            "GET /v1/status HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
    };
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(request(TOKEN).as_bytes()).await.unwrap();
    let mut start = [0; 12];
    kept.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");

    let weak = AdminProof {
        token: Some(Secret::new("short")),
        ..AdminProof::default()
    };
    assert!(matches!(
        access.check(&weak),
        Err(AdminBindError::WeakToken { length: 5 })
    ));
    let proof = AdminProof {
        token: Some(Secret::new("another-t0ken-of-sixteen")),
        ..AdminProof::default()
    };
    access.renew(access.check(&proof).unwrap());
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(SOON, kept.read_to_end(&mut rest)).await;
    ended.expect("the connection should have ended").unwrap();
    for (token, status) in [(TOKEN, 401), ("another-t0ken-of-sixteen", 200)] {
        let stream = TcpStream::connect(address).await.unwrap();
        let answer = exchange(stream, &request(token)).await;
        let start = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&start), "{answer}");
    }
}

#[tokio::test]
async fn tcp_without_proof_or_in_clear_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let (view, ring) = (Arc::new(View::default()), Arc::new(DecisionRing::default()));
    let state = || state(&view, &ring);
    let refused = AdminServer::bind(state(), Some(&path), Some(tcp("127.0.0.1:0", None))).await;
    assert!(matches!(refused, Err(AdminBindError::Unproven { .. })));
    let refused =
        AdminServer::bind(state(), Some(&path), Some(tcp("0.0.0.0:0", Some(TOKEN)))).await;
    assert!(matches!(refused, Err(AdminBindError::Clear { .. })));
    let weak = Some(tcp("127.0.0.1:0", Some(" \n")));
    let refused = AdminServer::bind(state(), Some(&path), weak).await;
    assert!(matches!(
        refused,
        Err(AdminBindError::WeakToken { length: 0 })
    ));
    assert!(!path.exists(), "a failed start must leave no socket");
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let client = AdminClient::new(folder.path().join("none.sock"));
    let text = client.status().await.unwrap_err().to_string();
    assert!(
        text.contains("is it running?") && text.contains("--socket"),
        "{text}"
    );

    let hub = Hub::start().await;
    let Hub { client, server, .. } = hub;
    drop(server);
    assert!(matches!(
        client.status().await,
        Err(ClientError::NotRunning { .. })
    ));
}

#[tokio::test]
async fn what_is_no_hub_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let other = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 smtp ready\r\n").await.unwrap();
        let read = stream.read(&mut [0; 512]).await.unwrap();
        assert!(read > 0);
    });
    let refused = AdminClient::new(path).status().await;
    assert!(matches!(refused, Err(ClientError::Unexpected { .. })));
    other.await.unwrap();
}

#[test]
fn the_documentation_lists_every_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/error-codes.md");
    let document = std::fs::read_to_string(path).unwrap();
    for code in problem::ProblemCode::ALL {
        let status = problem::Problem::new(code, "").status;
        let row = format!("| [`{0}`](errors/{0}.md) | {status} | ", code.as_str());
        assert!(document.contains(&row), "docs/error-codes.md lacks `{row}`");
    }
}

#[test]
fn a_flow_query_selects_by_what_is_set() {
    let query = FlowQuery {
        client: Some(String::from("192.0.2.7:80")),
        connector: Some(String::from("ldap")),
        ..FlowQuery::default()
    };
    let client = |text: &str| Some(text.parse().unwrap());
    assert!(query.selects("a", "ldap", client("192.0.2.7:80")));
    assert!(!query.selects("a", "ldap", client("192.0.2.7:81")));
    assert!(!query.selects("a", "ssh", client("192.0.2.7:80")));
    assert!(!query.selects("a", "ldap", None));
    assert!(FlowQuery::default().selects("a", "b", None));
}

fn tcp(listen: &str, token: Option<&str>) -> AdminTcp {
    AdminTcp {
        listen: listen.parse().unwrap(),
        proof: AdminProof {
            token: token.map(Secret::new),
            tls: None,
            client_certificates: true,
            allowed_hosts: Vec::new(),
        },
    }
}

/// Signs the certificates of a server and of its callers.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate,
            issuer: rcgen::Issuer::new(params, key),
        }
    }

    fn leaf(&self) -> (rcgen::Certificate, rcgen::KeyPair) {
        let params = rcgen::CertificateParams::new(vec![String::from("localhost")]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Paths of the roots, the chain and the key.
    fn server_files(&self, folder: &Path) -> (PathBuf, PathBuf, PathBuf) {
        let (leaf, key) = self.leaf();
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        (
            write("ca.pem", self.certificate.pem()),
            write("chain.pem", leaf.pem()),
            write("key.pem", key.serialize_pem()),
        )
    }

    async fn connect(
        &self,
        address: SocketAddr,
        with_certificate: bool,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = if with_certificate {
            let (leaf, key) = self.leaf();
            let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder
                .with_client_auth_cert(vec![leaf.der().clone()], key)
                .unwrap()
        } else {
            builder.with_no_client_auth()
        };
        let stream = TcpStream::connect(address).await?;
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

struct Hub {
    client: AdminClient,
    server: AdminServer,
    view: Arc<View>,
    _folder: tempfile::TempDir,
}

impl Hub {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(tcp: Option<AdminTcp>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let (view, ring) = (Arc::new(View::default()), Arc::new(DecisionRing::default()));
        let ids = DecisionIds::new(0xb);
        for client in ["192.0.2.7:1", "192.0.2.8:1", "192.0.2.7:2"] {
            let mut record = DecisionRecord::new(
                ids.next_id(),
                0,
                "hub-1".into(),
                7,
                DecisionAction::Open,
                (false, Why::NotPermitted),
            );
            record.client = Some(client.parse().unwrap());
            ring.push(Arc::new(record));
        }
        let server = bind(&path, &view, &ring, tcp).await;
        Self {
            client: AdminClient::new(path),
            server,
            view,
            _folder: folder,
        }
    }
}

async fn bind(
    path: &Path,
    view: &Arc<View>,
    ring: &Arc<DecisionRing>,
    tcp: Option<AdminTcp>,
) -> AdminServer {
    AdminServer::bind(state(view, ring), Some(path), tcp)
        .await
        .unwrap()
}

fn state(view: &Arc<View>, ring: &Arc<DecisionRing>) -> AdminState {
    AdminState {
        requests: Arc::new(Requests::new(1 << 20, Covers::default())),
        hub: Arc::clone(view) as Arc<dyn HubView>,
        decisions: Arc::clone(ring),
        level: None,
    }
}

/// A hub that remembers what was ordered.
#[derive(Default)]
struct View {
    orders: Mutex<Vec<String>>,
    deny: Mutex<bool>,
}

impl View {
    fn order(&self, text: String) {
        self.orders.lock().push(text);
    }
}

impl HubView for View {
    fn authorize<'a>(
        &'a self,
        caller: &'a AdminCaller,
        action: AdminAction,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        let denied = *self.deny.lock();
        let proven = match caller {
            AdminCaller::Local { uid } => uid.is_some(),
            AdminCaller::Token { .. } | AdminCaller::Certificate { .. } => true,
        };
        let allowed = if denied || !proven {
            Err(AdminRefusal::Denied(action.as_str().to_owned()))
        } else {
            Ok(())
        };
        now(allowed)
    }

    fn status(&self) -> BoxFuture<'_, HubStatus> {
        now(HubStatus {
            hub: String::from("hub-1"),
            version: String::from("0.1.0"),
            uptime_seconds: 61,
            readiness: Readiness::serving(vec![Reason {
                code: ReasonCode::PluginQuarantined,
                detail: String::from("geo"),
            }]),
            generation: GenerationStatus::default(),
            listeners: Vec::new(),
            http: HttpStatus::default(),
            tunnel_address: None,
            totals: Totals::default(),
        })
    }

    fn agent_addresses<'a>(
        &'a self,
        query: &'a AgentAddressQuery,
    ) -> BoxFuture<'a, Result<AgentAddressPage, AdminRefusal>> {
        self.order(format!(
            "addresses of {}",
            query.agent.as_deref().unwrap_or("all")
        ));
        now(Ok(AgentAddressPage::default()))
    }

    fn agents(&self) -> BoxFuture<'_, Vec<AgentStatus>> {
        now(vec![AgentStatus {
            agent: String::from("acme/dc1"),
            session: 3,
            state: AgentState::Up,
            role: String::from("primary"),
            network: None,
            version: String::new(),
            connectors: Vec::new(),
            refused: Vec::new(),
            tunnel_seconds: 5,
            rtt_us: None,
            flows: 0,
            bytes_c2a: 0,
            bytes_a2c: 0,
            token_expires_seconds: None,
            labels: std::collections::BTreeMap::new(),
        }])
    }

    fn flows<'a>(&'a self, query: &'a FlowQuery) -> BoxFuture<'a, FlowPage> {
        let client = "192.0.2.7:4000".parse().ok();
        let flow = |number: u64| FlowStatus {
            flow: format!("hub-1.5.{number}"),
            connector: String::from("ldap"),
            agent: String::from("acme/dc1"),
            listener: String::new(),
            client,
            age_seconds: 0,
            bytes_c2a: 0,
            bytes_a2c: 0,
            generation: 7,
            decision: String::new(),
        };
        let flows: Vec<FlowStatus> = [1, 2]
            .map(flow)
            .into_iter()
            .filter(|flow| query.selects(&flow.agent, &flow.connector, flow.client))
            .collect();
        let selected = flows.len() as u64;
        now(FlowPage { flows, selected })
    }

    fn close_flow<'a>(&'a self, flow: &'a str) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        if flow.starts_with("hub-1.") {
            self.order(format!("close {flow}"));
            return now(Ok(()));
        }
        now(Err(AdminRefusal::NotFound {
            what: "flow",
            name: flow.to_owned(),
        }))
    }

    fn generation(&self) -> BoxFuture<'_, GenerationStatus> {
        now(GenerationStatus {
            number: 7,
            ..GenerationStatus::default()
        })
    }

    fn reload(&self) -> BoxFuture<'_, ReloadReport> {
        self.order(String::from("reload"));
        now(ReloadReport {
            errors: vec![String::from("policies/base.cedar:3:1: unexpected token")],
            ..ReloadReport::default()
        })
    }

    fn kick_agent<'a>(&'a self, agent: &'a str) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        if agent == "panic" {
            return Box::pin(async { panic!("the hub fails on purpose") });
        }
        if agent == "acme/dc1" {
            self.order(format!("kick {agent}"));
            return now(Ok(()));
        }
        now(Err(AdminRefusal::NotFound {
            what: "agent",
            name: agent.to_owned(),
        }))
    }

    fn drain<'a>(&'a self, request: &'a DrainRequest) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        self.order(format!("drain {:?}", request.deadline_ms));
        now(Ok(()))
    }

    fn explain<'a>(
        &'a self,
        request: &'a ExplainRequest,
    ) -> BoxFuture<'a, Result<serde_json::Value, AdminRefusal>> {
        now(Ok(json!({ "why": request.decision })))
    }
}

fn now<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends one request and reads what comes until its body is there or the peer ends.
async fn exchange<S>(mut stream: S, request: &str) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    // A peer that refuses a large body may stop reading; its answer counts.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let read = async {
        loop {
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            answer.extend_from_slice(&buffer[..count]);
            if count == 0 || answer.ends_with(b"}") {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), read)
        .await
        .unwrap();
    String::from_utf8(answer).unwrap()
}

fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer {
        Err(ClientError::Refused { code, .. }) => code,
        other => panic!("{other:?} is no refusal"),
    }
}
