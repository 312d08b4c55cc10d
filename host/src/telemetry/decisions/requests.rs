//! Distinct requests that were decided, to be put to another set of policies.
//!
//! A [`Requests`] keeps what was asked with every fact that policies could look at, in the form of
//! a test case, once for each kind of question and answer, with the number of times, the first and
//! the last. It is bounded in bytes: what was not asked for longest goes first. Stating a question
//! costs some hundred microseconds, so only so many new ones are taken in a second; the others are
//! counted and taken when they come again.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use nowconnect_policy::{Decision, Question, Stated};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::telemetry::redact::{self, Covers};

/// New requests that are stated in one second.
pub const MAX_NEW_PER_SECOND: u32 = 200;

/// Requests that are kept whatever their size.
const MAX_REQUESTS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// Bytes of one request; a larger one is not kept.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// What a request costs beside its text.
const OVERHEAD_BYTES: usize = 256;

/// One request, as a test case with its history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedRequest {
    /// Says in short what it is.
    pub name: String,
    /// Who asked what, on what.
    pub request: Value,
    /// The facts.
    pub entities: Value,
    /// `allow` or `deny`: what the policies said, without plugins and decision points.
    pub decision: String,
    /// The policies that determined it.
    pub reason: Vec<String>,
    /// Policies that could not be evaluated.
    pub num_errors: usize,
    /// The generation that said so the last time.
    pub generation: u64,
    /// How often.
    pub count: u64,
    /// The first time, Unix milliseconds.
    pub first_ms: u64,
    /// The last time.
    pub last_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Requests {
    max_bytes: usize,
    covers: Covers,
    hasher: std::collections::hash_map::RandomState,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    kept: LruCache<u64, Kept>,
    bytes: usize,
    second: Option<Instant>,
    stated: u32,
    skipped: u64,
    forgotten: u64,
}

#[derive(Debug)]
struct Kept {
    /// `request` and `entities` as JSON.
    stated: Box<str>,
    name: Box<str>,
    allow: bool,
    reason: Vec<Box<str>>,
    num_errors: usize,
    generation: u64,
    count: u64,
    first_ms: u64,
    last_ms: u64,
    bytes: usize,
}

/// What is kept and what is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// Requests that are kept.
    pub kept: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Requests that were forgotten for lack of room.
    pub forgotten: u64,
    /// Times that a new request was not stated because too many came in that second.
    pub skipped: u64,
}

impl Requests {
    /// Keeps at most so many bytes; 0 keeps nothing.
    pub fn new(max_bytes: usize, covers: Covers) -> Self {
        Self {
            max_bytes,
            covers,
            hasher: std::collections::hash_map::RandomState::new(),
            state: Mutex::new(State {
                kept: LruCache::new(MAX_REQUESTS),
                bytes: 0,
                second: None,
                stated: 0,
                skipped: 0,
                forgotten: 0,
            }),
        }
    }

    /// Counts a decided question. `state` states it, and is called only where it is new.
    pub fn seen(
        &self,
        question: &Question,
        decision: &Decision,
        time_ms: u64,
        state: impl FnOnce() -> Option<Stated>,
    ) {
        if self.max_bytes == 0 {
            return;
        }
        let key = self.key(question, decision);
        let mut kept = self.state.lock();
        if let Some(known) = kept.kept.get_mut(&key) {
            known.count += 1;
            known.last_ms = known.last_ms.max(time_ms);
            known.generation = decision.generation;
            return;
        }
        if !kept.may_state(Instant::now()) {
            kept.skipped += 1;
            return;
        }
        drop(kept);
        let Some(new) = state().and_then(|stated| self.form(stated, question, decision, time_ms))
        else {
            return;
        };
        self.state.lock().insert(key, new, self.max_bytes);
    }

    /// The requests that were last asked at `since_ms` or later, the latest first.
    pub fn since(&self, since_ms: u64, limit: usize) -> Vec<RecordedRequest> {
        let state = self.state.lock();
        let mut found: Vec<RecordedRequest> = state
            .kept
            .iter()
            .map(|(_, kept)| kept)
            .filter(|kept| kept.last_ms >= since_ms)
            .take(limit)
            .filter_map(Kept::recorded)
            .collect();
        drop(state);
        found.sort_by_key(|request| std::cmp::Reverse(request.last_ms));
        found
    }

