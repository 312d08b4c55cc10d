//! Whose turn it is: every target that is looked at, by connector and by when it is due.
//!
//! Pure: whoever looks asks [`next`](Board::next), and says [`done`](Board::done). The target that
//! waits for longest comes first, of those connectors first that have less than [`SHARE`] looks
//! under way: a connector whose targets all hang takes its share and what nobody else wants.
//!
//! What is known outlives the tunnel for [`KEPT`]: an agent that comes back finds its target as it
//! was, and is looked at at once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::TargetDown;
use super::standing::Standing;
use crate::config::{ConnectorKey, HealthCheck};
use crate::ingress::Probed;
use crate::registry::AgentKey;

/// Looks of one connector at once before others have theirs.
pub(super) const SHARE: usize = 16;

/// How long a target is remembered whose agent has gone, or as long as its connector's targets take
/// to be down, where that is longer.
pub(super) const KEPT: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Board {
    connectors: FxHashMap<ConnectorKey, Targets>,
}

#[derive(Debug)]
struct Targets {
    check: HealthCheck,
    by_agent: FxHashMap<AgentKey, Target>,
    /// Those that are there and not looked at now.
    due: BTreeSet<(Instant, AgentKey)>,
    looks: usize,
}

#[derive(Debug)]
struct Target {
    /// That of its tunnel, or of the last that it had.
    session: u64,
    due: Instant,
    is_looked_at: bool,
    gone_since: Option<Instant>,
    standing: Standing,
}

/// One look that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) connector: ConnectorKey,
    pub(super) agent: AgentKey,
    pub(super) session: u64,
    /// Whether it comes more than an interval too late.
    pub(super) is_late: bool,
}

/// What a look has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    Up,
    /// With the reason.
    Down(String),
}

impl Board {
    /// The tunnels of a connector as they are now. Says whether others are down than before.
    pub(super) fn serve<'a>(
        &mut self,
        connector: &ConnectorKey,
        check: &HealthCheck,
        tunnels: impl Iterator<Item = (&'a AgentKey, u64)>,
        now: Instant,
    ) -> bool {
        let targets = self
            .connectors
            .entry(connector.clone())
            .or_insert_with(|| Targets {
                check: check.clone(),
                by_agent: FxHashMap::default(),
                due: BTreeSet::new(),
                looks: 0,
            });
        targets.check.clone_from(check);
        targets.serve(tunnels, now)
    }

    /// Forgets connectors that are not `wanted`, and says which.
    pub(super) fn retain(&mut self, wanted: impl Fn(&ConnectorKey) -> bool) -> Vec<ConnectorKey> {
        let gone = self.connectors.extract_if(|key, _| !wanted(key));
        gone.map(|(key, _)| key).collect()
    }

    /// Forgets targets whose agents have not come back.
    pub(super) fn tidy(&mut self, now: Instant) {
        for targets in self.connectors.values_mut() {
            let check = &targets.check;
            let kept = KEPT.max(check.interval * check.fall);
            targets.by_agent.retain(|_, target| {
                let gone = target.gone_since;
                gone.is_none_or(|gone| now.saturating_duration_since(gone) < kept)
            });
        }
    }

    /// The look that is to be made now, which counts as under way from here on.
    pub(super) fn next(&mut self, now: Instant) -> Option<Look> {
        let first = |targets: &Targets| targets.due.first().map(|(due, _)| *due);
        let (key, targets) = self
            .connectors
            .iter_mut()
            .filter(|(_, targets)| first(targets).is_some_and(|due| due <= now))
            .min_by_key(|(_, targets)| (targets.looks >= SHARE, first(targets)))?;
        let (due, agent) = targets.due.pop_first()?;
        let target = targets.by_agent.get_mut(&agent)?;
        let interval = targets.check.interval;
        target.is_looked_at = true;
        // A tenth more or less, so that looks at many targets do not come together.
        target.due = now + interval.mul_f64(rand::random_range(0.9..1.1));
        targets.looks += 1;
        Some(Look {
            connector: key.clone(),
            session: target.session,
            agent,
            is_late: now.saturating_duration_since(due) > interval,
        })
    }

