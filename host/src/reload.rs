//! Taking over what changed while the hub runs: whole, or not at all.
//!
//! ```text
//! file, SIGHUP, admin call ─► read ─► build beside what serves ─► publish ─► ask running flows
//!                               └──────────────┴─► any error: everything stays as it was
//! ```
//! One task does one reload after another. Everything that can fail comes first: reading,
//! checking, compiling, binding added ports. Publishing cannot fail. An error is kept and shown
//! (log, metric, admin answer, `bundle_stale` in `/readyz`) until what it was about is good
//! again. What is ordered about policy bundles is done by the same task, for the same reason.

mod candidate;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::admin::view::ReloadReport;
use crate::bundle::board::Order;
use crate::bundle::keeper::{Keeper, LOOK_EVERY};
use crate::config::{CloudConfig, ConfigError};
use crate::hub::Hub;
use crate::recheck;
use crate::session;
use crate::telemetry::events;
use crate::telemetry::logs::LevelControl;
use crate::telemetry::metrics::{ReloadPart, ReloadResult};
use crate::watch::{WatchSet, Watched, Watcher};
use candidate::Candidate;
pub(crate) use candidate::{load_tls, read_revocations};

/// Reloads that wait for the one under way. Each reads everything anew, so a longer queue would
/// only repeat work.
pub(crate) const MAX_WAITING_RELOADS: usize = 4;

/// Reads the configuration again.
pub type Loader = Arc<dyn Fn() -> Result<CloudConfig, ConfigError> + Send + Sync>;

/// Somebody wants everything to be read again.
#[derive(Debug)]
pub(crate) struct ReloadAsk {
    pub(crate) answer: oneshot::Sender<ReloadReport>,
}

/// Does the reloads of one hub.
pub(crate) struct Reloader {
    hub: Arc<Hub>,
    loader: Option<Loader>,
    log_level: Option<LevelControl>,
    /// Does what is ordered about bundles; absent where there are none.
    keeper: Option<Keeper>,
    /// What is wrong on disk, by part, until it is good again.
    faults: BTreeMap<Part, Vec<String>>,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// What a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Config,
    Generation,
    Listeners,
    Certificates,
    Revocation,
    Keys,
}

impl Part {
    fn metric(self) -> ReloadPart {
        match self {
            Self::Config | Self::Listeners => ReloadPart::Config,
            Self::Generation => ReloadPart::Generation,
            Self::Certificates => ReloadPart::Certificates,
            Self::Revocation => ReloadPart::Revocation,
            Self::Keys => ReloadPart::Keys,
        }
    }
}

/// One error and what it is about.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) part: Part,
    pub(crate) message: String,
}

impl Reloader {
    pub(crate) fn new(
        hub: Arc<Hub>,
        loader: Option<Loader>,
        log_level: Option<LevelControl>,
        keeper: Option<Keeper>,
    ) -> Self {
        Self {
            hub,
            loader,
            log_level,
            keeper,
            faults: BTreeMap::new(),
        }
    }

