//! Bulk: as many bytes as go, over a number of flows, one way or both.
//!
//! Rates come from the receiving end between two moments after a warm-up: from the client's
//! own counters downwards, from the backend's sink counter upwards. CPU time is read at the
//! same two moments.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::backend::{BULK_BYTES, Service};
use crate::failure::{Context, Failure};
use crate::load::connect;
use crate::process::Meter;

/// Which way the bytes go, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Direction {
    Down,
    Up,
    /// Half of the flows each way.
    Both,
}

/// One bulk test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BulkSpec {
    pub(crate) flows: usize,
    pub(crate) direction: Direction,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
}

/// What a bulk test saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BulkResult {
    pub(crate) mb_per_s: f64,
    pub(crate) cpu_s_per_gb: f64,
}

/// Loads `target` as `spec` says. `backend` is the backend's own address, asked for what
/// arrived at its sinks.
pub(crate) fn run(
    target: SocketAddr,
    backend: SocketAddr,
    spec: BulkSpec,
    meter: &Meter,
) -> Result<BulkResult, Failure> {
    let flows = BulkFlows::start(target, backend, spec.flows, spec.direction)?;
    thread::sleep(spec.warm_up);
    let measured = flows.measure(spec.window, meter)?;
    flows.stop();
    if measured.mb_per_s <= 0.0 {
        return Err(Failure::new("no byte arrived in the whole window"));
    }
    Ok(measured)
}

/// Running bulk flows. Dropping them ends them; [`BulkFlows::stop`] also waits.
#[derive(Debug)]
pub(crate) struct BulkFlows {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    counter: TcpStream,
    streams: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl BulkFlows {
    pub(crate) fn start(
        target: SocketAddr,
        backend: SocketAddr,
        flows: usize,
        direction: Direction,
    ) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let counter = connect(backend, Service::Count).context(|| "ask the backend".to_owned())?;
        let mut running = Self {
            stop: Arc::clone(&stop),
            received: Arc::clone(&received),
            counter,
            streams: Vec::new(),
            threads: Vec::new(),
        };
        for number in 0..flows {
            let down = match direction {
                Direction::Down => true,
                Direction::Up => false,
                Direction::Both => number % 2 == 0,
            };
            let service = if down { Service::Source } else { Service::Sink };
            let stream =
                connect(target, service).context(|| format!("connect bulk flow {number}"))?;
            running.streams.push(stream.try_clone()?);
            let stop = Arc::clone(&stop);
            let received = Arc::clone(&received);
            running.threads.push(thread::spawn(move || {
                // A flow cut short shows in the rate.
                let _ = if down {
                    pull(stream, &stop, &received)
                } else {
                    push(stream, &stop)
                };
            }));
        }
        Ok(running)
    }

    /// Rate and CPU cost over the next `window`.
    pub(crate) fn measure(&self, window: Duration, meter: &Meter) -> Result<BulkResult, Failure> {
        let (bytes_before, cpu_before) = (self.bytes()?, meter.cpu_seconds());
        let started = Instant::now();
        thread::sleep(window);
        let (bytes_after, cpu_after) = (self.bytes()?, meter.cpu_seconds());
        let seconds = started.elapsed().as_secs_f64();
        let bytes = (bytes_after - bytes_before) as f64;
        Ok(BulkResult {
            mb_per_s: bytes / 1e6 / seconds,
            cpu_s_per_gb: if bytes > 0.0 {
                (cpu_after - cpu_before) / (bytes / 1e9)
            } else {
                f64::NAN
            },
        })
    }

    /// Bytes received so far at both ends.
    pub(crate) fn bytes(&self) -> Result<u64, Failure> {
        let mut counter = &self.counter;
        counter.write_all(b"?")?;
        let mut sunk = [0u8; 8];
        counter
            .read_exact(&mut sunk)
            .context(|| "read the backend's count".to_owned())?;
        Ok(u64::from_be_bytes(sunk) + self.received.load(Ordering::Relaxed))
    }

    pub(crate) fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for BulkFlows {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Ends reads and writes that would block for ever beside a stalled peer.
        for stream in &self.streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pull(mut stream: TcpStream, stop: &AtomicBool, received: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0u8; BULK_BYTES];
    while !stop.load(Ordering::Relaxed) {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Writes until told to stop, then waits for the sink's count: after that, nothing of this
/// flow is left in any buffer to burden the next test.
fn push(mut stream: TcpStream, stop: &AtomicBool) -> io::Result<()> {
    let zeros = vec![0u8; BULK_BYTES];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&zeros)?;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0u8; 8])
}
