//! Which of two links between the same two hubs stays.
//!
//! Both hubs dial, so that either may stand behind something that lets no connections in. Where
//! both get through, both have to keep the same link without a word about it:
//!
//! - a link of another process of the peer is dead: the newer process wins;
//! - of two links that the same hub dialled the newer stays: it dials a second time only when it
//!   has lost the first, or renews it;
//! - of two that crossed, the one stays that the hub with the smaller name dialled.

use nowconnect_protocol::ReplicaId;

/// What the choice looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contender {
    /// Whether this hub dialled it.
    pub(crate) dialled: bool,
    /// The process of the peer that it leads to.
    pub(crate) boot: u64,
}

/// Whether `new` takes the place of `standing` at the hub `me`, both being links to `peer`.
pub(crate) fn replaces(
    me: &ReplicaId,
    peer: &ReplicaId,
    standing: &Contender,
    new: &Contender,
) -> bool {
    if standing.boot != new.boot || standing.dialled == new.dialled {
        return true;
    }
    let dialler = if new.dialled { me } else { peer };
    let other = if new.dialled { peer } else { me };
    dialler < other
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn name(text: &str) -> ReplicaId {
        ReplicaId::parse(text).unwrap()
    }

    fn link(dialled: bool) -> Contender {
        Contender { dialled, boot: 7 }
    }

    /// In whichever order two links become known at either end, both ends keep the same one.
    #[test]
    fn both_ends_keep_the_link_that_the_smaller_name_dialled() {
        let (a, b) = (name("a"), name("b"));
        // At `a` the link of `a` is dialled and that of `b` is not; at `b` the other way round.
        assert!(replaces(&a, &b, &link(false), &link(true)));
        assert!(!replaces(&a, &b, &link(true), &link(false)));
        assert!(replaces(&b, &a, &link(true), &link(false)));
        assert!(!replaces(&b, &a, &link(false), &link(true)));
    }

    #[test]
    fn a_second_dial_of_the_same_hub_replaces_the_first() {
        let (a, b) = (name("a"), name("b"));
        for dialled in [true, false] {
            assert!(replaces(&a, &b, &link(dialled), &link(dialled)));
            assert!(replaces(&b, &a, &link(dialled), &link(dialled)));
        }
    }

    #[test]
    fn a_restarted_peer_replaces_what_its_predecessor_left() {
        let (a, b) = (name("a"), name("b"));
        let restarted = Contender {
            dialled: false,
            boot: 8,
        };
        assert!(replaces(&a, &b, &link(true), &restarted));
    }
}
