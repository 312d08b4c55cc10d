//! One request, from its head to the end of its response.
//!
//! ```text
//! head ─► route ─► limits, addresses ─► agent ─► decision, plugins ─► origin ─► plugins ─► viewer
//!                                         ▲                             │
//!                                         └──────── not reached ────────┘
//! ```
//! Every way out is a response with a [`Running`], or a [`Failure`]; both leave an [`Account`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, HeaderName, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use nowconnect_plugins as plugins;
use nowconnect_policy::{Http, Viewer as PolicyViewer};
use nowconnect_protocol::ResetCode;
use tracing::Instrument as _;

use super::account::{Account, End};
use super::body::{OriginBody, ReplyBody, RequestBody};
use super::cookies;
use super::door::Viewer;
use super::failure::{Failure, Wants};
use super::head::Head;
use super::headers;
use super::in_flight::{InFlight, InFlightPlace};
use super::pool::PoolKey;
use super::progress::{Progress, Trouble};
use super::reply;
use super::route::Route;
use super::running::Running;
use super::sender::SendError;
use super::upgrade;
use super::upstream::{FlowState, NoUpstream, Upstream};
use crate::authorize::{HttpAnswer, HttpAsk, HttpPermit, Refused, ResponseAnswer, policy_name};
use crate::codes::DenialCode;
use crate::limit::Slot;
use crate::router::Candidate as _;
use crate::session::LiveTunnel;
use crate::telemetry::decisions::{DecisionId, Why};
use crate::telemetry::traces;

const ALT_SVC: HeaderName = HeaderName::from_static("alt-svc");

/// Answers one request.
pub(crate) async fn answer(viewer: Arc<Viewer>, request: Request<Incoming>) -> Response<ReplyBody> {
    let wants = Wants::of(request.headers());
    let rules = viewer.door.rules();
    let mut account = Some(Box::new(Account::begin(
        &viewer.hub,
        &rules.text,
        viewer.peer,
        request.method(),
        request.version(),
    )));
    drop(rules);
    match serve(&viewer, request, &mut account).await {
        Ok(response) => response,
        Err(failure) => {
            let Some(mut account) = account else {
                // The account went with a response; then there is no failure.
                return failure.respond(wants, super::request_id::RequestId::random());
            };
            let response = failure.respond(wants, account.id);
            account.failed(failure);
            response
        }
    }
}

async fn serve(
    viewer: &Arc<Viewer>,
    mut request: Request<Incoming>,
    account: &mut Option<Box<Account>>,
) -> Result<Response<ReplyBody>, Failure> {
    let hub = &viewer.hub;
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let noted = account.as_mut().ok_or_else(Failure::overloaded)?;
    let head = Head::read(viewer, parts, noted)?;
    let route = head.route(viewer)?;
    noted.routed(&route);
    let slot = hub
        .ingress
        .requests
        .take()
        .ok_or_else(Failure::overloaded)?;
    head.admit(viewer, &route)?;
    let has_body = !body.is_end_stream();
    let too_large = |max| body.size_hint().lower() > max;
    if route.config.max_body_bytes.is_some_and(too_large) {
        return Err(Failure::body_too_large());
    }
    let progress = Arc::new(Progress::new(!has_body));
    noted.progress = Some(Arc::clone(&progress));
    let body = RequestBody::new(
        has_body.then_some(body),
        Arc::clone(&progress),
        route.config.max_body_bytes,
        hub.config.load().ingress.limits.body_timeout,
    );
    let exchange = Exchange {
        viewer,
        route: &route,
        head,
        has_body,
        progress: &progress,
    };
    exchange.run(body, slot, account, on_upgrade).await
}

/// A request that has a route, on its way to an origin.
struct Exchange<'a> {
    viewer: &'a Arc<Viewer>,
    route: &'a Arc<Route>,
    head: Head,
    has_body: bool,
    progress: &'a Arc<Progress>,
}

/// What the decision makes of a request.
enum Asked {
    Pass(Box<HttpPermit>),
    /// A plugin has answered.
    Reply(Box<Response<ReplyBody>>, DecisionId),
}

/// Why no response came.
enum Waited {
    NotStarted(ResetCode, RequestBody),
    Http(SendError),
    Timeout,
    Cut,
    /// It could not be sent as it is.
    Unfit(Failure),
}

/// How one try ended without a response.
enum Tried {
    /// Certainly nothing of it reached an origin: it may be tried elsewhere.
    NotReached(Failure, RequestBody),
    /// A connection that was kept had ended: it may be tried on a new one.
    Stale(Failure, RequestBody),
    Failed(Failure),
}

