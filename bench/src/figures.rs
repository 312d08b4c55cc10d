//! The tests of a run: what each does to a peer and which figures it yields.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::failure::Failure;
use crate::load::bulk::{BulkFlows, BulkSpec, Direction};
use crate::load::idle::StalledFlows;
use crate::load::{beside, bulk, idle, open, ping};
use crate::peers::RunningPeer;

/// Figures by name, such as `down16.mb_s`.
pub(crate) type Figures = BTreeMap<String, f64>;

/// How long tests last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    /// Window of the tests that need a tail: small flows beside others.
    pub(crate) tail_window: Duration,
    pub(crate) sequential_opens: usize,
}

impl Pace {
    pub(crate) const QUICK: Self = Self {
        warm_up: Duration::from_millis(250),
        window: Duration::from_millis(500),
        tail_window: Duration::from_millis(800),
        sequential_opens: 300,
    };
    pub(crate) const FULL: Self = Self {
        warm_up: Duration::from_millis(400),
        window: Duration::from_millis(1000),
        tail_window: Duration::from_millis(2000),
        sequential_opens: 1000,
    };
}

/// One test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Bulk { flows: usize, direction: Direction },
    OpenSaturating,
    OpenSequential,
    Ping { flows: usize },
    Beside(Direction),
    BesideStalled,
    Idle { flows: usize },
    Stalled,
    Far { round_trip_ms: u64 },
}

/// Flows in the tests with stalled readers.
const STALLED_FLOWS: usize = 64;

impl Test {
    /// The tests of a run, in order.
    pub(crate) fn all(quick: bool) -> Vec<Self> {
        use Direction::{Both, Down, Up};

        let bulk = |flows, direction| Self::Bulk { flows, direction };
        let mut tests = vec![
            bulk(1, Down),
            bulk(1, Up),
            bulk(16, Down),
            bulk(16, Up),
            bulk(64, Down),
            bulk(64, Both),
            Self::OpenSaturating,
            Self::OpenSequential,
            Self::Ping { flows: 1 },
            Self::Ping { flows: 256 },
            Self::Beside(Down),
            Self::Beside(Up),
            Self::BesideStalled,
            Self::Stalled,
            Self::Idle { flows: 1000 },
            Self::Idle { flows: 9000 },
            Self::Far { round_trip_ms: 50 },
            Self::Far { round_trip_ms: 100 },
            Self::Far { round_trip_ms: 200 },
        ];
        if !quick {
            tests.insert(5, bulk(64, Up));
            tests.insert(5, bulk(16, Both));
        }
        tests
    }

    /// What figure names start with.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Bulk { flows, direction } => {
                let way = match direction {
                    Direction::Down => "down",
                    Direction::Up => "up",
                    Direction::Both => "both",
                };
                format!("{way}{flows}")
            }
            Self::OpenSaturating => "conn16".to_owned(),
            Self::OpenSequential => "open".to_owned(),
            Self::Ping { flows } => format!("ping{flows}"),
            Self::Beside(Direction::Down) => "beside_down".to_owned(),
            Self::Beside(Direction::Up) => "beside_up".to_owned(),
            Self::Beside(Direction::Both) => "beside_both".to_owned(),
            Self::BesideStalled => "beside_stalled".to_owned(),
            Self::Idle { flows } => format!("idle{flows}"),
            Self::Stalled => format!("stalled{STALLED_FLOWS}"),
            Self::Far { round_trip_ms } => format!("far{round_trip_ms}"),
        }
    }

    /// Whether the test needs a peer that carried nothing before: memory tests, as freed
    /// memory is reused before it shows, and far ones, whose link is their own.
    pub(crate) const fn wants_fresh_peer(self) -> bool {
        match self {
            Self::Idle { .. } | Self::Stalled | Self::Far { .. } => true,
            Self::Bulk { .. }
            | Self::OpenSaturating
            | Self::OpenSequential
            | Self::Ping { .. }
            | Self::Beside(_)
            | Self::BesideStalled => false,
        }
    }

    pub(crate) const fn round_trip(self) -> Option<Duration> {
        match self {
            Self::Far { round_trip_ms } => Some(Duration::from_millis(round_trip_ms)),
            Self::Bulk { .. }
            | Self::OpenSaturating
            | Self::OpenSequential
            | Self::Ping { .. }
            | Self::Beside(_)
            | Self::BesideStalled
            | Self::Idle { .. }
            | Self::Stalled => None,
        }
    }

    /// Runs the test on a peer in front of `backend`.
    pub(crate) fn run(
        self,
        peer: &RunningPeer,
        backend: std::net::SocketAddr,
        pace: Pace,
    ) -> Result<Figures, Failure> {
        let (target, meter) = (peer.listener, &peer.meter);
        let figures = match self {
            Self::Bulk { flows, direction } => {
                let spec = BulkSpec {
                    flows,
                    direction,
                    warm_up: pace.warm_up,
                    window: pace.window,
                };
                let seen = bulk::run(target, backend, spec, meter)?;
                vec![("mb_s", seen.mb_per_s), ("cpu_s_gb", seen.cpu_s_per_gb)]
            }
            Self::OpenSaturating => {
                let seen = open::run_saturating(target, 16, pace.window, meter)?;
                vec![
                    ("per_s", seen.per_second),
                    ("p50_us", seen.latencies.micros(0.5)),
                    ("p99_us", seen.latencies.micros(0.99)),
                    ("cpu_us", seen.cpu_us_each),
                    ("errors", seen.errors as f64),
                ]
            }
            Self::OpenSequential => {
                let seen = open::run_sequential(target, pace.sequential_opens, meter)?;
                vec![
                    ("p50_us", seen.latencies.micros(0.5)),
                    ("p99_us", seen.latencies.micros(0.99)),
                    ("cpu_us", seen.cpu_us_each),
                    ("errors", seen.errors as f64),
                ]
            }
            Self::Ping { flows } => {
                let seen = ping::run(target, flows, pace.window, meter)?;
                vec![
                    ("per_s", seen.per_second),
                    ("p50_us", seen.latencies.micros(0.5)),
                    ("p99_us", seen.latencies.micros(0.99)),
                    ("cpu_us", seen.cpu_us_each),
                ]
            }
            Self::Beside(direction) => run_beside(peer, backend, direction, pace)?,
            Self::BesideStalled => run_beside_stalled(peer, pace)?,
            Self::Idle { flows } => {
                let seen = idle::run(target, flows, meter)?;
                vec![
                    ("kb", seen.kb_each),
                    ("open_s", seen.open_s),
                    ("cpu_percent", seen.cpu_percent),
                ]
            }
            Self::Stalled => vec![("kb", idle::run_stalled(target, STALLED_FLOWS, meter)?)],
            Self::Far { round_trip_ms } => run_far(peer, backend, round_trip_ms)?,
        };
        let prefix = self.name();
        Ok(figures
            .into_iter()
            .map(|(name, value)| (format!("{prefix}.{name}"), value))
            .collect())
    }
}

