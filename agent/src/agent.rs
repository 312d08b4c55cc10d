//! An agent as a value: started from a config, observed through a channel, stopped by name.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::config::AgentConfig;
use crate::connectors::{ConnectorMap, MapError};
use crate::health::HealthServer;
use crate::state::{AgentState, Phase};
use crate::supervisor::Supervisor;
use crate::tap::Tap;

/// Orders that wait for the supervisor; it takes them between two events.
const ORDER_QUEUE: usize = 16;
/// Threads that resolve names at once; `getaddrinfo` blocks, and one silent name server must not
/// hold up every connector.
const RESOLVER_THREADS: usize = 32;

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A target cannot be prepared.
    #[error(transparent)]
    Targets(#[from] MapError),
    /// The hub's CA bundle cannot be used.
    #[error(transparent)]
    Trust(#[from] crate::tls::TrustError),
    /// The health server's port cannot be bound.
    #[error(
        "health server cannot listen on `{address}`: {error}; change `observability.health_port` (`NC_HEALTH_PORT`), or set it to 0 for none"
    )]
    Health {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// No thread or runtime could be made.
    #[error("no runtime: {0}")]
    Runtime(std::io::Error),
}

/// What an agent can be told while it runs.
#[derive(Debug)]
pub(crate) enum Order {
    Reload(Box<AgentConfig>, oneshot::Sender<Result<(), MapError>>),
    Stop,
    StopNow,
}

/// Starts agents.
#[derive(Debug)]
pub struct Agent;

impl Agent {
    /// Starts an agent on a thread of its own, with a single-threaded runtime, so that it can be
    /// embedded beside any other. It dials until it is stopped; watch [`Running::state`] for its
    /// success.
    ///
    /// # Errors
    /// Whatever can be told without the network: an unusable CA bundle, a bound health port.
    pub fn start(config: AgentConfig) -> Result<Running, StartError> {
        let (running, task) = Self::prepare(config)?;
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        thread::Builder::new()
            .name("nowconnect-agent".to_owned())
            .spawn(move || {
                let runtime = match build_runtime() {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        // The starter may be gone; then nobody is left to be told.
                        let _ = started.send(Err(StartError::Runtime(error)));
                        return;
                    }
                };
                runtime.block_on(LocalSet::new().run_until(async move {
                    let bound = task.bind().await;
                    let bound = match bound {
                        Ok(bound) => bound,
                        Err(error) => {
                            let _ = started.send(Err(error));
                            return;
                        }
                    };
                    let _ = started.send(Ok(bound.health_address()));
                    bound.run().await;
                }));
                // A resolver thread that still waits for a name server must not hold up the end.
                runtime.shutdown_background();
            })
            .map_err(StartError::Runtime)?;
        let health = outcome
            .recv()
            .unwrap_or_else(|_| Err(StartError::Runtime(std::io::ErrorKind::Other.into())))?;
        Ok(Running { health, ..running })
    }

    /// Makes an agent that runs on the caller's own single-threaded runtime, inside a
    /// [`LocalSet`].
    ///
    /// # Errors
    /// An unusable CA bundle.
    pub fn prepare(config: AgentConfig) -> Result<(Running, AgentTask), StartError> {
        let connectors = ConnectorMap::build(&config)?;
        if config.hub.tls {
            crate::tls::roots(config.outbound.ca_bundle.as_deref())?;
        }
        let (orders, order_queue) = mpsc::channel(ORDER_QUEUE);
        let (publish, state) = watch::channel(AgentState::default());
        let flows = Arc::new(AtomicU32::new(0));
        let running = Running {
            orders,
            state,
            flows: Arc::clone(&flows),
            health: None,
        };
        let task = AgentTask {
            config,
            connectors,
            orders: order_queue,
            publish,
            flows,
            tap: None,
        };
        Ok((running, task))
    }
}

/// The single-threaded runtime that an agent wants.
///
/// # Errors
/// What the system said.
pub fn build_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVER_THREADS)
        .build()
}

/// An agent that has not begun. `Send`, so that it can move to its thread.
#[derive(Debug)]
pub struct AgentTask {
    config: AgentConfig,
    connectors: ConnectorMap,
    orders: mpsc::Receiver<Order>,
    publish: watch::Sender<AgentState>,
    flows: Arc<AtomicU32>,
    tap: Option<Tap>,
}

