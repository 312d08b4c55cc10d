//! Peers that are not who they say, say nothing, or say too much. What needs the mesh's own codec
//! stands beside it.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::{SinkExt as _, StreamExt as _};
use nowconnect_mesh::limits::{MAX_HANDSHAKES_PER_SOURCE, MAX_HELLO_BYTES};
use nowconnect_mesh::{CloseCode, LinkState, MeshSettings};
use nowconnect_protocol::mesh::{MeshFeatures, MeshFrame, MeshHello, MeshProof, decode, encode};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::authority::{Authority, Files, Leaf};
use crate::hub::{Hub, LONG, name, settings, until};
use crate::raw;

fn message(frame: &MeshFrame) -> Message {
    let mut out = BytesMut::new();
    encode(frame, &mut out);
    Message::Binary(out.freeze())
}

/// What the hub says when it closes.
async fn closed<S>(ws: &mut tokio_tungstenite::WebSocketStream<S>) -> Option<CloseCode>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let heard = async {
        loop {
            match ws.next().await {
                Some(Ok(Message::Close(frame))) => {
                    return CloseCode::of_number(frame?.code.into());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    };
    tokio::time::timeout(LONG, heard).await.unwrap()
}

#[tokio::test]
async fn a_hub_of_another_authority_is_refused_at_both_ends() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let b = Hub::start("b", Files::signed(&ours, "b"), &[]).await;
    // It trusts us, so that it comes as far as showing its own certificate.
    let files = Files::signed(&theirs, "a");
    files.write_roots(&[&ours]);
    let a = Hub::start("a", files, &[b.url()]).await;
    until("it is turned away", || {
        b.notes.0.lock().turned_away.contains(&"tls")
    })
    .await;
    assert_eq!(a.links() + b.links(), 0);

    let stranger = Hub::start("c", Files::signed(&theirs, "c"), &[b.url()]).await;
    let label = b.address.to_string();
    until("it does not trust us either", || {
        stranger
            .notes
            .0
            .lock()
            .failed
            .contains(&(label.clone(), "tls"))
    })
    .await;
    assert_eq!(stranger.state(&label), Some(LinkState::Backoff));
}

#[tokio::test]
async fn an_expired_leaf_is_refused() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let files = Files::signed(&authority, "a");
    files.write_leaf(
        &authority,
        &Leaf {
            ends_in: -60,
            ..Leaf::of("a")
        },
    );
    let a = Hub::start("a", files, &[b.url()]).await;
    until("it is turned away", || {
        !b.notes.0.lock().turned_away.is_empty()
    })
    .await;
    assert_eq!(a.links() + b.links(), 0);
}

#[tokio::test]
async fn whoever_has_no_certificate_gets_no_further_than_the_hello() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let stream = raw::tls(b.address, &authority, None).await;
    let mut ws = raw::upgrade(stream, "/mesh", &[]).await.unwrap();
    let hello = MeshFrame::Hello(Box::new(MeshHello {
        ver_min: 1,
        ver_max: 1,
        features: MeshFeatures::default(),
        replica: name("a"),
        boot: 1,
        nonce: [7; 32],
        max_data_payload: 1,
        flow_window: 1,
        release: String::new(),
    }));
    ws.send(message(&hello)).await.unwrap();
    let mut answer = ws.next().await.unwrap().unwrap().into_data();
    let answer = decode(&mut answer).unwrap().unwrap();
    assert!(matches!(answer, MeshFrame::Hello(theirs) if theirs.replica == b.name));
    let empty = MeshFrame::Proof(Box::new(MeshProof {
        scheme: 0,
        chain: Vec::new(),
        signature: Vec::new().into(),
    }));
    ws.send(message(&empty)).await.unwrap();
    assert_eq!(closed(&mut ws).await, Some(CloseCode::Unproven));
    assert_eq!(b.links(), 0);
    assert_eq!(b.notes.0.lock().turned_away, ["unproven"]);
}

#[tokio::test]
async fn a_message_beyond_the_bound_or_of_another_kind_ends_it() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    for (message, code) in [
        (
            Message::Binary(vec![0x40; MAX_HELLO_BYTES + 1].into()),
            CloseCode::TooLarge,
        ),
        (Message::Text("hello".into()), CloseCode::ProtocolError),
        (
            Message::Binary(vec![0x41, 0, 0, 0].into()),
            CloseCode::ProtocolError,
        ),
        (Message::Binary(Vec::new().into()), CloseCode::ProtocolError),
    ] {
        let stream = raw::tls(b.address, &authority, None).await;
        let mut ws = raw::upgrade(stream, "/mesh", &[]).await.unwrap();
        ws.send(message).await.unwrap();
        assert_eq!(closed(&mut ws).await, Some(code));
    }
    assert_eq!(b.links(), 0);
}

