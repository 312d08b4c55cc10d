//! Waiting for what has to become so.

use std::time::{Duration, Instant};

/// How long anything may take: slow machines under load included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Asks `look` until it has an answer; the test fails after [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Lets `call` end within [`PATIENCE`]: a call without a bound fails the test.
pub(crate) async fn bounded<T>(what: &str, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_| panic!("{what} did not end"))
}
