//! HTTP through the ingress, beside proxies that stand right before the origin.
//!
//! The origin is an nginx that serves two files. Beside it stand an HAProxy and an nginx as a
//! reverse proxy, one hop each; the product has two hops, TLS between them, policies and plugins.
//! `wrk` asks over HTTP/1.1 in the clear, `h2load` over HTTP/2 and TLS. Large bodies and WebSockets
//! go through the product alone, to an origin and from a client of this program.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::failure::{Context, Failure};
use crate::figures::Figures;
use crate::peers::Site;
use crate::process::Meter;
use crate::report::median;

mod large;
mod origin;
mod sockets;
mod stage;
mod tools;

use stage::Stage;
use tools::Seen;

/// The parts, in the order in which they run.
pub(crate) const PARTS: [&str; 3] = ["http-rate", "http-large", "http-sockets"];

/// Connections at once.
const CONNECTIONS: [u32; 3] = [1, 64, 256];

/// The files that the origin serves, and their bytes.
const FILES: [(&str, usize); 2] = [("1k", 1024), ("1m", 1 << 20)];

/// Plugins bound to `http_request` at the hubs that are compared.
const CHAINS: [usize; 3] = [0, 1, 4];

/// How hard the load is.
#[derive(Clone, Copy, Debug)]
struct Pace {
    rounds: usize,
    window: Duration,
}

/// Measures one part; `None` where there is none of that name.
pub(crate) fn measure(
    part: &str,
    site: &Site,
    quick: bool,
    notes: &mut BTreeSet<String>,
) -> Option<Result<Figures, Failure>> {
    let pace = if quick {
        Pace {
            rounds: 1,
            window: Duration::from_secs(1),
        }
    } else {
        Pace {
            rounds: 3,
            window: Duration::from_secs(3),
        }
    };
    Some(match part {
        "http-rate" => measure_rate(site, pace, notes),
        "http-large" => large::measure(site, if quick { 1 << 30 } else { 10 << 30 }),
        "http-sockets" => sockets::measure(site, if quick { 100 } else { 1_000 }),
        _ => return None,
    })
}

/// One way to the origin.
struct Way {
    name: String,
    /// In the clear.
    plain: u16,
    /// With TLS and HTTP/2; 0 where it has none.
    tls: u16,
    meter: Meter,
}

/// What was seen of one way, a value a round.
#[derive(Default)]
struct Rounds {
    per_s: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    cpu: Vec<f64>,
    errors: f64,
}

impl Rounds {
    fn add(&mut self, seen: &Seen, cpu_seconds: f64) {
        self.per_s.push(seen.per_s);
        self.p50.push(seen.p50_us);
        self.p99.push(seen.p99_us);
        self.cpu.push(cpu_seconds * 1e6 / seen.requests.max(1.0));
        self.errors += seen.errors;
    }
}

fn measure_rate(site: &Site, pace: Pace, notes: &mut BTreeSet<String>) -> Result<Figures, Failure> {
    let wrk = site
        .tools
        .find("wrk")
        .context(|| "`wrk` is not installed".to_owned())?;
    let h2load = site.tools.find("h2load");
    if h2load.is_none() {
        notes.insert("http-rate: HTTP/2 left out: no `h2load`".to_owned());
    }
    let stage = Stage::start(site, &FILES, &CHAINS, notes)?;
    let ways = stage.ways();
    let mut figures = Figures::new();
    for (file, _) in FILES {
        for connections in CONNECTIONS {
            let mut of: BTreeMap<&str, Rounds> = BTreeMap::new();
            let mut of_h2: BTreeMap<&str, Rounds> = BTreeMap::new();
            for _ in 0..pace.rounds {
                for way in ways {
                    let before = way.meter.cpu_seconds();
                    let seen = tools::run_wrk(&wrk, way.plain, file, connections, pace.window)
                        .context(|| format!("{file} through {}", way.name))?;
                    let cpu = way.meter.cpu_seconds() - before;
                    of.entry(&way.name).or_default().add(&seen, cpu);
                    let Some(h2load) = h2load.as_ref().filter(|_| way.tls != 0) else {
                        continue;
                    };
                    let before = way.meter.cpu_seconds();
                    let seen = tools::run_h2load(h2load, way.tls, file, connections, pace.window)
                        .context(|| format!("{file} through {} over HTTP/2", way.name))?;
                    let cpu = way.meter.cpu_seconds() - before;
                    of_h2.entry(&way.name).or_default().add(&seen, cpu);
                }
            }
            put(&mut figures, &format!("http.{file}_c{connections}"), of);
            put(&mut figures, &format!("http2.{file}_c{connections}"), of_h2);
        }
    }
    Ok(figures)
}

/// Medians over the rounds, and what the product is to one hop of HAProxy.
fn put(figures: &mut Figures, test: &str, of: BTreeMap<&str, Rounds>) {
    let mut middle = BTreeMap::new();
    for (way, rounds) in of {
        let per_s = median(rounds.per_s).unwrap_or(f64::NAN);
        let p50 = median(rounds.p50).unwrap_or(f64::NAN);
        let name = |what: &str| format!("{test}.{way}_{what}");
        figures.insert(name("per_s"), per_s);
        figures.insert(name("p50_us"), p50);
        figures.insert(name("p99_us"), median(rounds.p99).unwrap_or(f64::NAN));
        figures.insert(name("cpu_us"), median(rounds.cpu).unwrap_or(f64::NAN));
        figures.insert(name("errors"), rounds.errors);
        middle.insert(way.to_owned(), (per_s, p50));
    }
    let Some((haproxy, _)) = middle.get("haproxy").copied() else {
        return;
    };
    let origin = middle.get("origin").map(|(_, p50)| *p50);
    for (way, (per_s, p50)) in middle.iter().filter(|(way, _)| way.starts_with("hub")) {
        figures.insert(format!("{test}.{way}_to_haproxy"), per_s / haproxy);
        if let Some(origin) = origin {
            figures.insert(format!("{test}.{way}_added_p50_us"), p50 - origin);
        }
    }
}
