//! Tokens for agents where the issuer is not what the test is about.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nowconnect_demo::issuer::{SigningKey, agent_claims};

/// What `iss` says.
pub(crate) const ISSUER: &str = "https://issuer.test";

/// An issuer of tokens whose public key lies in a file.
pub(crate) struct Tokens {
    folder: PathBuf,
    key: SigningKey,
}

impl Tokens {
    /// A new key; its public half is `jwks.json` in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        let key = SigningKey::generate().unwrap();
        std::fs::write(folder.join("jwks.json"), key.jwks().to_string()).unwrap();
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
        let token = self
            .key
            .sign(&agent_claims(ISSUER, agent_id, connectors, lifetime))
            .unwrap();
        let path = self.folder.join(format!("{agent_id}.token"));
        std::fs::write(&path, token).unwrap();
        path
    }
}
