//! `/healthz`, `/readyz` and `/metrics`.
//!
//! `/healthz` says that the process serves. `/readyz` says whether traffic should come here: 200
//! `ready`, 200 `degraded` with reasons, 503 `starting` before the first good generation, 503
//! `draining`. Reasons are stable codes; their details, which may name plugins or peers, are on
//! the admin API only, because these routes are open to whoever reaches the port.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::telemetry::metrics::{Metrics, TEXT_FORMAT};

/// What impairs the hub while it still serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// High availability is active and a peer hub cannot be reached.
    MeshMissing,
    /// High availability is active and the registry does not answer.
    RegistryUnhealthy,
    /// A plugin is not called because it failed too often.
    PluginQuarantined,
    /// Hubs of the cluster serve different generations.
    GenerationSkew,
    /// The newest policies or plugins were refused, or the bundle is older than allowed.
    BundleStale,
    /// Something is wrong with the source, the state or the time of policy bundles.
    PolicyBundle,
    /// Token keys could not be refreshed; cached ones serve for a stated time.
    KeysStale,
    /// The external decision point does not answer.
    PdpUnavailable,
    /// A listener of the configuration is not bound.
    ListenerDown,
    /// A file of the HTTP ingress could not be taken over.
    IngressStale,
    /// The state file of the control plane or of issued certificates fails.
    StateFailed,
    /// A certificate ends so soon that its renewal should have happened.
    CertificateEnding,
}

impl ReasonCode {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::MeshMissing,
        Self::RegistryUnhealthy,
        Self::PluginQuarantined,
        Self::GenerationSkew,
        Self::BundleStale,
        Self::PolicyBundle,
        Self::KeysStale,
        Self::PdpUnavailable,
        Self::ListenerDown,
        Self::IngressStale,
        Self::StateFailed,
        Self::CertificateEnding,
    ];

    /// The code as it stands in `reasons[]`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MeshMissing => "mesh_missing",
            Self::RegistryUnhealthy => "registry_unhealthy",
            Self::PluginQuarantined => "plugin_quarantined",
            Self::GenerationSkew => "generation_skew",
            Self::BundleStale => "bundle_stale",
            Self::PolicyBundle => "policy_bundle",
            Self::KeysStale => "keys_stale",
            Self::PdpUnavailable => "pdp_unavailable",
            Self::ListenerDown => "listener_down",
            Self::IngressStale => "ingress_stale",
            Self::StateFailed => "state_failed",
            Self::CertificateEnding => "certificate_ending",
        }
    }
}

/// One reason with what it concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The stable code.
    pub code: ReasonCode,
    /// Which plugin, peer or listener; for the operator only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Whether traffic should come to this hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", content = "reasons", rename_all = "snake_case")]
pub enum Readiness {
    /// All is well.
    Ready,
    /// It serves, but something is impaired.
    Degraded(Vec<Reason>),
    /// No good generation yet.
    Starting,
    /// It finishes what runs and takes nothing new.
    Draining,
}

impl Readiness {
    /// [`Readiness::Ready`] without reasons, else [`Readiness::Degraded`].
    pub fn serving(reasons: Vec<Reason>) -> Self {
        if reasons.is_empty() {
            Self::Ready
        } else {
            Self::Degraded(reasons)
        }
    }

    /// The word in the answer's `status`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded(_) => "degraded",
            Self::Starting => "starting",
            Self::Draining => "draining",
        }
    }

    const fn http_status(&self) -> StatusCode {
        match self {
            Self::Ready | Self::Degraded(_) => StatusCode::OK,
            Self::Starting | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Tells whether the hub is ready. Must not block.
pub trait ReadyState: Send + Sync + 'static {
    /// The state now.
    fn readiness(&self) -> Readiness;
}

/// Routes to mount on a port.
#[derive(Clone)]
pub struct HealthRoutes {
    ready: Arc<dyn ReadyState>,
    metrics: Option<Arc<Metrics>>,
}

impl HealthRoutes {
    /// `/healthz` and `/readyz`.
    pub fn new(ready: Arc<dyn ReadyState>) -> Self {
        Self {
            ready,
            metrics: None,
        }
    }

    /// And `/metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// The router; GET and HEAD only.
    pub fn into_router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        let mut router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz));
        if self.metrics.is_some() {
            router = router.route("/metrics", get(scrape));
        }
        router.with_state(self)
    }
}

impl fmt::Debug for HealthRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthRoutes")
            .field("metrics", &self.metrics.is_some())
            .finish_non_exhaustive()
    }
}

async fn healthz() -> Response {
    json(StatusCode::OK, String::from(r#"{"status":"ok"}"#))
}

async fn readyz(State(routes): State<HealthRoutes>) -> Response {
    let readiness = routes.ready.readiness();
    json(readiness.http_status(), public_body(&readiness))
}

async fn scrape(State(routes): State<HealthRoutes>) -> Response {
    match routes.metrics {
        Some(metrics) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], metrics.render()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn public_body(readiness: &Readiness) -> String {
    let status = readiness.as_str();
    match readiness {
        Readiness::Degraded(reasons) => {
            let mut codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
            codes.sort_unstable();
            codes.dedup();
            let list = codes.join("\",\"");
            format!(r#"{{"status":"{status}","reasons":["{list}"]}}"#)
        }
        Readiness::Ready | Readiness::Starting | Readiness::Draining => {
            format!(r#"{{"status":"{status}"}}"#)
        }
    }
}

fn json(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body).into_response()
}
