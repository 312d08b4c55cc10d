//! The answer to a question.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The stable code of a denial that no policy gave a code of its own.
pub const NOT_PERMITTED: &str = "not_permitted";

/// The stable code of a denial because something went wrong while deciding.
pub const POLICY_ERROR: &str = "policy_error";

/// Why a decision came out as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// A permit applied and no forbid did.
    Permitted,
    /// A forbid applied.
    Forbidden,
    /// No permit applied.
    NotPermitted,
    /// A policy could not be evaluated, or a fact was missing; denied whatever the others say.
    Error,
}

impl ReasonKind {
    /// As it stands in records and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permitted => "permitted",
            Self::Forbidden => "forbidden",
            Self::NotPermitted => "not_permitted",
            Self::Error => "error",
        }
    }
}

/// A policy and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRef {
    /// Its `@id`.
    pub id: String,
    /// The file it stands in.
    pub file: String,
    /// The line it starts on, from 1.
    pub line: usize,
    /// Its `@error`: the stable code of a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its `@advice`: what the one who is denied can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether it may be.
    pub allow: bool,
    /// Why.
    pub kind: ReasonKind,
    /// The policies that determined it, by id.
    pub policies: Vec<Arc<PolicyRef>>,
    /// What went wrong, for the log only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Generation of the bundle that decided.
    pub generation: u64,
    /// Time spent.
    #[serde(skip)]
    pub took: Duration,
}

impl Decision {
    /// The stable code of a denial: the first `@error` of the forbids that determined it, else
    /// [`POLICY_ERROR`] or [`NOT_PERMITTED`]. `None` where it was allowed.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        if self.allow {
            return None;
        }
        let fallback = match self.kind {
            ReasonKind::Error => POLICY_ERROR,
            ReasonKind::Permitted | ReasonKind::Forbidden | ReasonKind::NotPermitted => {
                NOT_PERMITTED
            }
        };
        let coded = self
            .policies
            .iter()
            .find_map(|policy| policy.error.as_deref());
        match self.kind {
            ReasonKind::Forbidden => coded.or(Some(fallback)),
            ReasonKind::Permitted | ReasonKind::NotPermitted | ReasonKind::Error => Some(fallback),
        }
    }

    /// The first `@advice` of the policies that determined it.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.policies
            .iter()
            .find_map(|policy| policy.advice.as_deref())
    }
}
