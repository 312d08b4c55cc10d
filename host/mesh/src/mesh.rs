//! All links of a hub.

mod keep;
mod run;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use http::HeaderMap;
use nowconnect_protocol::ReplicaId;
use nowconnect_registry::{Joined, Seen};
use parking_lot::Mutex;
use rustls::pki_types::UnixTime;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::address::PeerUrl;
use crate::arrival::{Admission, ArrivalRefused, Gate, Knock, Transport, admit, contains};
use crate::close::CloseCode;
use crate::credentials::Credentials;
use crate::handshake::Speaker;
use crate::identity::{self, Part};
use crate::limits::{CLOCK_INTERVAL, CLOSE_WITHIN};
use crate::link::LinkUser;
use crate::observer::{MeshObserver, PeerSource, PeerView};
use crate::peers::wanted;
use crate::settings::MeshSettings;
use crate::table::{Standing, Table};

pub use run::AcceptError;

/// Links that wait for their task. Each comes from a dial, of which there is one for each peer.
const SPAWN_QUEUE: usize = 16;

/// The target of records that security teams look for, as in the rest of the hub.
const SECURITY: &str = "nowconnect::security";

/// The grip on a hub's links. Cheap to clone.
#[derive(Clone)]
pub struct Mesh(Arc<Inner>);

pub(crate) struct Inner {
    replica: ReplicaId,
    boot: u64,
    settings: watch::Sender<Arc<MeshSettings>>,
    user: Arc<dyn LinkUser>,
    observer: Arc<dyn MeshObserver>,
    table: Mutex<Table>,
    /// Counts changes of the table.
    changed: watch::Sender<u64>,
    gate: Arc<Gate>,
    /// Another living hub has this one's name.
    name_taken: AtomicBool,
    leaving: AtomicBool,
    /// Links to be served beside the dial that made them.
    spawn: mpsc::Sender<BoxFuture<'static, ()>>,
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("replica", &self.0.replica)
            .finish_non_exhaustive()
    }
}

/// The tasks of a mesh; dropping it ends them, and all links that this hub dialled.
#[derive(Debug)]
pub struct MeshTasks {
    mesh: Mesh,
    supervisor: JoinHandle<()>,
}

impl Drop for MeshTasks {
    fn drop(&mut self) {
        self.begin_to_leave();
        self.supervisor.abort();
    }
}

impl MeshTasks {
    /// Starts to dial, and to take links. `boot` is random per process, the same as in this hub's
    /// presence; `seen` is what the registry knows of the other hubs. Needs a tokio runtime.
    #[must_use]
    pub fn start(
        replica: ReplicaId,
        boot: u64,
        settings: MeshSettings,
        seen: watch::Receiver<Seen>,
        user: Arc<dyn LinkUser>,
        observer: Arc<dyn MeshObserver>,
    ) -> Self {
        let (spawn, spawned) = mpsc::channel(SPAWN_QUEUE);
        let mesh = Mesh(Arc::new(Inner {
            replica,
            boot,
            settings: watch::Sender::new(Arc::new(settings)),
            user,
            observer,
            table: Mutex::default(),
            changed: watch::Sender::new(0),
            gate: Arc::default(),
            name_taken: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            spawn,
        }));
        let supervisor = Supervisor {
            inner: Arc::clone(&mesh.0),
            dials: Vec::new(),
            tasks: JoinSet::new(),
        };
        let supervisor = tokio::spawn(supervisor.run(seen, spawned));
        Self { mesh, supervisor }
    }

    /// The grip on the links.
    #[must_use]
    pub fn mesh(&self) -> Mesh {
        self.mesh.clone()
    }

    /// Tells all peers that this hub leaves, waits a moment for the links to end, and ends all
    /// tasks.
    pub async fn shutdown(self) {
        self.begin_to_leave();
        let mut changed = self.mesh.0.changed.subscribe();
        let empty = async {
            while self.mesh.0.table.lock().links().next().is_some() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // What has not ended by then is cut with its task.
        let _ = tokio::time::timeout(CLOSE_WITHIN, empty).await;
    }

    fn begin_to_leave(&self) {
        self.mesh.0.leaving.store(true, Ordering::Release);
        self.mesh.0.end_where(CloseCode::Leaving, |_, _| true);
        self.mesh.0.touch();
    }
}

impl Mesh {
    /// All peers, each once, in the order of their names.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        self.0.table.lock().view()
    }

