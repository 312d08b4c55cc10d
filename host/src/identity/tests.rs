#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod extraction;
mod fetching;
mod provider;
mod tokens;
mod viewers;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{AuthError, Authenticator};
use crate::config::{CloudConfig, Secret, SecurityConfig, parse};

/// The security section of a text that is the body of it.
fn security(body: &str) -> SecurityConfig {
    let text = format!("security:\n{body}");
    let config: CloudConfig = parse(&text, None, &std::collections::BTreeMap::new())
        .unwrap_or_else(|error| panic!("{error}"));
    config.security
}

async fn verify(
    authenticator: &Authenticator,
    token: &str,
) -> Result<super::AgentIdentity, AuthError> {
    authenticator.verify(&Secret::new(token)).await
}

/// Seconds since 1970, `offset` from now.
fn seconds(offset: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + offset
}

/// Polls until it holds, for at most ten seconds.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
