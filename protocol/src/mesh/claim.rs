//! Who holds an agent.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::epoch::Epoch;
use crate::frame::DecodeError;
use crate::frame::tlv::{put_short_text, take_short_text, take_u64};
use crate::name::{AgentId, ReplicaId, TenantName};

/// An agent, named across all tenants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentKey {
    /// The agent's tenant.
    pub tenant: TenantName,
    /// The agent within its tenant.
    pub agent: AgentId,
}

impl fmt::Display for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenant.is_default() {
            write!(f, "{}", self.agent)
        } else {
            write!(f, "{}/{}", self.tenant, self.agent)
        }
    }
}

/// The claim of the hub `epoch.replica` on an agent.
///
/// Each flow on a link is bound to one claim for as long as it is on that link, and each of its
/// frames repeats the claim's counter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The agent.
    pub agent: AgentKey,
    /// The claim's fencing number.
    pub epoch: Epoch,
}

impl Claim {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_short_text(out, self.agent.tenant.as_str());
        put_short_text(out, self.agent.agent.as_str());
        out.put_u64(self.epoch.counter);
        put_short_text(out, self.epoch.replica.as_str());
    }

    pub(super) fn decode(body: &mut Bytes) -> Result<Self, DecodeError> {
        let tenant = TenantName::parse(&take_short_text(body)?)?;
        let agent = AgentId::parse(&take_short_text(body)?)?;
        let counter = take_u64(body)?;
        let replica = ReplicaId::parse(&take_short_text(body)?)?;
        Ok(Self {
            agent: AgentKey { tenant, agent },
            epoch: Epoch { counter, replica },
        })
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at epoch {} of {}",
            self.agent, self.epoch.counter, self.epoch.replica
        )
    }
}
