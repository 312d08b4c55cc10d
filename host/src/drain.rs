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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nowconnect_protocol::CloseCode;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use crate::admin::view::{DrainProgress, DrainState};
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

/// How far a drain is, for those who follow it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Course {
    /// When what still runs is cut.
    deadline: Option<Instant>,
    /// Flows that still ran then; set at the end.
    flows_cut: Option<usize>,
}

/// How a drain goes, as told to those who follow it.
#[derive(Debug)]
pub(crate) struct Drains {
    course: watch::Sender<Course>,
    followed: AtomicBool,
}

impl Default for Drains {
    fn default() -> Self {
        Self {
            course: watch::Sender::new(Course::default()),
            followed: AtomicBool::new(false),
        }
    }
}

impl Drains {
    fn begin(&self, deadline: Instant) {
        self.course
            .send_modify(|course| course.deadline = Some(deadline));
    }

    /// Only the first word on it counts: what is cut later was refused before it began.
    fn end(&self, flows: usize) {
        self.course.send_if_modified(|course| {
            let first = course.flows_cut.is_none();
            course.flows_cut = course.flows_cut.or(Some(flows));
            first
        });
    }

    /// Waits for the end, at most `wait`.
    pub(crate) async fn follow(&self, wait: Duration) {
        self.followed.store(true, Ordering::Relaxed);
        let mut course = self.course.subscribe();
        let ended = course.wait_for(|course| course.flows_cut.is_some());
        // The sender lives as long as this value; at the time's end the answer says what holds.
        let _ = tokio::time::timeout(wait, ended).await;
    }

    /// What is told now.
    pub(crate) fn progress(&self, phase: Phase, flows: u64, agents: u64) -> DrainProgress {
        let course = *self.course.borrow();
        let state = match (phase, course.flows_cut) {
            (_, Some(_)) => DrainState::Ended,
            (Phase::Draining | Phase::Cut, None) => DrainState::Draining,
            (Phase::Starting | Phase::Serving, None) => DrainState::Serving,
        };
        let millis = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        DrainProgress {
            state,
            flows,
            agents,
            remaining_ms: course
                .deadline
                .filter(|_| state == DrainState::Draining)
                .map(|deadline| millis(deadline.saturating_duration_since(Instant::now()))),
            flows_cut: course
                .flows_cut
                .map(|flows| u64::try_from(flows).unwrap_or(u64::MAX)),
        }
    }
}

/// How long a hub that is followed stays after the end, so that whoever follows hears of it.
const HEARD_WITHIN: Duration = Duration::from_millis(300);

/// Lets those who follow the drain hear how it ended.
pub(crate) async fn be_heard(hub: &Hub) {
    if hub.drains.followed.load(Ordering::Relaxed) {
        tokio::time::sleep(HEARD_WITHIN).await;
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
    // Flows that are kept for later requests are not waited for.
    hub.ingress.end();
    let mut phase = hub.phase();
    let deadline = Instant::now() + timeout;
    hub.drains.begin(deadline);
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
    hub.drains.end(hub.flows().len());
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
