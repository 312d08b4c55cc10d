//! Flows between two tunnels.
//!
//! Both ends know every offset, so a new tunnel goes on from the exact byte: the agent names
//! its flows, the hub gives each a number on the new tunnel, and both send again what the
//! other does not have.

use std::collections::BTreeMap;
use std::time::Instant;

use super::tombstones::Tombstones;
use super::{FlowEvent, Tunnel};
use crate::error::ProtocolViolation;
use crate::flow::{Flow, FlowCause, FlowSummary, Side};
use crate::flow_ref::FlowRef;
use crate::frame::{Frame, OpenAck, ResetCode};

/// A flow whose tunnel is gone.
#[derive(Debug)]
pub struct DetachedFlow {
    flow: Flow,
    side: Side,
}

impl DetachedFlow {
    /// The flow.
    #[must_use]
    pub fn flow_ref(&self) -> &FlowRef {
        &self.flow.flow_ref
    }

    /// Whether the local side is done with it and only answers of the far side were awaited.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.flow.closed
    }

    /// What the flow did, were it to end now for `code`.
    #[must_use]
    pub fn summary(&self, now: Instant, code: ResetCode) -> FlowSummary {
        let cause = FlowCause::Reset {
            code,
            local: true,
            message: String::new(),
        };
        self.flow.summary(self.side, 0, cause, now)
    }
}

/// The flows of a tunnel that is gone.
#[derive(Debug, Default)]
pub struct DetachedFlows {
    flows: Vec<DetachedFlow>,
    tombstones: Tombstones,
}

impl DetachedFlows {
    /// The flows.
    pub fn iter(&self) -> impl Iterator<Item = &DetachedFlow> {
        self.flows.iter()
    }

    /// Whether there is nothing that a later tunnel should know.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.tombstones.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }
}

impl Tunnel {
    /// Takes all flows out of the tunnel. An agent's flows whose target is not connected yet
    /// are left out: the hub opens them anew.
    pub fn detach(&mut self) -> DetachedFlows {
        let mut flows: BTreeMap<FlowRef, Flow> = std::mem::take(&mut self.awaiting);
        for (_, flow) in std::mem::take(&mut self.flows) {
            if self.side == Side::Hub || flow.acknowledged {
                flows.insert(flow.flow_ref.clone(), flow);
            }
        }
        self.by_ref.clear();
        self.hop_inflight = 0;
        let side = self.side;
        DetachedFlows {
            flows: flows
                .into_values()
                .map(|flow| DetachedFlow { flow, side })
                .collect(),
            tombstones: std::mem::take(&mut self.tombstones),
        }
    }

    /// Takes in the flows of an earlier tunnel; each waits to be named by the far end.
    pub(crate) fn attach(&mut self, now: Instant, flows: DetachedFlows) {
        self.tombstones.extend(flows.tombstones);
        for DetachedFlow { mut flow, side } in flows.flows {
            debug_assert_eq!(side, self.side, "a flow keeps its end");
            flow.queued = false;
            flow.window_queued = false;
            flow.answer_queued = false;
            flow.last_progress = now;
            flow.reader_waits_since = (flow.recv.pending() > 0).then_some(now);
            self.awaiting.insert(flow.flow_ref.clone(), flow);
        }
    }

    /// The agent names all flows that wait.
    pub(crate) fn write_resumes(&mut self) {
        for (flow_ref, flow) in &mut self.awaiting {
            let (received, limit) = flow.recv.restate();
            self.control.push_back(Frame::Resume {
                flow_ref: flow_ref.clone(),
                received,
                limit,
                sent: flow.send.next(),
            });
        }
        self.control.push_back(Frame::ResumeEnd);
    }

    fn activate(
        &mut self,
        cid: u32,
        mut flow: Flow,
        received: u64,
        limit: u64,
    ) -> Result<(), ProtocolViolation> {
        if let Err(fault) = flow.send.rewind(received, limit) {
            // It ends with the tunnel, as the others do.
            self.awaiting.insert(flow.flow_ref.clone(), flow);
            return Err(ProtocolViolation::Offsets {
                cid,
                detail: fault.to_string(),
            });
        }
        // An agent names only flows whose target it has reached, so this stands for an
        // OPEN_ACK that was lost with the earlier tunnel.
        let news = !std::mem::replace(&mut flow.acknowledged, true);
        flow.open = None;
        flow.resumes += 1;
        // The socket may have become readable while nobody listened.
        flow.readable = !flow.send.ended();
        self.counters.resumed += 1;
        let flow_ref = flow.flow_ref.clone();
        let closed = flow.closed;
        self.insert(cid, flow);
        if closed {
            self.forget_if_done(cid);
        } else {
            self.events.push_back(FlowEvent::Resumed { flow_ref, cid });
            if news {
                let ack = OpenAck { cid, alpn: None };
                self.events.push_back(FlowEvent::Acknowledged(ack));
            }
        }
        Ok(())
    }

