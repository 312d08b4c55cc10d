//! A small flow beside others: pings every millisecond and fresh flows every ten, on the
//! clock, while the peer is busy with something else.
//!
//! A ping is stamped when it is due to be written, not when an earlier one was answered,
//! and a full socket does not hold the clock up: pings that cannot be written queue with
//! their stamps. How late the generator itself woke is reported beside the latencies, for
//! on a machine as busy as this test makes it that is not nothing.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::backend::Service;
use crate::clock::Ticker;
use crate::failure::Failure;
use crate::load::ping::PING_BYTES;
use crate::load::{EXCHANGE_DEADLINE, Latencies, connect};

const PING_INTERVAL: Duration = Duration::from_millis(1);

/// A fresh flow is opened at every this many pings.
const PINGS_PER_FRESH: u64 = 10;

/// Pings in flight before the run is given up: ten seconds' worth.
const MAX_IN_FLIGHT: usize = 10_000;

const TICKER: Token = Token(0);
const PINGED: Token = Token(1);
const FRESH: usize = 2;

/// What the small flows saw.
#[derive(Clone, Debug)]
pub(crate) struct BesideResult {
    pub(crate) ping: Latencies,
    pub(crate) fresh: Latencies,
    /// How late the generator woke for its pings.
    pub(crate) late: Latencies,
    pub(crate) errors: u64,
}

/// Pings and opens for `window`; the caller keeps the peer busy meanwhile.
pub(crate) fn run(target: SocketAddr, window: Duration) -> Result<BesideResult, Failure> {
    let mut small = SmallLoad::new(target)?;
    let started = Instant::now();
    let ticker = Ticker::every(PING_INTERVAL)?;
    small
        .poll
        .registry()
        .register(&mut SourceFd(&ticker.raw_fd()), TICKER, Interest::READABLE)?;
    let mut due = started;
    let mut ticks = 0u64;
    while started.elapsed() < window {
        small.turn(EXCHANGE_DEADLINE)?;
        let now = Instant::now();
        for _ in 0..ticker.expirations() {
            due += PING_INTERVAL;
            ticks += 1;
            small.result.late.record(now.saturating_duration_since(due));
            small.ping(now)?;
            if ticks.is_multiple_of(PINGS_PER_FRESH) {
                small.open(now);
            }
        }
    }
    let deadline = Instant::now() + EXCHANGE_DEADLINE;
    while small.is_waiting() && Instant::now() < deadline {
        small.turn(Duration::from_millis(50))?;
    }
    small.result.errors += small.in_flight.len() as u64;
    small.result.errors += small.fresh.iter().flatten().count() as u64;
    Ok(small.result)
}

struct Fresh {
    stream: TcpStream,
    since: Instant,
    asked: bool,
}

struct SmallLoad {
    target: SocketAddr,
    poll: Poll,
    events: Events,
    pinged: TcpStream,
    /// When each unanswered ping was due, oldest first.
    in_flight: VecDeque<Instant>,
    unwritten: VecDeque<u8>,
    partial: usize,
    fresh: Vec<Option<Fresh>>,
    result: BesideResult,
}

impl SmallLoad {
    fn new(target: SocketAddr) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let stream = connect(target, Service::Echo)?;
        stream.set_nonblocking(true)?;
        let mut pinged = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut pinged, PINGED, interest)?;
        Ok(Self {
            target,
            poll,
            events: Events::with_capacity(256),
            pinged,
            in_flight: VecDeque::new(),
            unwritten: VecDeque::new(),
            partial: 0,
            fresh: Vec::new(),
            result: BesideResult {
                ping: Latencies::new(),
                fresh: Latencies::new(),
                late: Latencies::new(),
                errors: 0,
            },
        })
    }

    fn is_waiting(&self) -> bool {
        !self.in_flight.is_empty() || self.fresh.iter().any(Option::is_some)
    }

    fn ping(&mut self, now: Instant) -> Result<(), Failure> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return Err(Failure::new("pings go unanswered for ten seconds"));
        }
        self.in_flight.push_back(now);
        self.unwritten.extend([7u8; PING_BYTES]);
        self.write()
    }

    fn write(&mut self) -> Result<(), Failure> {
        while !self.unwritten.is_empty() {
            let (front, _) = self.unwritten.as_slices();
            match self.pinged.write(front) {
                Ok(length) => {
                    self.unwritten.drain(..length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut buffer = [0u8; 64 * PING_BYTES];
        loop {
            match self.pinged.read(&mut buffer) {
                Ok(0) => return Err(Failure::new("the pinged flow was closed")),
                Ok(length) => {
                    let now = Instant::now();
                    self.partial += length;
                    while self.partial >= PING_BYTES {
                        self.partial -= PING_BYTES;
                        if let Some(sent) = self.in_flight.pop_front() {
                            self.result.ping.record(now - sent);
                        }
                    }
                    if length < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn open(&mut self, now: Instant) {
        let slot = match self.fresh.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                self.fresh.push(None);
                self.fresh.len() - 1
            }
        };
        let opened = TcpStream::connect(self.target).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            let token = Token(FRESH + slot);
            self.poll
                .registry()
                .register(&mut stream, token, interest)?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => {
                self.fresh[slot] = Some(Fresh {
                    stream,
                    since: now,
                    asked: false,
                });
            }
            Err(_) => self.result.errors += 1,
        }
    }

    fn turn(&mut self, timeout: Duration) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let tokens: Vec<Token> = self.events.iter().map(mio::event::Event::token).collect();
        for token in tokens {
            match token {
                TICKER => {}
                PINGED => {
                    self.read()?;
                    self.write()?;
                }
                Token(number) => self.advance(number - FRESH),
            }
        }
        Ok(())
    }

    fn advance(&mut self, slot: usize) {
        let Some(Some(fresh)) = self.fresh.get_mut(slot) else {
            return;
        };
        match fresh.advance() {
            Ok(false) => return,
            Ok(true) => self.result.fresh.record(fresh.since.elapsed()),
            Err(_) => self.result.errors += 1,
        }
        self.fresh[slot] = None;
    }
}

impl Fresh {
    fn advance(&mut self) -> io::Result<bool> {
        if !self.asked {
            match self.stream.write(&[Service::Echo.byte(), b'!']) {
                Ok(_) => self.asked = true,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error),
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
