//! What the parts of a running hub share.
//!
//! One [`Hub`] for each running hub, behind an `Arc`. Each part keeps its own state behind its
//! own lock or swap; the hub only brings them together, and has no lock of its own. What can be
//! reloaded is swapped whole, so that a reader sees one state.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use nowconnect_plugins::PluginEngine;
use nowconnect_protocol::{FlowRef, ReplicaId, TunnelConfig, WindowPool};
use nowconnect_store::Store;
use nowconnect_tunnel::{TunnelSettings, Workers};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::admin::TcpAccess;
use crate::authorize::Authorizer;
use crate::bundle::board::Bundles;
use crate::cluster::Cluster;
use crate::config::CloudConfig;
use crate::connector::ConnectorTable;
use crate::control::{ControlPlane, PublishedNames};
use crate::drain::{Drains, Phase, PhaseWatch};
use crate::flow_table::FlowTable;
use crate::generation::Generations;
use crate::health::{Readiness, ReadyState, Reason, ReasonCode};
use crate::identity::{Authenticator, KeepFresh};
use crate::ingress::Ingress;
use crate::limit::{Gate, Rate, Slots};
use crate::listener::{Port, Rules};
use crate::mesh::Links;
use crate::recheck::Rounds;
use crate::router::Router;
use crate::session::{AgentAddresses, HelloTurns, LiveTunnel, ParkedSessions};
use crate::telemetry::decisions::DecisionRing;
use crate::telemetry::decisions::log::DecisionSinks;
use crate::telemetry::decisions::requests::Requests;
use crate::telemetry::metrics::Metrics;
use crate::tls::ServerTls;
use crate::tunnel_endpoint::Admissions;

/// Close hooks under way at once; each holds a flow's names and what plugins attached to it, at
/// most some 10 KiB. Beyond it a flow's end is not told to plugins.
pub(crate) const MAX_CLOSE_HOOKS: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct Hub {
    pub(crate) replica: ReplicaId,
    pub(crate) boot: u64,
    pub(crate) started: Instant,
    pub(crate) config: ArcSwap<CloudConfig>,
    pub(crate) settings: ArcSwap<TunnelSettings>,
    pub(crate) window_pool: WindowPool,
    pub(crate) authorizer: Authorizer,
    pub(crate) generations: Arc<Generations>,
    pub(crate) engine: PluginEngine,
    pub(crate) router: Router<LiveTunnel>,
    /// Held while a tunnel comes into force or leaves together with its agent's rows, so that one
    /// that ends never takes away what the next one has put there.
    pub(crate) presence: Mutex<()>,
    pub(crate) cluster: Cluster,
    /// To the other hubs.
    pub(crate) links: Links,
    pub(crate) parked: ParkedSessions,
    pub(crate) hellos: HelloTurns,
    /// Where agents have dialled in from.
    pub(crate) addresses: AgentAddresses,
    pub(crate) flows: FlowTable,
    /// Re-checks of all that runs, one at a time.
    pub(crate) rounds: Rounds,
    pub(crate) connectors: ConnectorTable,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) decisions: Arc<DecisionRing>,
    pub(crate) decision_log: Option<Arc<DecisionSinks>>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) bundles: Bundles,
    pub(crate) authenticator: ArcSwap<Authenticator>,
    /// Of the authenticator in force: the next one takes its place.
    pub(crate) keys_kept_fresh: Mutex<Option<KeepFresh>>,
    pub(crate) admissions: ArcSwap<Admissions>,
    pub(crate) tunnel_tls: ArcSwapOption<ServerTls>,
    /// Who may call the admin API over TCP, where it has a TCP port.
    pub(crate) admin_access: ArcSwapOption<TcpAccess>,
    pub(crate) connections: Arc<Gate>,
    /// New clients over all listeners.
    pub(crate) rate: Rate,
    pub(crate) closing_hooks: Arc<Slots>,
    pub(crate) ports: Mutex<Vec<Arc<Port>>>,
    pub(crate) ingress: Ingress,
    /// Names that agents publish; none without a control plane.
    pub(crate) published: Arc<PublishedNames>,
    /// Nonces of signed upgrades; the control plane's store where there is one.
    pub(crate) nonces: Arc<Store>,
    /// Set once, before anything is served.
    pub(crate) control: OnceLock<Arc<ControlPlane>>,
    /// Removed listeners whose flows live on and may be asked about again.
    pub(crate) retired: Mutex<Vec<Arc<Rules>>>,
    pub(crate) tunnel_address: ArcSwapOption<SocketAddr>,
    /// Owned by [`Running`](crate::gateway::Running): the last owner of threads must not be one
    /// of their own tasks.
    pub(crate) workers: Weak<Workers>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) phases: watch::Sender<Phase>,
    pub(crate) drains: Drains,
    pub(crate) pages: ArcSwap<axum::Router>,
    /// Clients that got no flow, since the start.
    pub(crate) denied: AtomicU64,
    pub(crate) bundle_stale: AtomicBool,
    pub(crate) last_errors: ArcSwap<Vec<String>>,
    pub(crate) last_session: AtomicU64,
    pub(crate) reload_asks: tokio::sync::mpsc::Sender<crate::reload::ReloadAsk>,
    pub(crate) end: tokio::sync::mpsc::Sender<Duration>,
}

