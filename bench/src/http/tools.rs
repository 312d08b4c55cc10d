//! `wrk` and `h2load`: run, and what they say read.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::failure::{Context, Failure};
use crate::load::Latencies;
use crate::peers::run_tool_output;

/// Threads of the load; the machine's other half is left to what is measured.
const THREADS: u32 = 1;

/// Streams at once on a connection of HTTP/2.
const STREAMS: u32 = 1;

/// What a run of a tool saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) requests: f64,
    pub(super) per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) errors: f64,
}

/// HTTP/1.1 in the clear, a request at a time on each connection.
pub(super) fn run_wrk(
    wrk: &Path,
    port: u16,
    file: &str,
    connections: u32,
    window: Duration,
) -> Result<Seen, Failure> {
    let output = run_tool_output(
        Command::new(wrk)
            .args(["--latency", "-H", "Host: localhost"])
            .args(["-t", &THREADS.to_string()])
            .args(["-c", &connections.to_string()])
            .args(["-d", &format!("{}s", window.as_secs().max(1))])
            .arg(format!("http://127.0.0.1:{port}/{file}")),
    )?;
    read_wrk(&output).context(|| format!("`wrk` said:\n{output}"))
}

fn read_wrk(text: &str) -> Option<Seen> {
    let after = |label: &str| -> Option<&str> {
        let line = text
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with(label))?;
        line[label.len()..].split_whitespace().next()
    };
    let requests = text
        .lines()
        .map(str::trim)
        .find(|line| line.contains(" requests in "))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    // Both lines are there only where something failed.
    let mut errors = 0.0;
    for line in text.lines().map(str::trim) {
        if line.starts_with("Socket errors:") || line.starts_with("Non-2xx or 3xx responses:") {
            errors += line
                .split(|character: char| !character.is_ascii_digit())
                .filter_map(|number| number.parse::<f64>().ok())
                .sum::<f64>();
            if line.starts_with("Non-2xx") {
                // The label itself has a 2 and a 3.
                errors -= 5.0;
            }
        }
    }
    Some(Seen {
        requests,
        per_s: after("Requests/sec:")?.parse().ok()?,
        p50_us: micros(after("50%")?)?,
        p99_us: micros(after("99%")?)?,
        errors,
    })
}

/// `wrk` writes times as `12.30us`, `1.20ms`, `1.20s` and `1.00m`.
fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)];
    units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    })
}

/// HTTP/2 over TLS, a request at a time on each connection.
pub(super) fn run_h2load(
    h2load: &Path,
    port: u16,
    file: &str,
    connections: u32,
    window: Duration,
) -> Result<Seen, Failure> {
    let log = std::env::temp_dir().join(format!("nowconnect-h2load-{}", std::process::id()));
    let run = run_tool_output(
        Command::new(h2load)
            .args(["-t", &THREADS.to_string()])
            .args(["-c", &connections.to_string()])
            .args(["-m", &STREAMS.to_string()])
            .args(["-D", &window.as_secs().max(1).to_string()])
            .arg(format!("--log-file={}", log.display()))
            .arg(format!("--connect-to=127.0.0.1:{port}"))
            .arg(format!("https://localhost:{port}/{file}")),
    );
    let requests = std::fs::read_to_string(&log);
    let _ = std::fs::remove_file(&log);
    let output = run?;
    let requests = requests.context(|| format!("read {}", log.display()))?;
    read_h2load(&output, &requests, window).context(|| format!("`h2load` said:\n{output}"))
}

/// Its summary has no percentiles, so the log of its requests is read: start, status and
/// microseconds, parted by tabs.
fn read_h2load(summary: &str, requests: &str, window: Duration) -> Option<Seen> {
    let line = summary.lines().find(|line| line.starts_with("requests:"))?;
    let failed = |what: &str| -> Option<f64> {
        let before = line.split(what).next()?.trim_end();
        before.rsplit([' ', ',']).next()?.parse().ok()
    };
    let mut latencies = Latencies::new();
    let mut refused = 0.0;
    for request in requests.lines() {
        let mut fields = request.split('\t').skip(1);
        let status: u32 = fields.next()?.parse().ok()?;
        let micros: u64 = fields.next()?.parse().ok()?;
        if status == 200 {
            latencies.record(Duration::from_micros(micros));
        } else {
            refused += 1.0;
        }
    }
    let count = latencies.count() as f64;
    // What ran out with the window is counted by it as neither.
    Some(Seen {
        requests: count,
        per_s: count / window.as_secs_f64(),
        p50_us: latencies.micros(0.5),
        p99_us: latencies.micros(0.99),
        errors: refused + failed(" failed")? + failed(" timeout")?,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let text = "Running 3s test @ http://127.0.0.1:8080/1k\n  1 threads and 64 connections\n  \
                    Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
                    Latency     1.10ms  250.00us   9.00ms   80.00%\n    Req/Sec    50.00k     \
                    1.00k   52.00k    70.00%\n  Latency Distribution\n     50%    1.05ms\n     \
                    75%    1.20ms\n     90%    1.50ms\n     99%  980.00us\n  150000 requests in \
                    3.00s, 180.00MB read\n  Socket errors: connect 0, read 3, write 0, timeout 1\n  \
                    Non-2xx or 3xx responses: 7\nRequests/sec:  49999.50\nTransfer/sec:     60.00MB\n";
        assert_eq!(
            read_wrk(text).unwrap(),
            Seen {
                requests: 150_000.0,
                per_s: 49_999.5,
                p50_us: 1_050.0,
                p99_us: 980.0,
                errors: 11.0,
            }
        );
        assert!(read_wrk("unable to connect to 127.0.0.1:1 Connection refused").is_none());
    }

    #[test]
    fn what_h2load_says_is_read() {
        let summary = "starting benchmark...\nfinished in 1.00s, 3.00 req/s, 3.1KB/s\nrequests: 4 \
                       total, 5 started, 4 done, 3 succeeded, 1 failed, 0 errored, 0 timeout\n";
        let requests = "1000\t200\t100\n1200\t200\t300\n1300\t503\t5\n1400\t200\t200\n";
        let seen = read_h2load(summary, requests, Duration::from_secs(1)).unwrap();
        assert!((seen.requests - 3.0).abs() < f64::EPSILON);
        assert!((seen.errors - 2.0).abs() < f64::EPSILON, "{seen:?}");
        assert!((199.0..=201.0).contains(&seen.p50_us), "{seen:?}");
    }
}
