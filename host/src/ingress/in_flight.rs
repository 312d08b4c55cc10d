//! The requests under way, with what is needed to ask about them again.
//!
//! A request stands here from the moment it is sent on until its response, or the WebSocket that
//! it became, has come to its end in whatever way. What runs long is asked about again like any
//! flow, and is cut where it is no longer allowed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use nowconnect_policy::{Name, Question};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::request_id::RequestId;
use crate::registry::AgentKey;

/// One request under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) id: RequestId,
    pub(crate) endpoint: Name,
    /// The listener as policies know it, in the tenant of the endpoint.
    pub(crate) listener: Name,
    pub(crate) agent: AgentKey,
    pub(crate) client: SocketAddr,
    pub(crate) listener_text: Arc<str>,
    /// `open` and `http-request`, as they were asked.
    pub(crate) questions: [Arc<Question>; 2],
    /// The generation that allowed it last.
    pub(crate) generation: AtomicU64,
    /// The newest round of re-checks when it was asked about last, or when it came.
    pub(crate) asked: AtomicU64,
    is_cut: AtomicBool,
    /// Of whoever moves its bytes.
    waker: AtomicWaker,
}

impl InFlight {
    pub(crate) fn new(
        id: RequestId,
        (endpoint, listener): (Name, Name),
        agent: AgentKey,
        (client, listener_text): (SocketAddr, Arc<str>),
        (questions, generation, round): ([Arc<Question>; 2], u64, u64),
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            endpoint,
            listener,
            agent,
            client,
            listener_text,
            questions,
            generation: AtomicU64::new(generation),
            asked: AtomicU64::new(round),
            is_cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        })
    }

    /// Ends it as soon as whoever moves its bytes looks.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready once it is cut.
    pub(crate) fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_cut.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Waits until it is cut.
    pub(crate) async fn until_cut(&self) {
        std::future::poll_fn(|cx| self.poll_cut(cx)).await;
    }
}

/// Every request under way. As long as `ingress.limits.max_requests` at most.
#[derive(Debug, Default)]
pub(crate) struct InFlightTable {
    requests: Mutex<FxHashMap<u64, Arc<InFlight>>>,
    last: AtomicU64,
}

/// A request's place in the table; taken out when dropped.
#[derive(Debug)]
pub(crate) struct InFlightPlace {
    table: Arc<InFlightTable>,
    number: u64,
    pub(crate) request: Arc<InFlight>,
}

impl InFlightTable {
    pub(crate) fn insert(self: &Arc<Self>, request: Arc<InFlight>) -> InFlightPlace {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        self.requests.lock().insert(number, Arc::clone(&request));
        InFlightPlace {
            table: Arc::clone(self),
            number,
            request,
        }
    }

    /// All that `wanted` picks.
    pub(crate) fn collect(&self, wanted: impl Fn(&InFlight) -> bool) -> Vec<Arc<InFlight>> {
        let requests = self.requests.lock();
        let picked = requests.values().filter(|request| wanted(request));
        picked.cloned().collect()
    }
}

impl Drop for InFlightPlace {
    fn drop(&mut self) {
        self.table.requests.lock().remove(&self.number);
    }
}
