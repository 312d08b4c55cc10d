//! Places for bundles that come by the admin API.
//!
//! A bundle may hold `policy.bundle.max_bytes` before the policies can be asked about it, so few
//! are taken in at once, and none for long. Each caller has one at a time; and whoever would be
//! refused the likeliest bundle of all, the next one and signed, has a place apart. So nobody
//! keeps those out who may bring one, and nobody who may is refused for a guess.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::view::AdminCaller;

/// Bundles that are taken in at once from callers who likely may bring one.
const LIKELY: usize = 2;

/// Bundles that are taken in at once from all others.
const UNLIKELY: usize = 1;

/// Time for which a caller's next bundle waits for the one before it.
const TURN_TIME: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub(super) struct Uploads {
    likely: Semaphore,
    unlikely: Semaphore,
    callers: Mutex<BTreeSet<String>>,
    left: Notify,
}

/// A place that is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Upload<'a> {
    _place: SemaphorePermit<'a>,
    _turn: Turn<'a>,
}

#[derive(Debug)]
struct Turn<'a> {
    uploads: &'a Uploads,
    caller: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.uploads.callers.lock().remove(&self.caller);
        self.uploads.left.notify_waiters();
    }
}

impl Uploads {
    pub(super) fn new() -> Self {
        Self {
            likely: Semaphore::new(LIKELY),
            unlikely: Semaphore::new(UNLIKELY),
            callers: Mutex::default(),
            left: Notify::new(),
        }
    }

    /// A place, once this caller has no other; `None` where none is free.
    pub(super) async fn enter(&self, caller: &AdminCaller, is_likely: bool) -> Option<Upload<'_>> {
        let turn = timeout(TURN_TIME, self.turn(name(caller))).await.ok()?;
        let places = if is_likely {
            &self.likely
        } else {
            &self.unlikely
        };
        Some(Upload {
            _place: places.try_acquire().ok()?,
            _turn: turn,
        })
    }

    async fn turn(&self, caller: String) -> Turn<'_> {
        loop {
            // Before the look, so that nobody leaves unnoticed in between.
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.callers.lock().insert(caller.clone()) {
                return Turn {
                    uploads: self,
                    caller,
                };
            }
            left.await;
        }
    }
}

/// All who share a user, a certificate, or the token at one address are one caller.
fn name(caller: &AdminCaller) -> String {
    match caller {
        AdminCaller::Local { uid: Some(uid) } => format!("uid {uid}"),
        AdminCaller::Local { uid: None } => "socket".to_owned(),
        AdminCaller::Token { from } => format!("token {}", from.ip()),
        AdminCaller::Certificate { fingerprint, .. } => format!("certificate {fingerprint}"),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn user(uid: u32) -> AdminCaller {
        AdminCaller::Local { uid: Some(uid) }
    }

    #[tokio::test]
    async fn those_who_likely_may_not_take_no_place_from_those_who_may() {
        let uploads = Uploads::new();
        let other = uploads.enter(&user(1), false).await;
        assert!(other.is_some());
        assert!(uploads.enter(&user(2), false).await.is_none());
        let first = uploads.enter(&user(3), true).await;
        let second = uploads.enter(&user(4), true).await;
        assert!(first.is_some() && second.is_some());
        assert!(uploads.enter(&user(5), true).await.is_none());
        drop(second);
        assert!(uploads.enter(&user(5), true).await.is_some());
    }

    #[tokio::test]
    async fn a_caller_waits_for_its_own_bundle_and_for_no_other() {
        let uploads = Uploads::new();
        let caller = user(1);
        let first = uploads.enter(&caller, true).await;
        let mut next = std::pin::pin!(uploads.enter(&caller, true));
        assert!(next.as_mut().now_or_never().is_none());
        assert!(uploads.enter(&user(2), true).await.is_some());
        drop(first);
        assert!(next.await.is_some());
    }
}
