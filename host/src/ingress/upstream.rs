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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::{Request, Response};
use hyper::body::Incoming;
use nowconnect_protocol::{FlowCause, FlowRef, FlowSummary, FlowTerms, OpenAck, ResetCode};
use nowconnect_tunnel::{FailedOpen, FlowIo, FlowObserver, FlowProgress, OpenFlow, Rejected};
use tokio::sync::watch;
use tracing::{Span, debug};

use super::body::RequestBody;
use super::pipe::{OriginEnd, pipe};
use super::pool::PoolKey;
use super::route::Route;
use super::sender::{SendError, Sender};
use crate::authorize::{Denial, UpstreamAsk, UpstreamPermit};
use crate::config::OriginHttp;
use crate::connector::Connector;
use crate::flow_table::FlowEntry;
use crate::hub::Hub;
use crate::limit::Slot;
use crate::recheck;
use crate::registry::AgentKey;
use crate::session::LiveTunnel;
use crate::telemetry::metrics::GaugeGuard;
use crate::telemetry::traces;

/// Bytes that wait between the HTTP client and the flow, each way. One turn of the tunnel's
/// driver takes as much at a time.
const PIPE_BYTES: usize = 64 * 1024;

/// Kept connections that are ended, one after the other, to make room for a new one.
const MADE_ROOM_MAX: usize = 3;

/// How long the end of one may take: its driver has to get to it.
const MADE_ROOM_WITHIN: Duration = Duration::from_secs(1);

/// The listener that flows of requests come in by, where they are listed.
const LISTENER: &str = "ingress";

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowState {
    /// The agent has not answered yet.
    Opening,
    /// The origin is connected, and TLS to it agreed on HTTP/2 or on nothing of the kind.
    Open { http2: bool },
    /// Nothing reached an origin.
    NotStarted(ResetCode),
    /// Both directions ended.
    Finished,
    /// It was reset.
    Reset(ResetCode),
}

impl FlowState {
    pub(super) fn is_end(self) -> bool {
        match self {
            Self::Opening | Self::Open { .. } => false,
            Self::NotStarted(_) | Self::Finished | Self::Reset(_) => true,
        }
    }
}

