//! A staged set of policies, evaluated beside the set in force.
//!
//! ```text
//! decision ─► answer to the peer
//!     └► question, if there is room in the queue ─► thread: what would the staged set say?
//! ```
//! The decision in force never waits for the shadow and never depends on it: a question is
//! offered after the answer is known, and where the queue is full it is dropped and counted. The
//! shadow asks a moment later, when an agent may have gone; so before a difference is counted the
//! set in force is asked once more, and where *its* answer has changed meanwhile the question is
//! counted as stale and as nothing else.

mod sample;
mod tally;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use nowconnect_policy::{Decision, Facts, PolicyBundle, Question};
use parking_lot::Mutex;

use crate::generation::Generation;
use crate::telemetry::decisions::{DecisionAction, DecisionId};
use crate::telemetry::metrics::Metrics;
pub use sample::{ShadowSample, ShadowVerdict};
use tally::Tally;
pub use tally::{ShadowCounts, ShadowOutcome};

/// Questions that wait for the shadow. Each holds at most some 2 KiB, so 8 MiB in all; it is
/// longer than the burst of decisions of one slice of a second under full load.
pub const MAX_WAITING_QUESTIONS: usize = 4096;

/// The staged set under comparison, if there is one. Cheap to look at where there is none.
#[derive(Debug)]
pub struct Shadow {
    run: ArcSwapOption<Run>,
    facts: Arc<Facts>,
    metrics: Arc<Metrics>,
}

/// One comparison, from staging to activation or rejection.
#[derive(Debug)]
struct Run {
    revision: u64,
    since: Instant,
    questions: SyncSender<Seen>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    dropped: AtomicU64,
    tally: Mutex<Tally>,
}

/// A decision that was made.
#[derive(Debug)]
struct Seen {
    action: DecisionAction,
    id: DecisionId,
    question: Arc<Question>,
    generation: Arc<Generation>,
    allow: bool,
}

/// What the comparison has found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowReport {
    /// Revision of the staged bundle.
    pub revision: u64,
    /// How long it has been compared.
    pub running: Duration,
    /// By action, in the order of their names.
    pub actions: Vec<(DecisionAction, ShadowCounts)>,
    /// Questions that found no room.
    pub dropped: u64,
    /// Differences, newest last; equal ones share an entry.
    pub samples: Vec<ShadowSample>,
    /// Differences beyond those in `samples`.
    pub unsampled: u64,
}

impl ShadowReport {
    /// Over what agents and clients ask.
    pub fn traffic(&self) -> ShadowCounts {
        let mut traffic = ShadowCounts::default();
        for (action, counts) in &self.actions {
            if *action != DecisionAction::Admin {
                traffic.add(counts);
            }
        }
        traffic
    }

    /// Over all actions.
    pub fn total(&self) -> ShadowCounts {
        let mut total = ShadowCounts::default();
        for (_, counts) in &self.actions {
            total.add(counts);
        }
        total
    }
}

impl Shadow {
    /// Nothing is compared yet.
    pub fn new(facts: Arc<Facts>, metrics: Arc<Metrics>) -> Self {
        Self {
            run: ArcSwapOption::empty(),
            facts,
            metrics,
        }
    }

    /// Compares this set from now on, in a thread of its own, instead of any earlier one.
    ///
    /// # Errors
    /// The system refuses a thread; then nothing is compared.
    pub fn begin(&self, revision: u64, staged: Arc<PolicyBundle>) -> io::Result<()> {
        self.end();
        let (questions, waiting) = sync_channel(MAX_WAITING_QUESTIONS);
        let shared = Arc::new(Shared::default());
        let comparer = Comparer {
            staged,
            facts: Arc::clone(&self.facts),
            metrics: Arc::clone(&self.metrics),
            shared: Arc::clone(&shared),
        };
        std::thread::Builder::new()
            .name("policy-shadow".to_owned())
            .spawn(move || comparer.run(&waiting))?;
        self.run.store(Some(Arc::new(Run {
            revision,
            since: Instant::now(),
            questions,
            shared,
        })));
        Ok(())
    }

    /// Stops comparing. The thread ends by itself after the question it is at.
    pub fn end(&self) -> Option<ShadowReport> {
        self.run.swap(None).map(|run| run.report())
    }

    /// What was found; `None` where nothing is compared.
    pub fn report(&self) -> Option<ShadowReport> {
        self.run.load().as_ref().map(|run| run.report())
    }

    /// A decision was made: the staged set is asked the same when there is time.
    pub(crate) fn saw(
        &self,
        action: DecisionAction,
        id: DecisionId,
        generation: &Arc<Generation>,
        question: &Arc<Question>,
        decision: &Decision,
    ) {
        let run = self.run.load();
        let Some(run) = run.as_ref() else {
            return;
        };
        let seen = Seen {
            action,
            id,
            question: Arc::clone(question),
            generation: Arc::clone(generation),
            allow: decision.allow,
        };
        match run.questions.try_send(seen) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                run.shared.dropped.fetch_add(1, Ordering::Relaxed);
                self.metrics.bundle.shadow_dropped();
            }
        }
    }
}

impl Run {
    fn report(&self) -> ShadowReport {
        let mut report = self.shared.tally.lock().report();
        report.revision = self.revision;
        report.running = self.since.elapsed();
        report.dropped = self.shared.dropped.load(Ordering::Relaxed);
        report
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
    }
}

/// The thread's side.
struct Comparer {
    staged: Arc<PolicyBundle>,
    facts: Arc<Facts>,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
}

impl Comparer {
    /// Ends when nobody can offer questions any more.
    fn run(&self, waiting: &Receiver<Seen>) {
        while let Ok(seen) = waiting.recv() {
            if self.shared.over.load(Ordering::Acquire) {
                return;
            }
            let outcome = self.compare(&seen);
            self.metrics
                .bundle
                .shadow_compared(seen.action, outcome.as_str());
        }
    }

    fn compare(&self, seen: &Seen) -> ShadowOutcome {
        let staged = self.staged.decide(&self.facts, &seen.question);
        let outcome = ShadowOutcome::of(seen.allow, &staged);
        if outcome == ShadowOutcome::Same {
            self.shared.tally.lock().count(seen.action, outcome);
            return outcome;
        }
        let live = seen
            .generation
            .policies()
            .decide(&self.facts, &seen.question);
        if live.allow != seen.allow {
            self.shared
                .tally
                .lock()
                .count(seen.action, ShadowOutcome::Stale);
            return ShadowOutcome::Stale;
        }
        // Both may have failed for the same reason by now, such as an agent that has gone.
        let outcome = ShadowOutcome::between(&live, &staged);
        let sample = (outcome != ShadowOutcome::Same).then(|| {
            ShadowSample::new(
                seen.action,
                outcome,
                seen.id,
                &seen.question,
                &live,
                &staged,
            )
        });
        let mut tally = self.shared.tally.lock();
        tally.count(seen.action, outcome);
        if let Some(sample) = sample {
            tally.keep(sample);
        }
        outcome
    }
}
