//! An honest hub, an honest agent, and a network that does its worst.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nowconnect_protocol::{
    AgentEnd, AgentEvent, CloseCode, DetachedFlows, Epoch, FlowCause, FlowEvent, FlowRef,
    FlowSummary, FlowTerms, HubEnd, HubEvent, OpenRequest, ResetCode, ResumeToken, Tunnel,
    TunnelConfig, Welcome, WindowPool,
};

use crate::choices::Choices;
use crate::local::{self, Socket, Sockets};

/// Flows of one run.
const MAX_FLOWS: u64 = 12;

/// Most that one write or read of a local socket moves, in bytes.
const MAX_STEP_BYTES: usize = 200_000;

/// Bytes that one run writes into one direction of a flow.
const MAX_WRITTEN_BYTES: u64 = 2_000_000;

/// Steps after the last choice within which everything must come to rest.
const SETTLE_STEPS: usize = 20_000;

/// What a run did, for tests that want to know that it did something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Flows that were opened.
    pub opened: u64,
    /// Flows of which every byte was handed over.
    pub finished: u64,
    /// Flows that were reset.
    pub reset: u64,
    /// Times that the transport was cut or replaced.
    pub cuts: u64,
    /// Bytes that clients and targets read.
    pub bytes: u64,
}

#[derive(Debug)]
struct Link {
    delay: Duration,
    messages: VecDeque<(Instant, Bytes)>,
}

struct World {
    now: Instant,
    config: TunnelConfig,
    hub: HubEnd,
    agent: AgentEnd,
    to_agent: Link,
    to_hub: Link,
    clients: Sockets,
    targets: Sockets,
    hub_left: Option<DetachedFlows>,
    agent_left: Option<DetachedFlows>,
    dialing: VecDeque<u32>,
    refuse_dials: bool,
    next_flow: u64,
    buf: BytesMut,
    outcome: Outcome,
}

