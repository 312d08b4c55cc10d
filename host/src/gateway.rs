//! The hub as one value: [`Gateway::bind`] wires the parts and returns a [`Running`] hub.
//!
//! Threads: the runtime that binds accepts agents, serves the pages and the admin API, and does
//! reloads; the workers (`tunnel.workers`) drive tunnels and accept clients; one thread of the
//! plugin engine ends calls that take too long; compiling runs on blocking threads.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use nowconnect_plugins::{EngineError, EngineSettings, MemoryKv, MemoryKvSettings, PluginEngine};
use nowconnect_policy::{Facts, ListenerFacts, Name};
use nowconnect_protocol::WindowPool;
use nowconnect_store::Store;
use nowconnect_tunnel::Workers;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

use crate::admin::view::ReloadReport;
use crate::admin::{AdminBindError, AdminProof, AdminServer, AdminState, AdminTcp};
use crate::authorize::{
    ADMIN_LISTENER, Authorizer, AuthorizerParts, CONTROL_LISTENER, MESH_LISTENER, TUNNEL_LISTENER,
};
use crate::bundle::board::{Bundles, MAX_WAITING_ORDERS};
use crate::bundle::keeper::Keeper;
use crate::bundle::source;
use crate::certificates;
use crate::cluster::{self, Cluster, ClusterStatus, JoinError};
use crate::config::CloudConfig;
use crate::connector::{self, ConnectorTable};
use crate::control::{ControlPlane, OpenError, Opened, PublishedNames, keep_ports};
use crate::drain::{self, Drains, Phase};
use crate::flow_table::FlowTable;
use crate::generation::{Brought, Generation, GenerationError, Generations};
use crate::health::HealthRoutes;
use crate::hub::{Hub, HubReadiness, MAX_CLOSE_HOOKS, tunnel_settings};
use crate::identity::Authenticator;
use crate::ingress::{self, Ingress, NextIngress};
use crate::limit::{Gate, Rate, Slots};
use crate::listener::{Port, Rules};
use crate::mesh::{self, LinkState, Links, NextLinks};
use crate::page_server;
use crate::pdp::Pdp;
use crate::recheck::{self, Rounds};
use crate::registry::Registry;
use crate::reload::{self, Loader, MAX_WAITING_RELOADS, ReloadAsk, Reloader};
use crate::router::Router;
use crate::session::{self, AgentAddresses, HelloTurns, ParkedSessions};
use crate::telemetry::decisions::requests::Requests;
use crate::telemetry::decisions::{DecisionRing, MAX_DECISION_BYTES};
use crate::telemetry::events;
use crate::telemetry::logs::{LevelControl, Logs};
use crate::telemetry::mask::{LogMasker, PluginMasker};
use crate::telemetry::metrics::{Certificate, Metrics};
use crate::telemetry::plugins::PluginTelemetry;
use crate::telemetry::redact::Covers;
use crate::telemetry::{self, DecisionLog};
use crate::tunnel_endpoint::{self, Admissions};
use crate::watch::{WatchSet, Watcher};

/// Makes hubs.
#[derive(Debug)]
pub struct Gateway;

/// What a hub is given beside its configuration.
#[derive(Clone, Default)]
pub struct GatewayOptions {
    /// Reads the configuration again for a reload; without it only what the configuration
    /// refers to is read again.
    pub loader: Option<Loader>,
    /// Whether files and SIGHUP are watched.
    pub watch: bool,
    /// Where things are counted; a new one if absent.
    pub metrics: Option<Arc<Metrics>>,
    /// Where decisions are logged.
    pub logs: Option<Logs>,
    /// The log level, for the admin API and for reloads.
    pub level: Option<LevelControl>,
    /// Where hubs of a cluster without Redis claim agents; a table of this hub's own if absent.
    pub registry: Option<Arc<dyn Registry>>,
}

impl fmt::Debug for GatewayOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayOptions")
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

