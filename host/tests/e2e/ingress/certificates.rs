//! Which certificate a viewer is shown, and what happens when files change.

use std::slice::from_ref;

use super::{PERMIT_HTTP, web};
use crate::cluster::tls::{shown_as, write_pair_for};
use crate::cluster::{TestHub, eventually, hub};

/// A hub with a TLS port `web` that has three certificates, and files beside it to begin with.
async fn port_with_three(watched: bool) -> TestHub {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = hub().policy_file("http.cedar", PERMIT_HTTP).top(
        "ingress:\n  listeners:\n    - name: web\n      bind: \"127.0.0.1:0\"\n      tls:\n        \
         cert_file: default.pem\n        key_file: default.key\n        certificates:\n          \
         - {cert_file: wild.pem, key_file: wild.key}\n          \
         - {cert_file: shop.pem, key_file: shop.key}",
    );
    for (file, name) in [
        ("default", "hub.example"),
        ("wild", "*.example.com"),
        ("shop", "shop.example.com"),
    ] {
        write_pair_for(folder.path(), file, name);
        for file in [format!("{file}.pem"), format!("{file}.key")] {
            let bytes = std::fs::read(folder.path().join(&file)).unwrap();
            plan = plan.file(&file, bytes);
        }
    }
    if watched {
        plan = plan.watched();
    }
    plan.start().await
}

/// The name of the file whose certificate a viewer sees who asks for this name.
async fn shown_file(hub: &TestHub, name: &str) -> String {
    let files = ["default", "wild", "shop"];
    let certificates =
        files.map(|file| crate::cluster::tls::certificate(&hub.path(&format!("{file}.pem"))));
    match shown_as(web(hub), name, &certificates).await {
        Ok(shown) => {
            let file = certificates.iter().position(|one| *one == shown);
            files[file.unwrap()].to_owned()
        }
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn each_name_has_its_certificate_and_a_new_file_is_shown_at_once() {
    let hub = port_with_three(true).await;
    assert_eq!(shown_file(&hub, "hub.example").await, "default");
    assert_eq!(shown_file(&hub, "blog.example.com").await, "wild");
    assert_eq!(shown_file(&hub, "shop.example.com").await, "shop");
    write_pair_for(&hub.path(""), "shop", "shop.example.com");
    eventually("the new one is shown", || async {
        shown_file(&hub, "shop.example.com").await == "shop"
    })
    .await;
    assert_eq!(shown_file(&hub, "blog.example.com").await, "wild");
}

#[tokio::test]
async fn a_broken_file_leaves_every_certificate_in_force_and_is_told() {
    let hub = port_with_three(false).await;
    let shop = crate::cluster::tls::certificate(&hub.path("shop.pem"));
    let new = write_pair_for(&hub.path(""), "wild", "*.example.com");
    let good = std::fs::read(hub.path("shop.pem")).unwrap();
    std::fs::write(hub.path("shop.pem"), &good[..good.len() / 2]).unwrap();
    let report = hub.reload().await;
    assert!(!report.ok, "{report:?}");
    assert!(
        report.errors[0].contains("HTTP listener `web`"),
        "{report:?}"
    );
    assert!(report.errors[0].contains("shop.pem"), "{report:?}");
    let served = shown_as(web(&hub), "shop.example.com", from_ref(&shop)).await;
    assert_eq!(served.unwrap(), shop);
    let of_wild = shown_as(web(&hub), "blog.example.com", from_ref(&new)).await;
    assert!(of_wild.is_err(), "a part of a refused reload is in force");
    assert!(hub.get("/readyz").await.1.contains("ingress_stale"));

    std::fs::write(hub.path("shop.pem"), good).unwrap();
    assert!(hub.reload().await.ok);
    let of_wild = shown_as(web(&hub), "blog.example.com", from_ref(&new)).await;
    assert_eq!(of_wild.unwrap(), new);
}
