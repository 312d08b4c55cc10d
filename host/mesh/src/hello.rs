//! The messages of the hello: each holds one frame of the mesh protocol and nothing more.

use bytes::{Bytes, BytesMut};
use nowconnect_protocol::frame::DecodeError;
use nowconnect_protocol::mesh::{MeshFrame, MeshHello, MeshProof, decode, encode};

use crate::limits::{MAX_HELLO_BYTES, MAX_SIGNATURE_BYTES};

/// What this hub's flows say about themselves in M_HELLO. The rest of it is the link's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTerms {
    /// Largest payload of M_DATA that this hub takes, in bytes.
    pub max_data_payload: u32,
    /// What this hub takes of a new flow before it says more, in bytes.
    pub flow_window: u32,
    /// Version of the program, for people.
    pub release: String,
}

/// Why a message is none of the hello.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is no frame.
    #[error("a message of the hello cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// It is not what comes here.
    #[error("a message of the hello {0}")]
    OutOfPlace(&'static str),
}

/// An M_PROOF that proves nothing, of a hub without a certificate.
pub(crate) fn no_proof() -> MeshProof {
    MeshProof {
        scheme: 0,
        chain: Vec::new(),
        signature: Bytes::new(),
    }
}

pub(crate) fn hello_message(hello: &MeshHello) -> Bytes {
    message(&MeshFrame::Hello(Box::new(hello.clone())))
}

pub(crate) fn proof_message(proof: &MeshProof) -> Bytes {
    message(&MeshFrame::Proof(Box::new(proof.clone())))
}

fn message(frame: &MeshFrame) -> Bytes {
    let mut out = BytesMut::new();
    encode(frame, &mut out);
    out.freeze()
}

pub(crate) fn read_hello(message: Bytes) -> Result<MeshHello, Malformed> {
    let MeshFrame::Hello(hello) = only_frame(message)? else {
        return Err(Malformed::OutOfPlace("is no M_HELLO"));
    };
    Ok(*hello)
}

pub(crate) fn read_proof(message: Bytes) -> Result<MeshProof, Malformed> {
    let MeshFrame::Proof(proof) = only_frame(message)? else {
        return Err(Malformed::OutOfPlace("is no M_PROOF"));
    };
    if proof.signature.len() > MAX_SIGNATURE_BYTES {
        return Err(Malformed::OutOfPlace("holds a signature that is too long"));
    }
    Ok(*proof)
}

fn only_frame(mut message: Bytes) -> Result<MeshFrame, Malformed> {
    if message.len() > MAX_HELLO_BYTES {
        return Err(Malformed::OutOfPlace("is too long"));
    }
    let frame = decode(&mut message)?.ok_or(Malformed::OutOfPlace("is empty"))?;
    if message.is_empty() {
        Ok(frame)
    } else {
        Err(Malformed::OutOfPlace("holds more than one frame"))
    }
}

/// The highest version that both speak.
pub(crate) fn common_version(one: &MeshHello, other: &MeshHello) -> Option<u16> {
    let highest = one.ver_max.min(other.ver_max);
    (highest >= one.ver_min.max(other.ver_min)).then_some(highest)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use nowconnect_protocol::ReplicaId;
    use nowconnect_protocol::mesh::MeshFeatures;

    use super::*;

    fn speaks(ver_min: u16, ver_max: u16) -> MeshHello {
        MeshHello {
            ver_min,
            ver_max,
            features: MeshFeatures::default(),
            replica: ReplicaId::parse("hub-a").unwrap(),
            boot: 1,
            nonce: [7; 32],
            max_data_payload: 1,
            flow_window: 1,
            release: String::new(),
        }
    }

    #[test]
    fn the_highest_version_that_both_speak_is_taken() {
        assert_eq!(common_version(&speaks(1, 3), &speaks(2, 5)), Some(3));
        assert_eq!(common_version(&speaks(1, 1), &speaks(1, 1)), Some(1));
        assert_eq!(common_version(&speaks(1, 1), &speaks(2, 3)), None);
        assert_eq!(common_version(&speaks(3, 2), &speaks(1, 9)), None);
    }

    #[test]
    fn a_message_holds_the_frame_that_comes_here_and_nothing_more() {
        let hello = hello_message(&speaks(1, 1));
        let proof = proof_message(&no_proof());
        assert_eq!(read_hello(hello.clone()).unwrap(), speaks(1, 1));
        assert_eq!(read_proof(proof.clone()).unwrap(), no_proof());
        assert!(read_hello(proof.clone()).is_err());
        assert!(read_proof(hello.clone()).is_err());
        assert!(read_hello(Bytes::new()).is_err());
        let both = [hello, proof].concat();
        assert!(read_hello(both.into()).is_err());
    }

    #[test]
    fn a_signature_that_is_too_long_is_refused() {
        let long = MeshProof {
            signature: vec![0; MAX_SIGNATURE_BYTES + 1].into(),
            ..no_proof()
        };
        assert!(read_proof(proof_message(&long)).is_err());
    }
}
