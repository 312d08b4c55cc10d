use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::epoch::Epoch;
use crate::error::{ProtocolViolation, TunnelClosed};
use crate::flow::{FlowKind, Side};
use crate::frame::{
    CloseCode, Frame, FrameType, Hello, HelloAck, Open, OpenAck, Renew, RenewAck, ResetCode,
    VERSION, decode,
};
use crate::name::ConnectorName;
use crate::tunnel::{DetachedFlows, FlowEvent, FlowSource, Tunnel, TunnelConfig};

/// What the agent must do.
#[derive(Debug)]
pub enum AgentEvent {
    /// The hub accepted HELLO. Where [`HelloAck::resumed`] is set, give the flows of the
    /// earlier tunnel to [`AgentEnd::resume`].
    Welcomed(Box<HelloAck>),
    /// The hub answered RENEW.
    Renewed(Box<RenewAck>),
    /// The hub is about to leave: a replacement should be opened.
    Drain(Duration),
    /// Reach the target, then [`AgentEnd::dialed`] or [`AgentEnd::refuse`].
    Open(Box<Open>),
    /// Something happened to a flow.
    Flow(FlowEvent),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The hub has until then to answer HELLO.
    AwaitAck(Instant),
    Established,
}

/// The agent's end of a tunnel.
///
/// ```text
///   AwaitAck ──HELLO_ACK──► Established
///      │ timeout, GOODBYE        │ GOODBYE, violation, silence
///      └─────────────────────────┴──────────► closed
/// ```
#[derive(Debug)]
pub struct AgentEnd {
    tunnel: Tunnel,
    phase: Phase,
    events: VecDeque<AgentEvent>,
    draining: bool,
    /// The highest that the agent has seen: nothing of a hub that is not above counts.
    last_epoch: Option<Epoch>,
}

