//! Who an agent is: from a bearer token to a verified [`AgentIdentity`].
//!
//! A token is taken from the upgrade request by [`extract_token`] and proven by
//! [`Authenticator::verify`] against the keys of the one issuer that its `iss` names. Signature,
//! `iss`, `aud`, `exp` and `nbf` are always checked; nothing in a request or in a token's header
//! can switch one off. Everything later (HELLO, RENEW, RESUME, every OPEN) works with the
//! identity, never with the token.
//!
//! One issuer is this hub's own control plane; its keys are at hand and never fetched.
//!
//! Absent on purpose: shared-secret algorithms but for the hub's own key, `none`, keys inside a
//! token (`jwk`, `jku`, `x5u`, `x5c` are ignored), critical header extensions (`crit` refuses the
//! token), and tokens without `kid` where an issuer has several keys.

mod claims;
pub mod extract;
pub(crate) mod fetch;
mod keys;
mod own;
mod signed;
#[cfg(test)]
mod tests;
mod viewer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::Validation;
use nowconnect_control::SignedRequest;
use nowconnect_protocol::{AgentId, ConnectorName, TenantName};

use crate::codes::UpgradeCode;
use crate::config::{IssuerConfig, KeySource, Secret, SecurityConfig, TokenAlgorithm};
use crate::telemetry::events;
use claims::{Clock, Expected, StrictObject};
use fetch::Fetcher;
use keys::{IssuerKeys, Pace, Usable};
pub(crate) use own::OwnIssuer;
use signed::SignedAgents;
pub(crate) use signed::{Nonce, SignatureRefused};

pub(crate) use viewer::{ViewerIdentity, ViewerTokens};

pub use extract::{ExtractError, MAX_TOKEN_BYTES, PresentedToken, TokenSource, extract_token};

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
    /// `jti`, if there is one; at most 256 bytes are kept.
    pub jti: Option<String>,
    /// `iat`; where it is missing, revocations by time treat the token as issued at the epoch.
    pub issued_at: Option<SystemTime>,
    /// `exp`.
    pub expires_at: SystemTime,
    /// The connectors that the token names, sorted; `None` if it has no such claim.
    pub scopes: Option<Vec<ConnectorName>>,
    /// Claims listed under `security.claims.tags`, as text; at most 256 bytes each.
    pub tags: BTreeMap<String, String>,
    /// The claim named by `security.claims.groups`; at most 64.
    pub groups: Vec<String>,
    /// Whether the token is of this hub's control plane: the agent lives as long as its endpoint,
    /// and offers what the token names and nothing else, whatever the configuration says.
    pub ephemeral: bool,
}

impl AgentIdentity {
    /// Whether `now` is at or past `exp`. No skew is added: skew is for accepting a token, not
    /// for living on with it.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now >= self.expires_at
    }

    /// How long it is valid from `now` on; zero if it is expired.
    #[must_use]
    pub fn expires_in(&self, now: SystemTime) -> Duration {
        self.expires_at.duration_since(now).unwrap_or_default()
    }
}

/// Verifies agents' tokens. Cheap to clone; all clones share keys.
#[derive(Clone, Debug)]
pub struct Authenticator {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: SecurityConfig,
    issuers: Vec<Issuer>,
    own: Option<OwnIssuer>,
    signed: SignedAgents,
    roots_not_after: Option<i64>,
}

#[derive(Clone, Debug)]
struct Issuer {
    config: IssuerConfig,
    keys: Arc<IssuerKeys>,
}

impl Authenticator {
    /// Reads what is local (key files, the CA bundle). Nothing is fetched yet.
    ///
    /// # Errors
    /// A key file, the CA bundle or an agent's secret cannot be read.
    pub fn new(config: &SecurityConfig) -> Result<Self, AuthenticatorError> {
        Self::build(config, None, None)
    }

