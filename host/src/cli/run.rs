//! `nowconnect run`: the hub as a process.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;
use crate::config::{self, CloudConfig, ConfigError, PluginHook, ProcessEnv};
use crate::gateway::{Gateway, GatewayOptions, Running};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{self, Settings, Telemetry};

/// Threads of the runtime that accepts agents and serves pages; the traffic itself runs on the
/// workers.
const MAIN_THREADS: usize = 2;

/// How long logs and spans may take to be written at the end.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);

/// Serves until SIGTERM or SIGINT; a second signal ends at once. SIGHUP reads everything again.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The configuration; without it `NC_CONFIG`, then `$SERVICE_CONFIG_DIR/cloud.yaml`, then the
    /// built-in defaults
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    /// To try it: serve this machine only, and give anybody on it public names (below `localhost`)
    /// for what `nowconnect-agent http` offers; nothing is kept
    #[arg(long, conflicts_with = "config")]
    dev: bool,
}

/// What `--dev` serves.
const DEV: &str = include_str!("../../../config/dev.yaml");

impl Args {
    /// Runs the hub to its end.
    pub fn run(self) -> Exit {
        let config = match load(self.config.as_deref(), self.dev) {
            Ok(config) => config,
            Err(error) => return complain(&error.to_string(), Exit::Usage),
        };
        let metrics = Metrics::new();
        let settings = Settings::from_config(
            &config.observability,
            config.replica_id.as_str(),
            expects_masker(&config),
        );
        let mut telemetry = match telemetry::init(&settings, &metrics) {
            Ok(telemetry) => telemetry,
            Err(error) => return complain(&error.to_string(), Exit::Usage),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(MAIN_THREADS)
            .thread_name("hub")
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return complain(&format!("no runtime: {error}"), Exit::Failure),
        };
        let exit = runtime.block_on(self.serve(config, metrics, &telemetry));
        runtime.shutdown_background();
        telemetry.shutdown(FLUSH_WITHIN);
        exit
    }

    async fn serve(
        &self,
        config: CloudConfig,
        metrics: Arc<Metrics>,
        telemetry: &Telemetry,
    ) -> Exit {
        // Before anything is bound, so that a signal during the start is not lost.
        let signals = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        );
        let (Ok(terminate), Ok(interrupt)) = signals else {
            return complain("the system refuses signal handlers", Exit::Failure);
        };
        let drain_within = config.tunnel.drain_timeout;
        let (path, dev) = (self.config.clone(), self.dev);
        let options = GatewayOptions {
            loader: Some(Arc::new(move || load(path.as_deref(), dev))),
            watch: true,
            metrics: Some(metrics),
            logs: Some(telemetry.logs.clone()),
            level: Some(telemetry.level.clone()),
            ..GatewayOptions::default()
        };
        let running = match Gateway::bind(config, options).await {
            Ok(running) => running,
            Err(error) => {
                telemetry.logs.set_masker(None);
                return complain(&full(&error), Exit::Failure);
            }
        };
        telemetry.logs.set_masker(Some(running.masker()));
        until_end(
            running,
            Signals {
                terminate,
                interrupt,
            },
            drain_within,
        )
        .await;
        Exit::Success
    }
}

fn load(path: Option<&Path>, dev: bool) -> Result<CloudConfig, ConfigError> {
    if dev {
        config::parse(DEV, None, &ProcessEnv)
    } else {
        config::load(path, &ProcessEnv)
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until a signal or an operator asks for the end; drains; a second signal cuts.
async fn until_end(mut running: Running, mut signals: Signals, drain_within: Duration) {
    let within = tokio::select! {
        () = signals.next() => drain_within,
        within = running.end_asked() => within,
    };
    tokio::select! {
        () = running.drain(within) => {}
        () = signals.next() => {}
    }
    running.shutdown().await;
}

/// Whether records have to wait for mask plugins before the first is written.
fn expects_masker(config: &CloudConfig) -> bool {
    config
        .plugins
        .list
        .iter()
        .any(|plugin| plugin.hooks.is_empty() || plugin.hooks.contains(&PluginHook::Mask))
}

/// The error with everything that caused it.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

fn complain(problem: &str, exit: Exit) -> Exit {
    // Where stderr is closed nobody reads it; the exit code says it too.
    let _ = writeln!(std::io::stderr(), "nowconnect: {problem}");
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_to_try_it_is_for_this_machine_only() {
        let config = config::parse(DEV, None, &std::collections::BTreeMap::new())
            .unwrap_or_else(|error| panic!("{error}"));
        let control = config.control.listen.map(|address| address.ip());
        let web = config.ingress.listeners.iter();
        let ports: Vec<_> = web
            .map(|listener| listener.bind.ip())
            .chain(control)
            .chain([config.tunnel.host])
            .collect();
        assert_eq!(ports.len(), 3);
        assert!(ports.iter().all(std::net::IpAddr::is_loopback), "{ports:?}");
        assert!(config.control.anonymous_tenant.is_some());
        assert_eq!(config.control.state_file, None);
    }
}
