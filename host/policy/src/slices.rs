//! The entities of a request, kept for the next request about the same.
//!
//! Putting six ready entities together costs the engine twice what the evaluation does, and
//! most requests are about entities that were asked about before. A slice is known by the very
//! rows it was made of: a row that changes is another row, so a slice is never stale. It keeps
//! its rows alive, so no other row can come to stand at the same address.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use cedar_policy::{Entities, RestrictedExpression};
use lru::LruCache;
use parking_lot::Mutex;

use crate::ViewerFacts;
use crate::core_schema::Action;
use crate::diagnostic::with_causes;
use crate::row::Row;

/// Slices kept. One has about six entities and 4 KiB, so all have about 16 MiB.
const SLICES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Authenticated viewers kept ready, of about 1 KiB each.
const VIEWERS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Replicas kept ready; a cluster has fewer.
const NODES: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Client addresses kept ready, of about 300 bytes each: to make one, the engine parses the
/// name of its function anew, which is a sixth of a decision.
const ADDRESSES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// See the module.
#[derive(Debug)]
pub(crate) struct Slices {
    slices: Mutex<LruCache<SliceKey, Slice>>,
    viewers: Mutex<LruCache<usize, ReadyViewer>>,
    nodes: Mutex<LruCache<Arc<str>, Arc<Row>>>,
    addresses: Mutex<LruCache<IpAddr, RestrictedExpression>>,
}

/// A viewer's facts, which keep the address that is the key, and their row.
type ReadyViewer = (Arc<ViewerFacts>, Arc<Row>);

/// Addresses of the action and of the rows.
type SliceKey = (usize, Vec<usize>);

#[derive(Debug)]
struct Slice {
    entities: Arc<Entities>,
    _rows: Vec<Arc<Row>>,
}

impl Slices {
    pub(crate) fn new() -> Self {
        Self {
            slices: Mutex::new(LruCache::new(SLICES)),
            viewers: Mutex::new(LruCache::new(VIEWERS)),
            nodes: Mutex::new(LruCache::new(NODES)),
            addresses: Mutex::new(LruCache::new(ADDRESSES)),
        }
    }

    /// The entities of these rows and of the action, without which `action in` would not hold.
    /// What is not `lasting` is not kept.
    pub(crate) fn of(
        &self,
        action: &'static Action,
        rows: Vec<Arc<Row>>,
        lasting: bool,
    ) -> Result<Arc<Entities>, String> {
        let addresses = rows.iter().map(|row| Arc::as_ptr(row).addr()).collect();
        let key = (std::ptr::from_ref(action).addr(), addresses);
        if lasting && let Some(slice) = self.slices.lock().get(&key) {
            return Ok(Arc::clone(&slice.entities));
        }
        // The same row may come twice, which the engine takes where both are equal.
        let entities = rows
            .iter()
            .map(|row| row.entity.clone())
            .chain([action.entity.clone()]);
        let entities =
            Entities::from_entities(entities, None).map_err(|error| with_causes(&error))?;
        let entities = Arc::new(entities);
        if lasting {
            let slice = Slice {
                entities: Arc::clone(&entities),
                _rows: rows,
            };
            self.slices.lock().put(key, slice);
        }
        Ok(entities)
    }

    /// The row of a viewer, known by the very value that its session holds.
    pub(crate) fn viewer(&self, facts: &Arc<ViewerFacts>) -> Arc<Row> {
        let address = Arc::as_ptr(facts).addr();
        if let Some((_, row)) = self.viewers.lock().get(&address) {
            return Arc::clone(row);
        }
        let row = Arc::new(Row::viewer(facts));
        let entry = (Arc::clone(facts), Arc::clone(&row));
        self.viewers.lock().put(address, entry);
        row
    }

    pub(crate) fn node(&self, replica: &str) -> Arc<Row> {
        let mut nodes = self.nodes.lock();
        if let Some(row) = nodes.get(replica) {
            return Arc::clone(row);
        }
        let row = Arc::new(Row::node(replica));
        nodes.put(Arc::from(replica), Arc::clone(&row));
        row
    }

    pub(crate) fn address(&self, address: IpAddr) -> RestrictedExpression {
        // The engine's parser of addresses takes no IPv4 inside IPv6.
        let address = address.to_canonical();
        let mut addresses = self.addresses.lock();
        if let Some(ready) = addresses.get(&address) {
            return ready.clone();
        }
        let ready = RestrictedExpression::new_ip(address.to_string());
        addresses.put(address, ready.clone());
        ready
    }
}
