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
use crate::generation::Stamp;
use crate::hub::Hub;
use crate::registry::ConnectorKey;
use crate::session::{LiveTunnel, Standing, end_session};
use crate::telemetry::events;

/// Agents that are asked about before others get their turn. A HELLO costs as much as several
/// OPENs, and plugins are asked too.
pub(super) const AGENTS_PER_SLICE: usize = 16;

/// How often an agent is asked about that renews each time meanwhile. RENEW is paced, so more than
/// once is rare; and it is decided like HELLO, so whoever renews more often is not left out.
const MAX_ATTEMPTS: u32 = 4;

/// Asks about these agents, those that were asked about longest ago first; one that waits to come
/// back is asked about then. May be dropped at any time: what was begun to be taken away is taken
/// away all the same.
pub(super) async fn ask_all(
    hub: &Arc<Hub>,
    mut tunnels: Vec<Arc<LiveTunnel>>,
    close: bool,
    tally: &Tally,
) {
    let round = hub.rounds().newest();
    tunnels.sort_by_cached_key(|tunnel| tunnel.asked.load(Ordering::Relaxed));
    tally.agents.store(tunnels.len() as u64, Ordering::Relaxed);
    for (index, tunnels) in tunnels.chunks(AGENTS_PER_SLICE).enumerate() {
        if index > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        stream::iter(tunnels.to_vec())
            .for_each_concurrent(ASKED_AT_ONCE, |tunnel| async move {
                tunnel.asked.store(round, Ordering::Relaxed);
                ask_one(hub, &tunnel, close, tally).await;
            })
            .await;
    }
}

async fn ask_one(hub: &Arc<Hub>, tunnel: &Arc<LiveTunnel>, close: bool, tally: &Tally) {
    for _ in 0..MAX_ATTEMPTS {
        if tunnel.is_closing() {
            return;
        }
        let standing = tunnel.standing();
        let answer = ask(hub, tunnel, &standing).await;
        tally.agents_asked.fetch_add(1, Ordering::Relaxed);
        hub.metrics().policy.recheck_asked_agent();
        if !enforce(hub, tunnel, &standing, &answer, close) {
            // What was asked about is no more: the agent has renewed.
            continue;
        }
        match answer {
            Answer::Kept(_) | Answer::Undecided => {}
            Answer::Refused(_, reason) => {
                log(tunnel, &reason, &[], close);
                if close {
                    hub.metrics().policy.recheck_closed_session();
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
                    // At once: a newer round may take the place of this one, and nobody asks
                    // about these connectors again, because the agent has lost them.
                    let flows = take_away(hub, tunnel, lost, &refused);
                    tally.flows_closed.fetch_add(flows, Ordering::Relaxed);
                }
            }
        }
        return;
    }
}

/// Puts an answer in force in one act with comparing what it is about: a RENEW comes before it,
/// and then it says nothing, or after it. `false`: the agent has renewed.
fn enforce(
    hub: &Hub,
    tunnel: &Arc<LiveTunnel>,
    standing: &Arc<Standing>,
    answer: &Answer,
    close: bool,
) -> bool {
    let _presence = hub.presence.lock();
    if !tunnel.still_stands(standing) {
        return false;
    }
    match answer {
        Answer::Kept(stamp) => tunnel.decided_under(*stamp),
        Answer::Refused(code, reason) if close => end_session(hub, tunnel, *code, reason),
        Answer::Lost(refused) if close => {
            let left = tunnel.lose(refused);
            hub.router().set_connectors(tunnel, left);
        }
        Answer::Undecided | Answer::Refused(..) | Answer::Lost(_) => {}
    }
    true
}

enum Answer {
    /// All of it may go on, by what this stamp stands for.
    Kept(Stamp),
    /// Nobody decided, or nobody may say so here.
    Undecided,
    Refused(CloseCode, String),
    Lost(Vec<nowconnect_protocol::Refusal>),
}

async fn ask(hub: &Hub, tunnel: &LiveTunnel, standing: &Standing) -> Answer {
    let config = hub.config();
    let question = question(&config, tunnel, standing);
    match hub.authorizer().hello(&question).await {
        Ok(permit) if permit.refused().is_empty() => Answer::Kept(permit.stamp()),
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
            | authorize::CHANGING => Answer::Undecided,
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
        pipeline_timeout: config.plugins.pipeline_timeout,
    }
}

/// No new flow chooses the agent for what it has lost any more; those that run end. Gives the
/// number of those.
fn take_away(
    hub: &Arc<Hub>,
    tunnel: &Arc<LiveTunnel>,
    lost: Vec<ConnectorName>,
    refused: &[nowconnect_protocol::Refusal],
) -> u64 {
    hub.cluster().offer(hub, tunnel);
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
            closed += u64::from(end(hub, &flow, ResetCode::PolicyDenied, decision));
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::fixture::{Fixture, SOON, agent_key};

    #[tokio::test]
    async fn a_verdict_about_what_a_renewal_replaced_ends_nothing() {
        let fixture = Fixture::start().await;
        let hub = fixture.running.hub();
        let agent = fixture.agent("plant");
        agent
            .ready(SOON)
            .await
            .map_err(|state| format!("{state:?}"))
            .unwrap();
        let tunnel = hub.router().tunnel_of(&agent_key("plant")).unwrap();
        let asked_about = tunnel.standing();
        let renewed = tunnel.renew(Standing {
            identity: Arc::clone(&asked_about.identity),
            agent: Arc::clone(&asked_about.agent),
            connectors: Arc::clone(&asked_about.connectors),
            refused: Vec::new(),
            carry: asked_about.carry.clone(),
        });
        let lost = Answer::Lost(vec![nowconnect_protocol::Refusal {
            connector: ConnectorName::parse("echo").unwrap(),
            code: "not_permitted".to_owned(),
            message: String::new(),
            decision: String::new(),
        }]);
        let refused = Answer::Refused(CloseCode::Denied, "not any more".to_owned());
        for answer in [&lost, &refused] {
            assert!(!enforce(hub, &tunnel, &asked_about, answer, true));
        }
        assert!(!tunnel.is_closing(), "an agent that renewed was closed");
        assert_eq!(tunnel.standing().connectors.len(), 1);

        assert!(enforce(hub, &tunnel, &renewed, &lost, true));
        assert!(tunnel.standing().connectors.is_empty());
        assert!(enforce(hub, &tunnel, &tunnel.standing(), &refused, true));
        assert!(tunnel.is_closing());
    }
}
