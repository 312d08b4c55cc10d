//! Hostile peers that know the hello's own codec.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::credentials::MeshFiles;
use crate::identity::replica_uri;

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn hub(&self, replica: &str) -> (Credentials, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let files = MeshFiles {
            ca_bundle: folder.path().join("ca.pem"),
            cert_file: folder.path().join("hub.pem"),
            key_file: folder.path().join("hub.key"),
        };
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        let uri = replica_uri(&name(replica)).as_str().try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(&files.ca_bundle, self.0.pem()).unwrap();
        std::fs::write(&files.cert_file, leaf.pem()).unwrap();
        std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
        let credentials = Credentials::load(&files, &name(replica)).unwrap();
        (credentials, folder)
    }
}

fn name(text: &str) -> ReplicaId {
    ReplicaId::parse(text).unwrap()
}

fn speaker<'a>(replica: &'a ReplicaId, loaded: &'a Credentials) -> Speaker<'a> {
    Speaker {
        replica,
        boot: 1,
        terms: LinkTerms {
            max_data_payload: 1,
            flow_window: 1,
            release: String::new(),
        },
        loaded: Some(loaded),
        require_proof: true,
    }
}

async fn pair() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (client, server) = tokio::io::duplex(256 * 1024);
    (
        WebSocketStream::from_raw_socket(client, Role::Client, None).await,
        WebSocketStream::from_raw_socket(server, Role::Server, None).await,
    )
}

/// Runs both ends; the acceptor's ends with the welcome.
async fn meet(
    dialler: &Speaker<'_>,
    acceptor: &Speaker<'_>,
    sessions: (Option<Exporter>, Option<Exporter>),
    expected: Option<&ReplicaId>,
) -> (Result<Known, HelloError>, Result<Known, HelloError>) {
    let (mut here, mut there) = pair().await;
    let dialling = async move {
        let known = dial(&mut here, dialler, sessions.0.as_ref(), expected).await;
        drop(here);
        known
    };
    let accepting = async move {
        let greeted = greet(&mut there, acceptor, sessions.1.as_ref(), &[]).await?;
        greeted.welcome(&mut there, acceptor).await
    };
    tokio::join!(dialling, accepting)
}

#[tokio::test]
async fn two_hubs_prove_themselves_with_and_without_a_session() {
    let ca = Ca::new();
    let (a, b) = (name("a"), name("b"));
    let ((at_a, _a), (at_b, _b)) = (ca.hub("a"), ca.hub("b"));
    let session = Some(Exporter([7; 32]));
    for sessions in [(None, None), (session, session), (session, None)] {
        let (one, other) = meet(&speaker(&a, &at_a), &speaker(&b, &at_b), sessions, Some(&b)).await;
        assert_eq!(one.unwrap().theirs.replica, b);
        assert_eq!(other.unwrap().identity.unwrap().replica, a);
    }
}

/// Somebody who relays between two TLS sessions of his own cannot use either proof.
#[tokio::test]
async fn a_proof_is_worth_nothing_in_another_session() {
    let ca = Ca::new();
    let (a, b) = (name("a"), name("b"));
    let ((at_a, _a), (at_b, _b)) = (ca.hub("a"), ca.hub("b"));
    let sessions = (Some(Exporter([7; 32])), Some(Exporter([8; 32])));
    let (_, other) = meet(&speaker(&a, &at_a), &speaker(&b, &at_b), sessions, None).await;
    assert_eq!(
        other.unwrap_err(),
        HelloError::Signature { peer: name("a") }
    );
    // Nor can he make a hub without TLS believe that there was some.
    let sessions = (None, Some(Exporter([8; 32])));
    let (one, _) = meet(&speaker(&a, &at_a), &speaker(&b, &at_b), sessions, None).await;
    assert_eq!(one.unwrap_err(), HelloError::Binding { peer: name("b") });
}

#[tokio::test]
async fn a_hub_cannot_pass_itself_off_as_another() {
    let ca = Ca::new();
    let (b, victim) = (name("b"), name("victim"));
    let ((at_m, _m), (at_b, _b)) = (ca.hub("mallory"), ca.hub("b"));
    let (_, other) = meet(
        &speaker(&victim, &at_m),
        &speaker(&b, &at_b),
        (None, None),
        None,
    )
    .await;
    let lie = HelloError::NotItsOwn {
        said: name("victim"),
        proven: name("mallory"),
    };
    assert_eq!(other.unwrap_err(), lie);
    let (one, _) = meet(
        &speaker(&b, &at_b),
        &speaker(&victim, &at_m),
        (None, None),
        None,
    )
    .await;
    assert_eq!(one.unwrap_err(), lie);
}

#[tokio::test]
async fn a_dialler_proves_nothing_to_a_hub_that_it_did_not_expect() {
    let ca = Ca::new();
    let (a, b, c) = (name("a"), name("b"), name("c"));
    let ((at_a, _a), (at_b, _b)) = (ca.hub("a"), ca.hub("b"));
    let (one, other) = meet(
        &speaker(&a, &at_a),
        &speaker(&b, &at_b),
        (None, None),
        Some(&c),
    )
    .await;
    assert!(matches!(one, Err(HelloError::WrongHub { .. })));
    assert!(matches!(other, Err(HelloError::Broken(_))));
}

