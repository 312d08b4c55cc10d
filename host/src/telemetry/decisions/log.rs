//! The decision log: every decision as a line of JSON, or as an OTLP log record.
//!
//! ```text
//! caller's thread                                     a thread for each output
//! record ─► sample allows ─► fold floods of denies ─► queue (bytes) ─► line ─► mask plugins ─► output
//!                                                       full: drop_new | drop_old | block
//! ```
//! Denies and operators' deeds are never sampled; allows are, where the operator wants. Equal
//! denies beyond a burst in a second become one line with their number, the first and the last
//! time. What a queue has no room for, and what an output does not take, is counted and stands in
//! the log as a gap. Records come here through the redaction floor; mask plugins see their lines.
//!
//! Nothing here makes a caller wait, except `when_full: block`, which is bounded and waits no
//! longer once it has waited in vain.

mod file;
mod flood;
mod lane;
mod line;
mod otlp;
mod queue;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::record::{DecisionAction, DecisionRecord};
use crate::telemetry::mask::LogMasker;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::redact::Covers;
use crate::telemetry::traces::TraceSettings;

pub use flood::MAX_FLOODS;
pub use queue::WhenFull;

use flood::{Floods, Repeated};
use lane::Lane;
use queue::{Entry, Patience};

/// How the decision log is kept.
#[derive(Clone, Debug)]
pub struct DecisionLogSettings {
    /// Lines of JSON go there.
    pub output: Option<DecisionOutput>,
    /// Log records go to this collector.
    pub collector: Option<TraceSettings>,
    /// Bytes that may wait for each output.
    pub queue_bytes: usize,
    /// What becomes of what there is no room for.
    pub when_full: WhenFull,
    /// The share of allows that are kept, 0 to 1.
    pub sample_allows: f64,
    /// Equal denies a second that stand alone; 0 folds none.
    pub deny_burst: u32,
    /// Fields of the question that are written, such as `net.source_ip`.
    pub context: Vec<String>,
    /// What the floor covers beyond secrets.
    pub covers: Covers,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecisionOutput {
    /// To standard output.
    Stdout,
    /// To the end of a file, which is opened again by [`DecisionSinks::reopen`].
    File(PathBuf),
}

/// The decision log does not start.
#[derive(Debug, thiserror::Error)]
pub enum DecisionLogError {
    /// The file cannot be written to.
    #[error("`observability.decision_log.file` `{path}`: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        problem: String,
    },
    /// The collector's address is not understood.
    #[error("`observability.otlp_endpoint`: {0}")]
    Collector(String),
    /// The system gives no thread.
    #[error("the decision log's thread did not start")]
    Thread(#[source] std::io::Error),
}

/// The running decision log. Its threads end after it is dropped, or by
/// [`shutdown`](Self::shutdown).
pub struct DecisionSinks {
    front: Arc<Front>,
}

/// What callers and the outputs' threads share.
pub(super) struct Front {
    lanes: Vec<Lane>,
    floods: Floods,
    sample_allows: f64,
    allows: AtomicU64,
    metrics: Arc<Metrics>,
}

impl DecisionSinks {
    /// Starts a thread for each output; `None` where there is none.
    ///
    /// # Errors
    /// [`DecisionLogError`].
    pub fn start(
        settings: &DecisionLogSettings,
        masker: Option<Arc<dyn LogMasker>>,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>, DecisionLogError> {
        let mut outputs: Vec<(&'static str, Box<dyn lane::Output>)> = Vec::new();
        match &settings.output {
            Some(DecisionOutput::Stdout) => {
                outputs.push(("stdout", Box::new(file::Stream::new(std::io::stdout()))));
            }
            Some(DecisionOutput::File(path)) => {
                outputs.push(("file", Box::new(file::LogFile::open(path)?)));
            }
            None => {}
        }
        if let Some(collector) = &settings.collector {
            outputs.push(("otlp", Box::new(otlp::Collector::new(collector)?)));
        }
        if outputs.is_empty() {
            return Ok(None);
        }
        Self::with_outputs(settings, outputs, masker, metrics).map(Some)
    }

    fn with_outputs(
        settings: &DecisionLogSettings,
        outputs: Vec<(&'static str, Box<dyn lane::Output>)>,
        masker: Option<Arc<dyn LogMasker>>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, DecisionLogError> {
        let lanes: Vec<(Lane, Box<dyn lane::Output>)> = outputs
            .into_iter()
            .map(|(name, output)| (Lane::new(name, settings), output))
            .collect();
        let (lanes, outputs): (Vec<Lane>, Vec<_>) = lanes.into_iter().unzip();
        let front = Arc::new(Front {
            lanes,
            floods: Floods::new(settings.deny_burst),
            sample_allows: settings.sample_allows,
            allows: AtomicU64::new(0),
            metrics: Arc::clone(metrics),
        });
        for (lane, output) in front.lanes.iter().zip(outputs) {
            lane.run(output, Arc::downgrade(&front), settings, masker.clone())
                .map_err(DecisionLogError::Thread)?;
        }
        Ok(Self { front })
    }

    /// Takes a record that has passed the floor.
    pub fn record(&self, record: &Arc<DecisionRecord>) {
        self.front.record(record);
    }

    /// Opens files again, after something has moved them away.
    pub fn reopen(&self) {
        for lane in &self.front.lanes {
            lane.reopen();
        }
    }

    /// Writes what waits, at most until `deadline` from now, and ends. What is left is counted.
    pub fn shutdown(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let floods = self.front.floods.take_all();
        self.front.say_floods(floods, Patience::Until(until));
        for lane in &self.front.lanes {
            lane.close();
        }
        for lane in &self.front.lanes {
            let left = lane.wait_until_written(until);
            self.front
                .metrics
                .decisions
                .dropped(lane.name(), "shutdown", left);
        }
    }

    /// Waits until what was recorded before is written; `false` if `deadline` passed first.
    pub fn flush(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let floods = self.front.floods.take_all();
        self.front.say_floods(floods, Patience::Until(until));
        self.front
            .lanes
            .iter()
            .all(|lane| lane.wait_until_written(until) == 0)
    }
}

impl Drop for DecisionSinks {
    fn drop(&mut self) {
        for lane in &self.front.lanes {
            lane.close();
        }
    }
}

impl fmt::Debug for DecisionSinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionSinks")
            .field("outputs", &self.front.lanes.len())
            .finish_non_exhaustive()
    }
}

impl Front {
    fn record(&self, record: &Arc<DecisionRecord>) {
        let operator = record.action == DecisionAction::Admin;
        if record.allow && !operator && !self.is_sampled() {
            self.metrics.decisions.sampled_out();
            return;
        }
        if !record.allow && !operator {
            let (fold, over) = self.floods.fold(record, Instant::now());
            self.say_floods(over, Patience::AsSet);
            if fold {
                self.metrics.decisions.folded();
                return;
            }
        }
        self.push(&Entry::One(Arc::clone(record)), Patience::AsSet);
    }

    /// Keeps every n-th, so that a share is kept whatever the traffic.
    fn is_sampled(&self) -> bool {
        if self.sample_allows >= 1.0 {
            return true;
        }
        let number = self.allows.fetch_add(1, Ordering::Relaxed);
        #[expect(
            clippy::cast_precision_loss,
            reason = "beyond 2^52 decisions the share is off by one"
        )]
        let kept = |number: u64| (number as f64 * self.sample_allows).floor();
        kept(number + 1) > kept(number)
    }

    /// Says what was folded in windows that are over. The outputs' threads call it now and then,
    /// which must not wait: neither for room in their own queue, which they alone make, nor for
    /// another output. What finds no room stands in the gap with its number.
    pub(super) fn flush_floods(&self) {
        self.say_floods(self.floods.take_over(Instant::now()), Patience::None);
    }

    fn say_floods(&self, over: Vec<Repeated>, patience: Patience) {
        for repeated in over {
            self.push(&Entry::Many(Arc::new(repeated)), patience);
        }
    }

    fn push(&self, entry: &Entry, patience: Patience) {
        for lane in &self.lanes {
            let dropped = lane.push(entry.clone(), patience);
            self.metrics
                .decisions
                .dropped(lane.name(), "queue_full", dropped);
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
