//! What changed on disk, and SIGHUP.
//!
//! [`Watcher::next`] waits for a change of something that a hub can take over, and says which.
//! Bursts are gathered until it is quiet. Folders are watched rather than files, and what is
//! compared is what the path leads to, so that an editor's rename and a swapped symlink
//! (as Kubernetes does for mounted secrets) count once and no other file in the folder counts.
//! A slow poll beside the system's notifications finds what those miss: network file systems,
//! targets of symlinks elsewhere, folders that did not exist yet.

mod fingerprint;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::config::{BundleSource, CloudConfig, KeySource, PluginConfig};
use crate::telemetry::events;
use fingerprint::Fingerprint;

/// How long it has to be quiet before a change is reported: longer than a tool takes from one
/// file of a folder to the next.
const QUIET: Duration = Duration::from_millis(200);

/// How long a change waits at most while it does not get quiet.
const LONGEST_BURST: Duration = Duration::from_secs(2);

/// How often everything is compared without a notification.
const POLL: Duration = Duration::from_secs(30);

/// The same where the system gives no notifications.
const POLL_WITHOUT_NOTIFICATIONS: Duration = Duration::from_secs(2);

/// What can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watched {
    /// The configuration file.
    Config,
    /// The policy folder, or the source of bundles.
    Policies,
    /// A plugin's file, the signatures beside it, or its folder of data.
    Plugins,
    /// A certificate, key, CA or token file of a port or of the decision point, or a file by which
    /// viewers are known.
    Certificates,
    /// The revocation list.
    Revocations,
    /// An issuer's key file, or the roots for issuers.
    Keys,
    /// SIGHUP: everything should be read again.
    Signal,
}

/// The paths to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchSet {
    paths: BTreeSet<(Watched, PathBuf)>,
}

impl WatchSet {
    /// Every file that this configuration refers to, itself included.
    #[must_use]
    pub fn of(config: &CloudConfig) -> Self {
        let mut set = Self::default();
        set.add_all(Watched::Config, config.source.as_ref());
        set.add_all(Watched::Policies, config.policy.dir.as_ref());
        if let Some(bundle) = &config.policy.bundle {
            match &bundle.source {
                BundleSource::Path(path) => set.add_all(Watched::Policies, [path]),
                BundleSource::Push | BundleSource::Url(_) => {}
            }
        }
        for file in config.plugins.list.iter().filter_map(PluginConfig::file) {
            set.add(Watched::Plugins, file);
            set.add(Watched::Plugins, &signatures_beside(file));
        }
        set.add_all(
            Watched::Plugins,
            config
                .plugins
                .list
                .iter()
                .filter_map(|plugin| plugin.data.as_ref()),
        );
        if let Some(tls) = &config.tunnel.tls {
            set.add_all(Watched::Certificates, [&tls.cert_file, &tls.key_file]);
        }
        for listener in &config.ingress.listeners {
            for files in listener.tls.iter().flat_map(|tls| tls.files()) {
                set.add_all(Watched::Certificates, [&files.cert_file, &files.key_file]);
            }
            let clients = listener.client_certificates.as_ref();
            set.add_all(
                Watched::Certificates,
                clients.map(|clients| &clients.ca_file),
            );
        }
        for auth in &config.ingress.viewer_auth {
            set.add_all(Watched::Certificates, auth.files());
        }
        let acme = config.ingress.acme.as_ref();
        set.add_all(
            Watched::Certificates,
            acme.and_then(|acme| acme.ca_file.as_ref()),
        );
        if let Some(tls) = &config.admin.tls {
            set.add_all(Watched::Certificates, [&tls.cert_file, &tls.key_file]);
            set.add_all(Watched::Certificates, tls.client_ca_file.as_ref());
        }
        if let Some(tls) = &config.ha.mesh.tls {
            set.add_all(
                Watched::Certificates,
                [&tls.ca_bundle, &tls.cert_file, &tls.key_file],
            );
        }
        if let Some(tls) = &config.control.tls {
            set.add_all(Watched::Certificates, [&tls.cert_file, &tls.key_file]);
        }
        let clients = config.control.clients.iter();
        set.add_all(
            Watched::Certificates,
            clients.map(|client| &client.secret_file),
        );
        set.add_all(Watched::Certificates, config.admin.token_file.as_ref());
        set.add_all(Watched::Certificates, config.pdp.token_file.as_ref());
        set.add_all(Watched::Certificates, config.pdp.ca_bundle.as_ref());
        let signed = config.security.signed.agents.iter();
        set.add_all(Watched::Keys, signed.map(|agent| &agent.secret_file));
        set.add_all(Watched::Keys, config.security.jwks.ca_bundle.as_ref());
        set.add_all(
            Watched::Revocations,
            config.security.revocation_file.as_ref(),
        );
        for issuer in &config.security.issuers {
            match &issuer.keys {
                KeySource::File(path) => set.add_all(Watched::Keys, [path]),
                KeySource::Discovery(_) | KeySource::Url(_) => {}
            }
        }
        set
    }

    /// Adds everything of another set.
    pub fn add_set(&mut self, other: Self) {
        self.paths.extend(other.paths);
    }

    /// Adds one path.
    pub fn add(&mut self, what: Watched, path: &Path) {
        self.paths.insert((what, path.to_path_buf()));
    }

