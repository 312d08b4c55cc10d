use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::epoch::Epoch;
use crate::error::{ProtocolViolation, TunnelClosed};
use crate::flow::{Flow, FlowKind, FlowTerms, Side};
use crate::flow_ref::FlowRef;
use crate::frame::{
    CloseCode, Features, Frame, FrameType, Hello, HelloAck, Open, ProxyProtocol, Refusal, Renew,
    RenewAck, ResetCode, ResumeToken, VERSION, decode,
};
use crate::limits;
use crate::name::{ConnectorName, ReplicaId};
use crate::tunnel::{DetachedFlows, FlowEvent, FlowSource, Tunnel, TunnelConfig, own_message};

/// What the hub must do or decide.
#[derive(Debug)]
pub enum HubEvent {
    /// The agent said HELLO: answer with [`HubEnd::accept`] or [`HubEnd::refuse`].
    Hello(Box<Hello>),
    /// The agent showed a new token or list: answer with [`HubEnd::renewed`].
    Renew(Box<Renew>),
    /// Something happened to a flow.
    Flow(FlowEvent),
}

/// An accepted HELLO.
#[derive(Debug)]
pub struct Welcome {
    /// Names the session at this hub.
    pub session: u64,
    /// This hub.
    pub replica: ReplicaId,
    /// The claim on the agent.
    pub epoch: Epoch,
    /// Connectors that may be reached.
    pub accepted: Vec<ConnectorName>,
    /// Connectors that may not.
    pub refused: Vec<Refusal>,
    /// For the tunnel that follows this one.
    pub resume_token: ResumeToken,
    /// Flows of the agent's earlier tunnel.
    pub resume: Option<DetachedFlows>,
    /// Time until the token runs out.
    pub token_expires_in: Option<Duration>,
}

/// A flow to be opened. Who may is decided before.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    /// The flow for its whole life.
    pub flow_ref: FlowRef,
    /// What the client wants to reach.
    pub connector: ConnectorName,
    /// What the flow carries.
    pub kind: FlowKind,
    /// The client's address, where the agent may know it.
    pub client_address: Option<String>,
    /// W3C `traceparent` of the flow's trace.
    pub trace_parent: Option<String>,
    /// Facts that policies and plugins attached.
    pub metadata: Vec<(String, String)>,
    /// The PROXY protocol header that the target expects before the first byte.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The bounds within which the flow was allowed.
    pub terms: FlowTerms,
    /// Bytes already read from the client.
    pub early: Vec<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The agent has until then to say HELLO.
    AwaitHello(Instant),
    AwaitVerdict,
    Established,
    /// No new flows.
    Draining,
}

/// The hub's end of a tunnel.
///
/// ```text
///   AwaitHello ──HELLO──► AwaitVerdict ──accept──► Established ──drain──► Draining
///       │ timeout             │ refuse                 │ GOODBYE, violation, silence
///       └─────────────────────┴────────────────────────┴──────────────► closed
/// ```
#[derive(Debug)]
pub struct HubEnd {
    tunnel: Tunnel,
    phase: Phase,
    events: VecDeque<HubEvent>,
    peer_features: Features,
    peer_payload: u32,
    peer_window: u32,
    /// The agent has until then to name its flows.
    resume_by: Option<Instant>,
}

/// Abilities of this build.
pub(crate) const FEATURES: Features = Features::RESUME
    .or(Features::DRAIN)
    .or(Features::PROXY_PROTOCOL)
    .or(Features::MESSAGE_BOUND)
    .or(Features::REWIND);

impl HubEnd {
    /// A tunnel whose transport is up; the agent speaks first.
    #[must_use]
    pub fn new(now: Instant, config: TunnelConfig) -> Self {
        let hello_by = now + config.hello_timeout;
        Self {
            tunnel: Tunnel::new(Side::Hub, now, config),
            phase: Phase::AwaitHello(hello_by),
            events: VecDeque::new(),
            peer_features: Features::default(),
            peer_payload: 0,
            peer_window: 0,
            resume_by: None,
        }
    }

