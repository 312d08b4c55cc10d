//! The exchange of the hello over a WebSocket, at either end.
//!
//! The caller bounds its time; its messages are bounded by
//! [`MAX_HELLO_BYTES`](crate::limits::MAX_HELLO_BYTES).

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use nowconnect_protocol::ReplicaId;
use nowconnect_protocol::mesh::{MeshFeatures, MeshHello, MeshProof, VERSION};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::Message;

use crate::close::CloseCode;
use crate::credentials::Credentials;
use crate::hello::{
    LinkTerms, Malformed, common_version, hello_message, no_proof, proof_message, read_hello,
    read_proof,
};
use crate::identity::{self, Identity, IdentityError, Part};
use crate::proof::{Exporter, Transcript};

/// How long a refusal may take to be sent.
const REFUSE_WITHIN: Duration = Duration::from_secs(1);

/// What this hub brings to a hello.
pub(crate) struct Speaker<'a> {
    pub(crate) replica: &'a ReplicaId,
    pub(crate) boot: u64,
    pub(crate) terms: LinkTerms,
    pub(crate) loaded: Option<&'a Credentials>,
    pub(crate) require_proof: bool,
}

/// A peer that has said who it is, and proven it where that is asked for.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) ours: MeshHello,
    pub(crate) theirs: MeshHello,
    pub(crate) version: u16,
    /// What was proven; `None` where nothing was, and nothing was asked for.
    pub(crate) identity: Option<Identity>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// Why a hello led to no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The transport broke.
    #[error("the connection broke during the hello: {0}")]
    Broken(String),
    /// The other hub closed, and said why.
    #[error("the other hub refused the link: {code}{}", hint(*code))]
    Refused {
        /// What it said.
        code: CloseCode,
    },
    /// A message that is none of the hello, or comes at the wrong time.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A message beyond the bound.
    #[error("a message of the hello is too long")]
    TooLarge,
    /// There is no version that both speak.
    #[error(
        "the other hub speaks versions {} to {} of the mesh and this one {VERSION}: bring both to \
         releases that have one in common",
        theirs.0, theirs.1
    )]
    Version {
        /// What it speaks.
        theirs: (u16, u16),
    },
    /// Both ends are this process.
    #[error("the address leads back to this hub")]
    OwnAddress,
    /// Another process says that it is this hub.
    #[error("another hub has the name `{replica}` too: give each its own `ha.replica_id`")]
    OwnName {
        /// The name.
        replica: ReplicaId,
    },
    /// Another hub than expected.
    #[error("hub `{expected}` was expected, and `{found}` is there")]
    WrongHub {
        /// Whom the registry, or the last hello, promised.
        expected: ReplicaId,
        /// Who is there.
        found: ReplicaId,
    },
    /// A certificate of another hub.
    #[error("it says that it is hub `{said}`, and its certificate is that of `{proven}`")]
    NotItsOwn {
        /// What it says.
        said: ReplicaId,
        /// What it shows.
        proven: ReplicaId,
    },
    /// No proof, and one is asked for.
    #[error(
        "hub `{peer}` gives no proof of its identity: set `ha.mesh.tls` there (`require_mtls` is \
         on here)"
    )]
    Unproven {
        /// Who it says it is.
        peer: ReplicaId,
    },
    /// The chain proves nothing.
    #[error("hub `{peer}`: {error}")]
    Identity {
        /// Who it says it is.
        peer: ReplicaId,
        /// What is wrong.
        error: IdentityError,
    },
    /// The signature does not hold.
    #[error("hub `{peer}`: its proof was not made for this hello with the key of its certificate")]
    Signature {
        /// Who it says it is.
        peer: ReplicaId,
    },
    /// The certificate of the connection and that of the hello differ.
    #[error("hub `{peer}`: {on} another certificate than the hello")]
    OtherCertificate {
        /// Who it says it is.
        peer: ReplicaId,
        /// Where the other one was shown.
        on: &'static str,
    },
    /// The other hub says that it ended a TLS that this one never spoke.
    #[error("hub `{peer}` says that it ended TLS, and none was spoken: something stands between")]
    Binding {
        /// Who it says it is.
        peer: ReplicaId,
    },
    /// This hub's key cannot sign.
    #[error("this hub's key can sign by no scheme of TLS 1.3: use ECDSA, Ed25519 or RSA")]
    CannotSign,
}

const fn hint(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Unproven => " (it asks for a certificate: set `ha.mesh.tls` here)",
        CloseCode::IdentityRefused => {
            " (its log says what is wrong with this hub's certificate, or its `ca_bundle` lacks \
             this hub's authority)"
        }
        CloseCode::CertificateExpired => " (renew this hub's certificate, or set the clocks)",
        CloseCode::ProtocolError
        | CloseCode::VersionMismatch
        | CloseCode::HelloTimeout
        | CloseCode::Duplicate
        | CloseCode::Replaced
        | CloseCode::OwnAddress
        | CloseCode::TooLarge
        | CloseCode::NameTaken
        | CloseCode::Removed
        | CloseCode::Leaving
        | CloseCode::Silent
        | CloseCode::PolicyDenied
        | CloseCode::Internal => "",
    }
}

