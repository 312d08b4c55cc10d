//! The requests of the tunnel port, up to the answer.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use http::header::{
    CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use nowconnect_mesh::{
    Admission, ArrivalRefused, Exporter, MESH_PATH, Mesh, SUBPROTOCOL as MESH_SUBPROTOCOL,
    Transport,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tower_service::Service;
use tracing::{Instrument as _, Span, info, warn};

use super::admission::SourceCheck;
use super::signed;
use super::{SUBPROTOCOL, TUNNEL_PATH};
use crate::codes::UpgradeCode;
use crate::control::admit;
use crate::drain::Phase;
use crate::hub::Hub;
use crate::identity::{AgentIdentity, ExtractError, extract_token};
use crate::telemetry::events;
use crate::telemetry::traces;

/// Below this hyper cannot read a request at all.
pub(super) const MIN_HEADER_BYTES: usize = 8192;

pub(super) type Answer = Response<Body>;

/// Answers the requests of one connection.
pub(super) struct Door {
    hub: Arc<Hub>,
    peer: SocketAddr,
    source: SourceCheck,
    /// How the connection came, should it be a hub's.
    transport: HubTransport,
    admitted: RefCell<Option<Admitted>>,
}

/// How a connection came, or why a hub cannot come in that way.
pub(super) type HubTransport = Result<Transport, &'static str>;

/// Somebody whose upgrade is under way.
pub(super) enum Admitted {
    /// A proven agent.
    Agent(OnUpgrade, Agent),
    /// A hub that is still to prove itself.
    Hub(OnUpgrade, Mesh, Admission),
}

/// A proven agent.
pub(super) struct Agent {
    pub(super) identity: Arc<AgentIdentity>,
    /// Where it dials from.
    pub(super) remote: SocketAddr,
    /// The root of its HELLO's trace.
    pub(super) span: Span,
}

/// What the hello of a hub is bound to. In TLS 1.2 the library does not tell whether the session's
/// exporter is its own (RFC 7627); the mesh's own port asks for that.
pub(super) fn hub_transport(session: &rustls::ServerConnection) -> HubTransport {
    if session.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3) {
        return Err("use TLS 1.3 here, or the port of `ha.mesh.listen`");
    }
    let exporter = Exporter::of_server(session).ok_or("this TLS session has no exporter")?;
    Ok(Transport::Tls {
        exporter,
        client_leaf: None,
    })
}

/// Why there is no 101.
struct Refusal {
    code: UpgradeCode,
    message: String,
}

impl Door {
    pub(super) fn new(
        hub: Arc<Hub>,
        peer: SocketAddr,
        source: SourceCheck,
        transport: HubTransport,
    ) -> Self {
        Self {
            hub,
            peer,
            source,
            transport,
            admitted: RefCell::new(None),
        }
    }

    /// Who was let in, once.
    pub(super) fn admitted(&self) -> Option<Admitted> {
        self.source.done();
        self.admitted.take()
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        match request.uri().path() {
            TUNNEL_PATH => self.tunnel(request).await,
            MESH_PATH => match self.hub.links().mesh() {
                Some(mesh) => self.mesh(request, mesh),
                None => self.page(request).await,
            },
            _ => self.page(request).await,
        }
    }

    /// The pages beside the tunnel. The router's error type is empty.
    async fn page(&self, request: Request<Incoming>) -> Answer {
        let Ok(mut answer) = self.hub.pages().call(request).await;
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        answer
    }

    async fn tunnel(&self, mut request: Request<Incoming>) -> Answer {
        let remote = SocketAddr::new(
            self.source
                .agent_address(self.peer.ip(), forwarded_for(request.headers())),
            self.peer.port(),
        );
        let span = traces::hello_span(remote);
        match self.admit(&request, remote.ip(), &span).await {
            Ok((identity, key)) => {
                let upgrade = hyper::upgrade::on(&mut request);
                let agent = Agent {
                    identity: Arc::new(identity),
                    remote,
                    span,
                };
                *self.admitted.borrow_mut() = Some(Admitted::Agent(upgrade, agent));
                switching_protocols(&key, SUBPROTOCOL)
            }
            Err(refusal) => {
                let code = refusal.code.as_str();
                traces::failed(&span, code);
                self.hub.metrics().hub.handshake(code);
                if refusal.code.status() == StatusCode::UNAUTHORIZED {
                    self.hub.metrics().hub.auth_failure(code);
                    warn!(
                        target: events::SECURITY,
                        event = events::AUTH_FAILED,
                        peer = %remote,
                        code,
                        "an agent's token was refused"
                    );
                } else {
                    info!(
                        event = events::HANDSHAKE_REFUSED,
                        peer = %remote,
                        code,
                        "an upgrade was refused"
                    );
                }
                let retry_after = self.hub.config().tunnel.handshake.retry_after;
                refusal.into_answer(retry_after.as_secs().max(1))
            }
        }
    }

    /// A hub's request. Who it is shows in its hello.
    fn mesh(&self, mut request: Request<Incoming>, mesh: Mesh) -> Answer {
        match self.admit_hub(&request, &mesh) {
            Ok((key, admission)) => {
                let upgrade = hyper::upgrade::on(&mut request);
                *self.admitted.borrow_mut() = Some(Admitted::Hub(upgrade, mesh, admission));
                switching_protocols(&key, MESH_SUBPROTOCOL)
            }
            Err(refusal) => {
                let retry_after = self.hub.config().tunnel.handshake.retry_after;
                refusal.into_answer(retry_after.as_secs().max(1))
            }
        }
    }

