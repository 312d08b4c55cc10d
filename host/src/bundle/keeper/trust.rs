//! The keys that vouch for the bundle in force may stop being trusted while it is.
//!
//! A key is taken off the list because it leaked or its owner left. Then what it signed may not be
//! what it seems; and yet it is what all traffic rests on, and most often the key is merely
//! replaced. So the operator hears of it at once, and has chosen beforehand what counts more
//! (`policy.bundle.on_untrusted`): `keep` serves on until another bundle takes its place, `deny`
//! permits nothing until then. Whatever is chosen, a hub that starts loads only what the keys of
//! that day vouch for.

use std::sync::Arc;

use nowconnect_policy::{RefusalCode, TrustedKeys};
use tracing::warn;

use super::Keeper;
use super::activate::publish;
use super::concerns::Concern;
use crate::bundle::life::Life;
use crate::bundle::refused::BundleRefused;
use crate::config::{BundleConfig, OnUntrusted};
use crate::hub::Hub;
use crate::telemetry::events;

/// What is known of the trust in the bundle in force.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// The rules that it was held against last.
    rules: Option<(TrustedKeys, OnUntrusted)>,
    /// It is not in force because nobody vouches for it.
    withheld: bool,
}

impl Trust {
    pub(super) fn withholds(&self) -> bool {
        self.withheld
    }

    /// What is in force was verified just now.
    pub(super) fn vouched(&mut self, config: &BundleConfig) {
        self.rules = Some(rules(config));
        self.withheld = false;
    }
}

fn rules(config: &BundleConfig) -> (TrustedKeys, OnUntrusted) {
    (config.trusted.clone(), config.on_untrusted)
}

impl Keeper {
    /// Holds the bundle in force against the keys, where these have changed.
    ///
    /// Its file may show that further keys vouch for it. Where the file shows nothing, who signed
    /// what was loaded is what counts: a disk that fails makes nobody trusted.
    pub(super) async fn look_at_trust(&mut self, hub: &Arc<Hub>, config: &BundleConfig) {
        let rules = rules(config);
        if self.trust.rules.as_ref() == Some(&rules) {
            return;
        }
        let Some(active) = self.active.as_ref().map(|set| set.entry.clone()) else {
            return;
        };
        let trusted = config.trusted.clone();
        let by_record = trusted.vouch(active.signers.iter().map(String::as_str));
        let revision = active.revision;
        let looked = self
            .step(move |life| life.vouched_for(&active, &trusted))
            .await;
        let refused = match looked.and_then(|by_file| by_file) {
            Ok(signers) => {
                if let Some(set) = &mut self.active {
                    set.entry.signers = signers;
                }
                self.concerns.set(Concern::Trust, None);
                self.trust.rules = Some(rules);
                return self.give_back(hub);
            }
            Err(refused) => refused,
        };
        if refused.code == RefusalCode::UntrustedKey.as_str() {
            self.trust.rules = Some(rules);
            return self.distrust(hub, config, &refused.message);
        }
        // What its file says is asked again until it says something.
        if by_record {
            self.concerns.set(Concern::Trust, Some(refused));
            return self.give_back(hub);
        }
        let message = format!(
            "revision {revision} is in force and too few of those who signed it are trusted; its \
             file shows no others ({})",
            refused.message
        );
        self.distrust(hub, config, &message);
    }

    /// Too few of those who signed what is in force are trusted.
    fn distrust(&mut self, hub: &Hub, config: &BundleConfig, why: &str) {
        let then = match config.on_untrusted {
            OnUntrusted::Keep => {
                "it serves until another takes its place, and a restart would not load it"
            }
            OnUntrusted::Deny => "nothing is permitted until another takes its place",
        };
        let code = RefusalCode::UntrustedKey.as_str();
        let told = BundleRefused::new(code, format!("{why}; {then}"));
        self.concerns.set(Concern::Trust, Some(told));
        match config.on_untrusted {
            OnUntrusted::Keep => self.give_back(hub),
            OnUntrusted::Deny => self.withhold(hub),
        }
    }

    /// From now on nothing is permitted, and what runs is asked about again.
    fn withhold(&mut self, hub: &Hub) {
        if self.trust.withheld {
            return;
        }
        self.trust.withheld = true;
        self.waits_for.clear();
        let generation = publish(hub, self.nothing.clone());
        hub.rounds().begin();
        warn!(
            target: events::SECURITY,
            event = events::BUNDLE_WITHHELD,
            revision = self.active.as_ref().map(|set| set.revision),
            generation,
            "nobody who is trusted vouches for the policies; nothing is permitted"
        );
    }

    /// What was withheld is in force again.
    fn give_back(&mut self, hub: &Hub) {
        let Some(set) = self.active.as_ref().filter(|_| self.trust.withheld) else {
            return;
        };
        let (revision, brought) = (set.revision, set.brought());
        self.trust.withheld = false;
        let generation = publish(hub, brought);
        // What was compared meanwhile was compared with nothing.
        if let Some(staged) = self.life.as_ref().and_then(Life::staged) {
            self.compare(hub, staged);
        }
        hub.rounds().begin();
        warn!(
            target: events::SECURITY,
            event = events::BUNDLE_ACTIVE,
            revision,
            generation,
            "policies that were withheld are in force again"
        );
    }
}