    /// What a look came to; nothing where its tunnel is another by now.
    pub(super) fn done(&mut self, look: &Look, probed: &Probed) -> Option<Changed> {
        let targets = self.connectors.get_mut(&look.connector)?;
        targets.looks = targets.looks.saturating_sub(1);
        let target = targets.by_agent.get_mut(&look.agent)?;
        if target.session != look.session || target.gone_since.is_some() {
            return None;
        }
        target.is_looked_at = false;
        targets.due.insert((target.due, look.agent.clone()));
        if !target.standing.take(probed, &targets.check) {
            return None;
        }
        Some(if target.standing.is_up() {
            Changed::Up
        } else {
            Changed::Down(target.standing.why().to_owned())
        })
    }

    /// The targets of a connector that are down behind agents that are there, in the order of
    /// these.
    pub(super) fn down(&self, connector: &ConnectorKey) -> Vec<TargetDown> {
        let targets = self.connectors.get(connector);
        let mut down: Vec<TargetDown> = targets
            .into_iter()
            .flat_map(|targets| &targets.by_agent)
            .filter(|(_, target)| target.counts_as_down())
            .map(|(agent, target)| TargetDown {
                agent: agent.clone(),
                why: target.standing.why().to_owned(),
            })
            .collect();
        down.sort_unstable_by(|a, b| a.agent.cmp(&b.agent));
        down
    }
}

impl Targets {
    fn serve<'a>(
        &mut self,
        tunnels: impl Iterator<Item = (&'a AgentKey, u64)>,
        now: Instant,
    ) -> bool {
        let here: FxHashMap<&AgentKey, u64> = tunnels.collect();
        let mut changed = false;
        for (agent, target) in &mut self.by_agent {
            if !here.contains_key(agent) && target.gone_since.is_none() {
                changed |= target.counts_as_down();
                self.due.remove(&(target.due, agent.clone()));
                target.gone_since = Some(now);
                target.is_looked_at = false;
            }
        }
        for (agent, session) in here {
            match self.by_agent.get_mut(agent) {
                Some(target) if target.session == session && target.gone_since.is_none() => {}
                Some(target) => {
                    if !target.is_looked_at {
                        self.due.remove(&(target.due, agent.clone()));
                    }
                    target.session = session;
                    target.due = now;
                    target.is_looked_at = false;
                    target.gone_since = None;
                    changed |= target.counts_as_down();
                    self.due.insert((now, agent.clone()));
                }
                None => {
                    let target = Target {
                        session,
                        due: now,
                        is_looked_at: false,
                        gone_since: None,
                        standing: Standing::default(),
                    };
                    self.by_agent.insert(agent.clone(), target);
                    self.due.insert((now, agent.clone()));
                }
            }
        }
        changed
    }
}

