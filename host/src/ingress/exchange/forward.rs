//! An origin's response on its way back.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderName, REFERRER_POLICY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tracing::Instrument as _;

use super::Exchange;
use crate::authorize::{HttpPermit, ResponseAnswer};
use crate::ingress::account::End;
use crate::ingress::body::{OriginBody, ReplyBody};
use crate::ingress::caching::{Sharing, WITHOUT_COOKIES};
use crate::ingress::cookies;
use crate::ingress::failure::Failure;
use crate::ingress::headers;
use crate::ingress::reply;
use crate::ingress::running::Running;
use crate::ingress::upgrade;
use crate::registry::AgentKey;
use crate::telemetry::traces;

const ALT_SVC: HeaderName = HeaderName::from_static("alt-svc");

/// Bytes that one HTTP/2 stream is given at a time: so little that a viewer which takes them at all
/// takes them long before it counts as one that does not.
const STREAM_PIECE_BYTES: usize = 16 * 1024;

impl Exchange<'_> {
    /// Sends an origin's response on.
    pub(super) async fn forward(
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
        let until_close =
            headers::body_ends_with_connection(response.version(), response.headers());
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
        if let Some(agent) = &running.account.agent {
            self.name_agent(status, &mut headers, agent);
        }
        if self.signed_in.method == Some("signed_url") && !headers.contains_key(REFERRER_POLICY) {
            // The page's own address lets whoever reads it fetch the page.
            headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        }
        running.account.answered(status);
        let body = match origin {
            Some(origin) => {
                headers::put_websocket(&mut headers);
                upgrade::splice(Arc::clone(self.viewer), on_upgrade, origin, running);
                ReplyBody::empty()
            }
            None => {
                let piece = if self.over_http2 {
                    STREAM_PIECE_BYTES
                } else {
                    usize::MAX
                };
                ReplyBody::Origin(OriginBody::new(body, until_close, piece, running))
            }
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer
    }

    /// Gives the viewer the cookie that names its agent, unless others would be given it too.
    fn name_agent(&self, status: StatusCode, headers: &mut HeaderMap, agent: &AgentKey) {
        let sharing = Sharing::of(status, headers);
        if sharing == Sharing::Meant {
            return;
        }
        let sticky = &self.viewer.hub.ingress.sticky;
        if let Some((name, cookie)) = sticky.cookie(self.route, &self.head, agent) {
            headers.append(name, cookie);
            if sharing == Sharing::Unsaid {
                headers.append(CACHE_CONTROL, WITHOUT_COOKIES);
            }
        }
    }

    async fn ask_response(
        &self,
        permit: &HttpPermit,
        (status, headers): (StatusCode, &HeaderMap),
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
