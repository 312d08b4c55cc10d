//! Keys of one run: a certificate authority, a server certificate, an issuer of tokens.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;

use crate::failure::{Context, Failure};

/// A server certificate for `localhost` and 127.0.0.1 with its authority, as PEM files.
#[derive(Debug)]
pub(crate) struct ServerFiles {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Certificate and key in one file, as HAProxy wants it.
    pub(crate) both: PathBuf,
}

impl ServerFiles {
    pub(crate) fn create(dir: &Path) -> Result<Self, Failure> {
        let ca_key = KeyPair::generate().context(|| "make a key".to_owned())?;
        let mut ca = CertificateParams::new(Vec::new()).context(|| "describe a CA".to_owned())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name
            .push(DnType::CommonName, "nowconnect bench CA");
        let ca_certificate = ca.self_signed(&ca_key).context(|| "sign a CA".to_owned())?;
        let issuer = Issuer::from_params(&ca, &ca_key);

        let key = KeyPair::generate().context(|| "make a key".to_owned())?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut server =
            CertificateParams::new(names).context(|| "describe a certificate".to_owned())?;
        server
            .distinguished_name
            .push(DnType::CommonName, "localhost");
        let certificate = server
            .signed_by(&key, &issuer)
            .context(|| "sign a certificate".to_owned())?;

        let files = Self {
            ca: dir.join("ca.pem"),
            certificate: dir.join("server.pem"),
            key: dir.join("server.key"),
            both: dir.join("server-both.pem"),
        };
        write(&files.ca, &ca_certificate.pem())?;
        write(&files.certificate, &certificate.pem())?;
        write(&files.key, &key.serialize_pem())?;
        write(&files.both, &(certificate.pem() + &key.serialize_pem()))?;
        Ok(files)
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt;

    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .context(|| format!("create {}", path.display()))?;
    file.write_all(text.as_bytes())
        .context(|| format!("write {}", path.display()))
}

/// An issuer of agent tokens: signs with EdDSA and serves its key set over HTTP.
pub(crate) struct TokenIssuer {
    key: EncodingKey,
    address: SocketAddr,
}

/// The key's name in tokens and key set.
const KEY_ID: &str = "bench-1";

/// Tokens outlive the longest run.
const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

impl TokenIssuer {
    /// Makes a key and serves it until the process ends.
    pub(crate) fn start() -> Result<Self, Failure> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519)
            .context(|| "make a token key".to_owned())?;
        let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes())
            .context(|| "use the token key".to_owned())?;
        let keys = json!({"keys": [{
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": KEY_ID,
            "x": URL_SAFE_NO_PAD.encode(pair.public_key_raw()),
        }]})
        .to_string();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A hub that goes away while it asks is no concern of the issuer.
                let _ = answer(stream, &keys);
            }
        });
        Ok(Self { key, address })
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn jwks_url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// A token for this agent and these connectors.
    pub(crate) fn token(&self, agent_id: &str, connectors: &[&str]) -> Result<String, Failure> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let claims = json!({
            "iss": self.issuer(), "aud": "nowconnect", "sub": agent_id, "agent_id": agent_id,
            "connectors": connectors, "iat": now, "nbf": now.saturating_sub(5),
            "exp": now + TOKEN_LIFETIME.as_secs(), "jti": format!("bench-{now}"),
        });
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(KEY_ID.to_owned());
        jsonwebtoken::encode(&header, &claims, &self.key).context(|| "sign a token".to_owned())
    }
}

impl std::fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenIssuer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn answer(mut stream: TcpStream, keys: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    // Requests of key fetchers are a few hundred bytes; their headers are not looked at.
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{keys}",
        keys.len()
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::io::Read;

    use super::*;

    #[test]
    fn a_token_verifies_with_the_key_that_is_served() {
        let issuer = TokenIssuer::start().unwrap();
        let token = issuer.token("edge-1", &["bench"]).unwrap();

        let mut stream = TcpStream::connect(issuer.address).unwrap();
        write!(stream, "GET /jwks.json HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();

        let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(body).unwrap();
        let key = jsonwebtoken::DecodingKey::from_jwk(keys.find(KEY_ID).unwrap()).unwrap();
        let mut validation = jsonwebtoken::Validation::new(Algorithm::EdDSA);
        validation.set_audience(&["nowconnect"]);
        let decoded = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation).unwrap();
        assert_eq!(decoded.claims["agent_id"], "edge-1");
    }
}
