//! The external decision point: asked what the policies have allowed, and able to deny only.
//!
//! ```text
//! ask ─► cache of allows ─► same question under way? ─► breaker ─► free slot ─► POST ─► answer
//!          hit: allow          yes: its answer           open: error               bounded, strict
//! ```
//! One deadline bounds all of it. Whatever is not a well-formed answer in time is trouble, and
//! trouble denies unless the operator chose otherwise: a redirect, a status that is not 200, a
//! body that is too large, cut short or no JSON, an answer to another question, a number of
//! answers that does not fit, an allow with an obligation that the hub does not know. Of several
//! questions each has its own fate: trouble with one neither takes nor lends it to another's
//! answer, and a deny that came counts, whatever else went wrong.
//!
//! Allows are kept a few seconds for the same question under the same generation; a deny is never
//! kept, takes a kept allow away, and so does with one that was asked for before it and comes later. What is sent leaves out what differs for each client of the
//! same kind (time, ids, source port, number of flows), so that equal questions are equal.
//!
//! Absent: search, and any way for an answer to widen what the policies allow.

mod answer;
mod breaker;
mod cache;
mod client;
mod question;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::codes::DenialCode;
use crate::config::{PdpConfig, PdpKind, PdpOnError, PdpRecheck};
use crate::telemetry::decisions::PdpAnswer;
use crate::telemetry::events;
use crate::telemetry::metrics::{Metrics, PdpCache, PdpResult};

use answer::Verdict;
use breaker::{Breaker, Change};
use cache::{Cache, Key};
use client::{Client, Failure, Said};
pub(crate) use question::Evaluation;

/// Re-checks under way at once, so that a storm of them leaves room for new flows.
const MAX_RECHECKS: usize = 8;

/// Questions under way that are remembered before those that nobody waits for any more are taken
/// out. No more than `MAX_PENDING_DECISIONS` can be waited for.
const MAX_FLIGHTS: usize = 2 * crate::authorize::MAX_PENDING_DECISIONS;

/// Shortest time between two log lines about failures.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// The decision point cannot be asked with this configuration.
#[derive(Debug, thiserror::Error)]
#[error("`pdp`: {0}")]
pub struct PdpError(String);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Pdp {
    inner: Arc<Inner>,
}

/// What a decision point says to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) allow: bool,
    /// The stable code of a denial.
    pub(crate) code: &'static str,
    /// For the record.
    pub(crate) admin: Option<String>,
    /// For the peer.
    pub(crate) user: Option<String>,
    /// Whether an earlier answer was used.
    pub(crate) cached: bool,
    /// Whether it did not answer, so that this is what `on_error` says.
    pub(crate) failed: bool,
}

/// The code of a denial by the decision point.
pub(crate) const DENIED: &str = DenialCode::PdpDenied.as_str();
/// The code of a denial because it did not answer.
pub(crate) const UNAVAILABLE: &str = DenialCode::PdpUnavailable.as_str();
/// The code of a denial because of an obligation that the hub does not know.
pub(crate) const OBLIGATION: &str = DenialCode::PdpObligation.as_str();

/// What came of each question.
type Outcome = Arc<[Said]>;
type Flight = Shared<BoxFuture<'static, Outcome>>;
type WeakFlight = WeakShared<BoxFuture<'static, Outcome>>;

struct Inner {
    config: PdpConfig,
    client: Client,
    breaker: Breaker,
    cache: Cache,
    flights: Mutex<HashMap<Key, WeakFlight>>,
    rechecks: tokio::sync::Semaphore,
    metrics: Arc<Metrics>,
    warned: Mutex<Warned>,
}

#[derive(Default)]
struct Warned {
    last: Option<Instant>,
    unsaid: u64,
}

impl Pdp {
    /// The client for a configuration; `None` where it names no decision point. Asks nothing yet.
    ///
    /// # Errors
    /// Roots or token cannot be read.
    pub fn new(config: &PdpConfig, metrics: &Arc<Metrics>) -> Result<Option<Self>, PdpError> {
        let Some(url) = &config.url else {
            metrics.pdp.breaker(false);
            return Ok(None);
        };
        let client = Client::new(config, url).map_err(PdpError)?;
        metrics.pdp.breaker(false);
        let inner = Inner {
            client,
            breaker: Breaker::new(config.breaker_failures, config.breaker_pause),
            cache: Cache::new(config.cache_entries),
            flights: Mutex::default(),
            rechecks: tokio::sync::Semaphore::new(MAX_RECHECKS),
            metrics: Arc::clone(metrics),
            warned: Mutex::default(),
            config: config.clone(),
        };
        Ok(Some(Self {
            inner: Arc::new(inner),
        }))
    }

    /// What it speaks.
    pub(crate) fn kind(&self) -> PdpKind {
        self.inner.config.kind
    }

    /// What a re-check asks.
    pub(crate) fn recheck(&self) -> PdpRecheck {
        self.inner.config.recheck
    }

