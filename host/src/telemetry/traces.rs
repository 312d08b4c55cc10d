//! Traces: one per flow, from accept through decision and plugins to OPEN on the agent; and one
//! per HELLO, from the upgrade request through the token's check, decision and plugins.
//!
//! Spans are `tracing` spans of the target [`events::TRACE`], made only by
//! the helpers here, so that with no endpoint configured a helper costs one atomic load. With one,
//! spans go by OTLP over HTTP from a thread of their own, their attributes through the redaction
//! floor on the way. A collector that does not answer costs spans, counted, and a warning at most
//! every half minute; never the flow.

mod export;
mod parent;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::events;
use super::metrics::LogMetrics;
use crate::config::Secret;

pub use parent::{InvalidTraceParent, TraceParent, continue_trace, link_trace, trace_parent};

use export::RedactingExporter;

/// Spans that may wait for export; more are dropped. A span has about 1 KiB.
pub const MAX_WAITING_SPANS: usize = 4096;

/// Spans in one export.
pub const MAX_EXPORT_SPANS: usize = 512;

const TRACES_PATH: &str = "/v1/traces";

/// Longest time that a span waits for others to go with it.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Attributes of one span at most; ours have under twenty.
const MAX_ATTRIBUTES: u32 = 64;

/// Where traces go.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// The collector's base URL, such as `http://127.0.0.1:4318`; `/v1/traces` is added where it
    /// is not there.
    pub endpoint: String,
    /// Header fields for the collector.
    pub headers: Vec<(String, Secret)>,
    /// The bound of one export.
    pub timeout: Duration,
    /// The share of traces kept where nobody above decided, 0 to 1.
    pub sample_ratio: f64,
    /// `service.name`.
    pub service_name: String,
    /// `service.instance.id`: the replica.
    pub replica: String,
}

/// Traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The endpoint is no URL of a collector.
    #[error("`observability.otlp_endpoint`: {problem}")]
    Endpoint {
        /// What is wrong with it.
        problem: String,
    },
    /// The export thread does not start.
    #[error("the thread for trace export did not start")]
    Thread(#[source] std::io::Error),
}

/// The running trace pipeline.
pub(super) struct Traces {
    provider: SdkTracerProvider,
    /// Holds the exporter's client; only its own thread runs on it.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Traces {
    pub(super) fn start(
        settings: &TraceSettings,
        metrics: LogMetrics,
    ) -> Result<(Self, SdkTracer), TraceError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name("trace-export")
            .enable_all()
            .build()
            .map_err(TraceError::Thread)?;
        let exporter = exporter(settings)?;
        let exporter = RedactingExporter::new(exporter, runtime.handle().clone(), metrics);
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_WAITING_SPANS)
            .with_max_export_batch_size(MAX_EXPORT_SPANS)
            .with_scheduled_delay(EXPORT_INTERVAL)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let ratio = settings.sample_ratio.clamp(0.0, 1.0);
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", settings.service_name.clone()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", settings.replica.clone()),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                ratio,
            ))))
            .with_max_attributes_per_span(MAX_ATTRIBUTES)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("nowconnect");
        let traces = Self {
            provider,
            runtime: Some(runtime),
        };
        Ok((traces, tracer))
    }

    /// Makes [`plugin_called`] report here, for the whole process.
    pub(super) fn make_global(&self) {
        opentelemetry::global::set_tracer_provider(self.provider.clone());
    }

    /// Exports what waits, at most until `deadline` from now.
    pub(super) fn shutdown(&mut self, deadline: Duration) {
        // What fails here was counted and logged by the exporter.
        let _ = self.provider.shutdown_with_timeout(deadline);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Exports what waits.
    #[cfg(test)]
    pub(super) fn flush(&self) {
        let _ = self.provider.force_flush();
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn exporter(settings: &TraceSettings) -> Result<opentelemetry_otlp::SpanExporter, TraceError> {
    let problem = |error: &dyn Display| TraceError::Endpoint {
        problem: super::redact::floor(&error.to_string()).into_owned(),
    };
    let client = reqwest::Client::builder()
        .timeout(settings.timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| problem(&error))?;
    let headers = settings
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.expose().to_owned()))
        .collect();
    opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(signal_url(&settings.endpoint, TRACES_PATH))
        .with_timeout(settings.timeout)
        .with_headers(headers)
        .build()
        .map_err(|error| problem(&error))
}