/// Why a hub could not be started. Nothing was accepted.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address is taken, not ours, or needs a right that we lack.
    #[error("{what} cannot be bound to `{address}`: {source}{}", port_hint(source))]
    Address {
        /// Which part.
        what: String,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A port or certificate of the HTTP ingress cannot be had.
    #[error("{0}")]
    Ingress(String),
    /// Policies or plugins were refused.
    #[error("policies or plugins were refused:\n{0}")]
    Generation(#[from] GenerationError),
    /// The plugin engine could not be made.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Keys, certificates or lists could not be read.
    #[error("{0}")]
    Credentials(String),
    /// The control API or its state file could not be opened.
    #[error("{0}")]
    Control(String),
    /// The cluster's registry cannot be used, or will not have this hub.
    #[error(transparent)]
    Cluster(#[from] JoinError),
    /// The admin API could not be opened.
    #[error(transparent)]
    Admin(#[from] AdminBindError),
    /// The system refused a thread, a watch or randomness.
    #[error("{what}: {source}")]
    System {
        /// For what.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The way out of a port that cannot be had, behind what the system says.
pub(crate) fn port_hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        "; another program has the port, such as a hub that runs already (`ss -ltnp` shows which): \
         end it, or choose another port"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "; ports below 1024 need a right: choose another port, or give the hub CAP_NET_BIND_SERVICE"
    } else {
        ""
    }
}

impl From<OpenError> for BindError {
    fn from(error: OpenError) -> Self {
        Self::Control(error.to_string())
    }
}

/// How long the end waits for decisions that wait to be logged.
const DECISION_LOG_DEADLINE: Duration = Duration::from_secs(1);

/// How long the end waits for the state file to take what is not in it yet.
const STATE_DEADLINE: Duration = Duration::from_secs(1);

/// A hub that serves; dropping it ends everything at once.
#[derive(Debug)]
pub struct Running {
    hub: Arc<Hub>,
    tunnel_address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    mesh_address: Option<SocketAddr>,
    /// Where it remembers agents.
    state: Option<Arc<Store>>,
    tasks: JoinSet<()>,
    admin: Option<AdminServer>,
    end: mpsc::Receiver<Duration>,
    /// Dropped last: it waits for its threads.
    workers: Option<Arc<Workers>>,
}

impl Gateway {
    /// Binds every port, builds the first generation, and starts to serve.
    ///
    /// # Errors
    /// Something of it cannot be had; then nothing was accepted, and what was bound is closed.
    pub async fn bind(config: CloudConfig, options: GatewayOptions) -> Result<Running, BindError> {
        let config = Arc::new(config);
        let metrics = options.metrics.clone().unwrap_or_else(Metrics::new);
        let workers = start_workers(&config)?;
        let (asks, waiting_asks) = mpsc::channel(MAX_WAITING_RELOADS);
        let (end, ended) = mpsc::channel(1);
        let (orders, waiting_orders) = mpsc::channel(MAX_WAITING_ORDERS);
        let (keeper, brought) = begin_bundles(&config).await?;
        let bundles = Bundles::new(orders, keeper.is_some());
        let control = Opened::open(&config).await?;
        let certificate_store = open_certificate_store(&config, control.as_ref()).await?;
        let hub = make_hub(
            &config,
            metrics,
            options.logs.clone(),
            options.registry.clone(),
            Arc::downgrade(&workers),
            (asks, end, bundles, brought),
            control.as_ref(),
        )
        .await?;

        let state = control
            .as_ref()
            .map(Opened::store)
            .or(certificate_store.as_ref())
            .cloned();
        if let Some(state) = &state {
            remember_agents(&hub, state).await;
        }

        let tunnel = bind_tcp("the tunnel port", config.tunnel.listen()).await?;
        let tunnel_address = local_address(&tunnel, config.tunnel.listen())?;
        hub.tunnel_address.store(Some(Arc::new(tunnel_address)));
        let mesh_port = match config.ha.mesh.listen.filter(|_| config.ha.enabled) {
            Some(address) => Some(bind_tcp("`ha.mesh.listen`", address).await?),
            None => None,
        };
        let mesh_address = match &mesh_port {
            Some(port) => Some(local_address(port, config.tunnel.listen())?),
            None => None,
        };
        let links = NextLinks::build(&config).map_err(BindError::Credentials)?;
        let metrics_port = match config.observability.metrics_listen() {
            Some(address) => Some(bind_tcp("the metrics port", address).await?),
            None => None,
        };
        let metrics_address = match &metrics_port {
            Some(port) => Some(local_address(port, config.tunnel.listen())?),
            None => None,
        };
        bind_listeners(&hub, &config, tunnel_address)?;
        bind_ingress(&hub, &config)?;
        let control = match control {
            Some(opened) => Some(mount_control(&hub, &config, opened)?),
            None => None,
        };
        let watcher = if options.watch {
            let watcher = Watcher::start(WatchSet::of(&config))
                .map_err(|error| BindError::Credentials(error.to_string()))?;
            Some(watcher)
        } else {
            None
        };

        let mut tasks = JoinSet::new();
        mount_pages(&hub, &config);
        if let Some(port) = metrics_port {
            let pages = health_routes(&hub)
                .with_metrics(Arc::clone(&hub.metrics))
                .into_router();
            tasks.spawn(page_server::serve(port, pages, page_server::BOUNDS));
        }
        *hub.keys_kept_fresh.lock() = Some(hub.authenticator().keep_fresh());
        let level = options.level.clone();
        let admin = open_admin(&hub, &config, options.level).await?;
        hub.cluster().begin(&hub);
        hub.links().publish(&hub, links);
        hub.cluster().set_mesh(LinkState::of(&hub));
        hub.enter(Phase::Serving);
        tasks.spawn(tunnel_endpoint::accept_agents(Arc::clone(&hub), tunnel));
        for port in hub.ports.lock().iter() {
            port.serve(&hub);
        }
        hub.ingress.serve(&hub);
        if let Some((plane, listener)) = control {
            tasks.spawn(Arc::clone(&plane).serve(listener));
            tasks.spawn(plane.tidy());
            tasks.spawn(keep_ports(Arc::clone(&hub)));
        }
        tasks.spawn(ingress::sweep(Arc::clone(&hub)));
        tasks.spawn(crate::target_health::look_at_targets(Arc::clone(&hub)));
        tasks.spawn(certificates::keep(Arc::clone(&hub), certificate_store));
        if let Some(state) = &state {
            tasks.spawn(session::save_addresses(Arc::clone(&hub), Arc::clone(state)));
        }
        tasks.spawn(session::keep_sessions(Arc::clone(&hub)));
        tasks.spawn(cluster::keep(Arc::downgrade(&hub)));
        tasks.spawn(mesh::follow(Arc::downgrade(&hub)));
        if let Some(port) = mesh_port {
            tasks.spawn(mesh::serve_port(Arc::clone(&hub), port));
        }
        tasks.spawn(recheck::recheck_on_change(Arc::clone(&hub)));
        tasks.spawn(recheck::recheck_at_intervals(Arc::clone(&hub)));
        if let Some(keeper) = &keeper {
            keeper.started(&hub);
            tasks.spawn(source::watch(Arc::clone(&hub)));
        }
        let reloader = Reloader::new(Arc::clone(&hub), options.loader, level, keeper);
        tasks.spawn(reloader.run(watcher, waiting_asks, waiting_orders));
        info!(
            event = events::HUB_STARTED,
            hub = %hub.replica,
            tunnel = %tunnel_address,
            listeners = config.listeners.len(),
            generation = hub.generations.current().number(),
            "the hub serves"
        );
        Ok(Running {
            hub,
            tunnel_address,
            metrics_address,
            mesh_address,
            state,
            tasks,
            admin: Some(admin),
            end: ended,
            workers: Some(workers),
        })
    }
}

impl Running {
    /// What the parts share.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Where agents dial.
    pub fn tunnel_address(&self) -> SocketAddr {
        self.tunnel_address
    }

    /// Where the admin API listens over TCP.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(AdminServer::tcp_address)
    }

    /// Where the control API listens.
    pub fn control_address(&self) -> Option<SocketAddr> {
        self.hub.control().map(|control| control.address())
    }

    /// Where metrics are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Where other hubs dial, where there is a port for them alone.
    pub fn mesh_address(&self) -> Option<SocketAddr> {
        self.mesh_address
    }

    /// Where a listener is bound, by its name in the configuration.
    pub fn listener_address(&self, name: &str) -> Option<SocketAddr> {
        self.hub
            .ports
            .lock()
            .iter()
            .find(|port| &*port.rules().text == name)
            .map(|port| port.address)
            .or_else(|| self.hub.ingress.address(name))
    }

    /// Runs a task that ends with the hub.
    pub fn attach(&mut self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.spawn(task)
    }

    /// The cluster as this hub sees it.
    pub fn cluster(&self) -> ClusterStatus {
        self.hub.cluster().status(&self.hub.config())
    }

    /// Reads everything again.
    pub async fn reload(&self) -> ReloadReport {
        ask_reload(&self.hub).await
    }

    /// Masks log records with the plugins in force.
    pub fn masker(&self) -> Arc<dyn LogMasker> {
        let generations = Arc::clone(&self.hub.generations);
        Arc::new(PluginMasker::new(move || {
            generations.current().shared_plugins()
        }))
    }

    /// Waits until somebody asks for the end over the admin API; gives the deadline asked for.
    pub async fn end_asked(&mut self) -> Duration {
        match self.end.recv().await {
            Some(within) => within,
            None => std::future::pending().await,
        }
    }

    /// Drains: nobody is let in, what runs may finish `within` this time, then it is cut.
    pub async fn drain(&self, within: Duration) {
        drain::drain(&self.hub, within).await;
    }

    /// Ends everything now, with a word to the agents.
    pub async fn shutdown(mut self) {
        drain::cut(&self.hub).await;
        self.hub.links().leave().await;
        self.hub.cluster().leave().await;
        drain::be_heard(&self.hub).await;
        if let Some(state) = &self.state {
            // What is not taken in time is forgotten; nothing else waits for it.
            let saved = self.hub.addresses.save(&self.hub, state);
            let _ = tokio::time::timeout(STATE_DEADLINE, saved).await;
        }
        self.end_tasks();
        info!(event = events::HUB_STOPPED, hub = %self.hub.replica, "the hub has ended");
    }

    fn end_tasks(&mut self) {
        self.hub.enter(Phase::Cut);
        self.hub.ingress.end();
        self.hub.links().end();
        self.hub.cluster().end();
        self.tasks.abort_all();
        if let Some(log) = &self.hub.decision_log {
            log.shutdown(DECISION_LOG_DEADLINE);
        }
        drop(self.admin.take());
        drop(self.workers.take());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

/// Asks the reload task and waits for its report.
pub(crate) async fn ask_reload(hub: &Hub) -> ReloadReport {
    let refused = |message: &str| ReloadReport {
        errors: vec![message.to_owned()],
        generation: hub.generations.current().number(),
        ..ReloadReport::default()
    };
    let (answer, answered) = oneshot::channel();
    if hub.reload_asks.try_send(ReloadAsk { answer }).is_err() {
        return refused("too many reloads are waiting; try again in a moment");
    }
    let mut report = answered
        .await
        .unwrap_or_else(|_| refused("the hub is shutting down"));
    if let Some(begun) = &report.recheck {
        let recheck = hub.rounds().settled(begun.round).await;
        report.flows_closed = recheck.flows_closed;
        report.sessions_closed = recheck.sessions_closed;
        report.recheck = Some(recheck);
    }
    report
}

fn start_workers(config: &CloudConfig) -> Result<Arc<Workers>, BindError> {
    let threads = match config.tunnel.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => usize::from(workers),
    };
    Workers::start(threads)
        .map(Arc::new)
        .map_err(|source| BindError::System {
            what: "the worker threads could not be started",
            source,
        })
}

/// What plugins' requests trust beside the certificates of the system.
pub(crate) fn plugin_roots(
    config: &CloudConfig,
) -> Result<Vec<CertificateDer<'static>>, BindError> {
    let Some(path) = &config.plugins.ca_bundle else {
        return Ok(Vec::new());
    };
    let shown = path.display();
    let unreadable =
        |error: String| BindError::Credentials(format!("`plugins.ca_bundle` `{shown}`: {error}"));
    let pem = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    crate::tls::certificates(&pem, path).map_err(|error| unreadable(error.to_string()))
}

/// What a hub is reached by, and the policies that it begins with where bundles bring them.
type Ends = (
    mpsc::Sender<ReloadAsk>,
    mpsc::Sender<Duration>,
    Bundles,
    Option<Brought>,
);

/// Opens the state of the bundles, where there are any.
async fn begin_bundles(
    config: &CloudConfig,
) -> Result<(Option<Keeper>, Option<Brought>), BindError> {
    let Some(bundle) = config.policy.bundle.clone() else {
        return Ok((None, None));
    };
    let begun = tokio::task::spawn_blocking(move || Keeper::begin(&bundle))
        .await
        .map_err(|_| BindError::Generation(GenerationError::Panicked))?
        .map_err(BindError::Credentials)?;
    Ok((Some(begun.keeper), Some(begun.brought)))
}

/// Where issued certificates are kept, for a hub that has any issued. A file has one user, so the
/// control plane's is shared where it is the same.
async fn open_certificate_store(
    config: &CloudConfig,
    control: Option<&Opened>,
) -> Result<Option<Arc<Store>>, BindError> {
    let Some(acme) = &config.ingress.acme else {
        return Ok(None);
    };
    let path = acme.state_file.clone();
    if let Some(control) = control
        && config.control.state_file.as_ref() == Some(&path)
    {
        return Ok(Some(Arc::clone(control.store())));
    }
    let failed = |error: String| BindError::Credentials(format!("`ingress.acme`: {error}"));
    match tokio::task::spawn_blocking(move || Store::open(&path)).await {
        Ok(Ok(store)) => Ok(Some(Arc::new(store))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("opening the state file panicked".to_owned())),
    }
}

/// Tells the hub where agents dialled in from before. What cannot be read keeps nobody from
/// serving.
async fn remember_agents(hub: &Hub, state: &Arc<Store>) {
    let reading = Arc::clone(state);
    let read = tokio::task::spawn_blocking(move || reading.agent_tunnels()).await;
    let read = read
        .map_err(|error| error.to_string())
        .and_then(|read| read.map_err(|error| error.to_string()));
    match read {
        Ok(tunnels) => hub.addresses.came_before(tunnels),
        Err(error) => warn!(error, "where agents dialled in from before cannot be read"),
    }
}

async fn make_hub(
    config: &Arc<CloudConfig>,
    metrics: Arc<Metrics>,
    logs: Option<Logs>,
    registry: Option<Arc<dyn Registry>>,
    workers: Weak<Workers>,
    (asks, end, bundles, brought): Ends,
    control: Option<&Opened>,
) -> Result<Arc<Hub>, BindError> {
    let engine = PluginEngine::new(
        EngineSettings {
            cache_dir: config.plugins.cache_dir.clone(),
            instances_max: config.plugins.instances_max,
            extra_roots: plugin_roots(config)?,
            ..EngineSettings::default()
        },
        Arc::new(MemoryKv::new(MemoryKvSettings::default())),
        Arc::new(PluginTelemetry::new(Arc::clone(&metrics))),
    )?;
    let first = Generation::build(config, &engine, 1, brought).await?;
    first.activated(&metrics);
    let generations = Arc::new(Generations::new(first));
    let credentials = |error: String| BindError::Credentials(error);
    let authenticator = Authenticator::with_own(&config.security, control.map(Opened::issuer))
        .map_err(|error| credentials(error.to_string()))?;
    let revocations =
        reload::read_revocations(config).map_err(|error| credentials(error.to_string()))?;
    let pdp = Pdp::new(&config.pdp, &metrics).map_err(|error| credentials(error.to_string()))?;
    let tls = match &config.tunnel.tls {
        Some(files) => {
            let tls = reload::load_tls(files).map_err(|error| credentials(error.to_string()))?;
            Some(Arc::new(tls))
        }
        None => None,
    };
    metrics.hub.set_certificate(
        Certificate::Tunnel,
        tls.as_ref().and_then(|tls| tls.not_after()),
    );
    metrics
        .hub
        .set_certificate(Certificate::JwksCaBundle, authenticator.roots_not_after());
    let boot = random()?;
    let kept = usize::try_from(config.policy.decisions_kept).unwrap_or(usize::MAX);
    let decisions = Arc::new(DecisionRing::new(kept, MAX_DECISION_BYTES));
    let requests = Arc::new(Requests::new(
        usize::try_from(config.policy.requests_kept_bytes).unwrap_or(usize::MAX),
        Covers::of(&config.observability.redaction),
    ));
    let masker_generations = Arc::clone(&generations);
    let masker: Arc<dyn LogMasker> = Arc::new(PluginMasker::new(move || {
        masker_generations.current().shared_plugins()
    }));
    let decision_log = telemetry::decision_log(config, masker, &metrics)
        .map_err(|error| credentials(error.to_string()))?;
    let authorizer = Authorizer::new(AuthorizerParts {
        hub: Arc::from(config.replica_id.as_str()),
        facts: Arc::new(Facts::new()),
        generations: Arc::clone(&generations),
        revocations,
        pdp,
        scopes_required: config.security.require_connector_scopes,
        metrics: Arc::clone(&metrics),
        log: DecisionLog::new(Arc::clone(&metrics), Arc::clone(&decisions), logs)
            .with_sinks(decision_log.clone()),
        requests: Arc::clone(&requests),
        boot,
    });
    let window_pool = WindowPool::new(config.limits.window_pool_bytes);
    let cluster = Cluster::join(
        config,
        boot,
        cluster::generation(&generations.current()),
        registry,
        Arc::clone(&metrics),
    )
    .await?;
    let ingress_of_hub = Ingress::new(config, &metrics);
    let bound = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Arc::new(Hub {
        replica: config.replica_id.clone(),
        boot,
        started: Instant::now(),
        config: ArcSwap::new(Arc::clone(config)),
        settings: ArcSwap::from_pointee(tunnel_settings(config, &window_pool)),
        window_pool,
        authorizer,
        generations,
        engine,
        router: Router::default(),
        presence: parking_lot::Mutex::default(),
        cluster,
        links: Links::new(Arc::clone(&metrics)),
        parked: ParkedSessions::default(),
        hellos: HelloTurns::default(),
        addresses: AgentAddresses::default(),
        flows: FlowTable::default(),
        rounds: Rounds::default(),
        connectors: ConnectorTable::default(),
        metrics,
        decisions,
        decision_log,
        requests,
        bundles,
        authenticator: ArcSwap::from_pointee(authenticator),
        keys_kept_fresh: parking_lot::Mutex::default(),
        admissions: ArcSwap::new(Admissions::new(&config.tunnel)),
        tunnel_tls: ArcSwapOption::new(tls),
        admin_access: ArcSwapOption::empty(),
        connections: Gate::new(bound(config.limits.max_conn_total)),
        rate: Rate::new(config.limits.rate),
        closing_hooks: Slots::new(MAX_CLOSE_HOOKS),
        ports: parking_lot::Mutex::default(),
        ingress: ingress_of_hub,
        published: Arc::new(PublishedNames::default()),
        nonces: match control {
            Some(opened) => Arc::clone(opened.store()),
            None => Arc::new(Store::in_memory().map_err(|error| credentials(error.to_string()))?),
        },
        control: OnceLock::new(),
        retired: parking_lot::Mutex::default(),
        tunnel_address: ArcSwapOption::empty(),
        workers,
        runtime: tokio::runtime::Handle::current(),
        phases: watch::channel(Phase::Starting).0,
        drains: Drains::default(),
        pages: ArcSwap::from_pointee(axum::Router::new()),
        denied: AtomicU64::new(0),
        bundle_stale: false.into(),
        last_errors: ArcSwap::from_pointee(Vec::new()),
        last_session: AtomicU64::new(0),
        reload_asks: asks,
        end,
    }))
}

fn bind_listeners(
    hub: &Arc<Hub>,
    config: &CloudConfig,
    tunnel_address: SocketAddr,
) -> Result<(), BindError> {
    let facts = hub.authorizer.facts();
    facts.put_listener(&ListenerFacts {
        listener: Name::bare(TUNNEL_LISTENER),
        port: tunnel_address.port(),
        protocol: "tunnel".to_owned(),
    });
    facts.put_listener(&ListenerFacts {
        listener: Name::bare(ADMIN_LISTENER),
        port: 0,
        protocol: "admin".to_owned(),
    });
    let mesh = config.ha.mesh.listen.map_or(0, |listen| listen.port());
    facts.put_listener(&ListenerFacts {
        listener: Name::bare(MESH_LISTENER),
        port: mesh,
        protocol: "mesh".to_owned(),
    });
    for key in connector::configured(config) {
        connector::put_facts(facts, config, &key);
    }
    let mut ports = Vec::with_capacity(config.listeners.len());
    for listener in &config.listeners {
        let port = Port::bind(Rules::new(hub, config, listener, None)).map_err(|source| {
            BindError::Address {
                what: format!("listener `{}`", listener.name),
                address: listener.bind,
                source,
            }
        })?;
        facts.put_listener(&port.rules().facts(port.address.port()));
        ports.push(port);
    }
    hub.connectors.apply(config);
    *hub.ports.lock() = ports;
    Ok(())
}

fn bind_ingress(hub: &Arc<Hub>, config: &CloudConfig) -> Result<(), BindError> {
    let next = NextIngress::build(hub, config).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        BindError::Ingress(errors.join("\n"))
    })?;
    next.publish(hub, config, false);
    hub.connectors.apply(config);
    Ok(())
}