impl From<Failure> for Tried {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Exchange<'_> {
    async fn run(
        mut self,
        mut body: RequestBody,
        slot: Slot,
        account: &mut Option<Box<Account>>,
        on_upgrade: OnUpgrade,
    ) -> Result<Response<ReplyBody>, Failure> {
        let hub = &self.viewer.hub;
        self.complete_headers(account)?;
        let mut tried: Vec<u64> = Vec::new();
        let mut fresh = false;
        let mut last = None;
        loop {
            let Some(tunnel) = self.agent(&tried) else {
                return Err(last.unwrap_or_else(|| self.offline()));
            };
            let Some(noted) = account.as_mut() else {
                return Err(Failure::overloaded());
            };
            noted.agent = Some(tunnel.key.clone());
            let permit = match self.ask(&tunnel, noted).await? {
                Asked::Pass(permit) => permit,
                Asked::Reply(response, decision) => {
                    noted.decision = Some(decision);
                    noted.answered(response.status());
                    noted.end = End::Complete;
                    return Ok(*response);
                }
            };
            noted.decision = Some(permit.decision());
            let place = self.enter(&tunnel, &permit, noted).await?;
            let tried_now = self
                .send(&tunnel, &permit, &place, body, fresh, noted)
                .await;
            let (response, upstream) = match tried_now {
                Ok(answered) => answered,
                Err(Tried::Failed(failure)) => return Err(failure),
                Err(Tried::NotReached(failure, back)) => {
                    tried.push(tunnel.session());
                    let tries = u32::try_from(tried.len()).unwrap_or(u32::MAX);
                    if tries > self.route.config.retries {
                        return Err(failure);
                    }
                    hub.metrics.http.retried();
                    (body, fresh, last) = (back, false, Some(failure));
                    continue;
                }
                Err(Tried::Stale(failure, back)) => {
                    if fresh {
                        return Err(failure);
                    }
                    hub.metrics.http.retried();
                    (body, fresh) = (back, true);
                    continue;
                }
            };
            self.progress.answered();
            let Some(account) = account.take() else {
                return Err(Failure::overloaded());
            };
            let running = Box::new(Running {
                account,
                progress: Arc::clone(self.progress),
                upstream: Some(upstream),
                place,
                _slot: slot,
            });
            return Ok(self.forward(response, &permit, running, on_upgrade).await);
        }
    }

    /// What every origin is told, whichever it will be.
    fn complete_headers(&mut self, account: &Option<Box<Account>>) -> Result<(), Failure> {
        let hub = &self.viewer.hub;
        let tell = hub.config.load().ingress.forwarded_headers;
        let head = &mut self.head;
        let peer = self.viewer.peer.ip();
        head.from
            .put(&mut head.headers, peer, &head.authority, tell);
        let host = match &self.route.config.host_header {
            Some(host) => host.clone(),
            None => HeaderValue::from_str(&head.authority.to_string())
                .map_err(|error| Failure::bad_host().with_detail(error))?,
        };
        head.headers.insert(HOST, host);
        // The framing is that of the body as it was read.
        head.headers.remove(CONTENT_LENGTH);
        if let Some(account) = account {
            let id = account.id.to_string();
            if let Ok(id) = HeaderValue::from_str(&id) {
                head.headers.insert(headers::REQUEST_ID, id);
            }
            if let Some(parent) = traces::trace_parent(&account.span)
                && let Ok(parent) = HeaderValue::from_str(&parent.to_string())
            {
                head.headers
                    .insert(HeaderName::from_static("traceparent"), parent);
            }
        }
        Ok(())
    }

    fn agent(&self, tried: &[u64]) -> Option<Arc<LiveTunnel>> {
        let pool = self.viewer.hub.router().pool(&self.route.connector.key)?;
        pool.pick(self.route.config.balance, self.head.client.ip(), tried)
    }

    fn offline(&self) -> Failure {
        let refused = Refused::by_hub(
            Why::NoAgent,
            DenialCode::NoAgentForConnector,
            "no agent that is connected offers the connector",
        );
        let denied = self.head.refused(self.viewer, self.route, refused);
        Failure::endpoint_offline().with_decision(denied.decision)
    }

