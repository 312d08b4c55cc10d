//! A flow that the hub itself opens to an origin.
//!
//! It has a permit of its own, stands in the table of flows, where policies reach it, and ends in
//! a pipe in memory. Whoever speaks over it learns from [`FlowState`] what became of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use nowconnect_protocol::{
    FlowCause, FlowRef, FlowSummary, FlowTerms, OpenAck, ProxyProtocol, ResetCode,
};
use nowconnect_tunnel::{FailedOpen, FlowIo, FlowObserver, FlowProgress, OpenFlow, Rejected};
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tracing::{Span, debug};

use super::pipe::{OriginEnd, pipe};
use crate::authorize::{Denial, UpstreamAsk, UpstreamPermit};
use crate::config::FlowTimes;
use crate::connector::Connector;
use crate::flow_table::FlowEntry;
use crate::hub::Hub;
use crate::limit::Slot;
use crate::recheck;
use crate::session::LiveTunnel;
use crate::telemetry::metrics::GaugeGuard;
use crate::telemetry::traces;

/// Bytes that wait between the HTTP client and the flow, each way. One turn of the tunnel's
/// driver takes as much at a time.
const PIPE_BYTES: usize = 64 * 1024;

/// Kept connections that are ended, one after the other, to make room for a new one.
const MADE_ROOM_MAX: usize = 3;

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

/// What a flow of the hub is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests of viewers.
    Http,
    /// To see whether the target answers.
    Health,
}

impl Purpose {
    /// As policies see it.
    fn why(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Health => "health",
        }
    }

    /// Where the flow came in, as it is listed.
    fn listener(self) -> &'static str {
        match self {
            Self::Http => "ingress",
            Self::Health => "health",
        }
    }
}

/// What is to be opened.
pub(super) struct FlowPlan<'a> {
    pub(super) connector: &'a Arc<Connector>,
    pub(super) tunnel: &'a Arc<LiveTunnel>,
    pub(super) purpose: Purpose,
    /// Who it is opened for alone.
    pub(super) client: Option<SocketAddr>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) times: FlowTimes,
    /// Its place among the connector's flows, where it counts there.
    pub(super) slot: Option<Slot>,
    /// What the flow belongs to in a trace.
    pub(super) span: &'a Span,
}

/// An open flow, with the hub's side of its pipe.
pub(super) struct OriginFlow {
    pub(super) near: DuplexStream,
    pub(super) state: watch::Receiver<FlowState>,
    pub(super) origin_end: OriginEnd,
    pub(super) flow_ref: FlowRef,
}

impl OriginFlow {
    /// Asks the policies and orders the flow. The origin is not waited for.
    ///
    /// # Errors
    /// Policies forbid it, or the tunnel does not take it.
    pub(super) fn open(hub: &Arc<Hub>, plan: FlowPlan<'_>) -> Result<Self, NoUpstream> {
        let FlowPlan {
            connector,
            tunnel,
            purpose,
            client,
            proxy_protocol,
            times,
            slot,
            span,
        } = plan;
        let standing = tunnel.standing();
        let permit = hub
            .authorizer()
            .upstream_open(&UpstreamAsk {
                connector: &connector.name,
                identity: &standing.identity,
                agent: &tunnel.name,
                why: purpose.why(),
            })
            .map_err(NoUpstream::Denied)?;
        let (near, far, origin_end) = pipe(PIPE_BYTES);
        let flow_ref = hub.next_flow_ref();
        let (tell, state) = watch::channel(FlowState::Opening);
        let from = (purpose.listener(), client);
        let entry = flow_entry(hub, &flow_ref, connector, tunnel, from, &permit);
        hub.flows.insert(Arc::clone(&entry));
        let open = traces::open_span(span, &tunnel.key);
        let trace_parent = traces::trace_parent(&open).map(|parent| parent.to_string());
        let observer = Observed {
            hub: Arc::clone(hub),
            connector: Arc::clone(connector),
            entry: Arc::clone(&entry),
            tell,
            told: FlowProgress::default(),
            open,
            slot,
            _counted: hub.metrics.hub.flow(),
        };
        let flow = OpenFlow {
            flow_ref: flow_ref.clone(),
            connector: connector.key.name.clone(),
            client_address: client.map(|client| client.to_string()),
            proxy_protocol,
            metadata: Vec::new(),
            trace_parent,
            terms: FlowTerms {
                max_bytes: None,
                max_seconds: None,
                idle_timeout: times.idle_timeout,
                stall_timeout: times.stall_timeout,
                linger: times.linger,
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
        recheck::flow_came(hub, &entry, permit.stamp());
        Ok(Self {
            near,
            state,
            origin_end,
            flow_ref,
        })
    }
}

/// A place among the connector's flows, which those that only wait for a further request give up.
pub(super) async fn made_room(hub: &Hub, connector: &Connector) -> Option<Slot> {
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
pub(super) async fn agreed(state: &mut watch::Receiver<FlowState>) -> Result<bool, ResetCode> {
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
    (listener, client): (&'static str, Option<SocketAddr>),
    permit: &UpstreamPermit,
) -> Arc<FlowEntry> {
    Arc::new(FlowEntry {
        flow_ref: flow_ref.clone(),
        agent: tunnel.key.clone(),
        connector: connector.key.clone(),
        listener: Arc::from(listener),
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
