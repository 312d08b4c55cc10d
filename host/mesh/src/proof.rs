//! The signature of the hello: what it covers, and how it is made and checked.
//!
//! ```text
//! signed = 64 × 0x20 ‖ "nowconnect mesh 1, dialler" or "…, acceptor" ‖ 0x00 ‖ SHA-256(transcript)
//! transcript = length ‖ M_HELLO of the dialler ‖ length ‖ M_HELLO of the acceptor ‖ binding
//! binding = 0x00, or 0x01 ‖ 32 bytes of the TLS session's exporter
//! ```
//! - Both nonces are in it, so a proof that was seen once is worth nothing later.
//! - Both names are in it, so a proof made for one hub is worth nothing at another.
//! - The part is in it, so a hub cannot be shown its own proof.
//! - Versions and features are in it, so nobody in between can lower them.
//! - Where the acceptor ended the TLS itself, that session is in it: a proof cannot be carried
//!   from one connection to another. Behind an ingress that ends TLS there is no such session,
//!   and the ingress is trusted with the bytes, but not with the identity.
//! - The key is that of the hub's TLS certificate. TLS 1.3 signs 64 spaces and a text of its own,
//!   and in TLS 1.2 the first bytes are a random number of the peer, which the spaces rule out:
//!   no signature of the one can be used as that of the other (RFC 8446, 4.4.3).

use bytes::Bytes;
use nowconnect_protocol::mesh::MeshProof;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;

use crate::identity::Part;

/// The label of the TLS exporter (RFC 5705).
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-nowconnect-mesh-1";

/// What hellos are signed with: the schemes of TLS 1.3.
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// 32 bytes that only the two ends of one TLS session know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Exporter(pub(crate) [u8; 32]);

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exporter(***)")
    }
}

impl Exporter {
    /// That of a session whose handshake is over. `None` before that.
    #[must_use]
    pub fn of_server(session: &rustls::ServerConnection) -> Option<Self> {
        session
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .ok()
            .map(Self)
    }

    /// The same at the client's end.
    #[must_use]
    pub fn of_client(session: &rustls::ClientConnection) -> Option<Self> {
        session
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .ok()
            .map(Self)
    }
}

/// What both proofs of a hello cover.
#[derive(Clone, Debug)]
pub(crate) struct Transcript([u8; 32]);

impl Transcript {
    /// Of the two messages as they were sent.
    pub(crate) fn new(dialler: &[u8], acceptor: &[u8], binding: Option<&Exporter>) -> Self {
        let mut hash = Sha256::new();
        for message in [dialler, acceptor] {
            hash.update((message.len() as u64).to_be_bytes());
            hash.update(message);
        }
        match binding {
            None => hash.update([0]),
            Some(Exporter(bytes)) => {
                hash.update([1]);
                hash.update(bytes);
            }
        }
        Self(hash.finalize().into())
    }

    fn signed_by(&self, part: Part) -> Vec<u8> {
        let mut signed = vec![b' '; 64];
        signed.extend_from_slice(format!("nowconnect mesh 1, {part}").as_bytes());
        signed.push(0);
        signed.extend_from_slice(&self.0);
        signed
    }

    /// This hub's proof; `None` where its key can sign by no scheme of TLS 1.3.
    pub(crate) fn prove(&self, part: Part, key: &CertifiedKey) -> Option<MeshProof> {
        let signer = key.key.choose_scheme(&SCHEMES)?;
        let signature = signer.sign(&self.signed_by(part)).ok()?;
        let chain = key.cert.iter();
        Some(MeshProof {
            chain: chain.map(|der| Bytes::copy_from_slice(der)).collect(),
            scheme: u16::from(signer.scheme()),
            signature: signature.into(),
        })
    }

    /// Whether whoever holds the key of the proof's leaf signed this as `part`. Says nothing
    /// about whom the chain names or who vouches for it.
    pub(crate) fn is_signed(&self, part: Part, proof: &MeshProof) -> bool {
        let Some(leaf) = proof.chain.first() else {
            return false;
        };
        let leaf = CertificateDer::from(&leaf[..]);
        let Ok(leaf) = EndEntityCert::try_from(&leaf) else {
            return false;
        };
        let scheme = SignatureScheme::from(proof.scheme);
        let signed = self.signed_by(part);
        SCHEMES.contains(&scheme)
            && rustls::crypto::aws_lc_rs::default_provider()
                .signature_verification_algorithms
                .mapping
                .iter()
                .filter(|(known, _)| *known == scheme)
                .flat_map(|(_, algorithms)| algorithms.iter())
                .any(|algorithm| {
                    leaf.verify_signature(*algorithm, &signed, &proof.signature)
                        .is_ok()
                })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> CertifiedKey {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(["hub".to_owned()]).unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        CertifiedKey::from_der(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(pair.serialize_der()).unwrap(),
            &rustls::crypto::aws_lc_rs::default_provider(),
        )
        .unwrap()
    }

    #[test]
    fn every_kind_of_key_proves_and_each_part_of_the_transcript_counts() {
        let session = Exporter([7; 32]);
        for algorithm in [
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
        ] {
            let key = key(algorithm);
            let transcript = Transcript::new(b"one", b"two", Some(&session));
            let proof = transcript.prove(Part::Dialler, &key).unwrap();
            assert!(transcript.is_signed(Part::Dialler, &proof));
            // Reflected.
            assert!(!transcript.is_signed(Part::Acceptor, &proof));
            for other in [
                // Another nonce, name or version at either end.
                Transcript::new(b"One", b"two", Some(&session)),
                Transcript::new(b"one", b"Two", Some(&session)),
                // The same bytes, cut elsewhere.
                Transcript::new(b"onet", b"wo", Some(&session)),
                // Another TLS session, or none.
                Transcript::new(b"one", b"two", Some(&Exporter([8; 32]))),
                Transcript::new(b"one", b"two", None),
            ] {
                assert!(!other.is_signed(Part::Dialler, &proof));
            }
        }
    }

    #[test]
    fn a_scheme_that_is_not_of_tls_1_3_proves_nothing() {
        let transcript = Transcript::new(b"one", b"two", None);
        let mut proof = transcript
            .prove(Part::Dialler, &key(&rcgen::PKCS_ECDSA_P256_SHA256))
            .unwrap();
        for scheme in [0_u16, 0x0201, 0x0401, 0x0804, 0xffff] {
            proof.scheme = scheme;
            assert!(!transcript.is_signed(Part::Dialler, &proof));
        }
        let none = crate::hello::no_proof();
        assert!(!transcript.is_signed(Part::Dialler, &none));
    }
}
