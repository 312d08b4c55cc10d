//! A generation of policies and plugins is swapped once a second while a thousand flows a
//! second are opened on the clock.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::stamps::{StampedHub, Tally};
use crate::failure::{Context, Failure};
use crate::figures::Figures;
use crate::load::Latencies;
use crate::load::open::{TimedOpen, run_at_rate_timed};
use crate::peers::Site;
use crate::peers::nowconnect::DecisionLog;

/// New flows a second.
const RATE: u32 = 1_000;

/// Policies beside the shipped ones.
const MORE_POLICIES: usize = 100;

/// Between the end of one swap and the start of the next.
const PAUSE: Duration = Duration::from_secs(1);

/// Seconds of a day.
const DAY: f64 = 86_400.0;

/// How long the decision log may take to have everything.
const LOG_DEADLINE: Duration = Duration::from_secs(10);

/// One swap as the side that orders it sees it.
struct Swap {
    stamp: u64,
    started: Instant,
    started_at: f64,
    answered: Instant,
}

pub(super) fn measure(site: &Site, seconds: u64) -> Result<Figures, Failure> {
    let stamped = StampedHub::start(site, "generation-swap", MORE_POLICIES, DecisionLog::File)?;
    swap(&stamped, 1)?;
    let window = Duration::from_secs(seconds);
    let peer = &stamped.hub.peer;
    let mut quiet = Vec::new();
    let calm = run_at_rate_timed(peer.listener, RATE, window / 2, &peer.meter, &mut quiet)?;
    let mut flows = Vec::new();
    let over = AtomicBool::new(false);
    let (seen, swaps) = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| swap_until(&stamped, &over));
        let seen = run_at_rate_timed(peer.listener, RATE, window, &peer.meter, &mut flows);
        over.store(true, Ordering::Relaxed);
        (seen, swapping.join())
    });
    let seen = seen?;
    let swaps = swaps.map_err(|_| Failure::new("the swapping thread panicked"))??;
    let opened = calm.latencies.count() + seen.latencies.count();
    let tally = decisions(&stamped, opened)?;
    let during = latencies(flows.iter().filter(|flow| {
        let within = |swap: &Swap| flow.due >= swap.started && flow.due <= swap.answered;
        swaps.iter().any(within)
    }));
    let normal = latencies(quiet.iter());
    let mut visible = Latencies::new();
    let mut answered = Latencies::new();
    for swap in &swaps {
        answered.record(swap.answered - swap.started);
        // A generation that no flow came under before it was replaced was not seen.
        if let Some(first) = tally.first.get(&swap.stamp) {
            visible.record(later(swap.started_at, *first));
        }
    }
    // The last one may have come after the last flow.
    if visible.count() + 1 < swaps.len() as u64 {
        return Err(Failure::new(format!(
            "of {} generations only {} decided a flow",
            swaps.len(),
            visible.count()
        )));
    }
    let mut figures = Figures::new();
    let mut put = |name: &str, value: f64| {
        figures.insert(format!("generation_swap.{name}"), value);
    };
    put("swaps", swaps.len() as f64);
    put("opens", opened as f64);
    put("errors", (seen.errors + calm.errors) as f64);
    put("decisions", tally.stamped as f64);
    put("mixed", tally.mixed as f64);
    put("unrecorded", opened.saturating_sub(tally.stamped) as f64);
    put("log_dropped", tally.dropped as f64);
    put("answered_p50_ms", answered.micros(0.5) / 1e3);
    put("answered_max_ms", answered.max_micros() / 1e3);
    put("visible_p50_ms", visible.micros(0.5) / 1e3);
    put("visible_max_ms", visible.max_micros() / 1e3);
    put("normal_p50_us", normal.micros(0.5));
    put("normal_p99_us", normal.micros(0.99));
    put("during_opens", during.count() as f64);
    put("during_p50_us", during.micros(0.5));
    put("during_p99_us", during.micros(0.99));
    put("p99_ratio", during.micros(0.99) / normal.micros(0.99));
    put("cpu_us_quiet", calm.cpu_us_each);
    put("cpu_us_swapping", seen.cpu_us_each);
    Ok(figures)
}

/// Swaps once a second until told that it is over.
fn swap_until(stamped: &StampedHub, over: &AtomicBool) -> Result<Vec<Swap>, Failure> {
    let mut swaps = Vec::new();
    for stamp in 2.. {
        let next = Instant::now() + PAUSE;
        while Instant::now() < next {
            if over.load(Ordering::Relaxed) {
                return Ok(swaps);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        swaps.push(swap(stamped, stamp)?);
        stamped.forget(stamp - 1);
    }
    Ok(swaps)
}

fn swap(stamped: &StampedHub, stamp: u64) -> Result<Swap, Failure> {
    stamped.prepare(stamp)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let started_at = since.map_or(0.0, |since| since.as_secs_f64()) % DAY;
    let started = Instant::now();
    stamped.activate(stamp, stamp)?;
    Ok(Swap {
        stamp,
        started,
        started_at,
        answered: Instant::now(),
    })
}

/// Reads the decision log once it has every flow, or does not grow any more.
fn decisions(stamped: &StampedHub, opened: u64) -> Result<Tally, Failure> {
    let file = &stamped.hub.decisions;
    let deadline = Instant::now() + LOG_DEADLINE;
    loop {
        let log = fs::read_to_string(file).context(|| format!("read {}", file.display()))?;
        // A line that is being written is read the next time.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let tally = Tally::read(whole)?;
        if tally.stamped >= opened || Instant::now() > deadline {
            return Ok(tally);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// From one second of the day to a later one, which may be of the next day.
fn later(from: f64, to: f64) -> Duration {
    let apart = (to - from).rem_euclid(DAY);
    // The log's times are cut to milliseconds, so one can seem to be before its cause.
    let before = apart > DAY / 2.0;
    Duration::from_secs_f64(if before { 0.0 } else { apart })
}

fn latencies<'a>(flows: impl Iterator<Item = &'a TimedOpen>) -> Latencies {
    let mut latencies = Latencies::new();
    for flow in flows {
        latencies.record(flow.latency);
    }
    latencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_next_day_is_later_and_one_that_was_cut_is_not_a_day() {
        assert_eq!(later(10.0, 10.25), Duration::from_millis(250));
        assert_eq!(later(DAY - 0.25, 0.25), Duration::from_millis(500));
        assert_eq!(later(10.0009, 10.0), Duration::ZERO);
    }
}