    /// The same with the hub's own control plane as one more issuer.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn with_own(
        config: &SecurityConfig,
        own: Option<OwnIssuer>,
    ) -> Result<Self, AuthenticatorError> {
        Self::build(config, None, own)
    }

    /// The same for a new configuration: issuers whose key source did not change keep their keys.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn rebuilt(&self, config: &SecurityConfig) -> Result<Self, AuthenticatorError> {
        Self::build(config, Some(&self.shared), self.shared.own.clone())
    }

    fn build(
        config: &SecurityConfig,
        old: Option<&Shared>,
        own: Option<OwnIssuer>,
    ) -> Result<Self, AuthenticatorError> {
        let fetcher = Fetcher::new(&config.jwks).map_err(AuthenticatorError)?;
        let mut issuers = Vec::with_capacity(config.issuers.len());
        for issuer in &config.issuers {
            let kept = old.and_then(|old| {
                old.issuers.iter().find(|old| {
                    old.config.issuer == issuer.issuer && old.config.keys == issuer.keys
                })
            });
            let keys = Arc::new(IssuerKeys::new(issuer, &config.jwks, fetcher.clone()));
            if let Some(kept) = kept {
                keys.adopt(&kept.keys);
            }
            keys.prime_from_file()
                .map_err(|error| AuthenticatorError(error.to_string()))?;
            issuers.push(Issuer {
                config: issuer.clone(),
                keys,
            });
        }
        Ok(Self {
            shared: Arc::new(Shared {
                config: config.clone(),
                issuers,
                own,
                signed: SignedAgents::read(&config.signed)?,
                roots_not_after: fetcher.roots_not_after(),
            }),
        })
    }

    /// When the first root of `security.jwks_ca_bundle` ends, seconds since 1970.
    pub(crate) fn roots_not_after(&self) -> Option<i64> {
        self.shared.roots_not_after
    }

    /// Starts fetching keys in the background, at once and then every `jwks_refresh_ms`, one
    /// issuer not waiting for another. Dropping the guard ends it. Needs a tokio runtime.
    #[must_use]
    pub fn keep_fresh(&self) -> KeepFresh {
        let mut tasks = tokio::task::JoinSet::new();
        let every = self.shared.config.jwks.refresh;
        for issuer in &self.shared.issuers {
            if matches!(issuer.config.keys, KeySource::File(_)) {
                continue;
            }
            let issuer = issuer.clone();
            tasks.spawn(async move {
                loop {
                    let pause = match issuer.keys.renew(Pace::Free).await {
                        Ok(_) => every,
                        Err(error) => {
                            tracing::warn!(
                                event = events::JWKS_REFRESH_FAILED,
                                issuer = issuer.config.issuer,
                                error = %error,
                                "keys could not be fetched; those at hand stay in use"
                            );
                            every.min(RETRY_PAUSE)
                        }
                    };
                    tokio::time::sleep(pause).await;
                }
            });
        }
        KeepFresh { _tasks: tasks }
    }

    /// Reads key files again, after one changed.
    ///
    /// # Errors
    /// One cannot be read; the keys at hand stay in use.
    pub fn reload_files(&self) -> Result<(), AuthenticatorError> {
        for issuer in &self.shared.issuers {
            issuer
                .keys
                .prime_from_file()
                .map_err(|error| AuthenticatorError(error.to_string()))?;
        }
        Ok(())
    }

    /// Proves a token. Fetches keys if it names one that is unknown, bounded by
    /// `jwks_timeout_ms` and `jwks_refresh_min_ms`.
    ///
    /// # Errors
    /// Why it does not count; [`AuthError::code`] tells a 503 from a 401.
    pub async fn verify(&self, token: &Secret) -> Result<AgentIdentity, AuthError> {
        self.verify_at(token, SystemTime::now()).await
    }

    /// The same at another time, for tests.
    async fn verify_at(&self, token: &Secret, now: SystemTime) -> Result<AgentIdentity, AuthError> {
        let presented = Presented::parse(token.expose())?;
        let shared = &self.shared;
        let clock = self.clock(now);
        if let Some(own) = &shared.own
            && presented.claims.text("iss") == Some(own.issuer())
        {
            let key = own.key_of(&presented, now)?;
            let expected = own.expected(&shared.config.audience);
            presented.prove(token, &key, &expected)?;
            // How long they live is not another's choice.
            let clock = Clock {
                max_lifetime: None,
                ..clock
            };
            return own.identity(&presented.claims, &expected, clock);
        }
        let issuer = self.prove(token, &presented, None).await?;
        let expected = Expected::of(&issuer.config);
        claims::identity(&presented.claims, &expected, &shared.config.claims, clock)
    }

    /// The configured issuer whose signature the token has; of its claims nothing but `iss` and
    /// `aud` is checked. `audience` takes the place of the issuer's own.
    async fn prove(
        &self,
        token: &Secret,
        presented: &Presented,
        audience: Option<&str>,
    ) -> Result<&Issuer, AuthError> {
        let named = presented.claims.text("iss");
        let algorithm =
            TokenAlgorithm::from_header(&presented.alg).ok_or(AuthError::AlgorithmNotAllowed)?;
        let issuer = self
            .shared
            .issuers
            .iter()
            .find(|issuer| named == Some(issuer.config.issuer.as_str()))
            .ok_or(AuthError::UnknownIssuer)?;
        if !issuer.config.algorithms.contains(&algorithm) {
            return Err(AuthError::AlgorithmNotAllowed);
        }
        let keys = issuer.keys_for(presented).await?;
        let key = keys
            .find(presented.kid.as_deref(), algorithm)
            .ok_or(AuthError::UnknownKey)?;
        let expected = Expected {
            audience: audience.unwrap_or(&issuer.config.audience),
            ..Expected::of(&issuer.config)
        };
        presented.prove(
            token,
            &Proof {
                algorithm: algorithm.for_jwt(),
                decoding: key.decoding.clone(),
            },
            &expected,
        )?;
        Ok(issuer)
    }

    fn clock(&self, now: SystemTime) -> Clock {
        Clock {
            now,
            skew: self.shared.config.clock_skew,
            max_lifetime: self.shared.config.max_token_lifetime,
        }
    }

    /// Checks that an upgrade is signed where the agent has to; what comes back is to be used up.
    ///
    /// # Errors
    /// The signature is missing, wrong or too old.
    pub(crate) fn check_signature(
        &self,
        identity: &AgentIdentity,
        signed: Option<&SignedRequest>,
    ) -> Result<Option<Nonce>, SignatureRefused> {
        let now = SystemTime::now();
        self.shared.signed.check(identity, signed, now)
    }

    /// How each issuer's keys are, for `status` and readiness.
    #[must_use]
    pub fn status(&self) -> Vec<IssuerStatus> {
        self.shared
            .issuers
            .iter()
            .map(|issuer| IssuerStatus {
                issuer: issuer.config.issuer.clone(),
                tenant: issuer.config.tenant.clone(),
                keys: issuer.keys.usable().map_or(0, |keys| keys.len()),
                age: issuer.keys.age(),
                last_error: issuer.keys.last_error().map(|error| error.to_string()),
            })
            .collect()
    }
}

