//! Agents at other hubs.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lru::LruCache;
use nowconnect_protocol::{Epoch, ReplicaId};
use nowconnect_registry::{
    AgentKey, AgentPresence, ConnectorKey, EpochFence, HaMode, HubPresence, Registry, RegistryError,
};
use parking_lot::Mutex;
use rand::seq::SliceRandom as _;

use super::{Cluster, ProvenFacts};
use crate::revocation::RevocationList;
use crate::session::LiveTunnel;

/// An agent at another hub that may carry a flow, as far as can be told from here. Its owner asks
/// again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteAgent {
    /// Which agent.
    pub key: AgentKey,
    /// The hub that holds its tunnel.
    pub owner: ReplicaId,
    /// The claim that is in force, for every frame of the flow.
    pub epoch: Epoch,
    /// What its owner has proven of it, for the decision here.
    pub facts: ProvenFacts,
}

/// Who may carry the next flow of a connector.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// An agent of this hub.
    Local(Arc<LiveTunnel>),
    /// None of this hub may now; this one of another hub may.
    Remote(Box<RemoteAgent>),
    /// Nobody may.
    Nobody,
}

/// What the registry said of connectors a moment ago, so that clients of a busy one cost it no call
/// each. At most [`REMEMBERED`] of them.
#[derive(Debug)]
pub(super) struct Listed(Mutex<LruCache<ConnectorKey, Heard>>);

#[derive(Debug)]
struct Heard {
    at: Instant,
    agents: Arc<[AgentPresence]>,
}

/// Connectors whose agents are remembered; with 256 agents and 16 KiB of facts each at most 4 MB a
/// connector, and some kilobytes as a rule.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(64).expect("the number is not 0");

/// For how long.
const FRESH_FOR: Duration = Duration::from_millis(500);

impl Default for Listed {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Listed {
    async fn agents(
        &self,
        registry: &dyn Registry,
        connector: &ConnectorKey,
    ) -> Result<Arc<[AgentPresence]>, RegistryError> {
        if let Some(heard) = self.0.lock().get(connector)
            && heard.at.elapsed() < FRESH_FOR
        {
            return Ok(Arc::clone(&heard.agents));
        }
        let agents: Arc<[AgentPresence]> = registry.list_agents(connector).await?.into();
        let heard = Heard {
            at: Instant::now(),
            agents: Arc::clone(&agents),
        };
        self.0.lock().put(connector.clone(), heard);
        Ok(agents)
    }
}

impl Cluster {
    /// The agents of `connector` at other active hubs, in random order. None where this hub is not
    /// active: agents of its own are preferred, and asked for before.
    ///
    /// # Errors
    /// The registry is away: there are flows of this hub's own agents only.
    pub async fn find(
        &self,
        connector: &ConnectorKey,
        revocations: &RevocationList,
    ) -> Result<Vec<RemoteAgent>, RegistryError> {
        if !self.is_active() {
            return Ok(Vec::new());
        }
        let membership = self.membership.load_full();
        let registry = membership.registry().as_ref();
        let found = self.listed.agents(registry, connector).await?;
        let view = View {
            here: &self.about.borrow().replica.clone(),
            others: &membership.seen().borrow().others.clone(),
            fence: &self.fence,
            revocations,
            now: SystemTime::now(),
        };
        let mut agents = view.usable(connector, &found);
        agents.shuffle(&mut rand::rng());
        Ok(agents)
    }
}

/// What decides whether an agent of the registry may be used.
struct View<'a> {
    here: &'a ReplicaId,
    others: &'a [HubPresence],
    fence: &'a EpochFence,
    revocations: &'a RevocationList,
    now: SystemTime,
}

