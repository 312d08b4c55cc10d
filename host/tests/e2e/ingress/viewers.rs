//! Viewers who say who they are: what proves it, what the policies make of it, and what services
//! are told.

use std::net::SocketAddr;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{PERMIT_HTTP, ingress, web, web_of};
use crate::cluster::web::{Message, Web, ask, get, origin};
use crate::cluster::{Claims, HubPlan, SOON, TestHub, command, hub, tls};

/// `admin` is for the group `ops`, `files` for whoever has proven anything, `open` for all.
pub(super) const PERMIT_VIEWERS: &str = r#"
@id("ops")
permit (principal in NowConnect::Group::"ops", action == NowConnect::Action::"http-request",
        resource == NowConnect::Endpoint::"admin");
@id("proven")
permit (principal is NowConnect::Viewer, action == NowConnect::Action::"http-request",
        resource == NowConnect::Endpoint::"files")
when { principal.authenticated && principal.hasTag("method") };
"#;

const ADMIN: &str = "name: admin, host: admin.example.com, connector: shop, viewer_auth: staff";
const FILES: &str = "name: files, host: files.example.com, connector: shop, viewer_auth: links";
const OPEN: &str = "name: open, host: open.example.com, connector: shop, public: true";

const STAFF: &str = "viewer_auth:\n  - name: staff\n    realm: Staff\n    ways:\n      \
    - bearer: {audience: shop, groups_claim: groups, tag_claims: [dept]}\n      \
    - basic: {users_file: users}\n    identity_headers:\n      \
    x-viewer-subject: subject\n      x-viewer-groups: groups\n      x-viewer-by: method\n      \
    x-viewer-dept: claim:dept\n";

const LINKS: &str = "  - name: links\n    ways:\n      \
    - signed_url: {keys: [{name: now, file: url.key}]}\n";

/// `ann` of the group `ops`, with the password `open sesame`.
pub(super) const ANN: &str =
    "ann:$2y$10$abcdefghijklmnopqrstuu4SuEsu2LsUrAYUpWQHLMMc4GV5pZTxK:ops\n";
pub(super) const ANN_SHOWS: &str = "Basic YW5uOm9wZW4gc2VzYW1l";

