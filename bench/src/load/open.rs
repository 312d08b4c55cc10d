//! Opening flows: how many a second, how long each takes, at saturation and on the clock.
//!
//! A flow counts as open when the first byte of an echo is back: the client's connect alone
//! says only that the peer's listener accepted.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::backend::Service;
use crate::clock::Ticker;
use crate::failure::{Context, Failure};
use crate::load::{EXCHANGE_DEADLINE, Latencies};
use crate::process::Meter;

/// The request that opens a flow and asks for one byte back.
const REQUEST: [u8; 2] = [Service::Echo.byte(), b'!'];

/// At most this many flows wait for their first byte in an open-loop run; one more than
/// that counts as an error, as the peer has stopped.
const MAX_PENDING: usize = 4096;

const TICKER: Token = Token(usize::MAX);

/// What an opening test saw.
#[derive(Clone, Debug)]
pub(crate) struct OpenResult {
    pub(crate) per_second: f64,
    pub(crate) latencies: Latencies,
    pub(crate) cpu_us_each: f64,
    pub(crate) errors: u64,
}

/// Opens flows one at a time, `count` of them, after a tenth as many to warm up.
pub(crate) fn run_sequential(
    target: SocketAddr,
    count: usize,
    meter: &Meter,
) -> Result<OpenResult, Failure> {
    for _ in 0..count / 10 {
        open_once(target).context(|| "open a flow".to_owned())?;
    }
    let mut latencies = Latencies::new();
    let mut errors = 0;
    let cpu_before = meter.cpu_seconds();
    let started = Instant::now();
    for _ in 0..count {
        match open_once(target) {
            Ok(latency) => latencies.record(latency),
            Err(_) => errors += 1,
        }
    }
    Ok(finish(latencies, errors, started, cpu_before, meter))
}

/// One flow opened, used for a byte and closed.
pub(crate) fn open_once(target: SocketAddr) -> io::Result<Duration> {
    let started = Instant::now();
    let mut stream = BlockingStream::connect_timeout(&target, EXCHANGE_DEADLINE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(EXCHANGE_DEADLINE))?;
    stream.write_all(&REQUEST)?;
    stream.read_exact(&mut [0u8; 1])?;
    Ok(started.elapsed())
}

fn finish(
    latencies: Latencies,
    errors: u64,
    started: Instant,
    cpu_before: f64,
    meter: &Meter,
) -> OpenResult {
    let count = latencies.count() as f64;
    OpenResult {
        per_second: count / started.elapsed().as_secs_f64(),
        cpu_us_each: (meter.cpu_seconds() - cpu_before) * 1e6 / count.max(1.0),
        latencies,
        errors,
    }
}

/// Opens flows `at_a_time` in a closed loop for `window`.
pub(crate) fn run_saturating(
    target: SocketAddr,
    at_a_time: usize,
    window: Duration,
    meter: &Meter,
) -> Result<OpenResult, Failure> {
    let mut opener = Opener::new(target)?;
    let warm_until = Instant::now() + window / 8;
    opener.saturate(at_a_time, warm_until)?;
    opener.take();
    let cpu_before = meter.cpu_seconds();
    let started = Instant::now();
    opener.saturate(at_a_time, started + window)?;
    let (latencies, errors) = opener.take();
    Ok(finish(latencies, errors, started, cpu_before, meter))
}

/// One flow of an open-loop run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedOpen {
    /// When it was to be opened.
    pub(crate) due: Instant,
    pub(crate) latency: Duration,
}

/// Opens `rate` flows a second on the clock for `window`, calling `each_second` between.
pub(crate) fn run_at_rate(
    target: SocketAddr,
    rate: u32,
    window: Duration,
    meter: &Meter,
    each_second: impl FnMut(u64) -> Result<(), Failure>,
) -> Result<OpenResult, Failure> {
    run_opener(&mut Opener::new(target)?, rate, window, meter, each_second)
}

/// The same, and keeps when each flow was due.
pub(crate) fn run_at_rate_timed(
    target: SocketAddr,
    rate: u32,
    window: Duration,
    meter: &Meter,
    into: &mut Vec<TimedOpen>,
) -> Result<OpenResult, Failure> {
    let mut opener = Opener::new(target)?;
    opener.timed = Some(Vec::new());
    let seen = run_opener(&mut opener, rate, window, meter, |_| Ok(()))?;
    into.append(&mut opener.timed.unwrap_or_default());
    Ok(seen)
}

