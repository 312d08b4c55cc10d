//! The control plane of a running hub: the rules of the moment over one store.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::Request;
use ipnet::IpNet;
use nowconnect_control::{
    Client, ClientRegister, Control, ControlError, KeyError, KeyRing, KeySettings, Role, Settings,
};
use nowconnect_store::{Endpoint, Limits, NameLimits, Store, StoreError};
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::api::{Api, now_ms};
use super::ground::Ground;
use super::hub_ground::HubGround;
use super::idempotency::Requests;
use super::names::Names;
use super::origin::OwnNames;
use super::server::{self, Routes};
use crate::admin::problem::{Problem, ProblemCode};
use crate::config::{CloudConfig, ControlConfig, secret};
use crate::hub::Hub;
use crate::identity::{AgentIdentity, OwnIssuer};
use crate::ingress::Origination;
use crate::limit::SourceRates;
use crate::telemetry::events;
use crate::telemetry::metrics::{ControlMetrics, Metrics};
use crate::tls::{ServerTls, TlsError};
use crate::viewer::RingKeys;

/// How often names are kept for the agents that are here, those whose time is over go, and keys
/// are looked at.
const TIDY: Duration = Duration::from_secs(10);
/// Entries whose time is over that leave the file in one go.
const FORGOTTEN_PAGE: usize = 1000;
/// Deleted tunnels of one tenant that are remembered beside those that it may have, of some 200
/// bytes each.
const DELETED_PER_TENANT: u64 = 100_000;
/// The same for one address of anonymous callers.
const DELETED_PER_SOURCE: u64 = 1000;
/// A difference between the clock and the time that passed, between two rounds, that is a jump.
const CLOCK_JUMP: Duration = Duration::from_secs(5);
/// How long before it signs a key is shown: whoever caches the key set asks again by then.
const KEY_SHOWN_BEFORE: Duration = Duration::from_secs(3600);

/// Why there is no control plane.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("`control.tls`: {0}")]
    Tls(#[from] TlsError),
    #[error(
        "the control API cannot be bound to `{address}`: {error}{}",
        crate::gateway::port_hint(error)
    )]
    Bind {
        address: SocketAddr,
        error: std::io::Error,
    },
    #[error("opening the state file panicked; please report this")]
    Panicked,
    #[error("`control.clients`: the secret of `{client}` in `{}`: {reason}", path.display())]
    Secret {
        client: String,
        path: PathBuf,
        reason: String,
    },
}

/// What is had before the hub is: a bound port, an open store, keys.
pub(crate) struct Opened {
    listener: TcpListener,
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    issuer: Arc<str>,
    address: SocketAddr,
}

impl Opened {
    /// Binds the port and opens the store. `None` if the operator wants no API.
    pub(crate) async fn open(config: &CloudConfig) -> Result<Option<Self>, OpenError> {
        let Some(listen) = config.control.listen else {
            return Ok(None);
        };
        let failed = |error| OpenError::Bind {
            address: listen,
            error,
        };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let control = config.control.clone();
        let opened = tokio::task::spawn_blocking(move || open_store(&control)).await;
        let (store, keys) = opened.map_err(|_| OpenError::Panicked)??;
        Ok(Some(Self {
            listener,
            store,
            keys,
            issuer: config.control.issuer(address).into(),
            address,
        }))
    }

    /// What everything is kept in.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Its tokens, for the tunnel port.
    pub(crate) fn issuer(&self) -> OwnIssuer {
        OwnIssuer::new(Arc::clone(&self.issuer), Arc::clone(&self.keys))
    }
}