    /// The longest time that [`ask`](Self::ask) takes.
    pub(crate) fn timeout(&self) -> Duration {
        self.inner.config.timeout
    }

    /// The audience that agents' tokens are for.
    pub(crate) fn audience(&self) -> &str {
        &self.inner.config.audience
    }

    /// Added to the properties of every subject.
    pub(crate) fn subject_properties(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.inner.config.subject_properties
    }

    /// Whether it answers, as far as is known.
    pub(crate) fn is_available(&self) -> bool {
        self.inner.breaker.is_closed()
    }

    /// Asks about one or more things that the policies allow under `generation`; one answer for
    /// each. `id` is the decision's.
    pub(crate) async fn ask(
        &self,
        generation: u64,
        id: &str,
        questions: Vec<Evaluation>,
    ) -> Vec<Answer> {
        let inner = &self.inner;
        let now = Instant::now();
        let keys: Vec<Key> = questions
            .iter()
            .map(|question| cache::key(generation, question))
            .collect();
        let mut answers: Vec<Option<Answer>> = keys
            .iter()
            .map(|key| {
                let fresh = inner.cache.is_fresh(key, now);
                fresh.then(|| inner.by_cache(PdpCache::Hit))
            })
            .collect();
        let (open, missing): (Vec<Key>, Vec<Evaluation>) = answers
            .iter()
            .zip(keys.iter().copied().zip(questions))
            .filter(|(answer, _)| answer.is_none())
            .map(|(_, missing)| missing)
            .unzip();
        if !open.is_empty() {
            let outcome = inner.fly(id, open.clone(), missing).await;
            let mut found = open
                .iter()
                .zip(outcome.iter())
                .map(|(key, said)| inner.answer(key, said));
            for answer in answers.iter_mut().filter(|answer| answer.is_none()) {
                *answer = found.next();
            }
        }
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| inner.trouble("no answer to this question")))
            .collect()
    }

    /// The same for a running flow. Waits for one of few places.
    pub(crate) async fn ask_again(
        &self,
        generation: u64,
        id: &str,
        question: Evaluation,
    ) -> Option<Answer> {
        // Never closed, so an error cannot be.
        let _place = self.inner.rechecks.acquire().await.ok()?;
        self.ask(generation, id, vec![question]).await.pop()
    }
}