/// Why there is no connection to an origin.
#[derive(Debug)]
pub(crate) enum NoUpstream {
    /// Policies do not let the hub open it.
    Denied(Denial),
    /// A limit of the connector.
    Full,
    /// A rate of the connector.
    Rate,
    /// The agent did not take the flow, or did not reach the origin.
    NotStarted(ResetCode),
}

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
        let standing = tunnel.standing();
        let permit = hub
            .authorizer()
            .upstream_open(&UpstreamAsk {
                connector: &connector.name,
                identity: &standing.identity,
                agent: &tunnel.name,
                why: "http",
            })
            .map_err(NoUpstream::Denied)?;
        let (near, far, origin_end) = pipe(PIPE_BYTES);
        let flow_ref = hub.next_flow_ref();
        let (tell, mut state) = watch::channel(FlowState::Opening);
        let entry = flow_entry(hub, &flow_ref, connector, tunnel, client, &permit);
        hub.flows.insert(Arc::clone(&entry));
        let decided = (Arc::clone(&entry), permit.stamp());
        let open = traces::open_span(span, &tunnel.key);
        let trace_parent = traces::trace_parent(&open).map(|parent| parent.to_string());
        let observer = Observed {
            hub: Arc::clone(hub),
            connector: Arc::clone(connector),
            entry,
            tell,
            told: FlowProgress::default(),
            open,
            slot: Some(slot),
            _counted: hub.metrics.hub.flow(),
        };
        let flow = OpenFlow {
            flow_ref: flow_ref.clone(),
            connector: connector.key.name.clone(),
            client_address: client.map(|client| client.to_string()),
            proxy_protocol: route.proxy_protocol_out,
            metadata: Vec::new(),
            trace_parent,
            terms: FlowTerms {
                max_bytes: None,
                max_seconds: None,
                idle_timeout: key.idle_timeout,
                stall_timeout: route.times.stall_timeout,
                linger: route.times.linger,
            },
            io: FlowIo::Boxed(Box::new(far)),
            early: Vec::new(),
            observer: Box::new(observer),
        };
        tunnel.open(flow).map_err(|rejected| {
            NoUpstream::NotStarted(match rejected.reason {
                Rejected::Closed | Rejected::Draining => ResetCode::Draining,
                Rejected::Busy => ResetCode::AgentBusy,
            })
        })?;
        let (entry, stamp) = decided;
        recheck::flow_came(hub, &entry, stamp);
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
    async fn make_room(self) {
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

/// A place among the connector's flows, which those that only wait for a further request give up.
async fn made_room(hub: &Hub, connector: &Connector) -> Option<Slot> {
    for _ in 0..MADE_ROOM_MAX {
        let kept = hub.ingress.pool.take_oldest(&connector.key)?;
        kept.make_room().await;
        hub.metrics.http.evicted();
        if let Some(slot) = connector.flows.take() {
            return Some(slot);
        }
    }
    None
}

/// Waits for such a state. A flow that is gone has come to every state that it will.
pub(super) async fn until(
    mut state: watch::Receiver<FlowState>,
    wanted: impl Fn(FlowState) -> bool,
) {
    let _ = state.wait_for(|state| wanted(*state)).await;
}

/// Waits until the origin is connected; says whether TLS to it agreed on HTTP/2.
async fn agreed(state: &mut watch::Receiver<FlowState>) -> Result<bool, ResetCode> {
    // The sender goes with the flow, which tells how it ended before.
    let state = state
        .wait_for(|state| *state != FlowState::Opening)
        .await
        .map_or(FlowState::Reset(ResetCode::Internal), |state| *state);
    match state {
        FlowState::NotStarted(code) => Err(code),
        FlowState::Open { http2 } => Ok(http2),
        FlowState::Opening | FlowState::Finished | FlowState::Reset(_) => Ok(false),
    }
}

fn flow_entry(
    hub: &Hub,
    flow_ref: &FlowRef,
    connector: &Connector,
    tunnel: &LiveTunnel,
    client: Option<SocketAddr>,
    permit: &UpstreamPermit,
) -> Arc<FlowEntry> {
    Arc::new(FlowEntry {
        flow_ref: flow_ref.clone(),
        agent: tunnel.key.clone(),
        connector: connector.key.clone(),
        listener: Arc::from(LISTENER),
        client,
        decision: permit.decision(),
        question: Arc::clone(permit.question()),
        generation: AtomicU64::new(permit.generation()),
        asked: AtomicU64::new(hub.rounds.newest()),
        opened: Instant::now(),
        opened_at: SystemTime::now(),
        acknowledged: false.into(),
        is_condemned: false.into(),
        is_insisted: false.into(),
        bytes_c2a: AtomicU64::new(0),
        bytes_a2c: AtomicU64::new(0),
    })
}

/// What becomes of the flow: metrics and the connection's state.
#[derive(Debug)]
struct Observed {
    hub: Arc<Hub>,
    connector: Arc<Connector>,
    entry: Arc<FlowEntry>,
    tell: watch::Sender<FlowState>,
    told: FlowProgress,
    /// From OPEN to the agent's answer.
    open: Span,
    /// Its place among the connector's flows.
    slot: Option<Slot>,
    _counted: GaugeGuard,
}

impl FlowObserver for Observed {
    fn acknowledged(&mut self, ack: &OpenAck) {
        self.entry.acknowledged.store(true, Ordering::Relaxed);
        self.hub.metrics.hub.opened(self.entry.opened.elapsed());
        self.open = Span::none();
        let http2 = ack.alpn.as_deref() == Some("h2");
        let (connector, agent) = (&self.entry.connector, &self.entry.agent);
        self.hub.ingress.pool.learn(connector, agent, http2);
        self.tell.send_replace(FlowState::Open { http2 });
    }

    fn progress(&mut self, progress: &FlowProgress) {
        let told = std::mem::replace(&mut self.told, *progress);
        let entry = &self.entry;
        entry.bytes_c2a.store(progress.bytes_c2a, Ordering::Relaxed);
        entry.bytes_a2c.store(progress.bytes_a2c, Ordering::Relaxed);
        let metrics = &self.connector.metrics;
        metrics.bytes(
            progress.bytes_c2a.saturating_sub(told.bytes_c2a),
            progress.bytes_a2c.saturating_sub(told.bytes_a2c),
        );
        metrics.inbound_queue_changed(told.pending_bytes, progress.pending_bytes);
    }

    fn not_started(mut self: Box<Self>, failed: FailedOpen) {
        traces::failed(&self.open, failed.code.as_str());
        debug!(
            flow = %self.entry.flow_ref,
            agent_id = %self.entry.agent,
            code = failed.code.as_str(),
            message = %failed.message,
            "a flow to an origin did not start"
        );
        // Whoever hears of the end may want the place.
        self.slot = None;
        // Before the pipe is closed, which the HTTP client sees.
        self.tell.send_replace(FlowState::NotStarted(failed.code));
        drop(failed);
    }

    fn ended(mut self: Box<Self>, summary: FlowSummary) {
        self.hub.metrics.traffic.flow_ended(summary.cause.as_str());
        let metrics = &self.connector.metrics;
        metrics.bytes(
            summary.bytes_c2a.saturating_sub(self.told.bytes_c2a),
            summary.bytes_a2c.saturating_sub(self.told.bytes_a2c),
        );
        metrics.inbound_queue_changed(self.told.pending_bytes, 0);
        // Whoever hears of the end may want the place.
        self.slot = None;
        self.tell.send_replace(match &summary.cause {
            FlowCause::Finished => FlowState::Finished,
            FlowCause::Reset { code, .. } => FlowState::Reset(*code),
        });
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        // Whatever the way to the end, the table holds running flows only.
        self.hub.flows.remove(self.entry.flow_ref.number);
    }
}
