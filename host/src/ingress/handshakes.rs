//! TLS handshakes at once: in all, and from each source.
//!
//! A handshake holds its place before its peer has sent a byte, so one source must not take them
//! all.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{SourceBound, bound};
use crate::limit::{Slot, Slots, SourceSlot};

/// Of the places in all, one in so many is the most for one source.
const SHARE: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Handshakes {
    in_all: Arc<Slots>,
    sources: ArcSwap<SourceBound>,
}

/// A place; given back when dropped.
#[derive(Debug)]
#[must_use = "a place that is dropped at once bounds nothing"]
pub(super) struct Handshake {
    _of_source: SourceSlot,
    _in_all: Slot,
}

impl Handshakes {
    /// `limit` at a time in all.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            in_all: Slots::new(bound(limit)),
            sources: ArcSwap::from_pointee(SourceBound::new(share(limit))),
        }
    }

    /// Changes the bounds for those that begin from now on.
    pub(super) fn set_limit(&self, limit: u32) {
        self.in_all.set_limit(bound(limit));
        SourceBound::renew(&self.sources, share(limit));
    }

    /// A place, if there is one in all and for this source.
    pub(super) fn take(&self, source: IpAddr) -> Option<Handshake> {
        Some(Handshake {
            _of_source: self.sources.load().slots.take(source)?,
            _in_all: self.in_all.take()?,
        })
    }
}

fn share(limit: u32) -> u32 {
    (limit / SHARE).max(1)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn silent_handshakes_of_one_source_leave_room_for_others() {
        let handshakes = Handshakes::new(8);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = handshakes.take(one).unwrap();
        let _second = handshakes.take(one).unwrap();
        assert!(handshakes.take(one).is_none());
        let _third = handshakes.take(other).unwrap();
        drop(first);
        assert!(handshakes.take(one).is_some());
    }

    #[test]
    fn all_sources_together_are_bounded_too() {
        let handshakes = Handshakes::new(1);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let held = handshakes.take(one).unwrap();
        assert!(handshakes.take(other).is_none());
        drop(held);
        // What found no place in all has given back its place of the source.
        assert!(handshakes.take(other).is_some());
    }
}
