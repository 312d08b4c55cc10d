//! A connection to an origin: HTTP over a flow that the hub itself has opened.
//!
//! ```text
//! request ─► HTTP client ─► pipe in memory ─► flow ─► agent ─► origin
//! ```
//! The pipe is small, so bytes wait where they come from: what the flow's window does not take
//! stops the client, which stops asking for the request's body.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use nowconnect_protocol::{FlowRef, ResetCode};
use tokio::sync::watch;
use tracing::{Span, debug};

use super::body::RequestBody;
use super::origin_flow::{
    FlowPlan, FlowState, NoUpstream, OriginFlow, Purpose, agreed, made_room, until,
};
use super::pipe::OriginEnd;
use super::pool::PoolKey;
use super::route::Route;
use super::sender::{SendError, Sender};
use crate::config::OriginHttp;
use crate::hub::Hub;
use crate::registry::AgentKey;
use crate::session::LiveTunnel;

/// How long the end of one that makes room may take: its driver has to get to it.
const MADE_ROOM_WITHIN: Duration = Duration::from_secs(1);

/// See the module. Dropped in the middle of an exchange it resets its flow, so that the origin
/// learns that nobody listens any more.
pub(crate) struct Upstream {
    sender: Sender,
    state: watch::Receiver<FlowState>,
    origin_end: OriginEnd,
    key: PoolKey,
    hub: Arc<Hub>,
    flow_ref: FlowRef,
    /// Requests that it carried.
    requests: u64,
    /// Whether an exchange is under way.
    busy: bool,
    /// Whether it carries one request and no other.
    alone: bool,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("flow_ref", &self.flow_ref)
            .field("requests", &self.requests)
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// Opens a flow through `tunnel` and speaks HTTP over it. The origin is not waited for.
    pub(crate) async fn open(
        hub: &Arc<Hub>,
        route: &Route,
        tunnel: &Arc<LiveTunnel>,
        key: PoolKey,
        client: Option<SocketAddr>,
        span: &Span,
    ) -> Result<Self, NoUpstream> {
        let connector = &route.connector;
        if !connector.rate.allows(hub.uptime()) {
            return Err(NoUpstream::Rate);
        }
        let slot = match connector.flows.take() {
            Some(slot) => slot,
            None => made_room(hub, connector).await.ok_or(NoUpstream::Full)?,
        };
        let plan = FlowPlan {
            connector,
            tunnel,
            purpose: Purpose::Http,
            client,
            proxy_protocol: route.proxy_protocol_out,
            times: route.times,
            slot: Some(slot),
            span,
        };
        let OriginFlow {
            near,
            mut state,
            origin_end,
            flow_ref,
        } = OriginFlow::open(hub, plan)?;
        let http2 = match route.config.origin_http {
            OriginHttp::Http1 => false,
            OriginHttp::Http2 => true,
            // Known from an earlier connection, or from the agent's answer to this one.
            OriginHttp::Auto => match hub.ingress.pool.spoken(&key) {
                Some(http2) => http2,
                None => agreed(&mut state).await.map_err(NoUpstream::NotStarted)?,
            },
        };
        let limits = hub.config.load().ingress.limits.clone();
        let sender = Sender::over(near, http2, &limits).await;
        let sender = sender.map_err(|error| {
            debug!(%error, "a connection to an origin could not be set up");
            NoUpstream::NotStarted(ResetCode::Internal)
        })?;
        Ok(Self {
            sender,
            state,
            origin_end,
            key,
            hub: Arc::clone(hub),
            flow_ref,
            requests: 0,
            busy: false,
            alone: false,
        })
    }

    /// Waits until the origin is connected.
    pub(crate) async fn connected(&mut self) -> Result<(), ResetCode> {
        agreed(&mut self.state).await.map(drop)
    }

    /// Ready once the origin is connected or certainly will not be.
    pub(crate) fn opened(&self) -> impl Future<Output = ()> + use<> {
        until(self.state.clone(), |state| state != FlowState::Opening)
    }

    /// Ready once its flow has ended, in whatever way.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + use<> {
        until(self.state.clone(), FlowState::is_end)
    }

    /// Sends one request.
    ///
    /// # Errors
    /// What the HTTP client says; [`state`](Self::state) may know more.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.busy = true;
        if let Err(error) = self.sender.ready().await {
            let unsent = Some(request.into_body());
            return Err(SendError { error, unsent });
        }
        self.hub.metrics.http.sent(self.is_reused());
        self.requests += 1;
        self.sender.send(request).await
    }

    /// Whether it speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.sender.is_http2()
    }

    /// Lets it go after its request, whoever asks to keep it.
    pub(crate) fn never_keep(&mut self) {
        self.alone = true;
    }

    /// Keeps it for a further request.
    pub(crate) fn keep(mut self) {
        self.busy = false;
        if self.alone {
            return;
        }
        let hub = Arc::clone(&self.hub);
        let (most, most_in_all) = {
            let config = hub.config.load();
            let limits = &config.ingress.limits;
            let bound = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
            (bound(limits.pool_idle), bound(limits.max_requests))
        };
        hub.ingress.pool.keep(self, most, most_in_all);
    }

    /// The exchange has come to its end; another may begin.
    pub(crate) fn done(&mut self) {
        self.busy = false;
    }

    /// Ends it, and waits until its place among the connector's flows is free.
    pub(super) async fn make_room(self) {
        let ended = self.ended();
        self.reset(ResetCode::ClientReset);
        drop(self);
        // One whose agent is away may last longer; then there is no room.
        let _ = tokio::time::timeout(MADE_ROOM_WITHIN, ended).await;
    }

    /// Whether the origin itself has ended what it sends.
    pub(crate) fn origin_finished(&self) -> bool {
        self.origin_end.has_come()
    }

    pub(crate) fn state(&self) -> FlowState {
        *self.state.borrow()
    }

    /// Whether it carried a request before the one under way.
    pub(crate) fn is_reused(&self) -> bool {
        self.requests > 0
    }

    /// How many requests were sent over it.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    pub(crate) fn is_usable(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(crate) fn key(&self) -> &PoolKey {
        &self.key
    }

    fn reset(&self, code: ResetCode) {
        let agent: &AgentKey = &self.key.agent;
        if let Some(tunnel) = self.hub.router().tunnel_of(agent) {
            // A driver that has too much to do finds the pipe closed in a moment.
            tunnel.close_flow(self.flow_ref.clone(), code, "");
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if self.busy {
            self.reset(ResetCode::ClientReset);
        }
    }
}
