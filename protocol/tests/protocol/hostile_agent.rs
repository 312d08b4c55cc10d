//! What a hub's end does with an agent that does not keep to the rules, or lost an answer.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nowconnect_protocol::frame::encode;
use nowconnect_protocol::{
    CloseCode, ConnectorName, Direction, Epoch, FlowCause, FlowEvent, FlowKind, FlowRef,
    FlowSource, FlowTerms, Frame, HubEnd, HubEvent, OpenAck, OpenRequest, ReplicaId, ResetCode,
    ResumeToken, SourceRead, TunnelConfig, Welcome, limits,
};

use crate::samples;

#[expect(
    clippy::disallowed_methods,
    reason = "the machine's caller brings the time, and a test is one"
)]
fn clock() -> Instant {
    Instant::now()
}

/// Local sockets that never have anything to say.
struct Silent;

impl FlowSource for Silent {
    fn read(&mut self, _: u32, _: &mut BytesMut, _: usize) -> SourceRead {
        SourceRead::Blocked
    }
}

/// A hub's end, and the words of an agent that says what the test wants.
struct Hub {
    now: Instant,
    end: HubEnd,
}

impl Hub {
    fn greeted() -> Self {
        let now = clock();
        let mut hub = Self {
            now,
            end: HubEnd::new(now, TunnelConfig::default()),
        };
        hub.hear(&[Frame::Hello(Box::new(samples::hello()))]);
        assert!(matches!(hub.end.poll_event(), Some(HubEvent::Hello(_))));
        hub
    }

    fn joined() -> Self {
        let mut hub = Self::greeted();
        hub.accept(None, &["ssh"]);
        hub
    }

    fn accept(&mut self, earlier: Option<&mut HubEnd>, accepted: &[&str]) {
        let replica = ReplicaId::parse("hub-1").unwrap();
        let welcome = Welcome {
            session: 1,
            replica: replica.clone(),
            epoch: Epoch {
                counter: 1,
                replica,
            },
            accepted: accepted.iter().map(|name| connector(name)).collect(),
            refused: Vec::new(),
            resume_token: ResumeToken([1; 32]),
            resume: earlier.map(|end| end.tunnel_mut().detach()),
            token_expires_in: None,
        };
        self.end.accept(self.now, welcome);
    }

    fn open(&mut self, number: u64, terms: FlowTerms) -> u32 {
        let request = OpenRequest {
            flow_ref: flow(number),
            connector: connector("ssh"),
            kind: FlowKind::Tcp,
            client_address: None,
            trace_parent: None,
            metadata: Vec::new(),
            proxy_protocol: None,
            terms,
            early: vec![Bytes::from_static(b"hello")],
        };
        self.end.open(self.now, request).unwrap()
    }

    fn hear(&mut self, frames: &[Frame]) {
        let mut message = BytesMut::new();
        for frame in frames {
            encode(frame, &mut message);
        }
        self.end.handle_message(self.now, message.freeze());
    }

    fn say(&mut self) {
        let mut buf = BytesMut::new();
        while self
            .end
            .poll_transmit(self.now, &mut Silent, &mut buf)
            .is_some()
        {}
    }

    fn flow_events(&mut self) -> Vec<FlowEvent> {
        std::iter::from_fn(|| self.end.poll_event())
            .filter_map(|event| match event {
                HubEvent::Flow(event) => Some(event),
                HubEvent::Hello(_) | HubEvent::Renew(_) => None,
            })
            .collect()
    }

    fn closed_for(&self) -> Option<CloseCode> {
        self.end.tunnel().closed().map(|closed| closed.code)
    }
}

fn connector(name: &str) -> ConnectorName {
    ConnectorName::parse(name).unwrap()
}

fn flow(number: u64) -> FlowRef {
    FlowRef {
        number,
        ..samples::flow_ref()
    }
}

fn resume(number: u64) -> Frame {
    Frame::Resume {
        flow_ref: flow(number),
        received: 0,
        limit: 32_768,
        sent: 0,
    }
}

fn acknowledge(cid: u32) -> Frame {
    Frame::OpenAck(OpenAck { cid, alpn: None })
}

fn lost_code(event: &FlowEvent) -> Option<ResetCode> {
    match event {
        FlowEvent::Lost { summary } | FlowEvent::Closed { summary, .. } => match summary.cause {
            FlowCause::Reset { code, .. } => Some(code),
            FlowCause::Finished => None,
        },
        FlowEvent::Acknowledged(_)
        | FlowEvent::Data { .. }
        | FlowEvent::Finish { .. }
        | FlowEvent::Resumed { .. }
        | FlowEvent::NotStarted { .. } => None,
    }
}

/// A hub whose agent left a flow behind, and the end that the agent comes back to.
fn after_a_break(acknowledged: bool) -> (Hub, Hub) {
    let mut before = Hub::joined();
    let cid = before.open(1, FlowTerms::default());
    if acknowledged {
        before.hear(&[acknowledge(cid)]);
    }
    before.say();
    before.flow_events();
    before.end.handle_transport_lost("cut");
    (before, Hub::greeted())
}