/// Plays one game. Panics where a promise is broken.
///
/// # Panics
///
/// Where a byte is lost, doubled or out of order, a flow ends twice or never, a bound is
/// exceeded, or one honest end calls the other a liar.
pub fn run(choices: &mut Choices<'_>) -> Outcome {
    let mut world = World::new(choices);
    while let Some(choice) = choices.next() {
        world.step(choice, choices);
        world.check();
        world.reconnect_if_closed();
    }
    world.settle();
    world.outcome
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
    fn new(choices: &mut Choices<'_>) -> Self {
        let now = Instant::now();
        let delay = [
            Duration::ZERO,
            Duration::from_millis(1),
            Duration::from_millis(40),
        ][choices.pick(3)];
        let config = TunnelConfig {
            window_pool: WindowPool::new([0, 100_000, 64 << 20][choices.pick(3)]),
            hop_inflight: [200_000, 8 << 20][choices.pick(2)],
            ..TunnelConfig::default()
        };
        let link = || Link {
            delay,
            messages: VecDeque::new(),
        };
        Self {
            now,
            hub: HubEnd::new(now, config.clone()),
            agent: AgentEnd::new(now, local::hello(), config.clone()),
            config,
            to_agent: link(),
            to_hub: link(),
            clients: Sockets::default(),
            targets: Sockets::default(),
            hub_left: None,
            agent_left: None,
            dialing: VecDeque::new(),
            refuse_dials: false,
            next_flow: 0,
            buf: BytesMut::new(),
            outcome: Outcome::default(),
        }
    }

    fn step(&mut self, choice: u8, choices: &mut Choices<'_>) {
        match choice % 16 {
            0 | 1 => self.open(choices),
            2 | 3 => write(&mut self.clients, self.hub.tunnel_mut(), choices),
            4 | 5 => write(&mut self.targets, self.agent.tunnel_mut(), choices),
            6 => self.consume(choices),
            7 => end_writing(&mut self.clients, self.hub.tunnel_mut(), choices),
            8 => end_writing(&mut self.targets, self.agent.tunnel_mut(), choices),
            9 => {
                let now = self.now;
                let (sockets, tunnel) = match choices.pick(2) {
                    0 => (&mut self.clients, self.hub.tunnel_mut()),
                    _ => (&mut self.targets, self.agent.tunnel_mut()),
                };
                let stalled = choices.pick(2) == 0;
                if let Some(cid) = pick_cid(sockets, choices)
                    && let Some(socket) = sockets.by_cid(cid)
                {
                    socket.stalled = stalled;
                    if choices.pick(8) == 0 {
                        tunnel.reset(now, cid, ResetCode::OperatorClosed, "");
                    }
                }
            }
            10 => self.refuse_dials = choices.pick(4) == 0,
            11 if choices.pick(3) == 0 => self.reconnect(choices.pick(2)),
            11 => self.pump(),
            12 => self.advance(Duration::from_millis(5 * choices.pick(40) as u64)),
            _ => {
                self.advance(Duration::from_millis(1));
                self.pump();
            }
        }
        self.take_events();
    }

    /// Silence ends a tunnel; whoever runs it makes a new one.
    fn reconnect_if_closed(&mut self) {
        if self.hub.tunnel().closed().is_some() || self.agent.tunnel().closed().is_some() {
            self.reconnect(0);
        }
    }

    fn open(&mut self, choices: &mut Choices<'_>) {
        if self.next_flow >= MAX_FLOWS {
            return;
        }
        let number = self.next_flow + 1;
        let flow_ref = FlowRef {
            origin: local::replica(),
            boot: 1,
            number,
        };
        let request = OpenRequest {
            flow_ref: flow_ref.clone(),
            connector: local::connector(),
            kind: nowconnect_protocol::FlowKind::Tcp,
            client_address: None,
            trace_parent: None,
            metadata: Vec::new(),
            proxy_protocol: None,
            terms: FlowTerms {
                // Time passes in leaps here; idleness has tests of its own.
                idle_timeout: Duration::MAX,
                stall_timeout: Duration::MAX,
                ..FlowTerms::default()
            },
            early: Vec::new(),
        };
        if let Ok(cid) = self.hub.open(self.now, request) {
            self.next_flow = number;
            self.outcome.opened += 1;
            let mut socket = Socket::new((2 * number, 2 * number + 1));
            socket.written = 1_000 * choices.pick(3) as u64;
            self.clients.by_ref.insert(flow_ref.clone(), socket);
            self.clients.cids.insert(cid, flow_ref);
            self.hub.tunnel_mut().readable(cid);
        }
    }

    fn consume(&mut self, choices: &mut Choices<'_>) {
        let bytes = 1 + choices.pick(256) * MAX_STEP_BYTES / 256;
        if choices.pick(2) == 0 {
            consume(&mut self.clients, self.hub.tunnel_mut(), self.now, bytes);
        } else {
            consume(&mut self.targets, self.agent.tunnel_mut(), self.now, bytes);
        }
    }

    // ---- the network ----------------------------------------------------------------------

    fn advance(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        if self.hub.poll_deadline() <= now {
            self.hub.handle_timeout(now);
        }
        if self.agent.poll_deadline() <= now {
            self.agent.handle_timeout(now);
        }
        for (link, hub) in [(&mut self.to_hub, true), (&mut self.to_agent, false)] {
            while let Some((at, _)) = link.messages.front()
                && *at <= now
                && let Some((_, message)) = link.messages.pop_front()
            {
                if hub {
                    self.hub.handle_message(now, message);
                } else {
                    self.agent.handle_message(now, message);
                }
            }
        }
        self.take_events();
    }

    /// Each end may write one message.
    fn pump(&mut self) {
        let now = self.now;
        if let Some(message) = self
            .hub
            .poll_transmit(now, &mut self.clients, &mut self.buf)
        {
            let at = now + self.to_agent.delay;
            self.to_agent.messages.push_back((at, message));
        }
        if let Some(message) = self
            .agent
            .poll_transmit(now, &mut self.targets, &mut self.buf)
        {
            let at = now + self.to_hub.delay;
            self.to_hub.messages.push_back((at, message));
        }
        self.take_events();
    }

    /// The transport breaks, with whatever was on its way, and a new one is made.
    fn reconnect(&mut self, kept: usize) {
        self.outcome.cuts += 1;
        self.to_agent.messages.truncate(kept);
        self.to_hub.messages.clear();
        // What was about to arrive may still do so at one end.
        self.advance(Duration::from_millis(50));
        self.take_events();
        let hub_left = self.hub.tunnel_mut().detach();
        let agent_left = self.agent.tunnel_mut().detach();
        // A cut before HELLO_ACK leaves the flows where they were.
        if self.hub_left.is_none() || !hub_left.is_empty() {
            self.hub_left = Some(hub_left);
        }
        if self.agent_left.is_none() || !agent_left.is_empty() {
            self.agent_left = Some(agent_left);
        }
        self.clients.cids.clear();
        // The agent forgets what it was still dialling; the hub asks again.
        let dialing: Vec<u32> = self.dialing.drain(..).collect();
        for cid in dialing {
            if let Some(flow_ref) = self.targets.cids.remove(&cid) {
                self.targets.by_ref.remove(&flow_ref);
            }
        }
        self.targets.cids.clear();
        self.to_agent.messages.clear();
        self.hub = HubEnd::new(self.now, self.config.clone());
        self.agent = AgentEnd::new(self.now, local::hello(), self.config.clone());
    }

    // ---- what the machines report ---------------------------------------------------------

    fn take_events(&mut self) {
        while self.take_hub_event() || self.take_agent_event() || self.finish_dial() {}
    }

    fn take_hub_event(&mut self) -> bool {
        let Some(event) = self.hub.poll_event() else {
            return false;
        };
        match event {
            HubEvent::Hello(hello) => {
                let replica = local::replica();
                let welcome = Welcome {
                    session: 1,
                    replica: replica.clone(),
                    epoch: Epoch {
                        counter: 1,
                        replica,
                    },
                    accepted: hello.connectors,
                    refused: Vec::new(),
                    resume_token: ResumeToken([1; 32]),
                    resume: self.hub_left.take(),
                    token_expires_in: None,
                };
                self.hub.accept(self.now, welcome);
            }
            HubEvent::Renew(_) => {}
            HubEvent::Flow(event) => {
                let tunnel = self.hub.tunnel_mut();
                flow_event(
                    event,
                    &mut self.clients,
                    tunnel,
                    self.now,
                    &mut self.outcome,
                );
            }
        }
        true
    }

    fn take_agent_event(&mut self) -> bool {
        let Some(event) = self.agent.poll_event() else {
            return false;
        };
        match event {
            AgentEvent::Welcomed(ack) => {
                let left = self.agent_left.take().unwrap_or_default();
                if ack.resumed {
                    self.agent.resume(self.now, left);
                } else {
                    assert!(
                        left.is_empty(),
                        "the hub kept nothing of a session that the agent kept"
                    );
                }
            }
            AgentEvent::Open(open) => {
                let number = open.flow_ref.number;
                let socket = Socket::new((2 * number + 1, 2 * number));
                let before = self.targets.by_ref.insert(open.flow_ref.clone(), socket);
                assert!(before.is_none(), "{} was dialled twice", open.flow_ref);
                self.targets.cids.insert(open.cid, open.flow_ref);
                self.dialing.push_back(open.cid);
            }
            AgentEvent::Renewed(_) | AgentEvent::Drain(_) => {}
            AgentEvent::Flow(event) => {
                let tunnel = self.agent.tunnel_mut();
                let mut ignored = Outcome::default();
                flow_event(event, &mut self.targets, tunnel, self.now, &mut ignored);
            }
        }
        true
    }

    fn finish_dial(&mut self) -> bool {
        let Some(cid) = self.dialing.pop_front() else {
            return false;
        };
        if self.refuse_dials {
            self.agent
                .refuse(self.now, cid, ResetCode::ConnectFailed, "");
            // Nothing was dialled, so it may be asked for again.
            if let Some(flow_ref) = self.targets.cids.remove(&cid) {
                self.targets.by_ref.remove(&flow_ref);
            }
        } else {
            self.agent.dialed(self.now, cid, None);
        }
        true
    }

    // ---- what must hold -------------------------------------------------------------------

    fn check(&self) {
        let pool = &self.config.window_pool;
        assert!(
            pool.bytes_used() <= pool.bytes_max(),
            "the pool gave more than it has"
        );
        for (tunnel, sockets) in [
            (self.hub.tunnel(), &self.clients),
            (self.agent.tunnel(), &self.targets),
        ] {
            let most = self.config.hop_inflight + 131_072;
            assert!(
                tunnel.hop_inflight() <= most,
                "{} bytes on the way",
                tunnel.hop_inflight()
            );
            for (flow_ref, socket) in &sockets.by_ref {
                let window = u64::from(self.config.flow_window) + pool.bytes_max();
                assert!(
                    socket.waiting() <= window,
                    "{flow_ref} holds {}",
                    socket.waiting()
                );
                assert!(socket.ends <= 1, "{flow_ref} ended {} times", socket.ends);
            }
            if let Some(closed) = tunnel.closed() {
                assert_ne!(closed.code, CloseCode::ProtocolViolation, "{closed}");
            }
        }
    }

    /// Everybody writes out, reads on and ends; then nothing may be left.
    fn settle(&mut self) {
        for socket in self
            .clients
            .by_ref
            .values_mut()
            .chain(self.targets.by_ref.values_mut())
        {
            socket.stalled = false;
            socket.ended = true;
        }
        self.refuse_dials = false;
        for _ in 0..SETTLE_STEPS {
            for socket in self.targets.by_ref.values_mut() {
                socket.ended = true;
            }
            wake_all(&self.clients, self.hub.tunnel_mut());
            wake_all(&self.targets, self.agent.tunnel_mut());
            self.pump();
            self.advance(Duration::from_millis(5));
            consume(
                &mut self.clients,
                self.hub.tunnel_mut(),
                self.now,
                usize::MAX,
            );
            consume(
                &mut self.targets,
                self.agent.tunnel_mut(),
                self.now,
                usize::MAX,
            );
            self.take_events();
            self.check();
            self.reconnect_if_closed();
            if self.at_rest() {
                break;
            }
        }
        self.check_rest();
    }

    fn at_rest(&self) -> bool {
        self.hub_left.is_none()
            && self.hub.tunnel().flow_count() == 0
            && self.agent.tunnel().flow_count() == 0
            && self.clients.by_ref.values().all(|socket| socket.ends == 1)
            && self.targets.by_ref.values().all(|socket| socket.ends == 1)
    }

    fn check_rest(&mut self) {
        assert_eq!(
            self.hub.tunnel().flow_count(),
            0,
            "the hub keeps a flow for ever"
        );
        assert_eq!(
            self.agent.tunnel().flow_count(),
            0,
            "the agent keeps a flow for ever"
        );
        assert_eq!(self.hub.tunnel().hop_inflight(), 0, "the hub leaks credit");
        assert_eq!(
            self.agent.tunnel().hop_inflight(),
            0,
            "the agent leaks credit"
        );
        assert_eq!(self.config.window_pool.bytes_used(), 0, "the pool leaks");
        for (flow_ref, client) in &self.clients.by_ref {
            assert_eq!(
                client.ends, 1,
                "{flow_ref} ended {} times at the hub",
                client.ends
            );
            self.outcome.bytes += client.read;
            let Some(target) = self.targets.by_ref.get(flow_ref) else {
                assert!(!client.finished, "{flow_ref} finished without a target");
                continue;
            };
            self.outcome.bytes += target.read;
            // Only a flow that the other end had reset may be missing there after a cut.
            assert!(
                !client.lost || (!target.lost && !target.finished),
                "a cut lost {flow_ref}"
            );
            assert!(
                !target.lost || (!client.lost && !client.finished),
                "a cut lost {flow_ref}"
            );
            assert_eq!(
                target.ends, 1,
                "{flow_ref} ended {} times at the agent",
                target.ends
            );
            if client.finished {
                assert_eq!(
                    client.read, target.written,
                    "{flow_ref} lost bytes on the way to its client"
                );
            }
            if target.finished {
                assert_eq!(
                    target.read, client.written,
                    "{flow_ref} lost bytes on the way to its target"
                );
            }
        }
    }
}

