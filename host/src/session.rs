//! The life of an agent at this hub.
//!
//! ```text
//! HELLO ─► permit ─► duplicate? ─► flows of the last tunnel? ─► claim ─► live
//!                                                                         │ RENEW (narrows)
//!            parked for a grace time ◄─── tunnel lost ◄───────────────────┤
//!                 └► HELLO with the token                                 └► expired, revoked,
//!                                                                            drained, replaced
//! ```
//! A *session* is the agent's attachment; it may outlive a tunnel. While a tunnel lives it is a
//! [`LiveTunnel`] in the router. When it breaks, its flows are parked with the hash of the resume
//! token, and the same agent's next HELLO takes them over. A token never replaces
//! authentication: the identity is proven anew first, and must be the same.

mod addresses;
mod duplicate;
mod keeper;
mod live;
mod parked;
mod refusals;
mod shell;
mod turns;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nowconnect_plugins::{Bye, CallInfo, Hook};
use nowconnect_tunnel::{DetachedSession, TunnelEnd, TunnelSettings, WebSocketStream, serve_hub};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{Span, info};

pub(crate) use addresses::{AgentAddresses, save_addresses};
pub(crate) use keeper::{end_lost, end_revoked, end_session, keep_sessions};
pub(crate) use live::{LiveTunnel, Standing};
use parked::Parked;
pub(crate) use parked::ParkedSessions;
use shell::{SessionCell, Shell};
pub(crate) use turns::HelloTurns;

use crate::connector;
use crate::hub::Hub;
use crate::identity::AgentIdentity;
use crate::registry::ConnectorKey;
use crate::telemetry::events;
use crate::tunnel_endpoint::Admission;

/// An agent that has proven who it is and has not said HELLO.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) identity: Arc<AgentIdentity>,
    /// Where it dials from.
    pub(crate) remote: SocketAddr,
    /// Its place among the handshakes.
    pub(crate) admission: Admission,
    /// The root of its HELLO's trace.
    pub(crate) span: Span,
}

/// Drives the tunnel of a proven agent to its end. Runs on a worker.
pub(crate) async fn serve<S>(
    hub: Arc<Hub>,
    ws: WebSocketStream<S>,
    newcomer: Newcomer,
    settings: TunnelSettings,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let cell = SessionCell::default();
    let shell = Shell::new(Arc::clone(&hub), newcomer, cell.clone());
    let _up = hub.metrics().hub.tunnel();
    let end = serve_hub(ws, Box::new(shell), settings).await;
    match cell.take() {
        Some(live) => ended(&hub, &live, end).await,
        // A HELLO that was refused has been reported with its reason.
        None => hub.metrics().hub.handshake(end.closed.code.as_str()),
    }
}

/// Parks what may go on, then takes the ended tunnel out of everything that knows it. In this
/// order: an agent that is back already finds either its tunnel or its parked flows.
async fn ended(hub: &Arc<Hub>, live: &Arc<LiveTunnel>, end: TunnelEnd) {
    let reason = end.closed.code.as_str();
    info!(
        event = events::AGENT_DISCONNECTED,
        agent_id = %live.key,
        session = live.session,
        reason,
        detail = %end.closed.detail,
        lasted_ms = millis(live.since.elapsed()),
        "an agent's tunnel ended"
    );
    park(hub, live, end);
    leave(hub, live);
    live.over.send_replace(true);
    // Also where it never came into force: it was claimed before HELLO_ACK.
    hub.cluster().release(&live.key, &live.epoch).await;
    live.note_reason(hub, reason);
    say_bye(hub, live, reason).await;
}

/// The least time for which flows wait that were taken out of a living tunnel: longer than what
/// HELLO still has to ask, also where `tunnel.resume_grace_ms` lets those of a broken one go at
/// once.
const HANDOVER_GRACE: Duration = Duration::from_secs(10);

/// What is not parked ends here.
fn park(hub: &Hub, live: &Arc<LiveTunnel>, end: TunnelEnd) {
    let grace = hub.config().tunnel.resume_grace;
    let Some(session) = end.detached else {
        return;
    };
    // A newer tunnel took the place without asking for the flows.
    let in_force = hub
        .router()
        .tunnel_of(&live.key)
        .is_some_and(|current| current.session == live.session);
    if grace.is_zero() || !in_force || !live.may_resume() {
        return;
    }
    park_for(hub, live, session, grace);
}

/// Parks the flows of a tunnel that gives way to the agent's next one.
fn hand_over(hub: &Hub, live: &LiveTunnel, session: DetachedSession) {
    // A tunnel that was asked twice has nothing the second time.
    if !session.is_empty() {
        let grace = hub.config().tunnel.resume_grace.max(HANDOVER_GRACE);
        park_for(hub, live, session, grace);
    }
}

fn park_for(hub: &Hub, live: &LiveTunnel, session: DetachedSession, grace: Duration) {
    hub.parked.park(
        live.key.clone(),
        Parked {
            session,
            hashes: live.resume_hashes,
            identity: Arc::clone(&live.standing().identity),
            until: tokio::time::Instant::now() + grace,
            _counted: hub.metrics().hub.detached_session(),
        },
    );
}

/// Takes the tunnel out, and with it what only a living tunnel's agent has; unless another tunnel
/// has its place: all that is there belongs to that one.
fn leave(hub: &Hub, live: &LiveTunnel) {
    let _presence = hub.presence.lock();
    if !hub.router().detach(live) {
        return;
    }
    live.metrics.tunnel_down();
    let facts = hub.authorizer().facts();
    facts.remove_agent(&live.name);
    let config = hub.config();
    for name in live.standing().connectors.iter() {
        let key = ConnectorKey {
            tenant: live.key.tenant.clone(),
            name: name.clone(),
        };
        if hub.router().pool(&key).is_none() && !connector::is_configured(&config, &key) {
            facts.remove_connector(&crate::authorize::policy_name(&key.tenant, name.as_str()));
        }
    }
}

async fn say_bye(hub: &Arc<Hub>, live: &Arc<LiveTunnel>, reason: &str) {
    let generation = hub.generations().current();
    if !generation.plugins().has(Hook::Bye) {
        return;
    }
    let session = live.session.to_string();
    let call = CallInfo {
        request_id: &session,
        tenant: (!live.key.tenant.is_default()).then(|| live.key.tenant.as_str()),
        session_id: Some(&session),
        generation: generation.number(),
        ..CallInfo::default()
    };
    let bye = Bye {
        agent_id: live.key.agent.as_str(),
        reason,
        lasted_ms: millis(live.since.elapsed()),
        flows: live.flows_carried(),
    };
    let standing = live.standing();
    generation.plugins().bye(&call, &bye, &standing.carry).await;
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
