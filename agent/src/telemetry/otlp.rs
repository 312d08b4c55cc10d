//! Spans to an OTLP receiver over HTTP with protobuf.

use std::future::{Future, ready};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    Protocol, SpanExporter as OtlpExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use rustls::RootCertStore;
use tokio::runtime::Runtime;

use super::TelemetryError;
use crate::config::Outbound;
use crate::tls;

/// One batch of spans is given up after this long.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// A provider whose spans leave in batches from a thread of their own. The batch queue is the
/// SDK's, bounded at 2,048 spans; what does not fit is dropped.
pub(super) fn provider(
    endpoint: &str,
    agent_id: &str,
    outbound: &Outbound,
) -> Result<SdkTracerProvider, TelemetryError> {
    let failed = |reason: String| TelemetryError::Exporter {
        endpoint: endpoint.to_owned(),
        reason,
    };
    let exporter = OtlpExporter::builder()
        .with_http()
        .with_http_client(client(endpoint, outbound).map_err(failed)?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let resource = Resource::builder()
        .with_service_name("nowconnect-agent")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", agent_id.to_owned()),
        ])
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(OwnRuntime { exporter, runtime })
        .with_resource(resource)
        .build())
}

/// A client with the agent's own trust, and with the environment's proxies only where they count
/// for the hub too.
fn client(endpoint: &str, outbound: &Outbound) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .timeout(EXPORT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(crate::USER_AGENT);
    if !outbound.trust_env {
        builder = builder.no_proxy();
    }
    // A plain receiver needs no trust, and a machine without CAs must be able to reach it.
    let roots = if endpoint.starts_with("https://") {
        tls::roots(outbound.ca_bundle.as_deref()).map_err(|error| error.to_string())?
    } else {
        RootCertStore::empty()
    };
    let trusted =
        tls::client(roots, &["http/1.1".to_owned()], None).map_err(|error| error.to_string())?;
    builder = builder.tls_backend_preconfigured((*trusted).clone());
    builder.build().map_err(|error| error.to_string())
}

/// The batch processor polls exports on a plain thread, but the HTTP client wants a reactor. It
/// gets one of its own, so that a slow receiver never takes a turn from the tunnel's.
#[derive(Debug)]
struct OwnRuntime {
    exporter: OtlpExporter,
    runtime: Runtime,
}

impl SpanExporter for OwnRuntime {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        ready(self.runtime.block_on(self.exporter.export(batch)))
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
