//! Taking over what changed while the hub runs: whole, or not at all.
//!
//! ```text
//! file, SIGHUP, admin call ─► read ─► build beside what serves ─► publish ─► order a re-check
//!                               └──────────────┴─► any error: everything stays as it was
//! ```
//! One task does one reload after another; the re-check has a [task of its own](crate::recheck). Everything that can fail comes first: reading,
//! checking, compiling, binding added ports. Publishing cannot fail. What a refused reload was
//! about is read again with every later one, so that nothing on disk is forgotten, and its
//! errors are shown (log, metric, admin answer, `bundle_stale` in `/readyz`) until all of it is
//! in force. Files of the HTTP ingress are no part of that: of those the [ingress](crate::ingress)
//! takes over what it can.
//!
//! The revocation list is the exception: it only takes rights away, so it is in force as soon as
//! it was read, whatever else is refused or under way.
//!
//! What is ordered about policy bundles is done by the same task, for the same reason; also while
//! a reload waits for what it builds, for a registry that says nothing must not hold up policies.
//! So the plugins of a reload are put beside the policies of the moment of its publication.

mod candidate;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::admin::view::{RecheckStatus, ReloadReport};
use crate::bundle::board::Order;
use crate::bundle::keeper::{Keeper, LOOK_EVERY};
use crate::config::{CloudConfig, ConfigError};
use crate::hub::Hub;
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
    /// What changed on disk and is not in force, because a reload of it was refused.
    pending: BTreeSet<Watched>,
    /// A configuration that was read and refused: what it names may be put right.
    refused_config: Option<Arc<CloudConfig>>,
    /// Keys whose value in the file waits for a restart.
    needs_restart: Vec<String>,
    /// What is wrong on disk, by part, until it is good again. Empty if and only if `pending` is.
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
            pending: BTreeSet::new(),
            refused_config: None,
            needs_restart: Vec::new(),
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
        let hub = Arc::clone(&self.hub);
        let mut keeper = self.keeper.take();
        // What changed while a reload was under way.
        let mut later = BTreeSet::new();
        loop {
            let (what, answer) = if later.is_empty() {
                tokio::select! {
                    Some(order) = orders.recv() => {
                        carry_out(&hub, &mut keeper, order).await;
                        continue;
                    }
                    _ = looks.tick(), if keeper.is_some() => {
                        look(&hub, &mut keeper).await;
                        continue;
                    }
                    ask = asks.recv() => match ask {
                        Some(ask) => (BTreeSet::from([Watched::Signal]), Some(ask.answer)),
                        None => return,
                    },
                    changed = next_change(&mut watcher) => (changed, None),
                }
            } else {
                (std::mem::take(&mut later), None)
            };
            let report = {
                let reload = self.reload(&what);
                tokio::pin!(reload);
                // It may wait for the servers that plugins come from. Nothing that takes rights
                // away may wait with it.
                loop {
                    tokio::select! {
                        report = &mut reload => break report,
                        Some(order) = orders.recv() => carry_out(&hub, &mut keeper, order).await,
                        _ = looks.tick(), if keeper.is_some() => look(&hub, &mut keeper).await,
                        changed = next_change(&mut watcher) => {
                            // What is wrong with the list is told by the reload that follows.
                            drop(take_revocations(&hub, &changed));
                            later.extend(changed);
                        }
                    }
                }
            };
            // Other keys may be trusted now.
            look(&hub, &mut keeper).await;
            self.hub.bundles().look.notify_one();
            if let Some(watcher) = &mut watcher {
                let mut set = WatchSet::of(&self.hub.config());
                if let Some(refused) = &self.refused_config {
                    set.add_set(WatchSet::of(refused));
                }
                watcher.update(set);
            }
            if let Some(answer) = answer {
                // Whoever asked may have given up.
                let _ = answer.send(report);
            }
        }
    }

    /// Reads what `asked` names, and what was refused before, and puts it in force or reports why
    /// not.
    async fn reload(&mut self, asked: &BTreeSet<Watched>) -> ReloadReport {
        let hub = Arc::clone(&self.hub);
        self.pending.extend(asked);
        let what = self.pending.clone();
        if asked.contains(&Watched::Signal)
            && let Some(log) = &hub.decision_log
        {
            log.reopen();
        }
        let (mut faults, ended) = take_revocations(&hub, &what);
        let taken_over = self.take_over(&what, &mut faults).await;
        let is_published = taken_over.is_some();
        let mut report = taken_over.unwrap_or_else(|| self.refused(faults));
        if ended > 0 {
            report
                .changed
                .push(format!("sessions ended by the revocation list: {ended}"));
        }
        if !is_published {
            return report;
        }
        info!(
            event = events::RELOADED,
            generation = report.generation,
            changed = %report.changed.join(", "),
            needs_restart = %report.needs_restart.join(", "),
            "what was read is in force"
        );
        // Whoever asked waits for it; the next reload does not.
        report.recheck = Some(RecheckStatus::begun(hub.rounds().begin()));
        report
    }

    /// Builds and publishes everything, unless there is a fault.
    async fn take_over(
        &mut self,
        what: &BTreeSet<Watched>,
        faults: &mut Vec<Fault>,
    ) -> Option<ReloadReport> {
        let hub = Arc::clone(&self.hub);
        let before = hub.config();
        let reads_config = what.contains(&Watched::Signal) || what.contains(&Watched::Config);
        let read = if reads_config {
            match self.load().await {
                Ok(config) => config,
                Err(fault) => {
                    faults.push(fault);
                    return None;
                }
            }
        } else {
            Arc::clone(&before)
        };
        self.refused_config = Some(Arc::clone(&read));
        // What needs a restart is left as it is, and so goes on differing from the file.
        let changes = read.changes_from(&before);
        let config = Arc::new(read.keeping_fixed(&before));
        let candidate = Candidate::build(&hub, &config, what, faults).await?;
        if let Some(level) = &self.log_level
            && config.observability.log_level != before.observability.log_level
            && let Err(error) = level.set(&config.observability.log_level)
        {
            faults.push(Fault {
                part: Part::Config,
                message: error.to_string(),
            });
            return None;
        }
        if reads_config {
            self.needs_restart = changes.restart.iter().map(ToString::to_string).collect();
        }
        let mut parts = candidate.parts();
        parts.extend(what.iter().filter_map(|watched| match watched {
            Watched::Config | Watched::Signal => Some(Part::Config),
            Watched::Revocations => Some(Part::Revocation),
            Watched::Policies | Watched::Plugins | Watched::Certificates | Watched::Keys => None,
        }));
        let mut report = candidate.publish(&hub, &config, &changes);
        report.needs_restart.clone_from(&self.needs_restart);
        report.generation = hub.generations.current().number();
        report.ok = report.errors.is_empty();
        for part in parts {
            hub.metrics.policy.reloaded(part.metric(), ReloadResult::Ok);
        }
        if !report.ok {
            let part = Part::Certificates.metric();
            hub.metrics.policy.reloaded(part, ReloadResult::Refused);
        }
        // Everything that was ever refused has been read with it.
        self.pending.clear();
        self.refused_config = None;
        self.faults.clear();
        self.show_faults();
        Some(report)
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

    fn refused(&mut self, faults: Vec<Fault>) -> ReloadReport {
        let mut report = ReloadReport {
            ok: false,
            generation: self.hub.generations.current().number(),
            needs_restart: self.needs_restart.clone(),
            ..ReloadReport::default()
        };
        // What they say of a part is said anew; the others' are about what is still pending.
        self.faults.clear();
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

/// Reads the list in force again where that is asked for, and ends what is revoked now.
fn take_revocations(hub: &Hub, what: &BTreeSet<Watched>) -> (Vec<Fault>, usize) {
    let mut faults = Vec::new();
    if what.contains(&Watched::Signal) || what.contains(&Watched::Revocations) {
        // The list itself remembers that its file was there, so that a lost file lets nobody in.
        if let Err(error) = hub.authorizer.revocations().reload() {
            faults.push(Fault {
                part: Part::Revocation,
                message: error.to_string(),
            });
        }
    }
    (faults, session::end_revoked(hub))
}

async fn carry_out(hub: &Arc<Hub>, keeper: &mut Option<Keeper>, order: Order) {
    if let Some(keeper) = keeper {
        keeper.carry_out(hub, order).await;
    }
}

async fn look(hub: &Arc<Hub>, keeper: &mut Option<Keeper>) {
    if let Some(keeper) = keeper {
        keeper.look(hub).await;
    }
}

async fn next_change(watcher: &mut Option<Watcher>) -> BTreeSet<Watched> {
    match watcher {
        Some(watcher) => watcher.next().await,
        None => std::future::pending().await,
    }
}
