//! What is seen of the hub from outside: metrics, logs, traces, decisions.
//!
//! Whatever leaves the process passes [`redact`]; log records pass the mask plugins after it, off
//! the hot path. See [`metrics`] for the names, [`events`] for the log events, [`decisions`] for
//! the record of each decision, [`logs`] for the way of a log record and [`traces`] for spans.

pub mod decisions;
pub mod events;
pub mod logs;
pub mod mask;
pub mod metrics;
pub mod plugins;
pub mod redact;
pub mod traces;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tracing::Dispatch;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::config;
use decisions::log::{
    DecisionLogError, DecisionLogSettings, DecisionOutput, DecisionSinks, WhenFull,
};
use decisions::{DecisionRecord, DecisionRing};
use logs::{LevelControl, LevelError, LogFilter, LogFormat, LogLayer, LogSettings, Logs};
use metrics::Metrics;
use redact::Covers;
use traces::{TraceError, TraceSettings, Traces};

/// Time for logs and spans that wait, where nobody calls [`Telemetry::shutdown`].
const DROP_DEADLINE: Duration = Duration::from_secs(1);

/// A time in milliseconds since 1970 as RFC 3339 writes it.
pub(crate) fn rfc3339_ms(time_ms: u64) -> String {
    let mut text = String::with_capacity(24);
    logs::push_time(&mut text, UNIX_EPOCH + Duration::from_millis(time_ms));
    text
}

/// How the hub is seen.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Logs.
    pub logs: LogSettings,
    /// Traces; `None` makes none.
    pub traces: Option<TraceSettings>,
}

impl Settings {
    /// The settings of a hub's configuration. `expect_masker` says that there are mask plugins,
    /// so that no record is written before [`Logs::set_masker`].
    pub fn from_config(
        config: &config::ObservabilityConfig,
        replica: &str,
        expect_masker: bool,
    ) -> Self {
        let traces = trace_settings(config, replica);
        let format = match config.log_format {
            config::LogFormat::Json => LogFormat::Json,
            config::LogFormat::Text => LogFormat::Text,
        };
        let logs = LogSettings {
            level: config.log_level.clone(),
            format,
            queue_records: usize::try_from(config.log_queue).unwrap_or(usize::MAX),
            covers: Covers::of(&config.redaction),
            expect_masker,
        };
        Self { logs, traces }
    }
}

/// Logs or traces do not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not understood.
    #[error("`observability.log_level`: {0}")]
    Level(#[from] LevelError),
    /// Traces cannot be exported.
    #[error(transparent)]
    Traces(#[from] TraceError),
    /// The log writer's thread does not start.
    #[error("the log writer's thread did not start")]
    Thread(#[source] std::io::Error),
    /// There is a subscriber already.
    #[error("logs are already set up in this process")]
    Twice,
}

/// Running logs and traces. Dropping it flushes them for a second; [`Telemetry::shutdown`] says
/// how long.
pub struct Telemetry {
    /// The log pipeline.
    pub logs: Logs,
    /// The log level.
    pub level: LevelControl,
    traces: Option<Traces>,
    ended: bool,
}

/// Sets logs and traces up for the process: lines go to stderr, panics to the log.
///
/// # Errors
/// [`TelemetryError`]; then nothing is set up.
pub fn init(settings: &Settings, metrics: &Metrics) -> Result<Telemetry, TelemetryError> {
    let (dispatch, telemetry) = build(settings, Box::new(std::io::stderr()), metrics)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| TelemetryError::Twice)?;
    logs::install_panic_hook(telemetry.logs.clone());
    if let Some(traces) = &telemetry.traces {
        traces.make_global();
    }
    Ok(telemetry)
}

/// Makes logs and traces without setting them up for the process; lines go to `output`.
///
/// # Errors
/// [`TelemetryError`].
pub fn build(
    settings: &Settings,
    output: Box<dyn Write + Send>,
    metrics: &Metrics,
) -> Result<(Dispatch, Telemetry), TelemetryError> {
    let (level, filter) = LevelControl::new(&settings.logs.level)?;
    let (traces, tracer) = match &settings.traces {
        Some(wanted) => {
            let (traces, tracer) = Traces::start(wanted, metrics.logs.clone())?;
            (Some(traces), Some(tracer))
        }
        None => (None, None),
    };
    let logs = Logs::start(&settings.logs, output, metrics.logs.clone())
        .map_err(TelemetryError::Thread)?;
    let traced = traces.is_some();
    let log_layer = LogLayer::new(logs.clone(), traced).with_filter(LogFilter::new(filter, traced));
    let trace_layer = tracer.map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(FilterFn::new(logs::is_trace_span))
    });
    let subscriber = tracing_subscriber::registry()
        .with(log_layer)
        .with(trace_layer);
    let telemetry = Telemetry {
        logs,
        level,
        traces,
        ended: false,
    };
    Ok((Dispatch::new(subscriber), telemetry))
}

