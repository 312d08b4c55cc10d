//! One request, from its head to the end of its response.
//!
//! ```text
//! head ─► route ─► limits, addresses ─► who asks ─► agent ─► decision, plugins ─► origin ─► plugins ─► viewer
//!                                         ▲                             │
//!                                         └──────── not reached ────────┘
//! ```
//! Every way out is a response with a [`Running`], or a [`Failure`]; both leave an [`Account`].

mod asking;
mod attempt;
mod forward;

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderName, HeaderValue, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

use super::account::{Account, End};
use super::authority;
use super::body::{ReplyBody, RequestBody};
use super::door::Viewer;
use super::failure::{Failure, Wants};
use super::head::Head;
use super::headers;
use super::leash::Leash;
use super::patience::Patience;
use super::progress::Progress;
use super::reply;
use super::route::Route;
use super::running::Running;
use super::shares::{NoShare, Share};
use super::sign_in;
use super::trace;
use crate::authorize::Refused;
use crate::codes::DenialCode;
use crate::router::Candidate as _;
use crate::session::LiveTunnel;
use crate::telemetry::decisions::Why;
use crate::telemetry::metrics::Retry;
use crate::viewer::SignedIn;
use asking::Asked;
use attempt::Tried;

/// Answers one request.
pub(crate) async fn answer(viewer: Arc<Viewer>, request: Request<Incoming>) -> Response<ReplyBody> {
    if let Some(response) = authority::answer(&viewer, &request) {
        return response;
    }
    let wants = Wants::of(request.headers());
    let rules = viewer.door.rules();
    let mut account = Some(Box::new(Account::begin(
        &viewer.hub,
        &rules.text,
        viewer.peer,
        request.method(),
        request.version(),
    )));
    if let Some(account) = &account {
        let peer = viewer.peer.ip();
        trace::take_up(&account.span, request.headers(), &rules, peer);
    }
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
    let over_http2 = request.version() == Version::HTTP_2;
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let noted = account.as_mut().ok_or_else(Failure::overloaded)?;
    let mut head = Head::read(viewer, parts, noted)?;
    let route = head.route(viewer)?;
    noted.routed(&route);
    let share = hub.ingress.requests.take(head.client.ip());
    let share = share.map_err(|none| match none {
        NoShare::InAll => Failure::overloaded().with_detail("max_requests"),
        NoShare::OfSource => Failure::source_busy(),
    })?;
    head.admit(viewer, &route)?;
    if let Some(mut response) = sign_in::published_keys(viewer, &route, &head) {
        reply::put_id(response.headers_mut(), noted);
        noted.answered(response.status());
        noted.end = End::Complete;
        return Ok(response);
    }
    let signed_in = sign_in::sign_in(viewer, &route, &mut head, noted).await?;
    let assertion = sign_in::assertion(viewer, &route, &head, &signed_in)?;
    let has_body = !body.is_end_stream();
    let too_large = |max| body.size_hint().lower() > max;
    if route.config.max_body_bytes.is_some_and(too_large) {
        return Err(Failure::body_too_large());
    }
    let progress = Arc::new(Progress::new(!has_body));
    noted.progress = Some(Arc::clone(&progress));
    let patience = {
        let limits = &hub.config.load().ingress.limits;
        let min_rate = limits.min_rate.filter(|_| route.config.min_rate);
        Patience::new(limits.body_timeout, min_rate)
    };
    let body = RequestBody::new(
        has_body.then_some(body),
        Arc::clone(&progress),
        route.config.max_body_bytes,
        patience,
    )
    .withholding(hub.ingress.identity_names.load_full());
    let exchange = Exchange {
        viewer,
        route: &route,
        head,
        signed_in,
        assertion,
        has_body,
        over_http2,
        progress: &progress,
    };
    exchange.run(body, share, account, on_upgrade).await
}

/// A request that has a route, on its way to an origin.
struct Exchange<'a> {
    viewer: &'a Arc<Viewer>,
    route: &'a Arc<Route>,
    head: Head,
    signed_in: SignedIn,
    /// What services are told of the viewer under a signature. No plugin sees or changes it.
    assertion: Option<(HeaderName, Option<HeaderValue>)>,
    has_body: bool,
    /// Whether its viewer speaks HTTP/2.
    over_http2: bool,
    progress: &'a Arc<Progress>,
}

impl Exchange<'_> {
    async fn run(
        mut self,
        mut body: RequestBody,
        share: Share,
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
                return Err(last.map_or_else(|| self.offline(), |(failure, _)| failure));
            };
            if let Some((_, why)) = last.take() {
                hub.metrics.http.retried(why);
            }
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
                Err(Tried::Again(failure, back, why)) => {
                    if why == Retry::Stale {
                        if fresh {
                            return Err(failure);
                        }
                        fresh = true;
                    } else {
                        tried.push(tunnel.session());
                        let tries = u32::try_from(tried.len()).unwrap_or(u32::MAX);
                        if tries > self.route.config.retries {
                            return Err(failure);
                        }
                        fresh = false;
                    }
                    (body, last) = (back, Some((failure, why)));
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
                hold: Leash::current().map(|leash| leash.hold(&place.request)),
                place,
                _share: share,
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
            trace::put(&account.span, &mut head.headers);
        }
        Ok(())
    }

    /// The agent for the next try.
    fn agent(&self, tried: &[u64]) -> Option<Arc<LiveTunnel>> {
        let (hub, route) = (&self.viewer.hub, self.route);
        let down = route.connector.down();
        let usable =
            |tunnel: &LiveTunnel| !tried.contains(&tunnel.session()) && !down.has(tunnel.agent());
        let pool = hub.router().pool(&route.connector.key)?;
        if !route.config.agent_label {
            return hub.ingress.sticky.choose(route, &self.head, &pool, usable);
        }
        let agent = self.head.agent_named(route)?;
        let named = pool.of(&agent)?;
        (named.takes_flows() && usable(named)).then(|| Arc::clone(named))
    }

    fn offline(&self) -> Failure {
        let refused = Refused::by_hub(
            Why::NoAgent,
            DenialCode::NoAgentForConnector,
            "no agent that is connected offers the connector",
        );
        let denied = self.head.refused(self.viewer, self.route, refused);
        let failure = if !self.route.config.agent_label {
            Failure::endpoint_offline()
        } else if let Some(failure) = sign_in::of_nobody(self.route, &self.signed_in) {
            failure
        } else {
            // Whether there ever was such an agent is nobody's concern.
            Failure::unknown_host()
        };
        failure.with_decision(denied.decision)
    }
}
