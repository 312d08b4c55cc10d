//! What changed on disk, and SIGHUP.
//!
//! [`Watcher::next`] waits for a change of something that a hub can take over, and says which.
//! Bursts are gathered until it is quiet. Folders are watched rather than files, and what is
//! compared is what the path leads to, so that an editor's rename and a swapped symlink
//! (as Kubernetes does for mounted secrets) count once and no other file in the folder counts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::CloudConfig;

/// What can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watched {
    /// The configuration file.
    Config,
    /// The policy folder.
    Policies,
    /// A plugin's file or the plugin folder.
    Plugins,
    /// A certificate, key or CA file.
    Certificates,
    /// The revocation list.
    Revocations,
    /// An issuer's key file.
    Keys,
    /// SIGHUP: everything should be read again.
    Signal,
}

/// The paths to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchSet {
    paths: Vec<(Watched, PathBuf)>,
}

impl WatchSet {
    /// Every file that this configuration refers to, itself included.
    #[must_use]
    pub fn of(config: &CloudConfig) -> Self {
        let _ = config;
        todo!()
    }
}

/// Watches until dropped.
#[derive(Debug)]
pub struct Watcher {}

impl Watcher {
    /// Starts watching. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system refuses (out of inotify watches, no signal handler).
    pub fn start(set: WatchSet) -> Result<Self, WatchError> {
        let _ = set;
        todo!()
    }

    /// Watches other paths from now on.
    pub fn update(&mut self, set: WatchSet) {
        let _ = set;
        todo!()
    }

    /// The next change, after it has been quiet for a moment. Safe to cancel.
    pub async fn next(&mut self) -> BTreeSet<Watched> {
        todo!()
    }
}

/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WatchError(String);
