//! A response under way, and all that ends with it.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::account::{Account, End};
use super::in_flight::{InFlight, InFlightPlace};
use super::progress::Progress;
use super::upstream::Upstream;
use crate::limit::Slot;

/// See the module. Dropped before its end it resets its flow, and its account says that the
/// viewer left.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) account: Box<Account>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) place: InFlightPlace,
    pub(crate) _slot: Slot,
}

impl Running {
    /// Whether the hub has ended it.
    pub(crate) fn poll_cut(&mut self, cx: &Context<'_>) -> bool {
        match self.place.request.poll_cut(cx) {
            Poll::Ready(()) => {
                self.account.end = End::Cut;
                true
            }
            Poll::Pending => false,
        }
    }

    /// Bytes of its body went on.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.account.bytes_out += bytes;
    }

    /// The response has come to its end. The connection serves others, unless the origin has not
    /// taken all of the request.
    pub(crate) fn complete(mut self: Box<Self>) {
        self.account.end = End::Complete;
        if let Some(mut upstream) = self.upstream.take()
            && self.progress.is_done()
        {
            upstream.done();
            upstream.keep();
        }
    }

    /// The origin did not send all that it owes.
    pub(crate) fn broken_by_origin(mut self: Box<Self>) {
        self.account.end = End::OriginBroke;
    }

    /// What it became has come to its end.
    pub(crate) fn upgraded(mut self: Box<Self>, end: End) {
        self.account.end = end;
        if let Some(upstream) = &mut self.upstream
            && end == End::Complete
        {
            upstream.done();
        }
    }

    pub(crate) fn request(&self) -> Arc<InFlight> {
        Arc::clone(&self.place.request)
    }
}
