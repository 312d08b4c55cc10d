//! What our tokens say, and how those that come back are proven.
//!
//! Three kinds, told apart by `aud`, so that none passes for another: an *ephemeral* token is for
//! the tunnel port and counts once; a *recreate* token asks for the same endpoint again; a
//! *management* token is an operator's client at this API. Ephemeral tokens are proven where all
//! agents' tokens are, the others here.

use jsonwebtoken::Validation;
use serde::{Deserialize, Serialize};

use crate::keys::{Algorithm, KeyRing};

/// `aud` of recreate tokens.
pub(crate) const RECREATE_AUDIENCE: &str = "nowconnect-recreate";
/// `aud` of management tokens.
pub(crate) const MANAGEMENT_AUDIENCE: &str = "nowconnect-control";

/// What no other token may be for: they tell our kinds apart.
pub const OWN_AUDIENCES: [&str; 2] = [RECREATE_AUDIENCE, MANAGEMENT_AUDIENCE];

/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// How far another hub's clock may be from ours, in seconds.
pub(crate) const SKEW_SECONDS: u64 = 60;

/// What an ephemeral token says.
#[derive(Serialize)]
pub(crate) struct Ephemeral<'a> {
    pub(crate) iss: &'a str,
    pub(crate) sub: &'a str,
    pub(crate) aud: &'a str,
    pub(crate) iat: u64,
    pub(crate) exp: u64,
    pub(crate) jti: &'a str,
    pub(crate) name: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) agent_id: &'a str,
    pub(crate) connectors: [&'a str; 1],
}

/// What a recreate token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recreate {
    pub(crate) iss: String,
    pub(crate) aud: String,
    /// The endpoint's id.
    pub sub: String,
    /// The endpoint's name.
    pub name: String,
    /// Whose it is.
    pub tenant: String,
    pub(crate) iat: u64,
    pub(crate) exp: u64,
}

/// What a management token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Management {
    pub(crate) iss: String,
    pub(crate) aud: String,
    /// The client's id.
    pub sub: String,
    /// Whose endpoints and names it may see and change.
    pub tenant: String,
    /// What it may do, separated by spaces (RFC 6749 §3.3).
    pub scope: String,
    /// Its role in policies.
    pub role: String,
    /// Of which secret the client had this token.
    #[serde(default)]
    pub(crate) proof: String,
    /// Its id, by which it can be revoked.
    pub jti: String,
    /// When it was made, in seconds since 1970.
    pub iat: u64,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
}

impl Management {
    /// Whether it names this scope.
    #[must_use]
    pub fn allows(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|one| one == scope)
    }
}

/// Why a token does not count. Never says what was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// It is none of ours: no JWT, unknown key, another algorithm, wrong signature or audience.
    #[error("the token is not valid here")]
    Invalid,
    /// Its time is over.
    #[error("the token has expired; ask for a new one")]
    Expired,
    /// The endpoint that it is for was deleted, or it was revoked.
    #[error("the token was withdrawn")]
    Withdrawn,
}

/// A claim set with an end.
pub(crate) trait Ends {
    fn ends_at(&self) -> u64;
}

impl Ends for Recreate {
    fn ends_at(&self) -> u64 {
        self.exp
    }
}

impl Ends for Management {
    fn ends_at(&self) -> u64 {
        self.exp
    }
}

/// Proves a token of ours that is for `audience`.
pub(crate) fn prove<C: for<'de> Deserialize<'de> + Ends>(
    keys: &KeyRing,
    token: &str,
    issuer: &str,
    audience: &str,
    now_ms: u64,
) -> Result<C, TokenRefused> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenRefused::Invalid);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenRefused::Invalid)?;
    let algorithm = Algorithm::of_jwt(header.alg).ok_or(TokenRefused::Invalid)?;
    let key = header
        .kid
        .and_then(|kid| keys.proof(&kid, algorithm, now_ms))
        .ok_or(TokenRefused::Invalid)?;
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[issuer]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    // Against the caller's clock, below.
    validation.validate_exp = false;
    let claims: C = jsonwebtoken::decode(token, &key, &validation)
        .map_err(|_| TokenRefused::Invalid)?
        .claims;
    if claims.ends_at().saturating_add(SKEW_SECONDS) <= now_ms / 1000 {
        return Err(TokenRefused::Expired);
    }
    Ok(claims)
}