    /// How much there is.
    pub fn counts(&self) -> RequestCounts {
        let state = self.state.lock();
        RequestCounts {
            kept: state.kept.len(),
            bytes: state.bytes,
            forgotten: state.forgotten,
            skipped: state.skipped,
        }
    }

    /// The hash is keyed, so that nobody can make one request pass for another.
    fn key(&self, question: &Question, decision: &Decision) -> u64 {
        let mut hash = self.hasher.build_hasher();
        question.essence().hash(&mut hash);
        decision.allow.hash(&mut hash);
        for policy in &decision.policies {
            policy.id.hash(&mut hash);
        }
        hash.finish()
    }

    fn form(
        &self,
        stated: Stated,
        question: &Question,
        decision: &Decision,
        time_ms: u64,
    ) -> Option<Kept> {
        let name = format!(
            "{} {} by {}",
            question.action(),
            stated.request.resource,
            stated.request.principal
        );
        let mut json = serde_json::to_value(stated).ok()?;
        let covers = match question {
            Question::Hello(_) | Question::Announce(_) | Question::EndpointCreate(_) => {
                self.covers.for_agents()
            }
            Question::Open(_)
            | Question::HttpRequest(_)
            | Question::UpstreamOpen(_)
            | Question::MeshJoin(_)
            | Question::MeshForward(_)
            | Question::Admin(_) => self.covers,
        };
        clean(covers, "", &mut json);
        let stated: Box<str> = json.to_string().into();
        let mut name = name;
        redact::in_place(&mut name);
        let reason: Vec<Box<str>> = decision
            .policies
            .iter()
            .map(|policy| Box::from(policy.id.as_str()))
            .collect();
        let bytes = OVERHEAD_BYTES
            + stated.len()
            + name.len()
            + reason.iter().map(|id| id.len()).sum::<usize>();
        (bytes <= MAX_REQUEST_BYTES).then(|| Kept {
            stated,
            name: name.into(),
            allow: decision.allow,
            reason,
            num_errors: decision.errors.len(),
            generation: decision.generation,
            count: 1,
            first_ms: time_ms,
            last_ms: time_ms,
            bytes,
        })
    }
}

/// The floor, and what the operator wants covered. A covered address stays an address, so that the
/// request can still be asked.
fn clean(covers: Covers, name: &str, value: &mut Value) {
    match value {
        Value::String(text) => {
            redact::in_place(text);
            let field = if name == "arg" || name == "srcIp" {
                "client"
            } else {
                name
            };
            covers.cover(field, text);
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| clean(covers, name, item));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                if redact::is_sensitive_key(name) && value.is_string() {
                    *value = Value::from(redact::ERASED);
                } else {
                    clean(covers, name, value);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl State {
    fn may_state(&mut self, now: Instant) -> bool {
        let same = self
            .second
            .is_some_and(|began| now.duration_since(began) < Duration::from_secs(1));
        if !same {
            self.second = Some(now);
            self.stated = 0;
        }
        self.stated += 1;
        self.stated <= MAX_NEW_PER_SECOND
    }

    fn insert(&mut self, key: u64, new: Kept, max_bytes: usize) {
        self.bytes += new.bytes;
        if let Some((_, gone)) = self.kept.push(key, new) {
            self.bytes -= gone.bytes;
            self.forgotten += 1;
        }
        while self.bytes > max_bytes {
            let Some((_, oldest)) = self.kept.pop_lru() else {
                break;
            };
            self.bytes -= oldest.bytes;
            self.forgotten += 1;
        }
    }
}

impl Kept {
    fn recorded(&self) -> Option<RecordedRequest> {
        let mut stated: Value = serde_json::from_str(&self.stated).ok()?;
        Some(RecordedRequest {
            name: self.name.to_string(),
            request: stated["request"].take(),
            entities: stated["entities"].take(),
            decision: if self.allow { "allow" } else { "deny" }.to_owned(),
            reason: self.reason.iter().map(ToString::to_string).collect(),
            num_errors: self.num_errors,
            generation: self.generation,
            count: self.count,
            first_ms: self.first_ms,
            last_ms: self.last_ms,
        })
    }
}

#[cfg(test)]
mod tests;
