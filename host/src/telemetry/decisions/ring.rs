//! The last decisions, in memory.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;

use super::record::{DecisionAction, DecisionId, DecisionRecord};

/// Decisions kept by default.
pub const MAX_DECISIONS: usize = 8192;

/// Bytes kept by default; a usual record has about 1 KiB with its question, so this is the
/// tighter bound only where records are unusually large.
pub const MAX_DECISION_BYTES: usize = 16 * 1024 * 1024;

/// Keeps the newest records within two bounds, number and bytes.
#[derive(Debug)]
pub struct DecisionRing {
    max_records: usize,
    max_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<(Arc<DecisionRecord>, usize)>,
    bytes: usize,
    forgotten: u64,
}

/// Which records to return; all that is set must hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecisionFilter<'f> {
    /// The client's IP address.
    pub client_ip: Option<IpAddr>,
    /// The client's port.
    pub client_port: Option<u16>,
    /// The action.
    pub action: Option<DecisionAction>,
    /// Allowed or denied.
    pub allow: Option<bool>,
    /// The agent, as in the record.
    pub agent: Option<&'f str>,
    /// The connector, as in the record.
    pub connector: Option<&'f str>,
    /// The flow, as in the record.
    pub flow: Option<&'f str>,
}

impl DecisionRing {
    /// An empty ring; `0` for either bound keeps nothing.
    pub fn new(max_records: usize, max_bytes: usize) -> Self {
        Self {
            max_records,
            max_bytes,
            kept: Mutex::default(),
        }
    }

    /// Keeps `record`, forgetting the oldest ones where a bound is passed.
    pub fn push(&self, record: Arc<DecisionRecord>) {
        let weight = record.weight_bytes();
        let mut forgotten = Vec::new();
        let mut kept = self.kept.lock();
        kept.bytes += weight;
        kept.records.push_back((record, weight));
        while kept.records.len() > self.max_records || kept.bytes > self.max_bytes {
            let Some((oldest, weight)) = kept.records.pop_front() else {
                break;
            };
            kept.bytes -= weight;
            kept.forgotten += 1;
            forgotten.push(oldest);
        }
        // Freed outside the lock.
        drop(kept);
    }

    /// The record of this id, if it is still kept.
    pub fn by_id(&self, id: DecisionId) -> Option<Arc<DecisionRecord>> {
        let kept = self.kept.lock();
        kept.records
            .iter()
            .rev()
            .find(|(record, _)| record.decision_id == id)
            .map(|(record, _)| Arc::clone(record))
    }

    /// The newest `limit` records that `filter` lets through, newest first.
    pub fn recent(&self, filter: &DecisionFilter<'_>, limit: usize) -> Vec<Arc<DecisionRecord>> {
        let kept = self.kept.lock();
        kept.records
            .iter()
            .rev()
            .filter(|(record, _)| filter.matches(record))
            .take(limit)
            .map(|(record, _)| Arc::clone(record))
            .collect()
    }

    /// Records kept now, and records forgotten since start.
    pub fn counts(&self) -> (usize, u64) {
        let kept = self.kept.lock();
        (kept.records.len(), kept.forgotten)
    }
}

impl Default for DecisionRing {
    fn default() -> Self {
        Self::new(MAX_DECISIONS, MAX_DECISION_BYTES)
    }
}

impl DecisionFilter<'_> {
    fn matches(&self, record: &DecisionRecord) -> bool {
        let client_ip = record.client.as_ref().map(SocketAddr::ip);
        let client_port = record.client.as_ref().map(SocketAddr::port);
        fits(
            self.client_ip.map(|ip| ip.to_canonical()),
            client_ip.map(|ip| ip.to_canonical()),
        ) && fits(self.client_port, client_port)
            && fits(self.action, Some(record.action))
            && fits(self.allow, Some(record.allow))
            && fits(self.agent, record.agent.as_deref())
            && fits(self.connector, record.connector.as_deref())
            && fits(self.flow, record.flow.as_deref())
    }
}

fn fits<T: PartialEq>(wanted: Option<T>, seen: Option<T>) -> bool {
    wanted.is_none_or(|wanted| seen.is_some_and(|seen| seen == wanted))
}