impl HelloError {
    /// What the other end is told; nothing where it closed itself.
    pub(crate) const fn close_code(&self) -> Option<CloseCode> {
        Some(match self {
            Self::Broken(_) | Self::Refused { .. } => return None,
            Self::Malformed(_) | Self::Binding { .. } => CloseCode::ProtocolError,
            Self::TooLarge => CloseCode::TooLarge,
            Self::Version { .. } => CloseCode::VersionMismatch,
            Self::OwnAddress => CloseCode::OwnAddress,
            Self::OwnName { .. } => CloseCode::NameTaken,
            Self::Unproven { .. } => CloseCode::Unproven,
            Self::Identity {
                error: IdentityError::Expired,
                ..
            } => CloseCode::CertificateExpired,
            Self::WrongHub { .. }
            | Self::NotItsOwn { .. }
            | Self::Identity { .. }
            | Self::Signature { .. }
            | Self::OtherCertificate { .. } => CloseCode::IdentityRefused,
            Self::CannotSign => CloseCode::Internal,
        })
    }

    /// A stable name for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Broken(_) => "broken",
            Self::Refused { code } => code.as_str(),
            Self::WrongHub { .. } => "wrong_hub",
            Self::Malformed(_)
            | Self::TooLarge
            | Self::Version { .. }
            | Self::OwnAddress
            | Self::OwnName { .. }
            | Self::NotItsOwn { .. }
            | Self::Unproven { .. }
            | Self::Identity { .. }
            | Self::Signature { .. }
            | Self::OtherCertificate { .. }
            | Self::Binding { .. }
            | Self::CannotSign => match self.close_code() {
                Some(code) => code.as_str(),
                None => "broken",
            },
        }
    }
}

/// The dialler's end: says hello and proves itself first, then checks who answers.
pub(crate) async fn dial<S>(
    ws: &mut WebSocketStream<S>,
    me: &Speaker<'_>,
    session: Option<&Exporter>,
    expected: Option<&ReplicaId>,
) -> Result<Known, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ours = me.hello(MeshFeatures::default());
    let said = hello_message(&ours);
    send(ws, said.clone()).await?;
    let heard = match receive(ws).await {
        // The other end of an own address sees it first.
        Err(HelloError::Refused {
            code: CloseCode::OwnAddress,
        }) => return Err(HelloError::OwnAddress),
        heard => heard?,
    };
    let theirs = read_hello(heard.clone())?;
    let version = me.greet(&ours, &theirs)?;
    if let Some(expected) = expected.filter(|expected| **expected != theirs.replica) {
        return Err(HelloError::WrongHub {
            expected: expected.clone(),
            found: theirs.replica,
        });
    }
    let bound = theirs.features.contains(MeshFeatures::TLS_BOUND);
    if bound && session.is_none() {
        return Err(HelloError::Binding {
            peer: theirs.replica,
        });
    }
    let transcript = Transcript::new(&said, &heard, session.filter(|_| bound));
    let ours_proven = me.prove(&transcript, Part::Dialler)?;
    send(ws, proof_message(&ours_proven)).await?;
    let proof = read_proof(receive(ws).await?)?;
    let identity = me.check(&theirs.replica, &transcript, Part::Acceptor, &proof)?;
    Ok(known(ours, theirs, version, identity, &proof))
}

/// The acceptor's end, up to the moment at which it knows who dials.
pub(crate) struct Greeted {
    pub(crate) known: Known,
    transcript: Transcript,
}

/// Hears the dialler out and checks it. `session` is the TLS that this hub ended itself;
/// `shown` is the hash of the certificate that the dialler showed beside the hello, and where.
pub(crate) async fn greet<S>(
    ws: &mut WebSocketStream<S>,
    me: &Speaker<'_>,
    session: Option<&Exporter>,
    shown: &[(&'static str, [u8; 32])],
) -> Result<Greeted, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let heard = receive(ws).await?;
    let theirs = read_hello(heard.clone())?;
    let ours = me.hello(match session {
        Some(_) => MeshFeatures::TLS_BOUND,
        None => MeshFeatures::default(),
    });
    let version = me.greet(&ours, &theirs)?;
    let said = hello_message(&ours);
    send(ws, said.clone()).await?;
    let transcript = Transcript::new(&heard, &said, session);
    let proof = read_proof(receive(ws).await?)?;
    let identity = me.check(&theirs.replica, &transcript, Part::Dialler, &proof)?;
    for (on, leaf) in shown {
        if identity.as_ref().map(|identity| &identity.leaf_sha256) != Some(leaf) {
            return Err(HelloError::OtherCertificate {
                peer: theirs.replica,
                on,
            });
        }
    }
    Ok(Greeted {
        known: known(ours, theirs, version, identity, &proof),
        transcript,
    })
}

impl Greeted {
    /// Lets the dialler in: this hub's own proof ends the hello.
    pub(crate) async fn welcome<S>(
        self,
        ws: &mut WebSocketStream<S>,
        me: &Speaker<'_>,
    ) -> Result<Known, HelloError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let proof = me.prove(&self.transcript, Part::Acceptor)?;
        send(ws, proof_message(&proof)).await?;
        Ok(self.known)
    }
}

