//! A run: rounds of tests, each on every peer in turn, so that a noisy minute falls on all
//! of them alike and the ratios of a round stay good.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::figures::{Figures, Pace, Test};
use crate::machine::tcp_buffer_pages;
use crate::peers::{PeerKind, RunningPeer, Site};
use crate::say;

/// Kernel buffers may hold this much more than before the run when a test starts: 1 MiB.
const QUIET_PAGES: u64 = 256;

/// How long is waited for that.
const DRAIN_DEADLINE: Duration = Duration::from_secs(8);

/// Figures of one round, by peer.
pub(crate) type Round = BTreeMap<PeerKind, Figures>;

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) peers: Vec<PeerKind>,
    pub(crate) tests: Vec<Test>,
    pub(crate) rounds: usize,
    /// Rounds in which the tests that need fresh peers are run: starting costs seconds.
    pub(crate) fresh_rounds: usize,
    pub(crate) pace: Pace,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) rounds: Vec<Round>,
    /// Peers and tests that failed, with the reason.
    pub(crate) notes: BTreeSet<String>,
}

/// Runs the plan.
pub(crate) fn run(site: &Site, plan: &Plan) -> Outcome {
    let mut suite = Suite {
        site,
        plan,
        idle_pages: tcp_buffer_pages(),
        outcome: Outcome::default(),
        broken: BTreeSet::new(),
    };
    let mut running: BTreeMap<PeerKind, RunningPeer> = BTreeMap::new();
    for kind in &plan.peers {
        match kind.start(site) {
            Ok(peer) => {
                running.insert(*kind, peer);
            }
            Err(failure) => suite.note(format!("left out: {failure}")),
        }
    }
    let started: Vec<PeerKind> = running.keys().copied().collect();
    for number in 0..plan.rounds {
        let mut round = Round::new();
        for test in &plan.tests {
            if test.wants_fresh_peer() && number >= plan.fresh_rounds {
                continue;
            }
            let clock = Instant::now();
            // Each round begins with another peer: none is always the one after the loudest.
            for turn in 0..started.len() {
                let kind = started[(turn + number) % started.len()];
                if suite.broken.contains(&(kind, test.name())) {
                    continue;
                }
                let figures = if test.wants_fresh_peer() {
                    suite.on_fresh(kind, *test, &mut running)
                } else {
                    suite.on_running(kind, *test, &mut running)
                };
                match figures {
                    Ok(figures) => round.entry(kind).or_default().extend(figures),
                    Err(failure) => {
                        suite.broken.insert((kind, test.name()));
                        suite.note(format!("{} in {}: {failure}", kind.name(), test.name()));
                    }
                }
            }
            say(&format!(
                "round {}/{}  {:<15} {:>5.1} s",
                number + 1,
                plan.rounds,
                test.name(),
                clock.elapsed().as_secs_f64()
            ));
        }
        suite.outcome.rounds.push(round);
    }
    suite.outcome
}

struct Suite<'a> {
    site: &'a Site,
    plan: &'a Plan,
    idle_pages: u64,
    outcome: Outcome,
    /// What failed once is not tried again: a peer that hangs would cost a deadline a round.
    broken: BTreeSet<(PeerKind, String)>,
}

impl Suite<'_> {
    fn note(&mut self, note: String) {
        say(&format!("  {note}"));
        self.outcome.notes.insert(note);
    }

    fn on_running(
        &mut self,
        kind: PeerKind,
        test: Test,
        running: &mut BTreeMap<PeerKind, RunningPeer>,
    ) -> Result<Figures, Failure> {
        wait_for_drain(self.idle_pages);
        let Some(peer) = running.get(&kind) else {
            return Err(Failure::new("did not come back after an earlier failure"));
        };
        let seen = test.run(peer, self.site.backend, self.plan.pace);
        if seen.is_err() {
            running.remove(&kind);
            if let Ok(peer) = kind.start(self.site) {
                running.insert(kind, peer);
            }
        }
        seen
    }

    fn on_fresh(
        &self,
        kind: PeerKind,
        test: Test,
        running: &mut BTreeMap<PeerKind, RunningPeer>,
    ) -> Result<Figures, Failure> {
        wait_for_drain(self.idle_pages);
        if kind.is_alone() {
            running.remove(&kind);
        }
        let mut site = self.site.clone();
        site.round_trip = test.round_trip();
        let seen =
            fresh(kind, &site).and_then(|peer| test.run(&peer, site.backend, self.plan.pace));
        if kind.is_alone()
            && let Ok(peer) = kind.start(self.site)
        {
            running.insert(kind, peer);
        }
        seen
    }
}

fn fresh(kind: PeerKind, site: &Site) -> Result<RunningPeer, Failure> {
    let peer = kind.start(site)?;
    // Whatever a peer does in its first moments is not its idle state.
    std::thread::sleep(Duration::from_millis(300));
    Ok(peer)
}

/// Waits until the bytes that earlier tests left in kernel buffers are gone.
pub(crate) fn wait_for_drain(idle_pages: u64) {
    let deadline = Instant::now() + DRAIN_DEADLINE;
    while tcp_buffer_pages() > idle_pages + QUIET_PAGES && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts the backend as a process of its own.
pub(crate) fn start_backend(
    dir: &std::path::Path,
) -> Result<(crate::process::Tied, SocketAddr), Failure> {
    let port = crate::peers::free_port()?;
    let args = ["backend", "--port", &port.to_string()].map(std::ffi::OsString::from);
    let own = std::env::current_exe()?;
    let process = crate::process::Tied::start("backend", dir, &own, &args, &[])?;
    let address = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + Duration::from_secs(5);
    while crate::load::open::open_once(address).is_err() {
        if Instant::now() > deadline {
            return Err(Failure::new("the backend does not answer"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((process, address))
}
