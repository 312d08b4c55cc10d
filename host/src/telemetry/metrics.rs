//! Every metric of the hub, in one registry of its own.
//!
//! Names are constants, part of the product's contract, and listed in `docs/metrics.md`, which a
//! test compares with what is registered here. Call sites hold typed, resolved values
//! ([`ConnectorMetrics`], [`AgentMetrics`], guards), so that moving a byte costs an atomic add and
//! no lookup. Label values that others can choose are bounded, see [`label`].
//!
//! Four counters of the source documents (`nowconnect_fin_sent` and its sisters) lack the suffix
//! `_total`; they keep the published name.

pub mod label;

mod bundle;
mod certificates;
mod cluster;
mod control;
mod decisions;
mod governance;
mod health;
mod http;
mod hub;
mod mesh;
mod pdp;
mod registrar;
#[cfg(test)]
mod tests;
mod traffic;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus::{Registry, TextEncoder};

pub use bundle::BundleMetrics;
pub use certificates::CertificateMetrics;
pub use cluster::{ClusterMetrics, RegistryResult};
pub use control::{ControlMetrics, Ended, TokenKind};
pub use decisions::DecisionMetrics;
pub use governance::{
    PdpResult, PluginMetrics, PolicyMetrics, RecheckEnd, ReloadPart, ReloadResult,
};
pub use health::{HealthMetrics, HealthResult};
pub use http::{EndpointMetrics, HttpGauge, HttpMetrics, Retry};
pub use hub::{Certificate, GaugeGuard, HubMetrics, LogDrop, LogMetrics};
pub use mesh::{MeshDirection, MeshMetrics};
pub use pdp::{PdpCache, PdpMetrics};
pub use registrar::{Family, FamilyKind, markdown_table};
pub use traffic::{
    AgentMetrics, ConnectionGuard, ConnectorMetrics, FrameCounts, ListenerError, Side,
    TrafficMetrics,
};

use hub::ProcessMetrics;
use registrar::Registrar;

/// Functions called before a scrape; each part of the hub needs one at most.
pub const MAX_SCRAPE_HOOKS: usize = 32;

type ScrapeHook = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All families, grouped by what they tell about. Cheap to share as [`Arc`].
pub struct Metrics {
    registry: Registry,
    families: Vec<Family>,
    hooks: Mutex<Vec<Arc<ScrapeHook>>>,
    process: ProcessMetrics,
    /// Flows, connectors, listeners, agents.
    pub traffic: TrafficMetrics,
    /// Decisions, generations, reloads, the external decision point.
    pub policy: PolicyMetrics,
    /// The decision log.
    pub decisions: DecisionMetrics,
    /// Questions to the external decision point.
    pub pdp: PdpMetrics,
    /// Policy bundles and the shadow.
    pub bundle: BundleMetrics,
    /// The plugin host.
    pub plugins: PluginMetrics,
    /// Tunnels, sessions, handshakes.
    pub hub: HubMetrics,
    /// The HTTP ingress.
    pub http: HttpMetrics,
    /// Looks at targets.
    pub health: HealthMetrics,
    /// Certificates of the HTTP ports.
    pub certificates: CertificateMetrics,
    /// The control API.
    pub control: ControlMetrics,
    /// The registry and the hubs in it.
    pub cluster: ClusterMetrics,
    /// Links to the other hubs.
    pub mesh: MeshMetrics,
    /// The log and trace pipelines.
    pub logs: LogMetrics,
}

impl Metrics {
    /// Registers every family in a new registry.
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let mut families = Registrar::new(&registry);
        let traffic = TrafficMetrics::new(&mut families);
        let policy = PolicyMetrics::new(&mut families);
        let decisions = DecisionMetrics::new(&mut families);
        let pdp = PdpMetrics::new(&mut families);
        let bundle = BundleMetrics::new(&mut families);
        let plugins = PluginMetrics::new(&mut families);
        let hub = HubMetrics::new(&mut families);
        let http = HttpMetrics::new(&mut families);
        let health = HealthMetrics::new(&mut families);
        let certificates = CertificateMetrics::new(&mut families);
        let control = ControlMetrics::new(&mut families);
        let cluster = ClusterMetrics::new(&mut families);
        let mesh = MeshMetrics::new(&mut families);
        let logs = LogMetrics::new(&mut families);
        let process = ProcessMetrics::new(&mut families, env!("CARGO_PKG_VERSION"));
        let families = families.into_families();
        Arc::new(Self {
            registry,
            families,
            hooks: Mutex::default(),
            process,
            traffic,
            policy,
            decisions,
            pdp,
            bundle,
            plugins,
            hub,
            http,
            health,
            certificates,
            control,
            cluster,
            mesh,
            logs,
        })
    }

    /// Calls `hook` before each scrape, to set gauges whose value lives elsewhere.
    ///
    /// Hooks must not block; beyond [`MAX_SCRAPE_HOOKS`] they are not taken and `false` returns.
    pub fn on_scrape(&self, hook: impl Fn(&Self) + Send + Sync + 'static) -> bool {
        let mut hooks = self.hooks.lock();
        if hooks.len() >= MAX_SCRAPE_HOOKS {
            return false;
        }
        hooks.push(Arc::new(Box::new(hook)));
        true
    }

    /// The whole registry in the Prometheus text format.
    pub fn render(&self) -> String {
        let hooks = self.hooks.lock().clone();
        for hook in hooks {
            hook(self);
        }
        self.traffic.refresh();
        self.policy.refresh(SystemTime::now());
        self.process.refresh();
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("families are gathered from a valid registry, and a String takes all text")
    }

    /// The catalogue of families, in order of registration.
    pub fn families(&self) -> &[Family] {
        &self.families
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("families", &self.families.len())
            .finish_non_exhaustive()
    }
}

/// The media type of [`Metrics::render`].
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
