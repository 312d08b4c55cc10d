//! `nowconnect-agent run`: an agent under a service manager, with signals and a watched file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{load, refuse, say_error};
use crate::agent::{Agent, AgentTask, Running, build_runtime};
use crate::config::{AgentConfig, Env, Observability, TargetTls};
use crate::systemd;
use crate::telemetry::{self, Telemetry};
use crate::token::FileStamp;

/// How often the config file is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn run(path: Option<&Path>, env: &dyn Env) -> ExitCode {
    let config = match load(path, env) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let telemetry = match telemetry::init(&config) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error),
    };
    let observability = config.observability.clone();
    let health = config.health;
    let watched = watched_files(path, &config);
    let (running, task) = match Agent::prepare(config) {
        Ok(prepared) => prepared,
        Err(error) => return fail(&error),
    };
    let runtime = match build_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let conductor = Conductor {
        running,
        telemetry,
        env,
        path: path.map(Path::to_owned),
        watched,
        observability,
        health,
    };
    let code = runtime.block_on(LocalSet::new().run_until(conductor.conduct(task)));
    // A resolver thread that still waits for a name server must not hold up the end.
    runtime.shutdown_background();
    code
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    say_error(&error.to_string());
    ExitCode::FAILURE
}

/// A file and its last known state.
struct WatchedFile {
    path: PathBuf,
    stamp: Option<FileStamp>,
}

/// The config file and what it names that is read only when it is loaded. The token's file is the
/// agent's own affair.
fn watched_files(path: Option<&Path>, config: &AgentConfig) -> Vec<WatchedFile> {
    let of_targets = config
        .targets
        .values()
        .filter_map(|target| target.tls.as_ref())
        .flat_map(TargetTls::files);
    let paths: BTreeSet<&Path> = path
        .into_iter()
        .chain(config.outbound.ca_bundle.as_deref())
        .chain(of_targets)
        .collect();
    paths
        .into_iter()
        .map(|path| WatchedFile {
            stamp: FileStamp::of(path),
            path: path.to_owned(),
        })
        .collect()
}

/// What stands between the outside and the agent.
struct Conductor<'a> {
    running: Running,
    telemetry: Telemetry,
    env: &'a dyn Env,
    path: Option<PathBuf>,
    watched: Vec<WatchedFile>,
    observability: Observability,
    health: Option<std::net::SocketAddr>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn take() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

impl Conductor<'_> {
    async fn conduct(mut self, task: AgentTask) -> ExitCode {
        let mut signals = match Signals::take() {
            Ok(signals) => signals,
            Err(error) => return fail(&error),
        };
        let bound = match task.bind().await {
            Ok(bound) => bound,
            Err(error) => return fail(&error),
        };
        if let Some(address) = bound.health_address() {
            tracing::info!(event = "listener_started", name = "health", %address, "health server listens");
        }
        let mut agent = tokio::task::spawn_local(bound.run());
        let mut state = self.running.watch();
        let mut watch = every(WATCH_INTERVAL);
        let watchdog = systemd::watchdog_interval();
        let mut heartbeat = every(watchdog.unwrap_or(Duration::from_secs(3600)));
        let mut stopping = false;
        systemd::ready();
        loop {
            tokio::select! {
                ended = &mut agent => {
                    return match ended {
                        Ok(()) => ExitCode::SUCCESS,
                        Err(error) => fail(&error),
                    };
                }
                _ = signals.terminate.recv() => stopping = self.stop(stopping),
                _ = signals.interrupt.recv() => stopping = self.stop(stopping),
                _ = signals.hang_up.recv() => self.reload("SIGHUP").await,
                _ = watch.tick() => if self.files_changed() && !stopping {
                    self.reload("a file changed").await;
                },
                Ok(()) = state.changed() => systemd::status(&state.borrow_and_update().clone()),
                _ = heartbeat.tick(), if watchdog.is_some() => systemd::alive(),
            }
        }
    }

    /// The first signal asks for a graceful end, the second for one at once.
    fn stop(&self, stopping: bool) -> bool {
        systemd::stopping();
        if stopping {
            tracing::warn!(event = "agent_stop_now", "a second signal: ending at once");
            self.running.stop_now();
        } else {
            self.running.stop();
        }
        true
    }

    fn files_changed(&mut self) -> bool {
        let mut changed = false;
        for file in &mut self.watched {
            let stamp = FileStamp::of(&file.path);
            // A file that is gone is about to be replaced; what was read of it stays in force.
            if stamp.is_some() && stamp != file.stamp {
                file.stamp = stamp;
                changed = true;
            }
        }
        changed
    }

    async fn reload(&mut self, why: &str) {
        // What changes from here on is seen by the next look.
        self.files_changed();
        let config = match load(self.path.as_deref(), self.env) {
            Ok(config) => config,
            Err(error) => {
                for problem in error.problems() {
                    tracing::error!(
                        event = "config_refused",
                        "the configuration in force stays: {problem}"
                    );
                }
                return;
            }
        };
        tracing::info!(event = "config_loaded", why, "configuration was read again");
        self.watch_files_of(&config);
        self.note_what_needs_a_restart(&config);
        if config.observability.log_level != self.observability.log_level {
            self.telemetry.set_level(config.observability.log_level);
            self.observability.log_level = config.observability.log_level;
        }
        if let Err(error) = self.running.reload(config).await {
            tracing::error!(event = "config_refused", %error, "the configuration in force stays");
        }
    }

    /// A file that was known keeps its state of before the reload: it may have changed since it
    /// was read.
    fn watch_files_of(&mut self, config: &AgentConfig) {
        let known = std::mem::take(&mut self.watched);
        self.watched = watched_files(self.path.as_deref(), config);
        for file in &mut self.watched {
            if let Some(known) = known.iter().find(|known| known.path == file.path) {
                file.stamp = known.stamp;
            }
        }
    }

    fn note_what_needs_a_restart(&self, config: &AgentConfig) {
        let changed = [
            (
                "observability.log_format",
                config.observability.log_format != self.observability.log_format,
            ),
            (
                "observability.otlp_endpoint",
                config.observability.otlp_endpoint != self.observability.otlp_endpoint,
            ),
            (
                "observability.health_host, health_port",
                config.health != self.health,
            ),
        ];
        for (key, _) in changed.iter().filter(|(_, changed)| *changed) {
            tracing::warn!(event = "restart_needed", key, "changes only with a restart");
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
