//! What is wrong until it is right again, and the operator is told of: by the log when it comes,
//! by `/readyz`, the metrics and the status as long as it lasts.

use std::collections::BTreeMap;

use tracing::warn;

use super::problem;
use crate::bundle::refused::BundleRefused;
use crate::bundle::view::BundleProblem;
use crate::telemetry::events;

/// What a concern is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Concern {
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
    /// The keys that vouch for the bundle in force.
    Trust,
}

impl Concern {
    const fn about(self) -> &'static str {
        match self {
            Self::Start => "what an earlier run kept",
            Self::Disk => "the bundle state",
            Self::Newest => "the newest bundle",
            Self::Source => "the bundle source",
            Self::Time => "the time of the bundle in force",
            Self::Trust => "who signed the bundle in force",
        }
    }
}

/// At most one of each kind.
#[derive(Debug, Default)]
pub(super) struct Concerns(BTreeMap<Concern, BundleRefused>);

impl Concerns {
    /// Keeps what was found at the start; the first stands for the others, which are logged.
    pub(super) fn began(&mut self, troubles: Vec<BundleRefused>) {
        for trouble in troubles {
            tell(Concern::Start, &trouble);
            self.0.entry(Concern::Start).or_insert(trouble);
        }
    }

    /// Something is wrong, or right again.
    pub(super) fn set(&mut self, about: Concern, problem: Option<BundleRefused>) {
        match problem {
            Some(problem) => {
                if self.0.get(&about).map(|known| known.code) != Some(problem.code) {
                    tell(about, &problem);
                }
                self.0.insert(about, problem);
            }
            None => drop(self.0.remove(&about)),
        }
    }

    pub(super) fn has(&self, about: Concern) -> bool {
        self.0.contains_key(&about)
    }

    pub(super) fn problems(&self) -> Vec<BundleProblem> {
        self.0.values().map(problem).collect()
    }
}

fn tell(about: Concern, problem: &BundleRefused) {
    warn!(
        event = events::BUNDLE_TROUBLE,
        code = problem.code,
        error = %problem.message,
        about = about.about(),
        "something is wrong with policy bundles"
    );
}