    fn add_all<'a>(&mut self, what: Watched, paths: impl IntoIterator<Item = &'a PathBuf>) {
        for path in paths {
            self.add(what, path);
        }
    }
}

/// Where the signatures of a component are, once somebody has signed it.
fn signatures_beside(component: &Path) -> PathBuf {
    let mut name = component.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Watches until dropped.
#[derive(Debug)]
pub struct Watcher {
    set: WatchSet,
    seen: BTreeMap<PathBuf, Fingerprint>,
    notifications: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    wake: Arc<Notify>,
    hangup: Signal,
    poll: Interval,
    /// Something happened and was not compared yet; survives a cancelled [`Watcher::next`].
    dirty: bool,
    found: BTreeSet<Watched>,
}

impl Watcher {
    /// Starts watching. What is there now is the state that changes are compared with. Needs a
    /// tokio runtime. Where the system refuses notifications the paths are polled.
    ///
    /// # Errors
    /// No handler for SIGHUP can be had.
    pub fn start(set: WatchSet) -> Result<Self, WatchError> {
        let hangup = signal(SignalKind::hangup()).map_err(WatchError)?;
        let wake = Arc::new(Notify::new());
        let notifications = notifications(Arc::clone(&wake));
        let every = match notifications {
            Some(_) => POLL,
            None => POLL_WITHOUT_NOTIFICATIONS,
        };
        let mut poll = tokio::time::interval_at(Instant::now() + every, every);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watcher = Self {
            set,
            seen: BTreeMap::new(),
            notifications,
            folders: BTreeSet::new(),
            wake,
            hangup,
            poll,
            dirty: false,
            found: BTreeSet::new(),
        };
        // First the notifications, then the state: what changes in between is seen as a change.
        watcher.watch_folders();
        watcher.seen = watcher.fingerprints();
        Ok(watcher)
    }

    /// Watches other paths from now on. A path that was watched before keeps the state that it is
    /// compared with.
    pub fn update(&mut self, set: WatchSet) {
        if self.set == set {
            return;
        }
        self.set = set;
        self.watch_folders();
        let mut seen = self.fingerprints();
        for (path, old) in &self.seen {
            if let Some(fingerprint) = seen.get_mut(path) {
                fingerprint.clone_from(old);
            }
        }
        self.seen = seen;
        self.dirty = true;
    }

    /// The next change, after it has been quiet for a moment. Safe to cancel.
    pub async fn next(&mut self) -> BTreeSet<Watched> {
        loop {
            if !self.dirty {
                tokio::select! {
                    () = self.wake.notified() => {}
                    _ = self.hangup.recv() => {
                        self.found.insert(Watched::Signal);
                    }
                    _ = self.poll.tick() => {}
                }
                self.dirty = true;
            }
            self.settle().await;
            self.compare();
            self.dirty = false;
            if !self.found.is_empty() {
                return std::mem::take(&mut self.found);
            }
        }
    }

    /// Waits until it is quiet.
    async fn settle(&self) {
        let longest = Instant::now() + LONGEST_BURST;
        loop {
            let until = (Instant::now() + QUIET).min(longest);
            let again = tokio::time::timeout_at(until, self.wake.notified()).await;
            if again.is_err() || Instant::now() >= longest {
                return;
            }
        }
    }

    fn compare(&mut self) {
        let now = self.fingerprints();
        for (what, path) in &self.set.paths {
            if self.seen.get(path) != now.get(path) {
                self.found.insert(*what);
            }
        }
        if !self.found.is_empty() {
            // A folder may be new, or a symlink may lead elsewhere now.
            self.watch_folders();
        }
        self.seen = now;
    }

    fn fingerprints(&self) -> BTreeMap<PathBuf, Fingerprint> {
        self.set
            .paths
            .iter()
            .map(|(_, path)| (path.clone(), Fingerprint::of(path)))
            .collect()
    }

    /// Asks the system for notifications about every folder that matters, and no other.
    fn watch_folders(&mut self) {
        let Some(notifications) = &mut self.notifications else {
            return;
        };
        let mut wanted = BTreeSet::new();
        for (_, path) in &self.set.paths {
            fingerprint::folders_of(path, &mut wanted);
        }
        for gone in self.folders.difference(&wanted) {
            // It may not exist any more; then the system has forgotten it as well.
            let _ = notifications.unwatch(gone);
        }
        for folder in &wanted {
            // Again for those that are watched already: one of the same name may be another now.
            if let Err(error) = notifications.watch(folder, RecursiveMode::NonRecursive) {
                tracing::debug!(
                    event = events::WATCH_REFUSED,
                    folder = %folder.display(),
                    error = %error,
                    "the folder is polled instead"
                );
            }
        }
        self.folders = wanted;
    }
}

fn notifications(wake: Arc<Notify>) -> Option<RecommendedWatcher> {
    // What happened is not looked at: a lost or merged notification then costs nothing.
    let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| event.kind.is_access()) {
            return;
        }
        wake.notify_one();
    });
    match made {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(
                event = events::WATCH_UNAVAILABLE,
                error = %error,
                "the system gives no notifications about files; they are polled"
            );
            None
        }
    }
}

/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
#[error("no handler for SIGHUP can be had: {0}")]
pub struct WatchError(std::io::Error);