fn health_routes(hub: &Arc<Hub>) -> HealthRoutes {
    HealthRoutes::new(Arc::new(HubReadiness(Arc::downgrade(hub))))
}

/// The pages of the tunnel port.
pub(crate) fn mount_pages(hub: &Arc<Hub>, config: &CloudConfig) {
    let mut pages = health_routes(hub);
    if config.observability.metrics_on_tunnel_port {
        pages = pages.with_metrics(Arc::clone(&hub.metrics));
    }
    hub.pages.store(Arc::new(pages.into_router()));
}

/// Gives the hub its control plane, and the policies its port.
fn mount_control(
    hub: &Arc<Hub>,
    config: &CloudConfig,
    opened: Opened,
) -> Result<(Arc<ControlPlane>, TcpListener), OpenError> {
    let (plane, listener) = ControlPlane::new(opened, hub, config)?;
    hub.authorizer.facts().put_listener(&ListenerFacts {
        listener: Name::bare(CONTROL_LISTENER),
        port: plane.address().port(),
        protocol: "control".to_owned(),
    });
    let plane = Arc::clone(hub.control.get_or_init(|| Arc::new(plane)));
    Ok((plane, listener))
}

async fn open_admin(
    hub: &Arc<Hub>,
    config: &CloudConfig,
    level: Option<LevelControl>,
) -> Result<AdminServer, BindError> {
    let tcp = match config.admin.listen {
        Some(listen) => Some(AdminTcp {
            listen,
            proof: AdminProof::read(&config.admin).map_err(BindError::Credentials)?,
        }),
        None => None,
    };
    let state = AdminState {
        hub: Arc::clone(hub) as Arc<dyn crate::admin::HubView>,
        decisions: Arc::clone(&hub.decisions),
        requests: Arc::clone(&hub.requests),
        level,
    };
    let server = AdminServer::bind(state, config.admin.socket.as_deref(), tcp).await?;
    if let Some(access) = server.tcp_access() {
        hub.metrics
            .hub
            .set_certificate(Certificate::Admin, access.not_after());
        hub.admin_access.store(Some(Arc::new(access.clone())));
    }
    Ok(server)
}

async fn bind_tcp(what: &str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError::Address {
            what: what.to_owned(),
            address,
            source,
        })
}

fn local_address(listener: &TcpListener, wanted: SocketAddr) -> Result<SocketAddr, BindError> {
    listener.local_addr().map_err(|source| BindError::Address {
        what: "a port".to_owned(),
        address: wanted,
        source,
    })
}

fn random() -> Result<u64, BindError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| BindError::System {
        what: "the system has no randomness",
        source: io::Error::other(error.to_string()),
    })?;
    Ok(u64::from_le_bytes(bytes))
}
