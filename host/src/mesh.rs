//! This hub's links to the others: what the configuration asks of them, and what they tell.
//!
//! Links run while the hub is in a cluster (`ha.mode` is not `off`), in shadow too: there they are
//! looked at and carry nothing. What fails here leaves local service alone.

mod measure;
mod port;
mod state;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nowconnect_mesh::{
    AllowRule, Credentials, Mesh, MeshFiles, MeshObserver, MeshSettings, MeshTasks, PeerUrl,
    PeerView,
};
use nowconnect_registry::{HaMode, Seen};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::{CloudConfig, DiscoveryRule};
use crate::drain::Phase;
use crate::hub::Hub;
use crate::telemetry::metrics::{Certificate, Metrics};
use measure::Measured;

pub(crate) use port::serve_port;
pub(crate) use state::LinkState;

/// How often the links are told which other hubs there are.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a configuration asks of the links, with its files read. Nothing of it is in force.
#[derive(Debug)]
pub(crate) struct NextLinks(Option<MeshSettings>);

impl NextLinks {
    /// Reads what the configuration refers to.
    ///
    /// # Errors
    /// A certificate, key or bundle cannot be used, or an address is none; the text names it.
    pub(crate) fn build(config: &CloudConfig) -> Result<Self, String> {
        if config.ha.mode() == HaMode::Off {
            return Ok(Self(None));
        }
        let mesh = &config.ha.mesh;
        let peers = mesh.peers.iter().map(|peer| PeerUrl::parse(peer));
        let credentials = match &mesh.tls {
            None => None,
            Some(tls) => {
                let files = MeshFiles {
                    ca_bundle: tls.ca_bundle.clone(),
                    cert_file: tls.cert_file.clone(),
                    key_file: tls.key_file.clone(),
                };
                let read = Credentials::load(&files, &config.replica_id);
                Some(Arc::new(
                    read.map_err(|error| format!("`ha.mesh.tls`: {error}"))?,
                ))
            }
        };
        Ok(Self(Some(MeshSettings {
            peers: peers
                .collect::<Result<_, _>>()
                .map_err(|error| format!("`ha.mesh.peers`: {error}"))?,
            allow: mesh.discovery_allow.iter().map(allow_rule).collect(),
            require_proof: mesh.require_mtls,
            credentials,
            trusted_ingress: mesh.trusted_ingress.clone(),
            connect_backoff_max: mesh.connect_backoff_max,
            ..MeshSettings::default()
        })))
    }
}

fn allow_rule(rule: &DiscoveryRule) -> AllowRule {
    match rule {
        DiscoveryRule::Host(name) => AllowRule::Host(name.clone()),
        DiscoveryRule::Below(parent) => AllowRule::Below(parent.clone()),
        DiscoveryRule::Network(net) => AllowRule::Net(*net),
    }
}

/// The links of a hub, while there are any.
pub(crate) struct Links {
    running: Mutex<Option<MeshTasks>>,
    current: watch::Sender<Option<Mesh>>,
    /// What the registry says, for whichever mesh runs.
    seen: watch::Sender<Seen>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

impl Links {
    /// None yet.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            running: Mutex::default(),
            current: watch::Sender::new(None),
            seen: watch::Sender::default(),
            metrics,
        }
    }

    /// The mesh of the moment.
    pub(crate) fn mesh(&self) -> Option<Mesh> {
        self.current.borrow().clone()
    }

    /// The mesh, and when it begins and ends.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Mesh>> {
        self.current.subscribe()
    }

    /// Puts settings in force: starts the links, changes them without ending one that may stay,
    /// or ends them all. Needs the hub's runtime.
    pub(crate) fn publish(&self, hub: &Arc<Hub>, next: NextLinks) {
        let ends = next.0.as_ref().and_then(|next| next.credentials.as_ref());
        self.metrics
            .hub
            .set_certificate(Certificate::Mesh, ends.map(|files| files.not_after()));
        let mut running = self.running.lock();
        match (running.as_ref(), next.0) {
            (Some(tasks), Some(settings)) => tasks.mesh().update(settings),
            (None, Some(settings)) => {
                let tasks = MeshTasks::start(
                    hub.replica().clone(),
                    hub.boot(),
                    settings,
                    self.seen.subscribe(),
                    Measured::new(hub),
                    Arc::new(Told(Arc::clone(&self.metrics))),
                );
                self.current.send_replace(Some(tasks.mesh()));
                *running = Some(tasks);
            }
            (Some(_), None) => {
                self.current.send_replace(None);
                if let Some(tasks) = running.take() {
                    hub.runtime().spawn(tasks.shutdown());
                }
            }
            (None, None) => {}
        }
    }

    /// Tells the other hubs that this one leaves, and ends all links.
    pub(crate) async fn leave(&self) {
        self.current.send_replace(None);
        let tasks = self.running.lock().take();
        if let Some(tasks) = tasks {
            tasks.shutdown().await;
        }
    }

    /// Ends all links without a word.
    pub(crate) fn end(&self) {
        self.current.send_replace(None);
        drop(self.running.lock().take());
    }
}

/// Tells the links which other hubs there are, until the hub ends.
pub(crate) async fn follow(hub: Weak<Hub>) {
    loop {
        let Some(hub) = hub.upgrade() else {
            return;
        };
        if hub.current_phase() >= Phase::Cut {
            return;
        }
        // Asked anew each time: joining another registry makes another list.
        let now = hub.cluster().seen().borrow().clone();
        hub.links().seen.send_if_modified(|seen| {
            let differs = *seen != now;
            *seen = now;
            differs
        });
        drop(hub);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Counts what the mesh tells.
struct Told(Arc<Metrics>);

impl MeshObserver for Told {
    fn peers(&self, peers: &[PeerView]) {
        self.0.mesh.set(peers);
    }

    fn reconnected(&self, peer: &str) {
        self.0.mesh.reconnected(peer);
    }

    fn failed(&self, peer: &str, _: &'static str) {
        self.0.mesh.failed(peer);
    }

    fn turned_away(&self, _: IpAddr, code: &'static str) {
        self.0.mesh.refused(code);
    }
}
