//! The staged set comes into force, or is taken back.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::info;

use super::concerns::Concern;
use super::{Keeper, bundles_of, problems};
use crate::admin::view::RecheckStatus;
use crate::bundle::gate;
use crate::bundle::life::{Life, Set};
use crate::bundle::refused::{BundleRefused, codes};
use crate::bundle::state::Origin;
use crate::bundle::view::{ActivateReport, ActivateRequest};
use crate::config::{BundleConfig, BundleRequire};
use crate::generation::Brought;
use crate::hub::Hub;
use crate::recheck;
use crate::telemetry::events;

impl Keeper {
    pub(super) async fn activate(
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

    /// The staged set comes into force: written down, published, and a re-check of what runs is
    /// ordered.
    pub(super) async fn put_in_force(
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
                self.concerns.set(Concern::Disk, Some(refused.clone()));
                return Err(refused);
            }
            Err(refused) => {
                self.no_longer_good(hub, &refused).await?;
                return Err(refused);
            }
        };
        let number = publish(hub, set.brought());
        let visible_after = ordered.elapsed();
        drop(hub.authorizer().shadow().end());
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
        self.trust.vouched(&config);
        self.waits_for.clear();
        for concern in [Concern::Start, Concern::Disk, Concern::Time, Concern::Trust] {
            self.concerns.set(concern, None);
        }
        self.show(hub);
        Ok(ActivateReport {
            revision,
            activated: true,
            generation: Some(number),
            visible_after_us: u64::try_from(visible_after.as_micros()).unwrap_or(u64::MAX),
            // Whoever asked waits for it; the next order does not.
            recheck: Some(RecheckStatus::begun(hub.rounds().begin())),
            ..ActivateReport::default()
        })
    }

    pub(super) async fn discard(&mut self, hub: &Arc<Hub>) -> Result<u64, BundleRefused> {
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

    pub(super) fn may_activate_itself(&self, config: &BundleConfig) -> bool {
        let staged = self
            .life
            .as_ref()
            .is_some_and(|life| life.staged().is_some() && !life.state().hold);
        // Where what was in force is lost or withheld there is nothing to compare with, so what is
        // required of a change cannot be shown: a person decides.
        let lost = self.active.is_none() && self.life.as_ref().is_some_and(Life::had_one)
            || self.trust.withholds();
        let gated = config.require != BundleRequire::default();
        config.auto_activate && staged && !(lost && gated)
    }

    /// What the staged set does not meet. The first one of a hub has nothing to be compared
    /// with: before it nothing was permitted. Nor has one that a person activates after what
    /// was in force is lost. Where it is withheld, traffic shows nothing and a proof still does.
    pub(super) fn unmet(&mut self, hub: &Hub, require: BundleRequire) -> Vec<BundleRefused> {
        let (Some(active), Ok(staged)) = (self.active.clone(), self.staged().cloned()) else {
            return Vec::new();
        };
        if self.trust.withholds() {
            let proved = require
                .proof
                .then(|| self.prover.nothing_new(&active, &staged));
            return proved.and_then(Result::err).into_iter().collect();
        }
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
}

/// Puts policies in force with the plugins of now. Gives the number of the generation.
pub(super) fn publish(hub: &Hub, brought: Brought) -> u64 {
    let number = hub.generations().next_number();
    let current = hub.generations().current();
    hub.generations()
        .publish(current.with_policies(number, brought));
    hub.metrics()
        .policy
        .generation_activated(number, SystemTime::now());
    number
}
