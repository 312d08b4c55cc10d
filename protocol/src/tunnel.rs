//! What both ends of a tunnel share: its flows, their turns, their timers.

mod receive;
mod resume;
mod timers;
mod tombstones;
mod transmit;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;

use tombstones::Tombstones;

pub use resume::{DetachedFlow, DetachedFlows};
pub use transmit::{FlowSource, SourceRead};

use crate::error::TunnelClosed;
use crate::flow::{
    Flow, FlowCause, FlowPhase, FlowSummary, FlowTerms, RecvHalf, SendHalf, Side, WindowRules,
};
use crate::flow_ref::FlowRef;
use crate::frame::{CloseCode, Frame, OpenAck, ResetCode};
use crate::limits;
use crate::liveness::Liveness;
use crate::name::ConnectorName;
use crate::scheduler::Scheduler;
use crate::window_pool::{PoolShare, WindowPool};

/// What an operator may set. The worst case of what a tunnel's flows hold in this process is
/// `2 × flows × flow_window + hop_inflight + window_pool` bytes, the pool being shared.
#[derive(Debug, Clone)]
pub struct TunnelConfig {
    /// Largest payload of a DATA frame that this end takes, in bytes, from
    /// [`limits::MIN_DATA_PAYLOAD_BYTES`] to [`limits::MAX_DATA_PAYLOAD_BYTES`].
    pub max_data_payload: u32,
    /// Largest WebSocket message that this end takes and sends, in bytes, from
    /// [`limits::MIN_MESSAGE_BYTES`] to [`limits::MAX_MESSAGE_BYTES`]. An agent's is the largest:
    /// HELLO does not tell of less. A hub takes the largest from an agent that does not name
    /// [`Features::MESSAGE_BOUND`](crate::Features::MESSAGE_BOUND).
    pub max_message: u32,
    /// Window that every flow is sure of in each direction, in bytes.
    pub flow_window: u32,
    /// Window up to which a flow grows on a long path, in bytes.
    pub flow_window_max: u32,
    /// Memory for what windows grow beyond the sure one.
    pub window_pool: WindowPool,
    /// Bytes written to the tunnel and not yet received by its far side.
    pub hop_inflight: u64,
    /// Flows at once.
    pub max_flows: u32,
    /// Time from the upgrade to a whole HELLO.
    pub hello_timeout: Duration,
    /// Time without traffic after which this end pings.
    pub ping_interval: Duration,
    /// Time without an answer after which the tunnel is given up.
    pub ping_timeout: Duration,
    /// Time for which the flows of a broken tunnel wait for a new one.
    pub resume_grace: Duration,
    /// Terms of flows that nothing narrower was said about.
    pub terms: FlowTerms,
}

impl Default for TunnelConfig {
    fn default() -> Self {
        Self {
            max_data_payload: limits::MAX_DATA_PAYLOAD_BYTES,
            max_message: limits::MAX_MESSAGE_BYTES as u32,
            flow_window: limits::FLOW_WINDOW_MIN_BYTES,
            flow_window_max: limits::FLOW_WINDOW_MAX_BYTES,
            window_pool: WindowPool::default(),
            hop_inflight: limits::HOP_INFLIGHT_BYTES,
            max_flows: limits::MAX_FLOWS_PER_TUNNEL,
            hello_timeout: limits::HELLO_TIMEOUT,
            ping_interval: limits::PING_INTERVAL,
            ping_timeout: limits::PING_TIMEOUT,
            resume_grace: limits::RESUME_GRACE,
            terms: FlowTerms::default(),
        }
    }
}

/// Frames counted since the tunnel began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunnelCounters {
    /// FIN sent.
    pub fin_sent: u64,
    /// FIN received.
    pub fin_received: u64,
    /// RST sent.
    pub rst_sent: u64,
    /// RST received.
    pub rst_received: u64,
    /// Bytes of DATA payload sent.
    pub bytes_sent: u64,
    /// Bytes of DATA payload received.
    pub bytes_received: u64,
    /// Flows that were reset because the far end broke its credit.
    pub queue_overflows: u64,
    /// Flows that went on here from an earlier tunnel.
    pub resumed: u64,
}

