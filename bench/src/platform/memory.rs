//! The hub's memory over many swaps of its generation, policies and plugin each time.

use std::time::Instant;

use super::stamps::StampedHub;
use crate::failure::{Context, Failure};
use crate::figures::Figures;
use crate::load::open::open_once;
use crate::peers::Site;
use crate::peers::nowconnect::DecisionLog;

/// Swaps before the first look: caches fill, the allocator finds its size.
const WARM_SHARE: u64 = 10;

/// A flow goes through this often, so that generations are used and not only made.
const FLOW_EVERY: u64 = 10;

pub(super) fn measure(site: &Site, swaps: u64) -> Result<Figures, Failure> {
    let stamped = StampedHub::start(site, "swap-memory", 0, DecisionLog::Off)?;
    for folder in [0, 1] {
        stamped.prepare(folder)?;
    }
    let mut resident_kb = Vec::new();
    let mut generation = 0;
    let started = Instant::now();
    for number in 1..=swaps {
        let before = generation;
        // Two sets of policies in turn, and a plugin of another name each time.
        generation = stamped.activate(number % 2, number)?;
        if generation <= before {
            return Err(Failure::new(format!(
                "swap {number} left generation {before} in force"
            )));
        }
        if number % FLOW_EVERY == 0 {
            open_once(stamped.hub.peer.listener)
                .context(|| format!("open a flow after swap {number}"))?;
        }
        if [swaps / WARM_SHARE, swaps / 2, swaps].contains(&number) {
            resident_kb.push(stamped.hub.hub.resident_kb() as f64);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let [start, middle, end] = resident_kb.as_slice() else {
        return Err(Failure::new("too few swaps to compare"));
    };
    Ok(Figures::from([
        ("swap_memory.swaps".to_owned(), swaps as f64),
        (
            "swap_memory.swap_ms".to_owned(),
            seconds * 1e3 / swaps as f64,
        ),
        ("swap_memory.start_mb".to_owned(), start / 1024.0),
        ("swap_memory.middle_mb".to_owned(), middle / 1024.0),
        ("swap_memory.end_mb".to_owned(), end / 1024.0),
        (
            "swap_memory.growth_percent".to_owned(),
            (end / start - 1.0) * 100.0,
        ),
    ]))
}
