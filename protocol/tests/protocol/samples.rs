//! One of each frame, and strategies for any.

use bytes::Bytes;
use nowconnect_protocol::frame::{Refusal, RenewAck};
use nowconnect_protocol::{
    AgentId, CloseCode, ConnectorName, Direction, Epoch, Features, FlowKind, FlowRef, Frame, Hello,
    HelloAck, InstanceId, Open, OpenAck, ProxyProtocol, Renew, ReplicaId, ResetCode, ResumeToken,
    Role, TenantName,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub(crate) fn flow_ref() -> FlowRef {
    FlowRef {
        origin: ReplicaId::parse("hub-1").unwrap(),
        boot: 0x1122_3344,
        number: 7,
    }
}

fn connector(name: &str) -> ConnectorName {
    ConnectorName::parse(name).unwrap()
}

fn refusal() -> Refusal {
    Refusal {
        connector: connector("ssh"),
        code: "connector_not_in_scope".into(),
        message: "not in the token's scope".into(),
        decision: "d-1".into(),
    }
}

pub(crate) fn hello() -> Hello {
    Hello {
        ver_min: 1,
        ver_max: 1,
        agent_id: AgentId::parse("agent-1").unwrap(),
        tenant: Some(TenantName::default()),
        instance: InstanceId(0xa1),
        role: Role::Primary,
        connectors: vec![connector("ldap"), connector("ssh")],
        labels: vec![("site".into(), "berlin".into())],
        transports: vec!["wss".into()],
        features: Features::RESUME.or(Features::DRAIN),
        last_epoch: Some(Epoch {
            counter: 3,
            replica: ReplicaId::parse("hub-2").unwrap(),
        }),
        resume: Some(ResumeToken([0xcd; 32])),
        agent_version: "0.1.0".into(),
        max_data_payload: 131_072,
        flow_window: 32_768,
    }
}

pub(crate) fn hello_ack() -> HelloAck {
    HelloAck {
        ver: 1,
        session: 9,
        replica: ReplicaId::parse("hub-1").unwrap(),
        epoch: Epoch {
            counter: 4,
            replica: ReplicaId::parse("hub-1").unwrap(),
        },
        accepted: vec![connector("ldap")],
        refused: vec![refusal()],
        resume: ResumeToken([0xab; 32]),
        resumed: true,
        token_expires_in_ms: Some(60_000),
        ping_interval_ms: 20_000,
        ping_timeout_ms: 20_000,
        resume_grace_ms: 30_000,
        max_data_payload: 131_072,
        flow_window: 32_768,
        features: Features::RESUME,
        max_message: 262_144,
    }
}

/// One of each frame, with a name for it.
pub(crate) fn all() -> Vec<(&'static str, Frame)> {
    vec![
        ("hello", Frame::Hello(Box::new(hello()))),
        ("hello_ack", Frame::HelloAck(Box::new(hello_ack()))),
        (
            "renew",
            Frame::Renew(Box::new(Renew {
                token: Some("a.b.c".into()),
                connectors: Some(vec![connector("ldap")]),
            })),
        ),
        (
            "renew_ack",
            Frame::RenewAck(Box::new(RenewAck {
                ok: true,
                message: String::new(),
                accepted: vec![connector("ldap")],
                refused: vec![refusal()],
                token_expires_in_ms: None,
            })),
        ),
        (
            "goodbye",
            Frame::Goodbye {
                code: CloseCode::Shutdown,
                message: "bye".into(),
            },
        ),
        (
            "drain",
            Frame::Drain {
                deadline_ms: 60_000,
            },
        ),
        ("ping", Frame::Ping { nonce: 5 }),
        ("pong", Frame::Pong { nonce: 5 }),
        (
            "open",
            Frame::Open(Box::new(Open {
                cid: 1,
                flow_ref: flow_ref(),
                connector: connector("ldap"),
                kind: FlowKind::Tcp,
                client_address: Some("10.0.0.1:4711".into()),
                trace_parent: Some(
                    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
                ),
                metadata: vec![("geo".into(), "DE".into())],
                proxy_protocol: None,
            })),
        ),
        (
            "open_ack",
            Frame::OpenAck(OpenAck {
                cid: 1,
                alpn: Some("h2".into()),
            }),
        ),
        (
            "data",
            Frame::Data {
                cid: 1,
                seq: 256,
                payload: Bytes::from_static(b"hi"),
            },
        ),
        (
            "fin",
            Frame::Fin {
                cid: 1,
                dir: Direction::A2c,
                offset: 258,
            },
        ),
        (
            "rst",
            Frame::Rst {
                cid: 1,
                code: ResetCode::ConnectFailed,
                message: "refused".into(),
            },
        ),
        (
            "window",
            Frame::Window {
                cid: 1,
                received: 258,
                limit: 33_026,
            },
        ),
        (
            "resume",
            Frame::Resume {
                flow_ref: flow_ref(),
                received: 1,
                limit: 2,
                sent: 3,
            },
        ),
        (
            "resumed",
            Frame::Resumed {
                flow_ref: flow_ref(),
                cid: 4,
                received: 5,
                limit: 6,
            },
        ),
        ("resume_end", Frame::ResumeEnd),
        (
            "resume_rst",
            Frame::ResumeRst {
                flow_ref: flow_ref(),
                code: ResetCode::UnknownFlow,
            },
        ),
        (
            "hello_ack_of_small_messages",
            Frame::HelloAck(Box::new(HelloAck {
                max_message: 139_264,
                ..hello_ack()
            })),
        ),
        (
            "open_with_proxy_protocol",
            Frame::Open(Box::new(Open {
                cid: 2,
                flow_ref: flow_ref(),
                connector: connector("ldap"),
                kind: FlowKind::Tcp,
                client_address: Some("10.0.0.1:4711".into()),
                trace_parent: None,
                metadata: Vec::new(),
                proxy_protocol: Some(ProxyProtocol::V2),
            })),
        ),
        (
            "rewind",
            Frame::Rewind {
                cid: 1,
                received: 5,
                limit: 32_773,
            },
        ),
    ]
}

pub(crate) fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,64}"
}

