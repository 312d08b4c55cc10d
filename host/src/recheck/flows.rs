//! Asking again about running flows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use futures_util::stream;
use nowconnect_protocol::ResetCode;
use tracing::warn;

use super::rounds::Tally;
use super::{ASKED_AT_ONCE, PAUSE};
use crate::flow_table::FlowEntry;
use crate::hub::Hub;
use crate::telemetry::decisions::{DecisionId, Why};

/// How often a driver that has too much to do is asked to close a flow.
const CLOSE_TRIES: u32 = 50;

/// Asks about these flows, and ends those that are now forbidden where `close` says so. May be
/// dropped at any time: a flow that was not asked about keeps the generation that it had.
pub(super) async fn ask_all(hub: &Hub, flows: Vec<Arc<FlowEntry>>, close: bool, tally: &Tally) {
    tally.flows.store(flows.len() as u64, Ordering::Relaxed);
    let slice = usize::try_from(hub.config().policy.recheck_batch)
        .unwrap_or(usize::MAX)
        .max(1);
    for (index, flows) in flows.chunks(slice).enumerate() {
        if index > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        stream::iter(flows.to_vec())
            .for_each_concurrent(ASKED_AT_ONCE, |flow| async move {
                ask(hub, &flow, close, tally).await;
            })
            .await;
    }
}

async fn ask(hub: &Hub, flow: &FlowEntry, close: bool, tally: &Tally) {
    let forbidden = ask_again(hub, flow).await;
    tally.flows_asked.fetch_add(1, Ordering::Relaxed);
    hub.metrics().policy.recheck_asked_flow();
    let Some((code, decision)) = forbidden else {
        return;
    };
    tally.flows_denied.fetch_add(1, Ordering::Relaxed);
    if close && end(hub, flow, code, Some(decision)).await {
        tally.flows_closed.fetch_add(1, Ordering::Relaxed);
        hub.metrics().policy.recheck_closed(1);
    }
}

/// The code to end the flow with and the decision that says why, if it may not go on.
async fn ask_again(hub: &Hub, flow: &FlowEntry) -> Option<(ResetCode, DecisionId)> {
    // A flow whose agent is away waits for it; it is asked about when the agent comes back.
    let tunnel = hub.router().tunnel_of(&flow.agent)?;
    let identity = Arc::clone(&tunnel.standing().identity);
    match hub.authorizer().recheck(flow, &identity).await {
        Ok(generation) => {
            flow.generation.store(generation, Ordering::Relaxed);
            None
        }
        Err(denial) => {
            warn!(
                flow = %flow.flow_ref,
                connector = %flow.connector,
                client = flow.client.map(tracing::field::display),
                code = %denial.code,
                by = denial.by.as_deref().unwrap_or("hub"),
                decision = %denial.decision,
                "a running flow is now forbidden"
            );
            let code = match denial.why {
                Why::Identity => ResetCode::Revoked,
                Why::Permitted
                | Why::Forbidden
                | Why::NotPermitted
                | Why::Error
                | Why::Plugin
                | Why::Pdp
                | Why::Limit
                | Why::Address
                | Why::NoAgent => ResetCode::PolicyDenied,
            };
            Some((code, denial.decision))
        }
    }
}

/// Ends a flow, and names the decision to its agent; `false` where its tunnel is gone or has too
/// much to do.
pub(super) async fn end(
    hub: &Hub,
    flow: &FlowEntry,
    code: ResetCode,
    decision: Option<DecisionId>,
) -> bool {
    let message = decision.map_or_else(String::new, |id| format!("decision {id}"));
    for _ in 0..CLOSE_TRIES {
        let Some(tunnel) = hub.router().tunnel_of(&flow.agent) else {
            return false;
        };
        if tunnel.close_flow(flow.flow_ref.clone(), code, &message) {
            return true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    false
}