const URL_KEY: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn a_token_says_who_asks_and_policies_say_what_he_may() {
    let origin = origin(&[]).await;
    let hub = viewers_hub().start().await;
    let _agent = hub.plant("shop", origin.address()).await;

    let answer = get(web(&hub), "admin.example.com", "/").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (401, "sign_in_required")
    );
    assert_eq!(
        answer.field("www-authenticate").as_deref(),
        Some("Bearer realm=\"Staff\", Basic realm=\"Staff\", charset=\"UTF-8\"")
    );
    assert!(origin.seen().is_empty());

    // What a viewer says of himself is nothing.
    let token = hub
        .issuer
        .sign(&viewer("ann", &["ops", "a,b"]).with("dept", "it\r\nx: y"));
    let more = "x-viewer-subject: root\r\nX_Viewer_Groups: root\r\nx-viewer-by: root\r\n\
                x-viewer-dept: root\r\n";
    let answer = with(web(&hub), &format!("Bearer {token}"), more).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let seen = origin.last();
    let field = |name: &str| seen.field(name).unwrap_or_default();
    assert_eq!(field("x-viewer-subject"), "ann");
    assert_eq!(field("x-viewer-groups"), "ops,a%2Cb");
    assert_eq!(field("x-viewer-by"), "bearer");
    assert_eq!(field("x-viewer-dept"), "it%0D%0Ax:%20y");
    for gone in ["x_viewer_groups", "authorization"] {
        assert_eq!(seen.field(gone), None, "{gone}: {seen:?}");
    }

    let token = hub.issuer.sign(&viewer("bob", &["dba"]));
    let answer = with(web(&hub), &format!("Bearer {token}"), "").await;
    assert_eq!(answer.status(), 403, "{answer:?}");
    assert_eq!(answer.field("www-authenticate"), None);
    let record = &hub.decisions()[0];
    assert_eq!(record.principal, "Viewer::\"bob\"");

    for (claims, code) in [
        (
            viewer("ann", &["ops"]).expires_in_s(-120),
            "viewer_token_expired",
        ),
        (
            viewer("ann", &["ops"]).with("aud", "other"),
            "viewer_token_refused",
        ),
        (
            Claims::of("ann").with("groups", ["ops"].as_slice()),
            "viewer_token_refused",
        ),
        (viewer("basic:ann", &["ops"]), "viewer_token_refused"),
        (
            viewer("ann", &["ops"]).without("tenant"),
            "viewer_token_refused",
        ),
        // Another tenant's viewers are none of this route's.
        (
            viewer("ann", &["ops"]).with("tenant", "acme"),
            "viewer_token_refused",
        ),
    ] {
        let answer = with(
            web(&hub),
            &format!("Bearer {}", hub.issuer.sign(&claims)),
            "",
        )
        .await;
        assert_eq!((answer.status(), answer.code().as_str()), (401, code));
        let challenge = answer.field("www-authenticate").unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
    let twice = format!("Bearer {token}\r\nauthorization: {ANN_SHOWS}");
    let answer = with(web(&hub), &twice, "").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (400, "bad_credentials")
    );
    assert_eq!(origin.seen().len(), 1);
    let metrics = hub.metrics();
    for line in [
        "nowconnect_http_sign_ins_total{method=\"bearer\",result=\"ok\"} 2",
        "nowconnect_http_sign_ins_total{method=\"none\",result=\"viewer_token_refused\"} 5",
        "nowconnect_http_sign_ins_total{method=\"none\",result=\"sign_in_required\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

/// At a route without `viewer_auth` nobody says who he is either: the same service may be behind it.
#[tokio::test]
async fn no_viewer_says_who_he_is_at_any_route() {
    let origin = origin(&[]).await;
    let hub = viewers_hub().start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let answer = ask(
        web(&hub),
        "POST / HTTP/1.1\r\nhost: open.example.com\r\nx-viewer-subject: root\r\n\
         x_viewer-by: bearer\r\nauthorization: Basic mine\r\ntransfer-encoding: chunked\r\n\
         trailer: x-viewer-subject\r\n\r\n1\r\na\r\n0\r\nx-viewer-subject: root\r\n\r\n",
    )
    .await;
    assert_eq!(answer.status(), 200);
    let seen = origin.last();
    assert_eq!(seen.body, b"a");
    for (name, _) in &seen.fields {
        assert!(!name.contains("viewer"), "{seen:?}");
    }
    // The hub takes none here, so it is the service's.
    assert_eq!(seen.field("authorization").as_deref(), Some("Basic mine"));
}

#[tokio::test]
async fn passwords_count_until_their_file_changes() {
    let origin = origin(&[]).await;
    let hub = viewers_hub().watched().start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    assert_eq!(with(web(&hub), ANN_SHOWS, "").await.status(), 200);
    assert_eq!(
        origin.last().field("x-viewer-subject").as_deref(),
        Some("basic:ann")
    );
    let wrong = with(web(&hub), "Basic YW5uOndyb25n", "").await;
    assert_eq!(
        (wrong.status(), wrong.code().as_str()),
        (401, "viewer_password_wrong")
    );

    // What cannot be meant leaves the last good form in force.
    std::fs::write(hub.path("users"), "ann:open sesame").unwrap();
    let report = hub.reload().await;
    assert!(
        !report.ok && report.errors[0].contains("line 1"),
        "{report:?}"
    );
    assert!(!report.errors[0].contains("sesame"), "{report:?}");
    assert_eq!(with(web(&hub), ANN_SHOWS, "").await.status(), 200);

    std::fs::write(hub.path("users"), ANN.replace("ann:", "eve:")).unwrap();
    let deadline = tokio::time::Instant::now() + SOON;
    while with(web(&hub), ANN_SHOWS, "").await.status() != 401 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the file was not read anew"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn where_nothing_is_required_policies_decide_about_who_shows_nothing() {
    let origin = origin(&[]).await;
    let optional = STAFF.replace("realm: Staff", "required: false");
    let shown = ADMIN.replace("name: admin", "name: both") + ", path: /shown, public: true";
    let hub = plan(&[ADMIN, &shown], &optional).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    assert_eq!(
        get(web(&hub), "admin.example.com", "/shown").await.status(),
        200
    );
    assert_eq!(origin.last().field("x-viewer-subject"), None);
    // Nobody is let in as nobody: he is asked to say who he is, with the decision that says so.
    let answer = get(web(&hub), "admin.example.com", "/").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (401, "not_permitted")
    );
    assert!(answer.text().contains("decision_id"), "{answer:?}");
    assert!(
        answer
            .field("www-authenticate")
            .unwrap()
            .starts_with("Bearer realm=\"staff\"")
    );
    assert_eq!(with(web(&hub), ANN_SHOWS, "").await.status(), 200);
    // Who shows what is wrong is not nobody.
    let path =
        "GET /shown HTTP/1.1\r\nhost: admin.example.com\r\nauthorization: Bearer a.b.c\r\n\r\n";
    assert_eq!(ask(web(&hub), path).await.code(), "viewer_token_refused");
}

