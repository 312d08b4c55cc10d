//! From rounds to a report: medians, ratios to the unit peer, and the figures to reach.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;

use crate::figures::Figures;
use crate::machine::MachineCard;
use crate::peers::PeerKind;
use crate::suite::Round;

mod targets;
use targets::TARGETS;

/// One figure of one peer.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Value {
    /// Median over the rounds.
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Median of the per-round ratios to two chained plain HAProxies.
    pub(crate) to_haproxy2: Option<f64>,
    /// Median of the per-round ratios to plain TCP over the same path.
    pub(crate) to_direct: Option<f64>,
}

/// A figure to reach, and what was seen.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TargetOutcome {
    pub(crate) figure: String,
    pub(crate) to_reach: String,
    pub(crate) seen: String,
    /// `None` when it was not measured.
    pub(crate) met: Option<bool>,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: MachineCard,
    pub(crate) mode: String,
    pub(crate) rounds: usize,
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) values: BTreeMap<String, BTreeMap<String, Value>>,
    /// Figures that belong to the product alone: cost of policies and plugins, swaps, LDAP.
    pub(crate) product: Figures,
    pub(crate) targets: Vec<TargetOutcome>,
    /// Of targets that were missed, what is known about where the time or memory goes.
    pub(crate) accounts: Vec<String>,
    pub(crate) notes: BTreeSet<String>,
}

