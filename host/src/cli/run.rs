//! `nowconnect run`: the hub as a process.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;
use crate::config::{self, CloudConfig, PluginHook, ProcessEnv};
use crate::gateway::{Gateway, GatewayOptions, Running};
use crate::reload::Loader;
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
}

impl Args {
    /// Runs the hub to its end.
    pub fn run(self) -> Exit {
        let config = match config::load(self.config.as_deref(), &ProcessEnv) {
            Ok(config) => config,
            Err(error) => return complain(&error.to_string(), Exit::Usage),
        };
        let path = self.config;
        let loader = Arc::new(move || config::load(path.as_deref(), &ProcessEnv));
        serve(config, loader, |_| {})
    }
}

/// Runs a hub to its end; `loader` reads its configuration again, `greet` is called once it serves.
pub(super) fn serve(config: CloudConfig, loader: Loader, greet: impl FnOnce(&Running)) -> Exit {
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
    let options = GatewayOptions {
        loader: Some(loader),
        watch: true,
        metrics: Some(metrics),
        logs: Some(telemetry.logs.clone()),
        level: Some(telemetry.level.clone()),
        ..GatewayOptions::default()
    };
    let exit = runtime.block_on(until_ended(config, options, &telemetry, greet));
    runtime.shutdown_background();
    telemetry.shutdown(FLUSH_WITHIN);
    exit
}

async fn until_ended(
    config: CloudConfig,
    options: GatewayOptions,
    telemetry: &Telemetry,
    greet: impl FnOnce(&Running),
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
    let running = match Gateway::bind(config, options).await {
        Ok(running) => running,
        Err(error) => {
            telemetry.logs.set_masker(None);
            return complain(&full(&error), Exit::Failure);
        }
    };
    telemetry.logs.set_masker(Some(running.masker()));
    greet(&running);
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

pub(super) fn complain(problem: &str, exit: Exit) -> Exit {
    // Where stderr is closed nobody reads it; the exit code says it too.
    let _ = writeln!(std::io::stderr(), "nowconnect: {problem}");
    exit
}
