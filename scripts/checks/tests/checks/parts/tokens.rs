//! Tokens for agents where the issuer is not what the test is about: an ES256 key whose public
//! half lies in a JWKS file.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::json;

/// What `iss` says.
pub(crate) const ISSUER: &str = "https://issuer.test";

/// An issuer of tokens.
pub(crate) struct Tokens {
    folder: PathBuf,
    key: KeyPair,
}

impl Tokens {
    /// A new key; its public half is `jwks.json` in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        // An uncompressed point: 0x04, then x and y.
        let point = key.der_bytes();
        let (x, y) = point[1..].split_at(32);
        let coordinate = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        let keys = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "test",
            "x": coordinate(x), "y": coordinate(y),
        }]});
        std::fs::write(folder.join("jwks.json"), keys.to_string()).unwrap();
        Self {
            folder: folder.to_owned(),
            key,
        }
    }

    /// Where the public keys are.
    pub(crate) fn jwks(&self) -> PathBuf {
        self.folder.join("jwks.json")
    }

    /// Writes a token for an agent to a file of its own and returns the path.
    pub(crate) fn issue(&self, agent_id: &str, connectors: &[&str], lifetime: Duration) -> PathBuf {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let claims = json!({
            "iss": ISSUER, "aud": "nowconnect", "sub": agent_id, "agent_id": agent_id,
            "connectors": connectors, "jti": format!("{agent_id}-{now}"),
            "iat": now, "nbf": now, "exp": now + lifetime.as_secs(),
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("test".to_owned());
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).unwrap();
        let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        let path = self.folder.join(format!("{agent_id}.token"));
        std::fs::write(&path, token).unwrap();
        path
    }
}
