//! A small issuer of agents' tokens: an Ed25519 key and its JWKS over HTTP.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Clones are one issuer; it ends with the last of them.
#[derive(Clone)]
pub(crate) struct Issuer {
    url: String,
    key: EncodingKey,
    _server: Arc<Server>,
}

struct Server(JoinHandle<()>);

impl Issuer {
    pub(crate) async fn start() -> Self {
        Self::serving("http://127.0.0.1", |listener, jwks| {
            let pages = Router::new().route("/jwks.json", get(move || async move { jwks }));
            tokio::spawn(async move {
                axum::serve(listener, pages).await.unwrap();
            })
        })
        .await
    }

    /// One that is reached by HTTPS, as `localhost`.
    pub(crate) async fn start_tls(tls: TlsAcceptor) -> Self {
        Self::serving("https://localhost", |listener, jwks| {
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(answer(tls.clone(), stream, jwks.clone()));
                }
            })
        })
        .await
    }

    async fn serving(
        base: &str,
        serve: impl FnOnce(TcpListener, String) -> JoinHandle<()>,
    ) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let jwks = json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": KEY_ID,
            "x": URL_SAFE_NO_PAD.encode(pair.public_key_raw()),
        }]})
        .to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{base}:{}", listener.local_addr().unwrap().port());
        let server = serve(listener, jwks);
        Self {
            url,
            key: EncodingKey::from_ed_der(&pair.serialize_der()),
            _server: Arc::new(Server(server)),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn sign(&self, claims: &Claims) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(KEY_ID.to_owned());
        let mut body = claims.0.clone();
        body.entry("iss").or_insert_with(|| json!(self.url));
        encode(&header, &Value::Object(body), &self.key).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers one request over TLS with the keys, whatever it asks for. A client who does not trust
/// the certificate leaves before.
async fn answer(tls: TlsAcceptor, stream: TcpStream, jwks: String) {
    let Ok(mut stream) = tls.accept(stream).await else {
        return;
    };
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{jwks}",
        jwks.len()
    );
    // The client may have enough already.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

const KEY_ID: &str = "test-key";

/// What a token claims.
#[derive(Clone)]
pub(crate) struct Claims(Map<String, Value>);

impl Claims {
    /// Of an agent of the default tenant, for five minutes.
    pub(crate) fn of(agent: &str) -> Self {
        let now = now_s();
        Self(Map::new())
            .with("aud", "nowconnect")
            .with("sub", agent)
            .with("agent_id", agent)
            .with("tenant", "default")
            .with("iat", now)
            .with("exp", now + 300)
            .with("jti", format!("{agent}-{now}"))
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    pub(crate) fn connectors(self, names: &[&str]) -> Self {
        self.with("connectors", json!(names))
    }

    pub(crate) fn expires_in_s(self, seconds: i64) -> Self {
        let at = i64::try_from(now_s()).unwrap() + seconds;
        self.with("exp", at)
    }
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}