impl Hub {
    /// This hub's name.
    pub fn replica(&self) -> &ReplicaId {
        &self.replica
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<CloudConfig> {
        self.config.load_full()
    }

    /// Every metric of this hub.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The last decisions.
    pub fn decisions(&self) -> &Arc<DecisionRing> {
        &self.decisions
    }

    /// Distinct requests that were decided.
    pub fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// Policies and plugins in force.
    pub fn generations(&self) -> &Arc<Generations> {
        &self.generations
    }

    pub(crate) fn bundles(&self) -> &Bundles {
        &self.bundles
    }

    pub(crate) fn tunnel_settings(&self) -> TunnelSettings {
        self.settings.load().as_ref().clone()
    }

    pub(crate) fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    pub(crate) fn router(&self) -> &Router<LiveTunnel> {
        &self.router
    }

    pub(crate) fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// The control plane, where there is one.
    pub(crate) fn control(&self) -> Option<&Arc<ControlPlane>> {
        self.control.get()
    }

    /// This hub among others.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// Random for this process.
    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    pub(crate) fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    pub(crate) fn authenticator(&self) -> Arc<Authenticator> {
        self.authenticator.load_full()
    }

    pub(crate) fn admissions(&self) -> Arc<Admissions> {
        self.admissions.load_full()
    }

    pub(crate) fn tunnel_tls(&self) -> Option<Arc<ServerTls>> {
        self.tunnel_tls.load_full()
    }

    /// `/healthz`, `/readyz` and, where configured, `/metrics`.
    pub(crate) fn pages(&self) -> axum::Router {
        self.pages.load().as_ref().clone()
    }

    pub(crate) fn workers(&self) -> Option<Arc<Workers>> {
        self.workers.upgrade()
    }

    /// Time since this hub began, for rates.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn phase(&self) -> PhaseWatch {
        PhaseWatch::new(self.phases.subscribe())
    }

    pub(crate) fn current_phase(&self) -> Phase {
        *self.phases.borrow()
    }

