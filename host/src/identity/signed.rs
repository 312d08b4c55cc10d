//! Agents that sign their upgrade with a secret of their own, beside their token.

use std::collections::HashMap;
use std::time::SystemTime;

use nowconnect_control::{SignedError, SignedRequest};
use nowconnect_protocol::{AgentId, TenantName};

use super::{AgentIdentity, AuthenticatorError};
use crate::authorize::unix_ms;
use crate::config::{Secret, SignedConfig, secret};

/// The secrets in force.
#[derive(Debug)]
pub(super) struct SignedAgents {
    secrets: HashMap<(TenantName, AgentId), Secret>,
    window_seconds: u64,
}

/// What makes a signed request count once, to be used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nonce {
    /// Agent and nonce.
    pub(crate) id: String,
    /// When the request counts no longer by its time.
    pub(crate) until_ms: u64,
}

/// Why an upgrade's signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureRefused {
    /// The agent has a secret and did not sign.
    #[error("this agent has to sign its upgrade; see docs/protocols/signed-upgrade.md")]
    Missing,
    /// The signature does not count.
    #[error(transparent)]
    Signed(#[from] SignedError),
}

impl SignedAgents {
    /// Reads every secret.
    pub(super) fn read(config: &SignedConfig) -> Result<Self, AuthenticatorError> {
        let mut secrets = HashMap::with_capacity(config.agents.len());
        for agent in &config.agents {
            let secret = secret::read_file(&agent.secret_file).map_err(|reason| {
                AuthenticatorError(format!(
                    "`security.signed_agents`: the secret of `{}` in `{}`: {reason}",
                    agent.agent,
                    agent.secret_file.display()
                ))
            })?;
            secrets.insert((agent.tenant.clone(), agent.agent.clone()), secret);
        }
        Ok(Self {
            secrets,
            window_seconds: config.window.as_secs(),
        })
    }

    /// Checks the signature of an agent whose token is proven. An agent without a secret need not
    /// sign; where it does, that counts as wrong, so that nobody learns who has one.
    pub(super) fn check(
        &self,
        identity: &AgentIdentity,
        signed: Option<&SignedRequest>,
        now: SystemTime,
    ) -> Result<Option<Nonce>, SignatureRefused> {
        let key = (identity.tenant.clone(), identity.agent_id.clone());
        let secret = self.secrets.get(&key);
        let Some(request) = signed else {
            return match secret {
                Some(_) => Err(SignatureRefused::Missing),
                None => Ok(None),
            };
        };
        let named = request.agent == identity.agent_id.as_str();
        let secret = secret.filter(|_| named);
        let now_seconds = unix_ms(now) / 1000;
        request.check(
            secret.map(|secret| secret.expose().as_bytes()),
            now_seconds,
            self.window_seconds,
        )?;
        let last_second = request.timestamp.saturating_add(self.window_seconds);
        Ok(Some(Nonce {
            id: format!("{}/{}/{}", key.0, key.1, request.nonce),
            until_ms: last_second.saturating_add(1).saturating_mul(1000),
        }))
    }
}