fn any_connector() -> impl Strategy<Value = ConnectorName> {
    name().prop_map(|text| ConnectorName::parse(&text).unwrap())
}

pub(crate) fn any_replica() -> impl Strategy<Value = ReplicaId> {
    name().prop_map(|text| ReplicaId::parse(&text).unwrap())
}

pub(crate) fn any_flow_ref() -> impl Strategy<Value = FlowRef> {
    (any_replica(), any::<u64>(), any::<u64>()).prop_map(|(origin, boot, number)| FlowRef {
        origin,
        boot,
        number,
    })
}

pub(crate) fn any_epoch() -> impl Strategy<Value = Epoch> {
    (any::<u64>(), any_replica()).prop_map(|(counter, replica)| Epoch { counter, replica })
}

fn any_refusal() -> impl Strategy<Value = Refusal> {
    (any_connector(), ".{0,40}", ".{0,40}", ".{0,20}").prop_map(
        |(connector, code, message, decision)| Refusal {
            connector,
            code,
            message,
            decision,
        },
    )
}

fn any_token() -> impl Strategy<Value = ResumeToken> {
    any::<[u8; 32]>().prop_map(ResumeToken)
}

pub(crate) fn any_reset() -> impl Strategy<Value = ResetCode> {
    proptest::sample::select(ResetCode::ALL)
}

fn any_hello() -> impl Strategy<Value = Frame> {
    (
        (
            any::<u16>(),
            any::<u16>(),
            name(),
            option::of(name()),
            any::<u64>(),
            any::<bool>(),
        ),
        (
            vec(any_connector(), 0..5),
            vec((".{0,9}", ".{0,9}"), 0..4),
            vec(".{0,9}", 0..3),
        ),
        (
            any::<u64>(),
            option::of(any_epoch()),
            option::of(any_token()),
            ".{0,20}",
            any::<u32>(),
            any::<u32>(),
        ),
    )
        .prop_map(|(who, offer, rest)| {
            Frame::Hello(Box::new(Hello {
                ver_min: who.0,
                ver_max: who.1,
                agent_id: AgentId::parse(&who.2).unwrap(),
                tenant: who.3.map(|text| TenantName::parse(&text).unwrap()),
                instance: InstanceId(who.4),
                role: if who.5 { Role::Standby } else { Role::Primary },
                connectors: offer.0,
                labels: offer.1,
                transports: offer.2,
                features: Features(rest.0),
                last_epoch: rest.1,
                resume: rest.2,
                agent_version: rest.3,
                max_data_payload: rest.4,
                flow_window: rest.5,
            }))
        })
}

