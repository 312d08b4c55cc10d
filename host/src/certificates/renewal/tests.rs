//! Against an authority that answers about renewals as RFC 9773 says, and as it does not.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::certificates::client::AuthorityClient;
use crate::certificates::order::identifier;
use crate::config::AcmeConfig;
use crate::tls::looking::pair;

const HOUR_S: u64 = 3_600;

/// 21 to 22 November 2026, UTC.
const WINDOW: &str = r#"{"suggestedWindow": {"start": "2026-11-21T00:00:00Z",
    "end": "2026-11-22T00:00:00Z"}, "explanationURL": "https://authority.example/why"}"#;
const WINDOW_MS: (u64, u64) = (1_795_219_200_000, 1_795_305_600_000);

#[tokio::test]
async fn the_window_of_an_authority_is_taken_and_it_is_asked_again_when_it_says() {
    let authority = Authority::start().await;
    let leaf = leaf();
    for (retry_after, again_s) in [
        ("21600", 6 * HOUR_S),
        // Neither a flood of questions, nor none for ever.
        ("1", HOUR_S),
        ("864000", 24 * HOUR_S),
        ("18446744073709551615", 24 * HOUR_S),
        ("Fri, 31 Dec 1999 23:59:59 GMT", HOUR_S),
        ("Tue, 31 Dec 2999 23:59:59 GMT", 24 * HOUR_S),
    ] {
        let head = format!("200 OK\r\nretry-after: {retry_after}");
        let answer = authority.asked(&leaf, &head, WINDOW).await;
        assert_eq!(answer.window_ms, Some(WINDOW_MS), "{retry_after}");
        assert_eq!(seconds(answer), again_s, "{retry_after}");
    }
    // Key identifier of the issuer and serial number, each in base64url (RFC 9773, 4.1).
    let asked = authority.asked.lock().last().unwrap().clone();
    assert_eq!(asked, "/renewal-info/AQIDBA.BQYHCA");
}

#[tokio::test]
async fn a_window_that_ends_before_it_begins_is_none() {
    let authority = Authority::start().await;
    let turned = r#"{"suggestedWindow": {"start": "2026-11-22T00:00:00Z",
        "end": "2026-11-21T00:00:00Z"}}"#;
    let head = "200 OK\r\nretry-after: 21600";
    let answer = authority.asked(&leaf(), head, turned).await;
    assert_eq!((answer.window_ms, seconds(answer)), (None, 6 * HOUR_S));
}

#[tokio::test]
async fn what_is_no_answer_leaves_the_time_to_us_for_six_hours() {
    let authority = Authority::start().await;
    let leaf = leaf();
    let endless = "x".repeat(2 << 20);
    for (head, body) in [
        ("404 Not Found\r\nretry-after: 60", "{}"),
        ("500 Internal Server Error\r\nretry-after: 60", "{}"),
        // It leads elsewhere.
        (
            "302 Found\r\nretry-after: 60\r\nlocation: https://127.0.0.1:1/",
            "",
        ),
        ("200 OK\r\nretry-after: 60", "no JSON"),
        ("200 OK\r\nretry-after: 60", r#"{"suggestedWindow": {}}"#),
        (
            "200 OK\r\nretry-after: 60",
            r#"{"suggestedWindow": {"start": "soon", "end": "later"}}"#,
        ),
        ("200 OK\r\nretry-after: 60", endless.as_str()),
        ("200 OK\r\nretry-after: soon", WINDOW),
        ("200 OK", WINDOW),
    ] {
        let answer = authority.asked(&leaf, head, body).await;
        assert_eq!(answer.window_ms, None, "{head}");
        assert_eq!(seconds(answer), 6 * HOUR_S, "{head}");
    }
}

/// When it is asked again. The library makes a time of the wait and a wait of the time.
fn seconds(answer: Answer) -> u64 {
    answer.again_ms.div_ceil(1000)
}

/// A certificate with identifiers that are easy to read.
fn leaf() -> CertificateDer<'static> {
    let mut issuer = rcgen::CertificateParams::new(Vec::new()).unwrap();
    issuer.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    issuer.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1, 2, 3, 4]);
    let issuer = rcgen::Issuer::new(issuer, rcgen::KeyPair::generate().unwrap());
    let mut leaf = rcgen::CertificateParams::new(vec!["shop.example.com".to_owned()]).unwrap();
    leaf.serial_number = Some(rcgen::SerialNumber::from(vec![5, 6, 7, 8]));
    leaf.use_authority_key_identifier_extension = true;
    let key = rcgen::KeyPair::generate().unwrap();
    leaf.signed_by(&key, &issuer).unwrap().der().clone()
}

/// See the module. Ends with its value.
struct Authority {
    account: Account,
    /// Head and body of what it says next about a renewal.
    next: Arc<Mutex<(String, String)>>,
    /// The paths that it was asked about.
    asked: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
    _folder: TempDir,
}

impl Authority {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (files, certificate) = pair(&folder, "localhost");
        let key = std::fs::read(&files.key_file).unwrap();
        let key: PrivateKeyDer<'static> =
            rustls::pki_types::pem::PemObject::from_pem_slice(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let (next, asked) = (Arc::<Mutex<(String, String)>>::default(), Arc::default());
        let (told, noted, here) = (Arc::clone(&next), Arc::clone(&asked), base.clone());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = tls.accept(stream).await else {
                    continue;
                };
                answer(&mut stream, &here, &told, &noted).await;
            }
        });
        let config = AcmeConfig {
            directory_url: format!("{base}/directory").parse().unwrap(),
            state_file: folder.path().join("state"),
            contact: Vec::new(),
            ca_file: Some(files.cert_file),
            external_account: None,
            challenges: Vec::new(),
            hosts: Vec::new(),
            max_names: 1,
            max_orders: 1,
            orders_per_hour: 1,
            handshake_wait: Duration::ZERO,
        };
        let client = Box::new(AuthorityClient::new(&config).ok().unwrap());
        let key = rcgen::KeyPair::generate().unwrap().serialize_der();
        let account = Account::builder_with_http(client).from_parts(
            format!("{base}/account/1"),
            PrivatePkcs8KeyDer::from(key),
            config.directory_url.to_string(),
        );
        Self {
            account: account.await.unwrap(),
            next,
            asked,
            server,
            _folder: folder,
        }
    }

    /// What comes of asking about this certificate where the authority says this.
    async fn asked(&self, leaf: &CertificateDer<'_>, head: &str, body: &str) -> Answer {
        *self.next.lock() = (head.to_owned(), body.to_owned());
        ask(&self.account, &identifier(leaf).unwrap()).await
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One request of a connection.
async fn answer(
    stream: &mut tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    base: &str,
    next: &Mutex<(String, String)>,
    asked: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let (told, body) = if path == "/directory" {
        let directory = json!({
            "newNonce": format!("{base}/nonce"),
            "newAccount": format!("{base}/account"),
            "newOrder": format!("{base}/order"),
            "revokeCert": format!("{base}/revoke"),
            "keyChange": format!("{base}/key"),
            "renewalInfo": format!("{base}/renewal-info"),
        });
        ("200 OK".to_owned(), directory.to_string())
    } else {
        asked.lock().push(path);
        next.lock().clone()
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {told}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
    // A client that has read enough is gone.
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}
