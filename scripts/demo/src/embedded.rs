//! Hub and agent as values in this process, as any program can embed them, on one runtime.
//!
//! They read the same files that the programs `nowconnect` and `nowconnect-agent` read, and share
//! one log, because a process has one.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nowconnect::config;
use nowconnect::gateway::{Gateway, GatewayOptions, Running as RunningHub};
use nowconnect::telemetry::metrics::Metrics;
use nowconnect::telemetry::{self, Settings, Telemetry};
use nowconnect_agent::config::{NoEnv, load as load_agent};
use nowconnect_agent::{Agent, Phase, Running as RunningAgent};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::Failed;

/// How long the flows that still run may take to finish at the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// How long the agent may take to end; above its own `shutdown_timeout_sec`.
const AGENT_END_DEADLINE: Duration = Duration::from_secs(15);

/// How long the last lines of the log may take to be written.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// Threads that the hub accepts on; its traffic runs on workers of its own.
const RUNTIME_THREADS: usize = 2;

/// What runs in this process. Fields are dropped in this order; the runtime goes last.
#[derive(Debug)]
pub struct Embedded {
    agent: Option<EmbeddedAgent>,
    hub: Option<RunningHub>,
    telemetry: Option<Telemetry>,
    log: PathBuf,
    runtime: Runtime,
}

#[derive(Debug)]
struct EmbeddedAgent {
    running: RunningAgent,
    thread: JoinHandle<()>,
}

impl Embedded {
    /// Nothing yet; what hub and agent log will go to `log`.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new(log: PathBuf) -> Result<Self, Failed> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("gateway")
            .enable_all()
            .build()
            .map_err(Failed::doing("a runtime"))?;
        Ok(Self {
            agent: None,
            hub: None,
            telemetry: None,
            log,
            runtime,
        })
    }

    /// Starts a hub from its file, which it watches from then on. Variables of the environment
    /// do not count.
    ///
    /// # Errors
    /// What the hub says of its configuration, or of a port.
    pub fn start_hub(&mut self, file: &Path) -> Result<(), Failed> {
        let file = file.to_owned();
        let load = move || config::load(Some(&file), &BTreeMap::new());
        let config = load().map_err(Failed::doing("the hub's configuration"))?;
        let metrics = Metrics::new();
        // Plugins that mask may come with any reload, so the first line waits for them.
        let settings =
            Settings::from_config(&config.observability, config.replica_id.as_str(), true);
        let output = File::create(&self.log).map_err(Failed::doing(self.log.display()))?;
        let (dispatch, telemetry) = telemetry::build(&settings, Box::new(output), &metrics)
            .map_err(Failed::doing("the log"))?;
        tracing::dispatcher::set_global_default(dispatch).map_err(Failed::doing("the log"))?;
        let options = GatewayOptions {
            loader: Some(Arc::new(load)),
            watch: true,
            metrics: Some(metrics),
            logs: Some(telemetry.logs.clone()),
            level: Some(telemetry.level.clone()),
            ..GatewayOptions::default()
        };
        let bound = self.runtime.block_on(Gateway::bind(config, options));
        telemetry
            .logs
            .set_masker(bound.as_ref().ok().map(RunningHub::masker));
        self.telemetry = Some(telemetry);
        self.hub = Some(bound.map_err(Failed::doing("the hub"))?);
        Ok(())
    }

    /// Starts an agent from its file. It dials from then on.
    ///
    /// # Errors
    /// What the agent says of its configuration, or of its health port.
    pub fn start_agent(&mut self, file: &Path) -> Result<(), Failed> {
        let doing = "the agent";
        let config = load_agent(Some(file), &NoEnv).map_err(Failed::doing(doing))?;
        let (running, task) = Agent::prepare(config).map_err(Failed::doing(doing))?;
        let handle = self.runtime.handle().clone();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        // An agent's futures stay on one thread; timers and sockets are those of the runtime.
        let thread = std::thread::Builder::new()
            .name("agent".to_owned())
            .spawn(move || {
                handle.block_on(LocalSet::new().run_until(async move {
                    let bound = match task.bind().await {
                        Ok(bound) => bound,
                        Err(error) => {
                            let _ = tell.send(Err(error));
                            return;
                        }
                    };
                    let _ = tell.send(Ok(()));
                    bound.run().await;
                }));
            })
            .map_err(Failed::doing("the agent's thread"))?;
        told.recv()
            .map_err(Failed::doing(doing))?
            .map_err(Failed::doing(doing))?;
        self.agent = Some(EmbeddedAgent { running, thread });
        Ok(())
    }

    /// Whether the hub has accepted the agent.
    #[must_use]
    pub fn is_agent_ready(&self) -> bool {
        let agent = self.agent.as_ref();
        agent.is_some_and(|agent| agent.running.state().is_ready())
    }

    /// Why the agent has no tunnel, where it knows.
    #[must_use]
    pub fn agent_problem(&self) -> Option<String> {
        self.agent.as_ref()?.running.state().problem
    }

    /// Whether what was started still runs.
    ///
    /// # Errors
    /// The agent ended by itself.
    pub fn check(&self) -> Result<(), Failed> {
        let agent = self.agent.as_ref();
        if agent.is_some_and(|agent| agent.running.state().phase == Phase::Stopped) {
            return Err(Failed("the agent has ended by itself".to_owned()));
        }
        Ok(())
    }

    /// Waits for Ctrl-C, SIGTERM, or a drain over the admin API.
    ///
    /// # Errors
    /// The agent ended by itself, or the system refuses signal handlers.
    pub fn wait(&mut self) -> Result<(), Failed> {
        let (Some(hub), Some(agent)) = (&mut self.hub, &self.agent) else {
            return Ok(());
        };
        let mut state = agent.running.watch();
        self.runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).map_err(Failed::doing("SIGINT"))?;
            let mut terminate =
                signal(SignalKind::terminate()).map_err(Failed::doing("SIGTERM"))?;
            tokio::select! {
                _ = interrupt.recv() => Ok(()),
                _ = terminate.recv() => Ok(()),
                _ = hub.end_asked() => Ok(()),
                _ = state.wait_for(|state| state.phase == Phase::Stopped) =>
                    Err(Failed("the agent has ended by itself".to_owned())),
            }
        })
    }

    /// Ends the agent, then the hub, and says whether both ended in time.
    pub fn end(&mut self) -> bool {
        let mut well = true;
        if let Some(agent) = self.agent.take() {
            agent.running.stop();
            let stopped = agent.running.stopped();
            well = self
                .runtime
                .block_on(async { timeout(AGENT_END_DEADLINE, stopped).await.is_ok() });
            // The last grip on it: where it has not stopped, it does now.
            drop(agent.running);
            well &= agent.thread.join().is_ok();
        }
        if let Some(hub) = self.hub.take() {
            self.runtime.block_on(async {
                hub.drain(DRAIN_WITHIN).await;
                hub.shutdown().await;
            });
        }
        if let Some(mut telemetry) = self.telemetry.take() {
            telemetry.shutdown(FLUSH_WITHIN);
        }
        well
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.end();
    }
}
