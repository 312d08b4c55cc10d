//! A bundle has come: it is taken or refused.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use nowconnect_policy::{BundleArchive, PolicyBundle, TrustedKeys, Verified};
use tracing::info;

use super::concerns::Concern;
use super::{Keeper, bundles_of, problems};
use crate::bundle::life::{Life, Standing};
use crate::bundle::refused::{BundleRefused, codes};
use crate::bundle::state::{Origin, Stage};
use crate::bundle::view::DeliverReport;
use crate::hub::Hub;
use crate::telemetry::events;

impl Keeper {
    pub(super) async fn deliver(
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
                    self.concerns.set(Concern::Disk, Some(error));
                }
                return Err(refused);
            }
        };
        if !origin.is_asked_for() {
            self.concerns.set(Concern::Newest, taken.still_refused());
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
}

/// What became of a bundle that was delivered.
enum Taken {
    Staged,
    Unchanged(Stage),
    /// The same was refused before, and nobody asks for it again.
    StillRefused(BundleRefused),
}

impl Taken {
    const fn stage(&self) -> Stage {
        match self {
            Self::Staged => Stage::Staged,
            Self::Unchanged(stage) => *stage,
            Self::StillRefused(_) => Stage::Rejected,
        }
    }

    const fn is_unchanged(&self) -> bool {
        match self {
            Self::Staged => false,
            Self::Unchanged(_) | Self::StillRefused(_) => true,
        }
    }

    /// What the operator is to know of it; what he took back himself he knows.
    fn still_refused(&self) -> Option<BundleRefused> {
        match self {
            Self::StillRefused(refused) => {
                let by_operator = [codes::DISCARDED, codes::REPLACED].contains(&refused.code);
                (!by_operator).then(|| refused.clone())
            }
            Self::Staged | Self::Unchanged(_) => None,
        }
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
        Standing::Rejected(refused) if !origin.is_asked_for() => {
            return Ok(Taken::StillRefused(refused));
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
) -> Result<PolicyBundle, NotTaken> {
    verified
        .compile(verified.archive().revision())
        .map_err(|refusal| {
            let refused = BundleRefused::from(refusal);
            let kept = life.reject(verified, origin, &refused, now);
            (refused, kept.err().map(BundleRefused::from))
        })
}
