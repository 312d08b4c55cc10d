//! Ten gigabytes down and up through the ingress, with the memory that the product takes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{origin, stage};
use crate::failure::{Context, Failure};
use crate::figures::Figures;
use crate::peers::Site;
use crate::process::Meter;

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is read and written at once.
const CHUNK: usize = 256 * 1024;

/// Ends a transfer that hangs.
const SILENCE: Duration = Duration::from_secs(30);

pub(super) fn measure(site: &Site, bytes: u64) -> Result<Figures, Failure> {
    let origin = origin::start_large()?;
    let hub = stage::start_hub(site, origin.port(), 1)?;
    let port = hub
        .ingress
        .context(|| "the hub has no ingress".to_owned())?
        .plain;
    stage::wait_for(port, "zeros/1")?;
    // What the first transfer takes once is not what a longer one would take more.
    transfer(port, Way::Down, bytes / 10)?;
    transfer(port, Way::Up, bytes / 10)?;
    let mut figures = Figures::new();
    for (way, name) in [(Way::Down, "down"), (Way::Up, "up")] {
        let before = hub.peer.meter.resident_kb();
        let cpu = hub.peer.meter.cpu_seconds();
        let started = Instant::now();
        let (seen, highest) = watched(&hub.peer.meter, || transfer(port, way, bytes));
        seen.context(|| format!("{bytes} bytes {name}"))?;
        let took = started.elapsed().as_secs_f64();
        let cpu = hub.peer.meter.cpu_seconds() - cpu;
        let mut put = |what: &str, value: f64| {
            figures.insert(format!("http_large.{name}_{what}"), value);
        };
        put("gb", bytes as f64 / 1e9);
        put("mb_s", bytes as f64 / 1e6 / took);
        put("cpu_s_gb", cpu / (bytes as f64 / 1e9));
        put("rss_before_mb", before as f64 / 1e3);
        put("rss_highest_mb", highest as f64 / 1e3);
        put("rss_grown_mb", (highest as f64 - before as f64) / 1e3);
    }
    Ok(figures)
}

#[derive(Clone, Copy)]
enum Way {
    Down,
    Up,
}

/// Does it, and says the most memory that was seen meanwhile, in KB.
fn watched<T>(meter: &Meter, act: impl FnOnce() -> T) -> (T, u64) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut highest = 0;
            while !over.load(Ordering::Relaxed) {
                highest = highest.max(meter.resident_kb());
                std::thread::sleep(LOOK_EVERY);
            }
            highest
        });
        let done = act();
        over.store(true, Ordering::Relaxed);
        (done, watching.join().unwrap_or(0))
    })
}

fn transfer(port: u16, way: Way, bytes: u64) -> Result<(), Failure> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut chunk = vec![0; CHUNK];
    let (request, mut down, mut up) = match way {
        Way::Down => (format!("GET /zeros/{bytes}"), bytes, 0),
        Way::Up => ("PUT /sink".to_owned(), 0, bytes),
    };
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {up}\r\n\r\n"
    )?;
    while up > 0 {
        let next = usize::try_from(up).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(&chunk[..next])?;
        up -= next as u64;
    }
    let head = read_head(&mut stream)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(Failure::new(format!("it answered:\n{head}")));
    }
    loop {
        match stream.read(&mut chunk)? {
            0 if down == 0 => return Ok(()),
            0 => return Err(Failure::new(format!("it ended {down} bytes early"))),
            more => {
                let more = more as u64;
                down = down
                    .checked_sub(more)
                    .context(|| "more came than was asked for".to_owned())?;
            }
        }
    }
}

/// The head of a response; its body is left where it is.
fn read_head(stream: &mut TcpStream) -> Result<String, Failure> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 16 * 1024 || stream.read(&mut byte)? == 0 {
            return Err(Failure::new("a response has no end of its head"));
        }
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
