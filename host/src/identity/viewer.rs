//! Who a viewer of HTTP is, from the same kind of token by another audience.
//!
//! Signature, issuer, key and times are checked by the code that checks agents' tokens. Nothing
//! that an agent needs is read, and a token for agents never counts here: its audience is another.

use std::sync::Arc;
use std::time::SystemTime;

use nowconnect_protocol::TenantName;

use super::claims::{self, MAX_CLAIM_BYTES, StrictObject};
use super::{AuthError, Authenticator, Presented};
use crate::config::{ClaimsConfig, Secret};

/// The most ways of authentication that are read from a token.
const MAX_AMR: usize = 16;

/// Which tokens count, and what of them reaches policies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ViewerTokens<'a> {
    /// What `aud` must contain.
    pub(crate) audience: &'a str,
    pub(crate) claims: &'a ClaimsConfig,
}

/// What a viewer's token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ViewerIdentity {
    /// The tenant that the issuer may speak for.
    pub(crate) tenant: TenantName,
    /// `sub`, whole: two viewers are never one because their names were cut.
    pub(crate) subject: String,
    /// `iss`.
    pub(crate) issuer: Arc<str>,
    pub(crate) email: Option<String>,
    pub(crate) email_verified: Option<bool>,
    /// `amr`, as the issuer says it.
    pub(crate) amr: Vec<String>,
    pub(crate) auth_time: Option<SystemTime>,
    /// Until when it is accepted: `exp`, and as much as clocks may differ.
    pub(crate) good_until: SystemTime,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) groups: Vec<String>,
}

impl Authenticator {
    /// Proves a viewer's token; see [`verify`](Self::verify).
    ///
    /// # Errors
    /// Why it does not count.
    pub(crate) async fn verify_viewer(
        &self,
        token: &Secret,
        wanted: ViewerTokens<'_>,
    ) -> Result<ViewerIdentity, AuthError> {
        self.verify_viewer_at(token, wanted, SystemTime::now())
            .await
    }

    /// The same at another time, for tests.
    pub(super) async fn verify_viewer_at(
        &self,
        token: &Secret,
        wanted: ViewerTokens<'_>,
        now: SystemTime,
    ) -> Result<ViewerIdentity, AuthError> {
        let presented = Presented::parse(token.expose())?;
        let audience = Some(wanted.audience);
        let issuer = self.prove(token, &presented, audience).await?;
        let claims = &presented.claims;
        if claims.text("iss") != Some(issuer.config.issuer.as_str()) {
            return Err(AuthError::WrongIssuer);
        }
        if !claims::names_audience(claims, wanted.audience) {
            return Err(AuthError::WrongAudience);
        }
        let clock = self.clock(now);
        let (_, expires_at) = claims::times(claims, clock)?;
        Ok(ViewerIdentity {
            tenant: claims::tenant(claims, &issuer.config.tenant)?,
            subject: subject(claims)?,
            issuer: Arc::from(issuer.config.issuer.as_str()),
            email: short(claims, "email"),
            email_verified: claims
                .get("email_verified")
                .and_then(serde_json::Value::as_bool),
            amr: amr(claims),
            auth_time: claims::time(claims, "auth_time")?,
            good_until: expires_at + clock.skew,
            tags: claims::tags(claims, &wanted.claims.tags)
                .into_iter()
                .collect(),
            groups: wanted
                .claims
                .groups
                .as_ref()
                .map(|claim| claims::groups(claims, claim))
                .unwrap_or_default(),
        })
    }
}

fn subject(claims: &StrictObject) -> Result<String, AuthError> {
    let subject = claims
        .text("sub")
        .ok_or_else(|| AuthError::MissingClaim("sub".to_owned()))?;
    if subject.is_empty() || subject.len() > MAX_CLAIM_BYTES {
        let why = format!("it has not 1 to {MAX_CLAIM_BYTES} bytes");
        return Err(AuthError::BadClaim("sub".to_owned(), why));
    }
    Ok(subject.to_owned())
}

fn short(claims: &StrictObject, name: &str) -> Option<String> {
    let text = claims.text(name)?;
    (text.len() <= MAX_CLAIM_BYTES).then(|| text.to_owned())
}

fn amr(claims: &StrictObject) -> Vec<String> {
    let list = claims.get("amr").and_then(serde_json::Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_str)
        .filter(|way| !way.is_empty() && way.len() <= MAX_CLAIM_BYTES)
        .take(MAX_AMR)
        .map(str::to_owned)
        .collect()
}
