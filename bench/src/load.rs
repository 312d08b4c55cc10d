//! The load generator: one module per figure, all against one address.
//!
//! Where a figure is a rate that saturates, the load is a closed loop with a stated number
//! at a time. Where a rate is given, the load is open: it goes out on the clock whether or
//! not answers came, and an answer's latency counts from when its request was due to leave
//! the generator, so that a stall of the peer shows in every request it held up.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::backend::Service;

pub(crate) mod beside;
pub(crate) mod bulk;
pub(crate) mod idle;
pub(crate) mod open;
pub(crate) mod ping;

/// How long one small exchange may take before it counts as an error.
pub(crate) const EXCHANGE_DEADLINE: Duration = Duration::from_secs(5);

/// Latencies of one test.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        // 1 ns to 60 s to three digits: 40 to 60 KB per histogram.
        Self(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds are valid constants"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos.max(1));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Microseconds below which `quantile` (0 to 1) of the latencies lie.
    pub(crate) fn micros(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    pub(crate) fn mean_micros(&self) -> f64 {
        self.0.mean() / 1e3
    }

    pub(crate) fn max_micros(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }

    pub(crate) fn summary(&self) -> LatencySummary {
        LatencySummary {
            count: self.count(),
            p50_us: self.micros(0.5),
            p90_us: self.micros(0.9),
            p99_us: self.micros(0.99),
            max_us: self.max_micros(),
        }
    }
}

/// Latencies as printed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct LatencySummary {
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// A blocking connection that has asked for `service`.
pub(crate) fn connect(target: SocketAddr, service: Service) -> io::Result<TcpStream> {
    use std::io::Write;

    let mut stream = TcpStream::connect_timeout(&target, EXCHANGE_DEADLINE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(EXCHANGE_DEADLINE))?;
    stream.write_all(&[service.byte()])?;
    Ok(stream)
}
