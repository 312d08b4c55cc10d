//! Files by which viewers are known, and that one of them with a mistake holds up nothing else.

use tokio::time::timeout;

use super::viewers::{ANN, ANN_SHOWS, PERMIT_VIEWERS};
use super::{PERMIT_HTTP, web};
use crate::cluster::web::{Message, Web, ask, get, origin};
use crate::cluster::{HubPlan, SOON, TestHub, hub, tls};

/// `eve` with the password of `ann`.
fn eve() -> String {
    ANN.replace("ann:", "eve:")
}

const EVE_SHOWS: &str = "Basic ZXZlOm9wZW4gc2VzYW1l";

/// `staff` knows `ann`, `partners` knows `eve` and `ann`; the port `safe` has a certificate of its
/// own.
fn plan() -> HubPlan {
    let top = "ingress:\n  listeners:\n    - {name: web, bind: \"127.0.0.1:0\"}\n    \
        - name: safe\n      bind: \"127.0.0.1:0\"\n      \
        tls: {cert_file: web.pem, key_file: web.key}\n  routes:\n    \
        - {name: admin, host: admin.example.com, connector: shop, viewer_auth: staff}\n    \
        - {name: files, host: files.example.com, connector: shop, viewer_auth: partners}\n    \
        - {name: open, host: open.example.com, connector: shop, public: true}\n  viewer_auth:\n    \
        - {name: staff, ways: [{basic: {users_file: users}}]}\n    \
        - {name: partners, ways: [{basic: {users_file: partners}}]}\n";
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    hub()
        .policy_file("http.cedar", PERMIT_HTTP)
        .policy_file("viewers.cedar", PERMIT_VIEWERS)
        .file("users", ANN)
        .file("partners", format!("{ANN}{}", eve()))
        .file("web.pem", pair.cert.pem())
        .file("web.key", pair.signing_key.serialize_pem())
        .top(top)
}

#[tokio::test]
async fn a_mistake_in_one_file_holds_up_no_other() {
    let origin = origin(&[]).await;
    let hub = plan().start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    assert_eq!(status(&hub, "files", EVE_SHOWS).await, 200);

    std::fs::write(hub.path("users"), format!("# people\n{ANN}bob:$2y$05$x\n")).unwrap();
    std::fs::write(hub.path("partners"), ANN).unwrap();
    let next = tls::write_pair_for(hub.path("web.pem").parent().unwrap(), "web", "localhost");
    let report = hub.reload().await;
    assert!(!report.ok && report.recheck.is_some(), "{report:?}");
    assert!(
        report.errors.len() == 1 && report.errors[0].contains("`staff`"),
        "{report:?}"
    );
    assert!(report.errors[0].contains("line 3"), "{report:?}");

    // Whoever was taken out of the other file is out, and the new certificate is shown.
    assert_eq!(status(&hub, "files", EVE_SHOWS).await, 401);
    assert_eq!(status(&hub, "files", ANN_SHOWS).await, 200);
    let safe = hub.address("safe");
    assert_eq!(
        tls::shown(safe, std::slice::from_ref(&next)).await.unwrap(),
        next
    );
    // The set with the mistake keeps what it knew.
    assert_eq!(status(&hub, "admin", ANN_SHOWS).await, 200);
    let (_, ready) = hub.get("/readyz").await;
    assert!(
        ready.contains("degraded") && ready.contains("ingress_stale"),
        "{ready}"
    );
    assert!(hub.metrics().contains("nowconnect_http_stale_files 1"));

    // A certificate that cannot be read holds up no user either.
    std::fs::write(hub.path("users"), ANN).unwrap();
    std::fs::write(hub.path("partners"), eve()).unwrap();
    std::fs::write(hub.path("web.key"), "none").unwrap();
    let report = hub.reload().await;
    assert!(
        report.errors.len() == 1 && report.errors[0].contains("`safe`"),
        "{report:?}"
    );
    assert_eq!(status(&hub, "files", ANN_SHOWS).await, 401);
    assert_eq!(
        tls::shown(safe, std::slice::from_ref(&next)).await.unwrap(),
        next
    );

    tls::write_pair_for(hub.path("web.pem").parent().unwrap(), "web", "localhost");
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    let (_, ready) = hub.get("/readyz").await;
    assert!(ready.contains("\"ready\""), "{ready}");
    assert!(hub.metrics().contains("nowconnect_http_stale_files 0"));
}