/// What happened to a flow.
#[derive(Debug)]
pub enum FlowEvent {
    /// The target is connected.
    Acknowledged(OpenAck),
    /// Bytes for the local socket, in order. Report them with [`Tunnel::delivered`].
    Data {
        /// The flow.
        cid: u32,
        /// The bytes.
        payload: Bytes,
    },
    /// After the bytes before it, end the local socket's writing side. Report it with
    /// [`Tunnel::finish_delivered`].
    Finish {
        /// The flow.
        cid: u32,
    },
    /// The flow goes on here from an earlier tunnel.
    Resumed {
        /// The flow.
        flow_ref: FlowRef,
        /// Its number here.
        cid: u32,
    },
    /// The flow ended before anything reached a target and may be tried on another agent.
    NotStarted {
        /// The flow.
        cid: u32,
        /// Why.
        code: ResetCode,
        /// Why, in words.
        message: String,
        /// What was read from the local socket.
        early: Vec<Bytes>,
    },
    /// The flow ended; the local socket can go.
    Closed {
        /// The flow.
        cid: u32,
        /// What it did.
        summary: FlowSummary,
    },
    /// A flow of an earlier tunnel ended without going on here.
    Lost {
        /// What it did.
        summary: FlowSummary,
    },
}

/// The flows of one tunnel and what carries them. [`HubEnd`](crate::HubEnd) and
/// [`AgentEnd`](crate::AgentEnd) add who may say what.
#[derive(Debug)]
pub struct Tunnel {
    side: Side,
    config: TunnelConfig,
    pub(crate) flows: FxHashMap<u32, Flow>,
    by_ref: FxHashMap<FlowRef, u32>,
    /// Flows of an earlier tunnel that wait for RESUME or RESUMED.
    awaiting: BTreeMap<FlowRef, Flow>,
    /// Flows that this agent reset after it had reached their target.
    tombstones: Tombstones,
    /// The highest number given to a flow on this tunnel.
    last_cid: u32,
    control: VecDeque<Frame>,
    ready: VecDeque<u32>,
    windows: VecDeque<u32>,
    answers: VecDeque<(Instant, u32)>,
    /// Payload ranges of the message being written.
    sealed: Vec<(u32, std::ops::Range<usize>)>,
    pub(crate) events: VecDeque<FlowEvent>,
    scheduler: Scheduler,
    pub(crate) liveness: Liveness,
    /// What the far end lets a new flow send before any WINDOW.
    peer_window: u64,
    /// Largest payload of a DATA frame, in bytes.
    agreed_payload: u32,
    /// Largest message that may be sent, in bytes.
    agreed_message: usize,
    hop_inflight: u64,
    sweep_at: Instant,
    suspect: bool,
    closed: Option<TunnelClosed>,
    goodbye_queued: bool,
    counters: TunnelCounters,
}

/// The bound of this end alone.
pub(crate) fn own_message(config: &TunnelConfig) -> usize {
    usize::try_from(config.max_message)
        .unwrap_or(usize::MAX)
        .clamp(limits::MIN_MESSAGE_BYTES, limits::MAX_MESSAGE_BYTES)
}

impl Tunnel {
    pub(crate) fn new(side: Side, now: Instant, config: TunnelConfig) -> Self {
        Self {
            side,
            flows: FxHashMap::default(),
            by_ref: FxHashMap::default(),
            awaiting: BTreeMap::new(),
            tombstones: Tombstones::default(),
            last_cid: 0,
            control: VecDeque::new(),
            ready: VecDeque::new(),
            windows: VecDeque::new(),
            answers: VecDeque::new(),
            sealed: Vec::new(),
            events: VecDeque::new(),
            scheduler: Scheduler::new(config.max_data_payload),
            liveness: Liveness::new(now, config.ping_interval, config.ping_timeout),
            peer_window: u64::from(limits::FLOW_WINDOW_MIN_BYTES),
            agreed_payload: config.max_data_payload,
            agreed_message: own_message(&config),
            hop_inflight: 0,
            sweep_at: now + limits::SWEEP_INTERVAL,
            suspect: false,
            closed: None,
            goodbye_queued: false,
            counters: TunnelCounters::default(),
            config,
        }
    }

    pub(crate) fn config(&self) -> &TunnelConfig {
        &self.config
    }