fn run_opener(
    opener: &mut Opener,
    rate: u32,
    window: Duration,
    meter: &Meter,
    mut each_second: impl FnMut(u64) -> Result<(), Failure>,
) -> Result<OpenResult, Failure> {
    let interval = Duration::from_secs(1) / rate;
    let cpu_before = meter.cpu_seconds();
    // Before the timer is set: a tick must not come ahead of the moment that it stands for.
    let started = Instant::now();
    let ticker = Ticker::every(interval)?;
    opener
        .poll
        .registry()
        .register(&mut SourceFd(&ticker.raw_fd()), TICKER, Interest::READABLE)?;
    let mut due = started;
    let mut second = 0;
    while started.elapsed() < window {
        for _ in 0..ticker.expirations() {
            due += interval;
            opener.open(due);
        }
        if started.elapsed().as_secs() > second {
            second += 1;
            each_second(second)?;
        }
        opener.turn(Duration::from_millis(20))?;
    }
    let drain_until = Instant::now() + EXCHANGE_DEADLINE;
    while opener.pending > 0 && Instant::now() < drain_until {
        opener.turn(Duration::from_millis(20))?;
    }
    let (latencies, mut errors) = opener.take();
    errors += opener.pending as u64;
    Ok(finish(latencies, errors, started, cpu_before, meter))
}

struct Opening {
    stream: TcpStream,
    due: Instant,
    asked: bool,
}

/// The event loop of many openings.
pub(crate) struct Opener {
    target: SocketAddr,
    poll: Poll,
    events: Events,
    slots: Vec<Option<Opening>>,
    free: Vec<usize>,
    pending: usize,
    latencies: Latencies,
    /// Each flow, where it is asked for.
    timed: Option<Vec<TimedOpen>>,
    errors: u64,
}

impl Opener {
    fn new(target: SocketAddr) -> Result<Self, Failure> {
        Ok(Self {
            target,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            slots: Vec::new(),
            free: Vec::new(),
            pending: 0,
            latencies: Latencies::new(),
            timed: None,
            errors: 0,
        })
    }

    fn take(&mut self) -> (Latencies, u64) {
        let latencies = std::mem::replace(&mut self.latencies, Latencies::new());
        (latencies, std::mem::take(&mut self.errors))
    }

    fn saturate(&mut self, at_a_time: usize, until: Instant) -> Result<(), Failure> {
        let mut failed_in_a_row = 0;
        while Instant::now() < until {
            let errors = self.errors;
            while self.pending < at_a_time && self.errors == errors {
                self.open(Instant::now());
            }
            let answered = self.latencies.count();
            self.turn(EXCHANGE_DEADLINE)?;
            let stuck = self.latencies.count() == answered && self.errors > errors;
            failed_in_a_row = if stuck { failed_in_a_row + 1 } else { 0 };
            if failed_in_a_row > 1000 {
                return Err(Failure::new("a thousand openings in a row failed"));
            }
        }
        Ok(())
    }

    /// Starts one flow that was due at `due`.
    fn open(&mut self, due: Instant) {
        if self.pending >= MAX_PENDING {
            self.errors += 1;
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let opening = TcpStream::connect(self.target).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(slot), interest)?;
            let mut opening = Opening {
                stream,
                due,
                asked: false,
            };
            opening.ask()?;
            Ok(opening)
        });
        match opening {
            Ok(opening) => {
                self.slots[slot] = Some(opening);
                self.pending += 1;
            }
            Err(_) => {
                self.errors += 1;
                self.free.push(slot);
            }
        }
    }

    /// Waits for events up to `timeout` and acts on them.
    fn turn(&mut self, timeout: Duration) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let slot = event.token().0;
            let Some(Some(opening)) = self.slots.get_mut(slot) else {
                continue;
            };
            let done = match opening.advance() {
                Ok(false) => continue,
                Ok(true) => {
                    let (due, latency) = (opening.due, opening.due.elapsed());
                    self.latencies.record(latency);
                    if let Some(timed) = &mut self.timed {
                        timed.push(TimedOpen { due, latency });
                    }
                    true
                }
                Err(_) => false,
            };
            self.errors += u64::from(!done);
            self.slots[slot] = None;
            self.free.push(slot);
            self.pending -= 1;
        }
        Ok(())
    }
}

impl Opening {
    /// Sends the request once the socket is connected. Over loopback it nearly always is at
    /// once, which saves a wake-up.
    fn ask(&mut self) -> io::Result<()> {
        match self.stream.write(&REQUEST) {
            Ok(length) if length == REQUEST.len() => {
                self.asked = true;
                Ok(())
            }
            Ok(_) => Err(io::Error::from(io::ErrorKind::WriteZero)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the flow's first byte is here.
    fn advance(&mut self) -> io::Result<bool> {
        if !self.asked {
            self.ask()?;
            if !self.asked {
                return Ok(false);
            }
        }
        match self.stream.read(&mut [0u8; 8]) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}