    /// Goes on to a later phase; never back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phases.send_if_modified(|current| {
            let later = phase > *current;
            if later {
                *current = phase;
            }
            later
        });
        self.metrics
            .hub
            .set_draining(self.current_phase() >= Phase::Draining);
    }

    pub(crate) fn next_flow_ref(&self) -> FlowRef {
        FlowRef {
            origin: self.replica.clone(),
            boot: self.boot,
            number: self.flows.next_number(),
        }
    }

    pub(crate) fn next_session(&self) -> u64 {
        self.last_session.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What is told to whoever asks whether traffic should come here.
    pub(crate) fn readiness(&self) -> Readiness {
        match self.current_phase() {
            Phase::Starting => Readiness::Starting,
            Phase::Draining | Phase::Cut => Readiness::Draining,
            Phase::Serving if self.bundles.waits_for_first() => Readiness::Starting,
            Phase::Serving => {
                let mut reasons = Vec::new();
                if self.bundle_stale.load(Ordering::Relaxed) {
                    reasons.push(Reason {
                        code: ReasonCode::BundleStale,
                        detail: self.last_errors.load().join("; "),
                    });
                }
                for problem in &self.bundles.status().problems {
                    reasons.push(Reason {
                        code: ReasonCode::PolicyBundle,
                        detail: format!("{}: {}", problem.code, problem.message),
                    });
                }
                for plugin in self.generations.current().plugins().status() {
                    if plugin.quarantined {
                        reasons.push(Reason {
                            code: ReasonCode::PluginQuarantined,
                            detail: plugin.name,
                        });
                    }
                }
                if let Some(pdp) = self.authorizer.pdp()
                    && !pdp.is_available()
                {
                    reasons.push(Reason {
                        code: ReasonCode::PdpUnavailable,
                        detail: String::new(),
                    });
                }
                for issuer in self.authenticator.load().status() {
                    if let Some(error) = issuer.last_error {
                        reasons.push(Reason {
                            code: ReasonCode::KeysStale,
                            detail: format!("{}: {error}", issuer.issuer),
                        });
                    }
                }
                for port in self.ports.lock().iter() {
                    if port.is_down() {
                        reasons.push(Reason {
                            code: ReasonCode::ListenerDown,
                            detail: port.rules().text.to_string(),
                        });
                    }
                }
                if let Some(ending) = self.ingress.issued().ending() {
                    reasons.push(Reason {
                        code: ReasonCode::CertificateEnding,
                        detail: ending.to_string(),
                    });
                }
                for line in self.ingress.stale().iter() {
                    reasons.push(Reason {
                        code: ReasonCode::IngressStale,
                        detail: line.clone(),
                    });
                }
                if let Some(detail) = self.control().and_then(|plane| plane.trouble()) {
                    reasons.push(Reason {
                        code: ReasonCode::StateFailed,
                        detail,
                    });
                }
                if self.ingress.issued().has_state_failed() {
                    reasons.push(Reason {
                        code: ReasonCode::StateFailed,
                        detail: "ingress.acme.state_file".to_owned(),
                    });
                }
                reasons.extend(self.cluster.reasons(&self.config.load()));
                Readiness::serving(reasons)
            }
        }
    }
}

/// Tells the health routes of a hub that they must not keep alive.
#[derive(Debug)]
pub(crate) struct HubReadiness(pub(crate) Weak<Hub>);

impl ReadyState for HubReadiness {
    fn readiness(&self) -> Readiness {
        self.0
            .upgrade()
            .map_or(Readiness::Draining, |hub| hub.readiness())
    }
}

/// The tunnels' settings for a configuration.
pub(crate) fn tunnel_settings(config: &CloudConfig, window_pool: &WindowPool) -> TunnelSettings {
    let times = &config.limits.flow_times;
    TunnelSettings {
        config: TunnelConfig {
            max_data_payload: config.tunnel.max_ws_payload,
            max_message: config.tunnel.max_ws_message,
            flow_window: config.limits.flow_window_min,
            flow_window_max: config.flow_window_max(),
            window_pool: window_pool.clone(),
            hop_inflight: config.limits.per_link_max_inflight_bytes,
            max_flows: config.limits.max_flows_per_agent,
            hello_timeout: config.tunnel.hello_timeout,
            ping_interval: config.tunnel.ping_interval,
            ping_timeout: config.tunnel.ping_timeout,
            resume_grace: config.tunnel.resume_grace,
            terms: nowconnect_protocol::FlowTerms {
                max_bytes: None,
                max_seconds: None,
                idle_timeout: times.idle_timeout,
                stall_timeout: times.stall_timeout,
                linger: times.linger,
            },
        },
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    crate::authorize::unix_ms(SystemTime::now())
}
