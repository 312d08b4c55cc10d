//! Bundles and the running hub: orders are carried out here, one after another, in the task
//! that also does reloads. So no two generations are ever built on each other's back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nowconnect_policy::{BundleArchive, RefusalCode, Sources, TrustedKeys, Verified};
use tracing::{info, warn};

use super::board::Order;
use super::gate;
use super::life::{Life, Opened, Set, Standing};
use super::prove::Prover;
use super::refused::{BundleRefused, codes};
use super::state::{Origin, Stage};
use super::store::{DiskStore, LOCK_WAIT, Store};
use super::view::{ActivateReport, ActivateRequest, BundleProblem, BundleStatus, DeliverReport};
use crate::authorize::unix_ms;
use crate::config::{BundleConfig, BundleRequire};
use crate::hub::Hub;
use crate::recheck;
use crate::telemetry::events;

/// How often is looked whether a staged bundle may come into force, the one in force has run
/// out, or what could not be written down can be now.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Entries of the history that the status shows.
const SHOWN: usize = 50;

/// What is wrong until it is right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Concern {
    /// What the state held at the start.
    Start,
    /// Writing it.
    Disk,
    /// The newest bundle of the source.
    Newest,
    /// The source itself.
    Source,
    /// The time of the bundle in force.
    Time,
}

