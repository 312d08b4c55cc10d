//! What can go wrong with the file.

use std::path::PathBuf;

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be used.
    #[error("cannot use the state file `{}`: {reason}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A hub that runs has it.
    #[error("the state file `{}` is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer release.
    #[error(
        "the state file has schema {found} and this release knows up to {known}: run the newer \
         release, or restore a backup that was taken before the upgrade"
    )]
    Newer {
        /// What the file says.
        found: u64,
        /// What this release knows.
        known: u64,
    },
    /// Something in the file is not what this release writes.
    #[error("the state file holds a damaged entry in `{table}`: {reason}")]
    Damaged {
        /// Where.
        table: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The database engine or the disk failed.
    #[error("the state file failed at `{step}`: {reason}")]
    Engine {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        reason: String,
    },
    /// A backup cannot be written or restored.
    #[error("cannot {step} `{}`: {reason}", path.display())]
    Backup {
        /// What was being done.
        step: &'static str,
        /// The file at fault.
        path: PathBuf,
        /// Why it failed.
        reason: String,
    },
}

impl StoreError {
    pub(crate) fn engine(step: &'static str, error: &dyn std::fmt::Display) -> Self {
        Self::Engine {
            step,
            reason: error.to_string(),
        }
    }
}
