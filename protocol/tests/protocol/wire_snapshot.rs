//! The bytes of every frame, as earlier releases wrote them.

use std::fmt::Write as _;

use bytes::BytesMut;
use nowconnect_protocol::FrameType;
use nowconnect_protocol::frame::encode;

use crate::{mesh_samples, samples};

const RECORDED: &str = include_str!("wire_snapshot.txt");

#[test]
fn every_frame_is_written_as_recorded() {
    let mut written = String::new();
    for (name, frame) in samples::all() {
        let mut out = BytesMut::new();
        encode(&frame, &mut out);
        let hex: Vec<String> = out.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(written, "{name}: {}", hex.join(" ")).unwrap();
    }
    assert!(
        written == RECORDED,
        "the wire changed; released frames never do. Written now:\n{written}"
    );
}

#[test]
fn every_tag_in_use_is_recorded() {
    for tag in FrameType::ALL {
        let on_a_tunnel = samples::all()
            .iter()
            .any(|(_, frame)| frame.frame_type() == tag);
        let on_a_link = mesh_samples::all()
            .iter()
            .any(|(_, frame)| frame.frame_type() == tag);
        assert!(!(on_a_tunnel && on_a_link), "{tag:?} stands for two frames");
        let reserved = tag == FrameType::Datagram;
        assert_eq!(on_a_tunnel || on_a_link, !reserved, "{tag:?}");
    }
}

#[test]
fn data_is_laid_out_as_the_protocol_text_says() {
    let mut out = BytesMut::new();
    let data = samples::all()
        .into_iter()
        .find(|(name, _)| *name == "data")
        .unwrap()
        .1;
    encode(&data, &mut out);
    assert_eq!(
        &out[..],
        [
            0x12, 0, 0, 14, // tag, length
            0, 0, 0, 1, // cid
            0, 0, 0, 0, 0, 0, 1, 0, // seq
            b'h', b'i',
        ]
    );
}
