//! Hubs that claim, in any order, over a store that is cut off, goes back in time and loses what
//! it had, with clocks that jump: no two of them ever hold the highest epoch.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use nowconnect_registry::limits::MAX_COUNTER;
use nowconnect_registry::memory::Snapshot;
use nowconnect_registry::{
    AgentKey, ClaimSettings, Claims, Epoch, EpochFence, MemoryRegistry, Registry as _,
    RegistryError,
};
use proptest::prelude::*;

use crate::names::{agent, offer, replica};

const HUBS: [&str; 3] = ["hub-a", "hub-b", "hub-c"];
const LEASE: Duration = Duration::from_secs(60);

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    /// The agent says HELLO at a hub; the answer may be lost on its way.
    Hello { hub: usize, answered: bool },
    /// A hub renews all that it holds.
    Renew { hub: usize },
    /// The session at a hub ends.
    Release { hub: usize },
    /// A hub is killed and starts anew; it remembers nothing.
    Restart { hub: usize },
    /// A hub hears of an epoch from a frame of another.
    Hear { hub: usize, of: usize },
    /// The store is cut off or back.
    Reach { reachable: bool },
    /// What the store holds is copied to its replica.
    Replicate,
    /// The replica takes over; what was written since is lost.
    FailOver,
    /// The store starts empty.
    Forget,
    /// The store's clock is somewhere else.
    Jump { to: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let hub = || 0..HUBS.len();
    prop_oneof![
        6 => (hub(), prop::bool::weighted(0.8))
            .prop_map(|(hub, answered)| Step::Hello { hub, answered }),
        3 => hub().prop_map(|hub| Step::Renew { hub }),
        1 => hub().prop_map(|hub| Step::Release { hub }),
        1 => hub().prop_map(|hub| Step::Restart { hub }),
        2 => (hub(), hub()).prop_map(|(hub, of)| Step::Hear { hub, of }),
        2 => any::<bool>().prop_map(|reachable| Step::Reach { reachable }),
        1 => Just(Step::Replicate),
        1 => Just(Step::FailOver),
        1 => Just(Step::Forget),
        1 => (0..600_000_u64).prop_map(|to| Step::Jump { to }),
    ]
}

