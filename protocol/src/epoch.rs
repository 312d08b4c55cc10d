use crate::name::ReplicaId;

/// The fencing number of a claim on an agent: a counter, and the replica that made the claim
/// so that two claims of equal counters still have an order.
///
/// The ordering is that of the pair. A receiver that has seen an epoch accepts nothing of a
/// lower one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Raised by one with each claim; the first claim of an agent has 1.
    pub counter: u64,
    /// The replica that made the claim.
    pub replica: ReplicaId,
}

impl Epoch {
    /// The epoch of the claim that follows, made by `replica`.
    #[must_use]
    pub fn next(&self, replica: ReplicaId) -> Self {
        Self {
            counter: self.counter.saturating_add(1),
            replica,
        }
    }
}