/// An agent whose ports are bound.
#[derive(Debug)]
pub struct BoundAgent {
    task: AgentTask,
    health: Option<HealthServer>,
}

impl AgentTask {
    /// Shows a person what passes.
    pub(crate) fn with_tap(self, tap: Tap) -> Self {
        Self {
            tap: Some(tap),
            ..self
        }
    }

    /// Binds the health server, if there is one. Must run inside a [`LocalSet`].
    ///
    /// # Errors
    /// The health port is taken.
    pub async fn bind(self) -> Result<BoundAgent, StartError> {
        let health = match self.config.health {
            None => None,
            Some(address) => {
                let (set_ready, ready) = watch::channel(false);
                let mut state = self.publish.subscribe();
                tokio::task::spawn_local(async move {
                    loop {
                        let is_ready = state.borrow_and_update().is_ready();
                        set_ready.send_replace(is_ready);
                        if state.changed().await.is_err() {
                            return;
                        }
                    }
                });
                let server = HealthServer::start(address, ready)
                    .await
                    .map_err(|error| StartError::Health { address, error })?;
                Some(server)
            }
        };
        Ok(BoundAgent { task: self, health })
    }
}

impl BoundAgent {
    /// Where the health server listens.
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref().map(HealthServer::address)
    }

    /// Runs until it is stopped.
    pub async fn run(self) {
        let _health = self.health;
        let task = self.task;
        let publish = task.publish.clone();
        Supervisor::new(
            task.config,
            Rc::new(task.connectors),
            task.orders,
            task.publish,
            task.flows,
            task.tap,
        )
        .run()
        .await;
        publish.send_modify(|state| state.phase = Phase::Stopped);
    }
}

/// The grip on a running agent. Dropping the last one stops the agent at once.
#[derive(Debug)]
pub struct Running {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<AgentState>,
    flows: Arc<AtomicU32>,
    health: Option<SocketAddr>,
}

impl Running {
    /// A snapshot of the agent.
    #[must_use]
    pub fn state(&self) -> AgentState {
        self.state.borrow().clone()
    }

    /// A channel that changes whenever the snapshot does.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<AgentState> {
        self.state.clone()
    }

    /// Flows that run now.
    #[must_use]
    pub fn flows(&self) -> u32 {
        self.flows.load(Ordering::Relaxed)
    }

    /// Where the health server listens, for an agent started with [`Agent::start`].
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health
    }

    /// Waits until the hub has accepted the agent.
    ///
    /// # Errors
    /// The last snapshot, where that did not happen within `limit` or the agent stopped.
    pub async fn ready(&self, limit: Duration) -> Result<AgentState, Box<AgentState>> {
        let mut state = self.state.clone();
        let settled = timeout(
            limit,
            state.wait_for(|state| matches!(state.phase, Phase::Ready | Phase::Stopped)),
        )
        .await;
        match settled {
            Ok(Ok(state)) if state.is_ready() => Ok(state.clone()),
            _ => Err(Box::new(self.state())),
        }
    }

    /// Puts `config` in force: targets and connectors at once, the rest where the next tunnel
    /// begins. Running flows are not touched.
    ///
    /// # Errors
    /// A target cannot be prepared, and everything stays as it was; or the agent has stopped,
    /// where nothing is left to change.
    pub async fn reload(&self, config: AgentConfig) -> Result<(), MapError> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Reload(Box::new(config), answer);
        if self.orders.send(order).await.is_err() {
            return Ok(());
        }
        answered.await.unwrap_or(Ok(()))
    }

    /// Asks for the end: no new flows, and running ones may finish within
    /// `limits.shutdown_timeout`.
    pub fn stop(&self) {
        self.order(Order::Stop);
    }

    /// Asks for the end at once.
    pub fn stop_now(&self) {
        self.order(Order::StopNow);
    }

    /// Waits until nothing runs any more.
    pub async fn stopped(&self) {
        let mut state = self.state.clone();
        // An error means that the agent's thread is gone, which is the same.
        let _ = state.wait_for(|state| state.phase == Phase::Stopped).await;
    }

    fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            tracing::debug!("the agent has stopped or is being told so already");
        }
    }
}