#[tokio::test]
async fn a_signed_url_lets_fetch_what_was_signed_and_nothing_else() {
    let origin = origin(&[]).await;
    let hub = viewers_hub().start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let signed = sign(&hub, "https://files.example.com/a/report.pdf?page=2", &[]).await;
    let target = signed.strip_prefix("https://files.example.com").unwrap();

    for path in [
        target.to_owned(),
        // Other ways to write the same, which is what services get.
        target.replace("/a/report", "/a/b/..//./%72eport"),
    ] {
        let answer = get(web(&hub), "Files.Example.com:8082", &path).await;
        assert_eq!(answer.status(), 200, "{path}: {answer:?}");
        assert_eq!(
            origin.last().first_line,
            "GET /a/report.pdf?page=2 HTTP/1.1"
        );
        assert_eq!(
            answer.field("referrer-policy").as_deref(),
            Some("same-origin")
        );
    }
    // The browser shows the URL to whatever a page names, here on a route that knows no URLs.
    let from_page =
        format!("GET / HTTP/1.1\r\nhost: open.example.com\r\nreferer: {signed}\r\n\r\n");
    assert_eq!(ask(web(&hub), from_page).await.status(), 200);
    assert_eq!(
        origin.last().field("referer").as_deref(),
        Some("https://files.example.com/a/report.pdf?page=2")
    );
    let before = origin.seen().len();
    for path in [
        target.replace("/a/report.pdf", "/a/other.pdf"),
        target.replace("/a/report.pdf", "/a/report.pdf/../../admin"),
        target.replace("/a/report.pdf", "/a/report.pdf/"),
        target.replace("page=2", "page=3"),
        target.replace("page=2", "page=2&x=1"),
    ] {
        let answer = get(web(&hub), "files.example.com", &path).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (401, "signed_url_refused"),
            "{path}"
        );
    }
    let posted =
        format!("POST {target} HTTP/1.1\r\nhost: files.example.com\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(ask(web(&hub), posted).await.code(), "signed_url_refused");
    assert_eq!(origin.seen().len(), before);

    let short = sign(
        &hub,
        "https://files.example.com/a",
        &["--expires-in-sec", "1"],
    )
    .await;
    let target = short.strip_prefix("https://files.example.com").unwrap();
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let answer = get(web(&hub), "files.example.com", target).await;
        if answer.status() == 401 {
            assert_eq!(answer.code(), "signed_url_expired");
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "it should have ended"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let metrics = hub.metrics();
    let counted = "nowconnect_http_sign_ins_total{method=\"signed_url\",result=\"ok\"}";
    assert!(metrics.contains(counted), "{metrics}");
}

/// A WebSocket that a token has let in ends with the token, as an agent's flows do.
#[tokio::test]
async fn what_runs_ends_with_what_proved_its_viewer() {
    let service = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hub = viewers_hub()
        .security("on_expiry: close\nclock_skew_ms: 0")
        .start()
        .await;
    let _agent = hub.plant("shop", service.local_addr().unwrap()).await;
    let token = hub.issuer.sign(&viewer("ann", &["ops"]).expires_in_s(3));
    let mut viewer = Web::connect(web(&hub)).await;
    viewer
        .send(format!(
            "GET / HTTP/1.1\r\nhost: admin.example.com\r\nauthorization: Bearer {token}\r\n\
             connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
    let accepted = timeout(SOON, service.accept()).await.unwrap().unwrap();
    let mut origin = Web::over(accepted.0);
    origin.head().await.unwrap();
    origin
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        )
        .await;
    assert_eq!(viewer.head().await.unwrap().status(), 101);
    origin.send("hello").await;
    assert_eq!(viewer.exactly(5).await, b"hello");
    assert!(viewer.is_closed().await);
    let metrics = hub.metrics();
    assert!(
        metrics.contains("nowconnect_http_viewers_expired_total 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_client_certificate_proves_who_asks_where_it_is_shown() {
    let origin = origin(&[]).await;
    let authority = Authority::new();
    let (ann, stranger) = (authority.client("ann"), Authority::new().client("ann"));
    let top = "ingress:\n  listeners:\n    - name: web\n      bind: \"127.0.0.1:0\"\n      \
        tls: {cert_file: hub.pem, key_file: hub.key}\n      \
        client_certificates: {ca_file: clients.pem}\n  routes:\n    \
        - {name: files, host: localhost, connector: shop, viewer_auth: machines}\n    \
        - {name: open, host: open.example.com, connector: shop, public: true}\n  viewer_auth:\n    \
        - {name: machines, ways: [{mtls: {}}], identity_headers: {x-viewer: subject}}\n";
    let hub = hub()
        .tls()
        .policy_file("http.cedar", PERMIT_HTTP)
        .policy_file("viewers.cedar", PERMIT_VIEWERS)
        .file("clients.pem", authority.pem.clone())
        .top(top)
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;

    let answer = over_tls(&hub, Some(&ann), "localhost").await.unwrap();
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(
        origin.last().field("x-viewer").as_deref(),
        Some("cert:spiffe://corp/ann")
    );
    // Who shows none is served where none is wanted.
    let answer = over_tls(&hub, None, "localhost").await.unwrap();
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (401, "sign_in_required")
    );
    let answer = over_tls(&hub, None, "open.example.com").await.unwrap();
    assert_eq!(answer.status(), 200);
    // One for whom nobody here vouches does not get past the handshake.
    assert!(over_tls(&hub, Some(&stranger), "localhost").await.is_err());
}

/// Neither the log nor a decision record has what a viewer showed.
#[tokio::test]
async fn what_a_viewer_shows_is_written_nowhere() {
    let origin = origin(&[]).await;
    let mut hub = viewers_hub()
        .observability("log_level: debug")
        .start_process()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let web = web_of(hub.process());
    let token = hub.issuer.sign(&viewer("ann", &["ops"]));
    let signed = sign(&hub, "https://files.example.com/a", &[]).await;
    let target = signed.strip_prefix("https://files.example.com").unwrap();
    assert_eq!(
        with(web, &format!("Bearer {token}"), "").await.status(),
        200
    );
    assert_eq!(
        with(web, &format!("Bearer {token}x"), "").await.status(),
        401
    );
    assert_eq!(with(web, ANN_SHOWS, "").await.status(), 200);
    assert_eq!(with(web, "Basic YW5uOm5vbnNlbnNl", "").await.status(), 401);
    assert_eq!(get(web, "files.example.com", target).await.status(), 200);
    let deadline = tokio::time::Instant::now() + SOON;
    let log = loop {
        let log = hub.process().log();
        let lines = log.iter().filter(|line| line.contains("http_request"));
        if lines.count() >= 5 {
            break log.join("\n");
        }
        assert!(tokio::time::Instant::now() < deadline, "{}", log.join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let signature = target.split_once("nc-signature=").unwrap().1;
    let parts: Vec<&str> = token.split('.').collect();
    for secret in [
        parts[1],
        parts[2],
        "YW5u",
        "open sesame",
        "nonsense",
        signature,
        URL_KEY,
    ] {
        assert!(!log.contains(secret), "{secret}:\n{log}");
    }
    assert!(log.contains("viewer_password_wrong"), "{log}");
    assert!(log.contains("basic:ann"), "{log}");
}

/// A hub with the routes of this file.
pub(super) fn viewers_hub() -> HubPlan {
    plan(&[ADMIN, FILES, OPEN], &format!("{STAFF}{LINKS}"))
}

fn plan(routes: &[&str], sets: &str) -> HubPlan {
    hub()
        .policy_file("http.cedar", PERMIT_HTTP)
        .policy_file("viewers.cedar", PERMIT_VIEWERS)
        .file("users", ANN)
        .file("url.key", URL_KEY)
        .top(&ingress(routes, sets))
}

/// What a viewer's token claims.
pub(super) fn viewer(subject: &str, groups: &[&str]) -> Claims {
    Claims::of(subject)
        .without("agent_id")
        .with("aud", "shop")
        .with("groups", groups)
}

/// One request to `admin` with this `Authorization`.
async fn with(web: SocketAddr, authorization: &str, more: &str) -> Message {
    let request = format!(
        "GET / HTTP/1.1\r\nhost: admin.example.com\r\nauthorization: {authorization}\r\n{more}\r\n"
    );
    ask(web, request).await
}

/// What `nowconnect url sign` prints.
async fn sign(hub: &TestHub, url: &str, more: &[&str]) -> String {
    let key = hub.path("url.key");
    let mut arguments = vec!["url", "sign", url, "--key-name", "now", "--key-file"];
    arguments.push(key.to_str().unwrap());
    arguments.extend(more);
    let (code, printed) = command(&arguments).await;
    assert_eq!(code, Some(0), "{printed}");
    printed.trim().to_owned()
}

/// Who vouches for clients.
struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, KeyPair>,
}

struct ClientPair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, key);
        Self { pem, issuer }
    }

    fn client(&self, name: &str) -> ClientPair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://corp/{name}").try_into().unwrap();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        ClientPair {
            chain: vec![leaf.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

/// One request over TLS, with this certificate.
async fn over_tls(
    hub: &TestHub,
    client: Option<&ClientPair>,
    host: &str,
) -> std::io::Result<Message> {
    let shown = client.map(|pair| (pair.chain.clone(), pair.key.clone_key()));
    let trusted = tls::certificate(&hub.path("hub.pem"));
    let mut stream = tls::connect_showing(web(hub), &[trusted], shown).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await??;
    Ok(Message::whole(&answer))
}
