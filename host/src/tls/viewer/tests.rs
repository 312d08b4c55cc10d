#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;
use crate::tls::looking::{pair, shown};

#[tokio::test]
async fn a_viewer_is_shown_the_certificate_of_the_name_that_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let (default, default_root) = pair(&folder, "hub.example");
    let (wild, wild_root) = pair(&folder, "*.example.com");
    let (shop, shop_root) = pair(&folder, "shop.example.com");
    let mut tls = HttpTls {
        default: Some(default),
        certificates: vec![wild, shop],
    };
    let port = ViewerTls::load(&tls, None, &["http/1.1"], &Issued::new()).unwrap();
    for (name, root) in [
        ("hub.example", &default_root),
        ("blog.example.com", &wild_root),
        ("shop.example.com", &shop_root),
        ("other.test", &default_root),
    ] {
        assert_eq!(shown(&port, name).await.unwrap(), *root, "{name}");
    }
    tls.default = None;
    let port = ViewerTls::load(&tls, None, &["http/1.1"], &Issued::new()).unwrap();
    assert_eq!(shown(&port, "shop.example.com").await.unwrap(), shop_root);
    let refused = shown(&port, "other.test").await.unwrap_err();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    let nameless = shown(&port, "192.0.2.1").await.unwrap_err();
    assert!(nameless.contains("UnrecognisedName"), "{nameless}");
}

#[tokio::test]
async fn a_handshake_is_bounded_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let (default, _) = pair(&folder, "hub.example");
    let tls = HttpTls {
        default: Some(default),
        certificates: Vec::new(),
    };
    let port = ViewerTls::load(&tls, None, &[], &Issued::new()).unwrap();
    let (server, _silent) = tokio::io::duplex(1024);
    let error = port.accept(server, Duration::from_millis(20)).await;
    assert!(matches!(error, Err(TlsError::Timeout { .. })));
}
