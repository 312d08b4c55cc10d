//! Sessions whose tunnel is gone: their flows wait for the agent to come back.

use std::sync::Arc;
use std::time::Duration;

use nowconnect_protocol::ResumeToken;
use nowconnect_tunnel::DetachedSession;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::identity::AgentIdentity;
use crate::registry::AgentKey;
use crate::telemetry::metrics::GaugeGuard;

/// How many agents' last reasons are remembered, at about 100 bytes each.
const MAX_REASONS: usize = 16_384;

/// What a resume token is kept as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenHash([u8; 32]);

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(***)")
    }
}

impl TokenHash {
    pub(crate) fn of(token: &ResumeToken) -> Self {
        Self(Sha256::digest(token.0).into())
    }

    /// Compares in the same time whatever differs.
    pub(crate) fn is_of(&self, token: &ResumeToken) -> bool {
        let other = Self::of(token);
        let difference = self
            .0
            .iter()
            .zip(other.0)
            .fold(0, |difference, (a, b)| difference | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

/// The tokens that are good for a session: its own, and that of the session whose flows it took
/// over, because the agent may never have got the new one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResumeHashes {
    pub(crate) own: TokenHash,
    pub(crate) taken_over: Option<TokenHash>,
}

impl ResumeHashes {
    pub(crate) fn has(&self, token: &ResumeToken) -> bool {
        let own = self.own.is_of(token);
        let taken_over = self.taken_over.is_some_and(|hash| hash.is_of(token));
        own | taken_over
    }
}

/// The flows of one agent, waiting. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) session: DetachedSession,
    pub(crate) hashes: ResumeHashes,
    pub(crate) identity: Arc<AgentIdentity>,
    pub(crate) until: Instant,
    pub(crate) _counted: GaugeGuard,
}

/// One session for each agent at most: what was parked before is ended by what comes after.
/// Their flows stay within `limits.max_conn_total`.
#[derive(Debug, Default)]
pub(crate) struct ParkedSessions {
    table: Mutex<FxHashMap<AgentKey, Parked>>,
    reasons: Mutex<FxHashMap<AgentKey, (Box<str>, Instant)>>,
}

impl ParkedSessions {
    pub(crate) fn park(&self, agent: AgentKey, parked: Parked) {
        // The earlier one is dropped outside the lock: its flows' observers run then.
        let earlier = self.table.lock().insert(agent, parked);
        drop(earlier);
    }

    /// The flows that `token` is for, if they are the same agent's. A wrong token leaves them.
    pub(crate) fn take(&self, agent: &AgentKey, token: &ResumeToken) -> Option<DetachedSession> {
        let mut table = self.table.lock();
        if !table.get(agent)?.hashes.has(token) {
            return None;
        }
        table.remove(agent).map(|parked| parked.session)
    }

    /// Ends what `over` picks; says how many sessions that were.
    pub(crate) fn end(&self, over: impl Fn(&AgentKey, &Parked) -> bool) -> usize {
        let mut ended = Vec::new();
        let mut table = self.table.lock();
        let keys: Vec<AgentKey> = table
            .iter()
            .filter(|(agent, parked)| over(agent, parked))
            .map(|(agent, _)| agent.clone())
            .collect();
        for key in keys {
            ended.extend(table.remove(&key));
        }
        drop(table);
        ended.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.lock().len()
    }

    /// The agents that have one, with the number of their flows where known.
    pub(crate) fn agents(&self) -> Vec<AgentKey> {
        self.table.lock().keys().cloned().collect()
    }

    /// Remembers why an agent's last tunnel ended.
    pub(super) fn note_reason(&self, agent: AgentKey, reason: &str) {
        let mut reasons = self.reasons.lock();
        if reasons.len() < MAX_REASONS || reasons.contains_key(&agent) {
            reasons.insert(agent, (reason.into(), Instant::now()));
        }
    }

    /// The reason remembered, once.
    pub(super) fn last_reason(&self, agent: &AgentKey) -> Option<Box<str>> {
        let noted = self.reasons.lock().remove(agent);
        noted.map(|(reason, _)| reason)
    }

    /// Since when an agent has been away, where it was here before and is remembered.
    pub(crate) fn away_since(&self, agent: &AgentKey) -> Option<Instant> {
        self.reasons.lock().get(agent).map(|(_, since)| *since)
    }

    /// Forgets the agents that have been away for `long`, and says which.
    pub(super) fn forget_away(&self, long: Duration) -> Vec<AgentKey> {
        let mut away = Vec::new();
        self.reasons.lock().retain(|agent, (_, since)| {
            let keep = since.elapsed() < long;
            if !keep {
                away.push(agent.clone());
            }
            keep
        });
        away
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_before_is_good_for_what_was_taken_over_and_no_older_one() {
        let [oldest, before, own] = [1, 2, 3].map(|byte| ResumeToken([byte; 32]));
        let hashes = ResumeHashes {
            own: TokenHash::of(&own),
            taken_over: Some(TokenHash::of(&before)),
        };
        assert!(hashes.has(&own) && hashes.has(&before));
        assert!(!hashes.has(&oldest));
    }

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let token = ResumeToken([7; 32]);
        let hash = TokenHash::of(&token);
        assert!(hash.is_of(&token));
        let mut other = [7; 32];
        other[31] = 8;
        assert!(!hash.is_of(&ResumeToken(other)));
        assert!(!format!("{hash:?}").contains('7'));
    }
}
