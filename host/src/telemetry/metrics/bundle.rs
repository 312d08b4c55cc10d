//! Metrics of policy bundles and of the shadow.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::registrar::Registrar;
use super::traffic::saturating_i64;
use crate::bundle::state::Stage;
use crate::bundle::view::BundleStatus;
use crate::telemetry::decisions::DecisionAction;

/// Families of policy bundles.
#[derive(Debug)]
pub struct BundleMetrics {
    delivered: IntCounterVec,
    rejected: IntCounterVec,
    looks: IntCounterVec,
    revision: IntGaugeVec,
    highest: IntGauge,
    problems: IntGauge,
    shadow: IntCounterVec,
    shadow_dropped: IntCounter,
}

impl BundleMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            delivered: families.counters(
                "nowconnect_policy_bundle_delivered_total",
                &["origin"],
                "Policy bundles that came, by push, rollback, path or url.",
            ),
            rejected: families.counters(
                "nowconnect_policy_bundle_rejected_total",
                &["code"],
                "Policy bundles that were refused, by code.",
            ),
            looks: families.counters(
                "nowconnect_policy_bundle_looks_total",
                &["result"],
                "Looks at the source of bundles: new, unchanged or failed.",
            ),
            revision: families.gauges(
                "nowconnect_policy_bundle_revision",
                &["state"],
                "Revision of the policy bundle that is active or staged; 0 where none is.",
            ),
            highest: families.gauge(
                "nowconnect_policy_bundle_highest_revision",
                "The highest revision that was ever accepted; no lower one is taken.",
            ),
            problems: families.gauge(
                "nowconnect_policy_bundle_problems",
                "What is wrong with source, state or time of bundles, as `/readyz` shows it.",
            ),
            shadow: families.counters(
                "nowconnect_policy_shadow_total",
                &["action", "outcome"],
                "Decisions that the staged policies made too: same, newly_allowed, newly_denied, error or stale.",
            ),
            shadow_dropped: families.counter(
                "nowconnect_policy_shadow_dropped_total",
                "Decisions that the staged policies were not asked for because too many waited.",
            ),
        }
    }

    /// Counts a bundle that has come.
    pub fn delivered(&self, origin: &'static str) {
        self.delivered.with_label_values(&[origin]).inc();
    }

    /// Counts a bundle that was refused. Codes are those of the registry.
    pub fn rejected(&self, code: &'static str) {
        self.rejected.with_label_values(&[code]).inc();
    }

    /// Counts a look at the source.
    pub fn looked(&self, result: &'static str) {
        self.looks.with_label_values(&[result]).inc();
    }

    /// Shows where the bundles are.
    pub fn state(&self, status: &BundleStatus) {
        for (stage, entry) in [
            (Stage::Active, &status.active),
            (Stage::Staged, &status.staged),
        ] {
            let revision = entry.as_ref().map_or(0, |entry| entry.revision);
            self.revision
                .with_label_values(&[stage.as_str()])
                .set(saturating_i64(revision));
        }
        self.highest
            .set(saturating_i64(status.highest_revision.unwrap_or(0)));
        let problems = i64::try_from(status.problems.len()).unwrap_or(i64::MAX);
        self.problems.set(problems);
    }

    /// Counts a decision that the staged set made too.
    pub fn shadow_compared(&self, action: DecisionAction, outcome: &'static str) {
        self.shadow
            .with_label_values(&[action.as_str(), outcome])
            .inc();
    }

    /// Counts a decision that found no room.
    pub fn shadow_dropped(&self) {
        self.shadow_dropped.inc();
    }
}
