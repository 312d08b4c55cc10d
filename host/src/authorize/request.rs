//! HTTP: may this viewer send this request to this endpoint, and what do plugins make of it.
//!
//! ```text
//! expiry, revocation ─► enrichers ─► Cedar `open` on the connector ─► Cedar `http-request` ─► PDP
//!                                         (kept for a second)            └─► plugins: edits, reply, deny
//! ```
//! The answer to `open` is the same for all requests of one viewer's connection as long as nothing
//! that policies look at has changed, so it is kept for `kept::KEPT_FOR` and asked anew with another
//! generation. What it may be late about is the time of day, the number of open flows and changed
//! facts about agent and connector, by that second; expiry and revocation are asked each time.

mod kept;
mod response;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use nowconnect_plugins as plugins;
use nowconnect_plugins::{
    Agent, CallInfo, Carry, Edit, Enrich, Field, Head, Hook, HttpLine, HttpRequestOutcome,
};
use nowconnect_policy::{Decision, Http, HttpRequest, Name, Question, Signals, Tls, Viewer};
use nowconnect_protocol::TenantName;

use super::record::Draft;
use super::running::Running;
use super::{Asking, Authorizer, Denial, MAX_ATTEMPTS, Refused, enriched, plugin_tenant};
use crate::config::PdpKind;
use crate::generation::{Generation, Stamp};
use crate::identity::AgentIdentity;
use crate::telemetry::decisions::{DecisionAction, DecisionId};
pub(super) use kept::OpenAnswers;
pub(crate) use response::ResponseAnswer;

/// What is asked about one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpAsk<'a> {
    /// The listener as policies know it, in the tenant of the endpoint.
    pub(crate) listener: &'a Name,
    pub(crate) listener_text: &'a Arc<str>,
    /// The endpoint as policies know it.
    pub(crate) endpoint: &'a Name,
    pub(crate) endpoint_text: &'a str,
    /// The connector behind it as policies know it.
    pub(crate) connector: &'a Name,
    pub(crate) connector_text: &'a str,
    /// Whose endpoint and connector that are.
    pub(crate) tenant: &'a TenantName,
    /// The viewer's address, after trusted proxies.
    pub(crate) client: SocketAddr,
    /// What the handshake told, where TLS ended here.
    pub(crate) tls: Option<&'a Tls>,
    /// Who the viewer is.
    pub(crate) viewer: &'a Viewer,
    pub(crate) plugin_viewer: &'a plugins::Viewer,
    /// What the agent's token proves.
    pub(crate) identity: &'a AgentIdentity,
    /// The agent as policies know it.
    pub(crate) agent: &'a Name,
    /// The agent as plugins see it.
    pub(crate) plugin_agent: &'a Agent,
    /// The request line in its one form.
    pub(crate) http: &'a Http,
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    /// Host and port as the viewer named them.
    pub(crate) authority: &'a str,
    /// As it will be forwarded.
    pub(crate) path_with_query: &'a str,
    /// As they will be forwarded.
    pub(crate) headers: &'a HeaderMap,
    /// The flows that the connector has now.
    pub(crate) open_flows: u32,
    /// Bound on all plugins together.
    pub(crate) pipeline_timeout: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum HttpAnswer {
    /// It may be sent on.
    Pass(HttpPermit),
    /// A plugin answers in place of the origin.
    Reply(PluginReply, DecisionId),
    /// It may not.
    Denied(Denial),
    /// A plugin that must answer did not.
    Failed(Denial),
}

/// The request may be sent on; only the pipeline makes one.
#[derive(Debug)]
pub(crate) struct HttpPermit {
    open: Arc<Question>,
    request: Arc<Question>,
    stamp: Stamp,
    generation: Arc<Generation>,
    decision: DecisionId,
    request_id: Arc<str>,
    edits: Vec<Edit>,
    carry: Carry,
}

/// A plugin's own answer.
#[derive(Debug)]
pub(crate) struct PluginReply {
    /// Who answered.
    pub(crate) plugin: Arc<str>,
    pub(crate) status: u16,
    pub(crate) headers: Vec<Field>,
    pub(crate) body: Vec<u8>,
}

impl HttpPermit {
    /// What was asked, to be asked again.
    pub(crate) fn questions(&self) -> [Arc<Question>; 2] {
        [Arc::clone(&self.open), Arc::clone(&self.request)]
    }

    /// The generation that allowed it.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.number()
    }

    /// What it rests on. Whoever sends the request on compares it with what is in force then.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Names the record.
    pub(crate) fn decision(&self) -> DecisionId {
        self.decision
    }

    /// What plugins change of the request's fields, in this order.
    pub(crate) fn edits(&self) -> &[Edit] {
        &self.edits
    }
}