    /// The flows of the tunnel.
    #[must_use]
    pub fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// The flows of the tunnel.
    pub fn tunnel_mut(&mut self) -> &mut Tunnel {
        &mut self.tunnel
    }

    /// Takes a message. A fault of the agent closes the tunnel.
    pub fn handle_message(&mut self, now: Instant, mut message: Bytes) {
        self.tunnel.liveness.heard(now);
        let (bytes, max) = (message.len(), self.longest_message());
        if bytes > max {
            let violation = ProtocolViolation::LongMessage { bytes, max };
            return self
                .tunnel
                .close(CloseCode::ProtocolViolation, &violation.to_string());
        }
        loop {
            if self.tunnel.closed().is_some() {
                return;
            }
            let step = match decode(&mut message) {
                Ok(Some(frame)) => self
                    .handle_frame(now, frame)
                    .and_then(|()| self.tunnel.check_read()),
                Ok(None) => return,
                Err(error) => Err(error.into()),
            };
            if let Err(violation) = step {
                self.tunnel
                    .close(CloseCode::ProtocolViolation, &violation.to_string());
            }
        }
    }

    /// Until HELLO_ACK nobody knows of a lower bound, and an agent of an earlier version never
    /// does: to hold it to one would break each tunnel that it fills.
    fn longest_message(&self) -> usize {
        let told = match self.phase {
            Phase::AwaitHello(_) | Phase::AwaitVerdict => false,
            Phase::Established | Phase::Draining => true,
        };
        if told && self.peer_features.contains(Features::MESSAGE_BOUND) {
            own_message(self.tunnel.config())
        } else {
            limits::MAX_MESSAGE_BYTES
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), ProtocolViolation> {
        let frame_type = frame.frame_type();
        let early = matches!(self.phase, Phase::AwaitHello(_) | Phase::AwaitVerdict);
        let allowed_early = matches!(
            frame_type,
            FrameType::Hello | FrameType::Ping | FrameType::Pong | FrameType::Goodbye
        );
        if early && !allowed_early {
            return Err(unexpected(frame_type, "HELLO was not answered yet"));
        }
        let Some(frame) = self.tunnel.handle_frame(now, frame)? else {
            return Ok(());
        };
        match frame {
            Frame::Hello(hello) => self.handle_hello(hello),
            Frame::Renew(renew) => {
                self.events.push_back(HubEvent::Renew(renew));
                Ok(())
            }
            Frame::OpenAck(ack) => {
                if ack.cid > self.tunnel.last_cid() {
                    return Err(ProtocolViolation::Cid {
                        cid: ack.cid,
                        why: "was never given to a flow",
                    });
                }
                if let Some(flow) = self.tunnel.flows.get_mut(&ack.cid)
                    && !flow.acknowledged
                {
                    flow.acknowledged = true;
                    flow.open = None;
                    self.tunnel.events.push_back(FlowEvent::Acknowledged(ack));
                }
                Ok(())
            }
            Frame::Resume { .. } | Frame::ResumeEnd if self.resume_by.is_none() => {
                Err(unexpected(frame_type, "no flows of an earlier tunnel wait"))
            }
            Frame::Resume {
                flow_ref,
                received,
                limit,
                sent,
            } => self.tunnel.handle_resume(&flow_ref, received, limit, sent),
            Frame::ResumeEnd => {
                self.resume_by = None;
                self.reopen(now);
                Ok(())
            }
            Frame::HelloAck(_)
            | Frame::RenewAck(_)
            | Frame::Goodbye { .. }
            | Frame::Drain { .. }
            | Frame::Ping { .. }
            | Frame::Pong { .. }
            | Frame::Open(_)
            | Frame::Data { .. }
            | Frame::Fin { .. }
            | Frame::Rst { .. }
            | Frame::Window { .. }
            | Frame::Resumed { .. }
            | Frame::ResumeRst { .. }
            | Frame::Rewind { .. } => Err(unexpected(frame_type, "an agent never sends it")),
        }
    }

    fn handle_hello(&mut self, hello: Box<Hello>) -> Result<(), ProtocolViolation> {
        if !matches!(self.phase, Phase::AwaitHello(_)) {
            return Err(unexpected(FrameType::Hello, "it was sent before"));
        }
        if !(hello.ver_min..=hello.ver_max).contains(&VERSION) {
            let message = format!(
                "this hub speaks version {VERSION}, the agent {} to {}",
                hello.ver_min, hello.ver_max
            );
            self.tunnel.close(CloseCode::VersionUnsupported, &message);
            return Ok(());
        }
        self.phase = Phase::AwaitVerdict;
        self.peer_features = hello.features;
        self.peer_payload = hello.max_data_payload;
        self.peer_window = hello.flow_window;
        self.events.push_back(HubEvent::Hello(hello));
        Ok(())
    }

    /// The agent joins.
    pub fn accept(&mut self, now: Instant, welcome: Welcome) {
        if self.phase != Phase::AwaitVerdict {
            return;
        }
        self.phase = Phase::Established;
        self.tunnel.agree(
            self.peer_payload,
            self.peer_window,
            limits::MAX_MESSAGE_BYTES,
        );
        let features = self.peer_features.and(FEATURES);
        let accepted: BTreeSet<ConnectorName> = welcome.accepted.iter().cloned().collect();
        let config = self.tunnel.config().clone();
        let resumed = welcome.resume.is_some() && features.contains(Features::RESUME);
        self.tunnel.push_control(Frame::HelloAck(Box::new(HelloAck {
            ver: VERSION,
            session: welcome.session,
            replica: welcome.replica,
            epoch: welcome.epoch,
            accepted: welcome.accepted,
            refused: welcome.refused,
            resume: welcome.resume_token,
            resumed,
            token_expires_in_ms: welcome.token_expires_in.map(millis),
            ping_interval_ms: short_millis(config.ping_interval),
            ping_timeout_ms: short_millis(config.ping_timeout),
            resume_grace_ms: short_millis(config.resume_grace),
            max_data_payload: config.max_data_payload,
            flow_window: config.flow_window,
            features,
            max_message: config.max_message,
        })));
        if let Some(flows) = welcome.resume {
            self.tunnel.attach(now, flows);
            // What the agent may no longer offer ends, as it does with a RENEW that shrinks.
            self.tunnel
                .reset_connectors(now, ResetCode::ScopeLost, |connector| {
                    accepted.contains(connector)
                });
            if resumed {
                self.resume_by = Some(now + config.hello_timeout);
            } else {
                self.tunnel.lose_awaiting(now);
            }
        }
        self.tunnel.ping(now);
    }

    /// The agent does not join.
    pub fn refuse(&mut self, code: CloseCode, message: &str) {
        self.tunnel.close(code, message);
    }

    /// Answers RENEW.
    pub fn renewed(&mut self, ack: RenewAck) {
        self.tunnel.push_control(Frame::RenewAck(Box::new(ack)));
    }

    /// Opens a flow.
    ///
    /// # Errors
    ///
    /// The request comes back with the reason where the tunnel takes no flow now.
    pub fn open(
        &mut self,
        now: Instant,
        request: OpenRequest,
    ) -> Result<u32, (Box<OpenRequest>, ResetCode)> {
        let refusal = match self.phase {
            Phase::Established
                if self.tunnel.flows.len() as u64 >= u64::from(self.tunnel.config().max_flows) =>
            {
                Some(ResetCode::AgentBusy)
            }
            Phase::Established if self.tunnel.closed().is_some() => Some(ResetCode::Draining),
            // Without the header the target would take the client for the agent.
            Phase::Established
                if request.proxy_protocol.is_some()
                    && !self.peer_features.contains(Features::PROXY_PROTOCOL) =>
            {
                Some(ResetCode::UnsupportedKind)
            }
            Phase::Established => None,
            Phase::AwaitHello(_) | Phase::AwaitVerdict | Phase::Draining => {
                Some(ResetCode::Draining)
            }
        };
        if let Some(code) = refusal {
            return Err((Box::new(request), code));
        }
        let Some(cid) = self.tunnel.next_cid() else {
            return Err((Box::new(request), ResetCode::Draining));
        };
        let mut flow = self.tunnel.new_flow(
            now,
            request.flow_ref.clone(),
            request.connector.clone(),
            request.terms,
        );
        flow.send.preload(request.early);
        flow.open = Some(Box::new(Open {
            cid,
            flow_ref: request.flow_ref,
            connector: request.connector,
            kind: request.kind,
            client_address: request.client_address,
            trace_parent: request.trace_parent,
            metadata: request.metadata,
            proxy_protocol: request.proxy_protocol,
        }));
        self.send_open(cid, flow);
        Ok(cid)
    }

    fn send_open(&mut self, cid: u32, mut flow: Flow) {
        if let Some(open) = &mut flow.open {
            open.cid = cid;
            self.tunnel.push_control(Frame::Open(open.clone()));
        }
        self.tunnel.insert(cid, flow);
    }

    /// Opens anew what the agent never heard of.
    fn reopen(&mut self, now: Instant) {
        for mut flow in self.tunnel.take_unnamed(now) {
            let Some(cid) = self.tunnel.next_cid() else {
                continue;
            };
            let limit = flow.send.limit();
            if flow.send.rewind(0, limit).is_ok() {
                flow.readable = !flow.send.ended();
                flow.resumes += 1;
                let flow_ref = flow.flow_ref.clone();
                self.send_open(cid, flow);
                self.tunnel
                    .events
                    .push_back(FlowEvent::Resumed { flow_ref, cid });
            }
        }
    }

    /// Asks the agent to open a replacement and finish here within `deadline`. New flows are
    /// refused from now on.
    pub fn drain(&mut self, deadline: Duration) {
        if self.phase == Phase::Established {
            self.phase = Phase::Draining;
            self.tunnel.push_control(Frame::Drain {
                deadline_ms: short_millis(deadline),
            });
        }
    }

    /// The transport ended or broke.
    pub fn handle_transport_lost(&mut self, detail: &str) {
        self.tunnel
            .close_remote(TunnelClosed::remote(CloseCode::TransportLost, detail));
    }

    /// What the hub must do or decide next.
    pub fn poll_event(&mut self) -> Option<HubEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        self.tunnel.events.pop_front().map(HubEvent::Flow)
    }

