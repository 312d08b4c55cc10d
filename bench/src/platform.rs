//! Figures of what decides: policies, plugins, their swap and their record, each alone.
//!
//! Decisions and calls are measured at the product's own libraries, without sockets, because a
//! microsecond is lost in the noise of a flow; what they add to a flow is the part `open-cost`.
//! Swaps and the decision log are measured at a whole hub under load.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::failure::Failure;
use crate::figures::Figures;
use crate::load::Latencies;
use crate::peers::Site;

mod admin;
mod calls;
mod decision_log;
mod decisions;
mod loads;
mod memory;
mod stamps;
mod swap;

/// The parts, in the order in which they run.
pub(crate) const PARTS: [&str; 6] = [
    "decisions",
    "plugin-calls",
    "plugin-loads",
    "generation-swap",
    "swap-memory",
    "decision-log",
];

/// Measures one part; `None` where there is none of that name.
pub(crate) fn measure(
    part: &str,
    site: &Site,
    quick: bool,
    notes: &mut BTreeSet<String>,
) -> Option<Result<Figures, Failure>> {
    Some(match part {
        "decisions" => decisions::measure(quick),
        "plugin-calls" => calls::measure(site, quick, notes),
        "plugin-loads" => loads::measure(site, quick, notes),
        "generation-swap" => swap::measure(site, if quick { 6 } else { 24 }),
        "swap-memory" => memory::measure(site, if quick { 500 } else { 10_000 }),
        "decision-log" => decision_log::measure(site, if quick { 2 } else { 6 }),
        _ => return None,
    })
}

/// A plugin that may be there: its language, component and the hook that it has.
struct Guest {
    language: &'static str,
    /// As the examples' READMEs call it.
    name: &'static str,
    component: PathBuf,
}

/// The example plugins of other languages that are built; the others are noted as left out.
fn built_examples(site: &Site, notes: &mut BTreeSet<String>) -> Vec<Guest> {
    // `examples/plugins/run.sh` builds below the folder of the programs' profile.
    let beside = site.tools.folders.iter().filter_map(|dir| dir.parent());
    let tops: Vec<PathBuf> = beside
        .map(|top| top.join("examples"))
        .chain([site.root.join("target/examples")])
        .collect();
    let mut found = Vec::new();
    for (language, name) in [("javascript", "maintenance"), ("python", "watch-list")] {
        let file = format!("{language}/{name}.wasm");
        match tops
            .iter()
            .map(|top| top.join(&file))
            .find(|at| at.is_file())
        {
            Some(component) => found.push(Guest {
                language,
                name,
                component,
            }),
            None => {
                notes.insert(format!(
                    "left out: plugins in {language}: `examples/plugins/run.sh {language}` builds one"
                ));
            }
        }
    }
    found
}

/// p50 and p99 in microseconds, as two figures.
fn put_quantiles(figures: &mut Figures, name: &str, latencies: &Latencies) {
    figures.insert(format!("{name}_p50_us"), latencies.micros(0.5));
    figures.insert(format!("{name}_p99_us"), latencies.micros(0.99));
}