impl Speaker<'_> {
    fn hello(&self, features: MeshFeatures) -> MeshHello {
        MeshHello {
            ver_min: VERSION,
            ver_max: VERSION,
            features,
            replica: self.replica.clone(),
            boot: self.boot,
            nonce: rand::random(),
            max_data_payload: self.terms.max_data_payload,
            flow_window: self.terms.flow_window,
            release: self.terms.release.clone(),
        }
    }

    /// What two hellos settle before anybody proves anything.
    fn greet(&self, ours: &MeshHello, theirs: &MeshHello) -> Result<u16, HelloError> {
        if theirs.replica == *self.replica {
            return Err(if theirs.boot == self.boot {
                HelloError::OwnAddress
            } else {
                HelloError::OwnName {
                    replica: theirs.replica.clone(),
                }
            });
        }
        common_version(ours, theirs).ok_or(HelloError::Version {
            theirs: (theirs.ver_min, theirs.ver_max),
        })
    }

    fn prove(&self, transcript: &Transcript, part: Part) -> Result<MeshProof, HelloError> {
        match self.loaded {
            None => Ok(no_proof()),
            Some(loaded) => transcript
                .prove(part, &loaded.key)
                .ok_or(HelloError::CannotSign),
        }
    }

    /// Whether the peer is who it says. The signature comes first: a chain that was only copied
    /// is not worth a look.
    fn check(
        &self,
        peer: &ReplicaId,
        transcript: &Transcript,
        part: Part,
        proof: &MeshProof,
    ) -> Result<Option<Identity>, HelloError> {
        let Some(loaded) = self.loaded.filter(|_| !proof.chain.is_empty()) else {
            if self.require_proof {
                return Err(HelloError::Unproven { peer: peer.clone() });
            }
            return Ok(None);
        };
        if !transcript.is_signed(part, proof) {
            return Err(HelloError::Signature { peer: peer.clone() });
        }
        let identity = identity::check(&chain(proof), &loaded.roots, part, UnixTime::now())
            .map_err(|error| HelloError::Identity {
                peer: peer.clone(),
                error,
            })?;
        if identity.replica != *peer {
            return Err(HelloError::NotItsOwn {
                said: peer.clone(),
                proven: identity.replica,
            });
        }
        Ok(Some(identity))
    }
}

fn known(
    ours: MeshHello,
    theirs: MeshHello,
    version: u16,
    identity: Option<Identity>,
    proof: &MeshProof,
) -> Known {
    Known {
        ours,
        theirs,
        version,
        identity,
        chain: chain(proof),
    }
}

fn chain(proof: &MeshProof) -> Vec<CertificateDer<'static>> {
    let certificates = proof.chain.iter();
    certificates
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect()
}

/// Closes with a code, as well as that goes.
pub(crate) async fn refuse<S>(ws: &mut WebSocketStream<S>, code: CloseCode)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let told = async {
        if ws.close(Some(code.frame())).await.is_ok() {
            // Until the far end has read it: closing over unread bytes would take it along.
            while let Some(Ok(_)) = ws.next().await {}
        }
    };
    // It is closed either way.
    let _ = tokio::time::timeout(REFUSE_WITHIN, told).await;
}

async fn send<S>(ws: &mut WebSocketStream<S>, message: Bytes) -> Result<(), HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match ws.send(Message::Binary(message)).await {
        Ok(()) => Ok(()),
        // Whoever refuses closes at once; why stands in what it sent before.
        Err(error) => Err(match receive(ws).await {
            Err(refused @ HelloError::Refused { .. }) => refused,
            Ok(_) | Err(_) => HelloError::Broken(error.to_string()),
        }),
    }
}

async fn receive<S>(ws: &mut WebSocketStream<S>) -> Result<Bytes, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        return match ws.next().await {
            Some(Ok(Message::Binary(message))) => Ok(message),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(frame))) => Err(HelloError::Refused {
                code: CloseCode::of_frame(frame.as_ref()),
            }),
            Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                Err(Malformed::OutOfPlace("is no binary message").into())
            }
            Some(Err(WsError::Capacity(_))) => Err(HelloError::TooLarge),
            Some(Err(error)) => Err(HelloError::Broken(error.to_string())),
            None => Err(HelloError::Broken("it was closed".to_owned())),
        };
    }
}

#[cfg(test)]
mod tests;
