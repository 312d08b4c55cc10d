//! The port of the API.

mod operation;
mod room;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::response::IntoResponse as _;
use axum::routing::{delete, get, post, put};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower_service::Service as _;
use tracing::warn;

use self::operation::{Operation, named};
use self::room::{Place, Room};
use super::api::{self, Api, From};
use super::openapi;
use super::plane::ControlPlane;
use crate::admin::problem::{Problem, ProblemCode, Told};
use crate::limit::SourceSlots;
use crate::telemetry::events;
use crate::telemetry::metrics::Ended;

/// Connections served at once. Beyond it the longest idle one makes room; where none is idle, new
/// ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// Of these from one source, so that no one host has them all.
const MAX_CONNECTIONS_PER_SOURCE: usize = 16;
/// Longest time for a TLS handshake, and for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time of a connection, so that one that reads slowly gives its place to others.
const WHOLE: Duration = Duration::from_secs(300);
/// How long one whose place is wanted may take to read what was answered, or to be answered.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);
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
    let list_tunnels = || named("list_tunnels", get(api::tunnels::list));
    let create_tunnel = || named("create_tunnel", post(api::tunnels::create));
    Router::new()
        .route("/tunnels/create", create_tunnel())
        .route("/tunnels/list", list_tunnels())
        .route(
            "/tunnels/delete",
            named("delete_tunnel", post(api::tunnels::delete)),
        )
        .route("/auth/token", named("give_token", post(api::tokens::token)))
        .route(
            "/.well-known/jwks.json",
            named("show_keys", get(api::tokens::jwks)),
        )
        .route(
            "/v1/names",
            named("list_names", get(api::names::list))
                .merge(named("reserve_name", post(api::names::reserve))),
        )
        .route(
            "/v1/names/{name}",
            named("release_name", delete(api::names::release)),
        )
        .route("/v1/endpoints", list_tunnels().merge(create_tunnel()))
        .route(
            "/v1/endpoints/{tunnel_id}",
            named("show_tunnel", get(api::endpoints::show))
                .merge(named("delete_tunnel", delete(api::endpoints::delete))),
        )
        .route("/v1/quotas", named("list_quotas", get(api::quotas::list)))
        .route(
            "/v1/quotas/{tenant}",
            named("show_quota", get(api::quotas::show))
                .merge(named("set_quota", put(api::quotas::set)))
                .merge(named("remove_quota", delete(api::quotas::remove))),
        )
        .route("/v1/agents", named("list_agents", get(api::agents::list)))
        .route(
            "/v1/agents/{agent_id}/kick",
            named("kick_agent", post(api::agents::kick)),
        )
        .route(
            "/v1/agents/{agent_id}/drain",
            named("drain_agent", post(api::agents::drain)),
        )
        .route(
            "/v1/agents/{agent_id}/revoke",
            named("revoke_agent", post(api::agents::revoke)),
        )
        .route("/v1/flows", named("list_flows", get(api::flows::list)))
        .route(
            "/v1/flows/{flow}/close",
            named("close_flow", post(api::flows::close)),
        )
        .route("/v1/routes", named("list_routes", get(api::routes::list)))
        .route("/openapi.json", named("show_document", get(openapi::json)))
        .route("/docs", named("show_document", get(openapi::page)))
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
    let room = Room::new(MAX_CONNECTIONS);
    let sources = SourceSlots::new(MAX_CONNECTIONS_PER_SOURCE);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let metrics = plane.metrics();
                // Before TLS, which costs more than a refusal: one host too many is cut. Behind a
                // proxy all callers have its address.
                let source = match plane.is_proxy(from.ip()) {
                    true => None,
                    false => match sources.take(from.ip()) {
                        Some(source) => Some(source),
                        None => {
                            metrics.ended(Ended::PerSource);
                            continue;
                        }
                    },
                };
                let place = room.enter(|| metrics.ended(Ended::Idle)).await;
                let plane = Arc::clone(&plane);
                connections.spawn(async move {
                    let counted = plane.metrics().connection();
                    let served = serve_one(stream, from, &plane, &place);
                    let _ = tokio::time::timeout(WHOLE, served).await;
                    drop((place, source, counted));
                });
            }
            Err(error) => {
                warn!(listener = "control", %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, from: SocketAddr, plane: &ControlPlane, place: &Place) {
    let service = |request| answer(request, from, plane);
    match plane.tls() {
        Some(tls) => tokio::select! {
            accepted = tls.accept(stream, HEAD_TIMEOUT) => {
                if let Ok(stream) = accepted {
                    speak(stream, place, service).await;
                }
            }
            () = place.is_wanted() => {}
        },
        None => speak(stream, place, service).await,
    }
}

async fn speak<S, A>(stream: S, place: &Place, service: impl Fn(Request<Incoming>) -> A)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Future<Output = Response<Body>>,
{
    let service = service_fn(|request: Request<Incoming>| {
        let answered = service(request);
        async move {
            let _busy = place.busy();
            Ok::<_, Infallible>(answered.await)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // A connection that breaks is its client's affair.
        _ = connection.as_mut() => return,
        () = place.is_wanted() => {}
    }
    // What was answered may still be on its way; before a first request there is nothing.
    if place.is_used() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(LEAVES_WITHIN, connection).await;
    }
}

async fn answer(
    request: Request<Incoming>,
    from: SocketAddr,
    plane: &ControlPlane,
) -> Response<Body> {
    let begun = Instant::now();
    let (mut response, from) = match plane.caller(&request, from) {
        Ok(from) => (called(request, from, plane).await, from),
        Err(problem) => (problem.into_response(), from),
    };
    let operation = response.extensions().get::<Operation>();
    let operation = operation.map_or(operation::NONE, |operation| operation.0);
    let status = response.status();
    let metrics = plane.metrics();
    metrics.answered(operation, status.as_u16(), begun.elapsed());
    if let Some(told) = response.extensions().get::<Told>() {
        metrics.refused(&told.0);
    }
    tell(&response, from);
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

/// What the routes answer to a caller who may ask.
async fn called(
    mut request: Request<Incoming>,
    from: SocketAddr,
    plane: &ControlPlane,
) -> Response<Body> {
    if !plane.allows(from.ip()) {
        let detail = "too many requests from your address; try again in a moment";
        return Problem::new(ProblemCode::RateLimited, detail).into_response();
    }
    request.extensions_mut().insert(From(from));
    let mut app = plane.routes().0.clone();
    match app.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn large(_: Request<Incoming>) -> Response<Body> {
        Response::new(Body::from(vec![b'x'; 100_000]))
    }

    #[tokio::test]
    async fn who_does_not_read_what_he_asked_for_loses_his_place() {
        let room = Room::new(2);
        let mut clients = Vec::new();
        for _ in 0..2 {
            let (mut client, stream) = tokio::io::duplex(64);
            let place = room.enter(|| {}).await;
            tokio::spawn(async move { speak(stream, &place, large).await });
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .await
                .unwrap();
            // It has been answered, and most of the answer is not read.
            client.read_exact(&mut [0; 64]).await.unwrap();
            clients.push(client);
        }
        // Long before a connection has to end at all.
        let comes_in = tokio::time::timeout(WHOLE / 10, room.enter(|| {}));
        assert!(comes_in.await.is_ok());
    }
}
