//! What the rest of the hub knows of bundles: their state, and where to put an order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use nowconnect_policy::BundleArchive;
use tokio::sync::{Notify, mpsc, oneshot};

use super::refused::{BundleRefused, codes};
use super::state::Origin;
use super::view::{ActivateReport, ActivateRequest, BundleStatus, DeliverReport};

/// Orders that wait for the one under way. Each may hold a bundle of `policy.bundle.max_bytes`.
pub(crate) const MAX_WAITING_ORDERS: usize = 4;

/// Something to be done with bundles; one after another.
#[derive(Debug)]
pub(crate) enum Order {
    /// A bundle has come.
    Deliver {
        archive: Box<BundleArchive>,
        origin: Origin,
        /// It is not to come into force by itself, whatever is configured.
        stage_only: bool,
        answer: oneshot::Sender<Result<DeliverReport, BundleRefused>>,
    },
    /// The staged bundle is to come into force.
    Activate {
        request: ActivateRequest,
        answer: oneshot::Sender<Result<ActivateReport, BundleRefused>>,
    },
    /// The staged bundle is to be taken back.
    Discard {
        answer: oneshot::Sender<Result<u64, BundleRefused>>,
    },
    /// Somebody wants the bytes of a bundle.
    Read {
        revision: u64,
        answer: oneshot::Sender<Result<Vec<u8>, BundleRefused>>,
    },
    /// How it goes with the source; `None` is well.
    Source(Option<BundleRefused>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Bundles {
    status: ArcSwap<BundleStatus>,
    orders: mpsc::Sender<Order>,
    /// Wakes who looks at the source.
    pub(crate) look: Arc<Notify>,
    /// No bundle was ever in force.
    waits_for_first: AtomicBool,
}

impl Bundles {
    pub(crate) fn new(orders: mpsc::Sender<Order>, waits_for_first: bool) -> Self {
        Self {
            status: ArcSwap::from_pointee(BundleStatus::default()),
            orders,
            look: Arc::new(Notify::new()),
            waits_for_first: AtomicBool::new(waits_for_first),
        }
    }

    pub(crate) fn status(&self) -> Arc<BundleStatus> {
        self.status.load_full()
    }

    pub(crate) fn show(&self, status: BundleStatus) {
        self.waits_for_first
            .store(status.enabled && status.active.is_none(), Ordering::Release);
        self.status.store(Arc::new(status));
    }

    /// Whether there is no policy in force yet, and nothing is permitted.
    pub(crate) fn waits_for_first(&self) -> bool {
        self.waits_for_first.load(Ordering::Acquire)
    }

    /// Has it done in turn and waits for the answer.
    pub(crate) async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, BundleRefused>>) -> Order,
    ) -> Result<T, BundleRefused> {
        let (answer, answered) = oneshot::channel();
        if self.orders.try_send(order(answer)).is_err() {
            return Err(BundleRefused::new(
                codes::BUSY,
                "too many orders about bundles are waiting; try again in a moment",
            ));
        }
        answered
            .await
            .unwrap_or_else(|_| Err(BundleRefused::new(codes::BUSY, "the hub is shutting down")))
    }

    /// Tells how it goes with the source. Where too much waits it is told again next time.
    pub(crate) fn source(&self, problem: Option<BundleRefused>) {
        let _ = self.orders.try_send(Order::Source(problem));
    }
}
