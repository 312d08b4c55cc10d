//! Asking again about flows that run.
//!
//! A flow keeps the question that let it in. The same question is put again when a new
//! generation is in force, when its agent renews or comes back, and at an interval; what happens
//! to a flow that is now forbidden is the operator's choice (`policy.on_swap`). It is done in
//! small slices with a pause between them, so that ten thousand flows make no storm.
//!
//! What was decided at HELLO is asked again in the same way, see [`sessions`]; and what a staged
//! set would do to all of it is foreseen by [`forecast`](forecast::forecast) without doing it.

mod forecast;
mod sessions;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nowconnect_protocol::ResetCode;
use tracing::{info, warn};

use crate::config::OnSwap;
use crate::flow_table::FlowEntry;
use crate::hub::Hub;
use crate::registry::AgentKey;
use crate::telemetry::decisions::Why;
use crate::telemetry::events;
pub(crate) use forecast::forecast;
pub(crate) use sessions::recheck_sessions;

/// The pause between two slices. With the default slice of 100 questions at some 10 µs each, a
/// re-check takes a third of one core at most.
const PAUSE: Duration = Duration::from_millis(2);

/// How often a driver that has too much to do is asked to close a flow.
const CLOSE_TRIES: u32 = 50;

/// What a re-check found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rechecked {
    pub(crate) asked: u64,
    pub(crate) denied: u64,
    pub(crate) closed: u64,
}

/// Asks about every running flow that `wanted` picks.
pub(crate) async fn recheck(hub: &Arc<Hub>, wanted: impl Fn(&FlowEntry) -> bool) -> Rechecked {
    let config = hub.config();
    let close = match config.policy.on_swap {
        OnSwap::Keep => return Rechecked::default(),
        OnSwap::Recheck => false,
        OnSwap::RecheckAndClose => true,
    };
    let slice = usize::try_from(config.policy.recheck_batch)
        .unwrap_or(usize::MAX)
        .max(1);
    let mut found = Rechecked::default();
    let flows = hub.flows().collect(wanted);
    for (index, flows) in flows.chunks(slice).enumerate() {
        if index > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        for flow in flows {
            found.asked += 1;
            if let Some(code) = ask_again(hub, flow).await {
                found.denied += 1;
                if close && end(hub, flow, code).await {
                    found.closed += 1;
                }
            }
        }
    }
    if found.denied > 0 {
        hub.metrics().policy.recheck_closed(found.closed);
        info!(
            event = events::RECHECK_CLOSED,
            asked = found.asked,
            denied = found.denied,
            closed = found.closed,
            generation = hub.generations().current().number(),
            "running flows were asked about again"
        );
    }
    found
}

/// The code to end the flow with, if it may not go on.
async fn ask_again(hub: &Hub, flow: &FlowEntry) -> Option<ResetCode> {
    // A flow whose agent is away waits for it; it is asked about when the agent comes back.
    let tunnel = hub.router().tunnel_of(&flow.agent)?;
    let identity = Arc::clone(&tunnel.standing().identity);
    match hub
        .authorizer()
        .recheck(&flow.question, &identity, flow.client)
        .await
    {
        Ok(generation) => {
            flow.generation.store(generation, Ordering::Relaxed);
            None
        }
        Err(denial) => {
            warn!(
                flow = %flow.flow_ref,
                connector = %flow.connector,
                client = %flow.client,
                code = %denial.code,
                by = denial.by.as_deref().unwrap_or("hub"),
                decision = %denial.decision,
                "a running flow is now forbidden"
            );
            Some(match denial.why {
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
            })
        }
    }
}

async fn end(hub: &Hub, flow: &FlowEntry, code: ResetCode) -> bool {
    for _ in 0..CLOSE_TRIES {
        let Some(tunnel) = hub.router().tunnel_of(&flow.agent) else {
            return false;
        };
        if tunnel.close_flow(flow.flow_ref.clone(), code) {
            return true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    false
}

/// An agent renewed or came back: its flows are asked about in the background.
pub(crate) fn agent_came(hub: &Arc<Hub>, agent: &AgentKey) {
    match hub.config().policy.on_swap {
        OnSwap::Keep => return,
        OnSwap::Recheck | OnSwap::RecheckAndClose => {}
    }
    let (shared, agent) = (Arc::clone(hub), agent.clone());
    hub.runtime.spawn(async move {
        recheck(&shared, |flow| flow.agent == agent).await;
    });
}

/// Asks about every flow at the configured interval, until dropped.
pub(crate) async fn recheck_at_intervals(hub: Arc<Hub>) {
    /// How often the interval itself is read anew while there is none.
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    loop {
        match hub.config().policy.recheck_interval {
            Some(interval) => {
                tokio::time::sleep(interval.max(LOOK_EVERY)).await;
                recheck(&hub, |_| true).await;
                recheck_sessions(&hub).await;
            }
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
