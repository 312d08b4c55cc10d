//! Connections to origins that wait for a further request.
//!
//! Kept apart by connector, agent and bound on silence, and by viewer where the route says so. The
//! newest is taken first, so that those which are not needed grow old and are let go.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::upstream::Upstream;
use crate::config::OriginHttp;
use crate::registry::{AgentKey, ConnectorKey};
use crate::telemetry::metrics::{HttpGauge, Metrics};

/// Services of which it is remembered what they speak, at some 200 bytes each. Of others the
/// agent's answer is waited for.
const MAX_SPOKEN: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// What requests must have in common to use the same connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) connector: ConnectorKey,
    pub(crate) agent: AgentKey,
    /// What its routes say of the version that the service speaks.
    pub(crate) origin_http: OriginHttp,
    /// The bound on silence that the flow was opened with.
    pub(crate) idle_timeout: Duration,
    /// The viewer's connection and who is behind it, where others' requests must not use it.
    pub(crate) viewer: Option<(u64, SocketAddr)>,
}

#[derive(Debug)]
struct Kept {
    upstream: Upstream,
    since: Instant,
    _counted: HttpGauge,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    kept: Mutex<State>,
    /// Whether services speak HTTP/2, as TLS to them agreed the last time.
    spoken: Mutex<LruCache<(ConnectorKey, AgentKey), bool>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    by_key: FxHashMap<PoolKey, Vec<Kept>>,
    /// Over all keys.
    total: usize,
    /// Nothing is kept any more.
    closed: bool,
}

impl Pool {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            kept: Mutex::default(),
            spoken: Mutex::new(LruCache::new(MAX_SPOKEN)),
            metrics,
        }
    }

    /// Whether the service behind the connector speaks HTTP/2, where that is known.
    pub(crate) fn spoken(&self, key: &PoolKey) -> Option<bool> {
        let service = (key.connector.clone(), key.agent.clone());
        self.spoken.lock().get(&service).copied()
    }

    /// What TLS to a service agreed on.
    pub(crate) fn learn(&self, connector: &ConnectorKey, agent: &AgentKey, http2: bool) {
        let service = (connector.clone(), agent.clone());
        self.spoken.lock().put(service, http2);
    }

    /// One that is still usable, as far as is known here.
    pub(crate) fn take(&self, key: &PoolKey) -> Option<Upstream> {
        let mut dead = Vec::new();
        let mut state = self.kept.lock();
        let kept = state.by_key.get_mut(key)?;
        let before = kept.len();
        let found = loop {
            match kept.pop() {
                Some(one) if one.upstream.is_usable() => break Some(one.upstream),
                Some(one) => dead.push(one),
                None => break None,
            }
        };
        let left = kept.len();
        if left == 0 {
            state.by_key.remove(key);
        }
        state.total -= before - left;
        drop(state);
        drop(dead);
        found
    }

    /// Keeps it, unless there are as many already: `most` of its kind, `most_in_all` together.
    pub(crate) fn keep(&self, upstream: Upstream, most: usize, most_in_all: usize) {
        let mut state = self.kept.lock();
        let of_its_kind = state.by_key.get(upstream.key()).map_or(0, Vec::len);
        if state.closed || of_its_kind >= most || state.total >= most_in_all {
            drop(state);
            // Ends a connection, which is not done under the lock.
            return drop(upstream);
        }
        let kept = state.by_key.entry(upstream.key().clone()).or_default();
        kept.push(Kept {
            upstream,
            since: Instant::now(),
            _counted: self.metrics.http.kept(),
        });
        state.total += 1;
    }

    /// Takes the one out that has waited for longest among those of a connector, whichever agent it
    /// goes through.
    pub(crate) fn take_oldest(&self, connector: &ConnectorKey) -> Option<Upstream> {
        let mut state = self.kept.lock();
        let of_it = state
            .by_key
            .iter()
            .filter(|(key, _)| key.connector == *connector);
        // The newest is kept last.
        let oldest = of_it.filter_map(|(key, kept)| Some((kept.first()?.since, key)));
        let key = oldest.min_by_key(|(since, _)| *since)?.1.clone();
        let kept = state.by_key.get_mut(&key)?;
        let oldest = kept.remove(0);
        if kept.is_empty() {
            state.by_key.remove(&key);
        }
        state.total -= 1;
        Some(oldest.upstream)
    }

    /// Lets go of what waits for longer than `within`, or has ended.
    pub(crate) fn sweep(&self, within: Duration) {
        self.remove(|_, kept| kept.since.elapsed() >= within || !kept.upstream.is_usable());
    }

    /// A viewer's connection has ended.
    pub(crate) fn forget_viewer(&self, viewer: u64) {
        self.remove(|key, _| key.viewer.is_some_and(|(number, _)| number == viewer));
    }

    /// Lets go of all, and keeps nothing from now on.
    pub(crate) fn close(&self) {
        self.kept.lock().closed = true;
        self.remove(|_, _| true);
    }

    fn remove(&self, leaves: impl Fn(&PoolKey, &Kept) -> bool) {
        let mut gone = Vec::new();
        let mut state = self.kept.lock();
        state.by_key.retain(|key, kept| {
            gone.extend(kept.extract_if(.., |one| leaves(key, one)));
            !kept.is_empty()
        });
        state.total -= gone.len();
        drop(state);
        drop(gone);
    }
}