impl View<'_> {
    fn usable(&self, connector: &ConnectorKey, found: &[AgentPresence]) -> Vec<RemoteAgent> {
        found
            .iter()
            .filter_map(|agent| self.one(connector, agent))
            .collect()
    }

    /// The registry is not trusted to have looked at any of it.
    fn one(&self, connector: &ConnectorKey, agent: &AgentPresence) -> Option<RemoteAgent> {
        let is_active = |hub: &HubPresence| {
            hub.replica == agent.owner && hub.mode == HaMode::Active && hub.replica != *self.here
        };
        if agent.key.tenant != connector.tenant
            || !agent.offer.has(&connector.name)
            || agent.epoch.replica != agent.owner
            || !self.others.iter().any(is_active)
        {
            return None;
        }
        let facts = ProvenFacts::read(&agent.key, agent.offer.facts())?;
        if facts.is_expired(self.now) || self.revocations.is_revoked(&facts.identity(&agent.key)) {
            return None;
        }
        // Last: an agent that is looked at here is remembered.
        let fenced = self.fence.observe(&agent.key, &agent.epoch);
        fenced.is_accepted().then_some(RemoteAgent {
            key: agent.key.clone(),
            owner: agent.owner.clone(),
            epoch: agent.epoch.clone(),
            facts,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::time::UNIX_EPOCH;

    use nowconnect_protocol::{AgentId, ConnectorName, TenantName};
    use nowconnect_registry::Offer;

    use super::*;

    #[test]
    fn an_agent_of_another_active_hub_is_found() {
        let found = usable(vec![agent(|_| ())]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].owner, replica("hub-b"));
    }

    #[test]
    fn what_the_registry_should_not_have_listed_is_left_out() {
        type Change = fn(&mut AgentPresence);
        let cases: [(&str, Change); 7] = [
            ("another tenant's", |agent| {
                agent.key.tenant = TenantName::parse("acme").unwrap();
            }),
            ("another connector", |agent| {
                agent.offer = Offer::new(vec![name("ssh")], facts(10)).unwrap();
            }),
            ("this hub's own", |agent| {
                agent.owner = replica("hub-a");
                agent.epoch.replica = replica("hub-a");
            }),
            ("a hub that is gone", |agent| {
                agent.owner = replica("hub-x");
                agent.epoch.replica = replica("hub-x");
            }),
            ("a shadow hub's", |agent| {
                agent.owner = replica("hub-s");
                agent.epoch.replica = replica("hub-s");
            }),
            ("nothing proven of it", |agent| {
                agent.offer = Offer::new(vec![name("echo")], "").unwrap();
            }),
            ("a token that has ended", |agent| {
                agent.offer = Offer::new(vec![name("echo")], facts(4)).unwrap();
            }),
        ];
        for (what, change) in cases {
            assert!(usable(vec![agent(change)]).is_empty(), "{what}");
        }
    }

    #[test]
    fn an_epoch_that_was_left_is_not_taken() {
        let newer = agent(|agent| agent.epoch.counter = 8);
        let found = usable(vec![newer, agent(|_| ())]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].epoch.counter, 8);
    }

    fn usable(found: Vec<AgentPresence>) -> Vec<RemoteAgent> {
        let view = View {
            here: &replica("hub-a"),
            others: &[hub("hub-b", HaMode::Active), hub("hub-s", HaMode::Shadow)],
            fence: &EpochFence::new(NonZeroUsize::MIN),
            revocations: &RevocationList::empty(),
            now: UNIX_EPOCH + Duration::from_secs(5),
        };
        let connector = ConnectorKey {
            tenant: TenantName::default(),
            name: name("echo"),
        };
        view.usable(&connector, &found)
    }

    fn agent(change: impl FnOnce(&mut AgentPresence)) -> AgentPresence {
        let mut agent = AgentPresence {
            key: AgentKey {
                tenant: TenantName::default(),
                agent: AgentId::parse("plant").unwrap(),
            },
            owner: replica("hub-b"),
            epoch: Epoch {
                counter: 7,
                replica: replica("hub-b"),
            },
            offer: Offer::new(vec![name("echo")], facts(10)).unwrap(),
        };
        change(&mut agent);
        agent
    }

    /// Of a token that ends so many seconds after 1970.
    fn facts(end_s: u64) -> String {
        let facts = ProvenFacts {
            form: 1,
            agent: nowconnect_policy::AgentFacts {
                agent: nowconnect_policy::Name::bare("plant"),
                scopes: Vec::new(),
                ephemeral: false,
                token_expires_ms: end_s * 1_000,
                groups: Vec::new(),
                tags: Vec::new(),
            },
            issuer: "https://idp.example".to_owned(),
            subject: None,
            jti: None,
            issued_at_ms: None,
            expires_at_ms: end_s * 1_000,
            instance: 1,
            agent_version: String::new(),
        };
        serde_json::to_string(&facts).unwrap()
    }

    fn hub(name: &str, mode: HaMode) -> HubPresence {
        HubPresence {
            replica: replica(name),
            boot: 1,
            address: String::new(),
            certificate: String::new(),
            version: String::new(),
            mode,
            generation: String::new(),
        }
    }

    fn replica(name: &str) -> ReplicaId {
        ReplicaId::parse(name).unwrap()
    }

    fn name(text: &str) -> ConnectorName {
        ConnectorName::parse(text).unwrap()
    }
}
