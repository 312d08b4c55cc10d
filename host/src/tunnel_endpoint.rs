//! The port that agents dial: `/tunnel`, with `/healthz` and `/readyz` beside it, and `/mesh`, where
//! other hubs do.
//!
//! ```text
//! accept ── admission ──► worker: TLS ─► request ─► token ─► 101 ─► driver
//!              │                                      │
//!              └ over a bound: 503 or close           └ an HTTP error with a stable code
//! ```
//! Nothing is believed before the token is proven, so everything before that is bounded: how
//! many handshakes at once, how many from one source, how often, how long, and how many header
//! bytes. A body is never read. From TLS on, a connection stays on the worker thread that will
//! drive its tunnel, with its concrete socket type.

mod admission;
mod signed;
mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nowconnect_mesh::{Mesh, Transport};
use nowconnect_tunnel::{read_ahead, websocket_config};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::{debug, info};

pub(crate) use admission::{Admission, Admissions};

use crate::hub::Hub;
use crate::session;

/// The path that an agent upgrades.
pub const TUNNEL_PATH: &str = "/tunnel";

pub use nowconnect_protocol::frame::SUBPROTOCOL;

/// What tunnels run over, as HELLO and the candidates of the control API name it: WebSocket, over
/// TLS where the URL says so.
pub(crate) const TRANSPORT: &str = "wss";

/// How long an accept that failed for want of a resource waits before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts agents until the hub cuts what is left. While the hub drains the port stays open, so
/// that a load balancer can read it from `/readyz`; `/tunnel` then answers 503.
pub(crate) async fn accept_agents(hub: Arc<Hub>, listener: TcpListener) {
    let mut phase = hub.phase();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = phase.cut() => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(&hub, stream, peer),
            Err(error) => {
                debug!(%error, "accepting an agent failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(hub: &Arc<Hub>, stream: TcpStream, peer: SocketAddr) {
    let admission = match hub.admissions().admit(peer.ip(), hub.uptime()) {
        Ok(admission) => admission,
        Err(reason) => {
            hub.metrics().hub.handshake(reason.as_str());
            let plain = hub.tunnel_tls().is_none();
            return admission::turn_away(hub, stream, plain);
        }
    };
    let stream = match prepare(&stream).and_then(|()| stream.into_std()) {
        Ok(stream) => stream,
        Err(error) => return debug!(%error, "an agent left before its handshake"),
    };
    let Some(workers) = hub.workers() else {
        return;
    };
    let shared = Arc::clone(hub);
    let started = workers.spawn(move || async move {
        match TcpStream::from_std(stream) {
            Ok(stream) => handshake(shared, stream, peer, admission).await,
            Err(error) => debug!(%error, "a worker could not take an agent's socket"),
        }
    });
    if started.is_err() {
        hub.metrics().hub.handshake("overloaded");
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    keep_alive(stream)
}

/// Turns on keep-alive probes, so that a peer that vanished without a word is noticed by the
/// system although nothing is sent.
pub(crate) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    const IDLE: Duration = Duration::from_secs(60);
    const INTERVAL: Duration = Duration::from_secs(15);
    SockRef::from(stream).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(IDLE)
            .with_interval(INTERVAL)
            .with_retries(4),
    )
}

async fn handshake(hub: Arc<Hub>, stream: TcpStream, peer: SocketAddr, admission: Admission) {
    let deadline = Instant::now() + hub.config().tunnel.handshake.timeout;
    match hub.tunnel_tls() {
        Some(tls) => {
            let within = deadline.saturating_duration_since(Instant::now());
            match tls.accept(read_ahead(stream), within).await {
                Ok(stream) => {
                    let transport = upgrade::hub_transport(stream.get_ref().1);
                    serve(hub, stream, peer, (admission, transport), deadline).await;
                }
                Err(error) => {
                    hub.metrics().hub.handshake("tls_failed");
                    debug!(%peer, %error, "a TLS handshake failed");
                }
            }
        }
        None => {
            let arrival = (admission, Ok(Transport::Plain));
            serve(hub, stream, peer, arrival, deadline).await;
        }
    }
}

/// Whose upgrade it was.
enum Came {
    Agent(upgrade::Agent),
    Hub(Mesh, nowconnect_mesh::Admission),
}

/// Speaks HTTP until the upgrade or the answer that refuses it, then drives the tunnel or link.
async fn serve<S>(
    hub: Arc<Hub>,
    stream: S,
    peer: SocketAddr,
    (mut admission, transport): (Admission, upgrade::HubTransport),
    deadline: Instant,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = hub.config();
    let door = Rc::new(upgrade::Door::new(
        Arc::clone(&hub),
        peer,
        admission.source(),
        transport,
    ));
    let service = service_fn({
        let door = Rc::clone(&door);
        move |request| {
            let door = Rc::clone(&door);
            async move { Ok::<_, std::convert::Infallible>(door.answer(request).await) }
        }
    });
    let max_header_bytes = usize::try_from(config.tunnel.handshake.max_header_bytes)
        .unwrap_or(usize::MAX)
        .max(upgrade::MIN_HEADER_BYTES);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.tunnel.handshake.timeout)
        .max_buf_size(max_header_bytes)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    match tokio::time::timeout_at(deadline, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return debug!(%peer, %error, "an upgrade request failed"),
        Err(_) => {
            hub.metrics().hub.handshake("timeout");
            return debug!(%peer, "an upgrade request took too long");
        }
    }
    let Some(admitted) = door.admitted() else {
        return;
    };
    let (upgrade, admitted) = match admitted {
        upgrade::Admitted::Agent(upgrade, agent) => (upgrade, Came::Agent(agent)),
        upgrade::Admitted::Hub(upgrade, mesh, hub) => (upgrade, Came::Hub(mesh, hub)),
    };
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(%peer, %error, "an upgrade failed"),
    };
    // Always the case: the connection above is served over this very type.
    let Ok(parts) = upgraded.downcast::<TokioIo<S>>() else {
        return debug!(%peer, "an upgrade changed its socket");
    };
    let websocket = |config| {
        WebSocketStream::from_partially_read(
            parts.io.into_inner(),
            parts.read_buf.to_vec(),
            Role::Server,
            Some(config),
        )
    };
    let agent = match admitted {
        Came::Agent(agent) => agent,
        Came::Hub(mesh, came) => {
            // The mesh counts it from here on.
            admission.done();
            let ws = websocket(nowconnect_mesh::hello_config()).await;
            match mesh.accept(ws, came).await {
                Ok(_end) => {}
                Err(error) => debug!(%peer, code = error.code(), %error, "no link"),
            }
            return;
        }
    };
    admission.expect_hello();
    let settings = hub.tunnel_settings();
    let ws = websocket(websocket_config()).await;
    info!(
        event = "tunnel_upgraded",
        agent_id = %agent.identity.agent_id,
        tenant = %agent.identity.tenant,
        peer = %agent.remote,
        "an agent's token was accepted"
    );
    session::serve(
        hub,
        ws,
        session::Newcomer {
            identity: agent.identity,
            remote: agent.remote,
            admission,
            span: agent.span,
        },
        settings,
    )
    .await;
}
