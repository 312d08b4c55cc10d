//! Whether a viewer may reach a connector at all: one answer for many requests.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use nowconnect_policy::{Name, Open, Question, Signals, Tls, Viewer};
use parking_lot::Mutex;

use super::super::record::Draft;
use super::super::{Asking, Authorizer, Denial, Refused};
use super::{HttpAsk, http_net};
use crate::generation::Stamp;
use crate::telemetry::decisions::DecisionAction;

/// How long an answer to `open` is kept.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Answers to `open` that are kept, at some 1 KiB each.
const KEPT_ANSWERS: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

/// Answers to `open` that may be given again.
#[derive(Debug)]
pub(in super::super) struct OpenAnswers(Mutex<LruCache<OpenKey, OpenAnswer>>);

/// Everything that an answer to `open` depends on, but for what the module names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OpenKey {
    stamp: Stamp,
    viewer: Viewer,
    connector: Name,
    agent: Name,
    listener: Name,
    client: SocketAddr,
    tls: Option<Tls>,
    signals: Signals,
}

#[derive(Clone, Debug)]
struct OpenAnswer {
    asked: Instant,
    answer: Result<Arc<Question>, Denial>,
}

impl Default for OpenAnswers {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT_ANSWERS)))
    }
}

impl OpenAnswers {
    fn find(&self, key: &OpenKey) -> Option<Result<Arc<Question>, Denial>> {
        let mut answers = self.0.lock();
        let found = answers.get(key)?;
        (found.asked.elapsed() < KEPT_FOR).then(|| found.answer.clone())
    }

    fn keep(&self, key: OpenKey, answer: Result<Arc<Question>, Denial>) {
        let asked = Instant::now();
        self.0.lock().put(key, OpenAnswer { asked, answer });
    }
}

impl Authorizer {
    /// Whether the viewer may reach the connector at all; kept, with a record of its own where it
    /// is asked anew.
    pub(super) fn connector_open(
        &self,
        ask: &HttpAsk<'_>,
        request: &mut Asking,
        signals: &Signals,
    ) -> Result<Arc<Question>, Denial> {
        let key = OpenKey {
            stamp: request.stamp,
            viewer: ask.viewer.clone(),
            connector: ask.connector.clone(),
            agent: ask.agent.clone(),
            listener: ask.listener.clone(),
            client: ask.client,
            tls: ask.tls.cloned(),
            signals: signals.clone(),
        };
        if let Some(answer) = self.open_answers.find(&key) {
            return answer;
        }
        let mut asking = Asking::begin(self);
        asking.generation = Arc::clone(&request.generation);
        let question = Arc::new(Question::Open(Open {
            net: http_net(ask),
            meta: self.meta(asking.now, &asking.request_id),
            viewer: ask.viewer.clone(),
            connector: ask.connector.clone(),
            agent: ask.agent.clone(),
            open_flows: ask.open_flows,
            via_mesh: false,
            signals: signals.clone(),
        }));
        let decision = self.judged(DecisionAction::Open, &mut asking, &question);
        request.policy_time += decision.took;
        let draft = Draft::new(self, &asking, DecisionAction::Open)
            .principal("Viewer", ask.viewer.id())
            .resource("Connector", ask.connector.as_str())
            .client(ask.client)
            .listener(ask.listener_text)
            .agent(ask.agent.as_str())
            .connector(ask.connector.as_str())
            .question(&question)
            .policies(&decision);
        let answer = if decision.allow {
            draft.allow();
            Ok(question)
        } else {
            let refused = Refused::by_policy(&decision);
            draft.deny(&refused);
            self.metrics.hub.denied_open(&refused.code);
            Err(refused.into_denial(asking.id))
        };
        self.open_answers.keep(key, answer.clone());
        answer
    }
}
