//! Bundles as the admin API shows them.

use serde::{Deserialize, Serialize};

use super::shadow::{ShadowCounts, ShadowReport, ShadowSample};
use super::state::{HistoryEntry, Stage};
use crate::admin::view::RecheckStatus;
use crate::telemetry::decisions::DecisionAction;

/// The bundles of a hub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleStatus {
    /// Whether policies come in bundles at all.
    pub enabled: bool,
    /// The one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<HistoryEntry>,
    /// It is withheld: nobody who is trusted vouches for it any more, and nothing is permitted
    /// (`policy.bundle.on_untrusted: deny`).
    #[serde(default)]
    pub withheld: bool,
    /// The one beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<HistoryEntry>,
    /// The highest revision that was ever accepted; a new one must be above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_revision: Option<u64>,
    /// Why the staged one is not in force yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<BundleProblem>,
    /// What an operator should look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<BundleProblem>,
    /// Revisions whose bytes are kept, so that one can go back to them.
    #[serde(default)]
    pub kept: Vec<u64>,
    /// What became of each bundle, newest first.
    #[serde(default)]
    pub history: Vec<HistoryEntry>,
}

/// A code and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleProblem {
    /// The stable code.
    pub code: String,
    /// For a person.
    pub message: String,
}

/// What came of a delivered bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverReport {
    /// Its revision.
    pub revision: u64,
    /// Where it is now.
    pub stage: Stage,
    /// Whether it was there already.
    #[serde(default)]
    pub unchanged: bool,
    /// Why it is not in force yet, where it will be by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<BundleProblem>,
    /// What its activation did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<ActivateReport>,
}

/// What is asked of an activation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActivateRequest {
    /// Only this revision; without it whichever is staged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// Not if the shadow saw something newly allowed.
    pub require_no_new_allow: bool,
    /// Not if the shadow saw something newly denied.
    pub require_no_new_deny: bool,
    /// Not without a proof that nothing new is let in.
    pub require_proof: bool,
    /// Not before the shadow has compared so many decisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_shadow_requests: Option<u64>,
}

/// What an activation did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivateReport {
    /// The bundle.
    pub revision: u64,
    /// Whether it is in force now; not after a dry run.
    pub activated: bool,
    /// The generation that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// What it would do to what runs; only after a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// Requirements that are not met; only after a dry run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmet: Vec<BundleProblem>,
    /// Flows that ended, so far.
    #[serde(default)]
    pub flows_closed: u64,
    /// Sessions of agents that ended, so far.
    #[serde(default)]
    pub sessions_closed: u64,
    /// Connectors that agents lost, so far.
    #[serde(default)]
    pub connectors_lost: u64,
    /// How far what runs was asked about again; not after a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recheck: Option<RecheckStatus>,
    /// Microseconds from the order until new decisions were made with it.
    #[serde(default)]
    pub visible_after_us: u64,
}

/// What the staged set would do to what runs. With `policy.on_swap: keep` and `recheck` nothing
/// of it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// Flows that were asked about.
    pub flows: u64,
    /// Those that would be forbidden and are not now.
    pub flows_forbidden: u64,
    /// Agents that were asked about.
    pub agents: u64,
    /// Those that would be refused and are not now.
    pub agents_refused: u64,
    /// Connectors that other agents would lose.
    pub connectors_lost: u64,
    /// Whether what is forbidden ends.
    pub ends: bool,
}

/// The comparison of the staged set with the one in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowStatus {
    /// The staged bundle; `None` where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// How long it has been compared.
    pub running_seconds: u64,
    /// Decisions of which the comparison knows something.
    pub compared: u64,
    /// Over all actions.
    pub total: ShadowCounts,
    /// By action.
    pub actions: Vec<ShadowAction>,
    /// Decisions that found no room in the queue.
    pub dropped: u64,
    /// Requests whose answer would change; equal ones share an entry.
    pub samples: Vec<ShadowSample>,
    /// Kinds of such requests beyond those in `samples`.
    pub unsampled: u64,
}

/// The comparison for one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowAction {
    /// The action.
    pub action: DecisionAction,
    /// Its counts.
    #[serde(flatten)]
    pub counts: ShadowCounts,
}

impl From<ShadowReport> for ShadowStatus {
    fn from(report: ShadowReport) -> Self {
        let total = report.total();
        Self {
            revision: Some(report.revision),
            running_seconds: report.running.as_secs(),
            compared: total.compared(),
            total,
            actions: report
                .actions
                .into_iter()
                .map(|(action, counts)| ShadowAction { action, counts })
                .collect(),
            dropped: report.dropped,
            samples: report.samples,
            unsampled: report.unsampled,
        }
    }
}
