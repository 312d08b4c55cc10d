//! Asking again about agents that are connected: may they be here, and offer what they offer?
//!
//! Expiry has a rule of its own (`security.on_expiry`), and a hub that is too busy to decide, or
//! whose plugin fails, has decided nothing: neither ends the session of an agent that was let in.

use std::sync::Arc;

use nowconnect_protocol::{CloseCode, ConnectorName, ResetCode};
use tracing::warn;

use super::{PAUSE, end};
use crate::authorize::{HelloAsk, HelloReason};
use crate::config::{CloudConfig, OnSwap};
use crate::hub::Hub;
use crate::registry::ConnectorKey;
use crate::session::{LiveTunnel, Standing};
use crate::telemetry::events;

/// Agents that are asked about before others get their turn. A HELLO costs as much as several
/// OPENs, and plugins are asked too.
pub(super) const AGENTS_PER_SLICE: usize = 16;

/// What a re-check of the agents found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionsRechecked {
    pub(crate) asked: u64,
    pub(crate) closed: u64,
    pub(crate) connectors_lost: u64,
}

/// Asks about every agent that has a tunnel. One that waits to come back is asked about then.
pub(crate) async fn recheck_sessions(hub: &Arc<Hub>) -> SessionsRechecked {
    let mut found = SessionsRechecked::default();
    let config = hub.config();
    let close = match config.policy.on_swap {
        OnSwap::Keep => return found,
        OnSwap::Recheck => false,
        OnSwap::RecheckAndClose => true,
    };
    for (index, (tunnel, _)) in hub.router().tunnels().into_iter().enumerate() {
        if index > 0 && index % AGENTS_PER_SLICE == 0 {
            tokio::time::sleep(PAUSE).await;
        }
        if tunnel.is_closing() {
            continue;
        }
        found.asked += 1;
        match ask(hub, &config, &tunnel).await {
            Answer::Same => {}
            Answer::Refused(code, reason) => {
                log(&tunnel, &reason, &[], close);
                if close {
                    hub.metrics().policy.recheck_closed_session();
                    tunnel.close(code, &reason);
                    found.closed += 1;
                }
            }
            Answer::Lost(refused) => {
                let lost: Vec<ConnectorName> = refused
                    .iter()
                    .map(|refusal| refusal.connector.clone())
                    .collect();
                log(&tunnel, "some connectors are refused", &lost, close);
                if close {
                    take_away(hub, &tunnel, &refused, &lost).await;
                    found.connectors_lost += u64::try_from(lost.len()).unwrap_or(u64::MAX);
                }
            }
        }
    }
    found
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
        Ok(permit) if permit.refused().is_empty() => Answer::Same,
        Ok(permit) if permit.accepted().is_empty() => Answer::Refused(
            CloseCode::NoConnectors,
            "none of its connectors may be offered any more".to_owned(),
        ),
        Ok(permit) => Answer::Lost(permit.refused().to_vec()),
        Err(denial) => match denial.code.as_ref() {
            "overloaded" | "decision_timeout" | "plugin_failed" | "token_expired" => Answer::Same,
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

/// No new flows first, then those that run end.
async fn take_away(
    hub: &Arc<Hub>,
    tunnel: &Arc<LiveTunnel>,
    refused: &[nowconnect_protocol::Refusal],
    lost: &[ConnectorName],
) {
    let left = tunnel.lose(refused);
    hub.router().set_connectors(tunnel, left.clone());
    // A registry that has lost the claim answers with its own event; service goes on.
    let _ = hub
        .registry
        .add_connectors(tunnel.key.clone(), tunnel.epoch.clone(), left)
        .await;
    for name in lost {
        let key = ConnectorKey {
            tenant: tunnel.key.tenant.clone(),
            name: name.clone(),
        };
        let flows = hub
            .flows()
            .collect(|flow| flow.agent == tunnel.key && flow.connector == key);
        let mut closed = 0;
        for flow in flows {
            closed += u64::from(end(hub, &flow, ResetCode::PolicyDenied).await);
        }
        hub.metrics().policy.recheck_closed(closed);
    }
    // What was opened in between.
    tunnel.withdraw(lost.to_vec());
    hub.metrics()
        .policy
        .recheck_lost_connectors(u64::try_from(lost.len()).unwrap_or(u64::MAX));
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
