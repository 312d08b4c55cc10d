//! What the hub keeps for each connector that a listener or route leads to or the configuration names:
//! its limits, its metrics and its names in the forms that the hot path needs.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use nowconnect_policy::{ConnectorFacts, Facts, Name};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::authorize::policy_name;
use crate::config::CloudConfig;
use crate::control::PublishedNames;
use crate::limit::{Rate, Slots};
use crate::registry::{AgentKey, ConnectorKey};
use crate::target_health::TargetDown;
use crate::telemetry::metrics::{ConnectorMetrics, Metrics};

/// One connector.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) key: ConnectorKey,
    /// As policies know it.
    pub(crate) name: Name,
    pub(crate) metrics: Arc<ConnectorMetrics>,
    /// Flows over all agents.
    pub(crate) flows: Arc<Slots>,
    pub(crate) rate: Rate,
    down: ArcSwap<Down>,
}

/// The targets of a connector that do not answer, in the order of their agents.
#[derive(Debug, Default)]
pub(crate) struct Down(Vec<TargetDown>);

impl Down {
    pub(crate) fn of(&self, agent: &AgentKey) -> Option<&TargetDown> {
        let found = self.0.binary_search_by(|down| down.agent.cmp(agent));
        found.ok().map(|index| &self.0[index])
    }

    /// Whether the target behind `agent` is one of them.
    pub(crate) fn has(&self, agent: &AgentKey) -> bool {
        !self.0.is_empty() && self.of(agent).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Connector {
    /// The targets that do not answer, as far as they are looked at. For one choice: whoever
    /// chooses among many agents takes it once.
    pub(crate) fn down(&self) -> Guard<Arc<Down>> {
        self.down.load()
    }

    /// `down` is in the order of agents.
    pub(crate) fn set_down(&self, down: Vec<TargetDown>) {
        self.down.store(Arc::new(Down(down)));
    }
}

/// Every connector of the configuration.
#[derive(Debug, Default)]
pub(crate) struct ConnectorTable {
    table: RwLock<FxHashMap<ConnectorKey, Arc<Connector>>>,
}

impl ConnectorTable {
    /// The entry for `key`, if there is one.
    pub(crate) fn find(&self, key: &ConnectorKey) -> Option<Arc<Connector>> {
        self.table.read().get(key).cloned()
    }

    /// The entry for `key`, made without bounds where there is none; see [`apply`](Self::apply).
    pub(crate) fn entry(&self, key: &ConnectorKey, metrics: &Metrics) -> Arc<Connector> {
        let mut table = self.table.write();
        let entry = table.entry(key.clone()).or_insert_with(|| {
            Arc::new(Connector {
                key: key.clone(),
                name: policy_name(&key.tenant, key.name.as_str()),
                metrics: metrics.traffic.connector(&key.to_string()),
                flows: Slots::new(usize::MAX),
                rate: Rate::default(),
                down: ArcSwap::default(),
            })
        });
        Arc::clone(entry)
    }

    /// Puts the bounds of `config` in force.
    pub(crate) fn apply(&self, config: &CloudConfig) {
        for (key, entry) in self.table.read().iter() {
            let settings = config.connector(&key.tenant, &key.name);
            entry
                .flows
                .set_limit(settings.max_connections.map_or(usize::MAX, |limit| {
                    usize::try_from(limit).unwrap_or(usize::MAX)
                }));
            entry.rate.set(settings.rate);
        }
    }

    /// Forgets one that only a published name led to; flows that run keep their entry.
    pub(crate) fn forget(&self, key: &ConnectorKey) {
        self.table.write().remove(key);
    }

    /// Forgets what the configuration no longer names and no tunnel publishes, and says what; flows
    /// that run keep their entry.
    pub(crate) fn retain(
        &self,
        config: &CloudConfig,
        published: &PublishedNames,
    ) -> Vec<ConnectorKey> {
        let mut table = self.table.write();
        let gone: Vec<ConnectorKey> = table
            .keys()
            .filter(|key| !is_configured(config, key) && !published.leads_to(key))
            .cloned()
            .collect();
        for key in &gone {
            table.remove(key);
        }
        gone
    }
}

/// Whether a listener or a route leads to the connector or it has settings of its own.
pub(crate) fn is_configured(config: &CloudConfig, key: &ConnectorKey) -> bool {
    config.connectors.contains_key(key)
        || config
            .listeners
            .iter()
            .any(|listener| listener.tenant == key.tenant && listener.connector == key.name)
        || config.ingress.connectors().any(|routed| routed == *key)
}

/// The keys of every connector that the configuration names, each once.
pub(crate) fn configured(config: &CloudConfig) -> Vec<ConnectorKey> {
    let mut keys: Vec<ConnectorKey> = config.connectors.keys().cloned().collect();
    keys.extend(config.listeners.iter().map(|listener| ConnectorKey {
        tenant: listener.tenant.clone(),
        name: listener.connector.clone(),
    }));
    keys.extend(config.ingress.connectors());
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Puts the policies' row of a connector in, as the configuration describes it.
pub(crate) fn put_facts(facts: &Facts, config: &CloudConfig, key: &ConnectorKey) {
    let settings = config.connector(&key.tenant, &key.name);
    let mut row = ConnectorFacts::tcp(policy_name(&key.tenant, key.name.as_str()));
    if !settings.protocol.is_empty() {
        row.protocol = settings.protocol;
    }
    row.tags = settings.labels.into_iter().collect();
    facts.put_connector(&row);
}
