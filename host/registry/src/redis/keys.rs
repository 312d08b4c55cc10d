//! The names of keys. What is in braces decides the slot in a cluster, so that the keys that one
//! script touches are together. Names of agents and tenants hold no braces; other texts come after
//! a brace that closed, where braces mean nothing.

use crate::agent::{AgentKey, ConnectorKey};
use crate::shared::{Bucket, OnceKind};

#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// The ownership record: a hash.
    pub(super) fn owner(&self, key: &AgentKey) -> String {
        format!("{}:owner:{{{}/{}}}", self.prefix, key.tenant, key.agent)
    }

    /// Which agents offer a connector: a hash.
    pub(super) fn index(&self, key: &ConnectorKey) -> String {
        format!("{}:index:{{{}/{}}}", self.prefix, key.tenant, key.name)
    }

    /// Which indexes there are: a set.
    pub(super) fn indexes(&self) -> String {
        format!("{}:indexes", self.prefix)
    }

    /// Until when a hub is present: a sorted set.
    pub(super) fn hubs_until(&self) -> String {
        format!("{}:{{hubs}}:until", self.prefix)
    }

    /// What a hub says about itself: a hash.
    pub(super) fn hubs_about(&self) -> String {
        format!("{}:{{hubs}}:about", self.prefix)
    }

    /// Who has a lease: a string.
    pub(super) fn lease(&self, name: &str) -> String {
        format!("{}:lease:{name}", self.prefix)
    }

    /// That something was used: a string.
    pub(super) fn once(&self, kind: OnceKind, id: &str) -> String {
        format!(
            "{}:once:{{{}}}:{id}",
            self.prefix,
            spread(kind.as_str(), id)
        )
    }

    /// A value: a string.
    pub(super) fn value(&self, bucket: Bucket, name: &str) -> String {
        let bucket = bucket.as_str();
        format!("{}:value:{{{}}}:{name}", self.prefix, spread(bucket, name))
    }

    /// A counter: a string.
    pub(super) fn counter(&self, name: &str) -> String {
        format!("{}:count:{{{}}}:{name}", self.prefix, spread("count", name))
    }

    /// Revocations by version: a sorted set.
    pub(super) fn revoked(&self) -> String {
        format!("{}:{{revoked}}:log", self.prefix)
    }

    /// Until when a revocation counts: a sorted set.
    pub(super) fn revoked_until(&self) -> String {
        format!("{}:{{revoked}}:until", self.prefix)
    }

    /// The last version, and which store this is: a hash.
    pub(super) fn revoked_about(&self) -> String {
        format!("{}:{{revoked}}:about", self.prefix)
    }
}

/// A tag that spreads `name` over the slots, whatever characters it holds (FNV-1a).
fn spread(kind: &str, name: &str) -> String {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{kind}/{:04x}", hash & 0xffff)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use nowconnect_protocol::{AgentId, TenantName};

    use super::*;

    #[test]
    fn keys_are_as_documented() {
        let keys = Keys::new("nc");
        let agent = AgentKey {
            tenant: TenantName::default(),
            agent: AgentId::parse("plant-1").unwrap(),
        };
        assert_eq!(keys.owner(&agent), "nc:owner:{default/plant-1}");
        assert_eq!(keys.lease("sweeper"), "nc:lease:sweeper");
        assert_eq!(keys.hubs_until(), "nc:{hubs}:until");
    }

    #[test]
    fn a_name_with_braces_does_not_choose_its_slot() {
        let keys = Keys::new("nc");
        let key = keys.value(Bucket::Names, "{hubs}");
        let tag = key.split_once('{').unwrap().1.split_once('}').unwrap().0;
        assert!(tag.starts_with("names/"), "{key}");
        assert_ne!(key, keys.value(Bucket::Names, "}hubs{"));
    }
}