impl Telemetry {
    /// Exports spans and writes log records that wait, each at most until `deadline`. Blocks;
    /// within a runtime call it from a blocking thread or at the very end.
    pub fn shutdown(&mut self, deadline: Duration) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(traces) = &mut self.traces {
            traces.shutdown(deadline);
        }
        self.logs.shutdown(deadline);
    }

    #[cfg(test)]
    fn flush_traces(&self) {
        if let Some(traces) = &self.traces {
            traces.flush();
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.shutdown(DROP_DEADLINE);
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry")
            .field("logs", &self.logs)
            .field("traces", &self.traces.is_some())
            .finish_non_exhaustive()
    }
}

/// Starts the decision log that the configuration wants.
///
/// # Errors
/// Its file or its collector cannot be written to.
pub fn decision_log(
    config: &config::CloudConfig,
    masker: Arc<dyn mask::LogMasker>,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<DecisionSinks>>, DecisionLogError> {
    let observability = &config.observability;
    let wanted = &observability.decision_log;
    let output = wanted.file.as_ref().map(|file| {
        if wanted.to_stdout() {
            DecisionOutput::Stdout
        } else {
            DecisionOutput::File(file.clone())
        }
    });
    let settings = DecisionLogSettings {
        output,
        collector: if wanted.otlp {
            trace_settings(observability, config.replica_id.as_str())
        } else {
            None
        },
        queue_bytes: usize::try_from(wanted.queue_bytes).unwrap_or(usize::MAX),
        when_full: match wanted.when_full {
            config::DecisionsWhenFull::DropNew => WhenFull::DropNew,
            config::DecisionsWhenFull::DropOld => WhenFull::DropOld,
            config::DecisionsWhenFull::Block(longest) => WhenFull::Block(longest),
        },
        sample_allows: wanted.sample_allows,
        deny_burst: wanted.deny_burst,
        context: wanted.context.clone(),
        covers: Covers::of(&observability.redaction),
    };
    Ok(DecisionSinks::start(&settings, Some(masker), metrics)?.map(Arc::new))
}

fn trace_settings(config: &config::ObservabilityConfig, replica: &str) -> Option<TraceSettings> {
    config.otlp_endpoint.as_ref().map(|endpoint| TraceSettings {
        endpoint: endpoint.clone(),
        headers: config.otlp_headers.clone(),
        timeout: config.otlp_timeout,
        sample_ratio: config.otlp_sample_ratio,
        service_name: config.service_name.clone(),
        replica: replica.to_owned(),
    })
}

/// Where decisions go: metrics, ring, log and decision log, in one call.
#[derive(Debug, Clone)]
pub struct DecisionLog {
    metrics: Arc<Metrics>,
    ring: Arc<DecisionRing>,
    logs: Option<Logs>,
    sinks: Option<Arc<DecisionSinks>>,
}

impl DecisionLog {
    /// `logs` is absent where nothing is logged, as in tests.
    pub const fn new(metrics: Arc<Metrics>, ring: Arc<DecisionRing>, logs: Option<Logs>) -> Self {
        Self {
            metrics,
            ring,
            logs,
            sinks: None,
        }
    }

    /// And to the decision log, where there is one.
    #[must_use]
    pub fn with_sinks(mut self, sinks: Option<Arc<DecisionSinks>>) -> Self {
        self.sinks = sinks;
        self
    }

    /// Counts a decision, keeps it and logs it, with the trace that the caller runs in.
    pub fn record(&self, mut record: DecisionRecord) -> Arc<DecisionRecord> {
        if record.trace_id.is_none() {
            record.trace_id = traces::current_trace_id();
        }
        let first = record.policies.first().map(|policy| policy.id.as_ref());
        let took = Duration::from_micros(u64::from(record.latency.total_us));
        self.metrics
            .policy
            .decided(record.action, record.allow, record.why, first, took);
        if !record.errors.is_empty() {
            self.metrics.policy.evaluation_error(record.action);
        }
        let record = Arc::new(record.redacted());
        self.ring.push(Arc::clone(&record));
        if let Some(logs) = &self.logs {
            logs.decision(&record);
        }
        if let Some(sinks) = &self.sinks {
            sinks.record(&record);
        }
        record
    }

    /// The last decisions.
    pub const fn ring(&self) -> &Arc<DecisionRing> {
        &self.ring
    }
}
