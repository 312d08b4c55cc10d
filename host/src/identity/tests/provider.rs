//! An issuer for tests: it signs tokens, and serves its keys over HTTP as it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::seconds;

const RSA: &[u8] = include_bytes!("rsa.pem");

/// A key pair with a name.
#[derive(Clone)]
pub(super) struct TestKey {
    pub(super) kid: String,
    pub(super) algorithm: Algorithm,
    private: EncodingKey,
    /// The public part, where the library cannot take it out of the private one.
    public: Option<Json>,
}

impl TestKey {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "tests ask for RSA or for one of the named"
    )]
    pub(super) fn new(kid: &str, algorithm: Algorithm) -> Self {
        let generate = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap();
        let (private, public) = match algorithm {
            Algorithm::ES256 => {
                let pair = generate(&rcgen::PKCS_ECDSA_P256_SHA256);
                (
                    EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()),
                    None,
                )
            }
            Algorithm::EdDSA => {
                let pair = generate(&rcgen::PKCS_ED25519);
                let x = base64url(pair.public_key_raw());
                let public =
                    json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": x});
                (
                    EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()),
                    Some(public),
                )
            }
            _ => (EncodingKey::from_rsa_pem(RSA), None),
        };
        Self {
            kid: kid.to_owned(),
            algorithm,
            private: private.unwrap(),
            public,
        }
    }

    pub(super) fn jwk(&self) -> Json {
        if let Some(public) = &self.public {
            return public.clone();
        }
        let mut jwk = Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.clone());
        serde_json::to_value(jwk).unwrap()
    }

    pub(super) fn sign(&self, claims: &Json) -> String {
        self.sign_with(&self.header(), claims)
    }

    pub(super) fn header(&self) -> Header {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.clone());
        header
    }

    pub(super) fn sign_with(&self, header: &Header, claims: &Json) -> String {
        jsonwebtoken::encode(header, claims, &self.private).unwrap()
    }

    /// Signs parts as they are, for headers and claims that no library would write.
    pub(super) fn sign_raw(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", base64url(header), base64url(claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Claims that are accepted, for the issuer.
pub(super) fn claims(issuer: &str) -> Json {
    json!({
        "iss": issuer,
        "aud": "nowconnect",
        "sub": "client-7",
        "jti": "token-1",
        "agent_id": "edge-7",
        "iat": seconds(-10),
        "exp": seconds(300),
    })
}

pub(super) fn key_set(keys: &[&TestKey]) -> String {
    let keys: Vec<Json> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// What the provider answers at a path.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Body(String),
    Status(u16),
    Redirect(String),
    /// Headers and then nothing.
    Hang,
    /// More than anyone should read.
    Endless,
}

/// A provider on loopback.
pub(super) struct Provider {
    pub(super) address: SocketAddr,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    delay: Arc<Mutex<Duration>>,
    requests: Arc<AtomicUsize>,
    _task: tokio::task::JoinSet<()>,
}

impl Provider {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers: Arc<Mutex<BTreeMap<String, Answer>>> = Arc::default();
        let delay: Arc<Mutex<Duration>> = Arc::default();
        let requests: Arc<AtomicUsize> = Arc::default();
        let mut task = tokio::task::JoinSet::new();
        let shared = (
            Arc::clone(&answers),
            Arc::clone(&delay),
            Arc::clone(&requests),
        );
        task.spawn(async move {
            let mut clients = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (answers, delay, requests) = shared.clone();
                clients.spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else {
                            return;
                        };
                        request.push(byte);
                    }
                    requests.fetch_add(1, Ordering::SeqCst);
                    let text = String::from_utf8_lossy(&request);
                    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                    let answer = answers.lock().get(&path).cloned();
                    let pause = *delay.lock();
                    tokio::time::sleep(pause).await;
                    // A client that hangs up early is part of some tests.
                    let _ = respond(&mut stream, answer).await;
                });
            }
        });
        Self {
            address,
            answers,
            delay,
            requests,
            _task: task,
        }
    }

    /// A provider with discovery at its root and these keys.
    pub(super) async fn with_keys(keys: &[&TestKey]) -> Self {
        let provider = Self::start().await;
        provider.set(
            "/.well-known/openid-configuration",
            Answer::Body(
                json!({ "issuer": provider.url(""), "jwks_uri": provider.url("/jwks") })
                    .to_string(),
            ),
        );
        provider.set("/jwks", Answer::Body(key_set(keys)));
        provider
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn set(&self, path: &str, answer: Answer) {
        self.answers.lock().insert(path.to_owned(), answer);
    }

    pub(super) fn set_delay(&self, delay: Duration) {
        *self.delay.lock() = delay;
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn respond(
    stream: &mut tokio::net::TcpStream,
    answer: Option<Answer>,
) -> std::io::Result<()> {
    let head =
        |status: u16, more: &str| format!("HTTP/1.1 {status} x\r\nconnection: close\r\n{more}\r\n");
    match answer.unwrap_or(Answer::Status(404)) {
        Answer::Body(body) => {
            let length = format!("content-length: {}\r\n", body.len());
            stream.write_all(head(200, &length).as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
        }
        Answer::Status(status) => {
            stream
                .write_all(head(status, "content-length: 0\r\n").as_bytes())
                .await?;
        }
        Answer::Redirect(to) => {
            let more = format!("location: {to}\r\ncontent-length: 0\r\n");
            stream.write_all(head(302, &more).as_bytes()).await?;
        }
        Answer::Hang => {
            stream
                .write_all(head(200, "content-length: 10\r\n").as_bytes())
                .await?;
            std::future::pending::<()>().await;
        }
        Answer::Endless => {
            stream.write_all(head(200, "").as_bytes()).await?;
            loop {
                stream.write_all(&[b' '; 4096]).await?;
            }
        }
    }
    stream.shutdown().await
}