fn pick_cid(sockets: &Sockets, choices: &mut Choices<'_>) -> Option<u32> {
    let at = choices.pick(sockets.cids.len().max(1));
    sockets.cids.keys().nth(at).copied()
}

fn write(sockets: &mut Sockets, tunnel: &mut Tunnel, choices: &mut Choices<'_>) {
    let Some(cid) = pick_cid(sockets, choices) else {
        return;
    };
    let size = [1, 100, 5_000, 60_000, MAX_STEP_BYTES as u64][choices.pick(5)];
    if let Some(socket) = sockets.by_cid(cid)
        && !socket.ended
        && socket.written < MAX_WRITTEN_BYTES
    {
        socket.written += size;
        tunnel.readable(cid);
    }
}

fn end_writing(sockets: &mut Sockets, tunnel: &mut Tunnel, choices: &mut Choices<'_>) {
    if let Some(cid) = pick_cid(sockets, choices)
        && let Some(socket) = sockets.by_cid(cid)
    {
        socket.ended = true;
        tunnel.readable(cid);
    }
}

fn wake_all(sockets: &Sockets, tunnel: &mut Tunnel) {
    for cid in sockets.cids.keys() {
        tunnel.readable(*cid);
    }
}

fn consume(sockets: &mut Sockets, tunnel: &mut Tunnel, now: Instant, bytes: usize) {
    let cids: Vec<u32> = sockets.cids.keys().copied().collect();
    for cid in cids {
        let Some(socket) = sockets.by_cid(cid) else {
            continue;
        };
        if socket.stalled {
            continue;
        }
        let consumed = socket.consume(bytes);
        let finish = socket.finish && socket.pending.is_empty() && !socket.finish_told;
        socket.finish_told |= finish;
        if consumed > 0 {
            tunnel.delivered(now, cid, consumed);
        }
        if finish {
            tunnel.finish_delivered(now, cid);
        }
    }
}

