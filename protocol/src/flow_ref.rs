use std::fmt;

use crate::name::ReplicaId;

/// Names a flow for its whole life, whichever tunnels carry it.
///
/// The hub that holds the client's socket makes it; `boot` differs each time that hub starts,
/// so a number is never used twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowRef {
    /// The hub that holds the client's socket.
    pub origin: ReplicaId,
    /// Random, made when that hub started.
    pub boot: u64,
    /// Counts that hub's flows from 1.
    pub number: u64,
}

impl fmt::Display for FlowRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}.{}", self.origin, self.boot, self.number)
    }
}
