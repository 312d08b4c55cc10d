//! Tokens that somebody else in this process is asked for, one for each dial and each renewal.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{Token, TokenError};
use crate::secret::Secret;

/// Asks that wait. An agent has one at a time.
const WAITING_MAX: usize = 4;

/// The end that asks; goes into [`Auth::Asked`](crate::Auth::Asked).
#[derive(Clone, Debug)]
pub struct TokenAsker(mpsc::Sender<TokenAsk>);

/// The end that is asked.
#[derive(Debug)]
pub struct TokenAsks(mpsc::Receiver<TokenAsk>);

/// Somebody waits for a token, until the agent's `connect_timeout`.
#[derive(Debug)]
pub struct TokenAsk(oneshot::Sender<Result<Secret, NotGiven>>);

/// Why none is given, and when asking again may help.
#[derive(Debug)]
struct NotGiven {
    reason: String,
    retry_after: Option<Duration>,
}

impl TokenAsker {
    /// Both ends.
    #[must_use]
    pub fn new() -> (Self, TokenAsks) {
        let (asker, asks) = mpsc::channel(WAITING_MAX);
        (Self(asker), TokenAsks(asks))
    }

    pub(super) async fn fetch(&self, deadline: Instant) -> Result<Token, TokenError> {
        let failed = |reason: &str| TokenError::NotGiven {
            reason: reason.to_owned(),
            retry_after: None,
        };
        let asked = async {
            let (answer, answered) = oneshot::channel();
            self.0.send(TokenAsk(answer)).await.ok()?;
            answered.await.ok()
        };
        match timeout_at(deadline, asked).await {
            Ok(Some(Ok(secret))) => Token::parse(secret.expose(), "what was given"),
            Ok(Some(Err(NotGiven {
                reason,
                retry_after,
            }))) => Err(TokenError::NotGiven {
                reason,
                retry_after,
            }),
            Ok(None) => Err(failed("nobody gives tokens any more")),
            Err(_) => Err(failed("no token in time")),
        }
    }
}

impl PartialEq for TokenAsker {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for TokenAsker {}

impl TokenAsks {
    /// The next one; `None` once no agent asks any more.
    pub async fn next(&mut self) -> Option<TokenAsk> {
        self.0.recv().await
    }
}

impl TokenAsk {
    /// Gives a token. Whoever asked may have gone.
    pub fn give(self, token: Secret) {
        let _ = self.0.send(Ok(token));
    }

    /// Says why there is none; the agent asks again in its own time, or not before `retry_after`.
    pub fn refuse(self, reason: &str, retry_after: Option<Duration>) {
        let _ = self.0.send(Err(NotGiven {
            reason: reason.to_owned(),
            retry_after,
        }));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[tokio::test]
    async fn each_fetch_is_asked_for_and_answered() {
        let (asker, mut asks) = TokenAsker::new();
        let giver = tokio::spawn(async move {
            asks.next().await.unwrap().give(Secret::new("first"));
            asks.next().await.unwrap().refuse("no", None);
            drop(asks);
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        let token = asker.fetch(deadline).await.unwrap();
        assert_eq!(token.secret.expose(), "first");
        for expected in ["no", "nobody gives tokens any more"] {
            let error = asker.fetch(deadline).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        giver.await.unwrap();
    }

    #[tokio::test]
    async fn an_ask_ends_in_time() {
        let (asker, _asks) = TokenAsker::new();
        let error = asker.fetch(Instant::now()).await.unwrap_err();
        assert!(error.to_string().contains("no token in time"), "{error}");
    }
}
