//! Bodies of M_HELLO and M_PROOF. Who makes and checks the proof is the hub's own affair: here
//! it is bytes.

use bytes::{Bytes, BytesMut};

use crate::frame::DecodeError;
use crate::frame::tlv::{Field, FieldWriter, next_field, take};
use crate::limits::{MAX_PROOF_CERTIFICATES, MAX_TEXT_BYTES};
use crate::name::ReplicaId;

/// Optional abilities of a hub on a link; one is used only where both hubs name it, unless it
/// says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct MeshFeatures(pub u64);

impl MeshFeatures {
    /// The hub that was dialled has ended the TLS of the link itself, so both proofs cover it.
    /// Only that hub names it.
    pub const TLS_BOUND: Self = Self(1);

    /// Whether all of `other` is in here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A hub's first frame on a link; both send one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshHello {
    /// Lowest version of the mesh protocol that the hub speaks.
    pub ver_min: u16,
    /// Highest version of the mesh protocol that the hub speaks.
    pub ver_max: u16,
    /// Optional abilities.
    pub features: MeshFeatures,
    /// Who the hub says it is; M_PROOF proves it.
    pub replica: ReplicaId,
    /// Random, made when the hub started.
    pub boot: u64,
    /// Random, made for this link; the other hub's proof signs it.
    pub nonce: [u8; 32],
    /// Largest M_DATA payload that the hub takes, in bytes.
    pub max_data_payload: u32,
    /// What the hub takes of a new flow that it relays before any M_CREDIT, and what an agent of
    /// its own may send on a new flow before any WINDOW, in bytes.
    pub flow_window: u32,
    /// Version of the hub's program, for people.
    pub release: String,
}

/// Proves the replica of an M_HELLO by a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshProof {
    /// The signature's scheme, by its number in TLS 1.3 (RFC 8446, 4.2.3).
    pub scheme: u16,
    /// Certificates in DER, the hub's own first. At most
    /// [`crate::limits::MAX_PROOF_CERTIFICATES`].
    pub chain: Vec<Bytes>,
    /// The signature.
    pub signature: Bytes,
}

mod key {
    pub(super) const VER_MIN: u8 = 1;
    pub(super) const VER_MAX: u8 = 2;
    pub(super) const FEATURES: u8 = 3;
    pub(super) const REPLICA: u8 = 4;
    pub(super) const BOOT: u8 = 5;
    pub(super) const NONCE: u8 = 6;
    pub(super) const MAX_DATA_PAYLOAD: u8 = 7;
    pub(super) const FLOW_WINDOW: u8 = 8;
    pub(super) const RELEASE: u8 = 9;
    pub(super) const SCHEME: u8 = 10;
    pub(super) const CERTIFICATE: u8 = 11;
    pub(super) const SIGNATURE: u8 = 12;
}

fn required<T>(value: Option<T>, what: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { what })
}

fn nonce(field: &Field) -> Result<[u8; 32], DecodeError> {
    let mut value = field.value.clone();
    let mut nonce = [0; 32];
    nonce.copy_from_slice(&take(&mut value, 32)?);
    if value.is_empty() {
        Ok(nonce)
    } else {
        Err(DecodeError::FieldLength)
    }
}

impl MeshHello {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut out = FieldWriter::new(out);
        out.u16(key::VER_MIN, self.ver_min);
        out.u16(key::VER_MAX, self.ver_max);
        out.u64(key::FEATURES, self.features.0);
        out.text(key::REPLICA, self.replica.as_str());
        out.u64(key::BOOT, self.boot);
        out.bytes(key::NONCE, &self.nonce);
        out.u32(key::MAX_DATA_PAYLOAD, self.max_data_payload);
        out.u32(key::FLOW_WINDOW, self.flow_window);
        out.text(key::RELEASE, &self.release);
    }

    pub(super) fn decode(mut body: Bytes) -> Result<Self, DecodeError> {
        let (mut ver_min, mut ver_max, mut features) = (None, None, MeshFeatures::default());
        let (mut replica, mut boot, mut random) = (None, None, None);
        let (mut max_data_payload, mut flow_window) = (None, None);
        let mut release = String::new();
        while let Some(field) = next_field(&mut body)? {
            match field.key {
                key::VER_MIN => ver_min = Some(field.u16()?),
                key::VER_MAX => ver_max = Some(field.u16()?),
                key::FEATURES => features = MeshFeatures(field.u64()?),
                key::REPLICA => replica = Some(ReplicaId::parse(&field.text()?)?),
                key::BOOT => boot = Some(field.u64()?),
                key::NONCE => random = Some(nonce(&field)?),
                key::MAX_DATA_PAYLOAD => max_data_payload = Some(field.u32()?),
                key::FLOW_WINDOW => flow_window = Some(field.u32()?),
                key::RELEASE if field.value.len() > MAX_TEXT_BYTES => {
                    return Err(DecodeError::TooLong {
                        what: "release",
                        max: MAX_TEXT_BYTES,
                    });
                }
                key::RELEASE => release = field.text()?,
                _ => {}
            }
        }
        Ok(Self {
            ver_min: required(ver_min, "lowest version")?,
            ver_max: required(ver_max, "highest version")?,
            features,
            replica: required(replica, "replica")?,
            boot: required(boot, "boot")?,
            nonce: required(random, "nonce")?,
            max_data_payload: required(max_data_payload, "payload limit")?,
            flow_window: required(flow_window, "flow window")?,
            release,
        })
    }
}

impl MeshProof {
    /// Writes at most [`MAX_PROOF_CERTIFICATES`] certificates: a peer takes no more.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut out = FieldWriter::new(out);
        out.u16(key::SCHEME, self.scheme);
        for certificate in self.chain.iter().take(MAX_PROOF_CERTIFICATES) {
            out.bytes(key::CERTIFICATE, certificate);
        }
        out.bytes(key::SIGNATURE, &self.signature);
    }

    pub(super) fn decode(mut body: Bytes) -> Result<Self, DecodeError> {
        let (mut scheme, mut chain, mut signature) = (None, Vec::new(), None);
        while let Some(field) = next_field(&mut body)? {
            match field.key {
                key::SCHEME => scheme = Some(field.u16()?),
                key::CERTIFICATE if chain.len() >= MAX_PROOF_CERTIFICATES => {
                    return Err(DecodeError::TooMany {
                        what: "certificates",
                        max: MAX_PROOF_CERTIFICATES,
                    });
                }
                key::CERTIFICATE => chain.push(field.value),
                key::SIGNATURE => signature = Some(field.value),
                _ => {}
            }
        }
        Ok(Self {
            scheme: required(scheme, "signature scheme")?,
            chain,
            signature: required(signature, "signature")?,
        })
    }
}
