//! Which tunnels serve a connector, and which of them takes the next flow.
//!
//! A pure table: connector → the tunnels that may serve it, and agent → its tunnel. Reading is
//! one short read lock and a reference count; writing happens when an agent comes, renews or
//! goes, and replaces a connector's list whole, so that a choice always sees one state.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nowconnect_protocol::ConnectorName;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::config::Balance;
use crate::registry::{AgentKey, ConnectorKey};

/// What the router has to know of a tunnel.
pub trait Candidate {
    /// Whose tunnel it is.
    fn agent(&self) -> &AgentKey;
    /// Tells two tunnels of one agent apart.
    fn session(&self) -> u64;
    /// How many flows it carries now.
    fn flows(&self) -> usize;
    /// Whether it may take a new flow now: not draining, its token not expired.
    fn takes_flows(&self) -> bool;
}

/// See the module.
#[derive(Debug)]
pub struct Router<T> {
    table: RwLock<Table<T>>,
}

#[derive(Debug)]
struct Table<T> {
    connectors: FxHashMap<ConnectorKey, Arc<Pool<T>>>,
    agents: FxHashMap<AgentKey, Served<T>>,
}

#[derive(Debug)]
struct Served<T> {
    tunnel: Arc<T>,
    connectors: Vec<ConnectorName>,
}

/// The tunnels that serve one connector.
#[derive(Debug)]
pub struct Pool<T> {
    tunnels: Vec<Arc<T>>,
    /// Counts on over replacements of the list, so that a reconnecting agent does not send the
    /// turn back to the first.
    turn: Arc<AtomicUsize>,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self {
            table: RwLock::new(Table {
                connectors: FxHashMap::default(),
                agents: FxHashMap::default(),
            }),
        }
    }
}

impl<T: Candidate> Router<T> {
    /// Puts `tunnel` in force for its agent with these connectors; an earlier tunnel of the
    /// agent takes no further flow and is returned.
    pub fn attach(&self, tunnel: Arc<T>, connectors: Vec<ConnectorName>) -> Option<Arc<T>> {
        self.table.write().put(tunnel, connectors)
    }

    /// The same, unless `refuse` says why not. It is given the tunnel that is in force for the
    /// agent and how many agents there are, and nothing changes between its look and the attaching.
    ///
    /// # Errors
    /// What `refuse` said; then nothing has changed.
    pub fn attach_unless<E>(
        &self,
        tunnel: Arc<T>,
        connectors: Vec<ConnectorName>,
        refuse: impl FnOnce(Option<&T>, usize) -> Option<E>,
    ) -> Result<Option<Arc<T>>, E> {
        let mut table = self.table.write();
        let current = table.agents.get(tunnel.agent());
        let current = current.map(|served| served.tunnel.as_ref());
        match refuse(current, table.agents.len()) {
            Some(reason) => Err(reason),
            None => Ok(table.put(tunnel, connectors)),
        }
    }

    /// Narrows or widens what the agent's tunnel serves; nothing happens if another tunnel has
    /// taken its place.
    pub fn set_connectors(&self, tunnel: &Arc<T>, connectors: Vec<ConnectorName>) {
        let mut table = self.table.write();
        if table.in_force(tunnel) {
            table.put(Arc::clone(tunnel), connectors);
        }
    }

    /// Takes `tunnel` out; nothing happens if another tunnel has taken its place. Returns
    /// whether it was the one in force.
    pub fn detach(&self, tunnel: &T) -> bool {
        let mut table = self.table.write();
        let in_force = table.in_force(tunnel);
        if in_force {
            table.remove(tunnel.agent());
        }
        in_force
    }

    /// The tunnel in force for `agent`.
    pub fn tunnel_of(&self, agent: &AgentKey) -> Option<Arc<T>> {
        self.table
            .read()
            .agents
            .get(agent)
            .map(|served| Arc::clone(&served.tunnel))
    }

    /// The tunnels that serve `connector`; `None` if no agent offers it.
    pub fn pool(&self, connector: &ConnectorKey) -> Option<Arc<Pool<T>>> {
        self.table.read().connectors.get(connector).cloned()
    }

    /// Every tunnel in force with its connectors, in no order.
    pub fn tunnels(&self) -> Vec<(Arc<T>, Vec<ConnectorName>)> {
        self.table
            .read()
            .agents
            .values()
            .map(|served| (Arc::clone(&served.tunnel), served.connectors.clone()))
            .collect()
    }

    /// How many agents have a tunnel.
    pub fn agent_count(&self) -> usize {
        self.table.read().agents.len()
    }

    /// The connectors that some agent serves, in no order.
    pub fn connectors(&self) -> Vec<ConnectorKey> {
        self.table.read().connectors.keys().cloned().collect()
    }
}

impl<T: Candidate> Table<T> {
    fn in_force(&self, tunnel: &T) -> bool {
        self.agents
            .get(tunnel.agent())
            .is_some_and(|served| served.tunnel.session() == tunnel.session())
    }