/// See the module.
pub(crate) struct ControlPlane {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    ground: Arc<dyn Ground>,
    names: Arc<Names>,
    requests: Arc<Requests>,
    current: ArcSwap<Control>,
    routes: ArcSwap<Routes>,
    tls: ArcSwapOption<ServerTls>,
    rates: ArcSwap<SourceRates>,
    callers: ArcSwap<Callers>,
    metrics: Arc<Metrics>,
    /// Reserved names, as of the last round.
    reserved: AtomicU64,
    /// What went wrong in the last round.
    trouble: ArcSwapOption<String>,
    issuer: Arc<str>,
    address: SocketAddr,
    begun: Instant,
}

/// Who may call, before he has shown anything.
#[derive(Debug)]
struct Callers {
    names: OwnNames,
    proxies: Vec<IpNet>,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane")
            .field("issuer", &self.issuer)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What a new configuration makes of it, checked. Dropping it changes nothing.
pub(crate) struct NextControl {
    control: Arc<Control>,
    tls: Option<ServerTls>,
}

impl std::fmt::Debug for NextControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NextControl(..)")
    }
}

/// Opens the file and reads the keys; blocks on the disk.
fn open_store(config: &ControlConfig) -> Result<(Arc<Store>, Arc<KeyRing>), OpenError> {
    let store = Arc::new(match &config.state_file {
        Some(path) => open_file(path)?,
        None => Store::in_memory()?,
    });
    let keys = KeyRing::open(Arc::clone(&store), key_settings(config), now_ms())?;
    for key in keys.unreadable() {
        warn!(
            event = events::CONTROL_STATE_FAILED,
            key, "a signing key cannot be read: what it signed counts no longer"
        );
    }
    Ok((store, Arc::new(keys)))
}

fn open_file(path: &Path) -> Result<Store, StoreError> {
    let store = Store::open(path)?;
    if store.is_made_anew() {
        warn!(
            path = %path.display(),
            "there was no state file, so it was made: no name is reserved and no token of before counts"
        );
    }
    Ok(store)
}

fn key_settings(config: &ControlConfig) -> KeySettings {
    let tokens = &config.tokens;
    let longest = [
        tokens.ephemeral,
        tokens.recreate,
        tokens.management,
        config.anonymous_recreate,
    ];
    KeySettings {
        algorithm: tokens.algorithm,
        signs: tokens.key,
        shown_before: KEY_SHOWN_BEFORE,
        proves_after: longest.into_iter().max().unwrap_or_default() + Duration::from_secs(60),
    }
}

impl ControlPlane {
    /// The control plane of a hub, with every name that the store keeps published. Blocks on the
    /// disk for a moment. Serve what comes with it.
    pub(crate) fn new(
        opened: Opened,
        hub: &Arc<Hub>,
        config: &CloudConfig,
    ) -> Result<(Self, TcpListener), OpenError> {
        let Opened {
            listener,
            store,
            keys,
            issuer,
            address,
        } = opened;
        let ground: Arc<dyn Ground> = Arc::new(HubGround(Arc::downgrade(hub)));
        let names = Names::new(Arc::clone(&hub.published), Arc::clone(&ground));
        let control = Arc::new(rules(config, &issuer, &store, &keys)?);
        // Nobody could come while the hub was off.
        control.resume(now_ms())?;
        names.refresh_all(&control)?;
        let plane = Self {
            tls: ArcSwapOption::new(tls(&config.control)?.map(Arc::new)),
            rates: ArcSwap::from_pointee(rates(config)),
            callers: ArcSwap::from_pointee(callers(config)),
            metrics: Arc::clone(hub.metrics()),
            reserved: AtomicU64::new(store.reservation_count()?),
            trouble: ArcSwapOption::empty(),
            routes: ArcSwap::default(),
            current: ArcSwap::new(Arc::clone(&control)),
            names: Arc::new(names),
            requests: Arc::default(),
            store,
            keys,
            ground,
            issuer,
            address,
            begun: Instant::now(),
        };
        plane.route(&control);
        let counted = Arc::downgrade(hub);
        hub.metrics().on_scrape(move |metrics| {
            let hub = counted.upgrade();
            if let Some(plane) = hub.as_ref().and_then(|hub| hub.control()) {
                plane.measure(&metrics.control);
            }
        });
        Ok((plane, listener))
    }