#[test]
fn flows_are_named_only_where_some_wait() {
    let mut hub = Hub::joined();
    hub.hear(&[resume(9)]);
    assert_eq!(hub.closed_for(), Some(CloseCode::ProtocolViolation));
}

#[test]
fn an_agent_that_asks_and_never_reads_is_cut_off() {
    let (mut before, mut hub) = after_a_break(true);
    hub.accept(Some(&mut before.end), &["ssh"]);
    let mut sent = 0_usize;
    while hub.closed_for().is_none() {
        let flood: Vec<Frame> = (0..1_000).map(|number| resume(1_000 + number)).collect();
        hub.hear(&flood);
        sent += flood.len();
        assert!(
            sent <= limits::MAX_CONTROL_QUEUE + 2_000,
            "nothing stops it"
        );
    }
    assert_eq!(hub.closed_for(), Some(CloseCode::ProtocolViolation));
}

#[test]
fn a_flow_that_waits_to_be_named_can_be_closed() {
    let (mut before, mut hub) = after_a_break(true);
    hub.accept(Some(&mut before.end), &["ssh"]);
    let closed = hub
        .end
        .tunnel_mut()
        .reset_ref(hub.now, &flow(1), ResetCode::PolicyDenied, "");
    assert!(closed);
    hub.hear(&[resume(1), Frame::ResumeEnd]);
    let events = hub.flow_events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(lost_code(&events[0]), Some(ResetCode::PolicyDenied));
    assert_eq!(hub.end.tunnel().flow_count(), 0);
    assert_eq!(hub.closed_for(), None);
}

#[test]
fn flows_of_a_connector_that_was_lost_do_not_go_on() {
    let (mut before, mut hub) = after_a_break(true);
    hub.accept(Some(&mut before.end), &["http"]);
    let events = hub.flow_events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(lost_code(&events[0]), Some(ResetCode::ScopeLost));
    hub.hear(&[resume(1), Frame::ResumeEnd]);
    assert_eq!(hub.end.tunnel().flow_count(), 0);
}

#[test]
fn naming_a_flow_stands_for_an_answer_that_was_lost() {
    let (mut before, mut hub) = after_a_break(false);
    hub.accept(Some(&mut before.end), &["ssh"]);
    hub.hear(&[resume(1), Frame::ResumeEnd]);
    let events = hub.flow_events();
    assert!(
        matches!(
            events.as_slice(),
            [FlowEvent::Resumed { cid: 1, .. }, FlowEvent::Acknowledged(ack)] if ack.cid == 1
        ),
        "{events:?}"
    );
}

#[test]
fn no_byte_moves_before_an_agent_has_acknowledged() {
    let early: [fn(u32) -> Frame; 3] = [
        |cid| Frame::Window {
            cid,
            received: 5,
            limit: 65_536,
        },
        |cid| Frame::Data {
            cid,
            seq: 0,
            payload: Bytes::from_static(b"from the wrong target"),
        },
        |cid| Frame::Fin {
            cid,
            dir: Direction::A2c,
            offset: 0,
        },
    ];
    for frame in early {
        let mut hub = Hub::joined();
        let cid = hub.open(1, FlowTerms::default());
        hub.say();
        hub.hear(&[frame(cid)]);
        assert_eq!(
            hub.closed_for(),
            Some(CloseCode::ProtocolViolation),
            "{:?}",
            frame(cid)
        );
    }
}

#[test]
fn a_frame_larger_than_agreed_is_refused() {
    let now = clock();
    let config = TunnelConfig {
        max_data_payload: limits::MIN_DATA_PAYLOAD_BYTES,
        ..TunnelConfig::default()
    };
    let mut hub = Hub {
        now,
        end: HubEnd::new(now, config),
    };
    hub.hear(&[Frame::Hello(Box::new(samples::hello()))]);
    hub.end.poll_event();
    hub.accept(None, &["ssh"]);
    let cid = hub.open(1, FlowTerms::default());
    let payload = Bytes::from(vec![0; limits::MIN_DATA_PAYLOAD_BYTES as usize + 1]);
    hub.hear(&[
        acknowledge(cid),
        Frame::Data {
            cid,
            seq: 0,
            payload,
        },
    ]);
    assert_eq!(hub.closed_for(), Some(CloseCode::ProtocolViolation));
}

#[test]
fn sending_does_not_hide_that_a_reader_stalls() {
    let mut hub = Hub::joined();
    let terms = FlowTerms {
        stall_timeout: Duration::from_secs(10),
        ..FlowTerms::default()
    };
    let cid = hub.open(1, terms);
    hub.hear(&[
        acknowledge(cid),
        Frame::Data {
            cid,
            seq: 0,
            payload: Bytes::from_static(b"unread"),
        },
    ]);
    hub.say();
    for second in 1..12 {
        hub.now += Duration::from_secs(1);
        // The target goes on: one more byte each second, none of which the client reads.
        hub.hear(&[Frame::Data {
            cid,
            seq: 5 + second,
            payload: Bytes::from_static(b"."),
        }]);
        hub.end.handle_timeout(hub.now);
    }
    let stalled = hub
        .flow_events()
        .iter()
        .any(|event| lost_code(event) == Some(ResetCode::Stalled));
    assert!(stalled);
}
