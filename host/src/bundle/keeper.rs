//! Bundles and the running hub: orders are carried out here, one after another, in the task
//! that also does reloads. So no two generations are ever built on each other's back.
//!
//! Nothing here waits for what runs: what a change does to flows and sessions is for the
//! [re-check](crate::recheck) that it orders.

mod activate;
mod concerns;
mod deliver;
mod trust;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nowconnect_policy::{Sources, TrustedKeys};
use tracing::warn;

use super::board::Order;
use super::life::{Life, Opened, Set};
use super::prove::Prover;
use super::refused::{BundleRefused, codes};
use super::state::Origin;
use super::store::{DiskStore, LOCK_WAIT, Store};
use super::view::{ActivateRequest, BundleProblem, BundleStatus};
use crate::config::BundleConfig;
use crate::generation::Brought;
use crate::hub::Hub;
use crate::telemetry::events;
use concerns::{Concern, Concerns};
use trust::Trust;

/// How often is looked whether a staged bundle may come into force, the one in force has run
/// out, or what could not be written down can be now.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Entries of the history that the status shows.
const SHOWN: usize = 50;

/// What a hub begins with.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) keeper: Keeper,
    /// The policies in force; without a bundle, those that permit nothing.
    pub(crate) brought: Brought,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Absent while a step is under way elsewhere, and for good if one panicked.
    life: Option<Life>,
    active: Option<Set>,
    trust: Trust,
    /// What serves where no bundle may.
    nothing: Brought,
    concerns: Concerns,
    waits_for: Vec<BundleRefused>,
    prover: Prover,
}

impl Keeper {
    /// Opens the state folder and loads what was in force. Blocks.
    ///
    /// # Errors
    /// The folder cannot be used at all.
    pub(crate) fn begin(config: &BundleConfig) -> Result<Begun, String> {
        let store = DiskStore::open(&config.state_dir, LOCK_WAIT)
            .map_err(|error| format!("`policy.bundle.state_dir`: {error}"))?;
        Self::begin_with(Box::new(store), &config.trusted)
    }

    fn begin_with(store: Box<dyn Store>, trusted: &TrustedKeys) -> Result<Begun, String> {
        let Opened {
            life,
            active,
            troubles,
        } = Life::open(store, trusted, SystemTime::now());
        let nothing = nothing_permitted()?;
        let brought = active
            .as_ref()
            .map_or_else(|| nothing.clone(), Set::brought);
        let mut keeper = Self {
            life: Some(life),
            active,
            trust: Trust::default(),
            nothing,
            concerns: Concerns::default(),
            waits_for: Vec::new(),
            prover: Prover::default(),
        };
        keeper.concerns.began(troubles);
        Ok(Begun { keeper, brought })
    }

    /// The hub serves: shows what there is, and compares what was staged.
    pub(crate) fn started(&self, hub: &Hub) {
        if let Some(set) = self.life.as_ref().and_then(Life::staged) {
            self.compare(hub, set);
        }
        self.show(hub);
    }

    /// Carries an order out and answers it.
    pub(crate) async fn carry_out(&mut self, hub: &Arc<Hub>, order: Order) {
        // Whoever asked may have given up; it is done all the same.
        match order {
            Order::Deliver {
                archive,
                origin,
                stage_only,
                answer,
            } => drop(answer.send(self.deliver(hub, *archive, origin, stage_only).await)),
            Order::Activate { request, answer } => {
                drop(answer.send(self.activate(hub, &request).await));
            }
            Order::Discard { answer } => drop(answer.send(self.discard(hub).await)),
            Order::Read { revision, answer } => {
                let bytes = self
                    .step(move |life| life.bytes_of(revision))
                    .await
                    .and_then(|bytes| {
                        bytes.map_err(|_| {
                            let message = format!("revision {revision} is not kept");
                            BundleRefused::new(codes::LOST, message)
                        })
                    });
                drop(answer.send(bytes));
            }
            Order::Source(problem) => self.concerns.set(Concern::Source, problem),
        }
        self.show(hub);
    }