    /// The next message; see [`Tunnel::poll_transmit`].
    pub fn poll_transmit<S: FlowSource>(
        &mut self,
        now: Instant,
        source: &mut S,
        buf: &mut BytesMut,
    ) -> Option<Bytes> {
        if matches!(self.phase, Phase::Established | Phase::Draining)
            && self.tunnel.hop_inflight() > 0
            && let Some(nonce) = self.tunnel.liveness.measure(now)
        {
            self.tunnel.push_control(Frame::Ping { nonce });
        }
        self.tunnel.poll_transmit(now, source, buf)
    }

    /// When [`HubEnd::handle_timeout`] must be called next.
    #[must_use]
    pub fn poll_deadline(&self) -> Instant {
        match self.phase {
            Phase::AwaitHello(by) => by,
            Phase::AwaitVerdict | Phase::Established | Phase::Draining => {
                let deadline = self.tunnel.deadline();
                self.resume_by.map_or(deadline, |by| deadline.min(by))
            }
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::AwaitHello(by) => {
                if now >= by {
                    self.tunnel
                        .close(CloseCode::HelloTimeout, "no HELLO came in time");
                }
            }
            Phase::AwaitVerdict | Phase::Established | Phase::Draining => {
                self.tunnel.handle_timeout(now);
                if self.resume_by.is_some_and(|by| now >= by) {
                    self.tunnel.close(
                        CloseCode::ProtocolViolation,
                        "the agent did not name its flows in time",
                    );
                }
            }
        }
    }
}

fn unexpected(frame: FrameType, why: &'static str) -> ProtocolViolation {
    ProtocolViolation::Unexpected { frame, why }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn short_millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
