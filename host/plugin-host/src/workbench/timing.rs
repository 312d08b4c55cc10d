//! The same call over and over: how long, of which how much is the instance, how much memory.

use std::time::Duration;

use super::{Case, Mounted, Workbench};
use crate::hook::CallOutcome;

/// Calls before the measurement, which warm caches and the pool.
const WARM_UP_CALLS: u32 = 20;

/// What many calls took.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Calls measured.
    pub calls: u32,
    /// From asking for a slot to the answer.
    pub total: Percentiles,
    /// The part spent making the fresh instance.
    pub instantiate: Percentiles,
    /// The rest: lowering the question, the guest's own work, lifting the answer.
    pub call: Percentiles,
    /// Largest memory of the guest over all calls.
    pub memory_peak_bytes: u64,
    /// Calls that did not answer, with why the last one did not.
    pub failed: u32,
    /// Why the last failed call failed.
    pub failure: Option<String>,
}

/// Half and nearly all of the calls took at most this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// The middle.
    pub p50: Duration,
    /// All but one in a hundred.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(index).copied().unwrap_or_default()
        };
        Self {
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}

impl Workbench {
    /// Makes the call of a case `calls` times, one after another, each in a fresh instance as
    /// in the hub. The key-value table is filled once and carried on.
    pub async fn time(&self, mounted: &Mounted, case: &Case, calls: u32) -> Timing {
        self.run(mounted, case).await;
        for _ in 1..WARM_UP_CALLS {
            self.ask(mounted, case).await;
        }
        let (mut total, mut instantiate, mut call) = (Vec::new(), Vec::new(), Vec::new());
        let (mut memory_peak_bytes, mut failed, mut failure) = (0, 0, None);
        for _ in 0..calls {
            let ran = self.ask(mounted, case).await;
            let recorded = &ran.recorded;
            total.push(recorded.took);
            instantiate.push(recorded.instantiate);
            call.push(recorded.took.saturating_sub(recorded.instantiate));
            memory_peak_bytes = recorded.memory_peak_bytes.max(memory_peak_bytes);
            if !matches!(recorded.outcome, Some(CallOutcome::Ok | CallOutcome::Deny)) {
                failed += 1;
                failure = Some(ran.answer.to_string());
            }
        }
        Timing {
            calls,
            total: Percentiles::of(total),
            instantiate: Percentiles::of(instantiate),
            call: Percentiles::of(call),
            memory_peak_bytes,
            failed,
            failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Percentiles;

    #[test]
    fn percentiles_of_a_hundred() {
        let times = (1..=100).rev().map(Duration::from_micros).collect();
        let percentiles = Percentiles::of(times);
        assert_eq!(percentiles.p50, Duration::from_micros(51));
        assert_eq!(percentiles.p99, Duration::from_micros(100));
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }
}