    /// Whether a link to this hub stands.
    #[must_use]
    pub fn is_linked(&self, peer: &ReplicaId) -> bool {
        self.0.table.lock().link(peer).is_some()
    }

    /// Tells of changes of what [`peers`](Self::peers) gives.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Takes over other settings. Links stay, but those to addresses that were taken out.
    pub fn update(&self, settings: MeshSettings) {
        self.0.settings.send_replace(Arc::new(settings));
    }

    /// Whether this hub takes and makes no further links.
    pub(crate) fn has_left(&self) -> bool {
        self.0.leaving.load(Ordering::Acquire)
    }

    /// The credentials of the moment.
    pub(crate) fn credentials(&self) -> Option<Arc<Credentials>> {
        self.0.settings().credentials.clone()
    }

    pub(crate) fn turned_away(&self, source: SocketAddr, code: &'static str) {
        self.0.observer.turned_away(source.ip(), code);
    }

    /// Counts a fresh connection whose peer is not proven yet; call it before anything is read.
    ///
    /// # Errors
    /// There are too many already, or this hub takes no links.
    pub fn knock(&self, source: SocketAddr) -> Result<Knock, ArrivalRefused> {
        let refused = |reason: ArrivalRefused| {
            self.0.observer.turned_away(source.ip(), reason.code());
            reason
        };
        if self.0.is_shut() {
            return Err(refused(ArrivalRefused::Closed));
        }
        let settings = self.0.settings();
        let is_ingress = contains(&settings.trusted_ingress, source.ip());
        let within = settings.handshake_timeout;
        let knock = self.0.gate.knock(source, is_ingress, within);
        knock.ok_or_else(|| refused(ArrivalRefused::Crowded))
    }

    /// Whether the request of a connection may be upgraded. The upgrade itself has to name
    /// [`SUBPROTOCOL`](crate::SUBPROTOCOL) and to be made with
    /// [`hello_config`](crate::hello_config).
    ///
    /// # Errors
    /// Plain text where that is not taken, or a header of a trusted ingress that speaks against
    /// it.
    pub fn admit(
        &self,
        knock: Knock,
        transport: &Transport,
        headers: &HeaderMap,
    ) -> Result<Admission, ArrivalRefused> {
        let settings = self.0.settings();
        let source = knock.source().ip();
        let is_ingress = contains(&settings.trusted_ingress, source);
        admit(
            knock,
            transport,
            headers,
            settings.require_proof,
            is_ingress,
        )
        .inspect_err(|reason| {
            self.0.observer.turned_away(source, reason.code());
        })
    }
}

impl Inner {
    fn settings(&self) -> Arc<MeshSettings> {
        Arc::clone(&self.settings.borrow())
    }

    /// Whether no link may be made.
    fn is_shut(&self) -> bool {
        self.name_taken.load(Ordering::Acquire) || self.leaving.load(Ordering::Acquire)
    }

