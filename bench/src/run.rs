//! `nowconnect-bench run`: one run from start to report.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use crate::failure::{Context, Failure};
use crate::figures::{Figures, Pace, Test};
use crate::machine::{MachineCard, load_average};
use crate::peers::{PeerKind, Site, Tools};
use crate::report::Report;
use crate::suite::{self, Outcome, Plan};
use crate::{http, platform, product, say};

#[derive(Args, Clone, Debug)]
pub(crate) struct RunOptions {
    /// About three minutes: few peers, few rounds, short windows.
    #[arg(long)]
    quick: bool,
    /// Rounds; 3 in a quick run, else 5.
    #[arg(long)]
    rounds: Option<usize>,
    /// Peers to measure; all that are installed when absent, four of them in a quick run.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<PeerKind>,
    /// Only tests whose name starts with one of these, such as `down`, `ping256`, `far`; `none`
    /// for none.
    #[arg(long, value_delimiter = ',')]
    tests: Vec<String>,
    /// Parts beside the comparison: `open-cost`, `swap`, `ldap`, and `platform` for `decisions`,
    /// `plugin-calls`, `plugin-loads`, `generation-swap`, `swap-memory` and `decision-log`, `http`
    /// for `http-rate`, `http-large` and `http-sockets`; `none` for none.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "open-cost,swap,ldap,platform,http"
    )]
    parts: Vec<String>,
    /// The product's sources.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Folder of `nowconnect` and `nowconnect-agent`; where this program is when absent.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Folder of rivals that are not on PATH.
    #[arg(long)]
    rivals_dir: Option<PathBuf>,
    /// Folder for configurations, keys and logs of the peers.
    #[arg(long)]
    work_dir: PathBuf,
    /// Where the report goes: this name with `.md` and `.json`.
    #[arg(long)]
    out: PathBuf,
}

impl RunOptions {
    fn kinds(&self, tools: &Tools, notes: &mut BTreeSet<String>) -> Vec<PeerKind> {
        let wanted = match (self.peers.is_empty(), self.quick) {
            (false, _) => self.peers.clone(),
            (true, true) => vec![
                PeerKind::Direct,
                PeerKind::Haproxy2,
                PeerKind::Nowconnect,
                PeerKind::RatholeTls,
            ],
            (true, false) => PeerKind::ALL.to_vec(),
        };
        let installed = |kind: &PeerKind| match kind.missing(tools) {
            None => true,
            Some(program) => {
                notes.insert(format!("left out: {}: no `{program}`", kind.name()));
                false
            }
        };
        wanted.into_iter().filter(installed).collect()
    }

    fn plan(&self, peers: Vec<PeerKind>) -> Plan {
        let wanted = |test: &Test| {
            self.tests.is_empty() || self.tests.iter().any(|name| test.name().starts_with(name))
        };
        Plan {
            peers,
            tests: Test::all(self.quick).into_iter().filter(wanted).collect(),
            rounds: self.rounds.unwrap_or(if self.quick { 3 } else { 5 }),
            fresh_rounds: if self.quick { 1 } else { 2 },
            pace: if self.quick { Pace::QUICK } else { Pace::FULL },
        }
    }
}

/// Runs everything that the options ask for and writes the report.
pub(crate) fn main(options: &RunOptions) -> Result<(), Failure> {
    let own_folder = std::env::current_exe()?
        .parent()
        .map(PathBuf::from)
        .unwrap_or_default();
    let mut folders = vec![options.bin_dir.clone().unwrap_or(own_folder)];
    folders.extend(options.rivals_dir.clone());
    let tools = Tools { folders };
    fs::create_dir_all(&options.work_dir)
        .context(|| format!("create {}", options.work_dir.display()))?;
    let (_backend, address) = suite::start_backend(&options.work_dir)?;
    let site = Site {
        dir: fs::canonicalize(&options.work_dir)?,
        root: fs::canonicalize(&options.root)?,
        backend: address,
        tools,
        round_trip: None,
    };

    let mut notes = BTreeSet::new();
    let mut machine = MachineCard::read();
    let plan = options.plan(options.kinds(&site.tools, &mut notes));
    let versions: BTreeMap<String, String> = plan
        .peers
        .iter()
        .map(|kind| (kind.name().to_owned(), kind.version(&site.tools)))
        .collect();
    // Without tests no peer needs to be started.
    let outcome = if plan.tests.is_empty() {
        Outcome::default()
    } else {
        suite::run(&site, &plan)
    };
    notes.extend(outcome.notes);
    let alone = if plan.peers.contains(&PeerKind::Nowconnect) {
        run_parts(options, &site, &mut notes)
    } else {
        Figures::new()
    };
    machine.load_after = load_average();

    let mode = if options.quick { "quick" } else { "full" };
    let report = Report::new(machine, mode, &outcome.rounds, alone, versions, notes);
    let json = serde_json::to_string_pretty(&report).context(|| "write the report".to_owned())?;
    for (ending, text) in [("md", report.markdown()), ("json", json + "\n")] {
        let path = options.out.with_extension(ending);
        fs::write(&path, text).context(|| format!("write {}", path.display()))?;
        say(&format!("wrote {}", path.display()));
    }
    Ok(())
}

fn run_parts(options: &RunOptions, site: &Site, notes: &mut BTreeSet<String>) -> Figures {
    let quick = options.quick;
    let mut figures = Figures::new();
    let parts = options.parts.iter().flat_map(|part| match part.as_str() {
        "platform" => platform::PARTS.to_vec(),
        "http" => http::PARTS.to_vec(),
        other => vec![other],
    });
    for part in parts {
        let started = Instant::now();
        let seen = match part {
            "open-cost" => product::measure_open_cost(site, if quick { 5 } else { 25 }),
            "swap" => product::measure_swap(site, if quick { 6 } else { 20 }),
            "ldap" => product::measure_ldap(site, if quick { 4 } else { 15 }, 3),
            "none" => continue,
            other => platform::measure(other, site, quick, notes)
                .or_else(|| http::measure(other, site, quick, notes))
                .unwrap_or_else(|| {
                    let parts = platform::PARTS.iter().chain(&http::PARTS);
                    let parts: Vec<String> = parts.map(|part| format!("`{part}`")).collect();
                    Err(Failure::new(format!(
                        "`{other}` is not a part; `open-cost`, `swap`, `ldap`, `platform`, \
                         `http`, {} and `none` are",
                        parts.join(", ")
                    )))
                }),
        };
        let took = started.elapsed().as_secs_f64();
        say(&format!("part {part:<16} {took:>6.1} s"));
        match seen {
            Ok(seen) => figures.extend(seen),
            Err(failure) => {
                say(&format!("  {part}: {failure}"));
                notes.insert(format!("{part}: {failure}"));
            }
        }
    }
    figures
}
