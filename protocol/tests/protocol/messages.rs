//! How frames are put together to messages.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use nowconnect_protocol::frame::decode;
use nowconnect_protocol::{
    AgentEnd, CloseCode, ConnectorName, Epoch, Features, FlowKind, FlowRef, FlowSource, FlowTerms,
    Frame, HubEnd, HubEvent, OpenRequest, ProxyProtocol, ReplicaId, ResetCode, ResumeToken,
    SourceRead, TunnelConfig, Welcome, limits,
};

use crate::samples;

#[expect(
    clippy::disallowed_methods,
    reason = "the machine's caller brings the time, and a test is one"
)]
fn clock() -> Instant {
    Instant::now()
}

struct Silent;

impl FlowSource for Silent {
    fn read(&mut self, _: u32, _: &mut BytesMut, _: usize) -> SourceRead {
        SourceRead::Blocked
    }
}

/// A hub's end that an agent with these features has joined.
fn joined(now: Instant, config: TunnelConfig, features: Features) -> HubEnd {
    let mut hub = HubEnd::new(now, config);
    let mut hello = samples::hello();
    hello.features = features;
    let mut message = BytesMut::new();
    nowconnect_protocol::frame::encode(&Frame::Hello(Box::new(hello)), &mut message);
    hub.handle_message(now, message.freeze());
    assert!(matches!(hub.poll_event(), Some(HubEvent::Hello(_))));
    let replica = ReplicaId::parse("hub-1").unwrap();
    hub.accept(
        now,
        Welcome {
            session: 1,
            replica: replica.clone(),
            epoch: Epoch {
                counter: 1,
                replica,
            },
            accepted: vec![ConnectorName::parse("ssh").unwrap()],
            refused: Vec::new(),
            resume_token: ResumeToken([1; 32]),
            resume: None,
            token_expires_in: None,
        },
    );
    hub
}

fn request(number: u64) -> OpenRequest {
    OpenRequest {
        flow_ref: FlowRef {
            origin: ReplicaId::parse("hub-1").unwrap(),
            boot: 1,
            number,
        },
        connector: ConnectorName::parse("ssh").unwrap(),
        kind: FlowKind::Tcp,
        client_address: None,
        trace_parent: None,
        metadata: Vec::new(),
        proxy_protocol: None,
        terms: FlowTerms::default(),
        early: Vec::new(),
    }
}

/// A hub that has lost the agent, or an old answer that is played again, brings an epoch that the
/// agent has left.
#[test]
fn an_agent_takes_no_epoch_that_is_not_above_its_last() {
    let epoch = |counter, replica: &str| Epoch {
        counter,
        replica: ReplicaId::parse(replica).unwrap(),
    };
    for (offered, is_taken) in [
        (epoch(8, "hub-a"), true),
        (epoch(7, "hub-c"), true),
        (epoch(7, "hub-b"), false),
        (epoch(7, "hub-a"), false),
        (epoch(1, "hub-c"), false),
    ] {
        let now = clock();
        let mut hello = samples::hello();
        hello.last_epoch = Some(epoch(7, "hub-b"));
        let mut agent = AgentEnd::new(now, hello, TunnelConfig::default());
        let mut ack = samples::hello_ack();
        ack.epoch = offered.clone();
        let mut message = BytesMut::new();
        nowconnect_protocol::frame::encode(&Frame::HelloAck(Box::new(ack)), &mut message);
        agent.handle_message(now, message.freeze());
        assert_eq!(agent.is_established(), is_taken, "{offered:?}");
        let closed = agent.tunnel().closed().map(|closed| closed.code);
        let expected = (!is_taken).then_some(CloseCode::ProtocolViolation);
        assert_eq!(closed, expected, "{offered:?}");
    }
}

/// More OPENs than one message holds, each with bytes of its client behind it. A flow's bytes come
/// after its OPEN, and no message is larger than what was agreed on.
#[test]
fn what_follows_an_open_stays_behind_it_however_long_the_queue() {
    for max_message in [limits::MIN_MESSAGE_BYTES, limits::MAX_MESSAGE_BYTES] {
        let now = clock();
        let config = TunnelConfig {
            max_message: u32::try_from(max_message).unwrap(),
            ..TunnelConfig::default()
        };
        let mut hub = joined(now, config, Features::default());
        let flows = 64;
        for number in 1..=flows {
            let request = OpenRequest {
                metadata: (0..8)
                    .map(|at| (format!("name-{at}"), "x".repeat(1_000)))
                    .collect(),
                early: vec![Bytes::from(vec![7; 9_000])],
                ..request(number)
            };
            hub.open(now, request).unwrap();
        }
        let (mut buf, mut opened, mut carried) =
            (BytesMut::new(), BTreeSet::new(), BTreeSet::new());
        let mut messages = 0;
        while let Some(mut message) = hub.poll_transmit(now, &mut Silent, &mut buf) {
            messages += 1;
            assert!(message.len() <= max_message, "{} bytes", message.len());
            while let Some(frame) = decode(&mut message).unwrap() {
                if let Frame::Open(open) = &frame {
                    assert!(opened.insert(open.cid));
                }
                if let Frame::Data { cid, .. } = frame {
                    assert!(opened.contains(&cid), "bytes of {cid} before its OPEN");
                    carried.insert(cid);
                }
            }
        }
        assert_eq!(opened.len(), 64);
        assert_eq!(carried, opened);
        assert!(messages > 2, "all fits in {messages} messages");
    }
}

/// An agent of an earlier version fills its messages as before, and must not lose its tunnel.
#[test]
fn only_an_agent_that_heeds_the_lower_bound_is_held_to_it() {
    let now = clock();
    let config = TunnelConfig {
        max_message: u32::try_from(limits::MIN_MESSAGE_BYTES).unwrap(),
        ..TunnelConfig::default()
    };
    // Frames of a kind that is skipped.
    let frame = [&[0x80, 0, 3, 0xfc][..], &[0; 1_020]].concat();
    let fits = Bytes::from(frame.repeat(limits::MIN_MESSAGE_BYTES / frame.len()));
    let longer = Bytes::from(frame.repeat(limits::MAX_MESSAGE_BYTES / frame.len()));
    assert_eq!(fits.len(), limits::MIN_MESSAGE_BYTES);

    let mut earlier = joined(now, config.clone(), Features::RESUME);
    earlier.handle_message(now, longer.clone());
    assert_eq!(earlier.tunnel().closed(), None);

    let mut heeding = joined(now, config, Features::MESSAGE_BOUND);
    heeding.handle_message(now, fits);
    assert_eq!(heeding.tunnel().closed(), None);
    heeding.handle_message(now, longer);
    let closed = heeding.tunnel().closed().unwrap();
    assert_eq!(closed.code, CloseCode::ProtocolViolation);
    assert!(closed.detail.contains("139264"), "{closed}");
}

/// Without the header its target would take the client for the agent.
#[test]
fn a_flow_with_a_proxy_header_goes_only_to_an_agent_that_writes_one() {
    let now = clock();
    let asks = OpenRequest {
        proxy_protocol: Some(ProxyProtocol::V2),
        ..request(1)
    };
    let mut plain = joined(now, TunnelConfig::default(), Features::RESUME);
    let (_back, code) = plain.open(now, asks.clone()).unwrap_err();
    assert_eq!(code, ResetCode::UnsupportedKind);
    assert!(plain.open(now, request(2)).is_ok());
    let mut able = joined(now, TunnelConfig::default(), Features::PROXY_PROTOCOL);
    assert!(able.open(now, asks).is_ok());
}
