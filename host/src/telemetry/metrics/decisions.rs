//! Metrics of the decision log.

use prometheus::{IntCounter, IntCounterVec};

use super::registrar::Registrar;

/// See the module.
#[derive(Debug)]
pub struct DecisionMetrics {
    written: IntCounterVec,
    dropped: IntCounterVec,
    sampled_out: IntCounter,
    folded: IntCounter,
}

impl DecisionMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            written: families.counters(
                "nowconnect_decision_log_lines_total",
                &["output"],
                "Lines of the decision log that an output took: file, stdout or otlp.",
            ),
            dropped: families.counters(
                "nowconnect_decision_log_dropped_total",
                &["output", "reason"],
                "Decisions missing in the decision log, by reason: queue_full, output or shutdown.",
            ),
            sampled_out: families.counter(
                "nowconnect_decision_log_sampled_out_total",
                "Allows left out of the decision log because only a share is kept.",
            ),
            folded: families.counter(
                "nowconnect_decision_log_folded_total",
                "Denies that stand in the decision log as part of a repeated one.",
            ),
        }
    }

    /// Counts lines that an output took.
    pub fn written(&self, output: &str, lines: u64) {
        self.written.with_label_values(&[output]).inc_by(lines);
    }

    /// Counts decisions that are missing.
    pub fn dropped(&self, output: &str, reason: &str, decisions: u64) {
        if decisions > 0 {
            self.dropped
                .with_label_values(&[output, reason])
                .inc_by(decisions);
        }
    }

    /// Counts an allow that was not sampled.
    pub fn sampled_out(&self) {
        self.sampled_out.inc();
    }

    /// Counts a deny that was counted together with others.
    pub fn folded(&self) {
        self.folded.inc();
    }
}