impl Report {
    pub(crate) fn new(
        machine: MachineCard,
        mode: &str,
        rounds: &[Round],
        product: Figures,
        versions: BTreeMap<String, String>,
        notes: BTreeSet<String>,
    ) -> Self {
        let values = values(rounds);
        let own = values.get(PeerKind::Nowconnect.name());
        let targets: Vec<TargetOutcome> = TARGETS
            .iter()
            .map(|target| target.judge(own, &product))
            .collect();
        let missed = TARGETS
            .iter()
            .zip(&targets)
            .filter(|(_, outcome)| outcome.met == Some(false));
        let accounts = missed
            .filter_map(|(target, _)| target.account(&product))
            .collect();
        Self {
            machine,
            mode: mode.to_owned(),
            rounds: rounds.len(),
            versions,
            values,
            product,
            targets,
            accounts,
            notes,
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        self.write_head(&mut out);
        self.write_targets(&mut out);
        for (title, figures) in TABLES {
            self.write_table(&mut out, title, figures);
        }
        self.write_product(&mut out);
        self.write_notes(&mut out);
        out
    }

    fn write_head(&self, out: &mut String) {
        let card = &self.machine;
        line(out, &format!("# Bench of {}, {} run", card.date, self.mode));
        line(out, "");
        line(
            out,
            &format!(
                "{} cores {}, {} MB, Linux {}, {}, revision {}. {} rounds, interleaved. Load \
                 average {:.2} before and {:.2} after; {:.0} % of the cores were busy before the \
                 first test.",
                card.cores,
                card.cpu,
                card.memory_mb,
                card.kernel,
                card.compiler,
                card.revision,
                self.rounds,
                card.load_before,
                card.load_after,
                card.busy_before_percent,
            ),
        );
        line(
            out,
            &format!(
                "tcp_rmem {}, tcp_wmem {}; far paths hold {} bytes each way; open files: {}.",
                card.tcp_rmem, card.tcp_wmem, card.delay_window_bytes, card.descriptors
            ),
        );
        line(out, "");
        line(
            out,
            "A value is the median of the rounds; in brackets the median of its per-round ratios \
             to haproxy2. CPU is user and system time of every process of a peer. GB is 10⁹ bytes.",
        );
        line(out, "");
        line(out, "| peer | what | version |");
        line(out, "|---|---|---|");
        for kind in PeerKind::ALL {
            if let Some(version) = self.versions.get(kind.name()) {
                let what = kind.describe();
                line(out, &format!("| {} | {what} | {version} |", kind.name()));
            }
        }
    }

    fn write_targets(&self, out: &mut String) {
        line(out, "\n## Figures to reach\n");
        line(out, "| figure | to reach | seen | |");
        line(out, "|---|---|---|---|");
        for target in &self.targets {
            let verdict = match target.met {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "not measured",
            };
            line(
                out,
                &format!(
                    "| {} | {} | {} | {verdict} |",
                    target.figure, target.to_reach, target.seen
                ),
            );
        }
        if !self.accounts.is_empty() {
            line(out, "\nOf those that were missed, where it goes:\n");
        }
        for account in &self.accounts {
            line(out, &format!("- {account}"));
        }
    }

    fn write_table(&self, out: &mut String, title: &str, figures: &[&str]) {
        let seen = |figure: &&&str| self.values.values().any(|of| of.contains_key(**figure));
        let figures: Vec<&&str> = figures.iter().filter(seen).collect();
        if figures.is_empty() {
            return;
        }
        line(out, &format!("\n## {title}\n"));
        let names: Vec<&str> = figures.iter().map(|figure| **figure).collect();
        line(out, &format!("| peer | {} |", names.join(" | ")));
        line(out, &format!("|---|{}", "---|".repeat(figures.len())));
        for kind in PeerKind::ALL {
            let Some(of) = self.values.get(kind.name()) else {
                continue;
            };
            let cells: Vec<String> = figures
                .iter()
                .map(|figure| of.get(**figure).map_or("-".to_owned(), cell))
                .collect();
            line(out, &format!("| {} | {} |", kind.name(), cells.join(" | ")));
        }
    }

    fn write_product(&self, out: &mut String) {
        if self.product.is_empty() {
            return;
        }
        line(out, "\n## The product alone\n");
        line(out, "| figure | value |");
        line(out, "|---|---|");
        for (name, value) in &self.product {
            line(out, &format!("| {name} | {} |", number(*value)));
        }
    }

    fn write_notes(&self, out: &mut String) {
        if self.notes.is_empty() {
            return;
        }
        line(out, "\n## Notes\n");
        for note in &self.notes {
            line(out, &format!("- {note}"));
        }
    }
}

/// Which figures stand in one table.
const TABLES: [(&str, &[&str]); 7] = [
    (
        "Bulk, 1 and 16 flows: MB/s and CPU seconds per GB",
        &[
            "down1.mb_s",
            "up1.mb_s",
            "down16.mb_s",
            "up16.mb_s",
            "both16.mb_s",
            "down1.cpu_s_gb",
            "up1.cpu_s_gb",
            "down16.cpu_s_gb",
            "up16.cpu_s_gb",
            "both16.cpu_s_gb",
        ],
    ),
    (
        "Bulk, 64 flows",
        &[
            "down64.mb_s",
            "up64.mb_s",
            "both64.mb_s",
            "down64.cpu_s_gb",
            "up64.cpu_s_gb",
            "both64.cpu_s_gb",
        ],
    ),
    (
        "New flows, 16 at a time and one at a time",
        &[
            "conn16.per_s",
            "conn16.p50_us",
            "conn16.p99_us",
            "conn16.cpu_us",
            "conn16.errors",
            "open.p50_us",
            "open.p99_us",
            "open.cpu_us",
            "open.errors",
        ],
    ),
    (
        "Round trips of 64 bytes",
        &[
            "ping1.p50_us",
            "ping1.p99_us",
            "ping1.cpu_us",
            "ping256.per_s",
            "ping256.p50_us",
            "ping256.p99_us",
            "ping256.cpu_us",
        ],
    ),
    (
        "A small flow beside a saturating one, and beside 64 stalled ones",
        &[
            "beside_down.p50_us",
            "beside_down.p99_us",
            "beside_down.fresh_p50_us",
            "beside_down.bulk_mb_s",
            "beside_down.errors",
            "beside_up.p50_us",
            "beside_up.p99_us",
            "beside_up.fresh_p50_us",
            "beside_up.bulk_mb_s",
            "beside_up.errors",
            "beside_stalled.p50_us",
            "beside_stalled.p99_us",
            "beside_stalled.p50_change",
            "beside_stalled.fresh_p50_change",
        ],
    ),
    (
        "Memory of both halves: KB per idle flow, per flow whose reader stalls",
        &[
            "idle1000.kb",
            "idle1000.open_s",
            "idle9000.kb",
            "idle9000.open_s",
            "idle9000.cpu_percent",
            "stalled64.kb",
        ],
    ),
    (
        "One flow over a far path: MB/s by round trip in ms",
        &[
            "far50.down_mb_s",
            "far50.up_mb_s",
            "far100.down_mb_s",
            "far100.up_mb_s",
            "far200.down_mb_s",
            "far200.up_mb_s",
        ],
    ),
];

fn line(out: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

fn cell(value: &Value) -> String {
    match value.to_haproxy2 {
        Some(ratio) => format!("{} ({ratio:.2})", number(value.median)),
        None => number(value.median),
    }
}

/// Three figures, or whole numbers where they are large.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn values(rounds: &[Round]) -> BTreeMap<String, BTreeMap<String, Value>> {
    let peers: BTreeSet<PeerKind> = rounds.iter().flat_map(BTreeMap::keys).copied().collect();
    peers
        .into_iter()
        .map(|peer| {
            let of_peer: Vec<Option<&Figures>> =
                rounds.iter().map(|round| round.get(&peer)).collect();
            let names: BTreeSet<&String> = of_peer
                .iter()
                .flatten()
                .flat_map(|figures| figures.keys())
                .collect();
            let values = names.into_iter().map(|name| {
                let own: Vec<f64> = of_peer
                    .iter()
                    .flatten()
                    .filter_map(|figures| figures.get(name).copied())
                    .collect();
                let value = Value {
                    median: median(own.clone()).unwrap_or(f64::NAN),
                    min: own.iter().copied().fold(f64::INFINITY, f64::min),
                    max: own.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                    to_haproxy2: ratio(rounds, peer, PeerKind::Haproxy2, name),
                    to_direct: ratio(rounds, peer, PeerKind::Direct, name),
                };
                (name.clone(), value)
            });
            (peer.name().to_owned(), values.collect())
        })
        .collect()
}

fn ratio(rounds: &[Round], peer: PeerKind, unit: PeerKind, name: &str) -> Option<f64> {
    let ratios = rounds.iter().filter_map(|round| {
        let own = round.get(&peer)?.get(name)?;
        let unit = round.get(&unit)?.get(name)?;
        (*unit > 0.0).then_some(own / unit)
    });
    median(ratios.collect())
}

/// The middle value; of an even number, the mean of the two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle)?;
    if values.len().is_multiple_of(2) {
        Some((values.get(middle - 1)? + upper) / 2.0)
    } else {
        Some(*upper)
    }
}

#[cfg(test)]
mod tests;
