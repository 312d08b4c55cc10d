//! Whether the targets behind agents answer: the hub looks itself, through the tunnels.
//!
//! A connector with `health_check` is looked at through every agent that serves it. An agent whose
//! target failed `fall` looks in a row gets no new flow of that connector, until `rise` in a row
//! have succeeded; one that was not looked at yet counts as up. Where all are down nobody is
//! chosen: a client is told at once, and not after a timeout. What runs already goes on.
//!
//! One task owns all of it and publishes the answer with each [`Connector`](crate::connector::Connector), where choosing reads
//! it without a lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::{ConnectorKey, HealthCheck};
use crate::hub::Hub;
use crate::ingress::{Probed, probe};
use crate::registry::AgentKey;
use crate::router::Candidate as _;
use crate::telemetry::events;
use crate::telemetry::metrics::HealthResult;

/// How often it is seen whose turn it is.
const TURN_EVERY: Duration = Duration::from_millis(100);

/// Looks at once; each has a flow. Others wait for the next turn.
const MAX_LOOKS: usize = 64;

/// A target that is down behind one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetDown {
    pub(crate) agent: AgentKey,
    /// What the last look that failed came to.
    pub(crate) why: String,
}

type Place = (ConnectorKey, AgentKey);

/// What is known of one target.
#[derive(Debug)]
struct Standing {
    due: Instant,
    is_looked_at: bool,
    is_up: bool,
    /// Looks in a row that say the contrary.
    contrary: u32,
    why: String,
}

/// Looks at targets until dropped.
pub(crate) async fn look_at_targets(hub: Arc<Hub>) {
    let mut known: FxHashMap<Place, Standing> = FxHashMap::default();
    let mut looks: JoinSet<(Place, Probed)> = JoinSet::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(TURN_EVERY) => take_turn(&hub, &mut known, &mut looks),
            Some(looked) = looks.join_next() => {
                if let Ok((place, probed)) = looked {
                    note(&hub, &mut known, place, probed);
                }
            }
        }
    }
}

fn take_turn(
    hub: &Arc<Hub>,
    known: &mut FxHashMap<Place, Standing>,
    looks: &mut JoinSet<(Place, Probed)>,
) {
    let config = hub.config();
    let mut wanted: FxHashSet<Place> = FxHashSet::default();
    for (key, settings) in &config.connectors {
        let (Some(check), Some(pool)) = (&settings.health_check, hub.router().pool(key)) else {
            continue;
        };
        for tunnel in pool.tunnels() {
            let place = (key.clone(), tunnel.agent().clone());
            wanted.insert(place.clone());
            let standing = known.entry(place.clone()).or_insert_with(Standing::new);
            if standing.is_due() && looks.len() < MAX_LOOKS {
                let Some(connector) = hub.connectors.find(key) else {
                    continue;
                };
                standing.begin(check.interval);
                let (hub, tunnel, check) = (Arc::clone(hub), Arc::clone(tunnel), check.clone());
                looks.spawn(async move {
                    let probed = probe(&hub, &connector, &tunnel, &check).await;
                    (place, probed)
                });
            }
        }
    }
    let gone: FxHashSet<ConnectorKey> = known
        .extract_if(|place, _| !wanted.contains(place))
        .map(|((connector, _), _)| connector)
        .collect();
    for key in &gone {
        publish(hub, known, key);
    }
}

fn note(hub: &Hub, known: &mut FxHashMap<Place, Standing>, place: Place, probed: Probed) {
    let (key, agent) = &place;
    let config = hub.config();
    let settings = config.connectors.get(key);
    let check = settings.and_then(|settings| settings.health_check.as_ref());
    // Its configuration or its agent may have gone meanwhile.
    let (Some(check), Some(standing)) = (check, known.get_mut(&place)) else {
        return;
    };
    standing.is_looked_at = false;
    let result = match &probed {
        Probed::Up => HealthResult::Up,
        Probed::Down(_) => HealthResult::Down,
        Probed::NotAsked => HealthResult::NotAsked,
    };
    hub.metrics.health.looked(&key.to_string(), result);
    if !standing.take(&probed, check) {
        return;
    }
    if standing.is_up {
        info!(
            event = events::TARGET_UP,
            connector = %key,
            agent_id = %agent,
            "a target answers again"
        );
    } else {
        warn!(
            event = events::TARGET_DOWN,
            connector = %key,
            agent_id = %agent,
            reason = %standing.why,
            "a target does not answer, its agent gets no new flow of this connector"
        );
    }
    publish(hub, known, key);
}

/// Tells those who choose.
fn publish(hub: &Hub, known: &FxHashMap<Place, Standing>, key: &ConnectorKey) {
    let down: Vec<TargetDown> = known
        .iter()
        .filter(|((connector, _), standing)| connector == key && !standing.is_up)
        .map(|((_, agent), standing)| TargetDown {
            agent: agent.clone(),
            why: standing.why.clone(),
        })
        .collect();
    // It may have left the configuration; then nobody asks.
    if let Some(connector) = hub.connectors.find(key) {
        hub.metrics.health.down(&key.to_string(), down.len());
        connector.set_down(down);
    }
}

impl Standing {
    fn new() -> Self {
        Self {
            due: Instant::now(),
            is_looked_at: false,
            is_up: true,
            contrary: 0,
            why: String::new(),
        }
    }

    fn is_due(&self) -> bool {
        !self.is_looked_at && self.due <= Instant::now()
    }

    /// A look begins. The next one comes an interval later, a tenth more or less so that looks at
    /// many targets do not come together.
    fn begin(&mut self, interval: Duration) {
        self.is_looked_at = true;
        self.due = Instant::now() + interval.mul_f64(rand::random_range(0.9..1.1));
    }

    /// What a look came to. Says whether that changes anything.
    fn take(&mut self, probed: &Probed, check: &HealthCheck) -> bool {
        let is_up = match probed {
            Probed::Up => true,
            Probed::Down(why) => {
                self.why.clone_from(why);
                false
            }
            Probed::NotAsked => return false,
        };
        if is_up == self.is_up {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        if self.contrary < if is_up { check.rise } else { check.fall } {
            return false;
        }
        self.is_up = is_up;
        self.contrary = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_changes_after_so_many_looks_in_a_row() {
        let check = HealthCheck {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            http: None,
        };
        let mut standing = Standing::new();
        let mut see = |probed: Probed| {
            let changed = standing.take(&probed, &check);
            (standing.is_up, changed)
        };
        let down = || Probed::Down("connect_failed".to_owned());
        assert_eq!(see(down()), (true, false));
        assert_eq!(see(down()), (true, false));
        assert_eq!(see(Probed::NotAsked), (true, false), "says nothing");
        assert_eq!(see(Probed::Up), (true, false));
        assert_eq!(see(down()), (true, false), "it began anew");
        assert_eq!(see(down()), (true, false));
        assert_eq!(see(down()), (false, true));
        assert_eq!(see(Probed::Up), (false, false));
        assert_eq!(see(down()), (false, false));
        assert_eq!(see(Probed::Up), (false, false));
        assert_eq!(see(Probed::Up), (true, true));
    }
}