    /// What a new configuration makes of it.
    pub(crate) fn next(&self, config: &CloudConfig) -> Result<NextControl, OpenError> {
        Ok(NextControl {
            tls: tls(&config.control)?,
            control: Arc::new(rules(config, &self.issuer, &self.store, &self.keys)?),
        })
    }

    /// Puts that in force; requests under way go on by what they began with.
    pub(crate) fn renew(&self, next: NextControl, config: &CloudConfig) {
        self.tls.store(next.tls.map(Arc::new));
        self.rates.store(Arc::new(rates(config)));
        self.callers.store(Arc::new(callers(config)));
        self.keys.set(key_settings(&config.control));
        self.route(&next.control);
        self.current.store(next.control);
    }

    fn route(&self, control: &Arc<Control>) {
        let api = Api {
            control: Arc::clone(control),
            names: Arc::clone(&self.names),
            requests: Arc::clone(&self.requests),
            ground: Arc::clone(&self.ground),
            metrics: Arc::clone(&self.metrics),
        };
        self.routes.store(Arc::new(Routes::new(api)));
    }

    pub(super) fn issuer(&self) -> Arc<str> {
        Arc::clone(&self.issuer)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The keys that sign for others than agents and clients too, and `iss` of what they sign.
    pub(crate) fn ring(&self) -> RingKeys<'_> {
        RingKeys {
            keys: &self.keys,
            issuer: &self.issuer,
        }
    }

    pub(super) fn tls(&self) -> Option<Arc<ServerTls>> {
        self.tls.load_full()
    }

    pub(super) fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    pub(super) fn metrics(&self) -> &ControlMetrics {
        &self.metrics.control
    }