struct World {
    store: MemoryRegistry,
    clock: Arc<AtomicU64>,
    replicated: Snapshot,
    hubs: Vec<(Claims, Arc<EpochFence>)>,
    plant: AgentKey,
    /// What the agent has taken last.
    taken: Option<Epoch>,
    /// The fence of a receiver that sees every HELLO_ACK that the agent took.
    receiver: EpochFence,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(300_000));
        let now = Arc::clone(&clock);
        let store = MemoryRegistry::with_clock(LEASE, LEASE, move || now.load(Ordering::Relaxed));
        let hubs = HUBS.iter().map(|name| hub(&store, name)).collect();
        Self {
            replicated: store.snapshot(),
            store,
            clock,
            hubs,
            plant: agent("default", "plant"),
            taken: None,
            receiver: EpochFence::new(NonZeroUsize::new(4).unwrap()),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Hello { hub, answered } => self.hello(hub, answered),
            Step::Renew { hub } => {
                now(self.hubs[hub].0.renew_all());
            }
            Step::Release { hub } => {
                let claims = &self.hubs[hub].0;
                if let Some(epoch) = claims.held(&self.plant) {
                    let _away_or_lost = now(claims.release(&self.plant, &epoch));
                    assert_eq!(claims.held(&self.plant), None);
                }
            }
            Step::Restart { hub: at } => self.hubs[at] = hub(&self.store, HUBS[at]),
            Step::Hear { hub, of } => {
                if let Some(epoch) = self.hubs[of].1.highest(&self.plant) {
                    self.hubs[hub].1.observe(&self.plant, &epoch);
                }
            }
            Step::Reach { reachable } => self.store.set_reachable(reachable),
            Step::Replicate => self.replicated = self.store.snapshot(),
            Step::FailOver => self.store.restore(self.replicated.clone()),
            Step::Forget => self.store.forget(),
            Step::Jump { to } => self.clock.store(to, Ordering::Relaxed),
        }
        self.check();
    }

    fn hello(&mut self, hub: usize, answered: bool) {
        let claims = &self.hubs[hub].0;
        let claim = now(claims.claim(&self.plant, self.taken.clone())).unwrap();
        assert!(
            Some(&claim.epoch) > self.taken.as_ref(),
            "an agent would refuse the epoch {:?} after {:?}",
            claim.epoch,
            self.taken
        );
        assert_eq!(claims.held(&self.plant), Some(claim.epoch.clone()));
        let offered = now(claims.offer(&self.plant, &claim.epoch, offer(&["ldap"], "")));
        // Its own claim cannot have been overtaken meanwhile.
        offered.unwrap();
        if answered {
            assert!(
                self.receiver
                    .observe(&self.plant, &claim.epoch)
                    .is_accepted()
            );
            self.taken = Some(claim.epoch);
        }
    }

    /// The epochs of the hubs that believe that they hold the agent.
    fn held(&self) -> Vec<Epoch> {
        let held = self.hubs.iter().map(|(claims, _)| claims.held(&self.plant));
        held.flatten().collect()
    }

    fn check(&self) {
        let held = self.held();
        let different: BTreeSet<_> = held.iter().collect();
        assert_eq!(
            different.len(),
            held.len(),
            "two hubs hold one epoch: {held:?}"
        );
        // Whatever the store lost, frames of whoever the agent has left are stale to a receiver
        // that has seen what the agent took.
        for epoch in held
            .iter()
            .filter(|epoch| Some(*epoch) < self.taken.as_ref())
        {
            assert!(!self.receiver.observe(&self.plant, epoch).is_accepted());
        }
    }

    /// With the store back, all agree on the highest within two rounds.
    fn converge(&mut self) {
        self.store.set_reachable(true);
        for _ in 0..2 {
            for (claims, _) in &self.hubs {
                now(claims.renew_all());
            }
        }
        let held = self.held();
        assert!(held.len() <= 1, "two hubs go on: {held:?}");
        if let [epoch] = &held[..] {
            let owner = now(self.store.get_owner(&self.plant)).unwrap().unwrap();
            assert_eq!(owner.epoch, *epoch);
            let name = crate::names::connector("default", "ldap");
            let found = now(self.store.list_agents(&name)).unwrap();
            assert_eq!(found.len(), 1, "the offer was lost");
        }
        // And the next HELLO is above all of it.
        self.hello(0, true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_two_hubs_hold_the_highest_epoch(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.converge();
    }
}

/// With the store and without it.
#[test]
fn an_agent_that_lies_about_its_last_epoch_is_refused_and_leaves_no_trace() {
    let store = MemoryRegistry::default();
    let (claims, fence) = hub(&store, "hub-a");
    let plant = agent("default", "plant");
    for reachable in [true, false] {
        store.set_reachable(reachable);
        let lie = Epoch {
            counter: MAX_COUNTER - 1,
            replica: replica("hub-z"),
        };
        let refused = now(claims.claim(&plant, Some(lie)));
        assert!(matches!(refused, Err(RegistryError::CounterSpent { .. })));
        let claim = now(claims.claim(&plant, None)).unwrap();
        assert_eq!(claim.provisional, !reachable);
        assert!(claim.epoch.counter <= 2, "{:?}", claim.epoch);
        assert_eq!(fence.highest(&plant), Some(claim.epoch));
    }
}

fn hub(store: &MemoryRegistry, name: &str) -> (Claims, Arc<EpochFence>) {
    let fence = Arc::new(EpochFence::new(NonZeroUsize::new(4).unwrap()));
    let registry = Arc::new(store.clone());
    let settings = ClaimSettings::default();
    let claims = Claims::new(registry, replica(name), Arc::clone(&fence), settings);
    (claims, fence)
}

/// The store in memory answers at once.
fn now<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().unwrap()
}