/// What a hub begins with.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) keeper: Keeper,
    /// The policies in force; without a bundle, those that permit nothing.
    pub(crate) policies: Arc<nowconnect_policy::PolicyBundle>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Absent while a step is under way elsewhere, and for good if one panicked.
    life: Option<Life>,
    active: Option<Set>,
    concerns: BTreeMap<Concern, BundleRefused>,
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
        let policies = match &active {
            Some(set) => Arc::clone(&set.policies),
            None => Arc::new(nothing_permitted()?),
        };
        let mut concerns = BTreeMap::new();
        for trouble in troubles {
            tell(&trouble, "what an earlier run kept is not whole");
            concerns.entry(Concern::Start).or_insert(trouble);
        }
        let keeper = Self {
            life: Some(life),
            active,
            concerns,
            waits_for: Vec::new(),
            prover: Prover::default(),
        };
        Ok(Begun { keeper, policies })
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
            Order::Source(problem) => self.concern(Concern::Source, problem, "the bundle source"),
        }
        self.show(hub);
    }

    /// Does what time brings.
    pub(crate) async fn look(&mut self, hub: &Arc<Hub>) {
        let Some(config) = hub.config().policy.bundle.clone() else {
            return;
        };
        let past = self
            .active
            .as_ref()
            .filter(|set| set.is_past(unix_ms(SystemTime::now())))
            .map(|set| {
                let message = format!(
                    "revision {} is past its `not_after`; it stays in force until another comes",
                    set.revision
                );
                BundleRefused::new(RefusalCode::Expired.as_str(), message)
            });
        self.concern(Concern::Time, past, "the bundle in force");
        if self.concerns.contains_key(&Concern::Disk)
            && let Ok(written) = self.step(|life| life.write_again()).await
        {
            let problem = written.err().map(BundleRefused::from);
            self.concern(Concern::Disk, problem, "the bundle state");
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

    async fn deliver(
        &mut self,
        hub: &Arc<Hub>,
        archive: BundleArchive,
        origin: Origin,
        stage_only: bool,
    ) -> Result<DeliverReport, BundleRefused> {
        let config = bundles_of(hub)?;
        let revision = archive.revision();
        hub.metrics().bundle.delivered(origin.as_str());
        info!(
            event = events::BUNDLE_DELIVERED,
            revision,
            origin = origin.as_str(),
            "a policy bundle has come"
        );
        let trusted = config.trusted.clone();
        let hold = stage_only || !config.auto_activate;
        let taken = self
            .step(move |life| take(life, archive, &trusted, origin, hold))
            .await?;
        let taken = match taken {
            Ok(taken) => taken,
            Err((refused, not_kept)) => {
                self.rejected(hub, revision, origin, &refused);
                if let Some(error) = not_kept {
                    self.concern(Concern::Disk, Some(error), "the bundle state");
                }
                return Err(refused);
            }
        };
        if !origin.is_asked_for() {
            self.concern(Concern::Newest, None, "the newest bundle");
        }
        let mut report = DeliverReport {
            revision,
            stage: taken.stage(),
            unchanged: taken.is_unchanged(),
            waits_for: Vec::new(),
            activation: None,
        };
        if report.unchanged {
            return Ok(report);
        }
        if let Some(set) = self.life.as_ref().and_then(Life::staged) {
            self.compare(hub, set);
            info!(
                event = events::BUNDLE_STAGED,
                revision,
                signers = %set.entry.signers.join(","),
                "a policy bundle is staged"
            );
        }
        if origin == Origin::Rollback && !stage_only {
            // Whoever goes back has said so; nothing is compared first.
            let activation = self.put_in_force(hub, Instant::now()).await?;
            report.stage = Stage::Active;
            report.activation = Some(activation);
        } else if self.may_activate_itself(&config) {
            self.waits_for = self.unmet(hub, config.require);
            if self.waits_for.is_empty() {
                report.activation = Some(self.put_in_force(hub, Instant::now()).await?);
                report.stage = Stage::Active;
            }
            report.waits_for = problems(&self.waits_for);
        }
        Ok(report)
    }

    async fn activate(
        &mut self,
        hub: &Arc<Hub>,
        request: &ActivateRequest,
    ) -> Result<ActivateReport, BundleRefused> {
        let ordered = Instant::now();
        let config = bundles_of(hub)?;
        let staged = self.staged()?.clone();
        if let Some(wanted) = request.revision
            && wanted != staged.revision
        {
            let message = format!("revision {} is staged, not {wanted}", staged.revision);
            return Err(BundleRefused::new(codes::OTHER_STAGED, message));
        }
        let unmet = self.unmet(hub, gate::joined(config.require, request));
        if request.dry_run {
            return Ok(ActivateReport {
                revision: staged.revision,
                forecast: Some(recheck::forecast(hub, &staged.policies).await),
                unmet: problems(&unmet),
                ..ActivateReport::default()
            });
        }
        if let Some(first) = unmet.into_iter().next() {
            return Err(first);
        }
        self.put_in_force(hub, ordered).await
    }

    /// The staged set comes into force: written down, published, and what runs is asked again.
    async fn put_in_force(
        &mut self,
        hub: &Arc<Hub>,
        ordered: Instant,
    ) -> Result<ActivateReport, BundleRefused> {
        let config = bundles_of(hub)?;
        let (keep, trusted) = (config.keep, config.trusted.clone());
        let activated = self
            .step(move |life| life.activate(&trusted, SystemTime::now(), keep))
            .await?;
        let set = match activated {
            Ok(set) => set,
            Err(refused) if refused.code == codes::NOT_KEPT => {
                self.concern(Concern::Disk, Some(refused.clone()), "the bundle state");
                return Err(refused);
            }
            Err(refused) => {
                self.no_longer_good(hub, &refused).await?;
                return Err(refused);
            }
        };
        let number = hub.generations().next_number();
        let current = hub.generations().current();
        hub.generations()
            .publish(current.with_policies(number, Arc::clone(&set.policies)));
        let visible_after = ordered.elapsed();
        drop(hub.authorizer().shadow().end());
        hub.metrics()
            .policy
            .generation_activated(number, SystemTime::now());
        info!(
            target: events::SECURITY,
            event = events::BUNDLE_ACTIVE,
            revision = set.revision,
            generation = number,
            signers = %set.entry.signers.join(","),
            "a policy bundle is in force"
        );
        let revision = set.revision;
        self.active = Some(set);
        self.waits_for.clear();
        for concern in [Concern::Start, Concern::Disk, Concern::Time] {
            self.concerns.remove(&concern);
        }
        self.show(hub);
        let flows = recheck::recheck(hub, |_| true).await;
        let sessions = recheck::recheck_sessions(hub).await;
        Ok(ActivateReport {
            revision,
            activated: true,
            generation: Some(number),
            forecast: None,
            unmet: Vec::new(),
            flows_closed: flows.closed,
            sessions_closed: sessions.closed,
            connectors_lost: sessions.connectors_lost,
            visible_after_us: u64::try_from(visible_after.as_micros()).unwrap_or(u64::MAX),
        })
    }

    async fn discard(&mut self, hub: &Arc<Hub>) -> Result<u64, BundleRefused> {
        bundles_of(hub)?;
        let refused = BundleRefused::new(codes::DISCARDED, "an operator took it back");
        let told = refused.clone();
        let revision = self
            .step(move |life| life.discard(&refused, SystemTime::now()))
            .await??;
        drop(hub.authorizer().shadow().end());
        self.waits_for.clear();
        self.rejected(hub, revision, Origin::Push, &told);
        Ok(revision)
    }

    /// The staged set was good when it came and is not now.
    async fn no_longer_good(
        &mut self,
        hub: &Hub,
        refused: &BundleRefused,
    ) -> Result<(), BundleRefused> {
        let why = refused.clone();
        let revision = self
            .step(move |life| life.discard(&why, SystemTime::now()))
            .await??;
        drop(hub.authorizer().shadow().end());
        self.waits_for.clear();
        self.rejected(hub, revision, Origin::Path, refused);
        Ok(())
    }

    fn staged(&self) -> Result<&Set, BundleRefused> {
        let life = self.life.as_ref().ok_or_else(BundleRefused::internal)?;
        life.staged().ok_or_else(|| {
            BundleRefused::new(
                codes::NONE_STAGED,
                "no bundle is staged; `nowconnect policy push BUNDLE` brings one",
            )
        })
    }

    fn may_activate_itself(&self, config: &BundleConfig) -> bool {
        let staged = self
            .life
            .as_ref()
            .is_some_and(|life| life.staged().is_some() && !life.state().hold);
        // Where what was in force is lost there is nothing to compare with, so what is required
        // of a change cannot be shown: a person decides.
        let lost = self.active.is_none() && self.life.as_ref().is_some_and(Life::had_one);
        let gated = config.require != BundleRequire::default();
        config.auto_activate && staged && !(lost && gated)
    }

    /// What the staged set does not meet. The first one of a hub has nothing to be compared
    /// with: before it nothing was permitted. Nor has one that a person activates after what
    /// was in force is lost.
    fn unmet(&mut self, hub: &Hub, require: BundleRequire) -> Vec<BundleRefused> {
        let (Some(active), Ok(staged)) = (self.active.clone(), self.staged().cloned()) else {
            return Vec::new();
        };
        let report = hub.authorizer().shadow().report();
        let mut unmet = gate::unmet(require, report.as_ref());
        if require.proof {
            match self.prover.nothing_new(&active, &staged) {
                // A proof is about policies; what else changes is for the shadow to see.
                Ok(proved) if proved.facts_change => {
                    let seen = BundleRequire {
                        no_new_allow: true,
                        ..require
                    };
                    unmet = gate::unmet(seen, report.as_ref());
                }
                Ok(_) => {}
                Err(refused) => unmet.push(refused),
            }
        }
        unmet
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
            self.concerns.insert(Concern::Newest, refused.clone());
        }
    }

    fn concern(&mut self, about: Concern, problem: Option<BundleRefused>, what: &str) {
        match problem {
            Some(problem) => {
                if self.concerns.get(&about).map(|known| known.code) != Some(problem.code) {
                    tell(&problem, what);
                }
                self.concerns.insert(about, problem);
            }
            None => drop(self.concerns.remove(&about)),
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
            staged: life.staged().map(|set| set.entry.clone()),
            highest_revision: state.highest.as_ref().map(|highest| highest.revision),
            waits_for: problems(&self.waits_for),
            problems: self.concerns.values().map(problem).collect(),
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

/// What became of a bundle that was delivered.
enum Taken {
    Staged,
    Unchanged(Stage),
}

impl Taken {
    const fn stage(&self) -> Stage {
        match self {
            Self::Staged => Stage::Staged,
            Self::Unchanged(stage) => *stage,
        }
    }

    const fn is_unchanged(&self) -> bool {
        matches!(self, Self::Unchanged(_))
    }
}

type NotTaken = (BundleRefused, Option<BundleRefused>);

/// Verifies, compiles, tests and stages. Blocks.
fn take(
    life: &mut Life,
    archive: BundleArchive,
    trusted: &TrustedKeys,
    origin: Origin,
    hold: bool,
) -> Result<Taken, NotTaken> {
    let now = SystemTime::now();
    let verified = life
        .verify(archive, trusted, now)
        .map_err(|refusal| (refusal.into(), None))?;
    match life.standing(&verified) {
        Standing::Active => return Ok(Taken::Unchanged(Stage::Active)),
        Standing::Staged => return Ok(Taken::Unchanged(Stage::Staged)),
        // The source still has what was refused; only a person can mean to try it again.
        Standing::Rejected(_) if !origin.is_asked_for() => {
            return Ok(Taken::Unchanged(Stage::Rejected));
        }
        Standing::Rejected(_) | Standing::New => {}
    }
    if origin == Origin::Rollback && !life.was_active(&verified) {
        let message = format!(
            "revision {} does not have the payload of a bundle that was in force here; push it \
             as a new one",
            verified.archive().revision()
        );
        return Err((BundleRefused::new(codes::NO_ROLLBACK, message), None));
    }
    compile(life, &verified, origin, now).and_then(|policies| {
        life.stage(&verified, Arc::new(policies), origin, hold, now)
            .map(|_| Taken::Staged)
            .map_err(|refused| (refused.clone(), Some(refused)))
    })
}

fn compile(
    life: &mut Life,
    verified: &Verified,
    origin: Origin,
    now: SystemTime,
) -> Result<nowconnect_policy::PolicyBundle, NotTaken> {
    verified
        .compile(verified.archive().revision())
        .map_err(|refusal| {
            let refused = BundleRefused::from(refusal);
            let kept = life.reject(verified, origin, &refused, now);
            (refused, kept.err().map(BundleRefused::from))
        })
}

/// What serves until the first bundle comes: operators may bring one, nothing else may be.
fn nothing_permitted() -> Result<nowconnect_policy::PolicyBundle, String> {
    let mut sources: Sources = nowconnect_policy::shipped();
    sources
        .policies
        .retain(|file| file.name == "shipped:admin.cedar");
    nowconnect_policy::PolicyBundle::compile(&sources, 1).map_err(|found| found.to_string())
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

fn tell(problem: &BundleRefused, what: &str) {
    warn!(
        event = events::BUNDLE_TROUBLE,
        code = problem.code,
        error = %problem.message,
        about = what,
        "something is wrong with policy bundles; what is in force stays"
    );
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