impl Target {
    fn counts_as_down(&self) -> bool {
        self.gone_since.is_none() && !self.standing.is_up()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use nowconnect_protocol::{AgentId, ConnectorName, TenantName};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn a_connector_that_hangs_keeps_no_other_waiting() {
        let now = Instant::now();
        let mut board = Board::default();
        let agents: Vec<AgentKey> = (0..250).map(agent).collect();
        serve(&mut board, "a", agents.iter().map(|key| (key, 1)), now);
        // Nobody else wants anything, so it has all.
        let hanging: Vec<Look> = (0..64).map(|_| board.next(now).unwrap()).collect();
        let later = now + Duration::from_secs(1);
        serve(
            &mut board,
            "b",
            agents[..1].iter().map(|key| (key, 1)),
            later,
        );
        // One of them ends, and what waits for shorter is of a connector with less.
        board.done(&hanging[0], &down());
        let look = board.next(later).unwrap();
        assert_eq!((look.connector, look.is_late), (key("b"), false));
        let look = board.next(now + INTERVAL * 2).unwrap();
        assert_eq!((look.connector, look.is_late), (key("a"), true));
    }

    #[test]
    fn what_waits_for_longest_comes_first() {
        let now = Instant::now();
        let mut board = Board::default();
        let (old, new) = (agent(9), agent(1));
        serve(&mut board, "a", [(&old, 1)].into_iter(), now);
        let later = now + Duration::from_secs(1);
        serve(&mut board, "a", [(&old, 1), (&new, 2)].into_iter(), later);
        assert_eq!(board.next(later).unwrap().agent, old);
        assert_eq!(board.next(later).unwrap().agent, new);
        assert_eq!(board.next(later), None, "both are looked at");
    }

    #[test]
    fn who_comes_back_finds_what_was_known() {
        let now = Instant::now();
        let mut board = Board::default();
        let one = agent(1);
        serve(&mut board, "a", [(&one, 1)].into_iter(), now);
        let look = board.next(now).unwrap();
        let changed = board.done(&look, &down());
        assert_eq!(changed, Some(Changed::Down("timeout".to_owned())));
        assert_eq!(board.down(&key("a")).len(), 1);
        assert!(serve(&mut board, "a", [].into_iter(), now));
        assert!(board.down(&key("a")).is_empty(), "it is not there");
        board.tidy(now + Duration::from_secs(1));
        assert!(serve(&mut board, "a", [(&one, 2)].into_iter(), now));
        assert_eq!(board.down(&key("a")).len(), 1);
        assert_eq!(board.next(now).unwrap().session, 2, "at once");
        // After a while nothing is known any more.
        serve(&mut board, "a", [].into_iter(), now);
        board.tidy(now + KEPT);
        assert!(!serve(&mut board, "a", [(&one, 3)].into_iter(), now));
        assert!(board.down(&key("a")).is_empty());
    }

    #[test]
    fn a_look_of_an_earlier_tunnel_says_nothing() {
        let now = Instant::now();
        let mut board = Board::default();
        let one = agent(1);
        serve(&mut board, "a", [(&one, 1)].into_iter(), now);
        let earlier = board.next(now).unwrap();
        serve(&mut board, "a", [(&one, 2)].into_iter(), now);
        let later = board.next(now).unwrap();
        assert_eq!(board.done(&earlier, &down()), None);
        assert_eq!(board.next(now + INTERVAL * 2), None, "one look at a time");
        assert_eq!(board.done(&later, &Probed::Up), None);
        assert!(board.next(now + INTERVAL * 2).is_some());
    }

    #[test]
    fn a_connector_that_is_looked_at_no_more_is_forgotten() {
        let now = Instant::now();
        let mut board = Board::default();
        let one = agent(1);
        serve(&mut board, "a", [(&one, 1)].into_iter(), now);
        let look = board.next(now).unwrap();
        assert_eq!(board.retain(|_| false), [key("a")]);
        assert_eq!(board.done(&look, &down()), None);
        assert_eq!(board.next(now + INTERVAL * 2), None);
    }

    fn serve<'a>(
        board: &mut Board,
        connector: &str,
        tunnels: impl Iterator<Item = (&'a AgentKey, u64)>,
        now: Instant,
    ) -> bool {
        let check = HealthCheck {
            interval: INTERVAL,
            timeout: Duration::from_secs(3),
            rise: 2,
            fall: 3,
            http: None,
        };
        board.serve(&key(connector), &check, tunnels, now)
    }

    fn down() -> Probed {
        Probed::Down("timeout".to_owned())
    }

    fn agent(number: usize) -> AgentKey {
        AgentKey {
            tenant: TenantName::default(),
            agent: AgentId::parse(&format!("site-{number:03}")).unwrap(),
        }
    }

    fn key(name: &str) -> ConnectorKey {
        ConnectorKey {
            tenant: TenantName::default(),
            name: ConnectorName::parse(name).unwrap(),
        }
    }
}
