//! The names that agents publish, as the HTTP ports look them up.
//!
//! A copy in memory of what the store keeps, because a request must not wait for the disk. Whoever
//! changes the store asks for the name to be [read again](PublishedNames::refresh) afterwards: the
//! last to do so has seen the last change, so the copy ends like the store, whatever overlapped.

use std::collections::BTreeMap;
use std::sync::Arc;

use nowconnect_policy::EndpointFacts;
use nowconnect_protocol::{AgentId, ConnectorName, TenantName};
use nowconnect_store::Endpoint;
use parking_lot::{Mutex, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::watch;

use crate::authorize::policy_name;
use crate::registry::{AgentKey, ConnectorKey};

/// What the service behind a name speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP: the HTTP ports serve the name.
    Http,
    /// A stream of bytes: no HTTP port serves it.
    Tcp,
}

/// A name that an agent's tunnel publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// `shop`, which the store has it by.
    pub(crate) name: Arc<str>,
    /// `shop.tunnels.example.com`: lower case, without a dot at its end and without a port.
    pub(crate) host: Arc<str>,
    /// The tunnel's id for life; also the agent's id and its connector's name.
    pub(crate) id: Arc<str>,
    /// Who may hold it.
    pub(crate) agent: AgentKey,
    /// Where its requests go.
    pub(crate) connector: ConnectorKey,
    /// What the service speaks.
    pub(crate) protocol: Protocol,
    /// The public port of a TCP service.
    pub(crate) port: Option<u16>,
    /// The row that policies read.
    pub(crate) facts: EndpointFacts,
}

impl Published {
    /// `None` for an entry that no release writes: its id or tenant is no name.
    pub(super) fn of(endpoint: &Endpoint, host: &str, reserved: bool) -> Option<Self> {
        let tenant = TenantName::parse(&endpoint.tenant).ok()?;
        let agent = AgentId::parse(&endpoint.agent).ok()?;
        let connector = ConnectorName::parse(&endpoint.id).ok()?;
        Some(Self {
            name: Arc::from(endpoint.name.as_str()),
            host: Arc::from(host),
            id: Arc::from(endpoint.id.as_str()),
            protocol: if endpoint.protocol == "tcp" {
                Protocol::Tcp
            } else {
                Protocol::Http
            },
            port: endpoint.port,
            facts: facts(endpoint, &tenant, host, reserved),
            connector: ConnectorKey {
                tenant: tenant.clone(),
                name: connector,
            },
            agent: AgentKey { tenant, agent },
        })
    }
}