fn any_hello_ack() -> impl Strategy<Value = Frame> {
    (
        (any::<u16>(), any::<u64>(), any_replica(), any_epoch()),
        (
            vec(any_connector(), 0..4),
            vec(any_refusal(), 0..4),
            any_token(),
            any::<bool>(),
        ),
        (option::of(any::<u64>()), any::<[u32; 6]>(), any::<u64>()),
    )
        .prop_map(|(head, lists, rest)| {
            Frame::HelloAck(Box::new(HelloAck {
                ver: head.0,
                session: head.1,
                replica: head.2,
                epoch: head.3,
                accepted: lists.0,
                refused: lists.1,
                resume: lists.2,
                resumed: lists.3,
                token_expires_in_ms: rest.0,
                ping_interval_ms: rest.1[0],
                ping_timeout_ms: rest.1[1],
                resume_grace_ms: rest.1[2],
                max_data_payload: rest.1[3],
                flow_window: rest.1[4],
                features: Features(rest.2),
                max_message: rest.1[5],
            }))
        })
}

pub(crate) fn any_open() -> impl Strategy<Value = Frame> {
    (
        any::<u32>(),
        any_flow_ref(),
        any_connector(),
        any::<bool>(),
        option::of(".{0,30}"),
        option::of(".{0,60}"),
        vec((".{0,9}", ".{0,9}"), 0..5),
        option::of(proptest::sample::select(&[
            ProxyProtocol::V1,
            ProxyProtocol::V2,
        ])),
    )
        .prop_map(
            |(
                cid,
                flow_ref,
                connector,
                udp,
                client_address,
                trace_parent,
                metadata,
                proxy_protocol,
            )| {
                Frame::Open(Box::new(Open {
                    cid,
                    flow_ref,
                    connector,
                    kind: if udp { FlowKind::Udp } else { FlowKind::Tcp },
                    client_address,
                    trace_parent,
                    metadata,
                    proxy_protocol,
                }))
            },
        )
}

fn any_renewal() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (
            option::of(".{0,50}"),
            option::of(vec(any_connector(), 0..4))
        )
            .prop_map(|(token, connectors)| Frame::Renew(Box::new(Renew { token, connectors }))),
        (
            any::<bool>(),
            ".{0,30}",
            vec(any_connector(), 0..4),
            vec(any_refusal(), 0..3),
            option::of(any::<u64>())
        )
            .prop_map(|(ok, message, accepted, refused, token_expires_in_ms)| {
                Frame::RenewAck(Box::new(RenewAck {
                    ok,
                    message,
                    accepted,
                    refused,
                    token_expires_in_ms,
                }))
            }),
    ]
}

pub(crate) fn any_flow_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any::<u32>(), any::<u64>(), vec(any::<u8>(), 1..200)).prop_map(|(cid, seq, payload)| {
            Frame::Data {
                cid,
                seq,
                payload: payload.into(),
            }
        }),
        (any::<u32>(), any::<bool>(), any::<u64>()).prop_map(|(cid, a2c, offset)| Frame::Fin {
            cid,
            dir: if a2c { Direction::A2c } else { Direction::C2a },
            offset,
        }),
        (any::<u32>(), any_reset(), ".{0,30}").prop_map(|(cid, code, message)| Frame::Rst {
            cid,
            code,
            message
        }),
        (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(cid, received, limit)| {
            Frame::Window {
                cid,
                received,
                limit,
            }
        }),
        (any::<u32>(), option::of(".{0,9}"))
            .prop_map(|(cid, alpn)| Frame::OpenAck(OpenAck { cid, alpn })),
        (any::<u32>(), any::<[u64; 2]>()).prop_map(|(cid, at)| Frame::Rewind {
            cid,
            received: at[0],
            limit: at[1],
        }),
        (any_flow_ref(), any::<[u64; 3]>()).prop_map(|(flow_ref, at)| Frame::Resume {
            flow_ref,
            received: at[0],
            limit: at[1],
            sent: at[2],
        }),
        (any_flow_ref(), any::<u32>(), any::<[u64; 2]>()).prop_map(|(flow_ref, cid, at)| {
            Frame::Resumed {
                flow_ref,
                cid,
                received: at[0],
                limit: at[1],
            }
        }),
        (any_flow_ref(), any_reset())
            .prop_map(|(flow_ref, code)| Frame::ResumeRst { flow_ref, code }),
    ]
}

/// Any frame.
pub(crate) fn any_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        1 => any_hello(),
        1 => any_hello_ack(),
        1 => any_open(),
        1 => any_renewal(),
        8 => any_flow_frame(),
        1 => (proptest::sample::select(CloseCode::ALL), ".{0,30}")
            .prop_map(|(code, message)| Frame::Goodbye { code, message }),
        1 => any::<u32>().prop_map(|deadline_ms| Frame::Drain { deadline_ms }),
        1 => any::<u64>().prop_map(|nonce| Frame::Ping { nonce }),
        1 => any::<u64>().prop_map(|nonce| Frame::Pong { nonce }),
        1 => Just(Frame::ResumeEnd),
    ]
}
