//! The thread that moves the engine's epoch on, one step each millisecond.
//!
//! A guest that computes without end never returns to the executor, so the clock that ends it
//! runs on a thread of its own. The thread rests once no call has run for a while: an idle hub
//! has no timer. It does not rest at once, because waking it costs a system call on the path of
//! the call that wakes it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::Engine;

/// Length of one epoch: how often [`crate::Limits::guest_time`] is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Idle steps before the thread rests: a tenth of a second.
const IDLE_TICKS_MAX: u32 = 100;

#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    running: AtomicUsize,
    resting: AtomicBool,
    stop: AtomicBool,
}

/// Keeps the ticker awake while a call runs.
#[derive(Debug)]
pub(crate) struct Awake<'a> {
    shared: &'a Shared,
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new()
            .name("plugin-ticker".to_owned())
            .spawn({
                let (shared, engine) = (Arc::clone(&shared), engine.weak());
                move || {
                    while !shared.stop.load(Ordering::SeqCst) {
                        shared.tick_until_idle(|| {
                            if let Some(engine) = engine.upgrade() {
                                engine.increment_epoch();
                            }
                        });
                        shared.rest();
                    }
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Ticks until the guard is dropped, and a little longer.
    pub(crate) fn awake(&self) -> Awake<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.resting.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Awake {
            shared: &self.shared,
        }
    }

    #[cfg(test)]
    pub(crate) fn is_resting(&self) -> bool {
        self.shared.resting.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn tick_until_idle(&self, tick: impl Fn()) {
        let mut idle_ticks = 0;
        while idle_ticks < IDLE_TICKS_MAX && !self.stop.load(Ordering::SeqCst) {
            thread::sleep(TICK);
            tick();
            if self.running.load(Ordering::SeqCst) == 0 {
                idle_ticks += 1;
            } else {
                idle_ticks = 0;
            }
        }
    }

    /// A call that begins after `resting` is set wakes the thread; one that began before it is
    /// seen by the check, so no call is ever left without a clock.
    fn rest(&self) {
        self.resting.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        self.resting.store(false, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread only sleeps, ticks and parks; it has no way to panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::time::{Duration, Instant};

    use wasmtime::Engine;

    use super::Ticker;

    #[test]
    fn it_rests_without_calls_and_wakes_for_one() {
        let ticker = Ticker::start(&Engine::default()).unwrap();
        poll_until(|| ticker.is_resting());
        let awake = ticker.awake();
        poll_until(|| !ticker.is_resting());
        drop(awake);
        poll_until(|| ticker.is_resting());
    }

    fn poll_until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(
                Instant::now() < deadline,
                "the ticker did not change in 20 s"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
