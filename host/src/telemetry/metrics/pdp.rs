//! Metrics of the client of the external decision point; its answers are counted with the
//! policies.

use std::time::Duration;

use prometheus::{Histogram, IntCounterVec, IntGauge};

use super::registrar::Registrar;

/// Seconds of one question: from a neighbour on the same machine to the longest timeout in use.
const QUESTION_BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// How a question came to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PdpCache {
    /// By an allow that was kept.
    Hit,
    /// By asking.
    Miss,
    /// With somebody who asked the same at that time.
    Shared,
    /// By an older allow, because of trouble (`on_error: allow_if_cached`).
    Stale,
}

impl PdpCache {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Shared => "shared",
            Self::Stale => "stale",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct PdpMetrics {
    seconds: Histogram,
    cache: IntCounterVec,
    breaker: IntGauge,
}

impl PdpMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            seconds: families.histogram(
                "nowconnect_pdp_seconds",
                QUESTION_BUCKETS,
                "Time of one question to the external decision point, failures included.",
            ),
            cache: families.counters(
                "nowconnect_pdp_cache_total",
                &["result"],
                "Questions for the external decision point by where their answer came from: hit, miss, shared or stale.",
            ),
            breaker: families.gauge(
                "nowconnect_pdp_breaker_open",
                "1 while the external decision point is not asked because it failed too often.",
            ),
        }
    }

    /// Counts a question.
    pub fn cache(&self, how: PdpCache) {
        self.cache.with_label_values(&[how.as_str()]).inc();
    }

    /// Takes the time of one question.
    pub fn took(&self, time: Duration) {
        self.seconds.observe(time.as_secs_f64());
    }

    /// Whether it is left alone.
    pub fn breaker(&self, open: bool) {
        self.breaker.set(i64::from(open));
    }
}
