//! Hubs that find each other through the registry.

use nowconnect_mesh::{AllowRule, LinkState, replica_uri};
use nowconnect_registry::{HaMode, HubPresence, Joined, Seen};

use crate::authority::{Authority, Files};
use crate::hub::{Hub, name, until};

fn presence(hub: &Hub, replica: &str) -> HubPresence {
    HubPresence {
        replica: name(replica),
        boot: 1,
        address: hub.url(),
        certificate: replica_uri(&name(replica)),
        version: String::new(),
        mode: HaMode::Shadow,
        generation: String::new(),
    }
}

fn seen(others: Vec<HubPresence>) -> Seen {
    Seen {
        joined: Joined::Yes,
        others,
    }
}

#[tokio::test]
async fn a_hub_from_the_registry_is_linked_once_a_rule_allows_it_and_left_once_it_is_gone() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let mut a = Hub::start("a", Files::signed(&authority, "a"), &[]).await;
    a.seen.send_replace(seen(vec![presence(&b, "b")]));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(a.mesh.peers(), [], "no rule allows it");
    a.update(|settings| settings.allow = vec![AllowRule::parse("127.0.0.0/8").unwrap()]);
    a.linked("b").await;

    // Its presence is lost while it lives: the link may stay.
    a.seen.send_replace(seen(Vec::new()));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    a.linked("b").await;
    drop(b);
    until("it is not dialled any more", || {
        a.state("b") == Some(LinkState::Closed)
    })
    .await;
    assert!(
        a.notes
            .0
            .lock()
            .failed
            .iter()
            .all(|(_, code)| *code == "broken")
    );
}

#[tokio::test]
async fn the_registry_cannot_pass_one_hub_off_as_another() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let mut a = Hub::start("a", Files::signed(&authority, "a"), &[]).await;
    a.update(|settings| settings.allow = vec![AllowRule::parse("127.0.0.0/8").unwrap()]);
    a.seen.send_replace(seen(vec![presence(&b, "c")]));
    until("it is refused", || {
        a.notes
            .0
            .lock()
            .failed
            .contains(&("c".to_owned(), "wrong_hub"))
    })
    .await;
    assert!(!a.mesh.is_linked(&name("c")) && !a.mesh.is_linked(&name("b")));
    assert_eq!(b.links(), 0, "nobody was proven to it either");
}

#[tokio::test]
async fn a_hub_whose_name_is_taken_neither_dials_nor_takes_links() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let taken = Seen {
        joined: Joined::NameTaken,
        others: Vec::new(),
    };
    b.seen.send_replace(taken);
    let a = Hub::start("a", Files::signed(&authority, "a"), &[b.url()]).await;
    until("it is turned away", || {
        !b.notes.0.lock().turned_away.is_empty()
    })
    .await;
    assert_eq!(a.links() + b.links(), 0);
    b.seen.send_replace(seen(Vec::new()));
    a.linked("b").await;
}
