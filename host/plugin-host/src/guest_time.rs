//! How long a guest has computed.
//!
//! Epochs follow the clock on the wall, and on a busy machine the operating system may take the
//! processor from a thread for longer than a guest may compute. A plugin must not be blamed for
//! that: five such faults would quarantine it and deny traffic just when there is much of it. So
//! an epoch is only the occasion to look, and what counts is the processor time of the thread.
//!
//! Reading that clock is a system call. A call that ends within its first epoch, as nearly all
//! do, never makes it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use cpu_time::ThreadTime;

thread_local! {
    /// This thread's processor time when it last went on with a guest that it had put aside,
    /// or last looked; `None` where the guest has not been put aside before.
    static LOOKED_AT: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Runs a guest's call, so that [`computed_since_look`] works in its epoch callback.
pub(crate) async fn metered<F: Future>(call: F) -> F::Output {
    let mut call = pin!(call);
    let mut was_put_aside = false;
    poll_fn(|cx| {
        LOOKED_AT.set(was_put_aside.then(thread_time));
        let poll = call.as_mut().poll(cx);
        was_put_aside |= poll.is_pending();
        poll
    })
    .await
}

/// What the guest has computed since the last look; nothing at the first one, so a guest has up
/// to one epoch more than its limit.
pub(crate) fn computed_since_look() -> Duration {
    let now = thread_time();
    let before = LOOKED_AT.replace(Some(now));
    before.map_or(Duration::ZERO, |before| now.saturating_sub(before))
}

fn thread_time() -> Duration {
    ThreadTime::now().as_duration()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{computed_since_look, metered, thread_time};

    #[tokio::test]
    async fn waiting_is_not_computing() {
        let computed = metered(async {
            let mut computed = computed_since_look();
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                computed += computed_since_look();
            }
            computed
        })
        .await;
        assert!(computed < Duration::from_millis(20), "{computed:?}");
    }

    #[tokio::test]
    async fn computing_is_measured_across_turns() {
        let burnt = Duration::from_millis(3);
        let computed = metered(async {
            let mut computed = computed_since_look();
            for _ in 0..3 {
                tokio::task::yield_now().await;
                let until = thread_time() + burnt;
                while thread_time() < until {}
                computed += computed_since_look();
            }
            computed
        })
        .await;
        assert!(computed >= 3 * burnt, "{computed:?}");
    }
}