/// Where a collector takes the signal of this path. An endpoint may be written with the path of
/// traces.
pub(super) fn signal_url(endpoint: &str, path: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    let base = base.strip_suffix(TRACES_PATH).unwrap_or(base);
    format!("{base}{path}")
}

/// The root of a flow's trace: from accept to the answer of its agent.
///
/// Later facts are set with `span.record(…)`: `agent_id`, `flow`, `decision`, `result`. When it
/// is `is_disabled()`, nothing is traced.
pub fn flow_span(listener: &str, connector: &dyn Display, client: SocketAddr) -> Span {
    tracing::info_span!(
        target: events::TRACE,
        "accept",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        listener,
        connector = %connector,
        client = %client,
        agent_id = tracing::field::Empty,
        flow = tracing::field::Empty,
        decision = tracing::field::Empty,
        result = tracing::field::Empty,
    )
}

/// The root of a request's trace: from its head to the end of its response.
pub fn request_span(listener: &str, client: SocketAddr) -> Span {
    tracing::info_span!(
        target: events::TRACE,
        "request",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        listener,
        client = %client,
        result = tracing::field::Empty,
    )
}

/// The root of an agent's trace: from its upgrade request to the answer to its HELLO.
///
/// Later facts are set with `span.record(…)`: `agent_id`, `session`, `result`.
pub fn hello_span(peer: SocketAddr) -> Span {
    tracing::info_span!(
        target: events::TRACE,
        "hello",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        peer = %peer,
        agent_id = tracing::field::Empty,
        session = tracing::field::Empty,
        result = tracing::field::Empty,
    )
}

/// The span in which an agent's token is proven, keys that have to be fetched included.
pub fn authentication_span(parent: &Span) -> Span {
    if parent.is_disabled() {
        return Span::none();
    }
    tracing::info_span!(
        target: events::TRACE,
        parent: parent,
        "authentication",
        otel.status_code = tracing::field::Empty,
        result = tracing::field::Empty,
    )
}

/// The span of a decision. Run the pipeline inside it (`Instrument::instrument`), so that the
/// spans of plugin calls find their parent.
///
/// No span where `parent` is disabled.
pub fn decision_span(parent: &Span) -> Span {
    if parent.is_disabled() {
        return Span::none();
    }
    tracing::info_span!(target: events::TRACE, parent: parent, "decision")
}

/// Marks a span as failed with a stable code.
pub fn failed(span: &Span, code: &str) {
    if !span.is_disabled() {
        span.record("result", code);
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of OPEN on an agent's tunnel; its context is what the agent continues.
pub fn open_span(parent: &Span, agent_id: &dyn Display) -> Span {
    if parent.is_disabled() {
        return Span::none();
    }
    tracing::info_span!(
        target: events::TRACE,
        parent: parent,
        "open",
        otel.kind = "client",
        otel.status_code = tracing::field::Empty,
        agent_id = %agent_id,
        result = tracing::field::Empty,
    )
}

/// Adds the span of a plugin call that has just ended to the span that the caller runs in.
pub fn plugin_called(plugin: &str, hook: &'static str, outcome: &'static str, took: Duration) {
    let current = Span::current();
    if current.is_disabled() {
        return;
    }
    let context = current.context();
    if !context.span().span_context().is_sampled() {
        return;
    }
    let end = SystemTime::now();
    let tracer = opentelemetry::global::tracer("nowconnect");
    tracer
        .span_builder(format!("plugin {hook}"))
        .with_start_time(end.checked_sub(took).unwrap_or(end))
        .with_attributes([
            KeyValue::new("plugin", plugin.to_owned()),
            KeyValue::new("outcome", outcome),
        ])
        .start_with_context(&tracer, &context)
        .end_with_timestamp(end);
}

/// The ids of the trace and of the span that the caller runs in, 32 and 16 hexadecimal digits.
pub fn current_ids() -> Option<(String, String)> {
    trace_parent(&Span::current()).map(|parent| (parent.trace_id(), parent.span_id()))
}

/// The id of the trace that the caller runs in, 32 hexadecimal digits.
pub fn current_trace_id() -> Option<String> {
    trace_parent(&Span::current()).map(|parent| parent.trace_id())
}
