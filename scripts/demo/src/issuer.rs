//! An issuer of tokens for demos and tests: one ES256 key, and a small OpenID provider around it.
//! It knows one client and gives it the claims that it was started with.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use crate::Failed;
use crate::services::{Request, Response, serve_http};

/// The key's id in tokens and in the key set.
const KEY_ID: &str = "demo";

/// A signing key.
#[derive(Debug)]
pub struct SigningKey {
    key: KeyPair,
}

impl SigningKey {
    /// A new key on the curve P-256.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, Failed> {
        let key = KeyPair::generate().map_err(Failed::doing("a signing key"))?;
        Ok(Self { key })
    }

    /// The public half as a JWK set.
    #[must_use]
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 0x04, then x and y of 32 bytes each.
        let (x, y) = self.key.der_bytes()[1..].split_at(32);
        let coordinate = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID,
                         "x": coordinate(x), "y": coordinate(y)}]})
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// The claims are no JSON object.
    pub fn sign(&self, claims: &Value) -> Result<String, Failed> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(KEY_ID.to_owned());
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes())
            .map_err(Failed::doing("the signing key"))?;
        jsonwebtoken::encode(&header, claims, &key).map_err(Failed::doing("signing a token"))
    }
}

/// The claims of an agent's token, valid from now on.
#[must_use]
pub fn agent_claims(
    issuer: &str,
    agent_id: &str,
    connectors: &[&str],
    lifetime: Duration,
) -> Value {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    json!({
        "iss": issuer, "aud": "nowconnect", "sub": agent_id, "agent_id": agent_id,
        "connectors": connectors, "jti": format!("{agent_id}-{}", now.as_nanos()),
        "iat": now.as_secs(), "nbf": now.as_secs(), "exp": now.as_secs() + lifetime.as_secs(),
    })
}

/// A client of the issuer: an agent.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id, which is the agent's too.
    pub agent_id: &'static str,
    /// Its secret.
    pub secret: &'static str,
    /// What its tokens let it offer.
    pub connectors: &'static [&'static str],
    /// How long its tokens live.
    pub lifetime: Duration,
}

/// A running issuer; it ends with the process.
#[derive(Debug)]
pub struct Issuer {
    /// What `iss` says, and where everything is.
    pub url: String,
}

impl Issuer {
    /// Starts an issuer with one client on a free loopback port.
    ///
    /// # Errors
    /// No port, no randomness.
    pub fn start(client: Client) -> Result<Self, Failed> {
        let key = SigningKey::generate()?;
        let address = serve_http(SocketAddr::from(([127, 0, 0, 1], 0)), move |request| {
            answer(&key, &client, request)
        })?;
        Ok(Self {
            url: format!("http://{address}"),
        })
    }
}

fn answer(key: &SigningKey, client: &Client, request: &Request) -> Response {
    let url = format!("http://{}", request.host);
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/.well-known/openid-configuration") => Response::json(&json!({
            "issuer": url,
            "jwks_uri": format!("{url}/jwks"),
            "token_endpoint": format!("{url}/token"),
            "authorization_endpoint": format!("{url}/none"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "grant_types_supported": ["client_credentials"],
        })),
        ("GET", "/jwks") => Response::json(&key.jwks()),
        ("POST", "/token") if knows(client, request) => {
            let claims = agent_claims(&url, client.agent_id, client.connectors, client.lifetime);
            match key.sign(&claims) {
                Ok(token) => Response::json(&json!({
                    "access_token": token, "token_type": "Bearer",
                    "expires_in": client.lifetime.as_secs(),
                })),
                Err(error) => Response::text(500, &error.0),
            }
        }
        ("POST", "/token") => Response::json(&json!({"error": "invalid_client"})).with_status(401),
        _ => Response::text(404, "not found"),
    }
}

/// Whether the request comes from the client, by Basic authentication or in the form.
fn knows(client: &Client, request: &Request) -> bool {
    let basic = format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", client.agent_id, client.secret))
    );
    if request.authorization.as_deref() == Some(&basic) {
        return true;
    }
    let fields: Vec<_> = request.body.split('&').collect();
    fields.contains(&format!("client_id={}", client.agent_id).as_str())
        && fields.contains(&format!("client_secret={}", client.secret).as_str())
}
