//! Metrics of looks at targets.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::label::{CappedChildren, MAX_CONNECTORS};
use super::registrar::Registrar;

/// What one look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthResult {
    /// The target answers as it should.
    Up,
    /// It does not.
    Down,
    /// It could not be asked: policies forbid it, or the agent is busy or leaves.
    NotAsked,
}

/// Families of health checks.
#[derive(Debug)]
pub struct HealthMetrics {
    looks: IntCounterVec,
    late: IntCounterVec,
    down: IntGaugeVec,
    connectors: CappedChildren<ConnectorHealth>,
}

/// The children of one connector.
#[derive(Debug)]
struct ConnectorHealth {
    up: IntCounter,
    down: IntCounter,
    not_asked: IntCounter,
    late: IntCounter,
    targets_down: IntGauge,
}

impl HealthMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            looks: families.counters(
                "nowconnect_health_checks_total",
                &["connector", "result"],
                "Looks of the hub at targets, by what they came to (up, down, not_asked).",
            ),
            late: families.counters(
                "nowconnect_health_checks_late_total",
                &["connector"],
                "Looks of the hub at targets that began more than an interval too late, because others took all places.",
            ),
            down: families.gauges(
                "nowconnect_targets_down",
                &["connector"],
                "Agents whose target of this connector does not answer; they get no new flow of it.",
            ),
            connectors: CappedChildren::new(MAX_CONNECTORS),
        }
    }

    /// Counts a look; `name` is `tenant/name` outside the default tenant.
    pub fn looked(&self, name: &str, result: HealthResult) {
        let of = self.connector(name);
        match result {
            HealthResult::Up => of.up.inc(),
            HealthResult::Down => of.down.inc(),
            HealthResult::NotAsked => of.not_asked.inc(),
        }
    }

    /// Counts a look that began too late.
    pub fn late(&self, name: &str) {
        self.connector(name).late.inc();
    }

    /// So many targets are down.
    pub fn down(&self, name: &str, targets: usize) {
        let targets = i64::try_from(targets).unwrap_or(i64::MAX);
        self.connector(name).targets_down.set(targets);
    }

    /// Drops the series of a connector that is looked at no more.
    pub fn forget(&self, name: &str) {
        if !self.connectors.forget(name) {
            return;
        }
        // A child that never existed is no error here.
        let _ = self.down.remove_label_values(&[name]);
        let _ = self.late.remove_label_values(&[name]);
        for result in ["up", "down", "not_asked"] {
            let _ = self.looks.remove_label_values(&[name, result]);
        }
    }

    fn connector(&self, name: &str) -> std::sync::Arc<ConnectorHealth> {
        self.connectors.child(name, |label| ConnectorHealth {
            up: self.looks.with_label_values(&[label, "up"]),
            down: self.looks.with_label_values(&[label, "down"]),
            not_asked: self.looks.with_label_values(&[label, "not_asked"]),
            late: self.late.with_label_values(&[label]),
            targets_down: self.down.with_label_values(&[label]),
        })
    }
}