    /// Reloads when asked to and when something changes, until dropped.
    pub(crate) async fn run(
        mut self,
        mut watcher: Option<Watcher>,
        mut asks: mpsc::Receiver<ReloadAsk>,
        mut orders: mpsc::Receiver<Order>,
    ) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (what, answer) = tokio::select! {
                order = orders.recv() => {
                    if let (Some(keeper), Some(order)) = (&mut self.keeper, order) {
                        keeper.carry_out(&self.hub, order).await;
                    }
                    continue;
                }
                _ = looks.tick(), if self.keeper.is_some() => {
                    if let Some(keeper) = &mut self.keeper {
                        keeper.look(&self.hub).await;
                    }
                    continue;
                }
                ask = asks.recv() => match ask {
                    Some(ask) => (BTreeSet::from([Watched::Signal]), Some(ask.answer)),
                    None => return,
                },
                changed = next_change(&mut watcher) => (changed, None),
            };
            let report = self.reload(&what).await;
            self.hub.bundles().look.notify_one();
            if let Some(watcher) = &mut watcher {
                watcher.update(WatchSet::of(&self.hub.config()));
            }
            if let Some(answer) = answer {
                // Whoever asked may have given up.
                let _ = answer.send(report);
            }
        }
    }

    /// Reads what `what` names and puts it in force, or reports why not.
    async fn reload(&mut self, what: &BTreeSet<Watched>) -> ReloadReport {
        let hub = Arc::clone(&self.hub);
        let all = what.contains(&Watched::Signal);
        let wanted = if all || what.contains(&Watched::Config) {
            match self.load().await {
                Ok(config) => config,
                Err(fault) => return self.refused(vec![fault]),
            }
        } else {
            hub.config()
        };
        // What needs a restart stays as it was.
        let config = Arc::new(wanted.keeping_fixed(&hub.config()));
        let candidate = match Candidate::build(&hub, &config, what).await {
            Ok(candidate) => candidate,
            Err(faults) => return self.refused(faults),
        };
        if all && let Some(log) = &hub.decision_log {
            log.reopen();
        }
        let before = hub.config();
        if let Some(level) = &self.log_level
            && config.observability.log_level != before.observability.log_level
            && let Err(error) = level.set(&config.observability.log_level)
        {
            return self.refused(vec![Fault {
                part: Part::Config,
                message: error.to_string(),
            }]);
        }
        let changes = wanted.changes_from(&before);
        let mut report = candidate.publish(&hub, &config, &changes);
        for part in self.settled(what) {
            self.faults.remove(&part);
            hub.metrics.policy.reloaded(part.metric(), ReloadResult::Ok);
        }
        self.show_faults();
        let ended = session::end_revoked(&hub);
        if ended > 0 {
            report
                .changed
                .push(format!("sessions ended by the revocation list: {ended}"));
        }
        let rechecked = recheck::recheck(&hub, |_| true).await;
        report.flows_closed = rechecked.closed;
        report.sessions_closed = recheck::recheck_sessions(&hub).await.closed;
        report.generation = hub.generations.current().number();
        report.ok = true;
        info!(
            event = events::RELOADED,
            generation = report.generation,
            changed = %report.changed.join(", "),
            needs_restart = %report.needs_restart.join(", "),
            flows_closed = report.flows_closed,
            sessions_closed = report.sessions_closed,
            "what was read is in force"
        );
        report
    }

    async fn load(&self) -> Result<Arc<CloudConfig>, Fault> {
        let Some(loader) = self.loader.clone() else {
            return Ok(self.hub.config());
        };
        // Reading a file may block.
        let loaded = tokio::task::spawn_blocking(move || loader()).await;
        match loaded {
            Ok(Ok(config)) => Ok(Arc::new(config)),
            Ok(Err(error)) => Err(Fault {
                part: Part::Config,
                message: error.to_string(),
            }),
            Err(_) => Err(Fault {
                part: Part::Config,
                message: "reading the configuration panicked; please report this".to_owned(),
            }),
        }
    }

    /// The parts that a successful reload of `what` has shown to be good.
    fn settled(&self, what: &BTreeSet<Watched>) -> Vec<Part> {
        if what.contains(&Watched::Signal) || what.contains(&Watched::Config) {
            return vec![
                Part::Config,
                Part::Listeners,
                Part::Generation,
                Part::Certificates,
                Part::Revocation,
                Part::Keys,
            ];
        }
        what.iter()
            .map(|watched| match watched {
                Watched::Config | Watched::Signal => Part::Config,
                Watched::Policies | Watched::Plugins => Part::Generation,
                Watched::Certificates => Part::Certificates,
                Watched::Revocations => Part::Revocation,
                Watched::Keys => Part::Keys,
            })
            .collect()
    }

    fn refused(&mut self, faults: Vec<Fault>) -> ReloadReport {
        let mut report = ReloadReport {
            ok: false,
            generation: self.hub.generations.current().number(),
            ..ReloadReport::default()
        };
        let mut by_part: BTreeMap<Part, Vec<String>> = BTreeMap::new();
        for fault in faults {
            warn!(
                event = events::RELOAD_REFUSED,
                part = ?fault.part,
                error = %fault.message,
                "what was read is refused; the last good form stays in force"
            );
            report.errors.push(fault.message.clone());
            by_part.entry(fault.part).or_default().push(fault.message);
        }
        for (part, messages) in by_part {
            self.hub
                .metrics
                .policy
                .reloaded(part.metric(), ReloadResult::Refused);
            if part == Part::Generation {
                self.hub.metrics.policy.generation_refused();
            }
            self.faults.insert(part, messages);
        }
        self.show_faults();
        report
    }

    fn show_faults(&self) {
        let messages: Vec<String> = self.faults.values().flatten().cloned().collect();
        self.hub
            .bundle_stale
            .store(!messages.is_empty(), Ordering::Relaxed);
        self.hub.last_errors.store(Arc::new(messages));
    }
}

async fn next_change(watcher: &mut Option<Watcher>) -> BTreeSet<Watched> {
    match watcher {
        Some(watcher) => watcher.next().await,
        None => std::future::pending().await,
    }
}
