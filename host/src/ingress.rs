//! HTTP by host name: viewers' requests reach services behind agents.
//!
//! ```text
//! door ─► head ─► route ─► decision, plugins ─► pool or new flow ─► origin
//!   viewer ◄─────────────────── plugins ◄──────────────┘
//! ```
//! The hub ends HTTP here and speaks it anew to the origin, over flows that it opens itself; flow
//! protocol and agent know no HTTP. TLS to an origin is the agent's. Bodies pass frame by frame,
//! and nothing of them is gathered.
//!
//! [`routes`], [`host`](mod@host) and [`path`] are pure; [`published`] has the names that come and
//! go while the hub runs. [`door`] lets viewers in, [`exchange`]
//! leads one request through, [`upstream`] and [`pool`] hold connections to origins, [`failure`]
//! has every answer that the hub gives itself.

mod account;
mod authority;
mod body;
mod caching;
mod cookies;
mod door;
mod exchange;
mod failure;
mod forwarded;
mod head;
mod headers;
mod host;
mod in_flight;
mod leash;
mod origin_flow;
mod pace;
mod path;
mod patience;
mod pipe;
mod pool;
mod probe;
mod progress;
mod published;
mod published_status;
mod recheck;
mod reload;
mod reply;
mod request_id;
mod rewind;
mod route;
mod routes;
mod running;
mod sender;
mod shares;
mod sign_in;
mod status;
mod sticky;
mod taking;
mod trace;
mod upgrade;
mod upstream;
mod viewer_http;
mod viewer_socket;
mod viewers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use nowconnect_policy::Name;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::certificates::Issued;
use crate::config::{CloudConfig, IngressLimits, ListenerName};
use crate::hub::Hub;
use crate::limit::{SourceSlot, SourceSlots};
use crate::telemetry::metrics::Metrics;
use crate::tls::ViewerTls;
use crate::viewer::{Hashing, IdentityNames, ViewerAuth};
use door::Door;
pub(crate) use forwarded::Origination;
pub(crate) use host::{Authority, HostPattern};
use in_flight::InFlightTable;
pub(crate) use path::normal_path;
use pool::Pool;
pub(crate) use probe::{Probed, probe};
use published::PublishedRoutes;
pub(crate) use recheck::{agent_lost, may_go_on, under_way};
pub(crate) use reload::NextIngress;
use route::Route;
use routes::{NoRoute, RouteTable};
use shares::Shares;
pub(crate) use status::status;
use sticky::StickyKey;

/// How often kept connections, and viewers whose proof ends, are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Ingress {
    routes: ArcSwap<RouteTable<Route>>,
    published: PublishedRoutes,
    doors: Mutex<Vec<Arc<Door>>>,
    pool: Pool,
    in_flight: Arc<InFlightTable>,
    /// Requests at once.
    requests: Shares,
    /// TLS handshakes at once: each holds its place before its peer has sent a byte.
    handshakes: Shares,
    /// Connections at once from each source; changed with its bound.
    sources: ArcSwap<SourceBound>,
    /// Of the cookies that name agents.
    sticky: StickyKey,
    last_viewer: AtomicU64,
    /// The sets by which viewers say who they are, by the names that routes use.
    viewer_auth: ArcSwap<BTreeMap<ListenerName, Arc<ViewerAuth>>>,
    /// The header fields in which origins are told who asks.
    identity_names: ArcSwap<IdentityNames>,
    hashing: Hashing,
    /// What of its files could not be taken over, a line each.
    stale: ArcSwap<Vec<String>>,
    /// Certificates that are in no file.
    issued: Arc<Issued>,
    /// Told when ports or routes are others.
    changed: Notify,
    /// Rows that were put into the policies' facts and are to be taken out again.
    rows: Mutex<Rows>,
}

#[derive(Debug)]
struct SourceBound {
    limit: u32,
    slots: Arc<SourceSlots>,
}

#[derive(Debug, Default)]
struct Rows {
    endpoints: Vec<Name>,
    listeners: Vec<Name>,
}

impl SourceBound {
    fn new(limit: u32) -> Self {
        Self {
            limit,
            slots: SourceSlots::new(bound(limit)),
        }
    }