fn run_beside(
    peer: &RunningPeer,
    backend: std::net::SocketAddr,
    direction: Direction,
    pace: Pace,
) -> Result<Vec<(&'static str, f64)>, Failure> {
    let flows = BulkFlows::start(peer.listener, backend, 1, direction)?;
    std::thread::sleep(pace.warm_up);
    let (before, started) = (flows.bytes()?, std::time::Instant::now());
    let seen = beside::run(peer.listener, pace.tail_window)?;
    let bulk_bytes = (flows.bytes()? - before) as f64;
    let bulk_seconds = started.elapsed().as_secs_f64();
    flows.stop();
    Ok(vec![
        ("p50_us", seen.ping.micros(0.5)),
        ("p99_us", seen.ping.micros(0.99)),
        ("fresh_p50_us", seen.fresh.micros(0.5)),
        ("fresh_p99_us", seen.fresh.micros(0.99)),
        ("late_p99_us", seen.late.micros(0.99)),
        ("bulk_mb_s", bulk_bytes / 1e6 / bulk_seconds),
        ("errors", seen.errors as f64),
    ])
}

fn run_beside_stalled(peer: &RunningPeer, pace: Pace) -> Result<Vec<(&'static str, f64)>, Failure> {
    let quiet = beside::run(peer.listener, pace.tail_window)?;
    let stalled = StalledFlows::start(peer.listener, STALLED_FLOWS)?;
    let seen = beside::run(peer.listener, pace.tail_window)?;
    drop(stalled);
    Ok(vec![
        ("p50_us", seen.ping.micros(0.5)),
        ("p99_us", seen.ping.micros(0.99)),
        ("fresh_p50_us", seen.fresh.micros(0.5)),
        ("quiet_p50_us", quiet.ping.micros(0.5)),
        ("quiet_p99_us", quiet.ping.micros(0.99)),
        ("p50_change", seen.ping.micros(0.5) / quiet.ping.micros(0.5)),
        (
            "fresh_p50_change",
            seen.fresh.micros(0.5) / quiet.fresh.micros(0.5),
        ),
        ("errors", (seen.errors + quiet.errors) as f64),
    ])
}

/// One bulk flow each way. Windows that grow take some round trips to do so: the warm-up is
/// 20 of them, at least two seconds.
fn run_far(
    peer: &RunningPeer,
    backend: std::net::SocketAddr,
    round_trip_ms: u64,
) -> Result<Vec<(&'static str, f64)>, Failure> {
    let mut figures = Vec::new();
    for (name, direction) in [("down_mb_s", Direction::Down), ("up_mb_s", Direction::Up)] {
        let spec = BulkSpec {
            flows: 1,
            direction,
            warm_up: Duration::from_millis((round_trip_ms * 20).max(2000)),
            window: Duration::from_millis((round_trip_ms * 10).max(1500)),
        };
        let seen = bulk::run(peer.listener, backend, spec, &peer.meter)?;
        figures.push((name, seen.mb_per_s));
    }
    Ok(figures)
}
