//! Records of ownership, and the indexes that point to them.

use futures_util::{StreamExt as _, TryStreamExt as _};
use nowconnect_protocol::{AgentId, ConnectorName, Epoch, ReplicaId};
use redis::{Value, cmd};

use super::reply::{self, Reply};
use super::script::{
    CLAIM, INDEX_PUT, INDEX_REMOVE, OFFER, PUBLISH, RECORD, RELEASE, RENEW, Script,
};
use super::{RedisRegistry, ms};
use crate::agent::{
    AgentKey, AgentPresence, ClaimRequest, ConnectorKey, Granted, Offer, Ownership,
    ProvisionalClaim,
};
use crate::error::{ClaimLost, RegistryError};
use crate::limits::{
    EPOCH_MEMORY, MAX_AGENTS_PER_CONNECTOR, MAX_COUNTER, MAX_FIRST_WITNESS, MAX_INDEXES,
    MAX_LISTED_AGENTS,
};

/// Index entries or records of one call that are on their way at a time.
const CALLS_AT_ONCE: usize = 32;

/// An index entry: which record, in which state, offered the connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) counter: String,
    pub(super) replica: String,
    pub(super) revision: String,
}

impl Entry {
    fn of(epoch: &Epoch, revision: String) -> Self {
        Self {
            counter: epoch.counter.to_string(),
            replica: epoch.replica.as_str().to_owned(),
            revision,
        }
    }

    /// An entry as it stands in an index.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(' ').map(str::to_owned);
        let (counter, replica, revision) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = parts.next().is_none();
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        (whole && number(&counter) && number(&revision)).then_some(Self {
            counter,
            replica,
            revision,
        })
    }
}

/// A record that somebody owns.
pub(super) struct Owned {
    pub(super) ownership: Ownership,
    pub(super) offer: Offer,
}

impl RedisRegistry {
    pub(super) async fn claim(&self, claim: &ClaimRequest) -> Result<Granted, RegistryError> {
        let floor = claim.above.as_ref().map_or(0, |epoch| epoch.counter);
        let spent = |witnessed| RegistryError::CounterSpent {
            agent: claim.agent.clone(),
            witnessed,
            limit: MAX_COUNTER,
        };
        if floor >= MAX_COUNTER {
            return Err(spent(floor));
        }
        let arguments = [
            floor.to_string(),
            claim.replica.as_str().to_owned(),
            ms(self.ownership_lease).to_string(),
            ms(EPOCH_MEMORY).to_string(),
            MAX_COUNTER.to_string(),
            claim.leap.map_or_else(String::new, |leap| leap.to_string()),
            MAX_FIRST_WITNESS.to_string(),
        ];
        let mut reply = self.on_record(&CLAIM, &claim.agent, &arguments).await?;
        match reply.outcome() {
            "granted" => {}
            "spent" => return Err(spent(reply.parsed()?)),
            "leapt" => {
                return Err(RegistryError::CounterSpent {
                    agent: claim.agent.clone(),
                    witnessed: floor,
                    limit: reply.parsed()?,
                });
            }
            _ => return Err(reply.unexpected()),
        }
        let epoch = Epoch {
            counter: reply.parsed()?,
            replica: claim.replica.clone(),
        };
        let previous = match reply.next_text() {
            None => None,
            Some(counter) => {
                let epoch = epoch_of(&mut reply, &counter)?;
                Some(Ownership {
                    owner: epoch.replica.clone(),
                    epoch,
                })
            }
        };
        Ok(Granted { epoch, previous })
    }

    pub(super) async fn publish(&self, claim: &ProvisionalClaim) -> Result<(), RegistryError> {
        self.on_claim(&PUBLISH, &claim.agent, &claim.epoch, &self.lease())
            .await?;
        Ok(())
    }

    pub(super) async fn renew_lease(
        &self,
        agent: &AgentKey,
        epoch: &Epoch,
    ) -> Result<(), RegistryError> {
        self.on_claim(&RENEW, agent, epoch, &self.lease()).await?;
        Ok(())
    }

    /// The record first, then the index: an entry that is missing or too many is a hint that is
    /// wrong, and the record decides.
    pub(super) async fn set_offer(
        &self,
        agent: &AgentKey,
        epoch: &Epoch,
        offer: &Offer,
    ) -> Result<(), RegistryError> {
        let arguments = [joined(offer.connectors()), offer.facts().to_string()];
        let mut reply = self.on_claim(&OFFER, agent, epoch, &arguments).await?;
        let entry = Entry::of(epoch, reply.text()?);
        let earlier = split(&reply.text()?);
        let dropped: Vec<_> = earlier
            .into_iter()
            .filter(|name| !offer.has(name))
            .collect();
        self.unlist(agent, &entry, &dropped).await?;
        self.list_under(agent, &entry, offer.connectors()).await
    }

