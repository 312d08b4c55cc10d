//! Why a bundle is not taken.

use std::fmt;

/// The reason; stable, and explained in `docs/error-codes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalCode {
    /// It carries no signature.
    Unsigned,
    /// A trusted key's signature does not fit the manifest.
    BadSignature,
    /// Too few of the keys that signed it are trusted.
    UntrustedKey,
    /// A file has another digest than the manifest says.
    Digest,
    /// A file that the manifest lists is not there.
    FileMissing,
    /// A file that the manifest does not list is there.
    FileExtra,
    /// Its `not_after` is past.
    Expired,
    /// It was made in the future.
    FromFuture,
    /// It wants a newer hub.
    NewerHub,
    /// It was written for a core schema that this hub does not serve.
    UnknownSchema,
    /// A newer revision was seen before.
    Rollback,
    /// The same revision was seen with another payload.
    RevisionConflict,
    /// Its policies do not compile.
    Invalid,
    /// Its own tests fail.
    TestsFailed,
    /// It is larger than the bounds.
    TooLarge,
    /// It is no bundle.
    Malformed,
    /// It cannot be read at all.
    Unreadable,
}

impl RefusalCode {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Unsigned,
        Self::BadSignature,
        Self::UntrustedKey,
        Self::Digest,
        Self::FileMissing,
        Self::FileExtra,
        Self::Expired,
        Self::FromFuture,
        Self::NewerHub,
        Self::UnknownSchema,
        Self::Rollback,
        Self::RevisionConflict,
        Self::Invalid,
        Self::TestsFailed,
        Self::TooLarge,
        Self::Malformed,
        Self::Unreadable,
    ];

    /// As it stands in logs, metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "bundle_unsigned",
            Self::BadSignature => "bundle_bad_signature",
            Self::UntrustedKey => "bundle_untrusted_key",
            Self::Digest => "bundle_digest_mismatch",
            Self::FileMissing => "bundle_file_missing",
            Self::FileExtra => "bundle_file_extra",
            Self::Expired => "bundle_expired",
            Self::FromFuture => "bundle_from_future",
            Self::NewerHub => "bundle_needs_newer_hub",
            Self::UnknownSchema => "bundle_unknown_schema",
            Self::Rollback => "bundle_rollback",
            Self::RevisionConflict => "bundle_revision_conflict",
            Self::Invalid => "bundle_invalid",
            Self::TestsFailed => "bundle_tests_failed",
            Self::TooLarge => "bundle_too_large",
            Self::Malformed => "bundle_malformed",
            Self::Unreadable => "bundle_unreadable",
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A bundle was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The stable reason.
    pub code: RefusalCode,
    /// What exactly is wrong, for a person.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
