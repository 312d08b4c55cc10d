//! Clients of the control API that an operator has registered.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Bytes of what tells secrets apart.
const FINGERPRINT_BYTES: usize = 12;

/// A client's role in policies; free text there, two in common use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role(pub String);

/// A registered client.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// Whose endpoints and names it manages.
    pub tenant: String,
    /// What its tokens may do.
    pub scopes: Vec<String>,
    /// Its role in policies.
    pub role: Role,
    secret: [u8; 32],
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("scopes", &self.scopes)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Keeps a digest of the secret only. It must be random: a digest of a word can be guessed.
    #[must_use]
    pub fn new(id: &str, secret: &str, tenant: &str, scopes: &[String], role: Role) -> Self {
        Self {
            id: id.to_owned(),
            tenant: tenant.to_owned(),
            scopes: scopes.to_vec(),
            role,
            secret: digest(secret),
        }
    }

    /// Tells one secret from the next and nothing of either: the digest of a digest, cut.
    pub(crate) fn fingerprint(&self) -> String {
        let twice = Sha256::digest(self.secret);
        URL_SAFE_NO_PAD.encode(
            twice
                .iter()
                .take(FINGERPRINT_BYTES)
                .copied()
                .collect::<Vec<_>>(),
        )
    }
}

/// All clients.
#[derive(Clone, Debug, Default)]
pub struct ClientRegister(BTreeMap<String, Client>);

impl ClientRegister {
    /// Of these clients; of two with one id the last.
    #[must_use]
    pub fn new(clients: impl IntoIterator<Item = Client>) -> Self {
        Self(
            clients
                .into_iter()
                .map(|client| (client.id.clone(), client))
                .collect(),
        )
    }

    /// The client, if the secret is its own. Whether an id is known cannot be told from the time
    /// that a refusal takes.
    #[must_use]
    pub fn prove(&self, id: &str, secret: &str) -> Option<&Client> {
        let given = digest(secret);
        let client = self.0.get(id);
        let kept = client.map_or([0; 32], |client| client.secret);
        let equal = verify_slices_are_equal(&given, &kept).is_ok();
        client.filter(|_| equal)
    }

    /// Whether a client is still registered, for a token that it got.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Client> {
        self.0.get(id)
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.trim().as_bytes()).into()
}
