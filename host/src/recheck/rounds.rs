//! Rounds: everything that runs is asked about again, one round at a time.
//!
//! ```text
//! begin ─► wanted ─► running ─► over
//!             ▲         │ a newer one is wanted
//!             └─────────┘ superseded: what it has done counts in the newer one
//! ```
//! A change orders a round and goes on; only the newest order counts, so there is no queue. Those
//! that were asked about longest ago come first, and flows, requests and agents take turns, so that
//! changes which come faster than a round takes leave nobody out for ever.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tracing::{error, info};

use super::{ends, flows, requests, sessions};
use crate::admin::view::RecheckStatus;
use crate::hub::Hub;
use crate::telemetry::events;
use crate::telemetry::metrics::RecheckEnd;

/// How long the answer to a reload or an activation waits for the round that it caused: enough
/// for thousands of flows that only policies decide about, and short enough for a person.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What a round has done so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) flows: AtomicU64,
    pub(super) flows_asked: AtomicU64,
    pub(super) flows_denied: AtomicU64,
    pub(super) flows_closed: AtomicU64,
    pub(super) agents: AtomicU64,
    pub(super) agents_asked: AtomicU64,
    pub(super) sessions_closed: AtomicU64,
    pub(super) connectors_lost: AtomicU64,
}

impl Tally {
    /// Begins with what a round that was not finished has ended already.
    fn after(unfinished: &Self) -> Self {
        let same = |count: &AtomicU64| AtomicU64::new(count.load(Ordering::Relaxed));
        Self {
            flows_closed: same(&unfinished.flows_closed),
            sessions_closed: same(&unfinished.sessions_closed),
            connectors_lost: same(&unfinished.connectors_lost),
            ..Self::default()
        }
    }
}

/// The rounds of a hub.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// The newest round that was ordered.
    wanted: watch::Sender<u64>,
    /// The round under way, or the last one.
    current: watch::Sender<Round>,
}

#[derive(Clone, Debug)]
struct Round {
    number: u64,
    generation: u64,
    running: bool,
    tally: Arc<Tally>,
}

impl Default for Rounds {
    fn default() -> Self {
        let none = Round {
            number: 0,
            generation: 0,
            running: false,
            tally: Arc::default(),
        };
        Self {
            wanted: watch::channel(0).0,
            current: watch::channel(none).0,
        }
    }
}

impl Rounds {
    /// Orders a round and does not wait for it. Gives its number.
    pub(crate) fn begin(&self) -> u64 {
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            number = *wanted;
        });
        number
    }

    /// The number of the round that was ordered last; 0 before the first.
    pub(crate) fn newest(&self) -> u64 {
        *self.wanted.borrow()
    }

    /// Whether a round is under way or ordered.
    pub(crate) fn is_running(&self) -> bool {
        let wanted = *self.wanted.borrow();
        let current = self.current.borrow();
        current.running || current.number < wanted
    }

    /// What the round under way, or the last one, has done so far.
    pub(crate) fn status(&self) -> RecheckStatus {
        let wanted = *self.wanted.borrow();
        let current = self.current.borrow().clone();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let tally = &current.tally;
        RecheckStatus {
            round: current.number,
            generation: current.generation,
            running: current.running || current.number < wanted,
            flows: count(&tally.flows),
            flows_asked: count(&tally.flows_asked),
            flows_denied: count(&tally.flows_denied),
            flows_closed: count(&tally.flows_closed),
            agents: count(&tally.agents),
            agents_asked: count(&tally.agents_asked),
            sessions_closed: count(&tally.sessions_closed),
            connectors_lost: count(&tally.connectors_lost),
        }
    }

    /// Waits until this round is over, or one that took its place, but for two seconds at most;
    /// then says what is done and what still runs.
    pub(crate) async fn settled(&self, number: u64) -> RecheckStatus {
        self.settled_within(number, ANSWER_WITHIN).await
    }

    async fn settled_within(&self, number: u64, time: Duration) -> RecheckStatus {
        let mut rounds = self.current.subscribe();
        let over = rounds.wait_for(|round| round.number >= number && !round.running);
        let _ = tokio::time::timeout(time, over).await;
        self.status()
    }

    fn start(&self, number: u64, generation: u64) -> Arc<Tally> {
        let mut tally = Arc::default();
        self.current.send_modify(|current| {
            if current.running {
                tally = Arc::new(Tally::after(&current.tally));
            }
            *current = Round {
                number,
                generation,
                running: true,
                tally: Arc::clone(&tally),
            };
        });
        tally
    }

    fn finish(&self) {
        self.current.send_modify(|current| current.running = false);
    }
}

