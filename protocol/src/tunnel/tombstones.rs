//! Flows that were reset after they had reached their target.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::flow_ref::FlowRef;
use crate::frame::ResetCode;
use crate::limits::MAX_TOMBSTONES;

/// The last [`MAX_TOMBSTONES`] of them.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    codes: FxHashMap<FlowRef, ResetCode>,
    order: VecDeque<FlowRef>,
}

impl Tombstones {
    pub(super) fn put(&mut self, flow_ref: FlowRef, code: ResetCode) {
        if self.codes.insert(flow_ref.clone(), code).is_none() {
            self.order.push_back(flow_ref);
        }
        if self.order.len() > MAX_TOMBSTONES
            && let Some(oldest) = self.order.pop_front()
        {
            self.codes.remove(&oldest);
        }
    }

    pub(super) fn get(&self, flow_ref: &FlowRef) -> Option<ResetCode> {
        self.codes.get(flow_ref).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Takes in what an earlier tunnel remembered.
    pub(super) fn extend(&mut self, mut earlier: Self) {
        for flow_ref in earlier.order {
            if let Some(code) = earlier.codes.remove(&flow_ref) {
                self.put(flow_ref, code);
            }
        }
    }
}