/// How long the background waits after a failed fetch, if `jwks_refresh_ms` is not shorter.
const RETRY_PAUSE: Duration = Duration::from_secs(15);

impl Issuer {
    /// The keys, fetched anew if they lack the one that the token names.
    async fn keys_for(&self, presented: &Presented) -> Result<Usable, AuthError> {
        let lacking = match self.keys.usable() {
            Some(keys) if presented.kid.as_ref().is_none_or(|kid| keys.knows(kid)) => {
                return Ok(keys);
            }
            Some(_) => AuthError::UnknownKey,
            None => AuthError::KeysUnavailable,
        };
        if let Err(error) = self.keys.renew(Pace::Bounded).await {
            tracing::warn!(
                event = events::JWKS_FETCH_FAILED,
                issuer = self.config.issuer,
                error = %error,
                "keys could not be fetched for a token"
            );
        }
        // Whatever the fetch brought: the keys at hand decide.
        self.keys.usable().ok_or(lacking)
    }
}

/// A key, and the one algorithm that it proves with here.
struct Proof {
    algorithm: jsonwebtoken::Algorithm,
    decoding: jsonwebtoken::DecodingKey,
}

/// A token taken apart, nothing of it proven.
struct Presented {
    alg: String,
    kid: Option<String>,
    claims: StrictObject,
}

impl Presented {
    fn parse(token: &str) -> Result<Self, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Malformed("it is too long"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AuthError::Malformed("it has not three parts"));
        };
        let header = StrictObject::decode(header)?;
        if header.get("crit").is_some() {
            return Err(AuthError::Malformed("it has critical extensions"));
        }
        let alg = header.text("alg").ok_or(AuthError::AlgorithmNotAllowed)?;
        let kid = match header.get("kid") {
            None => None,
            Some(serde_json::Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(AuthError::Malformed("`kid` is no text")),
        };
        Ok(Self {
            alg: alg.to_owned(),
            kid,
            claims: StrictObject::decode(claims)?,
        })
    }

    /// Checks the signature. The claims are checked afterwards, from the same bytes.
    fn prove(&self, token: &Secret, key: &Proof, expected: &Expected<'_>) -> Result<(), AuthError> {
        let mut validation = Validation::new(key.algorithm);
        validation.set_audience(&[expected.audience]);
        validation.set_issuer(&[expected.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // Times are checked in one place, against the caller's clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        match jsonwebtoken::decode::<serde::de::IgnoredAny>(
            token.expose(),
            &key.decoding,
            &validation,
        ) {
            Ok(_) => Ok(()),
            Err(error) => Err(AuthError::from_jwt(&error)),
        }
    }
}