    fn speaker<'a>(
        &'a self,
        settings: &MeshSettings,
        loaded: Option<&'a Credentials>,
    ) -> Speaker<'a> {
        Speaker {
            replica: &self.replica,
            boot: self.boot,
            terms: self.user.terms(),
            loaded,
            require_proof: settings.require_proof,
        }
    }

    /// Changes the table, and tells whoever looks at it.
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.table.lock();
        let given = change(&mut table);
        let view = table.view();
        // Under the lock, so that an older view never comes after a newer one.
        self.observer.peers(&view);
        drop(table);
        self.touch();
        given
    }

    fn touch(&self) {
        self.changed.send_modify(|generation| *generation += 1);
    }

    /// Tells the links that `which` names to end.
    fn end_where(&self, code: CloseCode, mut which: impl FnMut(&ReplicaId, &Standing) -> bool) {
        let table = self.table.lock();
        for (peer, link) in table.links() {
            if which(peer, link) {
                info!(%peer, %code, "a link to another hub is being closed");
                link.end.send_replace(Some(code));
            }
        }
    }

    /// Ends the links whose peer's certificate is no longer vouched for.
    fn recheck_trust(&self) {
        let settings = self.settings();
        let Some(loaded) = &settings.credentials else {
            return;
        };
        self.end_where(CloseCode::IdentityRefused, |peer, link| {
            if !link.proven {
                return settings.require_proof;
            }
            let part = match link.contender.dialled {
                true => Part::Acceptor,
                false => Part::Dialler,
            };
            match identity::check(&link.chain, &loaded.roots, part, UnixTime::now()) {
                Ok(_) => false,
                Err(error) => {
                    warn!(
                        target: SECURITY,
                        event = "mesh_trust_lost",
                        %peer,
                        %error,
                        "a hub is no longer trusted"
                    );
                    true
                }
            }
        });
    }
}

/// Starts and ends dials as the configuration and the registry change.
struct Supervisor {
    inner: Arc<Inner>,
    dials: Vec<(PeerUrl, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Supervisor {
    async fn run(
        mut self,
        mut seen: watch::Receiver<Seen>,
        mut spawned: mpsc::Receiver<BoxFuture<'static, ()>>,
    ) {
        let inner = Arc::clone(&self.inner);
        let mut settings = inner.settings.subscribe();
        let mut has_registry = true;
        loop {
            let current = Arc::clone(&settings.borrow_and_update());
            let hubs = seen.borrow_and_update().clone();
            self.reconcile(&current, &hubs);
            loop {
                tokio::select! {
                    changed = settings.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    changed = seen.changed(), if has_registry => {
                        has_registry = changed.is_ok();
                        break;
                    }
                    Some(link) = spawned.recv() => {
                        self.tasks.spawn(link);
                    }
                    Some(ended) = self.tasks.join_next() => {
                        if let Err(error) = ended && error.is_panic() {
                            warn!(%error, "a task of the mesh failed");
                        }
                    }
                    () = tokio::time::sleep(CLOCK_INTERVAL) => {
                        inner.change(|table| table.forget(Instant::now()));
                    }
                }
            }
        }
    }

    fn reconcile(&mut self, settings: &MeshSettings, seen: &Seen) {
        let taken = seen.joined == Joined::NameTaken;
        self.inner.name_taken.store(taken, Ordering::Release);
        let wanted = wanted(settings, seen, &self.inner.replica);
        let (new, left) = self.inner.change(|table| {
            let before: Vec<_> = table
                .links()
                .filter_map(|(_, link)| link.address.clone())
                .filter(|url| {
                    let target = table.target(url);
                    target.is_some_and(|target| target.wanted.source == PeerSource::Configured)
                })
                .collect();
            let (new, left) = table.retarget(wanted);
            // A link to a hub that has left the registry may stand: it ends by itself where the
            // hub is gone. One to an address that the operator took out is not wanted.
            let removed: Vec<_> = before
                .into_iter()
                .filter(|url| left.contains(url))
                .collect();
            (new, (left, removed))
        });
        let (left, removed) = left;
        self.dials.retain(|(url, dial)| {
            let stays = !left.contains(url);
            if !stays {
                dial.abort();
            }
            stays
        });
        for url in new {
            let dial = keep::keep(Arc::clone(&self.inner), url.clone());
            self.dials.push((url, self.tasks.spawn(dial)));
        }
        self.inner.end_where(CloseCode::Removed, |_, link| {
            link.address
                .as_ref()
                .is_some_and(|url| removed.contains(url))
        });
        self.inner.recheck_trust();
    }
}

/// The wall clock, in seconds since 1970.
fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// How long to sleep until a moment of the wall clock, which may be set meanwhile.
fn nap(until: i64) -> Duration {
    let left = until.saturating_sub(wall_clock()).max(0);
    Duration::from_secs(left.unsigned_abs()).min(CLOCK_INTERVAL)
}