impl AgentEnd {
    /// A tunnel whose transport is up; HELLO is the first message.
    ///
    /// `hello.ver_min`, `ver_max`, `features`, `max_data_payload` and `flow_window` are set from
    /// this build and `config`.
    #[must_use]
    pub fn new(now: Instant, mut hello: Hello, config: TunnelConfig) -> Self {
        hello.ver_min = VERSION;
        hello.ver_max = VERSION;
        hello.features = crate::hub_end::FEATURES;
        hello.max_data_payload = config.max_data_payload;
        hello.flow_window = config.flow_window;
        // The hub asks its policies, plugins and registry before it answers.
        let ack_by = now + config.hello_timeout * 2;
        let last_epoch = hello.last_epoch.clone();
        let mut tunnel = Tunnel::new(Side::Agent, now, config);
        tunnel.push_control(Frame::Hello(Box::new(hello)));
        Self {
            tunnel,
            phase: Phase::AwaitAck(ack_by),
            events: VecDeque::new(),
            draining: false,
            last_epoch,
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

    /// Whether the hub has accepted HELLO.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.phase == Phase::Established
    }

    /// Takes a message. A fault of the hub closes the tunnel.
    pub fn handle_message(&mut self, now: Instant, mut message: Bytes) {
        self.tunnel.liveness.heard(now);
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

    fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), ProtocolViolation> {
        let frame_type = frame.frame_type();
        let allowed_early = matches!(
            frame_type,
            FrameType::HelloAck | FrameType::Ping | FrameType::Pong | FrameType::Goodbye
        );
        if self.phase != Phase::Established && !allowed_early {
            return Err(unexpected(frame_type, "HELLO was not answered yet"));
        }
        let Some(frame) = self.tunnel.handle_frame(now, frame)? else {
            return Ok(());
        };
        match frame {
            Frame::HelloAck(ack) => self.handle_hello_ack(now, ack),
            Frame::RenewAck(ack) => {
                self.events.push_back(AgentEvent::Renewed(ack));
                Ok(())
            }
            Frame::Drain { deadline_ms } => {
                self.draining = true;
                let deadline = Duration::from_millis(u64::from(deadline_ms));
                self.events.push_back(AgentEvent::Drain(deadline));
                Ok(())
            }
            Frame::Open(open) => self.handle_open(now, open),
            Frame::Resumed {
                flow_ref,
                cid,
                received,
                limit,
            } => self.tunnel.handle_resumed(&flow_ref, cid, received, limit),
            Frame::ResumeRst { flow_ref, code } => {
                self.tunnel.handle_resume_rst(now, &flow_ref, code);
                Ok(())
            }
            Frame::Rewind {
                cid,
                received,
                limit,
            } => self.tunnel.handle_rewind(now, cid, received, limit),
            Frame::Hello(_)
            | Frame::Renew(_)
            | Frame::Goodbye { .. }
            | Frame::Ping { .. }
            | Frame::Pong { .. }
            | Frame::OpenAck(_)
            | Frame::Data { .. }
            | Frame::Fin { .. }
            | Frame::Rst { .. }
            | Frame::Window { .. }
            | Frame::Resume { .. }
            | Frame::ResumeEnd => Err(unexpected(frame_type, "a hub never sends it")),
        }
    }

    fn handle_hello_ack(
        &mut self,
        now: Instant,
        ack: Box<HelloAck>,
    ) -> Result<(), ProtocolViolation> {
        if self.phase == Phase::Established {
            return Err(unexpected(FrameType::HelloAck, "it was sent before"));
        }
        if ack.ver != VERSION {
            return Err(unexpected(
                FrameType::HelloAck,
                "it names a version that was not offered",
            ));
        }
        if self
            .last_epoch
            .as_ref()
            .is_some_and(|last| ack.epoch <= *last)
        {
            return Err(unexpected(
                FrameType::HelloAck,
                "its epoch is not above the last that HELLO named",
            ));
        }
        self.phase = Phase::Established;
        let max_message = usize::try_from(ack.max_message).unwrap_or(usize::MAX);
        self.tunnel
            .agree(ack.max_data_payload, ack.flow_window, max_message);
        self.tunnel.liveness.set_times(
            Duration::from_millis(u64::from(ack.ping_interval_ms.max(1))),
            Duration::from_millis(u64::from(ack.ping_timeout_ms.max(1))),
        );
        self.tunnel.ping(now);
        self.events.push_back(AgentEvent::Welcomed(ack));
        Ok(())
    }

    fn handle_open(&mut self, now: Instant, open: Box<Open>) -> Result<(), ProtocolViolation> {
        if open.cid <= self.tunnel.last_cid() {
            return Err(ProtocolViolation::Cid {
                cid: open.cid,
                why: "was given before",
            });
        }
        self.tunnel.note_cid(open.cid);
        let refusal = if open.kind != FlowKind::Tcp {
            Some((
                ResetCode::UnsupportedKind,
                "this agent carries byte streams only",
            ))
        } else if let Some(code) = self.tunnel.buried(&open.flow_ref) {
            Some((code, "the flow was reset here before"))
        } else if self.tunnel.knows(&open.flow_ref) {
            // One flow is dialled once, whatever the tunnels did.
            Some((
                ResetCode::ProtocolViolation,
                "the flow is already open here",
            ))
        } else if self.tunnel.flows.len() as u64 >= u64::from(self.tunnel.config().max_flows) {
            Some((
                ResetCode::AgentBusy,
                "the agent carries as many flows as it may",
            ))
        } else {
            None
        };
        if let Some((code, message)) = refusal {
            self.tunnel.push_control(Frame::Rst {
                cid: open.cid,
                code,
                message: message.to_owned(),
            });
            return Ok(());
        }
        let terms = self.tunnel.config().terms.clone();
        let flow = self
            .tunnel
            .new_flow(now, open.flow_ref.clone(), open.connector.clone(), terms);
        self.tunnel.insert(open.cid, flow);
        self.events.push_back(AgentEvent::Open(open));
        Ok(())
    }

    /// The target is connected. Returns whether the flow is still wanted.
    pub fn dialed(&mut self, now: Instant, cid: u32, alpn: Option<String>) -> bool {
        let Some(flow) = self.tunnel.flows.get_mut(&cid) else {
            return false;
        };
        flow.acknowledged = true;
        flow.last_progress = now;
        self.tunnel
            .push_control(Frame::OpenAck(OpenAck { cid, alpn }));
        self.tunnel.readable(cid);
        // What came while the target was being reached has not been answered yet.
        self.tunnel.schedule_window(now, cid);
        true
    }

    /// The flow's target has a bound on silence of its own, in place of that of the tunnel's
    /// terms. It goes with the flow to a later tunnel.
    pub fn bound_silence(&mut self, cid: u32, idle_timeout: Duration) {
        if let Some(flow) = self.tunnel.flows.get_mut(&cid) {
            flow.terms.idle_timeout = idle_timeout;
        }
    }

    /// The target could not be reached, or must not be.
    pub fn refuse(&mut self, now: Instant, cid: u32, code: ResetCode, message: &str) {
        self.tunnel.reset(now, cid, code, message);
    }

    /// Shows a new token, a new list of connectors, or both.
    pub fn renew(&mut self, token: Option<String>, connectors: Option<Vec<ConnectorName>>) {
        self.tunnel
            .push_control(Frame::Renew(Box::new(Renew { token, connectors })));
    }

    /// Goes on with the flows of an earlier tunnel, after a HELLO_ACK that said `resumed`.
    pub fn resume(&mut self, now: Instant, flows: DetachedFlows) {
        self.tunnel.attach(now, flows);
        self.tunnel.write_resumes();
    }

    /// Whether the hub asked for a replacement.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// The transport ended or broke.
    pub fn handle_transport_lost(&mut self, detail: &str) {
        self.tunnel
            .close_remote(TunnelClosed::remote(CloseCode::TransportLost, detail));
    }

    /// What the agent must do next.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        // Role events come first: an OPEN is known before its first bytes.
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        self.tunnel.events.pop_front().map(AgentEvent::Flow)
    }

    /// The next message; see [`Tunnel::poll_transmit`].
    pub fn poll_transmit<S: FlowSource>(
        &mut self,
        now: Instant,
        source: &mut S,
        buf: &mut BytesMut,
    ) -> Option<Bytes> {
        if self.phase == Phase::Established
            && self.tunnel.hop_inflight() > 0
            && let Some(nonce) = self.tunnel.liveness.measure(now)
        {
            self.tunnel.push_control(Frame::Ping { nonce });
        }
        self.tunnel.poll_transmit(now, source, buf)
    }

    /// When [`AgentEnd::handle_timeout`] must be called next.
    #[must_use]
    pub fn poll_deadline(&self) -> Instant {
        match self.phase {
            Phase::AwaitAck(by) => by,
            Phase::Established => self.tunnel.deadline(),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::AwaitAck(by) => {
                if now >= by {
                    self.tunnel.close(
                        CloseCode::HelloTimeout,
                        "the hub did not answer HELLO in time",
                    );
                }
            }
            Phase::Established => self.tunnel.handle_timeout(now),
        }
    }
}

fn unexpected(frame: FrameType, why: &'static str) -> ProtocolViolation {
    ProtocolViolation::Unexpected { frame, why }
}
