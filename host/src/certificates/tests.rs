//! What ports show of what is issued, and what they answer an authority.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use super::issued::{Issued, Standing};
use super::{ACME_TLS, order};
use crate::config::HttpTls;
use crate::tls::ViewerTls;
use crate::tls::looking::{pair, shown, shown_to};

/// A port with a default certificate and one for a wildcard, and what is issued beside.
fn port(folder: &TempDir) -> (ViewerTls, Arc<Issued>) {
    let tls = HttpTls {
        default: Some(pair(folder, "hub.example").0),
        certificates: vec![pair(folder, "*.example.com").0],
    };
    let issued = Issued::new();
    issued.set_wait(Duration::from_secs(30));
    (
        ViewerTls::load(&tls, None, &["http/1.1"], &issued).unwrap(),
        issued,
    )
}

fn publish(issued: &Issued, name: &str, standing: Standing) {
    let names = FxHashMap::from_iter([(Arc::from(name), standing)]);
    issued.publish(names, Vec::new());
}

fn held(folder: &TempDir, name: &str) -> (Standing, CertificateDer<'static>) {
    let (files, certificate) = pair(folder, name);
    let text = |path| std::fs::read_to_string(path).unwrap();
    let now = std::time::SystemTime::now();
    let fresh = order::usable(name, &text(files.cert_file), &text(files.key_file), now);
    (Standing::Held(fresh.unwrap().key), certificate)
}

#[tokio::test]
async fn what_is_issued_comes_before_a_wildcard_and_never_falls_back_to_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let (port, issued) = port(&folder);
    let (standing, certificate) = held(&folder, "shop.example.com");
    publish(&issued, "shop.example.com", standing);
    assert_eq!(shown(&port, "Shop.Example.com").await.unwrap(), certificate);

    publish(&issued, "shop.test", Standing::Missing);
    let refused = shown(&port, "shop.test").await.unwrap_err();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    assert!(shown(&port, "other.test").await.is_ok(), "the default");
}

#[tokio::test]
async fn a_handshake_goes_on_when_the_first_certificate_comes() {
    let folder = tempfile::tempdir().unwrap();
    let (port, issued) = port(&folder);
    publish(&issued, "shop.test", Standing::Coming);
    let (standing, certificate) = held(&folder, "shop.test");
    let arrives = async {
        tokio::task::yield_now().await;
        publish(&issued, "shop.test", standing);
    };
    let (seen, ()) = tokio::join!(shown(&port, "shop.test"), arrives);
    assert_eq!(seen.unwrap(), certificate);
}

#[tokio::test]
async fn an_authority_is_answered_for_names_that_it_was_told_to_look_at() {
    let folder = tempfile::tempdir().unwrap();
    let (port, issued) = port(&folder);
    let digest = [7; 32];
    let offer = issued.challenges().offer_tls("shop.test", &digest).unwrap();
    let seen = shown_to(&port, "shop.test", ACME_TLS).await.unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&seen).unwrap();
    let extension = parsed
        .extensions()
        .iter()
        .find(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
        .unwrap();
    assert!(extension.critical && extension.value.ends_with(&digest));
    // Viewers never see it, and nobody else is answered by it.
    assert_ne!(shown(&port, "shop.test").await.unwrap(), seen);
    for name in ["other.test", "hub.example", "a.example.com"] {
        let refused = shown_to(&port, name, ACME_TLS).await.unwrap_err();
        assert!(refused.contains("UnrecognisedName"), "{name}: {refused}");
    }
    drop(offer);
    assert!(shown_to(&port, "shop.test", ACME_TLS).await.is_err());
}

#[test]
fn only_a_pair_for_the_name_that_has_not_ended_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = pair(&folder, "shop.test");
    let (other, _) = pair(&folder, "other.test");
    let text = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    let (chain, key) = (text(&files.cert_file), text(&files.key_file));
    let now = std::time::SystemTime::now();
    assert!(order::usable("shop.test", &chain, &key, now).is_ok());
    let far = now + Duration::from_secs(5_000 * 365 * 86_400);
    for (what, name, chain, key, at) in [
        ("another name", "other.test", &chain, &key, now),
        (
            "another key",
            "shop.test",
            &chain,
            &text(&other.key_file),
            now,
        ),
        ("no chain", "shop.test", &String::new(), &key, now),
        ("it has ended", "shop.test", &chain, &key, far),
    ] {
        let error = order::usable(name, chain, key, at).err();
        let error = error.unwrap_or_else(|| panic!("{what} is used"));
        assert!(!error.message.contains("PRIVATE"), "{}", error.message);
    }
}
