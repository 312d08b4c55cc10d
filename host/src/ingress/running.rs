//! A response under way, and all that ends with it.

use std::sync::Arc;

use super::account::{Account, End};
use super::in_flight::{Fate, InFlight, InFlightPlace};
use super::leash::Hold;
use super::progress::Progress;
use super::shares::Share;
use super::upstream::Upstream;

/// See the module. Dropped before its end it resets its flow, and its account says who ended it:
/// the hub, or the viewer that left or took nothing.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) account: Box<Account>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) place: InFlightPlace,
    /// None once it has become something that its own task leads through.
    pub(crate) hold: Option<Hold>,
    pub(crate) _share: Share,
}

impl Running {
    /// Whether the hub has ended it. What waits is woken by its leash.
    pub(crate) fn is_cut(&self) -> bool {
        self.place.request.is_cut()
    }

    /// Bytes of its body went to the viewer, and wait there until it takes them.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.account.bytes_out += bytes;
        self.place.request.taking.given();
    }

    /// The viewer has room for more than there is.
    pub(crate) fn has_room(&self) {
        self.place.request.taking.has_room();
    }

    /// What the viewer got so far is not all, and it has to see that.
    pub(crate) fn breaks_off(&self) {
        if let Some(hold) = &self.hold {
            hold.leash().breaks_off();
        }
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
        self.breaks_off();
        self.account.end = End::OriginBroke;
    }

    /// Whether the origin itself ended its connection, so that a body without a length is whole.
    pub(crate) fn origin_finished(&self) -> bool {
        self.upstream
            .as_ref()
            .is_some_and(Upstream::origin_finished)
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

impl Drop for Running {
    fn drop(&mut self) {
        if self.account.end != End::ViewerLeft {
            return;
        }
        let socket_stalled = |hold: &Hold| hold.leash().is_stalled();
        self.account.end = match self.place.request.fate() {
            Some(Fate::Cut | Fate::ViewerExpired) => End::Cut,
            Some(Fate::Stalled) => End::ViewerStalled,
            Some(Fate::AgentLost) => End::OriginBroke,
            None if self.hold.as_ref().is_some_and(socket_stalled) => End::ViewerStalled,
            None => End::ViewerLeft,
        };
    }
}
