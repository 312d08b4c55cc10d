//! Memory: what a flow costs a peer that only holds it, and one whose reader has stopped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::Service;
use crate::failure::{Context, Failure};
use crate::load::connect;
use crate::machine::tcp_buffer_pages;
use crate::process::Meter;

/// Threads that open idle flows at the same time.
const OPENERS: usize = 16;

/// How long a peer's memory is left to settle before it is read.
const SETTLE: Duration = Duration::from_millis(800);

/// The same for stalled flows: what is asked is what a stall costs as long as it lasts, and
/// peers give memory back on timers of a second.
const STALLED_SETTLE: Duration = Duration::from_millis(2500);

/// How long stalled flows may take to fill every buffer.
const FILL_DEADLINE: Duration = Duration::from_secs(15);

/// Changes below this are other traffic: 1 MiB.
const STILL_PAGES: u64 = 256;

/// What an idle test saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleResult {
    pub(crate) open_s: f64,
    pub(crate) kb_each: f64,
    pub(crate) cpu_percent: f64,
}

/// Opens `count` flows, proves each by an echo and leaves them idle.
pub(crate) fn run(target: SocketAddr, count: usize, meter: &Meter) -> Result<IdleResult, Failure> {
    let before_kb = meter.resident_kb();
    let started = Instant::now();
    let mut flows = open_many(target, count)?;
    let open_s = started.elapsed().as_secs_f64();
    thread::sleep(SETTLE);
    let after_kb = meter.resident_kb();
    let cpu_before = meter.cpu_seconds();
    thread::sleep(Duration::from_secs(1));
    let cpu_percent = (meter.cpu_seconds() - cpu_before) * 100.0;
    // A flow that was dropped to save memory must not count as held.
    for flow in flows.iter_mut().step_by(97) {
        echo(flow).context(|| "an idle flow did not answer".to_owned())?;
    }
    Ok(IdleResult {
        open_s,
        kb_each: (after_kb as f64 - before_kb as f64) / count as f64,
        cpu_percent,
    })
}

fn open_many(target: SocketAddr, count: usize) -> Result<Vec<TcpStream>, Failure> {
    let openers: Vec<_> = (0..OPENERS)
        .map(|opener| {
            let share = count / OPENERS + usize::from(opener < count % OPENERS);
            thread::spawn(move || -> Result<Vec<TcpStream>, Failure> {
                let mut flows = Vec::with_capacity(share);
                for number in 0..share {
                    let mut flow = connect(target, Service::Echo)
                        .context(|| format!("open idle flow {number} of {share}"))?;
                    echo(&mut flow).context(|| format!("echo on idle flow {number}"))?;
                    flows.push(flow);
                }
                Ok(flows)
            })
        })
        .collect();
    let mut flows = Vec::with_capacity(count);
    for opener in openers {
        let opened = opener
            .join()
            .map_err(|_| Failure::new("a thread that opens flows panicked"))?;
        flows.extend(opened?);
    }
    Ok(flows)
}

fn echo(flow: &mut TcpStream) -> std::io::Result<()> {
    flow.write_all(b"!")?;
    flow.read_exact(&mut [0u8; 1])
}

/// Flows of a pushing source whose client reads nothing. Dropping them ends them.
#[derive(Debug)]
pub(crate) struct StalledFlows(Vec<TcpStream>);

impl StalledFlows {
    /// Opens `count` of them and waits until every buffer on the way is full.
    pub(crate) fn start(target: SocketAddr, count: usize) -> Result<Self, Failure> {
        let mut flows = Vec::with_capacity(count);
        for number in 0..count {
            let flow = connect(target, Service::Source)
                .context(|| format!("open stalled flow {number}"))?;
            flows.push(flow);
        }
        wait_until_full();
        Ok(Self(flows))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// Waits until no kernel buffer of this machine grows any more: 64 sources fill some hundred
/// megabytes on their way.
fn wait_until_full() {
    let deadline = Instant::now() + FILL_DEADLINE;
    let (mut pages, mut since) = (tcp_buffer_pages(), Instant::now());
    while since.elapsed() < SETTLE && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
        let now = tcp_buffer_pages();
        if now.abs_diff(pages) > STILL_PAGES {
            (pages, since) = (now, Instant::now());
        }
    }
}

/// Kilobytes a peer holds for each of `count` stalled flows.
pub(crate) fn run_stalled(target: SocketAddr, count: usize, meter: &Meter) -> Result<f64, Failure> {
    let before_kb = meter.resident_kb();
    let flows = StalledFlows::start(target, count)?;
    thread::sleep(STALLED_SETTLE);
    let after_kb = meter.resident_kb();
    Ok((after_kb as f64 - before_kb as f64) / flows.count() as f64)
}
