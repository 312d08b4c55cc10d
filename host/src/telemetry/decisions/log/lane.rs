//! The way to one output: a queue and a thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::line::{Line, Lines};
use super::queue::{Entry, Gap, Patience, Queue};
use super::{DecisionLogSettings, Front};
use crate::telemetry::events;
use crate::telemetry::mask::{LogMasker, MAX_MASK_BATCH};

/// How often the thread looks for windows that are over.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Shortest time between two log lines about an output that fails.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// What takes lines.
pub(super) trait Output: Send {
    /// Writes these lines, waiting as long as it takes.
    fn write(&mut self, lines: &[Line]) -> Result<(), Lost>;

    /// Begins a new file, where it is one.
    fn reopen(&mut self) {}
}

/// Not all lines were written.
#[derive(Debug)]
pub(super) struct Lost {
    /// Lines that were, from the front.
    pub(super) written: usize,
    /// Why not all.
    pub(super) problem: String,
}

pub(super) struct Lane {
    name: &'static str,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Queue,
    reopen: AtomicBool,
}

impl Lane {
    pub(super) fn new(name: &'static str, settings: &DecisionLogSettings) -> Self {
        Self {
            name,
            shared: Arc::new(Shared {
                queue: Queue::new(settings.queue_bytes, settings.when_full),
                reopen: AtomicBool::new(false),
            }),
        }
    }

    pub(super) fn run(
        &self,
        output: Box<dyn Output>,
        front: Weak<Front>,
        settings: &DecisionLogSettings,
        masker: Option<Arc<dyn LogMasker>>,
    ) -> std::io::Result<()> {
        let runner = Runner {
            name: self.name,
            shared: Arc::clone(&self.shared),
            front,
            output,
            lines: Lines::new(settings, masker),
            failing_since: None,
            last_warning: None,
        };
        std::thread::Builder::new()
            .name(format!("decisions-{}", self.name))
            .spawn(move || runner.run())
            .map(drop)
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn push(&self, entry: Entry, patience: Patience) -> u64 {
        self.shared.queue.push(entry, patience)
    }

    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
    }

    pub(super) fn close(&self) {
        self.shared.queue.close();
    }

    pub(super) fn wait_until_written(&self, until: Instant) -> u64 {
        self.shared.queue.wait_until_done(until)
    }
}

/// The state of the thread.
struct Runner {
    name: &'static str,
    shared: Arc<Shared>,
    front: Weak<Front>,
    output: Box<dyn Output>,
    lines: Lines,
    failing_since: Option<Instant>,
    last_warning: Option<Instant>,
}

impl Runner {
    fn run(mut self) {
        loop {
            let taken = self.shared.queue.take(MAX_MASK_BATCH, LOOK_EVERY);
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.output.reopen();
            }
            if let Some(front) = self.front.upgrade() {
                front.flush_floods();
            }
            if !taken.entries.is_empty() || !taken.gap.is_empty() {
                let lost = self.write(&taken.entries, taken.gap);
                self.shared.queue.done(taken.entries.len(), lost);
            }
            if taken.last {
                return;
            }
        }
    }

    /// Writes a batch; gives back what is missing now.
    fn write(&mut self, entries: &[Entry], gap: Gap) -> Gap {
        let mut lines = Vec::with_capacity(entries.len() + 1);
        let with_gap = !gap.is_empty();
        if with_gap {
            lines.push(Line::gap(&gap));
        }
        lines.extend(self.lines.of(entries));
        let result = self.output.write(&lines);
        let written = match &result {
            Ok(()) => lines.len(),
            Err(lost) => lost.written.min(lines.len()),
        };
        let mut missing = Gap::default();
        let mut first_lost = written;
        if with_gap {
            if written == 0 {
                missing = gap;
            }
            first_lost = written.saturating_sub(1);
        }
        let lost = entries.get(first_lost..).unwrap_or_default();
        lost.iter().for_each(|entry| missing.add(entry));
        let front = self.front.upgrade();
        if let Some(front) = &front {
            let metrics = &front.metrics().decisions;
            metrics.written(self.name, written as u64);
            metrics.dropped(self.name, "output", lost.len() as u64);
        }
        match result {
            Ok(()) => self.works(),
            Err(lost) => self.fails(&lost.problem),
        }
        missing
    }

    fn fails(&mut self, problem: &str) {
        let now = Instant::now();
        self.failing_since.get_or_insert(now);
        let recently = self
            .last_warning
            .is_some_and(|last| now.duration_since(last) < WARNING_INTERVAL);
        if recently {
            return;
        }
        self.last_warning = Some(now);
        warn!(
            event = events::DECISION_LOG_FAILED,
            output = self.name,
            error = problem,
            "decisions could not be written to the decision log"
        );
    }

    fn works(&mut self) {
        if let Some(since) = self.failing_since.take() {
            self.last_warning = None;
            info!(
                event = events::DECISION_LOG_WORKS,
                output = self.name,
                failed_ms = since.elapsed().as_millis(),
                "the decision log is written again"
            );
        }
    }
}
