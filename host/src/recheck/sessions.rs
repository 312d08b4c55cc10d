//! Asking again about agents that are connected: may they be here, and offer what they offer?
//!
//! Expiry has a rule of its own (`security.on_expiry`), and a hub that is too busy to decide, or
//! whose plugin fails, has decided nothing: neither ends the session of an agent that was let in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use futures_util::stream;
use nowconnect_protocol::{CloseCode, ConnectorName, ResetCode};
use tracing::warn;

use super::flows::end;
use super::rounds::Tally;
use super::{ASKED_AT_ONCE, PAUSE};
use crate::authorize::{self, HelloAsk, HelloReason};
use crate::config::CloudConfig;
use crate::hub::Hub;
use crate::registry::ConnectorKey;
use crate::session::{LiveTunnel, Standing};
use crate::telemetry::events;

/// Agents that are asked about before others get their turn. A HELLO costs as much as several
/// OPENs, and plugins are asked too.
pub(super) const AGENTS_PER_SLICE: usize = 16;

/// Asks about these agents; one that waits to come back is asked about then. May be dropped at
/// any time: what was begun to be taken away is taken away all the same.
pub(super) async fn ask_all(
    hub: &Arc<Hub>,
    tunnels: Vec<Arc<LiveTunnel>>,
    close: bool,
    tally: &Tally,
) {
    let config = hub.config();
    tally.agents.store(tunnels.len() as u64, Ordering::Relaxed);
    for (index, tunnels) in tunnels.chunks(AGENTS_PER_SLICE).enumerate() {
        if index > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let config = &config;
        stream::iter(tunnels.to_vec())
            .for_each_concurrent(ASKED_AT_ONCE, |tunnel| async move {
                ask_one(hub, config, &tunnel, close, tally).await;
            })
            .await;
    }
}

async fn ask_one(
    hub: &Arc<Hub>,
    config: &CloudConfig,
    tunnel: &Arc<LiveTunnel>,
    close: bool,
    tally: &Tally,
) {
    if tunnel.is_closing() {
        return;
    }
    let answer = ask(hub, config, tunnel).await;
    tally.agents_asked.fetch_add(1, Ordering::Relaxed);
    hub.metrics().policy.recheck_asked_agent();
    match answer {
        Answer::Same => {}
        Answer::Refused(code, reason) => {
            log(tunnel, &reason, &[], close);
            if close {
                hub.metrics().policy.recheck_closed_session();
                tunnel.close(code, &reason);
                tally.sessions_closed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Answer::Lost(refused) => {
            let lost: Vec<ConnectorName> = refused
                .iter()
                .map(|refusal| refusal.connector.clone())
                .collect();
            log(tunnel, "some connectors are refused", &lost, close);
            if close {
                let connectors = lost.len() as u64;
                tally
                    .connectors_lost
                    .fetch_add(connectors, Ordering::Relaxed);
                // A newer round may take the place of this one in the middle. Then nobody asks
                // about these connectors again, because the agent has lost them, so their flows
                // must end all the same.
                let taken = take_away(Arc::clone(hub), Arc::clone(tunnel), refused, lost);
                let flows = hub.runtime.spawn(taken).await.unwrap_or(0);
                tally.flows_closed.fetch_add(flows, Ordering::Relaxed);
            }
        }
    }
}

enum Answer {
    Same,
    Refused(CloseCode, String),
    Lost(Vec<nowconnect_protocol::Refusal>),
}

async fn ask(hub: &Hub, config: &CloudConfig, tunnel: &LiveTunnel) -> Answer {
    let standing = tunnel.standing();
    let question = question(config, tunnel, &standing);
    match hub.authorizer().hello(&question).await {
        Ok(permit) if permit.refused().is_empty() => {
            tunnel.decided_under(permit.stamp());
            Answer::Same
        }
        Ok(permit) if permit.accepted().is_empty() => Answer::Refused(
            CloseCode::NoConnectors,
            "none of its connectors may be offered any more".to_owned(),
        ),
        Ok(permit) => Answer::Lost(permit.refused().to_vec()),
        Err(denial) => match denial.code.as_ref() {
            "overloaded"
            | "decision_timeout"
            | "plugin_failed"
            | "token_expired"
            | authorize::CHANGING => Answer::Same,
            "revoked" => Answer::Refused(CloseCode::Revoked, denial.to_string()),
            _ => Answer::Refused(CloseCode::Denied, denial.to_string()),
        },
    }
}

/// The HELLO that a tunnel would say now.
pub(super) fn question<'a>(
    config: &CloudConfig,
    tunnel: &'a LiveTunnel,
    standing: &'a Standing,
) -> HelloAsk<'a> {
    HelloAsk {
        identity: &standing.identity,
        claimed_agent: &standing.identity.agent_id,
        claimed_tenant: None,
        agent_version: &tunnel.agent_version,
        labels: &tunnel.labels,
        connectors: &standing.connectors,
        carry: Some(&standing.carry),
        remote: tunnel.remote,
        // It takes nobody's place: it is here.
        replacing: false,
        reason: HelloReason::Recheck,
        scopes_required: config.security.require_connector_scopes,
        pipeline_timeout: config.plugins.pipeline_timeout,
    }
}

/// No new flows first, then those that run end. Gives the number of those.
async fn take_away(
    hub: Arc<Hub>,
    tunnel: Arc<LiveTunnel>,
    refused: Vec<nowconnect_protocol::Refusal>,
    lost: Vec<ConnectorName>,
) -> u64 {
    let left = tunnel.lose(&refused);
    hub.router().set_connectors(&tunnel, left.clone());
    // A registry that has lost the claim answers with its own event; service goes on.
    let _ = hub
        .registry
        .add_connectors(tunnel.key.clone(), tunnel.epoch.clone(), left)
        .await;
    let mut closed = 0;
    for name in &lost {
        let decision = refused
            .iter()
            .find(|refusal| refusal.connector == *name)
            .and_then(|refusal| refusal.decision.parse().ok());
        let key = ConnectorKey {
            tenant: tunnel.key.tenant.clone(),
            name: name.clone(),
        };
        let flows = hub
            .flows()
            .collect(|flow| flow.agent == tunnel.key && flow.connector == key);
        for flow in flows {
            closed += u64::from(end(&hub, &flow, ResetCode::PolicyDenied, decision).await);
        }
    }
    hub.metrics().policy.recheck_closed(closed);
    hub.metrics()
        .policy
        .recheck_lost_connectors(lost.len() as u64);
    // What was opened in between.
    tunnel.withdraw(lost);
    closed
}

fn log(tunnel: &LiveTunnel, reason: &str, lost: &[ConnectorName], ends: bool) {
    let lost: Vec<&str> = lost.iter().map(ConnectorName::as_str).collect();
    warn!(
        target: events::SECURITY,
        event = events::AGENT_RECHECKED,
        agent_id = %tunnel.key,
        reason,
        connectors = %lost.join(","),
        ends,
        "a connected agent is now refused"
    );
}
