//! The hub's own control plane as an issuer of agents' tokens.

use std::sync::Arc;
use std::time::SystemTime;

use nowconnect_control::{Algorithm, KeyRing};

use super::claims::{self, Clock, Expected, StrictObject};
use super::{AgentIdentity, AuthError, Presented, Proof};
use crate::authorize::unix_ms;
use crate::config::{ClaimsConfig, TenantRule};

/// The issuer of tokens that `POST /tunnels/create` gives. Keys are those of the moment: a change
/// of keys needs no fetch, and one that is distrusted proves nothing from then on.
#[derive(Clone, Debug)]
pub(crate) struct OwnIssuer {
    issuer: Arc<str>,
    keys: Arc<KeyRing>,
    tenant: TenantRule,
    connectors: [String; 1],
}

impl OwnIssuer {
    pub(crate) fn new(issuer: Arc<str>, keys: Arc<KeyRing>) -> Self {
        Self {
            issuer,
            keys,
            // Its tokens are for the tenants of its own clients, which the configuration names.
            tenant: TenantRule::Claim {
                claim: "tenant".to_owned(),
                allowed: Vec::new(),
            },
            connectors: ["connectors".to_owned()],
        }
    }

    /// What `iss` is.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The key that a token names, for the one algorithm that the key was made for.
    pub(super) fn key_of(
        &self,
        presented: &Presented,
        now: SystemTime,
    ) -> Result<Proof, AuthError> {
        let algorithm =
            Algorithm::from_header(&presented.alg).ok_or(AuthError::AlgorithmNotAllowed)?;
        let kid = presented.kid.as_deref().ok_or(AuthError::UnknownKey)?;
        let decoding = self
            .keys
            .proof(kid, algorithm, unix_ms(now))
            .ok_or(AuthError::UnknownKey)?;
        Ok(Proof {
            algorithm: algorithm.for_jwt(),
            decoding,
        })
    }

    pub(super) fn expected<'a>(&'a self, audience: &'a str) -> Expected<'a> {
        Expected {
            issuer: &self.issuer,
            audience,
            tenant: &self.tenant,
            agent_id_claim: "agent_id",
            connectors_claims: &self.connectors,
        }
    }

    /// Which claims reach policies is the operator's choice for other issuers; these have none
    /// beside what an identity is made of.
    pub(super) fn identity(
        &self,
        claims: &StrictObject,
        expected: &Expected<'_>,
        clock: Clock,
    ) -> Result<AgentIdentity, AuthError> {
        let none = ClaimsConfig {
            tags: Vec::new(),
            groups: None,
        };
        let identity = claims::identity(claims, expected, &none, clock)?;
        Ok(AgentIdentity {
            ephemeral: true,
            ..identity
        })
    }
}
