//! The admin ports: a Unix socket, and TCP where it is configured.
//!
//! Connections are bounded in number and in the time to send a request head; on TCP with TLS the
//! handshake is bounded too. A TCP caller shows the token or a certificate that the configured
//! roots signed; the configuration refuses a TCP port with neither. What proves a caller can be
//! renewed while the port serves ([`TcpAccess`]): connections that were let in by the earlier
//! rules finish the request under way and end.

use std::convert::Infallible;
use std::future::Future;
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
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tower_service::Service as _;
use tracing::{info, warn};

use super::guard::{TcpGuard, TokenProof, origin_is_foreign};
use super::problem::{Problem, ProblemCode};
use super::routes::{AdminState, router};
use super::socket::{BoundSocket, SocketError};
use super::view::AdminCaller;
use crate::config::Secret;
use crate::telemetry::events;
use crate::tls::ServerTls;

/// Connections served at once on each admin port; further ones wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 32;

/// Longest time for a TLS handshake, and for the head of a request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Fewest characters of a token: 64 bits where they are random hexadecimal digits.
pub const MIN_TOKEN_CHARACTERS: usize = 16;

/// Rest after a failed accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The TCP port of the admin API.
#[derive(Debug)]
pub struct AdminTcp {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may call.
    pub proof: AdminProof,
}

/// What proves a caller over TCP.
#[derive(Clone, Debug, Default)]
pub struct AdminProof {
    /// The token; absent where client certificates prove the caller.
    pub token: Option<Secret>,
    /// TLS with its own verification of client certificates, where there is one.
    pub tls: Option<ServerTls>,
    /// Whether the TLS configuration demands a client certificate.
    pub client_certificates: bool,
    /// Values of `Host` beside the address itself.
    pub allowed_hosts: Vec<String>,
}

/// The rules of the TCP port of the moment. Cheap to clone; all clones share them.
#[derive(Clone, Debug)]
pub struct TcpAccess {
    listen: SocketAddr,
    address: SocketAddr,
    current: Arc<watch::Sender<Arc<Access>>>,
}

/// Checked rules for callers over TCP.
pub(crate) struct Access {
    guard: TcpGuard,
    tls: Option<ServerTls>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl TcpAccess {
    /// Checks what shall prove callers from now on, by the rules of the port.
    pub(crate) fn check(&self, proof: &AdminProof) -> Result<Access, AdminBindError> {
        check_proof(self.listen, proof)?;
        Ok(Access::new(self.address, proof))
    }

    /// When the certificate in force stops being good, in seconds since 1970.
    pub(crate) fn not_after(&self) -> Option<i64> {
        self.current.borrow().not_after()
    }

    /// From when until when the certificate in force is good, in seconds since 1970.
    pub(crate) fn life(&self) -> Option<(i64, i64)> {
        let current = self.current.borrow();
        current.tls.as_ref().and_then(ServerTls::life)
    }

    /// Puts rules in force; connections that came by the earlier ones end after the request that
    /// is under way.
    pub(crate) fn renew(&self, access: Access) {
        self.current.send_replace(Arc::new(access));
    }
}

impl Access {
    /// When its certificate stops being good, in seconds since 1970.
    pub(crate) fn not_after(&self) -> Option<i64> {
        self.tls.as_ref().and_then(ServerTls::not_after)
    }

    fn new(address: SocketAddr, proof: &AdminProof) -> Self {
        let token = proof.token.as_ref().map(TokenProof::new);
        Self {
            guard: TcpGuard::new(address, &proof.allowed_hosts, token),
            tls: proof.tls.clone(),
        }
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
    tcp: Option<TcpAccess>,
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
            tcp: None,
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
            let (listener, access) = open_tcp(&tcp).await?;
            let address = access.address;
            let rules = access.current.subscribe();
            server.tcp = Some(access);
            let task = tokio::spawn(serve_tcp(listener, app, rules));
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
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|access| access.address)
    }

    /// The rules of the TCP port, to renew them while it serves.
    pub fn tcp_access(&self) -> Option<&TcpAccess> {
        self.tcp.as_ref()
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn check_proof(listen: SocketAddr, proof: &AdminProof) -> Result<(), AdminBindError> {
    let has_certificates = proof.tls.is_some() && proof.client_certificates;
    if proof.token.is_none() && !has_certificates {
        return Err(AdminBindError::Unproven { listen });
    }
    if proof.tls.is_none() && !listen.ip().is_loopback() {
        return Err(AdminBindError::Clear { listen });
    }
    if let Some(token) = &proof.token {
        let length = token.expose().trim().chars().count();
        if length < MIN_TOKEN_CHARACTERS {
            return Err(AdminBindError::WeakToken { length });
        }
    }
    Ok(())
}

async fn open_tcp(tcp: &AdminTcp) -> Result<(TcpListener, TcpAccess), AdminBindError> {
    let listen = tcp.listen;
    check_proof(listen, &tcp.proof)?;
    let failed = |source| AdminBindError::Tcp { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (current, _) = watch::channel(Arc::new(Access::new(address, &tcp.proof)));
    let access = TcpAccess {
        listen,
        address,
        current: Arc::new(current),
    };
    Ok((listener, access))
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

async fn serve_tcp(listener: TcpListener, app: Router, rules: watch::Receiver<Arc<Access>>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let (app, rules) = (app.clone(), rules.clone());
                connections.spawn(async move {
                    serve_remote(stream, from, app, rules).await;
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
    serve_connection(stream, app, check, std::future::pending()).await;
}

async fn serve_remote(
    stream: TcpStream,
    from: SocketAddr,
    app: Router,
    mut rules: watch::Receiver<Arc<Access>>,
) {
    let access = Arc::clone(&rules.borrow_and_update());
    let renewed = async move {
        // The sender lives as long as the server does.
        let _ = rules.changed().await;
    };
    let Some(tls) = access.tls.clone() else {
        let check =
            move |request: &Request<Incoming>| access.guard.check(request.headers(), from, None);
        serve_connection(stream, app, check, renewed).await;
        return;
    };
    let Ok(stream) = tls.accept(stream, HEAD_TIMEOUT).await else {
        return;
    };
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .map(|leaf| leaf.to_vec());
    let check = move |request: &Request<Incoming>| {
        let leaf = leaf.as_deref();
        access.guard.check(request.headers(), from, leaf)
    };
    serve_connection(stream, app, check, renewed).await;
}

/// Serves until the peer ends, or until `over` and the request that is under way then.
async fn serve_connection<S, C>(stream: S, app: Router, check: C, over: impl Future<Output = ()>)
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
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A connection that breaks is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = over => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

fn foreign() -> Problem {
    Problem::new(
        ProblemCode::ForeignOrigin,
        "web pages of other origins have no access",
    )
}
