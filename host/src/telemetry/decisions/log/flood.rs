//! Floods of equal denies: beyond a burst in a second they are counted together.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::telemetry::decisions::record::DecisionRecord;

/// Kinds of denies that are told apart in one second; those beyond share one kind for each action
/// and code. With the record that each keeps some 1.5 MiB.
pub const MAX_FLOODS: usize = 1024;

/// How long equal denies are counted together.
const WINDOW: Duration = Duration::from_secs(1);

/// Denies that were counted together.
#[derive(Clone, Debug)]
pub(super) struct Repeated {
    /// The last of them.
    pub(super) last: Arc<DecisionRecord>,
    pub(super) count: u64,
    pub(super) first_ms: u64,
    pub(super) last_ms: u64,
}

/// See the module.
pub(super) struct Floods {
    burst: u32,
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    began: Option<Instant>,
    kinds: HashMap<u64, Kind>,
}

struct Kind {
    alone: u32,
    folded: Option<Repeated>,
}

impl Floods {
    pub(super) fn new(burst: u32) -> Self {
        Self {
            burst,
            hasher: RandomState::new(),
            state: Mutex::default(),
        }
    }

    /// Whether this deny is counted with others instead of standing alone; and what is to be said
    /// about the window that is over.
    pub(super) fn fold(&self, record: &Arc<DecisionRecord>, now: Instant) -> (bool, Vec<Repeated>) {
        if self.burst == 0 {
            return (false, Vec::new());
        }
        let mut key = self.key(record, true);
        let mut state = self.state.lock();
        let over = state.take_over(now);
        state.began.get_or_insert(now);
        if state.kinds.len() >= MAX_FLOODS && !state.kinds.contains_key(&key) {
            key = self.key(record, false);
        }
        let kind = match state.kinds.entry(key) {
            Entry::Occupied(seen) => seen.into_mut(),
            Entry::Vacant(new) => new.insert(Kind {
                alone: 0,
                folded: None,
            }),
        };
        if kind.alone < self.burst {
            kind.alone += 1;
            return (false, over);
        }
        match &mut kind.folded {
            Some(folded) => {
                folded.count += 1;
                folded.last_ms = record.time_ms;
                folded.last = Arc::clone(record);
            }
            None => {
                kind.folded = Some(Repeated {
                    last: Arc::clone(record),
                    count: 1,
                    first_ms: record.time_ms,
                    last_ms: record.time_ms,
                });
            }
        }
        (true, over)
    }

    /// What is to be said about a window that is over.
    pub(super) fn take_over(&self, now: Instant) -> Vec<Repeated> {
        self.state.lock().take_over(now)
    }

    /// The same, over or not.
    pub(super) fn take_all(&self) -> Vec<Repeated> {
        self.state.lock().take_all()
    }

    /// What makes denies equal. The hash is keyed, so nobody can make others' denies equal to his.
    fn key(&self, record: &DecisionRecord, exact: bool) -> u64 {
        let mut hash = self.hasher.build_hasher();
        record.action.hash(&mut hash);
        record.why.hash(&mut hash);
        record.code.hash(&mut hash);
        exact.hash(&mut hash);
        if exact {
            record.principal.hash(&mut hash);
            record.resource.hash(&mut hash);
            record
                .client
                .or(record.agent_address)
                .map(|client| source(client.ip()))
                .hash(&mut hash);
        }
        hash.finish()
    }
}

impl State {
    fn take_over(&mut self, now: Instant) -> Vec<Repeated> {
        match self.began {
            Some(began) if now.saturating_duration_since(began) >= WINDOW => self.take_all(),
            Some(_) | None => Vec::new(),
        }
    }

    fn take_all(&mut self) -> Vec<Repeated> {
        self.began = None;
        let mut folded: Vec<Repeated> = self
            .kinds
            .drain()
            .filter_map(|(_, kind)| kind.folded)
            .collect();
        folded.sort_by_key(|repeated| repeated.first_ms);
        folded
    }
}

/// Whoever has one address of a prefix of 64 bits has them all.
fn source(ip: IpAddr) -> [u8; 8] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [4, a, b, c, d, 0, 0, 0]
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h, ..] = ip.octets();
            [a, b, c, d, e, f, g, h]
        }
    }
}
