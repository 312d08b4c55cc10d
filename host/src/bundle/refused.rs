//! Why a bundle, or something asked about bundles, is refused.

use nowconnect_policy::{Refusal, RefusalCode};

use super::store::StoreError;

macro_rules! codes {
    ($($(#[$doc:meta])* $constant:ident = $code:literal;)*) => {
        $($(#[$doc])* pub const $constant: &str = $code;)*

        /// Every code of this module; those of a bundle's own faults are
        /// [`RefusalCode`](nowconnect_policy::RefusalCode).
        pub const ALL: &[&str] = &[$($code),*];
    };
}

/// The codes; each is explained in `docs/error-codes.md`.
pub mod codes {
    codes! {
        /// No key is trusted, so no bundle is taken.
        OFF = "bundle_off";
        /// Nothing is staged.
        NONE_STAGED = "bundle_none_staged";
        /// Another revision is staged than the one asked for.
        OTHER_STAGED = "bundle_other_staged";
        /// A newer bundle was staged instead.
        REPLACED = "bundle_replaced";
        /// An operator took it back.
        DISCARDED = "bundle_discarded";
        /// It could not be written down, and what is not written down does not come into force.
        NOT_KEPT = "bundle_not_kept";
        /// What was kept of it cannot be read or is not what it was.
        LOST = "bundle_lost";
        /// The state file could not be read; what could be found was put together again.
        STATE_BROKEN = "bundle_state_broken";
        /// The source does not give a bundle.
        SOURCE = "bundle_source_failed";
        /// The shadow has compared too little.
        LITTLE_TRAFFIC = "bundle_little_traffic";
        /// It would newly allow what the shadow saw.
        NEW_ALLOW = "bundle_new_allow";
        /// It would newly deny what the shadow saw.
        NEW_DENY = "bundle_new_deny";
        /// A proof was required and there is none.
        UNPROVED = "bundle_unproved";
        /// What is called a rollback has a payload that was never in force here.
        NO_ROLLBACK = "bundle_no_rollback";
        /// Too much is asked at once.
        BUSY = "bundle_busy";
        /// The hub failed at it.
        INTERNAL = "bundle_internal";
    }
}

/// A refusal, with its stable code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct BundleRefused {
    /// The stable code.
    pub code: &'static str,
    /// What exactly, and what can be done.
    pub message: String,
}

impl BundleRefused {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// One that was written down; a code of another version of the hub is told as an internal one.
    pub(crate) fn known(code: &str, message: &str) -> Self {
        let own = codes::ALL.iter().copied();
        let found = RefusalCode::ALL
            .iter()
            .map(|code| code.as_str())
            .chain(own)
            .find(|known| *known == code);
        Self::new(found.unwrap_or(codes::INTERNAL), message)
    }

    /// Whether the very same may be taken later: a clock is set right, a disk has room again.
    pub(crate) fn may_pass(&self) -> bool {
        [
            codes::NOT_KEPT,
            codes::BUSY,
            codes::INTERNAL,
            RefusalCode::Expired.as_str(),
            RefusalCode::FromFuture.as_str(),
        ]
        .contains(&self.code)
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            codes::INTERNAL,
            "the hub failed at this; see its log, and please report it",
        )
    }
}

impl From<Refusal> for BundleRefused {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code.as_str(), refusal.message)
    }
}

impl From<StoreError> for BundleRefused {
    fn from(error: StoreError) -> Self {
        Self::new(codes::NOT_KEPT, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::codes;

    #[test]
    fn every_code_is_explained() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/error-codes.md");
        let page = std::fs::read_to_string(path).unwrap();
        for code in codes::ALL {
            assert!(
                page.contains(&format!("\n| [`{code}`](errors/{code}.md) |")),
                "`{code}` is missing"
            );
        }
    }
}
