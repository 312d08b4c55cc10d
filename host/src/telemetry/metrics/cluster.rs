//! Metrics of the registry and of the hubs in it. Links have a module of their own.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::registrar::Registrar;

/// Seconds of one call: from a neighbour on the same machine to the bound of a call.
const CALL_BUCKETS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
];

/// The modes of a hub, as labels.
const MODES: [&str; 3] = ["off", "shadow", "active"];

/// How the registry answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryResult {
    /// It did what was asked.
    Ok,
    /// The claim is not in force.
    Lost,
    /// It will not: a bound, a right, a name that is taken.
    Refused,
    /// It did not answer, or is known to be away.
    Unavailable,
}

impl RegistryResult {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Lost => "lost",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct ClusterMetrics {
    calls: IntCounterVec,
    seconds: HistogramVec,
    healthy: IntGauge,
    claims: IntGaugeVec,
    lost: IntCounterVec,
    taken_over: IntCounter,
    mismatches: IntCounter,
    hubs: IntGauge,
    skewed: IntGauge,
    mode: IntGaugeVec,
}

impl ClusterMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            calls: families.counters(
                "nowconnect_registry_calls_total",
                &["call", "result"],
                "Calls of the registry in Redis, by what was asked and the result: ok, lost, refused or unavailable.",
            ),
            seconds: families.histograms(
                "nowconnect_registry_seconds",
                &["call"],
                CALL_BUCKETS,
                "Time of one call of the registry in Redis, failures included.",
            ),
            healthy: families.gauge(
                "nowconnect_registry_healthy",
                "1 while the registry answers; a hub without one has it in its memory, and 1.",
            ),
            claims: families.gauges(
                "nowconnect_registry_claims",
                &["state"],
                "Agents that this hub owns: shared, or provisional as long as the registry does not know of it.",
            ),
            lost: families.counters(
                "nowconnect_registry_claims_lost_total",
                &["mode"],
                "Claims that another hub overtook or that were given up in the registry; in mode active their sessions end.",
            ),
            taken_over: families.counter(
                "nowconnect_registry_claims_taken_over_total",
                "Agents that came here while another hub had them; many of one agent are one identity used twice.",
            ),
            mismatches: families.counter(
                "nowconnect_owner_epoch_mismatch_total",
                "Frames and claims that were refused because a higher epoch of their agent was seen before.",
            ),
            hubs: families.gauge(
                "nowconnect_cluster_hubs",
                "Hubs of the cluster that are present, this one included.",
            ),
            skewed: families.gauge(
                "nowconnect_cluster_hubs_skewed",
                "Other hubs that have other policies or plugins in force than this one.",
            ),
            mode: families.gauges(
                "nowconnect_cluster_mode",
                &["mode"],
                "1 for the mode of this hub: off, shadow or active.",
            ),
        }
    }

    /// Counts and times a call.
    pub fn called(&self, call: &'static str, result: RegistryResult, took: Duration) {
        self.calls.with_label_values(&[call, result.as_str()]).inc();
        self.seconds
            .with_label_values(&[call])
            .observe(took.as_secs_f64());
    }

    /// Counts a claim that is lost.
    pub fn claim_lost(&self, mode: &'static str) {
        self.lost.with_label_values(&[mode]).inc();
    }

    /// Counts an agent that came while another hub had it.
    pub fn taken_over(&self) {
        self.taken_over.inc();
    }

    /// Whether the registry answers.
    pub fn registry_healthy(&self, healthy: bool) {
        self.healthy.set(i64::from(healthy));
    }

    /// Claims that are held.
    pub fn claims(&self, shared: usize, provisional: usize) {
        for (state, count) in [("shared", shared), ("provisional", provisional)] {
            self.claims.with_label_values(&[state]).set(clamped(count));
        }
    }

    /// How many epochs were refused since the start.
    pub fn epoch_mismatches(&self, total: u64) {
        self.mismatches
            .inc_by(total.saturating_sub(self.mismatches.get()));
    }

    /// Hubs that are present, and those among the others that have something else in force.
    pub fn hubs(&self, present: usize, skewed: usize) {
        self.hubs.set(clamped(present));
        self.skewed.set(clamped(skewed));
    }

    /// How far this hub takes part.
    pub fn mode(&self, mode: &'static str) {
        for other in MODES {
            let gauge = self.mode.with_label_values(&[other]);
            gauge.set(i64::from(other == mode));
        }
    }
}

fn clamped(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
