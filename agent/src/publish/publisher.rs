//! Gives the agent of a published service its tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{ControlApi, Key, Memory, PublishError, Published, Wish};
use crate::secret::Secret;
use crate::token::{TokenAsker, TokenAsks};

/// Longest wait for an answer of the API; the agent waits for its token no longer than that, too.
const API_TIMEOUT: Duration = Duration::from_secs(10);
/// News that wait to be shown; there is one in a tunnel's life, if that.
const NEWS_WAITING_MAX: usize = 4;

/// A tunnel in hand, and whom its agent asks for tokens.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) published: Published,
    pub(crate) asker: TokenAsker,
}

/// What a publisher tells whoever started the agent.
#[derive(Debug)]
pub(crate) enum News {
    /// The hub has forgotten the tunnel. This is the one in its place; the agent is to go on as
    /// that one.
    Moved(Publication),
    /// The same tunnel has another address, or other hubs to dial.
    Changed(Published),
    /// The token to come back could not be kept: the address is lost when the agent ends.
    NotKept(String),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Publisher {
    api: ControlApi,
    wish: Wish,
    /// For the next dial, while nobody has asked for it yet.
    fresh: Option<Secret>,
    /// What the API said last.
    last: Published,
    /// Of the next new tunnel.
    key: Key,
    memory: Option<Arc<Memory>>,
    asks: TokenAsks,
    news: mpsc::Sender<News>,
}

/// Gets the tunnel of the last run again where `memory` knows one, else a new one.
///
/// # Errors
/// The API cannot be asked, or says no.
pub(crate) async fn begin(
    mut api: ControlApi,
    wish: Wish,
    key: &Key,
    memory: Option<Memory>,
) -> Result<(Publication, Publisher, mpsc::Receiver<News>), PublishError> {
    let deadline = Instant::now() + API_TIMEOUT;
    let kept = memory.as_ref().and_then(Memory::recall);
    let again = match &kept {
        Some(token) => match api.create(&wish, Some(token), key, deadline).await {
            Err(error) if error.is_unauthenticated() => None,
            other => Some(other?),
        },
        None => None,
    };
    let published = match again {
        Some(published) => published,
        None => api.create(&wish, None, key, deadline).await?,
    };
    let (asker, asks) = TokenAsker::new();
    let (news, told) = mpsc::channel(NEWS_WAITING_MAX);
    let publisher = Publisher {
        api,
        wish,
        fresh: Some(published.ephemeral_token.clone()),
        last: published.clone(),
        key: Key::random(),
        memory: memory.map(Arc::new),
        asks,
        news,
    };
    publisher.remember().await;
    Ok((Publication { published, asker }, publisher, told))
}

impl Publisher {
    /// Answers until no agent asks any more.
    pub(crate) async fn run(mut self) {
        while let Some(ask) = self.asks.next().await {
            match self.next_token().await {
                Ok(token) => ask.give(token),
                Err(error) => ask.refuse(&error.to_string(), error.retry_after()),
            }
        }
    }

    async fn next_token(&mut self) -> Result<Secret, PublishError> {
        if let Some(fresh) = self.fresh.take() {
            return Ok(fresh);
        }
        let deadline = Instant::now() + API_TIMEOUT;
        let again = self
            .api
            .create(
                &self.wish,
                Some(&self.last.recreate_token),
                &self.key,
                deadline,
            )
            .await;
        let again = match again {
            Err(error) if error.is_unauthenticated() => return Err(self.replace(error).await),
            other => other?,
        };
        let token = again.ephemeral_token.clone();
        let changed =
            again.public_url != self.last.public_url || again.candidates != self.last.candidates;
        self.last = again;
        self.remember().await;
        if changed {
            let _ = self.news.send(News::Changed(self.last.clone())).await;
        }
        Ok(token)
    }

    /// The tunnel is gone: takes another. Whoever asks now is that tunnel's agent no longer.
    async fn replace(&mut self, gone: PublishError) -> PublishError {
        let deadline = Instant::now() + API_TIMEOUT;
        let created = self.api.create(&self.wish, None, &self.key, deadline).await;
        let published = match created {
            Ok(published) => published,
            Err(error) => return error,
        };
        self.key = Key::random();
        self.fresh = Some(published.ephemeral_token.clone());
        self.last = published.clone();
        self.remember().await;
        let (asker, asks) = TokenAsker::new();
        self.asks = asks;
        let moved = News::Moved(Publication { published, asker });
        // Nobody listens where the agent is about to end.
        let _ = self.news.send(moved).await;
        gone
    }

    async fn remember(&self) {
        let Some(memory) = self.memory.clone() else {
            return;
        };
        let token = self.last.recreate_token.clone();
        // Waits for the disk, which flows on this thread must not.
        let kept = tokio::task::spawn_blocking(move || memory.keep(&token)).await;
        if let Ok(Err(error)) = kept {
            let _ = self.news.send(News::NotKept(error.to_string())).await;
        }
    }
}