    async fn ask(&self, tunnel: &LiveTunnel, account: &Account) -> Result<Asked, Failure> {
        let (viewer, route, head) = (self.viewer, self.route, &self.head);
        let hub = &viewer.hub;
        let rules = viewer.door.rules();
        let standing = tunnel.standing();
        let listener = policy_name(&route.config.tenant, &rules.text);
        let authority = head.authority.to_string();
        let http = Http {
            method: head.method.as_str().to_owned(),
            host: head.authority.host.clone(),
            path: head.path.clone(),
            header_names: head.header_names.clone(),
        };
        let ask = HttpAsk {
            listener: &listener,
            listener_text: &rules.text,
            endpoint: &route.endpoint,
            endpoint_text: route.config.name.as_str(),
            connector: &route.connector.name,
            connector_text: route.connector.key.name.as_str(),
            tenant: &route.config.tenant,
            client: head.client,
            tls: viewer.tls.as_ref(),
            viewer: &PolicyViewer::Anonymous,
            plugin_viewer: &plugins::Viewer::default(),
            identity: &standing.identity,
            agent: &tunnel.name,
            plugin_agent: &standing.agent,
            http: &http,
            scheme: head.from.scheme(),
            authority: &authority,
            path_with_query: head.target.as_str(),
            headers: &head.headers,
            open_flows: u32::try_from(route.connector.flows.taken()).unwrap_or(u32::MAX),
            pipeline_timeout: hub.config.load().plugins.pipeline_timeout,
        };
        let decision = traces::decision_span(&account.span);
        let answer = hub
            .authorizer()
            .http_request(&ask)
            .instrument(decision)
            .await;
        match answer {
            HttpAnswer::Pass(permit) => Ok(Asked::Pass(Box::new(permit))),
            HttpAnswer::Reply(reply, decision) => {
                let response = reply::plugins_own(reply, account);
                response.map(|response| Asked::Reply(Box::new(response), decision))
            }
            HttpAnswer::Denied(denial) => {
                hub.denied.fetch_add(1, Ordering::Relaxed);
                Err(Failure::by_denial(&denial))
            }
            HttpAnswer::Failed(denial) => Err(Failure::plugin_failed()
                .with_detail(&denial)
                .with_decision(Some(denial.decision))),
        }
    }

    /// Puts the request into the table of those under way. Policies that came into force since it
    /// was asked about did not see it there, so it is asked about again.
    async fn enter(
        &self,
        tunnel: &LiveTunnel,
        permit: &HttpPermit,
        account: &Account,
    ) -> Result<InFlightPlace, Failure> {
        let hub = &self.viewer.hub;
        let listener = policy_name(&self.route.config.tenant, &self.viewer.door.rules().text);
        let request = InFlight::new(
            account.id,
            (self.route.endpoint.clone(), listener),
            tunnel.key.clone(),
            (self.head.client, Arc::clone(&self.viewer.door.rules().text)),
            (permit.questions(), permit.generation(), hub.rounds.newest()),
        );
        let place = hub.ingress.in_flight.insert(request);
        if hub.generations().stamp() != permit.stamp() {
            let identity = Arc::clone(&tunnel.standing().identity);
            let from = (self.head.client, &self.viewer.door.rules().text);
            hub.authorizer()
                .recheck_request(&permit.questions(), &identity, from)
                .await
                .map_err(|denial| Failure::by_denial(&denial))?;
        }
        Ok(place)
    }

    async fn send(
        &self,
        tunnel: &Arc<LiveTunnel>,
        permit: &HttpPermit,
        place: &InFlightPlace,
        body: RequestBody,
        fresh: bool,
        account: &Account,
    ) -> Result<(Response<Incoming>, Upstream), Tried> {
        let mut upstream = match self.connection(tunnel, fresh, account).await {
            Ok(upstream) => upstream,
            Err(NoUpstream::NotStarted(code)) => {
                let failure = Failure::origin_unreachable().with_detail(code.as_str());
                return Err(Tried::NotReached(failure, body));
            }
            Err(NoUpstream::Denied(denial)) => return Err(Failure::by_denial(&denial).into()),
            Err(NoUpstream::Full | NoUpstream::Rate) => {
                return Err(Failure::overloaded()
                    .with_detail("the connector's max_connections or rate")
                    .into());
            }
        };
        let waited = self.send_over(&mut upstream, permit, place, body).await;
        match waited {
            Ok(response) => Ok((response, upstream)),
            Err(Waited::Cut) => Err(Failure::denied()
                .with_detail("policies have changed")
                .into()),
            Err(Waited::Timeout) => Err(Failure::origin_timeout().into()),
            Err(Waited::NotStarted(code, body)) => {
                let failure = Failure::origin_unreachable().with_detail(code.as_str());
                Err(Tried::NotReached(failure, body))
            }
            Err(Waited::Unfit(failure)) => Err(failure.into()),
            Err(Waited::Http(error)) => Err(self.fault(error, &upstream)),
        }
    }

