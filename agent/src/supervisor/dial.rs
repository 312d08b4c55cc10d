//! One round over the hubs.
//!
//! The ways to them (TCP and TLS, through a proxy where one is set) are opened beside each other,
//! each a head start after the one before or as soon as that one has failed, as RFC 8305 has it for
//! addresses: a silent hub costs a moment and not a whole `connect_timeout`. Upgrades are asked for
//! one after the other, since a token may count once; ways go on opening meanwhile. A round ends in bounded time, however many
//! hubs are silent, and the next one begins with those that it did not come to.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use nowconnect_tunnel::WebSocketStream;
use tokio::time::{Instant, sleep_until};

use super::{DialProblem, Dialled};
use crate::config::{HubUrl, Outbound};
use crate::hub_dial::{DialFailure, HubStream, Transport, open_transport, upgrade};
use crate::signing::{Signer, authorization};
use crate::token::{Token, TokenSource};

/// How long the way to a hub is tried alone.
const HEAD_START: Duration = Duration::from_secs(1);
/// A round over several hubs takes at most so many times the bound on one.
const ROUND_LIMITS: u32 = 2;

/// Whom to dial, and how.
pub(super) struct Round {
    /// In the order to try, at least one.
    pub(super) hubs: Vec<HubUrl>,
    pub(super) outbound: Outbound,
    pub(super) signer: Option<Signer>,
    /// Bound on each hub.
    pub(super) limit: Duration,
}

/// There is no tunnel.
pub(super) struct NotDialled {
    /// Why the last hub was passed over, or why there is no token.
    pub(super) problem: DialProblem,
    /// How many hubs were tried where time was over before the others were; else 0.
    pub(super) go_on_after: usize,
}

impl Round {
    /// Goes through the hubs until one lets the agent in. Ways open while a hub is asked.
    pub(super) async fn run(&self, source: &mut TokenSource) -> Result<Dialled, NotDialled> {
        let failed = |problem: DialProblem, go_on_after: usize| NotDialled {
            problem,
            go_on_after,
        };
        let mut token = source
            .fetch(Instant::now() + self.limit)
            .await
            .map_err(|error| failed(error.into(), 0))?;
        let mut was_shown = false;
        let mut ways = Ways::begin(self);
        let mut opened = VecDeque::new();
        let mut asking = None;
        let mut last = None;
        loop {
            if asking.is_none()
                && Instant::now() < ways.over
                && let Some((place, stream)) = opened.pop_front()
            {
                // The hub that was asked before may have taken the token.
                if was_shown && source.counts_once() {
                    token = source
                        .fetch(Instant::now() + self.limit)
                        .await
                        .map_err(|error| failed(error.into(), place))?;
                }
                was_shown = true;
                asking = Some(self.ask(place, stream, token.clone(), ways.over));
            }
            let has_more = ways.has_more();
            let failure = tokio::select! {
                (place, answer) = pending(&mut asking), if asking.is_some() => {
                    asking = None;
                    match answer {
                        Ok(websocket) => {
                            return Ok(Dialled {
                                websocket: Box::new(websocket),
                                token,
                                hub: self.hubs[place].clone(),
                            });
                        }
                        Err(failure) => (place, failure),
                    }
                }
                next = ways.next(), if has_more => match next {
                    Some((place, Ok(stream))) => {
                        opened.push_back((place, stream));
                        continue;
                    }
                    Some((place, Err(failure))) => (place, failure),
                    None => continue,
                },
                else => break,
            };
            let (place, failure) = failure;
            if self.hubs.len() > 1 {
                tracing::warn!(
                    event = "hub_passed_over",
                    hub = %self.hubs[place],
                    reason = %failure,
                    "another hub is tried"
                );
            }
            last = Some(failure);
        }
        let problem = last.unwrap_or(DialFailure::UpgradeTimeout);
        // A hub whose way is open was not tried before it was asked.
        let waiting = opened.iter().map(|(place, _)| *place).min();
        let go_on_after = waiting.unwrap_or_else(|| ways.untried_from());
        Err(failed(problem.into(), go_on_after))
    }

    fn ask(
        &self,
        place: usize,
        stream: HubStream,
        token: Token,
        over: Instant,
    ) -> LocalBoxFuture<'_, (usize, Result<WebSocketStream<HubStream>, DialFailure>)> {
        Box::pin(async move {
            let asked = async {
                let shown = authorization(&token.secret, self.signer.as_ref(), SystemTime::now())?;
                let deadline = over.min(Instant::now() + self.limit);
                upgrade(stream, &self.hubs[place], shown, deadline).await
            };
            (place, asked.await)
        })
    }
}

/// Waits for what is under way, or for ever.
async fn pending<T>(slot: &mut Option<LocalBoxFuture<'_, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

type Attempt<'a> = LocalBoxFuture<'a, (usize, Result<HubStream, DialFailure>)>;

/// The ways to the hubs of a round, as they open or fail.
struct Ways<'a> {
    round: &'a Round,
    attempts: FuturesUnordered<Attempt<'a>>,
    /// So many hubs were begun with.
    begun: usize,
    next_at: Instant,
    /// No way is begun after it, and none takes longer.
    over: Instant,
}

impl<'a> Ways<'a> {
    fn begin(round: &'a Round) -> Self {
        let now = Instant::now();
        let limits = if round.hubs.len() > 1 {
            ROUND_LIMITS
        } else {
            1
        };
        Self {
            round,
            attempts: FuturesUnordered::new(),
            begun: 0,
            next_at: now,
            over: now + round.limit.saturating_mul(limits),
        }
    }

    /// The next one that opened or failed; `None` when there are no more, or no more time.
    async fn next(&mut self) -> Option<(usize, Result<HubStream, DialFailure>)> {
        loop {
            let now = Instant::now();
            if now >= self.over && self.begun > 0 && self.attempts.is_empty() {
                return None;
            }
            if self.may_begin(now) && (self.attempts.is_empty() || now >= self.next_at) {
                self.begin_one(now);
            }
            let may_begin = self.may_begin(now);
            tokio::select! {
                Some((place, opened)) = self.attempts.next() => {
                    if opened.is_err() {
                        self.next_at = now;
                    }
                    return Some((place, opened));
                }
                () = sleep_until(self.next_at), if may_begin => {}
                else => return None,
            }
        }
    }

    fn may_begin(&self, now: Instant) -> bool {
        self.begun < self.round.hubs.len() && (now < self.over || self.begun == 0)
    }

    fn begin_one(&mut self, now: Instant) {
        let (place, round) = (self.begun, self.round);
        let deadline = self.over.min(now + round.limit);
        self.begun += 1;
        self.next_at = now + HEAD_START;
        self.attempts.push(Box::pin(async move {
            let route = Transport::to_hub(&round.hubs[place], &round.outbound);
            (place, open_transport(&route, deadline).await)
        }));
    }

    fn has_more(&self) -> bool {
        !self.attempts.is_empty() || self.may_begin(Instant::now())
    }

    fn untried_from(&self) -> usize {
        if self.begun < self.round.hubs.len() {
            self.begun
        } else {
            0
        }
    }
}
