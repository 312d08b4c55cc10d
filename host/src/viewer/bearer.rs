//! `Authorization: Bearer` with a JWT.

use std::sync::OnceLock;

use nowconnect_protocol::TenantName;

use super::{OWN_PREFIXES, Proven, Refusal, RefusalKind, ViewerAuthError};
use crate::config::{Secret, SecurityConfig, ViewerBearer};
use crate::identity::{AuthError, Authenticator, KeepFresh, ViewerIdentity, ViewerTokens};

/// Which tokens count, and who verifies them.
#[derive(Debug)]
pub(super) struct Tokens {
    config: ViewerBearer,
    /// Where the set has issuers of its own.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    authenticator: Authenticator,
    kept_fresh: OnceLock<KeepFresh>,
}

impl Tokens {
    pub(super) fn build(
        config: &ViewerBearer,
        security: &SecurityConfig,
        before: Option<&Self>,
    ) -> Result<Self, ViewerAuthError> {
        let own = if config.issuers.is_empty() {
            None
        } else {
            let security = SecurityConfig {
                issuers: config.issuers.clone(),
                ..security.clone()
            };
            let earlier = before.and_then(|before| before.own.as_ref());
            let authenticator = match earlier {
                Some(earlier) => earlier.authenticator.rebuilt(&security)?,
                None => Authenticator::new(&security)?,
            };
            Some(Own {
                authenticator,
                kept_fresh: OnceLock::new(),
            })
        };
        Ok(Self {
            config: config.clone(),
            own,
        })
    }

    /// Fetches the keys of the set's own issuers from now on, until dropped.
    pub(super) fn keep_fresh(&self) {
        if let Some(own) = &self.own {
            own.kept_fresh
                .get_or_init(|| own.authenticator.keep_fresh());
        }
    }

    pub(super) async fn prove(
        &self,
        token: &str,
        of_agents: &Authenticator,
        tenant: &TenantName,
    ) -> Result<Proven, Refusal> {
        let authenticator = self
            .own
            .as_ref()
            .map_or(of_agents, |own| &own.authenticator);
        let wanted = ViewerTokens {
            audience: &self.config.audience,
            claims: &self.config.claims,
        };
        let identity = authenticator
            .verify_viewer(&Secret::new(token), wanted)
            .await
            .map_err(|error| refusal(&error))?;
        // Services are told names that are of a tenant, and few look at which.
        if identity.tenant != *tenant && !self.config.other_tenants.contains(&identity.tenant) {
            let detail = format!("it is of the tenant `{}`", identity.tenant);
            return Err(Refusal::new(RefusalKind::TokenRefused, detail));
        }
        proven(identity)
    }
}

fn proven(identity: ViewerIdentity) -> Result<Proven, Refusal> {
    let taken = |prefix: &&str| identity.subject.starts_with(prefix);
    if let Some(prefix) = OWN_PREFIXES.iter().find(|prefix| taken(prefix)) {
        let detail = format!("`sub` begins with `{prefix}`, as the hub's own ids do");
        return Err(Refusal::new(RefusalKind::TokenRefused, detail));
    }
    Ok(Proven {
        tenant: identity.tenant,
        id: identity.subject,
        issuer: Some(identity.issuer.to_string()),
        email: identity.email,
        email_verified: identity.email_verified,
        amr: identity.amr,
        auth_time: identity.auth_time,
        groups: identity.groups,
        tags: identity.tags,
        until: Some(identity.good_until),
    })
}

fn refusal(error: &AuthError) -> Refusal {
    let kind = match error {
        AuthError::Expired => RefusalKind::TokenExpired,
        AuthError::KeysUnavailable => RefusalKind::Unavailable,
        AuthError::Malformed(_)
        | AuthError::AlgorithmNotAllowed
        | AuthError::UnknownIssuer
        | AuthError::UnknownKey
        | AuthError::BadSignature
        | AuthError::WrongIssuer
        | AuthError::WrongAudience
        | AuthError::NotYetValid
        | AuthError::LivesTooLong { .. }
        | AuthError::MissingClaim(_)
        | AuthError::BadClaim(..)
        | AuthError::TenantNotAllowed(_) => RefusalKind::TokenRefused,
    };
    Refusal::new(kind, format!("{}: {error}", error.code()))
}