    /// Whether callers come through this address and not from it.
    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let callers = self.callers.load();
        callers.proxies.iter().any(|net| net.contains(&address))
    }

    /// Where a request comes from, which a trusted proxy in front says.
    ///
    /// # Errors
    /// It is led here by a name that is not ours, or by a web page of somebody else; or the proxy
    /// does not say who asks.
    pub(super) fn caller<B>(
        &self,
        request: &Request<B>,
        peer: SocketAddr,
    ) -> Result<SocketAddr, Problem> {
        let callers = self.callers.load();
        let foreign = |detail| Err(Problem::new(ProblemCode::ForeignOrigin, detail));
        if !callers.names.is_asked(request.uri(), request.headers()) {
            return foreign(
                "`Host` is no name of this API; its operator names it in `control.public_url` or \
                 `control.allowed_hosts`",
            );
        }
        if callers.names.is_foreign_page(request.headers()) {
            return foreign(
                "web pages of other hosts have no access; the API's own are those of \
                 `control.public_url` and `control.allowed_hosts`",
            );
        }
        let from = Origination::of(peer.ip(), false, &callers.proxies, request.headers());
        let from = from.map_err(|_| {
            let detail = "the proxy in front does not say who asks: its `X-Forwarded-For` holds \
                          what is no address";
            Problem::new(ProblemCode::InvalidRequest, detail)
        })?;
        if from.address == peer.ip().to_canonical() {
            Ok(peer)
        } else {
            // Behind a proxy the caller's port is not known.
            Ok(SocketAddr::new(from.address, 0))
        }
    }

    /// Why nothing can be given out now, for the operator.
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.store.has_failed() {
            return Some("the state file failed and is opened anew every ten seconds".to_owned());
        }
        self.trouble.load().as_deref().cloned()
    }

    fn measure(&self, metrics: &ControlMetrics) {
        let failed = self.trouble().is_some();
        metrics.set_state(failed, self.store.failures());
        metrics.set_endpoints(self.names.count());
        metrics.set_names(self.reserved.load(Ordering::Relaxed));
    }

    pub(super) fn allows(&self, source: IpAddr) -> bool {
        self.rates.load().allows(source, self.begun.elapsed())
    }

    /// Whether a token is one of ours, and has to be [admitted](Self::admit).
    pub(crate) fn issued(&self, identity: &AgentIdentity) -> bool {
        identity.issuer == self.issuer
    }

    /// Uses an agent's token up: it counts once, and only while it is the last one of its tunnel.
    /// Blocks on the disk.
    pub(crate) fn admit(&self, identity: &AgentIdentity) -> Result<(), ControlError> {
        let endpoint = identity.subject.as_deref().unwrap_or_default();
        let token = identity.jti.as_deref().unwrap_or_default();
        let control = self.current.load_full();
        control.admit(endpoint, token, now_ms()).map(|_| ())
    }

    /// Writes a copy of what is kept to a new file. Blocks on the disk.
    pub(crate) fn backup(&self, path: &Path) -> Result<(), StoreError> {
        self.store.backup(path)
    }

    /// Lets a new key sign; see [`KeyRing::rotate`]. Blocks on the disk.
    pub(crate) fn rotate(&self, distrust: bool) -> Result<String, KeyError> {
        self.keys.rotate(now_ms(), distrust)
    }

    /// Serves until dropped.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        info!(
            event = events::LISTENER_STARTED,
            listener = "control",
            address = %self.address,
            "the control API listens"
        );
        server::serve(listener, self).await;
    }

    /// Keeps names for the agents that are here and looks after keys, until dropped.
    pub(crate) async fn tidy(self: Arc<Self>) {
        let mut watch = ClockWatch::new();
        loop {
            // Names are kept for the grace time from each round on: three of them fit into it.
            let pause = TIDY.min(self.current.load().settings().grace / 3);
            tokio::time::sleep(pause).await;
            let plane = Arc::clone(&self);
            let jumped = watch.has_jumped();
            let done = tokio::task::spawn_blocking(move || plane.tidy_once(now_ms(), jumped)).await;
            let trouble = match done {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("looking after it panicked; please report this".to_owned()),
            };
            if let Some(error) = &trouble {
                warn!(
                    event = events::CONTROL_STATE_FAILED,
                    error, "the state file failed"
                );
            }
            self.trouble.store(trouble.map(Arc::new));
        }
    }

    fn tidy_once(&self, now_ms: u64, jumped: bool) -> Result<(), ControlError> {
        if self.store.heal()? {
            warn!(
                event = events::CONTROL_STATE_FAILED,
                "the state file was opened anew after a failure"
            );
        }
        let control = self.current.load_full();
        // What goes wrong with one of these is no reason to leave the others undone.
        let kept = self.keep_names(&control, now_ms, jumped);
        let retried = self.names.retry(&control);
        let forgotten = self
            .store
            .forget_answers(now_ms, FORGOTTEN_PAGE)
            .and_then(|_| self.store.forget_deleted(now_ms, FORGOTTEN_PAGE));
        self.keys.tidy(now_ms)?;
        self.reserved
            .store(self.store.reservation_count()?, Ordering::Relaxed);
        kept?;
        retried?;
        forgotten?;
        Ok(())
    }

    fn keep_names(&self, control: &Control, now_ms: u64, jumped: bool) -> Result<(), StoreError> {
        if jumped {
            control.resume(now_ms)?;
        }
        let mut after = None;
        loop {
            let is_here = |endpoint: &Endpoint| self.is_here(endpoint);
            let step = control.tidy(now_ms, after.as_deref(), is_here)?;
            for gone in &step.gone {
                // One that fails is read again in the next round.
                let _ = self.names.refresh(control, &gone.name);
            }
            match step.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn is_here(&self, endpoint: &Endpoint) -> bool {
        self.ground.is_here(&endpoint.tenant, &endpoint.agent)
    }
}

/// Tells whether the clock went otherwise than time did: it was set, or the machine slept.
struct ClockWatch {
    began: Instant,
    clock_ms: u64,
}

impl ClockWatch {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            clock_ms: now_ms(),
        }
    }

    /// Since the last time that this was asked.
    fn has_jumped(&mut self) -> bool {
        let was = std::mem::replace(self, Self::new());
        jumped(
            self.began.duration_since(was.began),
            was.clock_ms,
            self.clock_ms,
        )
    }
}

