//! Asking again about requests under way, as [`crate::recheck`] does about flows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;

use super::in_flight::{Fate, InFlight};
use crate::hub::Hub;
use crate::registry::AgentKey;

/// Whether the request may go on. One whose agent is away waits for it, like its flow.
pub(crate) async fn may_go_on(hub: &Hub, request: &InFlight) -> bool {
    let Some(tunnel) = hub.router().tunnel_of(&request.agent) else {
        return true;
    };
    let identity = Arc::clone(&tunnel.standing().identity);
    let asked = hub
        .authorizer()
        .recheck_request(
            &request.questions,
            &identity,
            (request.client, &request.listener_text),
        )
        .await;
    match asked {
        Ok(generation) => {
            request.generation.store(generation, Ordering::Relaxed);
            true
        }
        Err(denial) => {
            warn!(
                request_id = %request.id,
                endpoint = %request.endpoint,
                client = %request.client,
                code = %denial.code,
                by = denial.by.as_deref().unwrap_or("hub"),
                decision = %denial.decision,
                "a request under way is now forbidden"
            );
            false
        }
    }
}

/// Every request under way that `wanted` picks.
pub(crate) fn under_way(hub: &Hub, wanted: impl Fn(&InFlight) -> bool) -> Vec<Arc<InFlight>> {
    hub.ingress.in_flight.collect(wanted)
}

/// The session of an agent was ended: what it answers ends too, also towards viewers that take
/// nothing and would not notice.
pub(crate) fn agent_lost(hub: &Hub, agent: &AgentKey) {
    for request in under_way(hub, |request| request.agent == *agent) {
        request.break_off(Fate::AgentLost);
    }
}
