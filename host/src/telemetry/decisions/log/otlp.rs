//! Decisions as OTLP log records over HTTP.

use std::time::{Duration, SystemTime};

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::{InstrumentationScope, SpanId, TraceId};
use opentelemetry_otlp::{LogExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{
    LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider,
};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::DecisionLogError;
use super::lane::{Lost, Output};
use super::line::Line;
use crate::telemetry::events;
use crate::telemetry::redact;
use crate::telemetry::traces::TraceSettings;

const SCOPE: &str = "nowconnect.decisions";

/// A collector. Its exporter is called from the output's own thread, one batch after another, so
/// that each loss is known.
pub(super) struct Collector {
    exporter: LogExporter,
    logger: SdkLogger,
    scope: InstrumentationScope,
    runtime: Runtime,
    timeout: Duration,
    /// Makes records; exports nothing itself.
    _provider: SdkLoggerProvider,
}

impl Collector {
    pub(super) fn new(settings: &TraceSettings) -> Result<Self, DecisionLogError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(DecisionLogError::Thread)?;
        let mut exporter = exporter(settings).map_err(DecisionLogError::Collector)?;
        exporter.set_resource(
            &Resource::builder_empty()
                .with_attributes([
                    opentelemetry::KeyValue::new("service.name", settings.service_name.clone()),
                    opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                    opentelemetry::KeyValue::new("service.instance.id", settings.replica.clone()),
                ])
                .build(),
        );
        let provider = SdkLoggerProvider::builder().build();
        Ok(Self {
            exporter,
            logger: provider.logger(SCOPE),
            scope: InstrumentationScope::builder(SCOPE)
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            runtime,
            timeout: settings.timeout,
            _provider: provider,
        })
    }

    fn record(&self, line: &Line) -> SdkLogRecord {
        let mut record = self.logger.create_log_record();
        record.set_event_name(events::DECISION);
        record.set_timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(line.time_ms));
        record.set_observed_timestamp(SystemTime::now());
        let (severity, name) = if line.allow {
            (Severity::Info, "INFO")
        } else {
            (Severity::Warn, "WARN")
        };
        record.set_severity_number(severity);
        record.set_severity_text(name);
        record.set_body(AnyValue::from(events::DECISION));
        let trace = line
            .trace_id
            .as_deref()
            .and_then(|text| TraceId::from_hex(text).ok());
        if let Some(trace) = trace {
            let span = line
                .span_id
                .as_deref()
                .and_then(|text| SpanId::from_hex(text).ok());
            record.set_trace_context(trace, span.unwrap_or(SpanId::INVALID), None);
        }
        for (name, value) in &line.fields {
            record.add_attribute(name.clone(), attribute(value));
        }
        record
    }
}

impl Output for Collector {
    fn write(&mut self, lines: &[Line]) -> Result<(), Lost> {
        let records: Vec<SdkLogRecord> = lines.iter().map(|line| self.record(line)).collect();
        let batch: Vec<(&SdkLogRecord, &InstrumentationScope)> =
            records.iter().map(|record| (record, &self.scope)).collect();
        let export = self.exporter.export(LogBatch::new(&batch));
        let bounded = async { tokio::time::timeout(self.timeout, export).await };
        let problem = match self.runtime.block_on(bounded) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => redact::floor(&error.to_string()).into_owned(),
            Err(_) => format!("no answer in {} ms", self.timeout.as_millis()),
        };
        Err(Lost {
            written: 0,
            problem,
        })
    }
}

fn attribute(value: &Value) -> AnyValue {
    match value {
        Value::String(text) => AnyValue::from(text.clone()),
        Value::Bool(truth) => AnyValue::from(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => AnyValue::from(whole),
            (None, Some(real)) => AnyValue::from(real),
            (None, None) => AnyValue::from(number.to_string()),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => AnyValue::from(value.to_string()),
    }
}

fn exporter(settings: &TraceSettings) -> Result<LogExporter, String> {
    let problem = |error: &dyn std::fmt::Display| redact::floor(&error.to_string()).into_owned();
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
    LogExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(crate::telemetry::traces::signal_url(
            &settings.endpoint,
            "/v1/logs",
        ))
        .with_timeout(settings.timeout)
        .with_headers(headers)
        .build()
        .map_err(|error| problem(&error))
}
