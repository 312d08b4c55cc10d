//! Counts of a comparison.

use std::collections::BTreeMap;

use nowconnect_policy::{Decision, ReasonKind};
use serde::{Deserialize, Serialize};

use super::ShadowReport;
use super::sample::ShadowSample;
use crate::telemetry::decisions::DecisionAction;

/// Different samples kept of each outcome: enough to see what a change is about. Each has at
/// most some 4 KiB.
pub(crate) const MAX_SAMPLES: usize = 20;

/// How the staged answer compares with the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShadowOutcome {
    /// The same answer.
    Same,
    /// Denied now, allowed by the staged set.
    NewlyAllowed,
    /// Allowed now, denied by the staged set.
    NewlyDenied,
    /// A staged policy could not be evaluated, which denies.
    Error,
    /// The facts changed before the staged set was asked; nothing is known.
    Stale,
}

impl ShadowOutcome {
    /// The name in metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::NewlyAllowed => "newly_allowed",
            Self::NewlyDenied => "newly_denied",
            Self::Error => "error",
            Self::Stale => "stale",
        }
    }

    pub(super) fn of(live_allow: bool, staged: &Decision) -> Self {
        match (live_allow, staged.allow) {
            _ if staged.kind == ReasonKind::Error => Self::Error,
            (true, true) | (false, false) => Self::Same,
            (false, true) => Self::NewlyAllowed,
            (true, false) => Self::NewlyDenied,
        }
    }

    pub(super) fn between(live: &Decision, staged: &Decision) -> Self {
        if live.kind == ReasonKind::Error && staged.kind == ReasonKind::Error {
            Self::Same
        } else {
            Self::of(live.allow, staged)
        }
    }
}

/// Questions of one action by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowCounts {
    /// See [`ShadowOutcome::Same`].
    pub same: u64,
    /// See [`ShadowOutcome::NewlyAllowed`].
    pub newly_allowed: u64,
    /// See [`ShadowOutcome::NewlyDenied`].
    pub newly_denied: u64,
    /// See [`ShadowOutcome::Error`].
    pub errors: u64,
    /// See [`ShadowOutcome::Stale`].
    pub stale: u64,
}

impl ShadowCounts {
    /// Questions of which the comparison knows something.
    pub fn compared(&self) -> u64 {
        self.same + self.newly_allowed + self.newly_denied + self.errors
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.same += other.same;
        self.newly_allowed += other.newly_allowed;
        self.newly_denied += other.newly_denied;
        self.errors += other.errors;
        self.stale += other.stale;
    }
}

/// Counts and samples of one comparison.
#[derive(Debug, Default)]
pub(super) struct Tally {
    actions: BTreeMap<DecisionAction, ShadowCounts>,
    samples: Vec<ShadowSample>,
    unsampled: u64,
}

impl Tally {
    pub(super) fn count(&mut self, action: DecisionAction, outcome: ShadowOutcome) {
        let counts = self.actions.entry(action).or_default();
        let counter = match outcome {
            ShadowOutcome::Same => &mut counts.same,
            ShadowOutcome::NewlyAllowed => &mut counts.newly_allowed,
            ShadowOutcome::NewlyDenied => &mut counts.newly_denied,
            ShadowOutcome::Error => &mut counts.errors,
            ShadowOutcome::Stale => &mut counts.stale,
        };
        *counter += 1;
    }

    /// Equal differences share a sample, so that a busy client does not hide the others.
    pub(super) fn keep(&mut self, sample: ShadowSample) {
        if let Some(kept) = self.samples.iter_mut().find(|kept| kept.is_like(&sample)) {
            kept.again(&sample);
            return;
        }
        let of_its_kind = self
            .samples
            .iter()
            .filter(|kept| kept.outcome == sample.outcome)
            .count();
        if of_its_kind >= MAX_SAMPLES {
            self.unsampled += 1;
        } else {
            self.samples.push(sample);
        }
    }

    pub(super) fn report(&self) -> ShadowReport {
        ShadowReport {
            actions: self
                .actions
                .iter()
                .map(|(action, counts)| (*action, *counts))
                .collect(),
            samples: self.samples.clone(),
            unsampled: self.unsampled,
            ..ShadowReport::default()
        }
    }
}