/// What the operator writes anew is in force as a whole or not at all.
#[tokio::test]
async fn a_configuration_that_names_a_file_with_a_mistake_is_refused() {
    let origin = origin(&[]).await;
    let mut hub = plan().file("more", "ann:open sesame").start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let changed = std::fs::read_to_string(hub.path("cloud.yaml")).unwrap();
    let changed = changed.replace("users_file: partners", "users_file: more");
    hub.write_raw_config(&changed);
    let report = hub.reload().await;
    assert!(!report.ok && report.recheck.is_none(), "{report:?}");
    assert_eq!(status(&hub, "files", EVE_SHOWS).await, 200);
    hub.rewrite(|plan| plan);
    assert!(hub.reload().await.ok);
}

/// Nor does a mistake in a file hold up what the operator says of whom he trusts; what was read
/// before does not outlive that.
#[tokio::test]
async fn a_mistake_in_a_file_holds_up_no_change_of_security() {
    let origin = origin(&[]).await;
    let hub = plan().start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let tokens = std::fs::read_to_string(hub.path("cloud.yaml"))
        .unwrap()
        .replace(
            "ways: [{basic: {users_file: partners}}]",
            "ways: [{bearer: {audience: viewers}}, {basic: {users_file: partners}}]",
        );
    hub.write_raw_config(&tokens);
    assert!(hub.reload().await.ok);
    for file in ["users", "partners"] {
        std::fs::write(hub.path(file), "ann:open sesame").unwrap();
    }
    assert!(!hub.reload().await.ok);
    assert_eq!(status(&hub, "admin", ANN_SHOWS).await, 200);
    assert_eq!(status(&hub, "files", ANN_SHOWS).await, 200);

    let before = hub.running().hub().config().security.clone();
    let changed = tokens.replace("jwks_refresh_min_ms: 1000", "jwks_refresh_min_ms: 1001");
    assert_ne!(changed, tokens);
    hub.write_raw_config(&changed);
    let report = hub.reload().await;
    assert!(
        report.recheck.is_some() && report.errors.len() == 2,
        "{report:?}"
    );
    assert_ne!(hub.running().hub().config().security, before);
    assert_eq!(status(&hub, "admin", ANN_SHOWS).await, 200);
    assert_eq!(status(&hub, "files", ANN_SHOWS).await, 503);
}

#[tokio::test]
async fn a_hub_starts_with_a_mistake_in_a_file_and_lets_nobody_in_by_it() {
    let origin = origin(&[]).await;
    let hub = plan().file("users", "ann:open sesame").start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let answer = shows(&hub, "admin", ANN_SHOWS).await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (503, "sign_in_unavailable")
    );
    assert_eq!(get(web(&hub), "open.example.com", "/").await.status(), 200);
    assert_eq!(status(&hub, "files", EVE_SHOWS).await, 200);
    let (_, ready) = hub.get("/readyz").await;
    assert!(ready.contains("ingress_stale"), "{ready}");

    std::fs::write(hub.path("users"), ANN).unwrap();
    assert!(hub.reload().await.ok);
    assert_eq!(status(&hub, "admin", ANN_SHOWS).await, 200);
}

/// A token that ends while its request waits for the service: the viewer may come again with a
/// fresh one, which no 403 would tell.
#[tokio::test]
async fn a_proof_that_ends_before_the_response_is_asked_for_anew() {
    let service = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hub = super::viewers::viewers_hub()
        .security("on_expiry: close\nclock_skew_ms: 0")
        .start()
        .await;
    let _agent = hub.plant("shop", service.local_addr().unwrap()).await;
    let claims = super::viewers::viewer("ann", &["ops"]).expires_in_s(2);
    let token = hub.issuer.sign(&claims);
    let mut viewer = Web::connect(web(&hub)).await;
    let request = format!(
        "GET / HTTP/1.1\r\nhost: admin.example.com\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    viewer.send(request).await;
    // It never answers.
    let _accepted = timeout(SOON, service.accept()).await.unwrap().unwrap();
    let answer = viewer.response().await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (401, "viewer_token_expired")
    );
    let challenge = answer.field("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
}

async fn shows(hub: &TestHub, route: &str, authorization: &str) -> Message {
    let request = format!(
        "GET / HTTP/1.1\r\nhost: {route}.example.com\r\nauthorization: {authorization}\r\n\r\n"
    );
    ask(web(hub), request).await
}

async fn status(hub: &TestHub, route: &str, authorization: &str) -> u16 {
    shows(hub, route, authorization).await.status()
}
