//! One hub at a time clears away index entries that no record bears out.

use std::sync::Arc;
use std::time::Duration;

use nowconnect_protocol::ReplicaId;
use tracing::debug;

use crate::error::RegistryError;
use crate::registry::{Registry, SweepCursor, SweepReport};

const LEASE: &str = "sweeper";

/// Every hub has one; a lease decides which of them works. Two at work do no harm.
#[derive(Debug)]
pub struct Sweeper {
    registry: Arc<dyn Registry>,
    replica: ReplicaId,
    interval: Duration,
    budget: usize,
    next: SweepCursor,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Another hub has the lease.
    Elsewhere,
    /// This hub has it, and looked at as many entries as a step may.
    Here(SweepReport),
}

impl Sweeper {
    /// Steps every `interval`, each of about `budget` entries.
    #[must_use]
    pub fn new(
        registry: Arc<dyn Registry>,
        replica: ReplicaId,
        interval: Duration,
        budget: usize,
    ) -> Self {
        Self {
            registry,
            replica,
            interval,
            budget,
            next: SweepCursor::default(),
        }
    }

    /// Takes or renews the lease, and with it does one step.
    ///
    /// # Errors
    /// The store is away.
    pub async fn step(&mut self) -> Result<Swept, RegistryError> {
        // Three steps long: one that is late does not cost the lease.
        let ttl = self.interval * 3;
        if !self.registry.hold_lease(LEASE, &self.replica, ttl).await? {
            self.next = SweepCursor::default();
            return Ok(Swept::Elsewhere);
        }
        let report = self.registry.sweep(self.next, self.budget).await?;
        self.next = report.next;
        Ok(Swept::Here(report))
    }

    /// Steps until it is dropped.
    pub async fn run(mut self) {
        loop {
            // A random part keeps hubs that were started together apart.
            tokio::time::sleep(self.interval.mul_f64(rand::random_range(0.8..1.2))).await;
            match self.step().await {
                Ok(Swept::Here(report)) if report.removed > 0 => {
                    debug!(report.checked, report.removed, "swept the registry");
                }
                Ok(Swept::Here(_) | Swept::Elsewhere) => {}
                Err(error) => debug!(%error, "the registry was not swept"),
            }
        }
    }

    /// Gives the lease back, for another hub to go on at once.
    ///
    /// # Errors
    /// The store is away; then the lease ends by itself.
    pub async fn resign(self) -> Result<(), RegistryError> {
        self.registry.drop_lease(LEASE, &self.replica).await
    }
}