#[tokio::test]
async fn another_path_or_subprotocol_is_no_mesh() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let stream = raw::tls(b.address, &authority, None).await;
    let refused = raw::upgrade(stream, "/tunnel", &[]).await.unwrap_err();
    assert!(matches!(refused, WsError::Http(answer) if answer.status() == 404));
    let stream = raw::tls(b.address, &authority, None).await;
    let other = [("sec-websocket-protocol", "nowconnect.v1")];
    let refused = raw::upgrade(stream, "/mesh", &other).await.unwrap_err();
    assert!(matches!(refused, WsError::Http(answer) if answer.status() == 400));
}

#[tokio::test]
async fn plain_text_is_refused_where_proof_is_asked_for() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let stream = TcpStream::connect(b.address).await.unwrap();
    let refused = raw::upgrade(stream, "/mesh", &[]).await.unwrap_err();
    assert!(matches!(refused, WsError::Http(answer) if answer.status() == 403));
}

/// Peers that connect and say nothing hold places, and only so many, and not for ever.
#[tokio::test]
async fn the_silent_are_bounded_and_sent_away() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let mut b = b;
    b.update(|settings| settings.handshake_timeout = Duration::from_secs(2));
    let mut silent = Vec::new();
    for _ in 0..=MAX_HANDSHAKES_PER_SOURCE {
        silent.push(TcpStream::connect(b.address).await.unwrap());
    }
    until("one is turned away at once", || {
        b.notes.0.lock().turned_away.contains(&"crowded")
    })
    .await;
    for mut stream in silent {
        let gone = tokio::time::timeout(LONG, stream.read(&mut [0]))
            .await
            .unwrap();
        assert!(matches!(gone, Ok(0) | Err(_)));
    }
    let places = |code| {
        let notes = b.notes.0.lock();
        notes
            .turned_away
            .iter()
            .filter(|told| **told == code)
            .count()
    };
    assert_eq!(
        (places("timeout"), places("crowded")),
        (MAX_HANDSHAKES_PER_SOURCE, 1)
    );
    // Their places are free again.
    let a = Hub::start("a", Files::signed(&authority, "a"), &[b.url()]).await;
    a.linked("b").await;
}

/// An address that takes connections and never answers costs one dial at a time.
#[tokio::test]
async fn a_silent_address_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let authority = Authority::new("mesh");
    let url = format!("wss://{address}/mesh");
    let mut a = Hub::start("a", Files::signed(&authority, "a"), &[]).await;
    a.update(|settings| {
        settings.handshake_timeout = Duration::from_millis(300);
        settings.peers = vec![nowconnect_mesh::PeerUrl::parse(&url).unwrap()];
    });
    let label = address.to_string();
    until("the dial is given up", || {
        a.notes
            .0
            .lock()
            .failed
            .contains(&(label.clone(), "timeout"))
    })
    .await;
}

/// Without proof a hub is who it says: that has to be asked for in so many words.
#[tokio::test]
async fn unproven_hubs_link_only_where_both_allow_it() {
    let port = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let open = |peers: &[String]| MeshSettings {
        require_proof: false,
        ..settings(peers)
    };
    let b = Hub::start_at("b", port().await, open(&[]), None);
    let url = format!("ws://{}/mesh", b.address);
    let a = Hub::start_at("a", port().await, open(std::slice::from_ref(&url)), None);
    a.linked("b").await;
    assert_eq!(a.view("b").unwrap().proven, Some(false));
    assert_eq!(a.view("b").unwrap().not_after, None);

    let strict = Hub::start_at("c", port().await, settings(&[url]), None);
    let label = b.address.to_string();
    until("it does not even dial", || {
        strict
            .notes
            .0
            .lock()
            .failed
            .contains(&(label.clone(), "config"))
    })
    .await;
    let authority = Authority::new("mesh");
    let strict = Hub::start("d", Files::signed(&authority, "d"), &[]).await;
    let url = format!("ws://{}/mesh", strict.address);
    let e = Hub::start_at("e", port().await, open(&[url]), None);
    let label = strict.address.to_string();
    until("it is refused", || {
        e.notes
            .0
            .lock()
            .failed
            .contains(&(label.clone(), "upgrade"))
    })
    .await;
    assert_eq!(strict.links(), 0);
}
