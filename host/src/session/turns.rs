//! One HELLO of an agent at a time, between settling who stays and coming into force.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::OwnedMutexGuard;

use crate::registry::AgentKey;

/// See the module. A place for each agent that has one now: as many as there are handshakes, which
/// are bounded.
#[derive(Debug, Default)]
pub(crate) struct HelloTurns {
    table: Mutex<FxHashMap<AgentKey, Weak<tokio::sync::Mutex<()>>>>,
}

/// Whose turn it is, until it is dropped.
#[derive(Debug)]
pub(crate) struct HelloTurn {
    _guard: OwnedMutexGuard<()>,
}

/// Places without anybody that are left before they are cleared away.
const CLEARED_FROM: usize = 1_024;

impl HelloTurns {
    /// Waits for the turn of `agent`. Whoever has it ends with its tunnel at the latest, and that with
    /// the time for HELLO.
    pub(super) async fn turn(&self, agent: &AgentKey) -> HelloTurn {
        let place = {
            let mut table = self.table.lock();
            if table.len() >= CLEARED_FROM {
                table.retain(|_, place| place.strong_count() > 0);
            }
            match table.get(agent).and_then(Weak::upgrade) {
                Some(place) => place,
                None => {
                    let place = Arc::default();
                    table.insert(agent.clone(), Arc::downgrade(&place));
                    place
                }
            }
        };
        HelloTurn {
            _guard: place.lock_owned().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::fixture::agent_key;

    #[tokio::test]
    async fn one_agent_has_one_turn_and_others_do_not_wait_for_it() {
        let turns = HelloTurns::default();
        let first = turns.turn(&agent_key("plant")).await;
        assert!(turns.turn(&agent_key("plant")).now_or_never().is_none());
        assert!(turns.turn(&agent_key("other")).now_or_never().is_some());
        drop(first);
        assert!(turns.turn(&agent_key("plant")).now_or_never().is_some());
    }

    #[tokio::test]
    async fn places_do_not_pile_up() {
        let turns = HelloTurns::default();
        for number in 0..3 * CLEARED_FROM {
            drop(turns.turn(&agent_key(&format!("agent-{number}"))).await);
        }
        assert!(turns.table.lock().len() <= CLEARED_FROM);
    }
}