/// An endpoint as policies see it. Whoever publishes a service at this API means everybody to
/// reach it; policies may say otherwise.
pub(super) fn facts(
    endpoint: &Endpoint,
    tenant: &TenantName,
    host: &str,
    reserved: bool,
) -> EndpointFacts {
    EndpointFacts {
        endpoint: policy_name(tenant, &endpoint.name),
        owner: policy_name(tenant, &endpoint.agent),
        host: host.to_owned(),
        reserved,
        public: true,
        tags: Vec::new(),
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct PublishedNames {
    table: RwLock<Table>,
    /// Held from reading the store until the table says the same.
    turn: Mutex<()>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    by_host: FxHashMap<Arc<str>, Arc<Published>>,
    connectors: FxHashSet<ConnectorKey>,
}

impl Default for PublishedNames {
    fn default() -> Self {
        Self {
            table: RwLock::default(),
            turn: Mutex::default(),
            changes: watch::channel(0).0,
        }
    }
}

/// What a name stood for and stands for now, where that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) was: Option<Arc<Published>>,
    pub(super) now: Option<Arc<Published>>,
}

impl PublishedNames {
    /// The endpoint that answers to a host name, also while its agent is away.
    pub(crate) fn find(&self, host: &str) -> Option<Arc<Published>> {
        self.table.read().by_host.get(host).cloned()
    }

    /// Whether this is still what its host name stands for; not after it was deleted, has ended or
    /// was made anew.
    pub(crate) fn is_current(&self, published: &Arc<Published>) -> bool {
        self.table
            .read()
            .by_host
            .get(&published.host)
            .is_some_and(|current| Arc::ptr_eq(current, published))
    }

    /// Whether a tunnel publishes the connector: then it is kept through reloads.
    pub(crate) fn leads_to(&self, connector: &ConnectorKey) -> bool {
        self.table.read().connectors.contains(connector)
    }

    /// All of them, by host name.
    pub(crate) fn all(&self) -> Vec<Arc<Published>> {
        let mut all: Vec<_> = self.table.read().by_host.values().cloned().collect();
        all.sort_unstable_by(|a, b| a.host.cmp(&b.host));
        all
    }

    /// Those that have a public port, by port.
    pub(crate) fn with_ports(&self) -> BTreeMap<u16, Arc<Published>> {
        let table = self.table.read();
        let all = table.by_host.values();
        all.filter_map(|one| Some((one.port?, Arc::clone(one))))
            .collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.table.read().by_host.len()
    }

    /// Changes with the table.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Makes the table say of a host name what `read` gives; `also` is done with what changed,
    /// before anybody can look.
    pub(super) fn refresh<E>(
        &self,
        host: &str,
        read: impl FnOnce() -> Result<Option<Published>, E>,
        also: impl FnOnce(&Changed),
    ) -> Result<(), E> {
        let _turn = self.turn.lock();
        let now = read()?;
        let mut table = self.table.write();
        if let Some(changed) = table.set(host, now) {
            also(&changed);
            drop(table);
            self.changes.send_modify(|number| *number += 1);
        }
        Ok(())
    }
}

impl Table {
    fn set(&mut self, host: &str, now: Option<Published>) -> Option<Changed> {
        let was = self.by_host.get(host).cloned();
        if was.as_deref() == now.as_ref() {
            return None;
        }
        if let Some(was) = &was {
            self.by_host.remove(host);
            self.connectors.remove(&was.connector);
        }
        let now = now.map(Arc::new);
        if let Some(now) = &now {
            self.connectors.insert(now.connector.clone());
            self.by_host.insert(Arc::clone(&now.host), Arc::clone(now));
        }
        Some(Changed { was, now })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::convert::Infallible;

    use super::*;

    fn published(id: &str) -> Published {
        let endpoint = Endpoint {
            id: id.to_owned(),
            name: "shop".to_owned(),
            tenant: "acme".to_owned(),
            agent: id.to_owned(),
            made_by: "ops".to_owned(),
            source: "192.0.2.7".to_owned(),
            protocol: "http".to_owned(),
            made_ms: 1,
            kept_until_ms: 2,
            was_held: false,
            token_id: None,
            port: None,
        };
        Published::of(&endpoint, "shop.example.com", false).unwrap()
    }

    fn put(names: &PublishedNames, now: Option<Published>) -> Option<Changed> {
        let mut seen = None;
        names
            .refresh(
                "shop.example.com",
                || Ok::<_, Infallible>(now),
                |changed| seen = Some(changed.clone()),
            )
            .unwrap();
        seen
    }

    #[test]
    fn a_name_is_found_until_it_is_gone() {
        let names = PublishedNames::default();
        let mut changes = names.changes();
        assert!(names.find("shop.example.com").is_none());
        put(&names, Some(published("tun_1")));
        let first = names.find("shop.example.com").unwrap();
        assert!(names.is_current(&first) && names.leads_to(&first.connector));
        assert_eq!(first.facts.endpoint.as_str(), "acme/shop");
        assert_eq!(first.agent.to_string(), "acme/tun_1");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();

        assert_eq!(put(&names, Some(published("tun_1"))), None);
        assert!(!changes.has_changed().unwrap() && names.is_current(&first));

        let changed = put(&names, Some(published("tun_2"))).unwrap();
        assert_eq!(changed.was.as_ref(), Some(&first));
        assert!(!names.is_current(&first), "another has the name now");
        assert_eq!(names.all().len(), 1);

        put(&names, None);
        assert!(names.find("shop.example.com").is_none() && names.all().is_empty());
        assert!(!names.leads_to(&first.connector));
    }

    #[test]
    fn an_entry_that_no_release_writes_is_no_name() {
        let endpoint = Endpoint {
            id: "not a name".to_owned(),
            name: "shop".to_owned(),
            tenant: "acme".to_owned(),
            agent: "a".to_owned(),
            made_by: String::new(),
            source: String::new(),
            protocol: String::new(),
            made_ms: 0,
            kept_until_ms: 0,
            was_held: false,
            token_id: None,
            port: None,
        };
        assert!(Published::of(&endpoint, "shop.example.com", false).is_none());
    }
}
