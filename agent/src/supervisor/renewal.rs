//! Keeping the token fresh on a living tunnel.

use std::time::{Duration, SystemTime};

use nowconnect_protocol::RenewAck;
use tokio::time::Instant;

use super::tunnels::{joined, log_refused};
use super::{Finished, Supervisor, millis};
use crate::backoff;
use crate::token::{Token, TokenError, TokenSource, renew_after};

/// A renewal that failed is tried again after this long, twice as long at the most.
const RETRY: Duration = Duration::from_secs(10);
/// A file whose token is about to run out is looked at this often, and a person is told once.
const FILE_RETRY: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Renews before the earlier of what the hub and the token itself say.
    pub(super) fn schedule_renewal(&mut self, hub_says_ms: Option<u64>) {
        let own = self
            .token
            .as_ref()
            .and_then(|token| token.lifetime(SystemTime::now()));
        let hub = hub_says_ms.map(Duration::from_millis);
        let lifetime = match (own, hub) {
            (Some(own), Some(hub)) => Some(own.min(hub)),
            (own, hub) => own.or(hub),
        };
        self.renew_at = lifetime.map(|lifetime| {
            let after = renew_after(lifetime, self.config.tunnel.renew_before);
            Instant::now() + after.max(Duration::from_secs(1))
        });
    }

    pub(super) fn start_fetch(&mut self) {
        let Some(mut source) = self.token_source.take() else {
            return;
        };
        self.renew_at = None;
        source.forget();
        let limit = self.config.tunnel.connect_timeout;
        self.work = Some(Box::pin(async move {
            let result = source.fetch(Instant::now() + limit).await;
            (source, Finished::Fetched(result))
        }));
    }

    /// The file holds something new: show it on the living tunnel, or dial with it at once.
    pub(super) fn token_file_changed(&mut self) {
        if self.work.is_some() || self.stop_at.is_some() {
            return;
        }
        tracing::info!(event = "token_file_changed", "reading the token again");
        if self.current.is_some() {
            self.start_fetch();
        } else if self.joining.is_none() {
            self.dial_at = Some(Instant::now());
        }
    }

    pub(super) fn token_fetched(&mut self, result: Result<Token, TokenError>) {
        match result {
            Ok(token) if self.is_stale(&token) => {
                let lifetime = token.lifetime(SystemTime::now()).unwrap_or_default();
                tracing::warn!(
                    event = "token_expiring",
                    expires_in_ms = millis(lifetime),
                    "the token runs out soon and {} still holds it; new flows stop when it has",
                    self.describe_source()
                );
                self.renew_at = Some(Instant::now() + FILE_RETRY);
            }
            Ok(token) => {
                let Some(current) = &self.current else {
                    return;
                };
                let told = current
                    .handle
                    .renew(Some(token.secret.expose().to_owned()), None);
                self.token = Some(token);
                // The answer schedules the next one; this is for a hub that never answers.
                self.renew_at = Some(Instant::now() + if told { FILE_RETRY } else { RETRY });
            }
            Err(error) => {
                let wait = RETRY + RETRY.mul_f64(backoff::draw());
                self.renew_at = Some(Instant::now() + wait);
                tracing::warn!(
                    event = "token_fetch_failed",
                    reason = %error,
                    retry_in_ms = millis(wait),
                    "no fresh token; the one in force stays"
                );
            }
        }
    }

    /// Whether `token` is the one in force although a fresher one was wanted. An issuer that
    /// hands out one token until it ends is asked again later all the same.
    fn is_stale(&self, token: &Token) -> bool {
        self.token
            .as_ref()
            .is_some_and(|known| known.secret == token.secret)
    }

    fn describe_source(&self) -> String {
        self.token_source
            .as_ref()
            .map_or_else(String::new, TokenSource::describe)
    }

    pub(super) fn renewed(&mut self, ack: &RenewAck) {
        if !ack.ok {
            let wait = RETRY + RETRY.mul_f64(backoff::draw());
            self.renew_at = Some(Instant::now() + wait);
            tracing::error!(
                event = "renew_refused",
                reason = %ack.message,
                retry_in_ms = millis(wait),
                "the hub refused the renewal; the earlier token and connectors still hold"
            );
            self.publish.send_modify(|state| {
                state.problem = Some(format!("renewal refused: {}", ack.message));
                state.advice = None;
            });
            return;
        }
        self.schedule_renewal(ack.token_expires_in_ms);
        let expires_at = self.token.as_ref().and_then(|token| token.expires_at);
        self.publish.send_modify(|state| {
            state.accepted.clone_from(&ack.accepted);
            state.refused.clone_from(&ack.refused);
            state.token_expires_at = expires_at;
            state.problem = None;
            state.advice = None;
        });
        tracing::info!(
            event = "agent_renewed",
            agent_id = %self.config.agent_id,
            connectors = %joined(&ack.accepted),
            "the hub took the renewal"
        );
        log_refused(&ack.refused);
    }
}
