//! Asking again about HTTP requests under way.

use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::rounds::Tally;
use super::{ASKED_AT_ONCE, PAUSE};
use crate::hub::Hub;
use crate::ingress;
use crate::registry::AgentKey;

/// Asks about the requests of an agent, or about all, and cuts those that are now forbidden where
/// `close` says so. They count as flows: to who looks on they are what runs.
pub(super) async fn ask_all(hub: &Hub, agent: Option<&AgentKey>, close: bool, tally: &Tally) {
    let round = hub.rounds().newest();
    let mut requests = ingress::under_way(hub, |request| {
        agent.is_none_or(|agent| request.agent == *agent)
    });
    requests.sort_by_cached_key(|request| request.asked.load(Ordering::Relaxed));
    tally
        .flows
        .fetch_add(requests.len() as u64, Ordering::Relaxed);
    let slice = usize::try_from(hub.config().policy.recheck_batch)
        .unwrap_or(usize::MAX)
        .max(1);
    for requests in requests.chunks(slice) {
        tokio::time::sleep(PAUSE).await;
        stream::iter(requests.to_vec())
            .for_each_concurrent(ASKED_AT_ONCE, |request| async move {
                request.asked.store(round, Ordering::Relaxed);
                let may_go_on = ingress::may_go_on(hub, &request).await;
                tally.flows_asked.fetch_add(1, Ordering::Relaxed);
                hub.metrics().policy.recheck_asked_flow();
                if may_go_on {
                    return;
                }
                tally.flows_denied.fetch_add(1, Ordering::Relaxed);
                if close {
                    request.cut();
                    tally.flows_closed.fetch_add(1, Ordering::Relaxed);
                    hub.metrics().policy.recheck_closed(1);
                }
            })
            .await;
    }
}