    /// Does what time, and a configuration that was reloaded, bring.
    pub(crate) async fn look(&mut self, hub: &Arc<Hub>) {
        let Some(config) = hub.config().policy.bundle.clone() else {
            return;
        };
        let past = self
            .active
            .as_ref()
            .and_then(|set| set.past(SystemTime::now()));
        self.concerns.set(Concern::Time, past);
        self.look_at_trust(hub, &config).await;
        if self.concerns.has(Concern::Disk)
            && let Ok(written) = self.step(|life| life.write_again()).await
        {
            let problem = written.err().map(BundleRefused::from);
            self.concerns.set(Concern::Disk, problem);
        }
        if self.may_activate_itself(&config) {
            self.waits_for = self.unmet(hub, config.require);
            if self.waits_for.is_empty() {
                // A refusal is kept as a concern, and this is tried again.
                let _ = self.activate(hub, &ActivateRequest::default()).await;
            }
        }
        self.show(hub);
    }

    fn compare(&self, hub: &Hub, set: &Set) {
        let staged = Arc::clone(&set.policies);
        if let Err(error) = hub.authorizer().shadow().begin(set.revision, staged) {
            warn!(%error, "the staged policies cannot be compared: no thread is to be had");
        }
    }

    fn rejected(&mut self, hub: &Hub, revision: u64, origin: Origin, refused: &BundleRefused) {
        hub.metrics().bundle.rejected(refused.code);
        warn!(
            target: events::SECURITY,
            event = events::BUNDLE_REJECTED,
            revision,
            origin = origin.as_str(),
            code = refused.code,
            error = %refused.message,
            "a policy bundle is refused; what is in force stays"
        );
        if !origin.is_asked_for() {
            self.concerns.set(Concern::Newest, Some(refused.clone()));
        }
    }

    fn show(&self, hub: &Hub) {
        let Some(life) = &self.life else {
            return;
        };
        let state = life.state();
        let status = BundleStatus {
            enabled: true,
            active: self.active.as_ref().map(|set| set.entry.clone()),
            withheld: self.trust.withholds(),
            staged: life.staged().map(|set| set.entry.clone()),
            highest_revision: state.highest.as_ref().map(|highest| highest.revision),
            waits_for: problems(&self.waits_for),
            problems: self.concerns.problems(),
            kept: life.kept().to_vec(),
            history: state.history.iter().rev().take(SHOWN).cloned().collect(),
        };
        hub.metrics().bundle.state(&status);
        hub.bundles().show(status);
    }

    /// Does something that may block: compiling, or writing to a disk.
    async fn step<T: Send + 'static>(
        &mut self,
        step: impl FnOnce(&mut Life) -> T + Send + 'static,
    ) -> Result<T, BundleRefused> {
        let mut life = self.life.take().ok_or_else(BundleRefused::internal)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = step(&mut life);
            (life, done)
        });
        let (life, done) = done.await.map_err(|_| BundleRefused::internal())?;
        self.life = Some(life);
        Ok(done)
    }
}

/// What serves where no bundle may: operators may bring one, nothing else may be.
fn nothing_permitted() -> Result<Brought, String> {
    let mut sources: Sources = nowconnect_policy::shipped();
    sources
        .policies
        .retain(|file| file.name == "shipped:admin.cedar");
    let policies =
        nowconnect_policy::PolicyBundle::compile(&sources, 1).map_err(|found| found.to_string())?;
    Ok(Brought {
        policies: Arc::new(policies),
        revision: None,
    })
}

fn bundles_of(hub: &Hub) -> Result<BundleConfig, BundleRefused> {
    hub.config().policy.bundle.clone().ok_or_else(off)
}

/// There are no bundles at this hub.
pub(crate) fn off() -> BundleRefused {
    BundleRefused::new(
        codes::OFF,
        "this hub takes no bundles; name the keys they are signed with in \
         `policy.bundle.trusted_keys`",
    )
}

fn problem(refused: &BundleRefused) -> BundleProblem {
    BundleProblem {
        code: refused.code.to_owned(),
        message: crate::telemetry::redact::floor(&refused.message).into_owned(),
    }
}

fn problems(refused: &[BundleRefused]) -> Vec<BundleProblem> {
    refused.iter().map(problem).collect()
}
