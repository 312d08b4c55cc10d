//! One honest end, and a far end that says whatever it likes.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nowconnect_protocol::frame::decode;
use nowconnect_protocol::{
    AgentEnd, AgentEvent, Epoch, FlowRef, FlowSource, FlowTerms, HubEnd, HubEvent, OpenRequest,
    ReplicaId, ResetCode, ResumeToken, SourceRead, TunnelConfig, Welcome,
};

use crate::local;

/// Any bytes as a message.
pub fn decode_frame(data: &[u8]) {
    let mut message = Bytes::copy_from_slice(data);
    while let Ok(Some(_frame)) = decode(&mut message) {}
}

/// A socket that always has a little to say.
struct Chatter;

impl FlowSource for Chatter {
    fn read(&mut self, _cid: u32, out: &mut BytesMut, max: usize) -> SourceRead {
        let bytes = max.min(100);
        out.extend_from_slice(&[0x55; 100][..bytes]);
        SourceRead::Bytes(bytes)
    }
}

/// Cuts the input into messages: a length byte pair, then so many bytes.
fn messages(mut data: &[u8]) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let (head, rest) = data.split_at_checked(2)?;
        let length = (usize::from(head[0]) << 8 | usize::from(head[1])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        data = rest;
        Some(Bytes::copy_from_slice(message))
    })
}

#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
fn start() -> Instant {
    Instant::now()
}

/// A hub whose agent says anything.
pub fn hub_end(data: &[u8]) {
    let mut now = start();
    let mut hub = HubEnd::new(now, TunnelConfig::default());
    let mut buf = BytesMut::new();
    let replica = local::replica();
    let mut number = 0;
    for message in messages(data) {
        now += Duration::from_millis(30);
        hub.handle_message(now, message);
        while let Some(event) = hub.poll_event() {
            match event {
                HubEvent::Hello(hello) => hub.accept(now, welcome(&replica, hello.connectors)),
                HubEvent::Renew(_) | HubEvent::Flow(_) => {}
            }
        }
        number += 1;
        if let Ok(cid) = hub.open(now, open(&replica, number)) {
            hub.tunnel_mut().readable(cid);
        }
        hub.handle_timeout(now);
        let _message = hub.poll_transmit(now, &mut Chatter, &mut buf);
        assert!(hub.tunnel().hop_inflight() <= TunnelConfig::default().hop_inflight + 262_144);
    }
}

fn welcome(replica: &ReplicaId, accepted: Vec<nowconnect_protocol::ConnectorName>) -> Welcome {
    Welcome {
        session: 1,
        replica: replica.clone(),
        epoch: Epoch {
            counter: 1,
            replica: replica.clone(),
        },
        accepted,
        refused: Vec::new(),
        resume_token: ResumeToken([1; 32]),
        resume: None,
        token_expires_in: None,
    }
}

fn open(replica: &ReplicaId, number: u64) -> OpenRequest {
    OpenRequest {
        flow_ref: FlowRef {
            origin: replica.clone(),
            boot: 1,
            number,
        },
        connector: local::connector(),
        kind: nowconnect_protocol::FlowKind::Tcp,
        client_address: None,
        trace_parent: None,
        metadata: Vec::new(),
        proxy_protocol: None,
        terms: FlowTerms::default(),
        early: Vec::new(),
    }
}

/// An agent whose hub says anything.
pub fn agent_end(data: &[u8]) {
    let mut now = start();
    let mut agent = AgentEnd::new(now, local::hello(), TunnelConfig::default());
    let mut buf = BytesMut::new();
    for message in messages(data) {
        now += Duration::from_millis(30);
        agent.handle_message(now, message);
        while let Some(event) = agent.poll_event() {
            match event {
                AgentEvent::Welcomed(ack) if ack.resumed => agent.resume(now, Default::default()),
                AgentEvent::Open(open) if open.cid % 4 == 0 => {
                    agent.refuse(now, open.cid, ResetCode::ConnectFailed, "");
                }
                AgentEvent::Open(open) => {
                    agent.dialed(now, open.cid, None);
                }
                AgentEvent::Welcomed(_)
                | AgentEvent::Renewed(_)
                | AgentEvent::Drain(_)
                | AgentEvent::Flow(_) => {}
            }
        }
        agent.handle_timeout(now);
        let _message = agent.poll_transmit(now, &mut Chatter, &mut buf);
    }
}
