//! The port of the API.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::response::IntoResponse as _;
use axum::routing::{delete, get, post};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_service::Service as _;
use tracing::warn;

use super::api::{self, Api, From};
use super::openapi;
use super::plane::ControlPlane;
use crate::admin::problem::{Problem, ProblemCode, Told};
use crate::limit::SourceSlots;
use crate::telemetry::events;

/// Connections served at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// Of these from one source, so that no one host has them all.
const MAX_CONNECTIONS_PER_SOURCE: usize = 16;
/// Longest time for a TLS handshake, and for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time of a connection, so that one that reads slowly gives its place to others.
const WHOLE: Duration = Duration::from_secs(300);
/// Longest time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest body: two tokens and some short texts.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Rest after a failed accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The routes over the rules of the moment.
#[derive(Clone, Default)]
pub(super) struct Routes(Router);

impl Routes {
    pub(super) fn new(api: Api) -> Self {
        Self(router(api))
    }
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/tunnels/create", post(api::tunnels::create))
        .route("/tunnels/list", get(api::tunnels::list))
        .route("/tunnels/delete", post(api::tunnels::delete))
        .route("/auth/token", post(api::tokens::token))
        .route("/.well-known/jwks.json", get(api::tokens::jwks))
        .route("/v1/names", get(api::names::list).post(api::names::reserve))
        .route("/v1/names/{name}", delete(api::names::release))
        .route(
            "/v1/endpoints",
            get(api::tunnels::list).post(api::tunnels::create),
        )
        .route(
            "/v1/endpoints/{tunnel_id}",
            get(api::endpoints::show).delete(api::endpoints::delete),
        )
        .route("/v1/agents", get(api::agents::list))
        .route("/v1/agents/{agent_id}/kick", post(api::agents::kick))
        .route("/v1/agents/{agent_id}/drain", post(api::agents::drain))
        .route("/v1/agents/{agent_id}/revoke", post(api::agents::revoke))
        .route("/v1/flows", get(api::flows::list))
        .route("/v1/flows/{flow}/close", post(api::flows::close))
        .route("/v1/routes", get(api::routes::list))
        .route("/openapi.json", get(openapi::json))
        .route("/docs", get(openapi::page))
        .fallback(no_route)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api)
}

async fn no_route() -> Problem {
    Problem::new(ProblemCode::NotFound, "no such route; `/docs` lists them")
}

async fn other_method() -> Problem {
    Problem::new(
        ProblemCode::MethodNotAllowed,
        "this route has another method; `/docs` lists them",
    )
}

/// Serves until dropped.
pub(super) async fn serve(listener: TcpListener, plane: Arc<ControlPlane>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let sources = SourceSlots::new(MAX_CONNECTIONS_PER_SOURCE);
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                // Before TLS, which costs more than a refusal: one host too many is cut.
                let Some(place) = sources.take(from.ip()) else {
                    continue;
                };
                let plane = Arc::clone(&plane);
                connections.spawn(async move {
                    let _ = tokio::time::timeout(WHOLE, serve_one(stream, from, plane)).await;
                    drop((slot, place));
                });
            }
            Err(error) => {
                warn!(listener = "control", %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, from: SocketAddr, plane: Arc<ControlPlane>) {
    match plane.tls() {
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream, HEAD_TIMEOUT).await {
                speak(stream, from, plane).await;
            }
        }
        None => speak(stream, from, plane).await,
    }
}

async fn speak<S>(stream: S, from: SocketAddr, plane: Arc<ControlPlane>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request: Request<Incoming>| {
        let plane = Arc::clone(&plane);
        async move { Ok::<_, Infallible>(answer(request, from, &plane).await) }
    });
    // A connection that breaks is its client's affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    mut request: Request<Incoming>,
    from: SocketAddr,
    plane: &ControlPlane,
) -> Response<Body> {
    let mut response = if plane.is_foreign(request.headers()) {
        let detail = "web pages of other hosts have no access; the API's own is that of \
                      `control.public_url`";
        Problem::new(ProblemCode::ForeignOrigin, detail).into_response()
    } else if plane.allows(from.ip()) {
        request.extensions_mut().insert(From(from));
        let mut app = plane.routes().0.clone();
        match tokio::time::timeout(ANSWER_TIMEOUT, app.call(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                Problem::new(ProblemCode::Timeout, "the hub did not answer in time").into_response()
            }
        }
    } else {
        Problem::new(
            ProblemCode::RateLimited,
            "too many requests from your address; try again in a moment",
        )
        .into_response()
    };
    tell(&response, from);
    let status = response.status();
    let headers = response.headers_mut();
    if gives_its_place_back(status) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(seconds) = retry_after(status) {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    // Answers hold tokens.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// In how many seconds it may be otherwise.
fn retry_after(status: StatusCode) -> Option<HeaderValue> {
    match status {
        // The bound is on a second.
        StatusCode::TOO_MANY_REQUESTS => Some(HeaderValue::from_static("1")),
        // In the next round a file that failed is opened anew, and names that are over go.
        StatusCode::SERVICE_UNAVAILABLE => Some(HeaderValue::from_static("10")),
        _ => None,
    }
}

/// Whoever gets nothing here makes room for others.
fn gives_its_place_back(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Who was refused for what he showed or may not do: what an operator looks for after an attack.
fn tell(response: &Response<Body>, from: SocketAddr) {
    let status = response.status();
    if status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN {
        return;
    }
    let code = response
        .extensions()
        .get::<Told>()
        .map_or("", |told| told.0.as_str());
    warn!(
        target: events::SECURITY,
        event = events::CONTROL_REFUSED,
        peer = %from,
        code,
        "the control API refused a call"
    );
}
