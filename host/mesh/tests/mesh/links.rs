//! Links that stand, end and come again.

use nowconnect_mesh::{CloseCode, LinkEnd, LinkState};
use tokio::net::TcpListener;

use crate::authority::{Authority, Files};
use crate::hub::{Hub, name, settings, until};

#[tokio::test]
async fn two_hubs_link_prove_themselves_and_carry_messages_both_ways() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let a = Hub::start("a", Files::signed(&authority, "a"), &[b.url()]).await;
    a.linked("b").await;
    b.linked("a").await;
    for (hub, peer) in [(&a, "b"), (&b, "a")] {
        until("the peer's flows are heard", || {
            hub.notes.0.lock().heard
                == [(name(peer), format!("flows of {peer}").into_bytes().into())]
        })
        .await;
        let notes = hub.notes.0.lock();
        let link = &notes.links[0];
        assert_eq!(link.theirs.replica, name(peer));
        assert_eq!(link.theirs.release, format!("release of {peer}"));
        assert_eq!(link.version, 1);
        assert_eq!(link.dialled, peer == "b");
    }
    let view = a.view("b").unwrap();
    assert_eq!(view.proven, Some(true));
    assert_eq!(view.dialled, Some(true));
    assert_eq!(view.address, Some(b.url()));
    assert!(view.not_after.is_some());
    assert_eq!(b.view("a").unwrap().dialled, Some(false));
}

#[tokio::test]
async fn a_hub_that_leaves_says_so_and_its_return_is_noticed() {
    let authority = Authority::new("mesh");
    let mut b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let a = Hub::start("a", Files::signed(&authority, "a"), &[b.url()]).await;
    a.linked("b").await;
    b.linked("a").await;
    let address = b.address;
    b.shutdown().await;
    until("the end is told", || {
        a.notes.0.lock().ends == [LinkEnd::ByPeer(CloseCode::Leaving)]
    })
    .await;
    drop(b);
    until("the circuit is open", || {
        let view = a.view("b").unwrap();
        view.state == LinkState::Backoff && view.failures > 0
    })
    .await;
    assert!(!a.mesh.is_linked(&name("b")));

    let files = Files::signed(&authority, "b");
    let port = TcpListener::bind(address).await.unwrap();
    let again = nowconnect_mesh::MeshSettings {
        credentials: Some(files.load("b")),
        ..settings(&[])
    };
    let b = Hub::start_at("b", port, again, Some(files));
    a.linked("b").await;
    b.linked("a").await;
    assert_eq!(a.notes.0.lock().reconnected, ["b"]);
    assert_eq!(a.view("b").unwrap().failures, 0);
}

#[tokio::test]
async fn an_address_that_leads_back_to_the_hub_is_left_alone() {
    let authority = Authority::new("mesh");
    let mut a = Hub::start("a", Files::signed(&authority, "a"), &[]).await;
    let own = a.url();
    a.update(|settings| {
        settings.peers = vec![nowconnect_mesh::PeerUrl::parse(&own).unwrap()];
    });
    let label = a.address.to_string();
    until("it is closed", || {
        a.state(&label) == Some(LinkState::Closed)
    })
    .await;
    assert!(
        a.view(&label)
            .unwrap()
            .last_error
            .unwrap()
            .contains("back to this hub")
    );
    assert!(a.notes.0.lock().failed.is_empty());
}

#[tokio::test]
async fn peers_come_and_go_with_the_configuration() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let c = Hub::start("c", Files::signed(&authority, "c"), &[]).await;
    let mut a = Hub::start("a", Files::signed(&authority, "a"), &[b.url()]).await;
    a.linked("b").await;
    let url = nowconnect_mesh::PeerUrl::parse(&c.url()).unwrap();
    a.update(|settings| settings.peers.push(url.clone()));
    a.linked("c").await;
    assert_eq!(a.links(), 2, "the link that stood is the same");
    a.update(|settings| settings.peers = vec![url]);
    until("the link to b is closed", || {
        b.notes.0.lock().ends == [LinkEnd::ByPeer(CloseCode::Removed)]
    })
    .await;
    assert_eq!(a.state("b"), Some(LinkState::Closed));
    assert_eq!(a.state("c"), Some(LinkState::Established));
}

#[tokio::test]
async fn nobody_there_is_a_failure_that_is_told_and_retried() {
    let authority = Authority::new("mesh");
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let url = format!("wss://{address}/mesh");
    let a = Hub::start("a", Files::signed(&authority, "a"), &[url]).await;
    let label = address.to_string();
    until("it is tried again", || {
        a.view(&label).is_some_and(|view| view.failures >= 3)
    })
    .await;
    let failed = a.notes.0.lock().failed.clone();
    assert!(
        failed
            .iter()
            .all(|(peer, code)| *peer == label && *code == "connect"),
        "{failed:?}"
    );
}
