//! What the decision log costs at full load: decisions a second, what is dropped, and the time
//! that one decision spends in it.
//!
//! `cargo bench -p nowconnect --bench decision_log` prints a table. Threads record as fast as they
//! can, which is far more than a hub decides, so that the queue is full all the time.
#![expect(clippy::print_stdout, reason = "a measurement prints its table")]
#![expect(clippy::unwrap_used, reason = "a measurement fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use nowconnect::telemetry::DecisionLog;
use nowconnect::telemetry::decisions::log::{
    DecisionLogSettings, DecisionOutput, DecisionSinks, WhenFull,
};
use nowconnect::telemetry::decisions::{
    DecisionAction, DecisionIds, DecisionRecord, DecisionRing, PolicyAnswer, Why,
};
use nowconnect::telemetry::metrics::Metrics;
use nowconnect::telemetry::redact::Covers;

const THREADS: usize = 2;
const TIME: Duration = Duration::from_secs(2);

fn main() {
    println!(
        "{:<28} {:>12} {:>12} {:>10} {:>10} {:>9}",
        "decision log", "decided/s", "written/s", "dropped", "p50", "p99"
    );
    measure("none", None);
    let kinds = [
        ("file, drop_new", WhenFull::DropNew),
        ("file, drop_old", WhenFull::DropOld),
        (
            "file, block 100 ms",
            WhenFull::Block(Duration::from_millis(100)),
        ),
    ];
    for (name, when_full) in kinds {
        measure(name, Some((when_full, 1.0)));
    }
    measure("file, a tenth of allows", Some((WhenFull::DropNew, 0.1)));
}

fn measure(name: &str, kind: Option<(WhenFull, f64)>) {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let sinks = kind.map(|(when_full, sample_allows)| {
        let settings = DecisionLogSettings {
            output: Some(DecisionOutput::File(dir.path().join("decisions.jsonl"))),
            collector: None,
            queue_bytes: 8 << 20,
            when_full,
            sample_allows,
            deny_burst: 20,
            context: Vec::new(),
            covers: Covers::default(),
        };
        let started = DecisionSinks::start(&settings, None, &metrics).unwrap();
        Arc::new(started.unwrap())
    });
    let ring = Arc::new(DecisionRing::default());
    let log = DecisionLog::new(Arc::clone(&metrics), ring, None).with_sinks(sinks.clone());
    let ids = Arc::new(DecisionIds::new(1));
    let started = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (log, ids) = (log.clone(), Arc::clone(&ids));
            std::thread::spawn(move || decide(&log, &ids))
        })
        .collect();
    let mut times: Vec<u64> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    let seconds = started.elapsed().as_secs_f64();
    if let Some(sinks) = &sinks {
        sinks.shutdown(Duration::from_secs(10));
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    let text = metrics.render();
    println!(
        "{name:<28} {:>12.0} {:>12.0} {:>10} {:>7} ns {:>6} ns",
        times.len() as f64 / seconds,
        sum(&text, "nowconnect_decision_log_lines_total") as f64 / seconds,
        sum(&text, "nowconnect_decision_log_dropped_total"),
        at(50),
        at(99),
    );
}

/// Records until the time is over; what each took, in nanoseconds.
fn decide(log: &DecisionLog, ids: &DecisionIds) -> Vec<u64> {
    let until = Instant::now() + TIME;
    let mut times = Vec::new();
    loop {
        let record = record(ids);
        let started = Instant::now();
        log.record(record);
        let ended = Instant::now();
        let nanos = ended.duration_since(started).as_nanos();
        times.push(u64::try_from(nanos).unwrap_or(u64::MAX));
        if ended > until {
            return times;
        }
    }
}

fn record(ids: &DecisionIds) -> DecisionRecord {
    let mut record = DecisionRecord::new(
        ids.next_id(),
        1_700_000_000_000,
        Arc::from("hub"),
        1,
        DecisionAction::Open,
        (true, Why::Permitted),
    );
    record.principal = "Viewer::\"anonymous\"".to_owned();
    record.resource = "Connector::\"ldap\"".to_owned();
    record.client = Some("192.0.2.7:4711".parse().unwrap());
    record.policies = vec![PolicyAnswer {
        id: Arc::from("open-own-tenant"),
        place: Some(Arc::from("policies/open.cedar:5")),
        error: None,
        advice: None,
    }];
    record
}

/// Of all series of a family.
fn sum(text: &str, family: &str) -> u64 {
    text.lines()
        .filter(|line| line.starts_with(family))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
