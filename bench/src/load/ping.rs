//! Ping-pong: small messages there and back, closed loop, over a number of flows.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::backend::Service;
use crate::failure::{Context, Failure};
use crate::load::{EXCHANGE_DEADLINE, Latencies, connect};
use crate::process::Meter;

/// Bytes of one message.
pub(crate) const PING_BYTES: usize = 64;

/// What a ping-pong test saw.
#[derive(Clone, Debug)]
pub(crate) struct PingResult {
    pub(crate) per_second: f64,
    pub(crate) latencies: Latencies,
    pub(crate) cpu_us_each: f64,
}

/// One message at a time on each of `flows` flows, for `window`.
pub(crate) fn run(
    target: SocketAddr,
    flows: usize,
    window: Duration,
    meter: &Meter,
) -> Result<PingResult, Failure> {
    if flows == 1 {
        run_one(target, window, meter)
    } else {
        run_many(target, flows, window, meter)
    }
}

fn run_one(target: SocketAddr, window: Duration, meter: &Meter) -> Result<PingResult, Failure> {
    let mut stream = connect(target, Service::Echo)?;
    let mut message = [7u8; PING_BYTES];
    // The first exchanges warm caches and windows.
    for _ in 0..100 {
        exchange(&mut stream, &mut message)?;
    }
    let mut latencies = Latencies::new();
    let cpu_before = meter.cpu_seconds();
    let started = Instant::now();
    let mut sent = started;
    while sent - started < window {
        exchange(&mut stream, &mut message)?;
        let now = Instant::now();
        latencies.record(now - sent);
        sent = now;
    }
    Ok(result(latencies, started.elapsed(), cpu_before, meter))
}

fn exchange(stream: &mut std::net::TcpStream, message: &mut [u8]) -> Result<(), Failure> {
    stream.write_all(message)?;
    stream
        .read_exact(message)
        .context(|| "read an echo".to_owned())
}

fn result(latencies: Latencies, lasted: Duration, cpu_before: f64, meter: &Meter) -> PingResult {
    let count = latencies.count() as f64;
    PingResult {
        per_second: count / lasted.as_secs_f64(),
        cpu_us_each: (meter.cpu_seconds() - cpu_before) * 1e6 / count,
        latencies,
    }
}

struct PingFlow {
    stream: TcpStream,
    sent: Instant,
    received: usize,
}

fn run_many(
    target: SocketAddr,
    flows: usize,
    window: Duration,
    meter: &Meter,
) -> Result<PingResult, Failure> {
    let mut poll = Poll::new()?;
    let mut ring = Vec::with_capacity(flows);
    for number in 0..flows {
        let stream = connect(target, Service::Echo).context(|| format!("connect flow {number}"))?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry()
            .register(&mut stream, Token(number), Interest::READABLE)?;
        ring.push(PingFlow {
            stream,
            sent: Instant::now(),
            received: 0,
        });
    }
    let message = [7u8; PING_BYTES];
    for flow in &mut ring {
        flow.sent = Instant::now();
        flow.stream.write_all(&message)?;
    }
    let warm_until = Instant::now() + window / 8;
    drive(&mut poll, &mut ring, warm_until, &mut Latencies::new())?;

    let mut latencies = Latencies::new();
    let cpu_before = meter.cpu_seconds();
    let started = Instant::now();
    drive(&mut poll, &mut ring, started + window, &mut latencies)?;
    Ok(result(latencies, started.elapsed(), cpu_before, meter))
}

fn drive(
    poll: &mut Poll,
    ring: &mut [PingFlow],
    until: Instant,
    latencies: &mut Latencies,
) -> Result<(), Failure> {
    let mut events = Events::with_capacity(1024);
    let message = [7u8; PING_BYTES];
    let mut buffer = [0u8; 4 * PING_BYTES];
    loop {
        let answered = latencies.count();
        poll.poll(&mut events, Some(EXCHANGE_DEADLINE))?;
        for event in &events {
            let flow = &mut ring[event.token().0];
            match flow.stream.read(&mut buffer) {
                Ok(0) => return Err(Failure::new("a flow was closed during ping-pong")),
                Ok(length) => flow.received += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            if flow.received >= PING_BYTES {
                let now = Instant::now();
                latencies.record(now - flow.sent);
                flow.received -= PING_BYTES;
                flow.sent = now;
                // 64 bytes into an empty socket buffer: never short.
                flow.stream.write_all(&message)?;
            }
        }
        if Instant::now() >= until {
            return Ok(());
        }
        if events.is_empty() && latencies.count() == answered {
            return Err(Failure::new("no echo came for 5 s"));
        }
    }
}
