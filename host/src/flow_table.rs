//! The flows that run, with what is needed to ask about them again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use nowconnect_policy::Question;
use nowconnect_protocol::FlowRef;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::registry::{AgentKey, ConnectorKey};
use crate::telemetry::decisions::DecisionId;

/// One running flow.
#[derive(Debug)]
pub struct FlowEntry {
    /// Its name for life.
    pub flow_ref: FlowRef,
    /// The agent that carries it.
    pub agent: AgentKey,
    /// The connector that it reaches.
    pub connector: ConnectorKey,
    /// The listener where the client came in; `ingress` for a flow that requests share, `health`
    /// for a look at a target.
    pub listener: Arc<str>,
    /// The client; none for a flow that requests share.
    pub client: Option<SocketAddr>,
    /// The decision that let it in.
    pub decision: DecisionId,
    /// What was asked then. Shared, never copied.
    pub question: Arc<Question>,
    /// The generation that allowed it last.
    pub generation: AtomicU64,
    /// The newest round of re-checks when it was asked about last, or when it came.
    pub asked: AtomicU64,
    /// When it was opened.
    pub opened: Instant,
    /// The same on the wall.
    pub opened_at: SystemTime,
    /// Whether the target is connected.
    pub acknowledged: AtomicBool,
    /// Whether its end was ordered because it is forbidden, so that it counts once.
    pub is_condemned: AtomicBool,
    /// Whether somebody goes on ordering its end until its driver takes the order.
    pub is_insisted: AtomicBool,
    /// Bytes from the client, as of about a second ago.
    pub bytes_c2a: AtomicU64,
    /// Bytes from the target, likewise.
    pub bytes_a2c: AtomicU64,
}

/// Every running flow by its number. As long as `limits.max_conn_total` at most.
#[derive(Debug, Default)]
pub struct FlowTable {
    flows: Mutex<FxHashMap<u64, Arc<FlowEntry>>>,
    last_number: AtomicU64,
}

impl FlowTable {
    /// A number that no flow of this hub had, from 1.
    pub fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Puts a flow in.
    pub fn insert(&self, entry: Arc<FlowEntry>) {
        self.flows.lock().insert(entry.flow_ref.number, entry);
    }

    /// Takes a flow out.
    pub fn remove(&self, number: u64) -> Option<Arc<FlowEntry>> {
        self.flows.lock().remove(&number)
    }

    /// The flow of this number.
    pub fn find(&self, number: u64) -> Option<Arc<FlowEntry>> {
        self.flows.lock().get(&number).cloned()
    }

    /// How many were opened since the start.
    pub fn opened(&self) -> u64 {
        self.last_number.load(Ordering::Relaxed)
    }

    /// How many run.
    pub fn len(&self) -> usize {
        self.flows.lock().len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that `wanted` picks, oldest first.
    pub fn collect(&self, wanted: impl Fn(&FlowEntry) -> bool) -> Vec<Arc<FlowEntry>> {
        let mut found: Vec<_> = self
            .flows
            .lock()
            .values()
            .filter(|entry| wanted(entry))
            .cloned()
            .collect();
        found.sort_unstable_by_key(|entry| entry.flow_ref.number);
        found
    }
}
