//! What is known about one request, for its line in the log and for the metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode, Version};
use tracing::{Span, info};

use super::failure::Failure;
use super::progress::Progress;
use super::request_id::RequestId;
use super::route::Route;
use crate::hub::Hub;
use crate::registry::AgentKey;
use crate::telemetry::decisions::DecisionId;
use crate::telemetry::events;
use crate::telemetry::metrics::HttpGauge;
use crate::telemetry::traces;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With its whole response.
    Complete,
    /// The viewer left before.
    ViewerLeft,
    /// The viewer took nothing of what waited for it, for too long.
    ViewerStalled,
    /// The origin broke its response.
    OriginBroke,
    /// The hub ended it: it was no longer allowed.
    Cut,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ViewerLeft => "viewer_left",
            Self::ViewerStalled => "viewer_stalled",
            Self::OriginBroke => "origin_broke",
            Self::Cut => "cut",
        }
    }
}

/// See the module. Written when dropped, so that no way out of a request leaves none.
#[derive(Debug)]
pub(crate) struct Account {
    hub: Arc<Hub>,
    pub(crate) id: RequestId,
    pub(crate) started: Instant,
    listener: Arc<str>,
    method: Method,
    version: Version,
    /// Of the request's trace.
    pub(crate) span: Span,
    pub(crate) client: SocketAddr,
    pub(crate) host: String,
    /// Without the query, which may hold secrets.
    pub(crate) path: String,
    route: Option<(Arc<Route>, HttpGauge)>,
    /// Who has proven who he is.
    pub(crate) viewer: Option<String>,
    pub(crate) agent: Option<AgentKey>,
    pub(crate) decision: Option<DecisionId>,
    status: Option<StatusCode>,
    failure: Option<Failure>,
    pub(crate) progress: Option<Arc<Progress>>,
    pub(crate) bytes_out: u64,
    pub(crate) end: End,
}

impl Account {
    pub(crate) fn begin(
        hub: &Arc<Hub>,
        listener: &Arc<str>,
        client: SocketAddr,
        method: &Method,
        version: Version,
    ) -> Self {
        Self {
            hub: Arc::clone(hub),
            id: RequestId::random(),
            started: Instant::now(),
            listener: Arc::clone(listener),
            method: method.clone(),
            version,
            span: traces::request_span(listener, client),
            client,
            host: String::new(),
            path: String::new(),
            route: None,
            viewer: None,
            agent: None,
            decision: None,
            status: None,
            failure: None,
            progress: None,
            bytes_out: 0,
            end: End::ViewerLeft,
        }
    }

    pub(crate) fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some((Arc::clone(route), route.metrics.in_flight()));
    }

    /// The head of an answer goes out.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        if let Some((route, _)) = &self.route {
            route.metrics.answered(status.as_u16(), self.started);
        }
    }

    /// The hub answers itself, with a short body that it does not wait for.
    pub(crate) fn failed(&mut self, failure: Failure) {
        self.answered(failure.status);
        self.hub.metrics.http.failed(&failure.code);
        traces::failed(&self.span, &failure.code);
        self.decision = failure.decision.or(self.decision);
        self.failure = Some(failure);
        self.end = End::Complete;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let bytes_in = self.progress.as_ref().map_or(0, |body| body.bytes());
        if let Some((route, _)) = &self.route {
            route.metrics.bytes(bytes_in, self.bytes_out);
        }
        self.hub.metrics.http.ended(self.end.as_str());
        let failure = self.failure.as_ref();
        let _traced = self.span.enter();
        info!(
            event = events::HTTP_REQUEST,
            request_id = %self.id,
            listener = %self.listener,
            client = %self.client,
            method = %self.method,
            version = ?self.version,
            host = self.host,
            path = self.path,
            endpoint = self.route.as_ref().map(|(route, _)| route.endpoint.as_str()),
            viewer = self.viewer,
            agent_id = self.agent.as_ref().map(tracing::field::display),
            status = self.status.map(|status| status.as_u16()),
            code = failure.map(|failure| &*failure.code),
            detail = failure.and_then(|failure| failure.detail.as_deref()),
            decision = self.decision.map(tracing::field::display),
            bytes_in,
            bytes_out = self.bytes_out,
            ended = self.end.as_str(),
            lasted_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "a request was answered"
        );
    }
}