    /// The agent named a flow: the hub goes on with it, or says that it does not have it.
    pub(crate) fn handle_resume(
        &mut self,
        flow_ref: &FlowRef,
        received: u64,
        limit: u64,
        sent: u64,
    ) -> Result<(), ProtocolViolation> {
        let Some(mut flow) = self.awaiting.remove(flow_ref) else {
            self.control.push_back(Frame::ResumeRst {
                flow_ref: flow_ref.clone(),
                code: ResetCode::UnknownFlow,
            });
            return Ok(());
        };
        let Some(cid) = self.next_cid() else {
            self.awaiting.insert(flow_ref.clone(), flow);
            return Err(ProtocolViolation::Cid {
                cid: u32::MAX,
                why: "was the last one of this tunnel",
            });
        };
        if sent < flow.recv.received() {
            let detail = format!(
                "the agent forgot bytes it had sent ({sent} of {})",
                flow.recv.received()
            );
            self.awaiting.insert(flow_ref.clone(), flow);
            return Err(ProtocolViolation::Offsets { cid, detail });
        }
        let (ours, grant) = flow.recv.restate();
        self.control.push_back(Frame::Resumed {
            flow_ref: flow_ref.clone(),
            cid,
            received: ours,
            limit: grant,
        });
        self.activate(cid, flow, received, limit)
    }

    /// The hub goes on with a flow that the agent named.
    pub(crate) fn handle_resumed(
        &mut self,
        flow_ref: &FlowRef,
        cid: u32,
        received: u64,
        limit: u64,
    ) -> Result<(), ProtocolViolation> {
        if cid <= self.last_cid() {
            return Err(ProtocolViolation::Cid {
                cid,
                why: "was given before",
            });
        }
        self.note_cid(cid);
        match self.awaiting.remove(flow_ref) {
            Some(flow) => self.activate(cid, flow, received, limit),
            None => {
                self.control.push_back(Frame::Rst {
                    cid,
                    code: ResetCode::UnknownFlow,
                    message: String::new(),
                });
                Ok(())
            }
        }
    }

    /// A relay lost bytes of a living flow: they are sent again.
    pub(crate) fn handle_rewind(
        &mut self,
        now: Instant,
        cid: u32,
        received: u64,
        limit: u64,
    ) -> Result<(), ProtocolViolation> {
        let Some(flow) = self.flows.get_mut(&cid) else {
            return self.check_given(cid);
        };
        self.hop_inflight -= flow.send.inflight();
        if let Err(fault) = flow.send.rewind(received, limit) {
            self.hop_inflight += flow.send.inflight();
            return Err(ProtocolViolation::Offsets {
                cid,
                detail: fault.to_string(),
            });
        }
        self.liveness.note_inflight(now, self.hop_inflight);
        self.enqueue(cid);
        self.forget_if_done(cid);
        Ok(())
    }

    /// The hub does not have a flow that the agent named.
    pub(crate) fn handle_resume_rst(&mut self, now: Instant, flow_ref: &FlowRef, code: ResetCode) {
        if let Some(flow) = self.awaiting.remove(flow_ref) {
            self.lose(now, &flow, code);
        }
    }

    /// Takes out the flows that were not named and were never acknowledged: they are to be
    /// opened anew. Of the others, those of which both sides have everything go on by
    /// themselves, and the rest are lost.
    pub(crate) fn take_unnamed(&mut self, now: Instant) -> Vec<Flow> {
        let mut anew = Vec::new();
        for (_, mut flow) in std::mem::take(&mut self.awaiting) {
            if !flow.acknowledged && !flow.closed {
                anew.push(flow);
            } else if flow.recv.finished() && flow.send.finish_unheard() {
                // An agent forgets a flow only when it has every byte and this end's answer to
                // its own. What is left is between this end and its client.
                flow.recv.tell();
                if let (Some(cid), false) = (self.next_cid(), flow.closed) {
                    let flow_ref = flow.flow_ref.clone();
                    self.insert(cid, flow);
                    self.events.push_back(FlowEvent::Resumed { flow_ref, cid });
                }
            } else {
                self.lose(now, &flow, ResetCode::ResumeLost);
            }
        }
        anew
    }

    /// Gives up flows of an earlier tunnel that the hub did not take.
    pub(crate) fn lose_awaiting(&mut self, now: Instant) {
        for (_, flow) in std::mem::take(&mut self.awaiting) {
            self.lose(now, &flow, ResetCode::ResumeLost);
        }
    }
}
