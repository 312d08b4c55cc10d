//! What happens to sessions as time passes: tokens expire, parked sessions run out, credentials
//! are revoked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use nowconnect_protocol::{CloseCode, Epoch, ResetCode};
use tracing::{info, warn};

use super::live::LiveTunnel;
use crate::config::OnExpiry;
use crate::hub::Hub;
use crate::registry::{AgentKey, ClaimLost};
use crate::telemetry::events;

/// How often sessions are looked at. New flows do not wait for it: every OPEN compares the time
/// with its agent's expiry.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long the metrics of an agent without a tunnel are kept: long enough to be alerted by an
/// uptime of 0. Agents come and go, and each has a place in a bounded number of labels.
const FORGET_AFTER: Duration = Duration::from_secs(60 * 60);

/// Every how many looks it is seen who is away for so long.
const FORGET_EVERY: u64 = 240;

/// Every how many looks flows are looked at that no target has answered.
const OPENS_EVERY: u64 = 4;

/// Looks after sessions until it is dropped.
pub(crate) async fn keep_sessions(hub: Arc<Hub>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for tick in 0_u64.. {
        ticks.tick().await;
        if tick % OPENS_EVERY == 0 {
            end_unanswered_opens(&hub);
        }
        if tick % FORGET_EVERY == 0 {
            for agent in hub.parked.forget_away(FORGET_AFTER) {
                // A tunnel that was replaced leaves a reason though its agent is here.
                if hub.router().tunnel_of(&agent).is_none() {
                    hub.metrics().traffic.forget_agent(&agent.to_string());
                }
            }
        }
        let now = SystemTime::now();
        for (tunnel, _) in hub.router().tunnels() {
            tunnel
                .metrics
                .set_rtt(Duration::from_micros(u64::from(tunnel.stats().rtt_us)));
            if now >= tunnel.expires_at() {
                expired(&hub, &tunnel);
            }
        }
        let late = tokio::time::Instant::now();
        hub.parked.end(|_, parked| {
            late >= parked.until || parked.identity.is_expired(now) && closes_at_once(&hub)
        });
        hub.metrics()
            .hub
            .set_window_pool(hub.window_pool.bytes_used());
    }
}

/// Ends flows whose agent has not said within `limits.open_timeout_ms` that the target is
/// connected.
fn end_unanswered_opens(hub: &Hub) {
    let within = hub.config().limits.open_timeout;
    let late = hub.flows().collect(|flow| {
        !flow.acknowledged.load(Ordering::Relaxed) && flow.opened.elapsed() > within
    });
    for flow in late {
        if let Some(tunnel) = hub.router().tunnel_of(&flow.agent) {
            tunnel.close_flow(flow.flow_ref.clone(), ResetCode::ConnectTimeout, "");
        }
    }
}

fn closes_at_once(hub: &Hub) -> bool {
    match hub.config().security.on_expiry {
        OnExpiry::Close => true,
        OnExpiry::Keep | OnExpiry::Drain => false,
    }
}

fn expired(hub: &Hub, tunnel: &LiveTunnel) {
    let config = hub.config();
    let first = {
        let mut handled = tunnel.expiry_handled.lock();
        let first = handled.is_none();
        let since = *handled.get_or_insert_with(Instant::now);
        if first { None } else { Some(since) }
    };
    let close = match (config.security.on_expiry, first) {
        (OnExpiry::Keep, _) | (OnExpiry::Drain, None) => false,
        (OnExpiry::Close, _) => true,
        (OnExpiry::Drain, Some(since)) => since.elapsed() >= config.security.on_expiry_drain,
    };
    if first.is_none() {
        warn!(
            target: events::SECURITY,
            event = events::AUTH_FAILED,
            agent_id = %tunnel.key,
            code = "token_expired",
            flows = tunnel.stats().flows,
            "an agent's token expired without renewal; it gets no new flows"
        );
    }
    if close && !tunnel.is_closing() {
        let reason = "the token expired and was not renewed";
        end_session(hub, tunnel, CloseCode::TokenExpired, reason);
    }
}

/// Ends a session for good, and with it what it answers over HTTP, also towards viewers that take
/// nothing and would not notice.
pub(crate) fn end_session(hub: &Hub, tunnel: &LiveTunnel, code: CloseCode, reason: &str) {
    tunnel.close(code, reason);
    crate::ingress::agent_lost(hub, &tunnel.key);
}

/// Ends every session whose credential is revoked now. Says how many.
pub(crate) fn end_revoked(hub: &Hub) -> usize {
    hub.cluster().list_changed();
    let list = hub.authorizer().revocations();
    let mut ended = 0;
    for (tunnel, _) in hub.router().tunnels() {
        if list.is_revoked(&tunnel.standing().identity) {
            end_as_revoked(hub, &tunnel);
            ended += 1;
        }
    }
    ended
        + hub
            .parked
            .end(|_, parked| list.is_revoked(&parked.identity))
}

/// Ends the session if its credential is revoked: the list may have changed since HELLO asked it,
/// and whoever read it then did not see this tunnel yet.
pub(super) fn end_if_revoked(hub: &Hub, tunnel: &LiveTunnel) {
    let list = hub.authorizer().revocations();
    if list.is_revoked(&tunnel.standing().identity) {
        end_as_revoked(hub, tunnel);
    }
}

/// The claim of a session is lost: another hub has the agent, or nobody. Nothing may be delivered
/// under it any more. In mode `shadow` it is only told what would end.
pub(crate) fn end_lost(hub: &Hub, agent: &AgentKey, epoch: &Epoch, why: &ClaimLost) {
    let tunnel = hub.router().tunnel_of(agent);
    let Some(tunnel) = tunnel.filter(|tunnel| tunnel.epoch == *epoch) else {
        return;
    };
    if tunnel.is_closing() {
        // It drains, and its agent has gone where it was asked to go. No new flow comes here, and
        // those that run may finish.
        return;
    }
    let mode = hub.cluster().mode_name();
    hub.metrics().cluster.claim_lost(mode);
    warn!(
        event = events::EPOCH_LOST,
        agent_id = %agent,
        epoch = epoch.counter,
        %why,
        mode,
        "the claim on an agent is lost"
    );
    if hub.cluster().is_active() {
        tunnel.stop();
        let reason = format!("the claim is lost: {why}");
        end_session(hub, &tunnel, CloseCode::EpochLost, &reason);
    }
}

fn end_as_revoked(hub: &Hub, tunnel: &LiveTunnel) {
    info!(
        target: events::SECURITY,
        event = events::REVOKED,
        agent_id = %tunnel.key,
        "an agent's session ends because its credential was revoked"
    );
    hub.metrics().hub.revoked("session");
    tunnel.stop();
    let reason = "the credential was revoked";
    end_session(hub, tunnel, CloseCode::Revoked, reason);
}
