//! What holds for any frame and for any bytes.

use bytes::{Bytes, BytesMut};
use nowconnect_protocol::frame::{decode, encode};
use nowconnect_protocol::{DecodeError, Frame};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::samples::{all, any_frame};

fn written(frames: &[Frame]) -> Bytes {
    let mut out = BytesMut::new();
    for frame in frames {
        encode(frame, &mut out);
    }
    out.freeze()
}

fn read_all(mut message: Bytes) -> Result<Vec<Frame>, DecodeError> {
    let mut frames = Vec::new();
    while let Some(frame) = decode(&mut message)? {
        frames.push(frame);
    }
    Ok(frames)
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

#[test]
fn an_unknown_optional_frame_is_skipped_and_a_mandatory_one_is_not() {
    let ping = all()
        .into_iter()
        .find(|(name, _)| *name == "ping")
        .unwrap()
        .1;
    let mut message = BytesMut::from(&[0xee, 0, 0, 3, 1, 2, 3][..]);
    message.extend_from_slice(&written(std::slice::from_ref(&ping)));
    assert_eq!(read_all(message.freeze()), Ok(vec![ping]));
    assert_eq!(
        read_all(Bytes::from_static(&[0x7e, 0, 0, 0])),
        Err(DecodeError::UnknownType { tag: 0x7e })
    );
}

#[test]
fn fields_of_a_later_release_are_skipped() {
    let hello = all()
        .into_iter()
        .find(|(name, _)| *name == "hello")
        .unwrap()
        .1;
    let mut message = BytesMut::from(&written(std::slice::from_ref(&hello))[..]);
    message.extend_from_slice(&[200, 0, 2, 9, 9]);
    let length = message.len() - 4;
    message[2] = u8::try_from(length >> 8).unwrap();
    message[3] = u8::try_from(length & 0xff).unwrap();
    assert_eq!(read_all(message.freeze()), Ok(vec![hello]));
}

#[test]
fn a_token_is_never_shown() {
    for (name, frame) in all() {
        let shown = format!("{frame:?}");
        assert!(!shown.contains("a.b.c"), "{name}");
        assert!(!shown.contains("205, 205"), "{name}");
    }
}
