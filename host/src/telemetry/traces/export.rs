//! The exporter between the batch thread of the OpenTelemetry SDK and the OTLP client.
//!
//! The SDK calls exporters from a plain thread, and the client needs a tokio runtime, so each
//! export is a task on the trace pipeline's own. On the way every text passes the floor.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::trace::Status;
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::super::events;
use super::super::metrics::LogMetrics;
use super::super::redact::{self, ERASED};

/// Shortest time between two warnings about exports.
const WARNING_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct RedactingExporter<E> {
    inner: Arc<E>,
    runtime: Handle,
    metrics: LogMetrics,
    last_warning: Mutex<Option<Instant>>,
}

impl<E: SpanExporter + 'static> RedactingExporter<E> {
    pub(super) fn new(inner: E, runtime: Handle, metrics: LogMetrics) -> Self {
        Self {
            inner: Arc::new(inner),
            runtime,
            metrics,
            last_warning: Mutex::new(None),
        }
    }

    fn report(&self, error: &OTelSdkError, spans: usize) {
        self.metrics.export_failed(spans as u64);
        let now = Instant::now();
        let mut last = self.last_warning.lock();
        let recently = last.is_some_and(|last| now.duration_since(last) < WARNING_INTERVAL);
        if recently {
            return;
        }
        *last = Some(now);
        drop(last);
        tracing::warn!(
            event = events::TRACE_EXPORT_FAILED,
            spans,
            error = %error,
            "spans could not be exported"
        );
    }
}

impl<E: SpanExporter + 'static> SpanExporter for RedactingExporter<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        batch.iter_mut().for_each(clean);
        let inner = Arc::clone(&self.inner);
        let task = self.runtime.spawn(async move { inner.export(batch).await });
        let result = task
            .await
            .unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())));
        if let Err(error) = &result {
            self.report(error, spans);
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}

/// Takes what the floor knows out of every text of a span.
pub(super) fn clean(span: &mut SpanData) {
    span.attributes.iter_mut().for_each(clean_attribute);
    for event in &mut span.events.events {
        event.attributes.iter_mut().for_each(clean_attribute);
        event.name = redact::floor(&event.name).into_owned().into();
    }
    for link in &mut span.links.links {
        link.attributes.iter_mut().for_each(clean_attribute);
    }
    span.name = redact::floor(&span.name).into_owned().into();
    if let Status::Error { description } = &mut span.status {
        *description = redact::floor(description).into_owned().into();
    }
}

fn clean_attribute(attribute: &mut KeyValue) {
    if redact::is_sensitive_key(attribute.key.as_str()) {
        attribute.value = Value::from(ERASED);
        return;
    }
    if let Value::String(text) = &attribute.value {
        if let Cow::Owned(clean) = redact::floor(text.as_str()) {
            attribute.value = Value::from(clean);
        }
    } else if let Value::Array(Array::String(texts)) = &mut attribute.value {
        for text in texts {
            *text = redact::floor(text.as_str()).into_owned().into();
        }
    }
}