/// Everything that was seen of a hello is sent again, by somebody without the key.
#[tokio::test]
async fn a_replayed_hello_is_refused() {
    let ca = Ca::new();
    let (a, b) = (name("a"), name("b"));
    let ((at_a, _a), (at_b, _b)) = (ca.hub("a"), ca.hub("b"));
    let (mut here, mut there) = pair().await;
    let me = speaker(&a, &at_a);
    let recorded = async {
        let ours = me.hello(MeshFeatures::default());
        let said = hello_message(&ours);
        send(&mut here, said.clone()).await.unwrap();
        let heard = receive(&mut here).await.unwrap();
        let transcript = Transcript::new(&said, &heard, None);
        let proof = proof_message(&me.prove(&transcript, Part::Dialler).unwrap());
        send(&mut here, proof.clone()).await.unwrap();
        (said, proof)
    };
    let them = speaker(&b, &at_b);
    let ((said, proof), greeted) = tokio::join!(recorded, greet(&mut there, &them, None, &[]));
    assert_eq!(greeted.unwrap().known.theirs.replica, a);

    let (mut here, mut there) = pair().await;
    let replayed = async {
        send(&mut here, said).await.unwrap();
        receive(&mut here).await.unwrap();
        send(&mut here, proof).await.unwrap();
    };
    let ((), greeted) = tokio::join!(replayed, greet(&mut there, &them, None, &[]));
    assert_eq!(
        greeted.err().unwrap(),
        HelloError::Signature { peer: name("a") }
    );
}

/// Somebody dials a hub that dials him, and sends back what it says.
#[tokio::test]
async fn a_reflected_hello_is_refused() {
    let ca = Ca::new();
    let a = name("a");
    let (at_a, _a) = ca.hub("a");
    let me = speaker(&a, &at_a);
    let (mut one, mut mirror) = pair().await;
    let reflects = async {
        let said = receive(&mut mirror).await.unwrap();
        send(&mut mirror, said).await.unwrap();
    };
    let (refused, ()) = tokio::join!(dial(&mut one, &me, None, None), reflects);
    assert_eq!(refused.unwrap_err(), HelloError::OwnAddress);

    // With another name put in, the proof that comes back is the dialler's own.
    let (mut one, mut mirror) = pair().await;
    let reflects = async {
        let said = receive(&mut mirror).await.unwrap();
        let mut theirs = read_hello(said).unwrap();
        theirs.replica = name("b");
        send(&mut mirror, hello_message(&theirs)).await.unwrap();
        let proof = receive(&mut mirror).await.unwrap();
        send(&mut mirror, proof).await.unwrap();
    };
    let (refused, ()) = tokio::join!(dial(&mut one, &me, None, None), reflects);
    assert_eq!(
        refused.unwrap_err(),
        HelloError::Signature { peer: name("b") }
    );
}

/// Somebody in between lowers what a hub says it speaks.
#[tokio::test]
async fn a_hello_that_was_changed_on_its_way_is_refused() {
    let ca = Ca::new();
    let (a, b) = (name("a"), name("b"));
    let ((at_a, _a), (at_b, _b)) = (ca.hub("a"), ca.hub("b"));
    let (mut here, mut near) = pair().await;
    let (mut far, mut there) = pair().await;
    let between = async {
        let mut hello = read_hello(receive(&mut near).await.unwrap()).unwrap();
        hello.features = hello.features.or(MeshFeatures(1 << 40));
        send(&mut far, hello_message(&hello)).await.unwrap();
        let back = receive(&mut far).await.unwrap();
        send(&mut near, back).await.unwrap();
        let proof = receive(&mut near).await.unwrap();
        send(&mut far, proof).await.unwrap();
        drop((near, far));
    };
    let (them, me) = (speaker(&b, &at_b), speaker(&a, &at_a));
    let (_, greeted, ()) = tokio::join!(
        dial(&mut here, &me, None, None),
        greet(&mut there, &them, None, &[]),
        between
    );
    assert_eq!(
        greeted.err().unwrap(),
        HelloError::Signature { peer: name("a") }
    );
}

#[tokio::test]
async fn a_certificate_that_was_only_copied_proves_nothing() {
    let ca = Ca::new();
    let (a, b) = (name("a"), name("b"));
    let ((at_a, _a), (at_b, _b), (at_m, _m)) = (ca.hub("a"), ca.hub("b"), ca.hub("mallory"));
    let (mut here, mut there) = pair().await;
    let me = speaker(&a, &at_m);
    let copied = async {
        let ours = me.hello(MeshFeatures::default());
        let said = hello_message(&ours);
        send(&mut here, said.clone()).await.unwrap();
        let heard = receive(&mut here).await.unwrap();
        let transcript = Transcript::new(&said, &heard, None);
        let mut proof = me.prove(&transcript, Part::Dialler).unwrap();
        proof.chain = vec![Bytes::copy_from_slice(&at_a.key.cert[0])];
        send(&mut here, proof_message(&proof)).await.unwrap();
    };
    let them = speaker(&b, &at_b);
    let ((), greeted) = tokio::join!(copied, greet(&mut there, &them, None, &[]));
    assert_eq!(
        greeted.err().unwrap(),
        HelloError::Signature { peer: name("a") }
    );
}

#[tokio::test]
async fn the_same_name_twice_is_told_from_the_same_hub() {
    let ca = Ca::new();
    let a = name("a");
    let (at_a, _a) = ca.hub("a");
    let second = Speaker {
        boot: 2,
        ..speaker(&a, &at_a)
    };
    let (one, _) = meet(&speaker(&a, &at_a), &speaker(&a, &at_a), (None, None), None).await;
    // The acceptor sees it first and closes without an answer.
    assert!(one.is_err());
    let (_, other) = meet(&speaker(&a, &at_a), &second, (None, None), None).await;
    assert_eq!(
        other.unwrap_err(),
        HelloError::OwnName { replica: name("a") }
    );
}
