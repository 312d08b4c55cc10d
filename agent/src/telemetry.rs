//! Logs to standard error, and traces over OTLP where a receiver is configured.
//!
//! Log lines carry an `event` name and fields, never payload and never a token. The one span that
//! an agent makes covers OPEN and the dial of its target, and continues the trace that OPEN
//! carries; it exists only while a receiver is configured, so that flows cost nothing else.

mod otlp;

use std::time::Duration;

use nowconnect_tunnel::{Dial, DialError};
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{AgentConfig, LogFormat, LogLevel, Observability, Outbound};

/// Spans of this target go to the trace receiver and nowhere else.
const SPAN_TARGET: &str = "nowconnect_trace";
/// At the end, waiting spans are sent for at most this long.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Something else in this process already takes the logs.
    #[error("logs are already taken by another subscriber")]
    Taken,
    /// The trace exporter refused its settings.
    #[error("traces cannot be sent to `{endpoint}`: {reason}")]
    Exporter {
        /// The configured endpoint.
        endpoint: String,
        /// Why.
        reason: String,
    },
}

/// Keeps logs and traces going; waiting spans are sent when it is dropped.
#[derive(Debug)]
pub struct Telemetry {
    level: reload::Handle<LevelFilter, Registry>,
    traces: Option<SdkTracerProvider>,
}

/// Takes this process's logs and, where configured, its traces.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(config: &AgentConfig) -> Result<Telemetry, TelemetryError> {
    init_with(
        &config.observability,
        config.agent_id.as_str(),
        &config.outbound,
    )
}

/// The same for more than one agent; `name` is the instance that traces name.
pub(crate) fn init_with(
    settings: &Observability,
    name: &str,
    outbound: &Outbound,
) -> Result<Telemetry, TelemetryError> {
    let (level, handle) = reload::Layer::new(filter(settings.log_level));
    let lines: Box<dyn Layer<_> + Send + Sync> = match settings.log_format {
        LogFormat::Plain => fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_target(false)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let lines = lines
        .with_filter(level)
        .with_filter(FilterFn::new(|meta| meta.target() != SPAN_TARGET));
    let traces = match &settings.otlp_endpoint {
        Some(endpoint) => Some(otlp::provider(endpoint, name, outbound)?),
        None => None,
    };
    let spans = traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("nowconnect-agent"))
            .with_location(false)
            .with_threads(false)
            .with_filter(FilterFn::new(|meta| meta.target() == SPAN_TARGET))
    });
    tracing_subscriber::registry()
        .with(lines)
        .with(spans)
        .try_init()
        .map_err(|_| TelemetryError::Taken)?;
    Ok(Telemetry {
        level: handle,
        traces,
    })
}

impl Telemetry {
    /// Changes the least severe level that is logged.
    pub fn set_level(&self, level: LogLevel) {
        if self.level.reload(filter(level)).is_err() {
            tracing::debug!("the log's level cannot be changed any more");
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = &self.traces
            && let Err(error) = traces.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::warn!(event = "traces_lost", %error, "the last spans were not sent");
        }
    }
}

/// The span of one OPEN and its dial, in the trace that OPEN carries. Disabled, and free, while
/// nobody receives traces.
pub(crate) fn open_span(dial: &Dial) -> Span {
    let span = tracing::span!(
        target: SPAN_TARGET,
        Level::INFO,
        "open",
        otel.name = "agent dial",
        otel.kind = "server",
        nowconnect.cid = dial.cid,
        nowconnect.flow_ref = tracing::field::Empty,
        nowconnect.connector = dial.connector.as_str(),
    );
    if span.is_disabled() {
        return span;
    }
    span.record("nowconnect.flow_ref", dial.flow_ref.to_string());
    let remote = dial.trace_parent.as_deref().and_then(parse_trace_parent);
    if let Some(remote) = remote {
        let parent = Context::new().with_remote_span_context(remote);
        if span.set_parent(parent).is_err() {
            tracing::debug!("a span could not be joined to its trace");
        }
    }
    span
}

/// Marks the current span as failed.
pub(crate) fn mark_failed(error: &DialError) {
    let span = Span::current();
    if !span.is_disabled() {
        span.set_attribute("nowconnect.code", error.code.as_str());
        span.set_status(Status::error(error.message.clone()));
    }
}

/// A W3C `traceparent`: `00-<trace id>-<parent id>-<flags>`. Later versions may append fields.
fn parse_trace_parent(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let version = parts.next()?;
    let (trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let well_formed = version.len() == 2
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && trace.len() == 32
        && parent.len() == 16
        && flags.len() == 2;
    if !well_formed {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(parent).ok()?,
        TraceFlags::new(flags) & TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_parent_is_continued() {
        let context = parse_trace_parent(PARENT).unwrap();
        assert_eq!(
            context.trace_id().to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        assert!(context.is_sampled() && context.is_remote());
    }

    #[test]
    fn anything_else_starts_no_trace() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-zzf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(parse_trace_parent(bad).is_none(), "{bad}");
        }
        assert!(parse_trace_parent(&PARENT.replacen("00", "01", 1)).is_some());
    }
}
