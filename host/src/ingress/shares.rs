//! Places that are bounded in all and for each source, so that one source cannot take them all.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{SourceBound, bound};
use crate::limit::{Slot, Slots, SourceSlot};

/// See the module.
#[derive(Debug)]
pub(super) struct Shares {
    in_all: Arc<Slots>,
    sources: ArcSwap<SourceBound>,
}

/// A place; given back when dropped.
#[derive(Debug)]
#[must_use = "a place that is dropped at once bounds nothing"]
pub(super) struct Share {
    _of_source: SourceSlot,
    _in_all: Slot,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoShare {
    /// None for anybody.
    InAll,
    /// None for this source, which has its share.
    OfSource,
}

impl Shares {
    /// `limit` at a time in all, `per_source` from one source.
    pub(super) fn new(limit: u32, per_source: u32) -> Self {
        Self {
            in_all: Slots::new(bound(limit)),
            sources: ArcSwap::from_pointee(SourceBound::new(per_source)),
        }
    }

    /// Changes the bounds for what is taken from now on.
    pub(super) fn set_limit(&self, limit: u32, per_source: u32) {
        self.in_all.set_limit(bound(limit));
        SourceBound::renew(&self.sources, per_source);
    }

    /// A place for this source.
    pub(super) fn take(&self, source: IpAddr) -> Result<Share, NoShare> {
        let of_source = self.sources.load().slots.take(source);
        Ok(Share {
            _of_source: of_source.ok_or(NoShare::OfSource)?,
            _in_all: self.in_all.take().ok_or(NoShare::InAll)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn one_source_leaves_room_for_others() {
        let shares = Shares::new(8, 2);
        let first = shares.take(one()).unwrap();
        let _second = shares.take(one()).unwrap();
        assert_eq!(shares.take(one()).unwrap_err(), NoShare::OfSource);
        let _third = shares.take(other()).unwrap();
        drop(first);
        assert!(shares.take(one()).is_ok());
    }

    #[test]
    fn all_sources_together_are_bounded_too() {
        let shares = Shares::new(1, 1);
        let held = shares.take(one()).unwrap();
        assert_eq!(shares.take(other()).unwrap_err(), NoShare::InAll);
        drop(held);
        // What found no place in all has given back its place of the source.
        assert!(shares.take(other()).is_ok());
    }

    fn one() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    fn other() -> IpAddr {
        "192.0.2.2".parse().unwrap()
    }
}
