//! What both ends of a tunnel share: its flows, their turns, their timers.

mod resume;
mod tombstones;
mod transmit;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;

use tombstones::Tombstones;

pub use resume::{DetachedFlow, DetachedFlows};
pub use transmit::{FlowSource, SourceRead};

use crate::error::{ProtocolViolation, TunnelClosed};
use crate::flow::{
    Flow, FlowCause, FlowPhase, FlowSummary, FlowTerms, ReceiveFault, RecvHalf, SendHalf, Side,
    WindowRules,
};
use crate::flow_ref::FlowRef;
use crate::frame::{CloseCode, Direction, Frame, OpenAck, ResetClass, ResetCode};
use crate::limits;
use crate::liveness::{Liveness, LivenessDue};
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
    hop_inflight: u64,
    sweep_at: Instant,
    suspect: bool,
    closed: Option<TunnelClosed>,
    goodbye_queued: bool,
    counters: TunnelCounters,
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
    pub(crate) fn agree(&mut self, max_data_payload: u32, peer_window: u32) {
        let payload = max_data_payload.clamp(
            limits::MIN_DATA_PAYLOAD_BYTES,
            limits::MAX_DATA_PAYLOAD_BYTES,
        );
        self.scheduler
            .set_max_payload(payload.min(self.config.max_data_payload));
        self.peer_window = u64::from(peer_window);
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

    /// Numbers of the live flows to one of `connectors`.
    #[must_use]
    pub fn cids_of_connectors(&self, connectors: &[ConnectorName]) -> Vec<u32> {
        let mut cids: Vec<u32> = self
            .flows
            .iter()
            .filter(|(_, flow)| !flow.closed && connectors.contains(&flow.connector))
            .map(|(cid, _)| *cid)
            .collect();
        cids.sort_unstable();
        cids
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

    // ---- frames about flows ---------------------------------------------------------------

    /// Takes a frame that either end may send. Gives back any other.
    pub(crate) fn handle_frame(
        &mut self,
        now: Instant,
        frame: Frame,
    ) -> Result<Option<Frame>, ProtocolViolation> {
        match frame {
            Frame::Data { cid, seq, payload } => self.handle_data(now, cid, seq, payload)?,
            Frame::Window {
                cid,
                received,
                limit,
            } => self.handle_window(now, cid, received, limit)?,
            Frame::Fin { cid, dir, offset } => self.handle_fin(now, cid, dir, offset)?,
            Frame::Rst { cid, code, message } => self.handle_rst(now, cid, code, message)?,
            Frame::Ping { nonce } => self.control.push_back(Frame::Pong { nonce }),
            Frame::Pong { nonce } => {
                self.liveness.pong(now, nonce);
            }
            Frame::Goodbye { code, message } => {
                self.close_remote(TunnelClosed::remote(code, message));
            }
            other @ (Frame::Hello(_)
            | Frame::HelloAck(_)
            | Frame::Renew(_)
            | Frame::RenewAck(_)
            | Frame::Drain { .. }
            | Frame::Open(_)
            | Frame::OpenAck(_)
            | Frame::Resume { .. }
            | Frame::Resumed { .. }
            | Frame::ResumeEnd
            | Frame::ResumeRst { .. }) => return Ok(Some(other)),
        }
        if self.control.len() > limits::MAX_CONTROL_QUEUE {
            return Err(ProtocolViolation::NotReading {
                frames: self.control.len(),
            });
        }
        Ok(None)
    }

    /// Frames for a flow that ended here may still be on their way; those for a number that was
    /// never given are a fault.
    fn check_given(&self, cid: u32) -> Result<(), ProtocolViolation> {
        if cid == 0 || cid > self.last_cid {
            return Err(ProtocolViolation::Cid {
                cid,
                why: "was never given to a flow",
            });
        }
        Ok(())
    }

    fn handle_data(
        &mut self,
        now: Instant,
        cid: u32,
        seq: u64,
        mut payload: Bytes,
    ) -> Result<(), ProtocolViolation> {
        let Some(flow) = self.flows.get_mut(&cid) else {
            return self.check_given(cid);
        };
        match flow.recv.data(seq, payload.len()) {
            Ok(known) => bytes::Buf::advance(&mut payload, known),
            Err(ReceiveFault::Overflow { .. }) => {
                self.counters.queue_overflows += 1;
                self.reset(
                    now,
                    cid,
                    ResetCode::QueueOverflow,
                    "more was sent than the window allows",
                );
                return Ok(());
            }
            Err(fault) => {
                return Err(ProtocolViolation::Offsets {
                    cid,
                    detail: fault.to_string(),
                });
            }
        }
        flow.last_progress = now;
        let over = flow.terms.max_bytes.is_some_and(|max| flow.bytes() > max);
        if !payload.is_empty() && !flow.closed {
            self.counters.bytes_received += payload.len() as u64;
            self.events.push_back(FlowEvent::Data { cid, payload });
        }
        if over {
            self.reset(now, cid, ResetCode::LimitBytes, "");
            return Ok(());
        }
        self.schedule_window(now, cid);
        Ok(())
    }

    fn handle_window(
        &mut self,
        now: Instant,
        cid: u32,
        received: u64,
        limit: u64,
    ) -> Result<(), ProtocolViolation> {
        let Some(flow) = self.flows.get_mut(&cid) else {
            return self.check_given(cid);
        };
        match flow.send.window(received, limit) {
            Ok(freed) => self.hop_inflight -= freed,
            Err(fault) => {
                return Err(ProtocolViolation::Offsets {
                    cid,
                    detail: fault.to_string(),
                });
            }
        }
        self.liveness.note_inflight(now, self.hop_inflight);
        self.enqueue(cid);
        self.forget_if_done(cid);
        Ok(())
    }

    fn handle_fin(
        &mut self,
        now: Instant,
        cid: u32,
        dir: Direction,
        offset: u64,
    ) -> Result<(), ProtocolViolation> {
        let incoming = match self.side {
            Side::Hub => Direction::A2c,
            Side::Agent => Direction::C2a,
        };
        if dir != incoming {
            return Err(ProtocolViolation::Cid {
                cid,
                why: "was ended in the direction that this end sends",
            });
        }
        let Some(flow) = self.flows.get_mut(&cid) else {
            return self.check_given(cid);
        };
        self.counters.fin_received += 1;
        if flow.recv.finished() {
            return Ok(());
        }
        if let Err(fault) = flow.recv.fin(offset) {
            return Err(ProtocolViolation::Offsets {
                cid,
                detail: fault.to_string(),
            });
        }
        flow.last_progress = now;
        self.events.push_back(FlowEvent::Finish { cid });
        self.schedule_window(now, cid);
        Ok(())
    }

    fn handle_rst(
        &mut self,
        now: Instant,
        cid: u32,
        code: ResetCode,
        message: String,
    ) -> Result<(), ProtocolViolation> {
        if !self.flows.contains_key(&cid) {
            return self.check_given(cid);
        }
        self.counters.rst_received += 1;
        let Some(mut flow) = self.remove(cid) else {
            return Ok(());
        };
        if flow.closed {
            return Ok(());
        }
        let retry =
            self.side == Side::Hub && !flow.acknowledged && code.class() == ResetClass::NotStarted;
        if retry {
            let early = flow.send.take_copies();
            self.events.push_back(FlowEvent::NotStarted {
                cid,
                code,
                message,
                early,
            });
            return Ok(());
        }
        let cause = FlowCause::Reset {
            code,
            local: false,
            message,
        };
        let summary = flow.summary(self.side, cid, cause, now);
        self.events.push_back(FlowEvent::Closed { cid, summary });
        Ok(())
    }

    // ---- time -----------------------------------------------------------------------------

    /// When [`Tunnel::handle_timeout`] must be called next.
    pub(crate) fn deadline(&self) -> Instant {
        let mut deadline = self.liveness.deadline();
        if !self.flows.is_empty() {
            deadline = deadline.min(self.sweep_at);
        }
        if let Some((at, _)) = self.answers.front() {
            deadline = deadline.min(*at);
        }
        deadline
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, cid)) = self.answers.front().copied()
            && at <= now
        {
            self.answers.pop_front();
            if let Some(flow) = self.flows.get_mut(&cid) {
                flow.answer_queued = false;
                if flow.recv.answer_due() && !flow.window_queued {
                    flow.window_queued = true;
                    self.windows.push_back(cid);
                }
            }
        }
        if now >= self.sweep_at {
            self.sweep(now);
        }
        while let Some(due) = self.liveness.due(now) {
            match due {
                LivenessDue::Ping(nonce) => self.control.push_back(Frame::Ping { nonce }),
                LivenessDue::Suspect => self.suspect = true,
                LivenessDue::Dead => {
                    self.close_remote(TunnelClosed::remote(
                        CloseCode::PingTimeout,
                        "the far end did not answer in time",
                    ));
                    return;
                }
            }
        }
    }

    /// Looks at the timers of all flows. They are coarse, so a look a second is enough and
    /// costs a flow nothing in between; it is more often only where a timeout is shorter.
    fn sweep(&mut self, now: Instant) {
        let mut interval = limits::SWEEP_INTERVAL;
        let mut due: Vec<(u32, SweepVerdict)> = Vec::new();
        for (cid, flow) in &self.flows {
            if flow.closed {
                continue;
            }
            let shortest = flow
                .terms
                .idle_timeout
                .min(flow.terms.stall_timeout)
                .min(flow.terms.linger);
            interval = interval.min(shortest / 4);
            if let Some(verdict) = sweep_flow(flow, now) {
                due.push((*cid, verdict));
            }
        }
        due.sort_unstable_by_key(|(cid, _)| *cid);
        self.sweep_at = now + interval.max(Duration::from_millis(5));
        for (cid, verdict) in due {
            match verdict {
                SweepVerdict::EndClientSide => self.end_idle(now, cid),
                SweepVerdict::Reset(code) => self.reset(now, cid, code, ""),
            }
        }
    }

    fn end_idle(&mut self, now: Instant, cid: u32) {
        match self.side {
            Side::Hub => {
                if let Some(flow) = self.flows.get_mut(&cid) {
                    flow.idle_since = Some(now);
                    flow.send.end();
                    flow.readable = false;
                    self.enqueue(cid);
                }
            }
            Side::Agent => self.reset(now, cid, ResetCode::Idle, ""),
        }
    }

    /// A PING whose PONG shows that the far end lives and how far away it is.
    pub fn ping(&mut self, now: Instant) {
        let nonce = self.liveness.ask(now);
        self.control.push_back(Frame::Ping { nonce });
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SweepVerdict {
    EndClientSide,
    Reset(ResetCode),
}

fn sweep_flow(flow: &Flow, now: Instant) -> Option<SweepVerdict> {
    let still = now.saturating_duration_since(flow.last_progress);
    if let Some(seconds) = flow.terms.max_seconds
        && now.saturating_duration_since(flow.opened_at) >= Duration::from_secs(u64::from(seconds))
    {
        return Some(SweepVerdict::Reset(ResetCode::LimitTime));
    }
    if let Some(since) = flow.idle_since {
        return (now.saturating_duration_since(since) >= flow.terms.linger)
            .then_some(SweepVerdict::Reset(ResetCode::Idle));
    }
    if flow.recv.pending() > 0 {
        return (still >= flow.terms.stall_timeout)
            .then_some(SweepVerdict::Reset(ResetCode::Stalled));
    }
    (!flow.waiting() && still >= flow.terms.idle_timeout).then_some(SweepVerdict::EndClientSide)
}