/// Does the rounds that are ordered, until dropped. A newer order takes the place of the round
/// under way.
pub(crate) async fn recheck_on_change(hub: Arc<Hub>) {
    let mut wanted = hub.rounds().wanted.subscribe();
    let mut done = 0;
    loop {
        let number = *wanted.borrow_and_update();
        if number == done {
            // The sender lives as long as the hub, which is held here.
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        }
        let generation = hub.generations().current().number();
        let tally = hub.rounds().start(number, generation);
        hub.metrics().policy.recheck_began();
        let end = tokio::select! {
            biased;
            _ = wanted.changed() => RecheckEnd::Superseded,
            end = unharmed(ask_everybody(&hub, &tally)) => {
                done = number;
                hub.rounds().finish();
                end
            }
        };
        hub.metrics().policy.recheck_ended(end);
        tell(&hub.rounds().status(), end);
    }
}

async fn ask_everybody(hub: &Arc<Hub>, tally: &Tally) {
    let Some(close) = ends(hub.config().policy.on_swap) else {
        return;
    };
    let tunnels: Vec<_> = hub
        .router()
        .tunnels()
        .into_iter()
        .map(|(tunnel, _)| tunnel)
        .collect();
    // Each kind in slices of its own: ten thousand flows keep no agent waiting.
    tokio::join!(
        flows::ask_all(hub, hub.flows().collect(|_| true), close, tally),
        requests::ask_all(hub, None, close, tally),
        sessions::ask_all(hub, tunnels, close, tally),
    );
}

/// How a round ends that is not superseded. One question at which the hub fails ends its round
/// only: a hub that asks nobody again would look as if all were well.
async fn unharmed(asking: impl Future<Output = ()>) -> RecheckEnd {
    match AssertUnwindSafe(asking).catch_unwind().await {
        Ok(()) => RecheckEnd::Done,
        Err(_) => {
            error!(
                "the hub failed while it asked about what runs; what it had not come to is asked \
                 about first after the next change"
            );
            RecheckEnd::Failed
        }
    }
}

fn tell(round: &RecheckStatus, end: RecheckEnd) {
    let ended = round.flows_closed + round.sessions_closed + round.connectors_lost;
    if round.flows_denied + ended == 0 {
        return;
    }
    info!(
        event = events::RECHECK_CLOSED,
        asked = round.flows_asked,
        denied = round.flows_denied,
        closed = round.flows_closed,
        sessions_closed = round.sessions_closed,
        connectors_lost = round.connectors_lost,
        generation = round.generation,
        end = end.as_str(),
        "what runs was asked about again"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_waits_for_its_round_or_for_one_that_took_its_place() {
        let rounds = Rounds::default();
        let first = rounds.begin();
        assert!(rounds.is_running(), "an order that nobody has seen yet");
        let tally = rounds.start(first, 7);
        tally.flows_closed.fetch_add(3, Ordering::Relaxed);
        let second = rounds.begin();
        let tally = rounds.start(second, 8);
        tally.flows_closed.fetch_add(1, Ordering::Relaxed);
        let (settled, ()) = tokio::join!(rounds.settled(first), async {
            tokio::task::yield_now().await;
            rounds.finish();
        });
        assert!(!settled.running && !rounds.is_running());
        assert_eq!((settled.round, settled.generation), (second, 8));
        assert_eq!(settled.flows_closed, 4, "what the first one ended is lost");
    }

    #[tokio::test]
    async fn a_question_at_which_the_hub_fails_ends_its_round_and_no_more() {
        let fails = async {
            tokio::task::yield_now().await;
            panic!("a fault of the hub");
        };
        assert_eq!(unharmed(fails).await, RecheckEnd::Failed);
        assert_eq!(unharmed(async {}).await, RecheckEnd::Done);
    }

    #[tokio::test]
    async fn an_answer_does_not_wait_for_ever() {
        let rounds = Rounds::default();
        let number = rounds.begin();
        let tally = rounds.start(number, 1);
        tally.flows.store(10, Ordering::Relaxed);
        tally.flows_asked.store(4, Ordering::Relaxed);
        let settled = rounds
            .settled_within(number, Duration::from_millis(20))
            .await;
        assert!(settled.running);
        assert_eq!((settled.flows, settled.flows_asked), (10, 4));
    }
}