/// How a step of the pipeline ends it.
enum Stop {
    /// To be recorded with this decision.
    Refused(Refused),
    /// The connector may not be opened; recorded with a decision of its own.
    Open(Denial),
    /// A plugin that must answer did not; recorded with this decision.
    Failed(Refused),
    Reply(PluginReply),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// What the record should show, whatever the outcome.
#[derive(Default)]
struct Seen {
    open: Option<Arc<Question>>,
    request: Option<Arc<Question>>,
    decision: Option<Decision>,
}

impl Authorizer {
    /// Decides about one request through one agent. Limits and address rules were checked before.
    pub(crate) async fn http_request(&self, ask: &HttpAsk<'_>) -> HttpAnswer {
        let mut attempt = 1;
        loop {
            let mut asking = Asking::begin(self);
            let mut seen = Seen::default();
            let outcome = self.http_steps(ask, &mut asking, &mut seen).await;
            let overtaken = self.is_overtaken(&asking);
            if overtaken && attempt < MAX_ATTEMPTS {
                attempt += 1;
                let action = DecisionAction::HttpRequest;
                self.metrics.policy.decided_again(action);
                continue;
            }
            let outcome = match outcome {
                Ok(_) | Err(Stop::Reply(_)) if overtaken => Err(Refused::changing().into()),
                outcome => outcome,
            };
            return self.http_decided(ask, asking, seen, outcome);
        }
    }

    fn http_decided(
        &self,
        ask: &HttpAsk<'_>,
        asking: Asking,
        seen: Seen,
        outcome: Result<(Vec<Edit>, Carry), Stop>,
    ) -> HttpAnswer {
        let mut draft = Draft::new(self, &asking, DecisionAction::HttpRequest)
            .principal("Viewer", ask.viewer.id())
            .resource("Endpoint", ask.endpoint.as_str())
            .client(ask.client)
            .listener(ask.listener_text)
            .agent(ask.agent.as_str())
            .connector(ask.connector.as_str());
        if let Some(question) = &seen.request {
            draft = draft.question(question);
        }
        if let Some(decision) = &seen.decision {
            draft = draft.policies(decision);
        }
        match outcome {
            Ok((edits, carry)) => {
                draft.allow();
                let now = || Arc::new(self.http_question(ask, &asking, Signals::default()));
                HttpAnswer::Pass(HttpPermit {
                    open: seen.open.unwrap_or_else(now),
                    request: seen.request.unwrap_or_else(now),
                    stamp: asking.stamp,
                    generation: asking.generation,
                    decision: asking.id,
                    request_id: asking.request_id,
                    edits,
                    carry,
                })
            }
            Err(Stop::Reply(reply)) => {
                draft.allow();
                HttpAnswer::Reply(reply, asking.id)
            }
            Err(Stop::Open(denial)) => HttpAnswer::Denied(denial),
            Err(Stop::Refused(refused)) => {
                draft.deny(&refused);
                HttpAnswer::Denied(refused.into_denial(asking.id))
            }
            Err(Stop::Failed(refused)) => {
                draft.deny(&refused);
                HttpAnswer::Failed(refused.into_denial(asking.id))
            }
        }
    }

    /// A denial that came before an agent was chosen: a limit, an address rule, no agent. Leaves a
    /// record like any other.
    pub(crate) fn refuse_request(
        &self,
        client: SocketAddr,
        listener: &Arc<str>,
        (endpoint, connector): (&Name, &Name),
        refused: Refused,
    ) -> Denial {
        let asking = Asking::begin(self);
        Draft::new(self, &asking, DecisionAction::HttpRequest)
            .principal("Viewer", "anonymous")
            .resource("Endpoint", endpoint.as_str())
            .client(client)
            .listener(listener)
            .connector(connector.as_str())
            .deny(&refused);
        refused.into_denial(asking.id)
    }

    /// Asks about a running request again; see [`recheck`](Self::recheck).
    ///
    /// # Errors
    /// It may not go on.
    pub(crate) async fn recheck_request(
        &self,
        [open, request]: &[Arc<Question>; 2],
        identity: &AgentIdentity,
        (client, listener): (SocketAddr, &Arc<str>),
    ) -> Result<u64, Denial> {
        // As it was asked at first: the simple form knows connecting only.
        let kind = self.pdp().map(|pdp| pdp.kind());
        let (about_open, about_request) = match kind {
            Some(PdpKind::Simple) => (true, false),
            Some(PdpKind::Authzen) | None => (false, true),
        };
        let running = |question, external| Running {
            question,
            client: Some(client),
            listener,
            flow: None,
            external,
        };
        self.recheck_running(&running(open, about_open), identity)
            .await?;
        self.recheck_running(&running(request, about_request), identity)
            .await
    }