    /// Another bound; what was taken under the earlier one stays counted there until it ends.
    fn renew(this: &ArcSwap<Self>, limit: u32) {
        if this.load().limit != limit {
            this.store(Arc::new(Self::new(limit)));
        }
    }
}

impl Ingress {
    pub(crate) fn new(config: &CloudConfig, metrics: &Arc<Metrics>) -> Self {
        let limits = &config.ingress.limits;
        Self {
            routes: ArcSwap::default(),
            published: PublishedRoutes::default(),
            doors: Mutex::default(),
            pool: Pool::new(Arc::clone(metrics)),
            in_flight: Arc::default(),
            requests: Shares::new(limits.max_requests, limits.max_requests_per_source),
            handshakes: Shares::new(limits.max_handshakes, handshake_share(limits)),
            sources: ArcSwap::from_pointee(SourceBound::new(limits.max_connections_per_source)),
            sticky: StickyKey::random(),
            last_viewer: AtomicU64::new(0),
            viewer_auth: ArcSwap::default(),
            identity_names: ArcSwap::default(),
            hashing: Hashing::default(),
            stale: ArcSwap::default(),
            issued: Issued::new(),
            changed: Notify::new(),
            rows: Mutex::default(),
        }
    }

    /// Where a listener is bound, by its name in the configuration.
    pub(crate) fn address(&self, name: &str) -> Option<SocketAddr> {
        let doors = self.doors.lock();
        let door = doors.iter().find(|door| &*door.rules().text == name)?;
        Some(door.address)
    }

    /// Certificates that are in no file.
    pub(crate) fn issued(&self) -> &Arc<Issued> {
        &self.issued
    }

    /// What of the ingress' files could not be taken over, a line each.
    pub(crate) fn stale(&self) -> Arc<Vec<String>> {
        self.stale.load_full()
    }

    /// Told when ports or routes are others; one waits for it.
    pub(crate) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// The ports with TLS.
    pub(crate) fn tls_ports(&self) -> Vec<ViewerTls> {
        let doors = self.doors.lock();
        doors
            .iter()
            .filter_map(|door| door.rules().tls.clone())
            .collect()
    }

    /// The hosts that are published here by their full name.
    pub(crate) fn hosts(&self) -> BTreeSet<Arc<str>> {
        self.routes.load().exact_hosts().cloned().collect()
    }

    /// Lets viewers in.
    pub(crate) fn serve(&self, hub: &Arc<Hub>) {
        for door in self.doors.lock().iter() {
            door.serve(hub);
        }
    }

    /// Lets go of what is kept for later requests: there will be none.
    pub(crate) fn end(&self) {
        self.pool.close();
    }

    fn set_limits(&self, limits: &IngressLimits) {
        self.requests
            .set_limit(limits.max_requests, limits.max_requests_per_source);
        self.handshakes
            .set_limit(limits.max_handshakes, handshake_share(limits));
        SourceBound::renew(&self.sources, limits.max_connections_per_source);
    }

    fn take_source(&self, source: IpAddr) -> Option<SourceSlot> {
        self.sources.load().slots.take(source)
    }

    /// Where requests for a normalised host and path go: to a route for exactly that host, else to
    /// the agent that publishes the name, else to a route for a wildcard.
    fn route(&self, hub: &Hub, host: &str, path: &str) -> Result<Arc<Route>, NoRoute> {
        let routes = self.routes.load();
        if !routes.names_exactly(host)
            && let Some(route) = self.published.find(hub, host)
        {
            return Ok(route);
        }
        routes.find(host, path).map(Arc::clone)
    }

    fn next_viewer(&self) -> u64 {
        self.last_viewer.fetch_add(1, Ordering::Relaxed)
    }
}

/// Lets go of connections to origins that were kept for too long and of names that nobody publishes
/// any more, and ends what viewers carry whose proof has ended, until dropped.
pub(crate) async fn sweep(hub: Arc<Hub>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        viewers::end_expired(&hub);
        let within = hub.config.load().ingress.limits.pool_idle_timeout;
        hub.ingress.pool.sweep(within);
        hub.ingress.published.sweep(&hub);
        published_status::count(&hub);
    }
}

/// A quarter of all handshakes for one source.
fn handshake_share(limits: &IngressLimits) -> u32 {
    (limits.max_handshakes / 4).max(1)
}

fn bound(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