    fn admit_hub(
        &self,
        request: &Request<Incoming>,
        mesh: &Mesh,
    ) -> Result<(String, Admission), Refusal> {
        let refused = |why: ArrivalRefused| {
            let code = if why.status() == StatusCode::SERVICE_UNAVAILABLE {
                UpgradeCode::Overloaded
            } else {
                UpgradeCode::BadUpgrade
            };
            Refusal::new(code, why.to_string())
        };
        let key = websocket_key(request.method(), request.headers(), MESH_SUBPROTOCOL)?;
        let transport = match &self.transport {
            Ok(transport) => transport,
            Err(why) => return Err(Refusal::new(UpgradeCode::BadUpgrade, *why)),
        };
        let knock = mesh.knock(self.peer).map_err(refused)?;
        let admission = mesh.admit(knock, transport, request.headers());
        Ok((key, admission.map_err(refused)?))
    }

    async fn admit(
        &self,
        request: &Request<Incoming>,
        source: IpAddr,
        span: &Span,
    ) -> Result<(AgentIdentity, String), Refusal> {
        if self.source.admit(source, self.hub.uptime()).is_err() {
            return Err(Refusal::new(
                UpgradeCode::Overloaded,
                "too many handshakes from this address",
            ));
        }
        if self.hub.phase().current() != Phase::Serving {
            return Err(Refusal::new(
                UpgradeCode::Draining,
                "this hub takes no further agents",
            ));
        }
        let key = websocket_key(request.method(), request.headers(), SUBPROTOCOL)?;
        let config = self.hub.config();
        let presented = extract_token(
            request.headers(),
            request.uri().query(),
            config.security.query_token,
        )
        .map_err(|error| Refusal::new(extract_code(error), error.to_string()))?;
        let authentication = traces::authentication_span(span);
        let authenticator = self.hub.authenticator();
        let identity = authenticator
            .verify(&presented.token)
            .instrument(authentication.clone())
            .await
            .map_err(|error| {
                traces::failed(&authentication, error.code().as_str());
                Refusal::new(error.code(), error.to_string())
            })?;
        if self.hub.authorizer().revocations().is_revoked(&identity) {
            self.hub.metrics().hub.revoked("token");
            return Err(Refusal::new(UpgradeCode::Revoked, "the token was revoked"));
        }
        let refusal = |(code, message)| Refusal::new(code, message);
        signed::check(&self.hub, &authenticator, &identity, &presented)
            .await
            .map_err(refusal)?;
        admit::once(&self.hub, &identity).await.map_err(refusal)?;
        Ok((identity, key))
    }
}

impl Refusal {
    fn new(code: UpgradeCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn into_answer(self, retry_after_s: u64) -> Answer {
        let body = serde_json::json!({ "code": self.code.as_str(), "message": self.message });
        let status = self.code.status();
        let mut answer = Response::new(Body::from(body.to_string()));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // One request, one answer: what is not an agent must not hold a place in the queue.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        answer
    }
}

fn extract_code(error: ExtractError) -> UpgradeCode {
    match error {
        ExtractError::Missing => UpgradeCode::TokenMissing,
        ExtractError::Ambiguous => UpgradeCode::TokenAmbiguous,
        ExtractError::Malformed(_) | ExtractError::Signed(_) => UpgradeCode::TokenMalformed,
    }
}

/// Checks that this is a WebSocket upgrade to a subprotocol of ours, and gives its key.
fn websocket_key(
    method: &Method,
    headers: &HeaderMap,
    subprotocol: &str,
) -> Result<String, Refusal> {
    if method != Method::GET {
        return Err(Refusal::new(
            UpgradeCode::MethodNotAllowed,
            "use GET with an upgrade to `websocket`",
        ));
    }
    if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, "websocket") {
        return Err(Refusal::new(
            UpgradeCode::UpgradeRequired,
            "ask for an upgrade to `websocket`",
        ));
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .map(HeaderValue::as_bytes)
        != Some(b"13")
    {
        return Err(Refusal::new(
            UpgradeCode::UnsupportedVersion,
            "`Sec-WebSocket-Version` must be 13",
        ));
    }
    if !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, subprotocol) {
        return Err(Refusal::new(
            UpgradeCode::UnsupportedSubprotocol,
            format!("the subprotocol here is `{subprotocol}`"),
        ));
    }
    headers
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok())
        // 16 bytes in base64.
        .filter(|key| key.len() == 24)
        .map(str::to_owned)
        .ok_or_else(|| {
            Refusal::new(
                UpgradeCode::BadUpgrade,
                "`Sec-WebSocket-Key` is missing or malformed",
            )
        })
}

fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// The header, if there is exactly one: two would leave open who wrote which.
fn forwarded_for(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("x-forwarded-for").iter();
    let one = values.next()?;
    match values.next() {
        None => one.to_str().ok(),
        Some(_) => None,
    }
}

fn switching_protocols(key: &str, subprotocol: &'static str) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(subprotocol),
    );
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer
}
