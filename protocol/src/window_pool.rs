use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
struct Pool {
    bytes_max: u64,
    bytes_used: AtomicU64,
}

/// Memory for windows beyond each flow's sure one, shared by all tunnels of a process.
///
/// When it is used up, windows stop growing and nothing else changes.
#[derive(Debug, Clone)]
pub struct WindowPool(Arc<Pool>);

impl WindowPool {
    /// A pool of `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Pool {
            bytes_max,
            bytes_used: AtomicU64::new(0),
        }))
    }

    /// Bytes handed out.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.0.bytes_used.load(Ordering::Relaxed)
    }

    /// Bytes that can be handed out in all.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.0.bytes_max
    }

    fn try_take(&self, bytes: u64) -> bool {
        self.0
            .bytes_used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes)
                    .filter(|sum| *sum <= self.0.bytes_max)
            })
            .is_ok()
    }
}

impl Default for WindowPool {
    fn default() -> Self {
        Self::new(crate::limits::WINDOW_POOL_BYTES)
    }
}

/// What one direction of a flow has taken from the pool. Given back on drop.
#[derive(Debug)]
pub(crate) struct PoolShare {
    pool: WindowPool,
    bytes: u64,
}

impl PoolShare {
    pub(crate) fn none(pool: WindowPool) -> Self {
        Self { pool, bytes: 0 }
    }

    /// Takes `bytes` more, or nothing.
    pub(crate) fn grow(&mut self, bytes: u64) -> bool {
        let taken = self.pool.try_take(bytes);
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

impl Drop for PoolShare {
    fn drop(&mut self) {
        self.pool
            .0
            .bytes_used
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
