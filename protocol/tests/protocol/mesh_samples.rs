//! One of each frame of a link, and strategies for any.

use bytes::Bytes;
use nowconnect_protocol::mesh::{AgentKey, Claim, MeshFeatures, MeshFrame, MeshHello, MeshProof};
use nowconnect_protocol::{
    AgentId, CloseCode, ConnectorName, Direction, Epoch, FlowKind, Frame, Open, OpenAck, ReplicaId,
    ResetCode, TenantName,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::samples::{
    any_epoch, any_flow_frame, any_flow_ref, any_open, any_replica, any_reset, flow_ref, name,
};

pub(crate) fn claim() -> Claim {
    Claim {
        agent: AgentKey {
            tenant: TenantName::default(),
            agent: AgentId::parse("agent-1").unwrap(),
        },
        epoch: Epoch {
            counter: 4,
            replica: ReplicaId::parse("hub-2").unwrap(),
        },
    }
}

fn hello() -> MeshHello {
    MeshHello {
        ver_min: 1,
        ver_max: 1,
        features: MeshFeatures::TLS_BOUND,
        replica: ReplicaId::parse("hub-1").unwrap(),
        boot: 0x1122_3344,
        nonce: [0xcd; 32],
        max_data_payload: 131_072,
        flow_window: 32_768,
        release: "0.1.0".into(),
    }
}

fn about_flow(frame: Frame) -> MeshFrame {
    MeshFrame::Flow { epoch: 4, frame }
}

/// One of each frame, with a name for it.
pub(crate) fn all() -> Vec<(&'static str, MeshFrame)> {
    let cid = 0x8000_0001;
    vec![
        ("m_hello", MeshFrame::Hello(Box::new(hello()))),
        (
            "m_proof",
            MeshFrame::Proof(Box::new(MeshProof {
                scheme: 0x0807,
                chain: vec![
                    Bytes::from_static(&[0x30, 0]),
                    Bytes::from_static(&[0x30, 1]),
                ],
                signature: Bytes::from_static(&[7; 8]),
            })),
        ),
        (
            "m_open",
            MeshFrame::Open {
                claim: claim(),
                open: Box::new(Open {
                    cid: 1,
                    flow_ref: flow_ref(),
                    connector: ConnectorName::parse("ldap").unwrap(),
                    kind: FlowKind::Tcp,
                    client_address: None,
                    trace_parent: None,
                    metadata: Vec::new(),
                    proxy_protocol: None,
                }),
            },
        ),
        (
            "m_open_ack",
            about_flow(Frame::OpenAck(OpenAck { cid, alpn: None })),
        ),
        (
            "m_data",
            about_flow(Frame::Data {
                cid: 1,
                seq: 256,
                payload: Bytes::from_static(b"hi"),
            }),
        ),
        (
            "m_fin",
            about_flow(Frame::Fin {
                cid,
                dir: Direction::A2c,
                offset: 258,
            }),
        ),
        (
            "m_rst",
            about_flow(Frame::Rst {
                cid,
                code: ResetCode::NotOwner,
                message: "moved".into(),
            }),
        ),
        (
            "m_window",
            about_flow(Frame::Window {
                cid,
                received: 258,
                limit: 33_026,
            }),
        ),
        (
            "m_credit",
            MeshFrame::Credit {
                epoch: 4,
                cid,
                received: 258,
                limit: 33_026,
            },
        ),
        (
            "m_resume",
            MeshFrame::Resume {
                claim: claim(),
                flow_ref: flow_ref(),
                received: 1,
                limit: 2,
                sent: 3,
            },
        ),
        (
            "m_resumed",
            MeshFrame::Resumed {
                claim: claim(),
                flow_ref: flow_ref(),
                cid: 4,
                received: 5,
                limit: 6,
                from: 7,
            },
        ),
        (
            "m_resume_rst",
            MeshFrame::ResumeRst {
                claim: claim(),
                flow_ref: flow_ref(),
                code: ResetCode::UnknownFlow,
            },
        ),
        ("m_resume_end", MeshFrame::ResumeEnd { claim: claim() }),
        ("m_ping", MeshFrame::Link(Frame::Ping { nonce: 5 })),
        ("m_pong", MeshFrame::Link(Frame::Pong { nonce: 5 })),
        (
            "m_goodbye",
            MeshFrame::Link(Frame::Goodbye {
                code: CloseCode::Replaced,
                message: "bye".into(),
            }),
        ),
    ]
}

fn any_claim() -> impl Strategy<Value = Claim> {
    (name(), name(), any_epoch()).prop_map(|(tenant, agent, epoch)| Claim {
        agent: AgentKey {
            tenant: TenantName::parse(&tenant).unwrap(),
            agent: AgentId::parse(&agent).unwrap(),
        },
        epoch,
    })
}

fn any_hello() -> impl Strategy<Value = MeshFrame> {
    (
        any::<[u16; 2]>(),
        any::<[u64; 2]>(),
        any_replica(),
        any::<[u8; 32]>(),
        any::<[u32; 2]>(),
        ".{0,20}",
    )
        .prop_map(|(versions, numbers, replica, nonce, sizes, release)| {
            MeshFrame::Hello(Box::new(MeshHello {
                ver_min: versions[0],
                ver_max: versions[1],
                features: MeshFeatures(numbers[0]),
                replica,
                boot: numbers[1],
                nonce,
                max_data_payload: sizes[0],
                flow_window: sizes[1],
                release,
            }))
        })
}

fn any_proof() -> impl Strategy<Value = MeshFrame> {
    let bytes = || vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    (any::<u16>(), vec(bytes(), 0..8), bytes()).prop_map(|(scheme, chain, signature)| {
        MeshFrame::Proof(Box::new(MeshProof {
            scheme,
            chain,
            signature,
        }))
    })
}

fn any_passed_on() -> impl Strategy<Value = MeshFrame> {
    (any::<u64>(), any_flow_frame())
        .prop_filter("only these have a place on a link", |(_, frame)| {
            matches!(
                frame,
                Frame::OpenAck(_)
                    | Frame::Data { .. }
                    | Frame::Fin { .. }
                    | Frame::Rst { .. }
                    | Frame::Window { .. }
            )
        })
        .prop_map(|(epoch, frame)| MeshFrame::Flow { epoch, frame })
}

fn any_resumption() -> impl Strategy<Value = MeshFrame> {
    (
        any_claim(),
        any_flow_ref(),
        any::<[u64; 3]>(),
        any::<u32>(),
        any_reset(),
    )
        .prop_flat_map(|(claim, flow_ref, at, cid, code)| {
            prop_oneof![
                Just(MeshFrame::Resume {
                    claim: claim.clone(),
                    flow_ref: flow_ref.clone(),
                    received: at[0],
                    limit: at[1],
                    sent: at[2],
                }),
                Just(MeshFrame::Resumed {
                    claim: claim.clone(),
                    flow_ref: flow_ref.clone(),
                    cid,
                    received: at[0],
                    limit: at[1],
                    from: at[2],
                }),
                Just(MeshFrame::ResumeRst {
                    claim: claim.clone(),
                    flow_ref,
                    code,
                }),
                Just(MeshFrame::ResumeEnd { claim }),
            ]
        })
}

/// Any frame of a link.
pub(crate) fn any_frame() -> impl Strategy<Value = MeshFrame> {
    prop_oneof![
        1 => any_hello(),
        1 => any_proof(),
        2 => (any_claim(), any_open()).prop_filter_map("an OPEN", |(claim, frame)| {
            let Frame::Open(open) = frame else {
                return None;
            };
            Some(MeshFrame::Open { claim, open })
        }),
        6 => any_passed_on(),
        1 => (any::<u32>(), any::<[u64; 3]>()).prop_map(|(cid, at)| MeshFrame::Credit {
            epoch: at[0],
            cid,
            received: at[1],
            limit: at[2],
        }),
        3 => any_resumption(),
        1 => any::<u64>().prop_map(|nonce| MeshFrame::Link(Frame::Ping { nonce })),
        1 => (proptest::sample::select(CloseCode::ALL), ".{0,30}")
            .prop_map(|(code, message)| MeshFrame::Link(Frame::Goodbye { code, message })),
    ]
}
