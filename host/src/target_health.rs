//! Whether the targets behind agents answer: the hub looks itself, through the tunnels.
//!
//! A connector with `health_check` is looked at through every agent that serves it. An agent whose
//! target failed `fall` looks in a row gets no new flow of that connector, until `rise` in a row
//! have succeeded; one that was not looked at yet counts as up, and its first look decides alone.
//! Where all are down nobody is chosen: a client is told at once, and not after a timeout. What runs
//! already goes on.
//!
//! One task owns all of it and publishes the answer with each
//! [`Connector`](crate::connector::Connector), where choosing reads it without a lock. [`board`]
//! says whose turn it is, [`standing`] what a target's looks make of it.

mod board;
mod standing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::task::{Id, JoinSet};
use tracing::{info, warn};

use crate::config::{CloudConfig, ConnectorKey, HealthCheck};
use crate::hub::Hub;
use crate::ingress::{Probed, probe};
use crate::registry::AgentKey;
use crate::router::{Candidate as _, Pool};
use crate::session::LiveTunnel;
use crate::telemetry::events;
use crate::telemetry::metrics::HealthResult;
use board::{Board, Changed, Look};

/// How often it is seen whose turn it is, and who has come or gone.
const TURN_EVERY: Duration = Duration::from_millis(100);

/// How often it is seen who will not come back.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// Looks at once; each has a flow. Others wait for the next turn.
const MAX_LOOKS: usize = 64;

/// A target that is down behind one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetDown {
    pub(crate) agent: AgentKey,
    /// What the last look that failed came to.
    pub(crate) why: String,
}

/// Looks at targets until dropped.
pub(crate) async fn look_at_targets(hub: Arc<Hub>) {
    let mut watch = Watch::of(hub);
    let mut tidied = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(TURN_EVERY) => {
                watch.see_who_serves();
                if tidied.elapsed() >= TIDY_EVERY {
                    tidied = Instant::now();
                    watch.board.tidy(tidied);
                }
            }
            Some(looked) = watch.looks.join_next_with_id() => watch.note(looked),
        }
        watch.begin_looks();
    }
}

struct Watch {
    hub: Arc<Hub>,
    config: Arc<CloudConfig>,
    /// The connectors that are looked at.
    served: Vec<Served>,
    board: Board,
    looks: JoinSet<Probed>,
    under_way: FxHashMap<Id, Look>,
}

struct Served {
    connector: ConnectorKey,
    check: HealthCheck,
    /// As it was put on the board.
    pool: Option<Arc<Pool<LiveTunnel>>>,
    is_on_board: bool,
}

impl Watch {
    fn of(hub: Arc<Hub>) -> Self {
        let config = hub.config();
        Self {
            served: served(&config),
            config,
            hub,
            board: Board::default(),
            looks: JoinSet::new(),
            under_way: FxHashMap::default(),
        }
    }

    /// Puts those on the board that have come, and takes those out that have gone. A pool is
    /// replaced whole where anything about it changes, so there is mostly nothing to do.
    fn see_who_serves(&mut self) {
        let config = self.hub.config();
        if !Arc::ptr_eq(&config, &self.config) {
            self.served = served(&config);
            self.config = config;
            let wanted = |key: &ConnectorKey| self.served.iter().any(|one| one.connector == *key);
            for gone in self.board.retain(wanted) {
                publish(&self.hub, &self.board, &gone);
            }
        }
        let now = Instant::now();
        for served in &mut self.served {
            let pool = self.hub.router().pool(&served.connector);
            let is_same = match (&pool, &served.pool) {
                (Some(now), Some(before)) => Arc::ptr_eq(now, before),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if is_same && served.is_on_board {
                continue;
            }
            let tunnels = pool.iter().flat_map(|pool| pool.tunnels());
            let tunnels = tunnels.map(|tunnel| (tunnel.agent(), tunnel.session()));
            let key = &served.connector;
            if self.board.serve(key, &served.check, tunnels, now) {
                publish(&self.hub, &self.board, key);
            }
            served.pool = pool;
            served.is_on_board = true;
        }
    }

    fn begin_looks(&mut self) {
        while self.under_way.len() < MAX_LOOKS {
            let Some(look) = self.board.next(Instant::now()) else {
                return;
            };
            if look.is_late {
                let name = look.connector.to_string();
                self.hub.metrics.health.late(&name);
            }
            let mut served = self.served.iter();
            let served = served.find(|served| served.connector == look.connector);
            let tunnel = served.and_then(|served| served.pool.as_ref()?.of(&look.agent));
            let connector = self.hub.connectors.find(&look.connector);
            let (Some(served), Some(tunnel), Some(connector)) = (served, tunnel, connector) else {
                // It has just gone, which the next turn sees.
                self.board.done(&look, &Probed::NotAsked);
                continue;
            };
            let (hub, tunnel) = (Arc::clone(&self.hub), Arc::clone(tunnel));
            let check = served.check.clone();
            let task = self
                .looks
                .spawn(async move { probe(&hub, &connector, &tunnel, &check).await });
            self.under_way.insert(task.id(), look);
        }
    }

    fn note(&mut self, looked: Result<(Id, Probed), tokio::task::JoinError>) {
        let (id, probed) = match looked {
            Ok(looked) => looked,
            Err(error) => (error.id(), Probed::NotAsked),
        };
        let Some(look) = self.under_way.remove(&id) else {
            return;
        };
        let result = match &probed {
            Probed::Up => HealthResult::Up,
            Probed::Down(_) => HealthResult::Down,
            Probed::NotAsked => HealthResult::NotAsked,
        };
        let key = &look.connector;
        // It may have left the configuration meanwhile.
        if self.served.iter().any(|served| served.connector == *key) {
            self.hub.metrics.health.looked(&key.to_string(), result);
        }
        match self.board.done(&look, &probed) {
            None => return,
            Some(Changed::Up) => info!(
                event = events::TARGET_UP,
                connector = %key,
                agent_id = %look.agent,
                "a target answers again"
            ),
            Some(Changed::Down(reason)) => warn!(
                event = events::TARGET_DOWN,
                connector = %key,
                agent_id = %look.agent,
                %reason,
                "a target does not answer, its agent gets no new flow of this connector"
            ),
        }
        publish(&self.hub, &self.board, key);
    }
}

fn served(config: &CloudConfig) -> Vec<Served> {
    let checked = config.connectors.iter().filter_map(|(key, settings)| {
        Some(Served {
            connector: key.clone(),
            check: settings.health_check.clone()?,
            pool: None,
            is_on_board: false,
        })
    });
    checked.collect()
}

/// Tells those who choose.
fn publish(hub: &Hub, board: &Board, key: &ConnectorKey) {
    // It may have left the configuration; then nobody asks.
    if let Some(connector) = hub.connectors.find(key) {
        let down = board.down(key);
        hub.metrics.health.down(&key.to_string(), down.len());
        connector.set_down(down);
    }
}
