//! Who an agent is: from a bearer token to a verified [`AgentIdentity`].
//!
//! A token is taken from the upgrade request by [`extract_token`] and proven by
//! [`Authenticator::verify`] against the keys of the one issuer that its `iss` names. Signature,
//! `iss`, `aud`, `exp` and `nbf` are always checked; nothing in a request or in a token's header
//! can switch one off. Everything later (HELLO, RENEW, RESUME, every OPEN) works with the
//! identity, never with the token.
//!
//! Absent on purpose: shared-secret algorithms, `none`, keys inside a token (`jwk`, `jku`,
//! `x5u`, `x5c` are ignored), and tokens without `kid` where an issuer has several keys.

pub mod extract;
pub(crate) mod fetch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use nowconnect_protocol::{AgentId, ConnectorName, TenantName};

use crate::config::{Secret, SecurityConfig};

pub use extract::{ExtractError, PresentedToken, TokenSource, extract_token};

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The tenant that the issuer may speak for.
    pub tenant: TenantName,
    /// The agent's id; HELLO must name the same.
    pub agent_id: AgentId,
    /// `iss`.
    pub issuer: Arc<str>,
    /// `sub`, if there is one; at most 256 bytes are kept.
    pub subject: Option<String>,
    /// `jti`, if there is one.
    pub jti: Option<String>,
    /// `iat`; where it is missing, revocations by time treat the token as issued at the epoch.
    pub issued_at: Option<SystemTime>,
    /// `exp`.
    pub expires_at: SystemTime,
    /// The connectors that the token names; `None` if it has no such claim.
    pub scopes: Option<Vec<ConnectorName>>,
    /// Claims listed under `security.claims.tags`, as text.
    pub tags: BTreeMap<String, String>,
    /// The claim named by `security.claims.groups`.
    pub groups: Vec<String>,
}

impl AgentIdentity {
    /// Whether `now` is at or past `exp`. No skew is added: skew is for accepting a token, not
    /// for living on with it.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now >= self.expires_at
    }
}

/// Verifies agents' tokens. Cheap to clone; all clones share keys.
#[derive(Clone, Debug)]
pub struct Authenticator {
    _inner: Arc<()>,
}

impl Authenticator {
    /// Reads what is local (key files, the CA bundle). Nothing is fetched yet.
    ///
    /// # Errors
    /// A key file or the CA bundle cannot be read.
    pub fn new(config: &SecurityConfig) -> Result<Self, AuthenticatorError> {
        let _ = config;
        todo!()
    }

    /// The same for a new configuration: issuers that did not change keep their keys.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn rebuilt(&self, config: &SecurityConfig) -> Result<Self, AuthenticatorError> {
        let _ = config;
        todo!()
    }

    /// Starts fetching keys in the background, now and then every `jwks_refresh_ms`. Dropping the
    /// guard ends it. Needs a tokio runtime.
    #[must_use]
    pub fn keep_fresh(&self) -> KeepFresh {
        todo!()
    }

    /// Proves a token. Fetches keys if it names one that is unknown, bounded by
    /// `jwks_timeout_ms` and `jwks_refresh_min_ms`.
    ///
    /// # Errors
    /// Why it does not count; [`AuthError::is_our_trouble`] tells a 503 from a 401.
    pub async fn verify(&self, token: &Secret) -> Result<AgentIdentity, AuthError> {
        let _ = token;
        todo!()
    }
}

/// Ends the background refresh when dropped.
#[derive(Debug)]
pub struct KeepFresh {}

/// Why an authenticator cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticatorError(String);

/// Why a token does not count. No variant holds any of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It is not a token at all.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
}

impl AuthError {
    /// A stable code for logs and metrics, such as `token_expired`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        todo!()
    }

    /// Whether the hub could not find out (no keys): answer 503, not 401.
    #[must_use]
    pub fn is_our_trouble(&self) -> bool {
        todo!()
    }
}