impl fmt::Debug for Pdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pdp")
            .field("url", &self.inner.config.identifier)
            .field("kind", &self.inner.config.kind)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// The answer to these questions, shared with whoever asks the same just now.
    async fn fly(
        self: &Arc<Self>,
        id: &str,
        keys: Vec<Key>,
        questions: Vec<Evaluation>,
    ) -> Outcome {
        let whole = cache::key_of_all(&keys);
        let flight = {
            let mut flights = self.flights.lock();
            match flights.get(&whole).and_then(WeakFlight::upgrade) {
                Some(flight) => {
                    self.metrics.pdp.cache(PdpCache::Shared);
                    flight
                }
                None => {
                    let inner = Arc::clone(self);
                    let id = id.to_owned();
                    let flight: Flight =
                        async move { inner.ask_at_once(&id, &keys, &questions).await }
                            .boxed()
                            .shared();
                    if let Some(weak) = flight.downgrade() {
                        if flights.len() >= MAX_FLIGHTS {
                            flights.retain(|_, weak| weak.upgrade().is_some());
                        }
                        flights.insert(whole, weak);
                    }
                    flight
                }
            }
        };
        let outcome = flight.await;
        // Another one may have begun meanwhile; only what has ended goes.
        let mut flights = self.flights.lock();
        let ended = |weak: &WeakFlight| weak.upgrade().is_none_or(|one| one.peek().is_some());
        if flights.get(&whole).is_some_and(ended) {
            flights.remove(&whole);
        }
        outcome
    }

    async fn ask_at_once(&self, id: &str, keys: &[Key], questions: &[Evaluation]) -> Outcome {
        let started = Instant::now();
        let Some(pass) = self.breaker.pass(started) else {
            return vec![Err(Failure::Paused); questions.len()].into();
        };
        self.metrics.pdp.cache(PdpCache::Miss);
        let said = self.client.evaluate(id, questions).await;
        let now = Instant::now();
        self.metrics.pdp.took(now.duration_since(started));
        self.keep(keys, &said, (started, now));
        let mut failures = said.iter().filter_map(|said| said.as_ref().err());
        if let Some(failure) = failures.clone().next() {
            self.report(failure);
        }
        let change = if said.iter().any(Result::is_ok) {
            pass.succeeded()
        } else if failures.all(Failure::is_of_the_question) {
            // It is there, and shows nothing about what others would ask.
            None
        } else {
            pass.failed(now)
        };
        self.tell(change);
        said.into()
    }

    /// A deny counts against whatever was asked before it came, and an allow for what was so when
    /// it was asked for.
    fn keep(&self, keys: &[Key], said: &[Said], (asked, now): (Instant, Instant)) {
        for (key, said) in keys.iter().zip(said) {
            match said {
                Ok(Verdict::Allow { ttl, .. }) => {
                    let ttl = ttl.unwrap_or(self.config.cache_ttl);
                    self.cache.put(*key, asked, ttl.min(self.config.cache_ttl));
                }
                Ok(Verdict::Deny { .. } | Verdict::Obligation { .. }) => {
                    self.cache.forget(key, now);
                }
                // What was said before is what `on_error` may fall back to.
                Err(_) => {}
            }
        }
    }

    fn answer(&self, key: &Key, said: &Said) -> Answer {
        match said {
            Ok(verdict) => self.said(verdict),
            Err(failure) => self.instead(key, &failure.to_string()),
        }
    }

    fn said(&self, verdict: &Verdict) -> Answer {
        let (allow, code, admin, user) = match verdict {
            Verdict::Allow { admin, .. } => (true, "", admin.clone(), None),
            Verdict::Deny { admin, user } => (false, DENIED, admin.clone(), user.clone()),
            Verdict::Obligation { names } => {
                let admin = format!("it allows with what the hub does not know: {names}");
                (false, OBLIGATION, Some(admin), None)
            }
        };
        let result = if allow {
            PdpResult::Allow
        } else {
            PdpResult::Deny
        };
        self.metrics.policy.pdp(result);
        Answer {
            allow,
            code,
            admin,
            user,
            cached: false,
            failed: false,
        }
    }

    /// The answer where there is none.
    fn instead(&self, key: &Key, failure: &str) -> Answer {
        self.metrics.policy.pdp(PdpResult::Error);
        let usable = self.config.on_error == PdpOnError::AllowIfCached
            && self
                .cache
                .is_within(key, Instant::now(), self.config.stale_ttl);
        if usable {
            let mut answer = self.by_cache(PdpCache::Stale);
            answer.admin = Some(format!("{failure}; an earlier allow was used"));
            answer.failed = true;
            return answer;
        }
        self.trouble(failure)
    }

    fn trouble(&self, failure: &str) -> Answer {
        let allow = self.config.on_error == PdpOnError::Allow;
        let admin = if allow {
            format!("{failure}; allowed by `pdp.fail_open`")
        } else {
            failure.to_owned()
        };
        Answer {
            allow,
            code: UNAVAILABLE,
            admin: Some(admin),
            user: None,
            cached: false,
            failed: true,
        }
    }

    fn by_cache(&self, how: PdpCache) -> Answer {
        self.metrics.pdp.cache(how);
        Answer {
            allow: true,
            code: "",
            admin: None,
            user: None,
            cached: true,
            failed: false,
        }
    }

    fn report(&self, failure: &Failure) {
        let now = Instant::now();
        let mut warned = self.warned.lock();
        warned.unsaid += 1;
        let recently = warned
            .last
            .is_some_and(|last| now.duration_since(last) < WARNING_INTERVAL);
        if recently {
            return;
        }
        warned.last = Some(now);
        let failures = std::mem::take(&mut warned.unsaid);
        drop(warned);
        warn!(
            event = events::PDP_FAILED,
            url = %self.config.identifier,
            failures,
            error = %failure,
            "the external decision point did not answer as it must"
        );
    }

    fn tell(&self, change: Option<Change>) {
        match change {
            Some(Change::Opened) => {
                self.metrics.pdp.breaker(true);
                warn!(
                    event = events::PDP_BREAKER,
                    url = %self.config.identifier,
                    state = "open",
                    "the external decision point is not asked for a while"
                );
            }
            Some(Change::Closed) => {
                self.metrics.pdp.breaker(false);
                info!(
                    event = events::PDP_BREAKER,
                    url = %self.config.identifier,
                    state = "closed",
                    "the external decision point answers again"
                );
            }
            None => {}
        }
    }
}

impl Answer {
    /// The answer to a question that cannot be stated. It was never put to the decision point, so
    /// `on_error` does not turn it into an allow.
    pub(crate) fn unstated(problem: &str) -> Self {
        Self {
            allow: false,
            code: UNAVAILABLE,
            admin: Some(format!("it could not be asked: {problem}")),
            user: None,
            cached: false,
            failed: true,
        }
    }

    /// Where it stands for no answer, it leaves what is there as it is.
    pub(crate) fn keep_on_error(&mut self) {
        if self.failed && !self.allow {
            self.allow = true;
            let failure = self.admin.take().unwrap_or_default();
            self.admin = Some(format!("{failure}; kept by `pdp.recheck`"));
        }
    }

    /// As it stands in the record.
    pub(crate) fn recorded(&self) -> PdpAnswer {
        PdpAnswer {
            allow: self.allow,
            reason: self.admin.clone(),
            cached: self.cached,
        }
    }
}