    pub(super) async fn give_up(
        &self,
        agent: &AgentKey,
        epoch: &Epoch,
    ) -> Result<(), RegistryError> {
        let mut reply = self.on_claim(&RELEASE, agent, epoch, &[]).await?;
        let entry = Entry::of(epoch, reply.text()?);
        let offered = split(&reply.text()?);
        self.unlist(agent, &entry, &offered).await
    }

    pub(super) async fn owner(&self, agent: &AgentKey) -> Result<Option<Ownership>, RegistryError> {
        let record = self.record(agent).await?;
        Ok(record.map(|record| record.ownership))
    }

    pub(super) async fn list(
        &self,
        connector: &ConnectorKey,
    ) -> Result<Vec<AgentPresence>, RegistryError> {
        let mut command = cmd("HRANDFIELD");
        command
            .arg(self.keys.index(connector))
            .arg(MAX_LISTED_AGENTS)
            .arg("WITHVALUES");
        let hints = pairs(self.link.send("index", &command).await?);
        let agents = hints.into_iter().filter_map(|(agent, _)| {
            Some(AgentKey {
                tenant: connector.tenant.clone(),
                agent: AgentId::parse(&agent).ok()?,
            })
        });
        let mut found: Vec<_> = futures_util::stream::iter(agents)
            .map(|key| async move {
                let record = self.record(&key).await?;
                Ok::<_, RegistryError>(record.map(|record| (key, record)))
            })
            .buffer_unordered(CALLS_AT_ONCE)
            .try_filter_map(|found| async move { Ok(found) })
            .try_filter(|(_, record)| std::future::ready(record.offer.has(&connector.name)))
            .map_ok(|(key, record)| AgentPresence {
                key,
                owner: record.ownership.owner,
                epoch: record.ownership.epoch,
                offer: record.offer,
            })
            .try_collect()
            .await?;
        found.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(found)
    }

    pub(super) async fn record(&self, agent: &AgentKey) -> Result<Option<Owned>, RegistryError> {
        let mut reply = self.on_record(&RECORD, agent, &[]).await?;
        match reply.outcome() {
            "nobody" => return Ok(None),
            "owned" => {}
            _ => return Err(reply.unexpected()),
        }
        let counter = reply.text()?;
        let epoch = epoch_of(&mut reply, &counter)?;
        let _revision = reply.text()?;
        let connectors = split(&reply.text()?);
        let offer = Offer::new(connectors, reply.text()?)?;
        Ok(Some(Owned {
            ownership: Ownership {
                owner: epoch.replica.clone(),
                epoch,
            },
            offer,
        }))
    }