    fn put(&mut self, tunnel: Arc<T>, connectors: Vec<ConnectorName>) -> Option<Arc<T>> {
        let key = tunnel.agent().clone();
        let earlier = self.remove(&key);
        for name in &connectors {
            let connector = ConnectorKey {
                tenant: key.tenant.clone(),
                name: name.clone(),
            };
            self.join(connector, Arc::clone(&tunnel));
        }
        self.agents.insert(key, Served { tunnel, connectors });
        earlier
    }

    fn join(&mut self, connector: ConnectorKey, tunnel: Arc<T>) {
        let pool = match self.connectors.get(&connector) {
            Some(pool) => {
                let mut tunnels = pool.tunnels.clone();
                tunnels.push(tunnel);
                tunnels.sort_by(|a, b| a.agent().cmp(b.agent()));
                Pool {
                    tunnels,
                    turn: Arc::clone(&pool.turn),
                }
            }
            None => Pool {
                tunnels: vec![tunnel],
                turn: Arc::default(),
            },
        };
        self.connectors.insert(connector, Arc::new(pool));
    }

    fn remove(&mut self, agent: &AgentKey) -> Option<Arc<T>> {
        let served = self.agents.remove(agent)?;
        for name in &served.connectors {
            let key = ConnectorKey {
                tenant: agent.tenant.clone(),
                name: name.clone(),
            };
            let Some(pool) = self.connectors.get(&key) else {
                continue;
            };
            let tunnels: Vec<_> = pool
                .tunnels
                .iter()
                .filter(|tunnel| tunnel.session() != served.tunnel.session())
                .cloned()
                .collect();
            let turn = Arc::clone(&pool.turn);
            if tunnels.is_empty() {
                self.connectors.remove(&key);
            } else {
                self.connectors
                    .insert(key, Arc::new(Pool { tunnels, turn }));
            }
        }
        Some(served.tunnel)
    }
}

impl<T: Candidate> Pool<T> {
    /// How many tunnels serve the connector, those included that take no new flow now.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a pool without a tunnel is not kept"
    )]
    pub fn len(&self) -> usize {
        self.tunnels.len()
    }

    /// The tunnel, where there is only one.
    pub fn only(&self) -> Option<&Arc<T>> {
        match self.tunnels.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// That of one agent.
    pub fn of(&self, agent: &AgentKey) -> Option<&Arc<T>> {
        let found = self.tunnels.binary_search_by(|one| one.agent().cmp(agent));
        found.ok().map(|index| &self.tunnels[index])
    }

    /// Each of them, in the order of their agents.
    pub fn tunnels(&self) -> &[Arc<T>] {
        &self.tunnels
    }

    /// The tunnel for the next flow of `client`, leaving out the sessions in `tried`. `None`
    /// if no other tunnel takes flows now.
    pub fn pick(&self, balance: Balance, client: IpAddr, tried: &[u64]) -> Option<Arc<T>> {
        self.pick_among(balance, client, |tunnel| !tried.contains(&tunnel.session()))
    }

    /// The same among those that are `usable`.
    pub fn pick_among(
        &self,
        balance: Balance,
        client: IpAddr,
        usable: impl Fn(&T) -> bool,
    ) -> Option<Arc<T>> {
        let free = |tunnel: &&Arc<T>| tunnel.takes_flows() && usable(tunnel);
        if let [only] = self.tunnels.as_slice() {
            return Some(only).filter(free).cloned();
        }
        match balance {
            Balance::LeastFlows => {
                // Starting at a turn breaks ties evenly.
                let start = self.turn.fetch_add(1, Ordering::Relaxed);
                self.from(start)
                    .filter(free)
                    .min_by_key(|tunnel| tunnel.flows())
                    .cloned()
            }
            Balance::RoundRobin => {
                let start = self.turn.fetch_add(1, Ordering::Relaxed);
                self.from(start).find(free).cloned()
            }
            Balance::StickyClient => self.pick_for(&client, usable),
        }
    }

    /// The tunnel that `key` belongs to among those that are `usable`: it moves only when its own
    /// agent comes or goes (rendezvous hashing).
    pub fn pick_for<K: Hash + ?Sized>(
        &self,
        key: &K,
        usable: impl Fn(&T) -> bool,
    ) -> Option<Arc<T>> {
        self.tunnels
            .iter()
            .filter(|tunnel| tunnel.takes_flows() && usable(tunnel))
            .max_by_key(|tunnel| weight(key, tunnel.agent()))
            .cloned()
    }

    fn from(&self, start: usize) -> impl Iterator<Item = &Arc<T>> {
        let start = start % self.tunnels.len().max(1);
        self.tunnels[start..].iter().chain(&self.tunnels[..start])
    }
}

/// The same in every process, so that two hubs choose alike.
fn weight<K: Hash + ?Sized>(key: &K, agent: &AgentKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, agent).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