    async fn http_steps(
        &self,
        ask: &HttpAsk<'_>,
        asking: &mut Asking,
        seen: &mut Seen,
    ) -> Result<(Vec<Edit>, Carry), Stop> {
        self.check_identity(ask.identity, asking.now)?;
        let generation = Arc::clone(&asking.generation);
        let set = generation.plugins();
        let (enrich, gate) = (set.has(Hook::Enrich), set.has(Hook::HttpRequest));
        let pdp = self.pdp();
        if !enrich && !gate && pdp.is_none() {
            self.http_policies(ask, asking, seen, Signals::default())?;
            return Ok((Vec::new(), Carry::default()));
        }
        let _slot = self.pending.take().ok_or_else(Refused::overloaded)?;
        // The decision point has a bound of its own, which plugins do not eat into.
        let external = pdp.as_ref().map_or(Duration::ZERO, |pdp| pdp.timeout());
        let deadline = asking.started + ask.pipeline_timeout;
        let steps = async {
            let peer = plugin_peer(ask);
            let request_id = Arc::clone(&asking.request_id);
            let mut call = CallInfo {
                request_id: &request_id,
                tenant: plugin_tenant(ask.tenant),
                deadline: Some(deadline),
                generation: generation.number(),
                ..CallInfo::default()
            };
            let mut signals = Signals::default();
            let mut carry = Carry::default();
            if enrich {
                let names: Vec<&str> = ask.http.header_names.iter().map(String::as_str).collect();
                let line = HttpLine {
                    method: &ask.http.method,
                    authority: ask.authority,
                    path: &ask.http.path,
                    header_names: &names,
                };
                let question = Enrich {
                    connector: ask.connector_text,
                    listener: ask.listener_text,
                    peer: &peer,
                    viewer: ask.plugin_viewer,
                    http: Some(&line),
                };
                (signals, carry) = enriched(set, &call, &question, asking).await;
            }
            self.http_policies(ask, asking, seen, signals)?;
            if let Some(pdp) = &pdp {
                // The simple form knows connecting only.
                let question = match pdp.kind() {
                    PdpKind::Authzen => seen.request.clone(),
                    PdpKind::Simple => seen.open.clone(),
                };
                if let Some(question) = question {
                    self.open_external(asking, pdp, &question).await?;
                    call.deadline = Some(deadline + asking.pdp_time);
                }
            }
            if !gate {
                return Ok((Vec::new(), carry));
            }
            let call = CallInfo {
                carry: Some(&carry),
                ..call
            };
            let started = Instant::now();
            let headers = fields(ask.headers);
            let question = plugins::HttpRequest {
                head: Head {
                    method: &ask.http.method,
                    scheme: ask.scheme,
                    authority: ask.authority,
                    path_with_query: ask.path_with_query,
                    headers: &headers,
                },
                peer: &peer,
                viewer: ask.plugin_viewer,
                agent: ask.plugin_agent,
                endpoint: ask.endpoint_text,
                connector: ask.connector_text,
            };
            let answer = set.http_request(&call, &question).await;
            asking.plugin_time += started.elapsed();
            match answer {
                HttpRequestOutcome::Forward { edits, carry } => Ok((edits, carry)),
                HttpRequestOutcome::Reply {
                    plugin,
                    status,
                    headers,
                    body,
                } => Err(Stop::Reply(PluginReply {
                    plugin,
                    status,
                    headers,
                    body,
                })),
                HttpRequestOutcome::Deny(denial) => Err(Refused::by_plugin(denial).into()),
                HttpRequestOutcome::Failed(denial) => Err(Stop::Failed(Refused::by_plugin(denial))),
            }
        };
        let outcome = match tokio::time::timeout_at((deadline + external).into(), steps).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(Stop::Failed(Refused::too_slow())),
        };
        // The token may have run out, or been revoked, while others were waited for.
        self.check_identity(ask.identity, SystemTime::now())?;
        Ok(outcome)
    }

    fn http_policies(
        &self,
        ask: &HttpAsk<'_>,
        asking: &mut Asking,
        seen: &mut Seen,
        signals: Signals,
    ) -> Result<(), Stop> {
        let open = self.connector_open(ask, asking, &signals);
        seen.open = Some(open.map_err(Stop::Open)?);
        let question = Arc::new(self.http_question(ask, asking, signals));
        let decision = self.judged(DecisionAction::HttpRequest, asking, &question);
        seen.request = Some(question);
        let outcome = if decision.allow {
            Ok(())
        } else {
            Err(Refused::by_policy(&decision).into())
        };
        seen.decision = Some(decision);
        outcome
    }

    fn http_question(&self, ask: &HttpAsk<'_>, asking: &Asking, signals: Signals) -> Question {
        Question::HttpRequest(HttpRequest {
            net: http_net(ask),
            meta: self.meta(asking.now, &asking.request_id),
            viewer: ask.viewer.clone(),
            endpoint: ask.endpoint.clone(),
            connector: ask.connector.clone(),
            agent: ask.agent.clone(),
            http: ask.http.clone(),
            signals,
        })
    }
}

fn http_net(ask: &HttpAsk<'_>) -> nowconnect_policy::Net {
    nowconnect_policy::Net {
        tls: ask.tls.cloned(),
        ..super::net(ask.client, ask.listener.clone())
    }
}

fn plugin_peer(ask: &HttpAsk<'_>) -> plugins::Peer {
    let tls = ask.tls;
    plugins::Peer {
        tls_version: tls.map(|tls| {
            let version = tls.version.strip_prefix("TLSv").unwrap_or(&tls.version);
            version.to_owned()
        }),
        sni: tls.and_then(|tls| tls.sni.clone()),
        client_san: tls.and_then(|tls| tls.client_san.clone()),
        ..super::plugin_peer(ask.client)
    }
}

fn fields(headers: &HeaderMap) -> Vec<Field> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect()
}
