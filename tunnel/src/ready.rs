//! Which sockets woke up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// Flows whose sockets woke up since the driver looked last. Each stands in it once.
#[derive(Debug, Default)]
pub(crate) struct ReadyList {
    cids: Mutex<Vec<u32>>,
    driver: AtomicWaker,
}

impl ReadyList {
    pub(crate) fn register(&self, driver: &Waker) {
        self.driver.register(driver);
    }

    /// Exchanges the list for an empty one.
    pub(crate) fn take(&self, empty: &mut Vec<u32>) {
        debug_assert!(
            empty.is_empty(),
            "the driver has dealt with what it took before"
        );
        std::mem::swap(&mut *self.cids.lock(), empty);
    }
}

/// Wakes the driver on behalf of one flow.
#[derive(Debug)]
pub(crate) struct FlowWaker {
    cid: u32,
    listed: AtomicBool,
    list: Arc<ReadyList>,
}

impl FlowWaker {
    pub(crate) fn new(cid: u32, list: Arc<ReadyList>) -> Arc<Self> {
        Arc::new(Self {
            cid,
            listed: AtomicBool::new(false),
            list,
        })
    }

    /// The driver is about to look at the flow; what happens from now on counts again.
    pub(crate) fn unlist(&self) {
        self.listed.store(false, Ordering::Release);
    }
}

impl Wake for FlowWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.listed.swap(true, Ordering::AcqRel) {
            self.list.cids.lock().push(self.cid);
            self.list.driver.wake();
        }
    }
}
