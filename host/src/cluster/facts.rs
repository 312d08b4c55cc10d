//! What this hub writes about an agent for the others, and what they read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nowconnect_policy::AgentFacts;
use nowconnect_registry::{AgentKey, Offer, RegistryError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::authorize::{self, unix_ms};
use crate::generation::Generation;
use crate::identity::AgentIdentity;
use crate::session::{LiveTunnel, Standing};

/// The form that this hub writes, and the newest that it reads.
const FORM: u8 = 1;

/// What its owner has proven of an agent, and what it said of itself: all that policies, plugins
/// and the revocation list at another hub need of it.
///
/// The address that it dials from is not among it: who may see that is decided at its owner, call
/// by call, and each time is recorded there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenFacts {
    /// Of this text: a hub reads those up to its own.
    pub form: u8,
    /// The agent as policies see it: tenant and id, scopes, groups, claims, labels, expiry.
    pub agent: AgentFacts,
    /// Who signed its token.
    pub issuer: String,
    /// The token's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The token's id, by which it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// When the token was issued, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at_ms: Option<u64>,
    /// When the token ends, in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// Tells its process from another of the same identity.
    pub instance: u64,
    /// What it says that it runs.
    pub agent_version: String,
}

impl ProvenFacts {
    fn of(tunnel: &LiveTunnel, standing: &Standing) -> Self {
        let identity = &standing.identity;
        Self {
            form: FORM,
            agent: authorize::agent_facts(identity, &tunnel.labels),
            issuer: identity.issuer.to_string(),
            subject: identity.subject.clone(),
            jti: identity.jti.clone(),
            issued_at_ms: identity.issued_at.map(unix_ms),
            expires_at_ms: unix_ms(identity.expires_at),
            instance: tunnel.instance.0,
            agent_version: tunnel.agent_version.clone(),
        }
    }

    /// Reads what another hub wrote of the agent `key`. `None` for what is no such text, is of a
    /// newer form, or is about another agent: then nothing is proven of it.
    #[must_use]
    pub fn read(key: &AgentKey, text: &str) -> Option<Self> {
        let facts: Self = serde_json::from_str(text).ok()?;
        let name = authorize::policy_name(&key.tenant, key.agent.as_str());
        (facts.form <= FORM && facts.agent.agent == name).then_some(facts)
    }

    /// Whether the token has ended at `now`.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now >= UNIX_EPOCH + Duration::from_millis(self.expires_at_ms)
    }

    /// Whom the token proved, for the revocation list. It has no scopes and tags: those are in
    /// [`agent`](Self::agent).
    #[must_use]
    pub fn identity(&self, key: &AgentKey) -> AgentIdentity {
        let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
        AgentIdentity {
            tenant: key.tenant.clone(),
            agent_id: key.agent.clone(),
            issuer: self.issuer.as_str().into(),
            subject: self.subject.clone(),
            jti: self.jti.clone(),
            issued_at: self.issued_at_ms.map(at),
            expires_at: at(self.expires_at_ms),
            scopes: None,
            tags: std::collections::BTreeMap::new(),
            groups: Vec::new(),
            ephemeral: self.agent.ephemeral,
        }
    }
}

/// What a tunnel's agent offers, with what is proven of it.
pub(super) fn offer(tunnel: &LiveTunnel, standing: &Standing) -> Result<Offer, RegistryError> {
    // A struct of strings and numbers always has a JSON form.
    let facts = serde_json::to_string(&ProvenFacts::of(tunnel, standing)).unwrap_or_default();
    Offer::new(standing.connectors.to_vec(), facts)
}

/// Hexadecimal digits that tell two generations apart: 64 bits.
const NAME_DIGITS: usize = 16;

/// What is in force here, as a name that is the same at every hub with the same policies and
/// plugins, whatever the numbers of their generations. Begins with the revision of the policies
/// where they came in a bundle.
pub(crate) fn generation(generation: &Generation) -> String {
    let mut hash = Sha256::new();
    hash.update(generation.policies().digest().as_bytes());
    for plugin in generation.plugins().status() {
        for part in [&plugin.name, &plugin.digest] {
            hash.update([0]);
            hash.update(part.as_bytes());
        }
    }
    let mut name = match generation.revision() {
        Some(revision) => format!("r{revision}-"),
        None => String::new(),
    };
    let digits: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    name.push_str(&digits[..NAME_DIGITS]);
    name
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use nowconnect_policy::Name;
    use nowconnect_protocol::{AgentId, TenantName};

    use super::*;

    #[test]
    fn what_is_written_is_read_of_that_agent_alone() {
        let written = serde_json::to_string(&facts(FORM)).unwrap();
        assert_eq!(
            ProvenFacts::read(&key("default", "plant"), &written),
            Some(facts(FORM))
        );
        assert_eq!(ProvenFacts::read(&key("default", "other"), &written), None);
        assert_eq!(ProvenFacts::read(&key("acme", "plant"), &written), None);
    }

    #[test]
    fn what_cannot_be_read_proves_nothing() {
        let plant = key("default", "plant");
        for text in ["", "{}", "null", "[1]"] {
            assert_eq!(ProvenFacts::read(&plant, text), None, "{text}");
        }
        let newer = serde_json::to_string(&facts(FORM + 1)).unwrap();
        assert_eq!(ProvenFacts::read(&plant, &newer), None);
    }

    #[test]
    fn a_token_ends_for_other_hubs_when_it_ends() {
        let facts = facts(FORM);
        let end = UNIX_EPOCH + Duration::from_millis(facts.expires_at_ms);
        assert!(!facts.is_expired(end - Duration::from_millis(1)));
        assert!(facts.is_expired(end));
        let identity = facts.identity(&key("default", "plant"));
        assert!(identity.is_expired(end) && identity.jti.as_deref() == Some("j"));
    }

    fn facts(form: u8) -> ProvenFacts {
        ProvenFacts {
            form,
            agent: AgentFacts {
                agent: Name::bare("plant"),
                scopes: Vec::new(),
                ephemeral: false,
                token_expires_ms: 5_000,
                groups: Vec::new(),
                tags: vec![("label.site".to_owned(), "north".to_owned())],
            },
            issuer: "https://idp.example".to_owned(),
            subject: None,
            jti: Some("j".to_owned()),
            issued_at_ms: Some(1_000),
            expires_at_ms: 5_000,
            instance: 7,
            agent_version: "1.0".to_owned(),
        }
    }

    fn key(tenant: &str, agent: &str) -> AgentKey {
        AgentKey {
            tenant: TenantName::parse(tenant).unwrap(),
            agent: AgentId::parse(agent).unwrap(),
        }
    }
}