    async fn connection(
        &self,
        tunnel: &Arc<LiveTunnel>,
        fresh: bool,
        account: &Account,
    ) -> Result<Upstream, NoUpstream> {
        let (hub, route) = (&self.viewer.hub, self.route);
        let apart = route.keeps_viewers_apart();
        // A proxy's connection carries requests of many people, and an address may be one of many:
        // nothing tells who of them an origin took a connection for.
        let alone = apart && self.head.from.by_proxy;
        if apart && !alone {
            self.viewer.keeps_apart.store(true, Ordering::Relaxed);
        }
        let key = PoolKey {
            connector: route.connector.key.clone(),
            agent: tunnel.key.clone(),
            origin_http: route.config.origin_http,
            idle_timeout: route.times.idle_timeout,
            viewer: apart.then_some((self.viewer.number, self.head.client)),
        };
        if !fresh
            && !alone
            && let Some(upstream) = hub.ingress.pool.take(&key)
        {
            return Ok(upstream);
        }
        if !tunnel.rate.allows(hub.uptime()) {
            return Err(NoUpstream::Rate);
        }
        let client = apart.then_some(self.head.client);
        let mut upstream = Upstream::open(hub, route, tunnel, key, client, &account.span).await?;
        if alone {
            upstream.never_keep();
        }
        Ok(upstream)
    }

    async fn send_over(
        &self,
        upstream: &mut Upstream,
        permit: &HttpPermit,
        place: &InFlightPlace,
        body: RequestBody,
    ) -> Result<Response<Incoming>, Waited> {
        let mut headers = self.head.headers.clone();
        reply::apply(&mut headers, permit.edits()).map_err(Waited::Unfit)?;
        headers.remove(CONTENT_LENGTH);
        let http2 = upstream.is_http2();
        let target = if http2 {
            reply::absolute(&mut headers, &self.head.target).map_err(Waited::Unfit)?
        } else {
            Uri::from(self.head.target.clone())
        };
        // A plugin's own would ask for what the viewer did not.
        headers.remove(UPGRADE);
        match (self.head.websocket, self.head.takes_trailers) {
            (true, _) if http2 => {
                let why = "the service speaks HTTP/2, which knows no upgrade";
                return Err(Waited::Unfit(Failure::origin_protocol().with_detail(why)));
            }
            (true, _) => headers::put_websocket(&mut headers),
            (false, true) => headers::put_trailers(&mut headers, http2),
            (false, false) => {}
        }
        let opened = upstream.opened();
        let exchanged = async {
            // What a client sends once may be sent on once only: it waits until an origin is there.
            if self.has_body
                && !upstream.is_reused()
                && let Err(code) = upstream.connected().await
            {
                return Err(Waited::NotStarted(code, body));
            }
            let mut request = Request::new(body);
            *request.method_mut() = self.head.method.clone();
            *request.uri_mut() = target;
            *request.headers_mut() = headers;
            upstream.send(request).await.map_err(Waited::Http)
        };
        let timeout = self.route.config.response_timeout;
        tokio::select! {
            biased;
            () = place.request.until_cut() => Err(Waited::Cut),
            answered = exchanged => answered,
            () = self.origin_too_slow(opened, timeout) => Err(Waited::Timeout),
        }
    }

    /// Ready when the origin has let us wait for so long, the client's own delays left out. What
    /// came before the request could reach it counts apart: policies and plugins not at all,
    /// connecting by itself with the same bound.
    async fn origin_too_slow(&self, opened: impl Future<Output = ()>, timeout: Duration) {
        if tokio::time::timeout(timeout, opened).await.is_err() {
            return;
        }
        self.progress.begin();
        loop {
            let since = self.progress.origin_waits_since();
            let waited = since.map_or(Duration::ZERO, |since| since.elapsed());
            if waited >= timeout {
                return;
            }
            tokio::time::sleep(timeout - waited).await;
        }
    }

