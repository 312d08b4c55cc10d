//! Figures of the product alone: what policies and plugins cost at OPEN, generations swapped
//! under load, LDAP through the tunnel.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failure::{Context, Failure};
use crate::figures::Figures;
use crate::load::Latencies;
use crate::load::open::{open_once, run_at_rate};
use crate::peers::nowconnect::{HubShape, Plugins, RunningHub, start_shaped};
use crate::peers::{Site, Yard};
use crate::report::median;

mod directory;
pub(crate) use directory::measure_ldap;

/// Policies and plugins of the hubs that are compared; the first is what the others add to.
const SHAPES: [(usize, usize); 7] = [
    (0, 0),
    (10, 0),
    (100, 0),
    (1000, 0),
    (0, 1),
    (0, 4),
    (1000, 4),
];

/// Flows opened at each hub, one at a time, before the turn goes to the next.
const OPENS_PER_TURN: usize = 200;

/// What policies and plugins add to the time to open a flow, in microseconds of p50.
pub(crate) fn measure_open_cost(site: &Site, turns: usize) -> Result<Figures, Failure> {
    let mut hubs = Vec::new();
    for (policies, plugins) in SHAPES {
        let shape = HubShape {
            more_policies: policies,
            plugins: Plugins::AtOpen(plugins),
            ..HubShape::shipped()
        };
        hubs.push(start_hub(site, "open-cost", &shape)?);
    }
    let mut added: Vec<Vec<f64>> = vec![Vec::new(); SHAPES.len()];
    let mut p50: Vec<Vec<f64>> = vec![Vec::new(); SHAPES.len()];
    for _ in 0..turns {
        let mut bare = f64::NAN;
        for (number, hub) in hubs.iter().enumerate() {
            let mut latencies = Latencies::new();
            for _ in 0..OPENS_PER_TURN {
                let latency = open_once(hub.peer.listener)
                    .context(|| format!("open through shape {:?}", SHAPES[number]))?;
                latencies.record(latency);
            }
            let micros = latencies.micros(0.5);
            if number == 0 {
                bare = micros;
            }
            p50[number].push(micros);
            added[number].push(micros - bare);
        }
    }
    let mut figures = Figures::new();
    for (number, (policies, plugins)) in SHAPES.iter().enumerate() {
        let name = format!("open_cost.p{policies}_w{plugins}");
        let p50 = median(std::mem::take(&mut p50[number])).unwrap_or(f64::NAN);
        figures.insert(format!("{name}_p50_us"), p50);
        if number > 0 {
            let added = median(std::mem::take(&mut added[number])).unwrap_or(f64::NAN);
            figures.insert(format!("{name}_added_us"), added);
        }
    }
    Ok(figures)
}

/// Starts a hub and its agent and waits until a flow goes through.
pub(crate) fn start_hub(site: &Site, name: &str, shape: &HubShape) -> Result<RunningHub, Failure> {
    let yard = Yard::new(site, name)?;
    let place = || format!("{name} hub (logs in {})", yard.dir.display());
    let mut hub = start_shaped(&yard, shape).context(place)?;
    hub.peer.wait_until_ready().context(place)?;
    Ok(hub)
}

/// Flows a second that are opened while generations are swapped.
const SWAP_RATE: u32 = 500;

/// How long a changed policy may take until it shows.
const VISIBLE_DEADLINE: Duration = Duration::from_secs(10);

/// Swaps a generation each second under a steady load of new flows; then times how long a
/// policy takes from its file's change to its first decision.
pub(crate) fn measure_swap(site: &Site, seconds: u64) -> Result<Figures, Failure> {
    let shape = HubShape {
        more_policies: 100,
        second: true,
        ..HubShape::shipped()
    };
    let hub = start_hub(site, "swap", &shape)?;
    let file = hub.policy_dir.join("swapped.cedar");
    let window = Duration::from_secs(seconds);
    let listener = hub.peer.listener;
    let quiet = run_at_rate(listener, SWAP_RATE, window / 2, &hub.peer.meter, |_| Ok(()))?;
    let loaded = run_at_rate(listener, SWAP_RATE, window, &hub.peer.meter, |second| {
        replace(&file, &irrelevant(second))
    })?;
    let visible_ms = time_to_visible(&hub, &file)?;
    Ok(Figures::from([
        ("swap.swaps".to_owned(), seconds.saturating_sub(1) as f64),
        ("swap.opens".to_owned(), loaded.latencies.count() as f64),
        (
            "swap.errors".to_owned(),
            (loaded.errors + quiet.errors) as f64,
        ),
        ("swap.p50_us".to_owned(), loaded.latencies.micros(0.5)),
        ("swap.p99_us".to_owned(), loaded.latencies.micros(0.99)),
        ("swap.max_us".to_owned(), loaded.latencies.max_micros()),
        ("swap.quiet_p50_us".to_owned(), quiet.latencies.micros(0.5)),
        ("swap.quiet_p99_us".to_owned(), quiet.latencies.micros(0.99)),
        ("swap.quiet_max_us".to_owned(), quiet.latencies.max_micros()),
        ("swap.visible_ms".to_owned(), visible_ms),
    ]))
}

fn irrelevant(number: u64) -> String {
    format!(
        "@id(\"swapped\")\nforbid (principal, action == NowConnect::Action::\"open\", \
         resource == NowConnect::Connector::\"nothing-{number}\");\n"
    )
}

/// Median milliseconds from a policy's rename into place to the first answer by it, both when
/// it forbids and when it no longer does.
fn time_to_visible(hub: &RunningHub, file: &Path) -> Result<f64, Failure> {
    let probe = SocketAddr::from(([127, 0, 0, 1], hub.second_port));
    open_once(probe).context(|| "open through the second connector".to_owned())?;
    let forbid = "@id(\"swapped\")\nforbid (principal, action == NowConnect::Action::\"open\", \
                  resource == NowConnect::Connector::\"second\");\n";
    let mut millis = Vec::new();
    for number in 0..6 {
        let open_expected = number % 2 == 1;
        let text = if open_expected {
            irrelevant(number)
        } else {
            forbid.to_owned()
        };
        replace(file, &text)?;
        let changed = Instant::now();
        while open_once(probe).is_ok() != open_expected {
            if changed.elapsed() > VISIBLE_DEADLINE {
                return Err(Failure::new("a changed policy did not show in ten seconds"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        millis.push(changed.elapsed().as_secs_f64() * 1e3);
        // Two changes within one look of the watcher would be one swap.
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(median(millis).unwrap_or(f64::NAN))
}

/// Puts a new file in the old one's place in one step, as careful tools do.
fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let next: PathBuf = file.with_extension("cedar.next");
    fs::write(&next, text).context(|| format!("write {}", next.display()))?;
    fs::rename(&next, file).context(|| format!("rename to {}", file.display()))
}
