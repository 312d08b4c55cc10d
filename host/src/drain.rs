//! How a hub ends: in phases, each with a deadline.
//!
//! ```text
//! Starting ─► Serving ─► Draining ─► Cut
//!                 └───────────────────┘  a second signal
//! ```
//! While draining no client and no agent is let in, agents are asked to open a replacement
//! elsewhere and finish here, and `/readyz` says so. At the deadline, or at a second signal,
//! what still runs is cut.

use std::sync::Arc;
use std::time::Duration;

use nowconnect_protocol::CloseCode;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use crate::hub::Hub;

/// Where the hub is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No good generation yet.
    Starting,
    /// Agents and clients are let in.
    Serving,
    /// Nobody is let in, what runs may finish.
    Draining,
    /// What still runs ends now.
    Cut,
}

/// Tells of changes of the [`Phase`].
#[derive(Clone, Debug)]
pub(crate) struct PhaseWatch(watch::Receiver<Phase>);

impl PhaseWatch {
    pub(crate) fn new(phases: watch::Receiver<Phase>) -> Self {
        Self(phases)
    }

    pub(crate) fn current(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until nobody is let in any more.
    pub(crate) async fn draining(&mut self) {
        self.at_least(Phase::Draining).await;
    }

    /// Waits until everything ends.
    pub(crate) async fn cut(&mut self) {
        self.at_least(Phase::Cut).await;
    }

    async fn at_least(&mut self, phase: Phase) {
        // The sender is gone only when the hub is, and then everything ends too.
        let _ = self.0.wait_for(|current| *current >= phase).await;
    }
}

/// How often the drain looks whether anything still runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long tunnels have to say goodbye after the cut.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// Drains the hub within `timeout`, then cuts it. Ends early where nothing runs any more, or
/// where somebody else cuts.
pub(crate) async fn drain(hub: &Arc<Hub>, timeout: Duration) {
    hub.enter(Phase::Draining);
    info!(
        event = "draining",
        flows = hub.flows().len(),
        agents = hub.router().agent_count(),
        timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        "no further client or agent is let in"
    );
    let mut phase = hub.phase();
    let deadline = Instant::now() + timeout;
    for (tunnel, _) in hub.router().tunnels() {
        tunnel.drain(timeout);
    }
    let finished = async {
        while !hub.flows().is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        () = finished => {}
        () = tokio::time::sleep_until(deadline) => {
            info!(event = "drain_deadline", flows = hub.flows().len(), "the rest is cut");
        }
        () = phase.cut() => {}
    }
    cut(hub).await;
}

/// Ends every tunnel with a GOODBYE, and with that every flow.
pub(crate) async fn cut(hub: &Arc<Hub>) {
    for (tunnel, _) in hub.router().tunnels() {
        tunnel.close(CloseCode::Shutdown, "the hub is shutting down");
    }
    let gone = async {
        while hub.router().agent_count() > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // Whoever does not hear it loses the connection a moment later.
    let _ = tokio::time::timeout(GOODBYE_WITHIN, gone).await;
    hub.enter(Phase::Cut);
}