fn jumped(passed: Duration, from_ms: u64, to_ms: u64) -> bool {
    let expected = from_ms.saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
    Duration::from_millis(expected.abs_diff(to_ms)) > CLOCK_JUMP
}

fn callers(config: &CloudConfig) -> Callers {
    let control = &config.control;
    let public = control.public_url.as_ref().and_then(|url| url.host_str());
    let more = control.allowed_hosts.iter().map(String::as_str);
    Callers {
        names: OwnNames::new(public.into_iter().chain(more)),
        proxies: control.trusted_proxies.clone(),
    }
}

fn rates(config: &CloudConfig) -> SourceRates {
    SourceRates::new(Some(config.control.rate_per_source))
}

fn rules(
    config: &CloudConfig,
    issuer: &str,
    store: &Arc<Store>,
    keys: &Arc<KeyRing>,
) -> Result<Control, OpenError> {
    let control = &config.control;
    let settings = Settings {
        issuer: issuer.to_owned(),
        audience: config.security.audience.clone(),
        domain: control.domain.clone(),
        anonymous_tenant: control
            .anonymous_tenant
            .as_ref()
            .map(|tenant| tenant.as_str().to_owned()),
        ephemeral: control.tokens.ephemeral,
        recreate_anonymous: control.anonymous_recreate,
        recreate_registered: control.tokens.recreate,
        management: control.tokens.management,
        grace: control.grace,
        names: control.names.clone(),
        anonymous_endpoints: control.anonymous_max_endpoints,
        tcp_ports: control.tcp_ports.as_ref().map(|ports| ports.range),
        limits: Limits {
            per_tenant: control.max_endpoints_per_tenant,
            total: control.max_endpoints,
            deleted_per_tenant: DELETED_PER_TENANT,
            deleted_per_source: DELETED_PER_SOURCE,
        },
        name_limits: NameLimits {
            per_tenant: control.max_names_per_tenant,
            total: control.max_names,
        },
    };
    Ok(Control::new(
        Arc::clone(store),
        Arc::clone(keys),
        clients(control)?,
        settings,
    ))
}

fn tls(config: &ControlConfig) -> Result<Option<ServerTls>, TlsError> {
    config
        .tls
        .as_ref()
        .map(|files| ServerTls::load(files, &["http/1.1"]))
        .transpose()
}

fn clients(config: &ControlConfig) -> Result<ClientRegister, OpenError> {
    let mut clients = Vec::with_capacity(config.clients.len());
    for client in &config.clients {
        let secret =
            secret::read_file(&client.secret_file).map_err(|reason| OpenError::Secret {
                client: client.id.clone(),
                path: client.secret_file.clone(),
                reason,
            })?;
        let scopes: Vec<String> = client
            .scopes
            .iter()
            .map(|scope| scope.as_str().to_owned())
            .collect();
        clients.push(Client::new(
            &client.id,
            secret.expose(),
            client.tenant.as_str(),
            &scopes,
            Role(client.role.clone()),
        ));
    }
    Ok(ClientRegister::new(clients))
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_has_jumped_and_one_that_is_slewed_has_not() {
        let ten = Duration::from_secs(10);
        for (to_ms, has) in [
            (1_010_000, false),
            (1_012_000, false),
            (1_070_000, true),
            (900_000, true),
        ] {
            assert_eq!(jumped(ten, 1_000_000, to_ms), has, "{to_ms}");
        }
    }
}