    /// What it means that no response came.
    fn fault(&self, failed: SendError, upstream: &Upstream) -> Tried {
        match self.progress.trouble() {
            Some(Trouble::TooLarge) => return Failure::body_too_large().into(),
            Some(Trouble::Timeout) => return Failure::body_timeout().into(),
            Some(Trouble::Broken) => return Failure::body_broken().into(),
            None => {}
        }
        let SendError { error, unsent } = failed;
        let was_sent = unsent.is_none();
        // Back from the HTTP client, or there was nothing in it to send.
        let body = unsent.or_else(|| {
            let none = || RequestBody::new(None, Arc::clone(self.progress), None, Duration::ZERO);
            (!self.has_body).then(none)
        });
        let state = upstream.state();
        if let FlowState::NotStarted(code) = state {
            let failure = Failure::origin_unreachable().with_detail(code.as_str());
            return match body {
                Some(body) => Tried::NotReached(failure, body),
                None => failure.into(),
            };
        }
        // An origin may end a connection that it keeps at any time. What it did with a request
        // that came at that moment cannot be known, so only what may be repeated is.
        let may_repeat = !was_sent || upstream.requests() > 1 && self.head.method.is_idempotent();
        if let Some(body) = body
            && may_repeat
            && !error.is_parse()
        {
            return Tried::Stale(Failure::origin_closed().with_detail(error), body);
        }
        if error.is_parse() {
            return Failure::origin_protocol().with_detail(error).into();
        }
        match state {
            FlowState::Reset(code) => Failure::origin_closed().with_detail(code.as_str()).into(),
            FlowState::Opening
            | FlowState::Open { .. }
            | FlowState::Finished
            | FlowState::NotStarted(_) => Failure::origin_closed().with_detail(error).into(),
        }
    }

    /// Sends an origin's response on.
    async fn forward(
        &self,
        mut response: Response<Incoming>,
        permit: &HttpPermit,
        mut running: Box<Running>,
        on_upgrade: OnUpgrade,
    ) -> Response<ReplyBody> {
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let is_asked_for = self.head.websocket && headers::names_websocket(response.headers());
        if switches && !is_asked_for {
            let why = "it switches to a protocol that was not asked for";
            return self.give_up(running, Failure::origin_protocol().with_detail(why));
        }
        let origin = switches.then(|| hyper::upgrade::on(&mut response));
        let (parts, body) = response.into_parts();
        let (status, mut headers) = (parts.status, parts.headers);
        headers::strip_hop(&mut headers);
        headers.remove(ALT_SVC);
        cookies::narrow(&mut headers, &self.head.authority.host);
        if self.route.config.rewrite_location
            && let Some(own) = &self.route.config.host_header
        {
            let shown = (self.head.from.scheme(), &self.head.authority);
            reply::turn_location(&mut headers, own, shown);
        }
        match self
            .ask_response(permit, (status, &headers), &running)
            .await
        {
            ResponseAnswer::Forward(edits) => {
                if let Err(failure) = reply::apply(&mut headers, &edits) {
                    return self.give_up(running, failure);
                }
            }
            ResponseAnswer::Reply(own) => {
                return match reply::plugins_own(own, &running.account) {
                    Ok(response) => {
                        running.account.answered(response.status());
                        running.account.end = End::Complete;
                        response
                    }
                    Err(failure) => self.give_up(running, failure),
                };
            }
            ResponseAnswer::Failed(denial) => {
                let failure = Failure::plugin_failed().with_detail(&denial.plugin);
                return self.give_up(running, failure);
            }
        }
        reply::put_id(&mut headers, &running.account);
        running.account.answered(status);
        let body = match origin {
            Some(origin) => {
                headers::put_websocket(&mut headers);
                upgrade::splice(Arc::clone(self.viewer), on_upgrade, origin, running);
                ReplyBody::empty()
            }
            None => ReplyBody::Origin(OriginBody::new(body, running)),
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer
    }

    async fn ask_response(
        &self,
        permit: &HttpPermit,
        (status, headers): (StatusCode, &http::HeaderMap),
        running: &Running,
    ) -> ResponseAnswer {
        let hub = &self.viewer.hub;
        let tenant = &self.route.config.tenant;
        let timeout = hub.config.load().plugins.pipeline_timeout;
        let decision = traces::decision_span(&running.account.span);
        let seen = (status.as_u16(), headers);
        hub.authorizer()
            .http_response(permit, tenant, seen, timeout)
            .instrument(decision)
            .await
    }

    /// Answers in place of the origin, whose response is thrown away.
    fn give_up(&self, mut running: Box<Running>, failure: Failure) -> Response<ReplyBody> {
        let response = failure.respond(self.head.wants, running.account.id);
        running.account.failed(failure);
        response
    }
}