    /// Takes over what HELLO and HELLO_ACK agreed on.
    pub(crate) fn agree(&mut self, max_data_payload: u32, peer_window: u32, max_message: usize) {
        let payload = max_data_payload.clamp(
            limits::MIN_DATA_PAYLOAD_BYTES,
            limits::MAX_DATA_PAYLOAD_BYTES,
        );
        self.agreed_payload = payload.min(self.config.max_data_payload);
        self.scheduler.set_max_payload(self.agreed_payload);
        self.peer_window = u64::from(peer_window);
        self.agreed_message = max_message
            .min(own_message(&self.config))
            .max(limits::MIN_MESSAGE_BYTES);
    }

    /// Largest message that may be sent, in bytes.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.agreed_message
    }

    fn max_payload(&self) -> usize {
        usize::try_from(self.agreed_payload).unwrap_or(usize::MAX)
    }

    // ---- observing ------------------------------------------------------------------------

    /// Frames counted since the tunnel began.
    #[must_use]
    pub fn counters(&self) -> TunnelCounters {
        self.counters
    }

    /// Flows that are open, or whose last bytes are not yet acknowledged.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Flows whose local side is not done.
    #[must_use]
    pub fn live_flow_count(&self) -> usize {
        self.flows.values().filter(|flow| !flow.closed).count()
    }

    /// The flow's number on this tunnel.
    #[must_use]
    pub fn cid_of(&self, flow_ref: &FlowRef) -> Option<u32> {
        self.by_ref.get(flow_ref).copied()
    }

    /// All flows and their numbers on this tunnel.
    pub fn flow_refs(&self) -> impl Iterator<Item = (&FlowRef, u32)> {
        self.by_ref.iter().map(|(flow_ref, cid)| (flow_ref, *cid))
    }

    /// The flow that has a number on this tunnel.
    #[must_use]
    pub fn flow_ref_of(&self, cid: u32) -> Option<FlowRef> {
        self.flows.get(&cid).map(|flow| flow.flow_ref.clone())
    }

    /// Bytes that a flow has sent and received from this end.
    #[must_use]
    pub fn flow_bytes(&self, cid: u32) -> Option<(u64, u64)> {
        let flow = self.flows.get(&cid)?;
        Some((flow.send.next(), flow.recv.received()))
    }

    /// Whether no PONG is awaited.
    #[must_use]
    pub fn ping_answered(&self) -> bool {
        self.liveness.answered()
    }

    /// Where a flow is in its life; none where it is not known any more.
    #[must_use]
    pub fn phase(&self, cid: u32) -> Option<FlowPhase> {
        self.flows.get(&cid).map(|flow| flow.phase(self.side))
    }

    /// The last measured round trip.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.rtt_last()
    }

    /// Bytes written to the tunnel and not yet received by its far side.
    #[must_use]
    pub fn hop_inflight(&self) -> u64 {
        self.hop_inflight
    }

    /// Whether the tunnel is over, and why.
    #[must_use]
    pub fn closed(&self) -> Option<&TunnelClosed> {
        self.closed.as_ref()
    }

    /// Whether the far end has become doubtful since the last call.
    pub fn take_suspect(&mut self) -> bool {
        std::mem::take(&mut self.suspect)
    }

    // ---- the life of flows ----------------------------------------------------------------

    pub(crate) fn next_cid(&mut self) -> Option<u32> {
        self.last_cid = self.last_cid.checked_add(1)?;
        Some(self.last_cid)
    }

    pub(crate) fn last_cid(&self) -> u32 {
        self.last_cid
    }

    pub(crate) fn note_cid(&mut self, cid: u32) {
        self.last_cid = self.last_cid.max(cid);
    }

    pub(crate) fn new_flow(
        &self,
        now: Instant,
        flow_ref: FlowRef,
        connector: ConnectorName,
        terms: FlowTerms,
    ) -> Flow {
        let share = PoolShare::none(self.config.window_pool.clone());
        Flow {
            flow_ref,
            connector,
            terms,
            open: None,
            send: SendHalf::new(self.peer_window),
            recv: RecvHalf::new(u64::from(self.config.flow_window), share),
            acknowledged: false,
            finish_delivered: false,
            closed: false,
            readable: false,
            queued: false,
            window_queued: false,
            answer_queued: false,
            small_run: 0,
            opened_at: now,
            last_progress: now,
            reader_waits_since: None,
            idle_since: None,
            resumes: 0,
        }
    }

    pub(crate) fn insert(&mut self, cid: u32, flow: Flow) {
        self.by_ref.insert(flow.flow_ref.clone(), cid);
        self.flows.insert(cid, flow);
        self.enqueue(cid);
    }

    fn remove(&mut self, cid: u32) -> Option<Flow> {
        let flow = self.flows.remove(&cid)?;
        self.by_ref.remove(&flow.flow_ref);
        self.hop_inflight -= flow.send.inflight();
        Some(flow)
    }

    pub(crate) fn knows(&self, flow_ref: &FlowRef) -> bool {
        self.by_ref.contains_key(flow_ref) || self.awaiting.contains_key(flow_ref)
    }

    /// The local socket may have bytes to read.
    pub fn readable(&mut self, cid: u32) {
        if let Some(flow) = self.flows.get_mut(&cid)
            && !flow.send.ended()
        {
            flow.readable = true;
            self.enqueue(cid);
        }
    }

    /// Puts the flow on the list of those that may send, where it has something to send and
    /// may send it.
    fn enqueue(&mut self, cid: u32) {
        if let Some(flow) = self.flows.get_mut(&cid)
            && !flow.queued
        {
            let fresh = flow.readable && !flow.send.ended() && flow.send.credit() > 0;
            if fresh || flow.send.backlog() > 0 || flow.send.fin_due() {
                flow.queued = true;
                self.ready.push_back(cid);
            }
        }
    }

    /// `bytes` of those given in [`FlowEvent::Data`] are in the local socket.
    pub fn delivered(&mut self, now: Instant, cid: u32, bytes: usize) {
        let rules = WindowRules {
            rtt_min: self.liveness.rtt_min(),
            window_max: u64::from(self.config.flow_window_max),
        };
        if let Some(flow) = self.flows.get_mut(&cid) {
            flow.recv.deliver(bytes as u64);
            flow.recv.grow(now, rules);
            flow.last_progress = now;
            flow.reader_waits_since = (flow.recv.pending() > 0).then_some(now);
            self.schedule_window(now, cid);
        }
    }

    /// The local socket's writing side has ended as [`FlowEvent::Finish`] asked.
    pub fn finish_delivered(&mut self, now: Instant, cid: u32) {
        if let Some(flow) = self.flows.get_mut(&cid) {
            flow.finish_delivered = true;
            self.close_if_over(now, cid);
        }
    }

    pub(crate) fn schedule_window(&mut self, now: Instant, cid: u32) {
        let Some(flow) = self.flows.get_mut(&cid) else {
            return;
        };
        // Before OPEN_ACK the hub keeps what the client sent, for a try on another agent.
        if !flow.acknowledged {
            return;
        }
        if flow.recv.update_due() {
            if !flow.window_queued {
                flow.window_queued = true;
                self.windows.push_back(cid);
            }
        } else if flow.recv.answer_due() && !flow.answer_queued {
            flow.answer_queued = true;
            self.answers
                .push_back((now + limits::WINDOW_UPDATE_DELAY, cid));
        }
    }

    /// Ends a flow at once, both ways.
    pub fn reset(&mut self, now: Instant, cid: u32, code: ResetCode, message: &str) {
        let Some(flow) = self.flows.get(&cid) else {
            return;
        };
        let tell = !flow.closed;
        // A far end that has everything has forgotten the flow.
        if !(flow.send.done() && flow.recv.finished() && !flow.recv.answer_due()) {
            self.counters.rst_sent += 1;
            self.control.push_back(Frame::Rst {
                cid,
                code,
                message: message.to_owned(),
            });
        }
        let flow = self.remove(cid);
        if let Some(mut flow) = flow
            && tell
        {
            flow.send.abandon();
            self.bury(&flow, code);
            let cause = FlowCause::Reset {
                code,
                local: true,
                message: message.to_owned(),
            };
            let summary = flow.summary(self.side, cid, cause, now);
            self.events.push_back(FlowEvent::Closed { cid, summary });
        }
    }

    /// Ends a flow wherever it is: on this tunnel, or on its way here from an earlier one.
    /// Returns whether there was one. The far end is told `message` where the flow is here.
    pub fn reset_ref(
        &mut self,
        now: Instant,
        flow_ref: &FlowRef,
        code: ResetCode,
        message: &str,
    ) -> bool {
        if let Some(cid) = self.cid_of(flow_ref) {
            self.reset(now, cid, code, message);
            return true;
        }
        let Some(flow) = self.awaiting.remove(flow_ref) else {
            return false;
        };
        self.lose(now, &flow, code);
        true
    }

    /// Ends every flow whose connector does not pass, on this tunnel and on its way here.
    pub fn reset_connectors(
        &mut self,
        now: Instant,
        code: ResetCode,
        passes: impl Fn(&ConnectorName) -> bool,
    ) {
        let mut cids: Vec<u32> = self
            .flows
            .iter()
            .filter(|(_, flow)| !flow.closed && !passes(&flow.connector))
            .map(|(cid, _)| *cid)
            .collect();
        cids.sort_unstable();
        for cid in cids {
            self.reset(now, cid, code, "");
        }
        let (kept, lost): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.awaiting)
            .into_iter()
            .partition(|(_, flow)| flow.closed || passes(&flow.connector));
        self.awaiting = kept;
        for flow in lost.values() {
            self.lose(now, flow, code);
        }
    }

    /// Resets every live flow. For the end of a session.
    pub fn reset_all(&mut self, now: Instant, code: ResetCode) {
        let mut cids: Vec<u32> = self.flows.keys().copied().collect();
        cids.sort_unstable();
        for cid in cids {
            self.reset(now, cid, code, "");
        }
        for (_, flow) in std::mem::take(&mut self.awaiting) {
            self.lose(now, &flow, code);
        }
    }

    /// Remembers a flow whose reset the hub may never hear of.
    fn bury(&mut self, flow: &Flow, code: ResetCode) {
        if self.side == Side::Agent && flow.acknowledged {
            self.tombstones.put(flow.flow_ref.clone(), code);
        }
    }

    /// Why the flow was reset here, where its target had been reached.
    pub(crate) fn buried(&self, flow_ref: &FlowRef) -> Option<ResetCode> {
        self.tombstones.get(flow_ref)
    }

    fn lose(&mut self, now: Instant, flow: &Flow, code: ResetCode) {
        if flow.closed {
            return;
        }
        let cause = FlowCause::Reset {
            code,
            local: true,
            message: String::new(),
        };
        let summary = flow.summary(self.side, 0, cause, now);
        self.events.push_back(FlowEvent::Lost { summary });
    }

    fn close_if_over(&mut self, now: Instant, cid: u32) {
        let Some(flow) = self.flows.get_mut(&cid) else {
            return;
        };
        if !flow.closed && flow.both_ended() {
            flow.closed = true;
            let cause = match flow.idle_since {
                Some(_) => FlowCause::Reset {
                    code: ResetCode::Idle,
                    local: true,
                    message: String::new(),
                },
                None => FlowCause::Finished,
            };
            let summary = flow.summary(self.side, cid, cause, now);
            self.events.push_back(FlowEvent::Closed { cid, summary });
        }
        self.forget_if_done(cid);
    }

    /// A flow is forgotten once the far end has everything and knows that we have.
    fn forget_if_done(&mut self, cid: u32) {
        if let Some(flow) = self.flows.get(&cid)
            && flow.closed
            && flow.send.done()
            && !flow.recv.answer_due()
        {
            self.remove(cid);
        }
    }

    // ---- the end --------------------------------------------------------------------------

    pub(crate) fn push_control(&mut self, frame: Frame) {
        self.control.push_back(frame);
    }

    /// Ends the tunnel from this side: GOODBYE goes out as the last frame.
    pub fn close(&mut self, code: CloseCode, message: &str) {
        if self.goodbye_queued || self.closed.is_some() {
            return;
        }
        self.goodbye_queued = true;
        self.control.push_back(Frame::Goodbye {
            code,
            message: message.to_owned(),
        });
        self.closed = Some(TunnelClosed::local(code, message));
    }

    /// The far end or the transport ended it.
    pub(crate) fn close_remote(&mut self, closed: TunnelClosed) {
        if self.closed.is_none() {
            self.closed = Some(closed);
        }
    }
}
