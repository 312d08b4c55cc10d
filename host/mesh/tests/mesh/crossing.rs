//! Hubs that dial each other at the same time keep one link.

use std::time::Duration;

use nowconnect_mesh::PeerUrl;

use crate::authority::{Authority, Files};
use crate::hub::{Hub, until};

#[tokio::test]
async fn of_links_that_cross_both_hubs_keep_the_same_one() {
    let authority = Authority::new("mesh");
    for round in 0..5 {
        let mut a = Hub::start("a", Files::signed(&authority, "a"), &[]).await;
        let mut b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
        let (to_a, to_b) = (a.url(), b.url());
        a.update(|settings| settings.peers = vec![PeerUrl::parse(&to_b).unwrap()]);
        b.update(|settings| settings.peers = vec![PeerUrl::parse(&to_a).unwrap()]);
        let settled = || {
            let (a, b) = (a.view("b"), b.view("a"));
            match (
                a.and_then(|view| view.dialled),
                b.and_then(|view| view.dialled),
            ) {
                // The same link: one end dialled it and the other did not.
                (Some(at_a), Some(at_b)) => at_a != at_b,
                (_, _) => false,
            }
        };
        until("both keep one link", settled).await;
        let alive = |hub: &Hub| {
            let notes = hub.notes.0.lock();
            notes.links.len() - notes.ends.len()
        };
        until("the other one is gone", || alive(&a) == 1 && alive(&b) == 1).await;
        // It is not left at the next look either: nobody dials while it stands.
        let stood = (a.links(), b.links());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(settled(), "round {round}");
        assert_eq!((a.links(), b.links()), stood, "round {round}");
    }
}

#[tokio::test]
async fn a_restarted_peer_is_let_in_while_its_predecessor_is_not_missed_yet() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let first = Hub::start("a", Files::signed(&authority, "a"), &[b.url()]).await;
    b.linked("a").await;
    let before = b.notes.0.lock().links[0].theirs.boot;
    let second = Hub::start("a", Files::signed(&authority, "a"), &[b.url()]).await;
    until("the newer process has the link", || {
        let notes = b.notes.0.lock();
        notes.links.last().unwrap().theirs.boot != before
    })
    .await;
    drop((first, second));
}
