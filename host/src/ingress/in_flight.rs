//! The requests under way, with what is needed to ask about them again.
//!
//! A request stands here from the moment it is sent on until its response, or the WebSocket that
//! it became, has come to its end in whatever way. What runs long is asked about again like any
//! flow, and is cut where it is no longer allowed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_util::task::AtomicWaker;
use nowconnect_policy::{Name, Question};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::request_id::RequestId;
use super::taking::Taking;
use crate::registry::AgentKey;

/// What ends a request from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fate {
    /// It is no longer allowed.
    Cut = 1,
    /// Its viewer took nothing for too long.
    Stalled = 2,
    /// Its agent's session was ended.
    AgentLost = 3,
    /// What proved its viewer has ended.
    ViewerExpired = 4,
}

/// [`Fate`] of a request that goes on.
const GOES_ON: u8 = 0;

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
    /// When what proved the viewer ends, where it does.
    pub(crate) viewer_until: Option<SystemTime>,
    /// The generation that allowed it last.
    pub(crate) generation: AtomicU64,
    /// The newest round of re-checks when it was asked about last, or when it came.
    pub(crate) asked: AtomicU64,
    /// Whether its viewer takes what waits for it.
    pub(crate) taking: Taking,
    /// A [`Fate`], or [`GOES_ON`].
    fate: AtomicU8,
    /// Of whoever leads it through.
    waker: AtomicWaker,
}

impl InFlight {
    pub(crate) fn new(
        id: RequestId,
        (endpoint, listener): (Name, Name),
        agent: AgentKey,
        (client, listener_text): (SocketAddr, Arc<str>),
        (questions, generation, round): ([Arc<Question>; 2], u64, u64),
        viewer_until: Option<SystemTime>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            endpoint,
            listener,
            agent,
            client,
            listener_text,
            questions,
            viewer_until,
            generation: AtomicU64::new(generation),
            asked: AtomicU64::new(round),
            taking: Taking::new(),
            fate: AtomicU8::new(GOES_ON),
            waker: AtomicWaker::new(),
        })
    }

    /// Ends it, wherever it is and whatever its viewer does.
    pub(crate) fn cut(&self) {
        self.fate.store(Fate::Cut as u8, Ordering::Release);
        self.waker.wake();
    }

    /// The same because its viewer is nobody any more.
    pub(crate) fn expire(&self) {
        self.break_off(Fate::ViewerExpired);
    }

    /// Ends it once its response has begun, for another reason than that it is forbidden. Before,
    /// whatever happened to its flow is told in an answer, or another agent is asked.
    pub(crate) fn break_off(&self, why: Fate) {
        // What is forbidden stays so.
        let _ = self
            .fate
            .compare_exchange(GOES_ON, why as u8, Ordering::AcqRel, Ordering::Relaxed);
        self.waker.wake();
    }

    pub(crate) fn fate(&self) -> Option<Fate> {
        match self.fate.load(Ordering::Acquire) {
            1 => Some(Fate::Cut),
            2 => Some(Fate::Stalled),
            3 => Some(Fate::AgentLost),
            4 => Some(Fate::ViewerExpired),
            _ => None,
        }
    }

    /// Whether it ends wherever it is: what answers for a lost agent or a viewer that takes nothing
    /// has its own way before the response begins.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(self.fate(), Some(Fate::Cut | Fate::ViewerExpired))
    }

    /// Ready once it is cut. Whoever asked last is woken.
    pub(crate) fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_cut() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Ready once it has to end for whatever reason. Whoever asked last is woken.
    pub(crate) fn poll_fate(&self, cx: &Context<'_>) -> Poll<Fate> {
        self.waker.register(cx.waker());
        match self.fate() {
            Some(fate) => Poll::Ready(fate),
            None => Poll::Pending,
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

#[cfg(test)]
impl InFlight {
    /// One that nobody asked about.
    pub(crate) fn for_tests() -> Arc<Self> {
        use nowconnect_policy::{Meta, UpstreamOpen};

        let question = Arc::new(Question::UpstreamOpen(UpstreamOpen {
            meta: Meta {
                now_ms: 0,
                hub: Arc::from("hub"),
                request_id: Arc::from("request"),
                trace_id: None,
                recheck: false,
            },
            connector: Name::bare("shop"),
            agent: Name::bare("site"),
            why: "http".to_owned(),
        }));
        let agent = AgentKey {
            tenant: nowconnect_protocol::TenantName::default(),
            agent: nowconnect_protocol::AgentId::parse("site").expect("a plain name"),
        };
        Self::new(
            RequestId::random(),
            (Name::bare("shop"), Name::bare("web")),
            agent,
            (([127, 0, 0, 1], 1).into(), Arc::from("web")),
            ([Arc::clone(&question), question], 0, 0),
            None,
        )
    }
}
