//! Asking again about running flows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use nowconnect_protocol::ResetCode;
use tracing::warn;

use super::rounds::Tally;
use super::{ASKED_AT_ONCE, PAUSE};
use crate::flow_table::FlowEntry;
use crate::hub::Hub;
use crate::telemetry::decisions::{DecisionId, Why};

/// How long a driver that has too much to do is left alone between two orders.
const ORDER_AGAIN: Duration = Duration::from_millis(20);

/// Asks about these flows, those that were asked about longest ago first, and ends those that are
/// now forbidden where `close` says so. May be dropped at any time: a flow whose turn did not come
/// keeps its place in the order.
pub(super) async fn ask_all(
    hub: &Arc<Hub>,
    mut flows: Vec<Arc<FlowEntry>>,
    close: bool,
    tally: &Tally,
) {
    let round = hub.rounds().newest();
    // They come in the order of their age, which a stable sort keeps.
    flows.sort_by_cached_key(|flow| flow.asked.load(Ordering::Relaxed));
    tally.flows.fetch_add(flows.len() as u64, Ordering::Relaxed);
    let slice = usize::try_from(hub.config().policy.recheck_batch)
        .unwrap_or(usize::MAX)
        .max(1);
    for (index, flows) in flows.chunks(slice).enumerate() {
        if index > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        stream::iter(flows.to_vec())
            .for_each_concurrent(ASKED_AT_ONCE, |flow| async move {
                // Before the answer: one that never comes gives the others their turn too.
                flow.asked.store(round, Ordering::Relaxed);
                ask(hub, &flow, close, tally).await;
            })
            .await;
    }
}

async fn ask(hub: &Arc<Hub>, flow: &Arc<FlowEntry>, close: bool, tally: &Tally) {
    let forbidden = ask_again(hub, flow).await;
    tally.flows_asked.fetch_add(1, Ordering::Relaxed);
    hub.metrics().policy.recheck_asked_flow();
    let Some((code, decision)) = forbidden else {
        return;
    };
    tally.flows_denied.fetch_add(1, Ordering::Relaxed);
    if close && end(hub, flow, code, Some(decision)) {
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

/// Ends a flow, and names the decision to its agent. Where its tunnel has too much to do, the end
/// is ordered again in the background until the tunnel takes the order. A flow whose tunnel is gone
/// waits for its agent, which is asked about it when it comes back.
///
/// Says whether it is the first time that the end of this flow is ordered.
pub(super) fn end(
    hub: &Arc<Hub>,
    flow: &Arc<FlowEntry>,
    code: ResetCode,
    decision: Option<DecisionId>,
) -> bool {
    let message = decision.map_or_else(String::new, |id| format!("decision {id}"));
    match order_end(hub, flow, code, &message) {
        Order::Given => {}
        Order::Gone => return false,
        Order::Busy => insist(hub, flow, code, message),
    }
    !flow.is_condemned.swap(true, Ordering::Relaxed)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The flow's driver ends it.
    Given,
    /// There is nobody to end it.
    Gone,
    /// The driver has too much to do.
    Busy,
}

fn order_end(hub: &Hub, flow: &FlowEntry, code: ResetCode, message: &str) -> Order {
    let Some(tunnel) = hub.router().tunnel_of(&flow.agent) else {
        return Order::Gone;
    };
    if tunnel.close_flow(flow.flow_ref.clone(), code, message) {
        Order::Given
    } else if tunnel.is_gone() {
        Order::Gone
    } else {
        Order::Busy
    }
}

/// One task for a flow at most. It ends with the flow or its tunnel at the latest.
fn insist(hub: &Arc<Hub>, flow: &Arc<FlowEntry>, code: ResetCode, message: String) {
    if flow.is_insisted.swap(true, Ordering::AcqRel) {
        return;
    }
    warn!(
        flow = %flow.flow_ref,
        connector = %flow.connector,
        agent_id = %flow.agent,
        code = code.as_str(),
        "a forbidden flow cannot be ended yet, because its tunnel has too much to do; its end is \
         ordered again and again"
    );
    let (shared, flow) = (Arc::clone(hub), Arc::clone(flow));
    hub.runtime.spawn(async move {
        while shared.flows().find(flow.flow_ref.number).is_some()
            && order_end(&shared, &flow, code, &message) == Order::Busy
        {
            tokio::time::sleep(ORDER_AGAIN).await;
        }
        flow.is_insisted.store(false, Ordering::Release);
    });
}