    /// Removes the entry, or an earlier one, from the index of each connector.
    pub(super) async fn unlist(
        &self,
        agent: &AgentKey,
        entry: &Entry,
        connectors: &[ConnectorName],
    ) -> Result<(), RegistryError> {
        let keys: Vec<_> = connectors
            .iter()
            .map(|name| connector(agent, name))
            .collect();
        futures_util::stream::iter(keys)
            .map(|key| async move { self.unlist_one(agent, entry, &key).await.map(|_| ()) })
            .buffer_unordered(CALLS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Whether it was removed, and how many agents are left in that index.
    pub(super) async fn unlist_one(
        &self,
        agent: &AgentKey,
        entry: &Entry,
        connector: &ConnectorKey,
    ) -> Result<(bool, u64), RegistryError> {
        let keys = [self.keys.index(connector)];
        let arguments = [
            agent.agent.as_str().as_bytes(),
            entry.counter.as_bytes(),
            entry.replica.as_bytes(),
            entry.revision.as_bytes(),
        ];
        let mut reply = self.link.run(&INDEX_REMOVE, &keys, &arguments).await?;
        let removed = reply.outcome() == "ok";
        Ok((removed, reply.parsed()?))
    }

    async fn list_under(
        &self,
        agent: &AgentKey,
        entry: &Entry,
        connectors: &[ConnectorName],
    ) -> Result<(), RegistryError> {
        let keys: Vec<_> = connectors
            .iter()
            .map(|name| connector(agent, name))
            .collect();
        futures_util::stream::iter(keys)
            .map(|key| async move {
                let arguments = [
                    agent.agent.as_str().to_owned(),
                    entry.counter.clone(),
                    entry.replica.clone(),
                    entry.revision.clone(),
                    MAX_AGENTS_PER_CONNECTOR.to_string(),
                    ms(EPOCH_MEMORY).to_string(),
                ];
                let keys = [self.keys.index(&key)];
                let mut reply = self.link.run(&INDEX_PUT, &keys, &bytes(&arguments)).await?;
                match reply.outcome() {
                    "full" => {
                        let found: usize = reply.parsed()?;
                        let limit = MAX_AGENTS_PER_CONNECTOR;
                        RegistryError::bound("agents behind one connector", found + 1, limit)
                    }
                    "later" => Ok(()),
                    "ok" => self.note_index(&key).await,
                    _ => Err(reply.unexpected()),
                }
            })
            .buffer_unordered(CALLS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Makes an index known to the sweeper. Above the bound it goes unswept, and by itself when
    /// nobody has written to it for [`EPOCH_MEMORY`].
    pub(super) async fn note_index(&self, connector: &ConnectorKey) -> Result<(), RegistryError> {
        let indexes = self.keys.indexes();
        let known = self
            .link
            .send("indexes", cmd("SCARD").arg(&indexes))
            .await?;
        let known: usize = redis::from_redis_value(known).unwrap_or(MAX_INDEXES);
        if known < MAX_INDEXES {
            let name = index_name(connector);
            let mut command = cmd("SADD");
            command.arg(&indexes).arg(name);
            self.link.send("indexes", &command).await?;
        }
        Ok(())
    }

    /// Runs a script that only the holder of `epoch` may run.
    async fn on_claim(
        &self,
        script: &Script,
        agent: &AgentKey,
        epoch: &Epoch,
        more: &[String],
    ) -> Result<Reply, RegistryError> {
        let mut arguments = vec![epoch.counter.to_string(), epoch.replica.as_str().to_owned()];
        arguments.extend_from_slice(more);
        let mut reply = self.on_record(script, agent, &arguments).await?;
        let why = match reply.outcome() {
            "ok" => return Ok(reply),
            "forgotten" => ClaimLost::Forgotten,
            "released" => ClaimLost::Released,
            "overtaken" => {
                let counter = reply.text()?;
                ClaimLost::Overtaken {
                    current: epoch_of(&mut reply, &counter)?,
                }
            }
            _ => return Err(reply.unexpected()),
        };
        Err(RegistryError::Lost {
            agent: agent.clone(),
            held: epoch.clone(),
            why,
        })
    }

    async fn on_record(
        &self,
        script: &Script,
        agent: &AgentKey,
        arguments: &[String],
    ) -> Result<Reply, RegistryError> {
        let keys = [self.keys.owner(agent)];
        self.link.run(script, &keys, &bytes(arguments)).await
    }

    fn lease(&self) -> [String; 2] {
        [
            ms(self.ownership_lease).to_string(),
            ms(EPOCH_MEMORY).to_string(),
        ]
    }
}

/// Fields and values of a hash, whichever form they come in.
pub(super) fn pairs(value: Value) -> Vec<(String, String)> {
    let mut flat = Vec::new();
    flatten(value, &mut flat);
    let mut flat = flat.into_iter();
    let mut found = Vec::with_capacity(flat.len() / 2);
    while let (Some(field), Some(value)) = (flat.next(), flat.next()) {
        found.push((field, value));
    }
    found
}

/// RESP2 answers one array, RESP3 an array of pairs or a map.
fn flatten(value: Value, found: &mut Vec<String>) {
    if let Value::Array(elements) = value {
        elements
            .into_iter()
            .for_each(|element| flatten(element, found));
    } else if let Value::Map(elements) = value {
        for (field, value) in elements {
            flatten(field, found);
            flatten(value, found);
        }
    } else if let Some(text) = reply::text(value) {
        found.push(text);
    }
}

pub(super) fn index_name(connector: &ConnectorKey) -> String {
    format!("{}/{}", connector.tenant, connector.name)
}

fn epoch_of(reply: &mut Reply, counter: &str) -> Result<Epoch, RegistryError> {
    let counter = counter.parse().map_err(|_| reply.unexpected())?;
    let replica: ReplicaId = reply.parsed()?;
    Ok(Epoch { counter, replica })
}

fn connector(agent: &AgentKey, name: &ConnectorName) -> ConnectorKey {
    ConnectorKey {
        tenant: agent.tenant.clone(),
        name: name.clone(),
    }
}

fn joined(connectors: &[ConnectorName]) -> String {
    let names: Vec<_> = connectors.iter().map(ConnectorName::as_str).collect();
    names.join(" ")
}

fn split(text: &str) -> Vec<ConnectorName> {
    let names = text.split(' ').filter(|name| !name.is_empty());
    names
        .filter_map(|name| ConnectorName::parse(name).ok())
        .collect()
}

fn bytes(arguments: &[String]) -> Vec<&[u8]> {
    arguments.iter().map(String::as_bytes).collect()
}
