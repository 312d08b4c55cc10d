//! The admin ports: a Unix socket, and TCP where it is configured.
//!
//! Connections are bounded in number and in the time to send a request head; on TCP with TLS the
//! handshake is bounded too. A TCP caller shows the token or a certificate that the configured
//! roots signed; the configuration refuses a TCP port with neither.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;
use tracing::{info, warn};

use super::guard::{TcpGuard, TokenProof, origin_is_foreign};
use super::problem::{Problem, ProblemCode};
use super::routes::{AdminState, router};
use super::socket::{BoundSocket, SocketError};
use super::view::AdminCaller;
use crate::config::Secret;
use crate::telemetry::events;

/// Connections served at once on each admin port; further ones wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 32;

/// Longest time for a TLS handshake, and for the head of a request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Fewest characters of a token: 64 bits where they are random hexadecimal digits.
pub const MIN_TOKEN_CHARACTERS: usize = 16;

/// Rest after a failed accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The TCP port of the admin API.
pub struct AdminTcp {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The token; absent where client certificates prove the caller.
    pub token: Option<Secret>,
    /// TLS with its own verification of client certificates, where there is one.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether the TLS configuration demands a client certificate.
    pub client_certificates: bool,
    /// Values of `Host` beside the address itself.
    pub allowed_hosts: Vec<String>,
}

impl std::fmt::Debug for AdminTcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminTcp")
            .field("listen", &self.listen)
            .field("tls", &self.tls.is_some())
            .field("client_certificates", &self.client_certificates)
            .finish_non_exhaustive()
    }
}

/// An admin port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminBindError {
    /// The Unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The TCP port.
    #[error("`admin.listen`: cannot listen on {listen}")]
    Tcp {
        /// The address.
        listen: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody would have to prove who he is.
    #[error(
        "`admin.listen`: {listen} needs `admin.token_file` or client certificates \
         (`admin.tls.client_ca_file`)"
    )]
    Unproven {
        /// The address.
        listen: SocketAddr,
    },
    /// The token could be guessed.
    #[error(
        "`admin.token_file`: the token has {length} characters; it needs at least \
         {MIN_TOKEN_CHARACTERS}, such as from `openssl rand -hex 32`"
    )]
    WeakToken {
        /// What it has.
        length: usize,
    },
    /// The token would pass the network in clear.
    #[error("`admin.listen`: {listen} is not loopback; the token needs `admin.tls` there")]
    Clear {
        /// The address.
        listen: SocketAddr,
    },
}

/// Open admin ports; dropping it closes them and ends their connections.
#[derive(Debug)]
pub struct AdminServer {
    tasks: Vec<AbortHandle>,
    tcp_address: Option<SocketAddr>,
    /// Removes the socket's file.
    _socket: Option<BoundSocket>,
}

impl AdminServer {
    /// Opens the ports and serves them on the current runtime. With neither a socket nor TCP the
    /// server has nothing to do.
    ///
    /// # Errors
    /// [`AdminBindError`]; then neither port is open.
    pub async fn bind(
        state: AdminState,
        socket: Option<&Path>,
        tcp: Option<AdminTcp>,
    ) -> Result<Self, AdminBindError> {
        let app = router(state);
        let mut server = Self {
            tasks: Vec::new(),
            tcp_address: None,
            _socket: None,
        };
        if let Some(path) = socket {
            let (listener, bound) = BoundSocket::bind(path)?;
            server._socket = Some(bound);
            let task = tokio::spawn(serve_unix(listener, app.clone()));
            server.tasks.push(task.abort_handle());
            info!(
                event = events::LISTENER_STARTED,
                listener = "admin",
                path = %path.display(),
                "the admin API listens"
            );
        }
        if let Some(tcp) = tcp {
            let (listener, guard) = open_tcp(&tcp).await?;
            let address = guard.address();
            server.tcp_address = Some(address);
            let acceptor = tcp.tls.map(TlsAcceptor::from);
            let task = tokio::spawn(serve_tcp(listener, app, Arc::new(guard), acceptor));
            server.tasks.push(task.abort_handle());
            info!(
                event = events::LISTENER_STARTED,
                listener = "admin",
                address = %address,
                "the admin API listens"
            );
        }
        Ok(server)
    }

    /// Where TCP listens, with the port that the system gave.
    pub const fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp_address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn open_tcp(tcp: &AdminTcp) -> Result<(TcpListener, TcpGuard), AdminBindError> {
    let listen = tcp.listen;
    let has_certificates = tcp.tls.is_some() && tcp.client_certificates;
    if tcp.token.is_none() && !has_certificates {
        return Err(AdminBindError::Unproven { listen });
    }
    if tcp.tls.is_none() && !listen.ip().is_loopback() {
        return Err(AdminBindError::Clear { listen });
    }
    if let Some(token) = &tcp.token {
        let length = token.expose().trim().chars().count();
        if length < MIN_TOKEN_CHARACTERS {
            return Err(AdminBindError::WeakToken { length });
        }
    }
    let failed = |source| AdminBindError::Tcp { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let proof = tcp.token.as_ref().map(TokenProof::new);
    let guard = TcpGuard::new(address, &tcp.allowed_hosts, proof);
    Ok((listener, guard))
}

async fn serve_unix(listener: UnixListener, app: Router) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = app.clone();
                connections.spawn(async move {
                    serve_local(stream, app).await;
                    drop(slot);
                });
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

async fn serve_tcp(
    listener: TcpListener,
    app: Router,
    guard: Arc<TcpGuard>,
    acceptor: Option<TlsAcceptor>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let (app, guard, acceptor) = (app.clone(), Arc::clone(&guard), acceptor.clone());
                connections.spawn(async move {
                    serve_remote(stream, from, app, guard, acceptor).await;
                    drop(slot);
                });
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

async fn accept_failed(error: &io::Error) {
    warn!(listener = "admin", error = %error, "accept failed");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn serve_local(stream: UnixStream, app: Router) {
    let uid = stream.peer_cred().ok().map(|peer| peer.uid());
    let caller = AdminCaller::Local { uid };
    let check = move |request: &Request<Incoming>| {
        if origin_is_foreign(request.headers(), |_| false) {
            return Err(foreign());
        }
        Ok(caller.clone())
    };
    serve_connection(stream, app, check).await;
}

async fn serve_remote(
    stream: TcpStream,
    from: SocketAddr,
    app: Router,
    guard: Arc<TcpGuard>,
    acceptor: Option<TlsAcceptor>,
) {
    let Some(acceptor) = acceptor else {
        let check = move |request: &Request<Incoming>| guard.check(request.headers(), from, None);
        serve_connection(stream, app, check).await;
        return;
    };
    let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await else {
        return;
    };
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .map(|leaf| leaf.to_vec());
    let check =
        move |request: &Request<Incoming>| guard.check(request.headers(), from, leaf.as_deref());
    serve_connection(stream, app, check).await;
}

async fn serve_connection<S, C>(stream: S, app: Router, check: C)
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Fn(&Request<Incoming>) -> Result<AdminCaller, Problem>,
{
    let service = service_fn(|mut request: Request<Incoming>| {
        let checked = check(&request);
        let mut app = app.clone();
        async move {
            let response: Response<Body> = match checked {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    app.call(request).await?
                }
                Err(problem) => axum::response::IntoResponse::into_response(problem),
            };
            Ok::<_, Infallible>(response)
        }
    });
    // A connection that breaks is its client's affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn foreign() -> Problem {
    Problem::new(
        ProblemCode::ForeignOrigin,
        "web pages of other origins have no access",
    )
}
