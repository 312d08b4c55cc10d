//! Certificates that are renewed, replaced, or worth nothing.

use nowconnect_mesh::{CloseCode, Credentials, CredentialsError, LinkEnd};
use rcgen::ExtendedKeyUsagePurpose;

use crate::authority::{Authority, Files, Leaf};
use crate::hub::{Hub, name, until};

/// The runbook of a rotation, step by step: at no moment is there no link, and none is cut.
#[tokio::test]
async fn an_authority_is_replaced_without_losing_a_link() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mut b = Hub::start("b", Files::signed(&old, "b"), &[]).await;
    let mut a = Hub::start("a", Files::signed(&old, "a"), &[b.url()]).await;
    a.linked("b").await;
    // 1. Both bundles hold both authorities.
    for hub in [&mut a, &mut b] {
        hub.reload(|files| files.write_roots(&[&old, &new]));
    }
    // 2. One hub after the other gets a certificate of the new one.
    b.reload(|files| files.write_leaf(&new, &Leaf::of("b")));
    a.reload(|files| files.write_leaf(&new, &Leaf::of("a")));
    assert_eq!(a.notes.0.lock().ends, []);
    assert_eq!(a.links(), 1, "the link that stood is untouched");
    // New handshakes show the new ones.
    let c = Hub::start("c", Files::signed(&new, "c"), &[a.url(), b.url()]).await;
    c.linked("a").await;
    c.linked("b").await;
    // 3. The old one leaves the bundles: what still stands by it ends and comes again.
    for hub in [&mut a, &mut b] {
        hub.reload(|files| files.write_roots(&[&new]));
    }
    until("the link is made anew", || a.links() >= 3).await;
    a.linked("b").await;
    b.linked("a").await;
}

#[tokio::test]
async fn a_link_is_renewed_before_its_certificate_ends() {
    let authority = Authority::new("mesh");
    let files = Files::signed(&authority, "b");
    files.write_leaf(
        &authority,
        &Leaf {
            ends_in: 6,
            ..Leaf::of("b")
        },
    );
    let mut b = Hub::start("b", files, &[]).await;
    let a = Hub::start("a", Files::signed(&authority, "a"), &[b.url()]).await;
    a.linked("b").await;
    let first = a.view("b").unwrap().not_after.unwrap();
    b.reload(|files| files.write_leaf(&authority, &Leaf::of("b")));
    until("the link has the new certificate", || {
        let view = a.view("b").unwrap();
        // It stands at every look: the new one is there before the old one goes.
        assert_eq!(view.dialled, Some(true));
        view.not_after > Some(first)
    })
    .await;
    until("the old one was replaced", || {
        !a.notes.0.lock().ends.is_empty()
    })
    .await;
    for end in &a.notes.0.lock().ends {
        let replaced = [
            LinkEnd::ByUs(CloseCode::Replaced),
            LinkEnd::ByPeer(CloseCode::Replaced),
        ];
        assert!(replaced.contains(end), "{end}");
    }
}

#[tokio::test]
async fn a_link_does_not_outlive_its_certificate() {
    let authority = Authority::new("mesh");
    let files = Files::signed(&authority, "b");
    files.write_leaf(
        &authority,
        &Leaf {
            ends_in: 3,
            ..Leaf::of("b")
        },
    );
    let b = Hub::start("b", files, &[]).await;
    let a = Hub::start("a", Files::signed(&authority, "a"), &[b.url()]).await;
    a.linked("b").await;
    until("it ends", || !a.mesh.is_linked(&name("b"))).await;
    until("and cannot be made again", || {
        a.view("b").is_some_and(|view| view.failures > 0)
    })
    .await;
    assert!(!a.mesh.is_linked(&name("b")));
}

#[test]
fn files_that_do_not_belong_together_are_told_apart() {
    let authority = Authority::new("mesh");
    let files = Files::signed(&authority, "b");
    let paths = files.mesh_files();
    let refused = || Credentials::load(&paths, &name("b")).unwrap_err();
    std::fs::write(&paths.key_file, "no key").unwrap();
    let error = refused().to_string();
    assert!(
        error.contains("hub.key") && error.contains("no private key"),
        "{error}"
    );
    let (_, other) = authority.sign(&Leaf::of("b"));
    std::fs::write(&paths.key_file, other).unwrap();
    assert!(matches!(refused(), CredentialsError::Mismatch { .. }));
    files.write_leaf(&authority, &Leaf::of("z"));
    let error = refused().to_string();
    assert!(
        error.contains("hub `z`") && error.contains("`ha.replica_id`"),
        "{error}"
    );
    files.write_leaf(&authority, &Leaf::of("b"));
    std::fs::write(&paths.ca_bundle, "").unwrap();
    let error = refused().to_string();
    assert!(
        error.contains("ca.pem") && error.contains("no certificate"),
        "{error}"
    );
}

#[test]
fn a_certificate_has_to_name_its_hub_and_nothing_else() {
    let authority = Authority::new("mesh");
    for (uris, expected) in [
        (vec![], "names no hub"),
        (
            vec!["nowconnect://replica/b", "nowconnect://replica/c"],
            "names several hubs",
        ),
        (vec!["nowconnect://agent/b"], "does not begin with"),
        (vec!["nowconnect://replica/"], "must not be empty"),
        (vec!["nowconnect://replica/b/c"], "is not allowed"),
    ] {
        let files = Files::signed(&authority, "b");
        let uris = uris.into_iter().map(str::to_owned).collect();
        files.write_leaf(
            &authority,
            &Leaf {
                uris,
                ..Leaf::of("b")
            },
        );
        let error = Credentials::load(&files.mesh_files(), &name("b")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_for_servers_alone_does_not_dial() {
    let authority = Authority::new("mesh");
    let b = Hub::start("b", Files::signed(&authority, "b"), &[]).await;
    let files = Files::signed(&authority, "a");
    let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    files.write_leaf(
        &authority,
        &Leaf {
            usages,
            ..Leaf::of("a")
        },
    );
    let a = Hub::start("a", files, &[b.url()]).await;
    until("it is refused", || !b.notes.0.lock().turned_away.is_empty()).await;
    assert_eq!(a.links() + b.links(), 0);
}
