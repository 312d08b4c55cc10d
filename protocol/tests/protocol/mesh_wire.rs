//! The frames of a link: their recorded bytes, and what holds for any.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use nowconnect_protocol::mesh::{MeshFrame, decode, encode};
use nowconnect_protocol::{DecodeError, Frame, FrameType, frame};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::mesh_samples::{all, any_frame};
use crate::samples;

const RECORDED: &str = include_str!("mesh_snapshot.txt");

fn written(frames: &[MeshFrame]) -> Bytes {
    let mut out = BytesMut::new();
    for frame in frames {
        encode(frame, &mut out);
    }
    out.freeze()
}

fn read_all(mut message: Bytes) -> Result<Vec<MeshFrame>, DecodeError> {
    let mut frames = Vec::new();
    while let Some(frame) = decode(&mut message)? {
        frames.push(frame);
    }
    Ok(frames)
}

#[test]
fn every_frame_is_written_as_recorded() {
    let mut text = String::new();
    for (name, frame) in all() {
        let hex: Vec<String> = written(&[frame])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        writeln!(text, "{name}: {}", hex.join(" ")).unwrap();
    }
    assert!(
        text == RECORDED,
        "the wire changed; released frames never do. Written now:\n{text}"
    );
}

#[test]
fn a_frame_about_a_flow_is_the_tunnels_with_its_epoch_in_front() {
    let on_tunnel = Frame::Data {
        cid: 1,
        seq: 256,
        payload: Bytes::from_static(b"hi"),
    };
    let mut inner = BytesMut::new();
    frame::encode(&on_tunnel, &mut inner);
    let on_link = written(&[MeshFrame::Flow {
        epoch: 4,
        frame: on_tunnel,
    }]);
    assert_eq!(on_link[4..12], 4_u64.to_be_bytes());
    assert_eq!(on_link[12..], inner[4..]);
}

#[test]
fn frames_of_a_tunnel_are_refused_on_a_link_and_the_other_way_round() {
    for (name, sample) in samples::all() {
        let mut out = BytesMut::new();
        frame::encode(&sample, &mut out);
        let refused = DecodeError::Misplaced {
            frame: sample.frame_type(),
        };
        assert_eq!(read_all(out.freeze()), Err(refused), "{name}");
    }
    for (name, sample) in all() {
        let refused = DecodeError::Misplaced {
            frame: sample.frame_type(),
        };
        assert_eq!(
            frame::decode(&mut written(&[sample])),
            Err(refused),
            "{name}"
        );
    }
}

#[test]
fn an_unknown_optional_frame_is_skipped_and_a_mandatory_one_is_not() {
    let ping = MeshFrame::Link(Frame::Ping { nonce: 5 });
    let mut message = BytesMut::from(&[0xc1, 0, 0, 3, 1, 2, 3][..]);
    message.extend_from_slice(&written(std::slice::from_ref(&ping)));
    assert_eq!(read_all(message.freeze()), Ok(vec![ping]));
    assert_eq!(
        read_all(Bytes::from_static(&[0x50, 0, 0, 0])),
        Err(DecodeError::UnknownType { tag: 0x50 })
    );
}

#[test]
fn a_proof_with_too_many_certificates_is_refused() {
    let mut message = BytesMut::from(&[FrameType::MeshProof as u8, 0, 0, 36][..]);
    for _ in 0..9 {
        message.extend_from_slice(&[11, 0, 1, 0x30]);
    }
    assert_eq!(
        read_all(message.freeze()),
        Err(DecodeError::TooMany {
            what: "certificates",
            max: 8
        })
    );
}

proptest! {
    #[test]
    fn what_is_written_is_read(frames in vec(any_frame(), 0..6)) {
        prop_assert_eq!(read_all(written(&frames)), Ok(frames));
    }

    #[test]
    fn the_declared_length_is_the_real_one(frame in any_frame()) {
        let message = written(&[frame]);
        let declared = usize::from(message[1]) << 16 | usize::from(message[2]) << 8 | usize::from(message[3]);
        prop_assert_eq!(declared, message.len() - 4);
    }

    #[test]
    fn a_cut_message_is_refused_or_shorter(frame in any_frame(), cut in any::<prop::sample::Index>()) {
        let message = written(std::slice::from_ref(&frame));
        let shorter = message.slice(..cut.index(message.len()));
        match read_all(shorter) {
            Ok(frames) => prop_assert!(frames.is_empty()),
            Err(error) => prop_assert_eq!(error, DecodeError::Truncated),
        }
    }

    #[test]
    fn changed_bytes_never_panic(
        frames in vec(any_frame(), 1..4),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut message = BytesMut::from(&written(&frames)[..]);
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        let _outcome = read_all(message.freeze());
    }

    #[test]
    fn any_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _outcome = read_all(bytes.into());
    }
}
