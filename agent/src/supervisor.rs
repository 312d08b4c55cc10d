//! Keeps one session with the hub alive through any number of tunnels.
//!
//! ```text
//!            dial ok                Welcomed
//!  waiting ──────────► joining ───────────────► current
//!     ▲                   │                        │  Suspect, DRAIN or a changed config:
//!     │   refused, lost   │                        │  dial a replacement beside it
//!     └───────────────────┴────────────────────────┘  lost: its flows wait, dial at once
//! ```
//!
//! At most one tunnel is current and at most one is joining. While a replacement joins, the
//! current tunnel carries on; the new tunnel's driver asks it for its flows once the hub has
//! accepted the new one, and whatever is left of it is closed. A tunnel that broke leaves its
//! flows behind, and they wait here for the next tunnel for as long as the hub keeps its own half.
//!
//! Everything runs on one thread. The only shared state is what the tunnels' shells hold.

mod dial;
mod orders;
mod renewal;
mod tunnels;

use self::dial::{NotDialled, Round};
pub(crate) use self::tunnels::{advice, hello};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, SystemTime};

use futures_util::future::LocalBoxFuture;
use nowconnect_protocol::{Epoch, InstanceId, ResumeToken, TunnelConfig, WindowPool};
use nowconnect_tunnel::{
    AgentTunnelHandle, DetachedSession, TunnelEnd, TunnelSettings, WebSocketStream,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::agent::Order;
use crate::backoff::{self, Backoff};
use crate::config::{AgentConfig, HubUrl};
use crate::connectors::ConnectorMap;
use crate::hub_dial::{DialFailure, HubStream};
use crate::shell::{NEWS_QUEUE, Shared, TunnelNews};
use crate::signing::Signer;
use crate::state::{AgentState, Phase};
use crate::tap::Tap;
use crate::token::{Token, TokenError, TokenSource};

/// How often files are looked at and slow conditions are checked.
const TICK: Duration = Duration::from_secs(2);
/// Flows of a broken tunnel wait this long where no welcome has said otherwise.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// A replaced tunnel that has not ended by itself after this long is closed.
const REPLACED_AFTER: Duration = Duration::from_secs(5);
/// After the close at the end of a stop, the tunnel's driver may take this long to send it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A tunnel on its way through HELLO, or in use.
#[derive(Debug)]
struct Tunnel {
    number: u64,
    handle: AgentTunnelHandle,
    since: Instant,
    hub: HubUrl,
}

/// A tunnel that another has replaced, and when it is closed at the latest.
#[derive(Debug)]
struct Retired {
    number: u64,
    handle: AgentTunnelHandle,
    close_at: Instant,
}

/// What outlives a tunnel.
#[derive(Debug, Default)]
struct Session {
    resume: Option<ResumeToken>,
    last_epoch: Option<Epoch>,
    grace: Option<Duration>,
    /// Flows of a broken tunnel.
    detached: Option<DetachedSession>,
    /// Until when they wait; set when the tunnel broke, however many dials fail after that.
    detached_until: Option<Instant>,
}

/// Why a tunnel could not be dialled.
#[derive(Debug, thiserror::Error)]
enum DialProblem {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Way(#[from] DialFailure),
}

/// A finished piece of work that borrowed the token's source.
enum Finished {
    Dialled(Result<Dialled, NotDialled>),
    Fetched(Result<Token, TokenError>),
}

/// A WebSocket that no HELLO was said on yet.
struct Dialled {
    websocket: Box<WebSocketStream<HubStream>>,
    token: Token,
    hub: HubUrl,
}

type Work = LocalBoxFuture<'static, (TokenSource, Finished)>;

pub(crate) struct Supervisor {
    config: AgentConfig,
    shared: Rc<Shared>,
    orders: mpsc::Receiver<Order>,
    publish: watch::Sender<AgentState>,
    news_sender: mpsc::Sender<(u64, TunnelNews)>,
    news: mpsc::Receiver<(u64, TunnelNews)>,
    tunnels: JoinSet<(u64, TunnelEnd)>,
    instance: InstanceId,
    window_pool: WindowPool,
    backoff: Backoff,
    /// `None` while a piece of work has it.
    token_source: Option<TokenSource>,
    /// At most one dial or fetch at a time.
    work: Option<Work>,
    current: Option<Tunnel>,
    joining: Option<Tunnel>,
    retired: Vec<Retired>,
    session: Session,
    next_number: u64,
    /// Which of several hubs is dialled first: the next one after a HELLO that was not accepted, or
    /// after those that took all of a round's time.
    begin_at: usize,
    /// The token in force on the current tunnel, or the one that the last dial used.
    token: Option<Token>,
    /// When to dial next; `None` while nothing is to be dialled.
    dial_at: Option<Instant>,
    /// When to renew the token.
    renew_at: Option<Instant>,
    /// The current tunnel is to be replaced although it lives.
    replace: bool,
    /// The current tunnel belongs to another hub or identity than the config now names.
    foreign: bool,
    stop_at: Option<Instant>,
    closing_until: Option<Instant>,
}

impl Supervisor {
    pub(crate) fn new(
        config: AgentConfig,
        connectors: Rc<ConnectorMap>,
        orders: mpsc::Receiver<Order>,
        publish: watch::Sender<AgentState>,
        flows: Arc<AtomicU32>,
        tap: Option<Tap>,
    ) -> Self {
        let (news_sender, news) = mpsc::channel(NEWS_QUEUE);
        let token_source = TokenSource::new(&config.auth, &config.outbound);
        Self {
            shared: Rc::new(Shared::new(connectors, flows, tap)),
            orders,
            publish,
            news_sender,
            news,
            tunnels: JoinSet::new(),
            instance: InstanceId(random_u64()),
            window_pool: TunnelConfig::default().window_pool,
            backoff: Backoff::new(config.tunnel.backoff.clone()),
            token_source: Some(token_source),
            work: None,
            current: None,
            joining: None,
            retired: Vec::new(),
            session: Session::default(),
            next_number: 1,
            begin_at: 0,
            token: None,
            dial_at: Some(Instant::now()),
            renew_at: None,
            replace: false,
            foreign: false,
            stop_at: None,
            closing_until: None,
            config,
        }
    }

    /// Runs until it is stopped.
    pub(crate) async fn run(mut self) {
        for warning in &self.config.warnings {
            tracing::warn!(event = "config_warning", "{warning}");
        }
        let mut tick = tokio::time::interval(TICK);
        loop {
            if self.is_over() {
                break;
            }
            let wake_at = self.next_wake();
            tokio::select! {
                biased;
                order = self.orders.recv() => self.handle_order(order),
                Some((number, news)) = self.news.recv() => self.handle_news(number, news),
                Some(ended) = self.tunnels.join_next() => self.handle_end(ended),
                (source, finished) = work(&mut self.work) => self.handle_work(source, finished),
                _ = tick.tick() => self.handle_tick(),
                () = sleep_until(wake_at) => self.handle_due(),
            }
        }
        self.session.detached = None;
        self.tunnels.shutdown().await;
        tracing::info!(event = "agent_stopped", "nothing runs any more");
    }

    fn is_over(&self) -> bool {
        let now = Instant::now();
        match (self.stop_at, self.closing_until) {
            (_, Some(until)) => self.tunnels.is_empty() || now >= until,
            (Some(_), None) | (None, None) => false,
        }
    }

    /// When something falls due, at the latest a tick from now.
    fn next_wake(&self) -> Instant {
        let dial_at = self.dial_at.filter(|_| self.may_dial());
        let renew_at = self.renew_at.filter(|_| self.work.is_none());
        let grace_at = self.session.detached_until;
        let retired_at = self.retired.iter().map(|retired| retired.close_at).min();
        [
            dial_at,
            renew_at,
            grace_at,
            retired_at,
            self.stop_at.filter(|_| self.closing_until.is_none()),
            self.closing_until,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or_else(|| Instant::now() + TICK)
    }

    fn may_dial(&self) -> bool {
        self.work.is_none() && self.joining.is_none() && self.stop_at.is_none()
    }

    fn handle_due(&mut self) {
        let now = Instant::now();
        if self.dial_at.is_some_and(|at| at <= now) && self.may_dial() {
            self.start_dial();
        }
        if self.renew_at.is_some_and(|at| at <= now) && self.work.is_none() {
            self.start_fetch();
        }
        if self
            .session
            .detached_until
            .is_some_and(|until| until <= now)
        {
            self.session.detached_until = None;
            self.session.resume = None;
            if let Some(lost) = self.session.detached.take() {
                tracing::warn!(
                    event = "resume_expired",
                    flows = lost.len(),
                    "the hub did not come back in time; the flows of the last tunnel are ended"
                );
                self.shared.flows_lost(lost.len());
            }
        }
        self.close_retired(now);
        self.check_stop(now);
    }

    fn handle_tick(&mut self) {
        let changed = self.token_source.as_ref().is_some_and(TokenSource::changed);
        if changed {
            self.token_file_changed();
        }
        self.check_stop(Instant::now());
    }

    /// Dials, with a token fetched now.
    fn start_dial(&mut self) {
        let Some(mut source) = self.token_source.take() else {
            return;
        };
        self.dial_at = None;
        let mut hubs = vec![self.config.hub.clone()];
        hubs.extend(self.config.other_hubs.iter().cloned());
        self.begin_at %= hubs.len();
        hubs.rotate_left(self.begin_at);
        tracing::debug!(event = "dialling", hub = %hubs[0], attempt = self.backoff.failures(), "dialling the hub");
        let round = Round {
            hubs,
            outbound: self.config.outbound.clone(),
            signer: Signer::of(&self.config),
            limit: self.config.tunnel.connect_timeout,
        };
        self.work = Some(Box::pin(async move {
            let result = round.run(&mut source).await;
            (source, Finished::Dialled(result))
        }));
    }

    fn handle_work(&mut self, source: TokenSource, finished: Finished) {
        self.work = None;
        self.token_source = Some(source);
        if self.stop_at.is_some() {
            return;
        }
        match finished {
            Finished::Dialled(Ok(dialled)) => self.join(dialled),
            Finished::Dialled(Err(not)) => {
                self.begin_at += not.go_on_after;
                self.dial_failed(&not.problem);
            }
            Finished::Fetched(result) => self.token_fetched(result),
        }
    }

    fn dial_failed(&mut self, problem: &DialProblem) {
        let draw = backoff::draw();
        let (wait, advice) = match problem {
            DialProblem::Way(DialFailure::Refused(refused)) => {
                if refused.status == 401
                    && let Some(source) = &mut self.token_source
                {
                    source.forget();
                }
                let wait = match refused.retry_after {
                    Some(after) => self.backoff.at_least(after, draw),
                    // The next dial has another token.
                    None if refused.status == 401 && self.counts_once() => {
                        self.backoff.next_wait(draw)
                    }
                    None if refused.needs_a_person() => {
                        self.backoff.at_least(backoff::REFUSED_WAIT, draw)
                    }
                    None => self.backoff.next_wait(draw),
                };
                (wait, refused.advice())
            }
            DialProblem::Token(TokenError::NotGiven {
                retry_after: Some(after),
                ..
            }) => (
                self.backoff.at_least(*after, draw),
                "the control API gives no token",
            ),
            DialProblem::Token(_) => (
                self.backoff.next_wait(draw),
                "without a token the hub is not dialled; see `nowconnect-agent diagnose`",
            ),
            DialProblem::Way(DialFailure::Signing(error)) => {
                (self.backoff.next_wait(draw), error.advice())
            }
            DialProblem::Way(_) => (
                self.backoff.next_wait(draw),
                "`nowconnect-agent diagnose` walks the way to the hub step by step",
            ),
        };
        self.dial_at = Some(Instant::now() + wait);
        self.publish.send_modify(|state| {
            state.problem = Some(problem.to_string());
            state.advice = Some(advice);
        });
        tracing::warn!(
            event = "dial_hub_failed",
            hub = %self.config.hub,
            reason = %problem,
            retry_in_ms = millis(wait),
            "no tunnel: {advice}"
        );
    }

    fn counts_once(&self) -> bool {
        let source = self.token_source.as_ref();
        source.is_some_and(TokenSource::counts_once)
    }

    fn settings(&self) -> TunnelSettings {
        let tuning = &self.config.tunnel;
        let limits = &self.config.limits;
        let mut config = TunnelConfig {
            max_data_payload: tuning.max_ws_payload,
            window_pool: self.window_pool.clone(),
            max_flows: limits.max_inflight_cids,
            ping_interval: tuning.ping_interval,
            ping_timeout: tuning.ping_timeout,
            ..TunnelConfig::default()
        };
        config.flow_window_max = limits
            .queue_depth_per_cid
            .saturating_mul(tuning.max_ws_payload)
            .clamp(config.flow_window, config.flow_window_max);
        config.terms.idle_timeout = limits.idle_timeout.unwrap_or(Duration::MAX);
        config.terms.stall_timeout = limits.stall_timeout;
        TunnelSettings { config }
    }

    fn set_phase(&self, phase: Phase) {
        self.publish.send_if_modified(|state| {
            let changed = state.phase != phase;
            state.phase = phase;
            changed
        });
    }
}

/// Waits for the work in hand, or for ever.
async fn work(slot: &mut Option<Work>) -> (TokenSource, Finished) {
    match slot {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness from the system, time tells two processes apart well enough.
    if getrandom::fill(&mut bytes).is_err() {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        return now.as_secs() ^ (u64::from(now.subsec_nanos()) << 32);
    }
    u64::from_le_bytes(bytes)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
