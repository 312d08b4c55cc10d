//! Metrics of the control API.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::hub::GaugeGuard;
use super::label::{LabelCap, MAX_CODES};
use super::registrar::Registrar;

/// Seconds until an answer: from a list in memory over a write to the disk to the time limit.
const ANSWER_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0,
];

/// The classes of status codes.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A kind of token that the control plane gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// For the tunnel port, once.
    Ephemeral,
    /// For the same tunnel again.
    Recreate,
    /// For a client of the API.
    Management,
}

impl TokenKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ephemeral => "ephemeral",
            Self::Recreate => "recreate",
            Self::Management => "management",
        }
    }
}

/// Why a connection to the API was ended by the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its address has as many as it may have.
    PerSource,
    /// It asked for nothing while another one waited for a place.
    Idle,
}

impl Ended {
    const fn as_str(self) -> &'static str {
        match self {
            Self::PerSource => "per_source",
            Self::Idle => "idle",
        }
    }
}

/// Families of the control API.
#[derive(Debug)]
pub struct ControlMetrics {
    requests: IntCounterVec,
    answers: HistogramVec,
    refused: IntCounterVec,
    codes: LabelCap,
    tokens: IntCounterVec,
    endpoints: IntGauge,
    names: IntGauge,
    connections: IntGauge,
    ended: IntCounterVec,
    failed: IntGauge,
    failures: IntCounter,
    failures_seen: AtomicU64,
}

impl ControlMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            requests: families.counters(
                "nowconnect_control_requests_total",
                &["operation", "status"],
                "Answered calls of the control API, by what was called (none for no route) and the class of the status (2xx).",
            ),
            answers: families.histograms(
                "nowconnect_control_request_seconds",
                &["operation"],
                ANSWER_BUCKETS,
                "Time from a call's head to its answer.",
            ),
            refused: families.counters(
                "nowconnect_control_refused_total",
                &["code"],
                "Calls that were refused, by code; rate_limited among them.",
            ),
            codes: LabelCap::new(MAX_CODES),
            tokens: families.counters(
                "nowconnect_control_tokens_total",
                &["kind"],
                "Tokens given out: ephemeral, recreate or management.",
            ),
            endpoints: families.gauge(
                "nowconnect_control_endpoints",
                "Published endpoints, their agents here or not.",
            ),
            names: families.gauge(
                "nowconnect_control_names",
                "Reserved names, as of some seconds ago.",
            ),
            connections: families.gauge(
                "nowconnect_control_connections",
                "Connections to the control API.",
            ),
            ended: families.counters(
                "nowconnect_control_connections_ended_total",
                &["why"],
                "Connections that the hub ended for others' sake: per_source (too many of one address) or idle (all places were taken).",
            ),
            failed: families.gauge(
                "nowconnect_control_state_failed",
                "1 while the state file fails: nothing can be given out then.",
            ),
            failures: families.counter(
                "nowconnect_control_state_failures_total",
                "Times that the state file began to fail.",
            ),
            failures_seen: AtomicU64::new(0),
        }
    }

    /// Counts an answered call. `operation` is one of the API's own names.
    pub fn answered(&self, operation: &'static str, status: u16, took: Duration) {
        let class = CLASSES
            .get(usize::from(status / 100).wrapping_sub(1))
            .unwrap_or(&"5xx");
        self.requests.with_label_values(&[operation, *class]).inc();
        self.answers
            .with_label_values(&[operation])
            .observe(took.as_secs_f64());
    }

    /// Counts a refusal.
    pub fn refused(&self, code: &str) {
        let label = self.codes.admit(code);
        self.refused.with_label_values(&[label]).inc();
    }

    /// Counts a token that was given out.
    pub fn issued(&self, kind: TokenKind) {
        self.tokens.with_label_values(&[kind.as_str()]).inc();
    }

    /// So many endpoints are published.
    pub fn set_endpoints(&self, number: usize) {
        self.endpoints
            .set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// So many names are reserved.
    pub fn set_names(&self, number: u64) {
        self.names.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Counts a connection until the guard is dropped.
    pub fn connection(&self) -> GaugeGuard {
        GaugeGuard::new(&self.connections)
    }

    /// Counts a connection that was ended.
    pub fn ended(&self, why: Ended) {
        self.ended.with_label_values(&[why.as_str()]).inc();
    }

    /// Whether the state file fails now, and how often it began to since the start.
    pub fn set_state(&self, failed: bool, failures: u64) {
        self.failed.set(i64::from(failed));
        // Of two scrapes at a time each counts what the other has not.
        let seen = self.failures_seen.fetch_max(failures, Ordering::Relaxed);
        self.failures.inc_by(failures.saturating_sub(seen));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn calls_count_by_what_was_called_and_what_came_of_it() {
        let metrics = Metrics::new();
        let control = &metrics.control;
        control.answered("create_tunnel", 201, Duration::from_millis(3));
        control.answered("create_tunnel", 429, Duration::ZERO);
        control.refused("rate_limited");
        control.issued(TokenKind::Recreate);
        control.set_state(true, 2);
        control.set_state(false, 2);
        let page = metrics.render();
        for line in [
            "nowconnect_control_requests_total{operation=\"create_tunnel\",status=\"2xx\"} 1",
            "nowconnect_control_requests_total{operation=\"create_tunnel\",status=\"4xx\"} 1",
            "nowconnect_control_request_seconds_count{operation=\"create_tunnel\"} 2",
            "nowconnect_control_refused_total{code=\"rate_limited\"} 1",
            "nowconnect_control_tokens_total{kind=\"recreate\"} 1",
            "nowconnect_control_state_failed 0",
            "nowconnect_control_state_failures_total 2",
        ] {
            assert!(page.lines().any(|seen| seen == line), "{line} in\n{page}");
        }
    }
}
