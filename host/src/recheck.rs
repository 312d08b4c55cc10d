//! Asking again about what runs.
//!
//! A flow keeps the question that let it in, a request those that let it pass, and a session what
//! its HELLO said. The same questions are put again when something that they rest on has changed,
//! when an agent renews or comes back, and at an interval; what happens to what is now forbidden is
//! the operator's choice (`policy.on_swap`).
//!
//! All that runs is asked about in a [round](rounds). Rounds have a task of their own, because an
//! answer may have to be waited for: neither the swap that caused one nor the next swap waits for
//! it. Within a round a few of each kind are asked at once, in small slices with a pause between
//! them, so that ten thousand flows make no storm; and one that does not answer holds up its own
//! slice only.
//!
//! What a staged set would do to all of it is foreseen by [`forecast`](forecast::forecast)
//! without doing it.
//!
//! Invariant: whatever is let in is in the flow table or the router *before* its stamp is
//! compared with the one in force ([`flow_came`], [`tunnel_came`]), and a round collects from
//! there *after* the stamp has changed. So what was decided before a change is seen by the round
//! that follows it or sees the change itself; nothing falls between.

mod flows;
mod forecast;
mod requests;
mod rounds;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use crate::config::OnSwap;
use crate::flow_table::FlowEntry;
use crate::generation::Stamp;
use crate::hub::Hub;
use crate::registry::AgentKey;
use crate::session::LiveTunnel;
pub(crate) use forecast::forecast;
use rounds::Tally;
pub(crate) use rounds::{Rounds, recheck_on_change};

/// The pause between two slices of a kind. With the default slice of 64 questions at some 10 µs
/// each, the flows of a re-check take a quarter of one core at most, and all of it takes half of one.
const PAUSE: Duration = Duration::from_millis(2);

/// Questions of a kind that wait for an external decision point or for plugins at once. More would
/// crowd out the questions of those who come.
const ASKED_AT_ONCE: usize = 8;

/// Whether what is now forbidden ends; `None` where nothing is asked about again.
fn ends(on_swap: OnSwap) -> Option<bool> {
    match on_swap {
        OnSwap::Keep => None,
        OnSwap::Recheck => Some(false),
        OnSwap::RecheckAndClose => Some(true),
    }
}

/// An agent renewed or came back: its flows are asked about in the background.
pub(crate) fn agent_came(hub: &Arc<Hub>, agent: &AgentKey) {
    let Some(close) = ends(hub.config().policy.on_swap) else {
        return;
    };
    let (shared, agent) = (Arc::clone(hub), agent.clone());
    hub.runtime.spawn(async move {
        let flows = shared.flows().collect(|flow| flow.agent == agent);
        flows::ask_all(&shared, flows, close, &Tally::default()).await;
        requests::ask_all(&shared, Some(&agent), close, &Tally::default()).await;
    });
}

/// A flow is in the table and with its tunnel: where everything changed since it was decided
/// about, it is asked about again. Call it after both, so that its end is not ordered before it.
pub(crate) fn flow_came(hub: &Arc<Hub>, flow: &Arc<FlowEntry>, decided: Stamp) {
    if hub.generations().stamp() == decided {
        return;
    }
    let Some(close) = ends(hub.config().policy.on_swap) else {
        return;
    };
    let (shared, flow) = (Arc::clone(hub), Arc::clone(flow));
    hub.runtime.spawn(async move {
        flows::ask_all(&shared, vec![flow], close, &Tally::default()).await;
    });
}

/// A tunnel is in force, or its renewal is: where everything changed since it was decided about,
/// its agent is asked about again.
pub(crate) fn tunnel_came(hub: &Arc<Hub>, tunnel: &Arc<LiveTunnel>) {
    if hub.generations().stamp() == tunnel.decided() {
        return;
    }
    let Some(close) = ends(hub.config().policy.on_swap) else {
        return;
    };
    let (shared, tunnel) = (Arc::clone(hub), Arc::clone(tunnel));
    hub.runtime.spawn(async move {
        sessions::ask_all(&shared, vec![tunnel], close, &Tally::default()).await;
    });
}

/// Asks about everything at the configured interval, until dropped.
pub(crate) async fn recheck_at_intervals(hub: Arc<Hub>) {
    /// How often the interval itself is read anew while there is none.
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    loop {
        match hub.config().policy.recheck_interval {
            Some(interval) => {
                tokio::time::sleep(interval.max(LOOK_EVERY)).await;
                // One that is under way asks about everything anyway, and would begin anew.
                if !hub.rounds().is_running() {
                    hub.rounds().begin();
                }
            }
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