/// How an issuer's keys are.
#[derive(Clone, Debug, PartialEq)]
pub struct IssuerStatus {
    /// The issuer.
    pub issuer: String,
    /// The tenants that it may speak for.
    pub tenant: crate::config::TenantRule,
    /// How many usable keys are at hand.
    pub keys: usize,
    /// Time since they were fetched.
    pub age: Option<Duration>,
    /// Why the last fetch failed, if it did.
    pub last_error: Option<String>,
}

/// Ends the background refresh when dropped.
#[derive(Debug)]
pub struct KeepFresh {
    _tasks: tokio::task::JoinSet<()>,
}

/// Why an authenticator cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticatorError(String);

/// Why a token does not count. No variant holds any of its secret parts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It is not a signed JWT, or not an unambiguous one.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// `alg` is `none`, a shared secret, unknown, or not configured for the issuer.
    #[error("the token's algorithm is not allowed")]
    AlgorithmNotAllowed,
    /// `iss` names no configured issuer.
    #[error("the token's issuer is not configured")]
    UnknownIssuer,
    /// The issuer has no such key, or no `kid` was given and it has several.
    #[error("the token's key is unknown")]
    UnknownKey,
    /// The hub has no usable keys of the issuer.
    #[error("the issuer's keys cannot be had at the moment")]
    KeysUnavailable,
    /// The signature is not the key's.
    #[error("the token's signature does not fit")]
    BadSignature,
    /// `iss` is not one text that equals the issuer.
    #[error("the token's `iss` does not fit")]
    WrongIssuer,
    /// `aud` does not contain the audience.
    #[error("the token is for another audience")]
    WrongAudience,
    /// `exp` is past.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `exp` minus `iat` is above the configured bound.
    #[error("the token lives longer than {max_token_lifetime_ms} ms")]
    LivesTooLong {
        /// The bound, in milliseconds.
        max_token_lifetime_ms: u128,
    },
    /// A claim that has to be there is not.
    #[error("the token lacks the claim `{0}`")]
    MissingClaim(String),
    /// A claim is not what it has to be: its name, and why.
    #[error("the token's claim `{0}`: {1}")]
    BadClaim(String, String),
    /// The issuer may not speak for the tenant that it names.
    #[error("the issuer may not speak for the tenant `{0}`")]
    TenantNotAllowed(TenantName),
}

impl AuthError {
    /// The stable code for the answer, logs and metrics.
    #[must_use]
    pub fn code(&self) -> UpgradeCode {
        match self {
            Self::Malformed(_) => UpgradeCode::TokenMalformed,
            Self::AlgorithmNotAllowed => UpgradeCode::TokenAlgorithm,
            Self::UnknownIssuer => UpgradeCode::TokenIssuerUnknown,
            Self::UnknownKey => UpgradeCode::TokenKeyUnknown,
            Self::KeysUnavailable => UpgradeCode::KeysUnavailable,
            Self::BadSignature => UpgradeCode::TokenSignature,
            Self::WrongIssuer => UpgradeCode::TokenIssuer,
            Self::WrongAudience => UpgradeCode::TokenAudience,
            Self::Expired => UpgradeCode::TokenExpired,
            Self::NotYetValid => UpgradeCode::TokenNotYetValid,
            Self::LivesTooLong { .. } => UpgradeCode::TokenLifetime,
            Self::MissingClaim(_) | Self::BadClaim(..) => UpgradeCode::TokenClaims,
            Self::TenantNotAllowed(_) => UpgradeCode::TokenTenant,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's enum is open; what is not named is malformed"
    )]
    fn from_jwt(error: &jsonwebtoken::errors::Error) -> Self {
        use jsonwebtoken::errors::ErrorKind;
        match error.kind() {
            ErrorKind::InvalidSignature => Self::BadSignature,
            ErrorKind::InvalidIssuer => Self::WrongIssuer,
            ErrorKind::InvalidAudience => Self::WrongAudience,
            ErrorKind::InvalidAlgorithm => Self::AlgorithmNotAllowed,
            ErrorKind::MissingRequiredClaim(name) => Self::MissingClaim(name.clone()),
            _ => Self::Malformed("the library refuses it"),
        }
    }
}