fn flow_event(
    event: FlowEvent,
    sockets: &mut Sockets,
    tunnel: &mut Tunnel,
    now: Instant,
    outcome: &mut Outcome,
) {
    match event {
        FlowEvent::Acknowledged(_) => {}
        FlowEvent::Data { cid, payload } => {
            if let Some(socket) = sockets.by_cid(cid) {
                socket.pending.push_back(payload);
            }
        }
        FlowEvent::Finish { cid } => {
            if let Some(socket) = sockets.by_cid(cid) {
                socket.finish = true;
                if socket.pending.is_empty() && !socket.finish_told {
                    socket.finish_told = true;
                    tunnel.finish_delivered(now, cid);
                }
            }
        }
        FlowEvent::Resumed { flow_ref, cid } => {
            sockets.cids.insert(cid, flow_ref);
            tunnel.readable(cid);
        }
        FlowEvent::NotStarted { cid, .. } => {
            outcome.reset += 1;
            if let Some(socket) = sockets.by_cid(cid) {
                socket.ends += 1;
            }
            sockets.cids.remove(&cid);
        }
        FlowEvent::Closed { cid, summary } => {
            closed(sockets, &summary, outcome);
            sockets.cids.remove(&cid);
        }
        FlowEvent::Lost { summary } => closed(sockets, &summary, outcome),
    }
}

fn closed(sockets: &mut Sockets, summary: &FlowSummary, outcome: &mut Outcome) {
    if let Some(socket) = sockets.by_ref.get_mut(&summary.flow_ref) {
        socket.ends += 1;
        match &summary.cause {
            FlowCause::Finished => {
                socket.finished = true;
                outcome.finished += 1;
                assert!(
                    socket.pending.is_empty(),
                    "{} finished with bytes in hand",
                    summary.flow_ref
                );
            }
            FlowCause::Reset { code, .. } => {
                outcome.reset += 1;
                assert_ne!(
                    *code,
                    ResetCode::QueueOverflow,
                    "an honest end broke its credit"
                );
                socket.lost = *code == ResetCode::ResumeLost;
            }
        }
    }
}
