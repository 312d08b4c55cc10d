//! One try to get a response out of an origin.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, UPGRADE};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use nowconnect_protocol::ResetCode;

use super::Exchange;
use crate::authorize::HttpPermit;
use crate::ingress::account::Account;
use crate::ingress::body::RequestBody;
use crate::ingress::failure::Failure;
use crate::ingress::headers;
use crate::ingress::in_flight::{Fate, InFlightPlace};
use crate::ingress::origin_flow::{FlowState, NoUpstream};
use crate::ingress::pool::PoolKey;
use crate::ingress::progress::Trouble;
use crate::ingress::reply;
use crate::ingress::sender::SendError;
use crate::ingress::sign_in;
use crate::ingress::upstream::Upstream;
use crate::session::LiveTunnel;
use crate::telemetry::metrics::Retry;

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
pub(super) enum Tried {
    /// It may be tried once more, as [`Retry`] says where.
    Again(Failure, RequestBody, Retry),
    Failed(Failure),
}

impl From<Failure> for Tried {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Who ended a connection to an origin before its response began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndedBy {
    Origin,
    /// The agent, or what is between it and the hub.
    Agent(ResetCode),
    /// The hub itself: for a policy, a limit, an operator.
    Hub(ResetCode),
}

impl EndedBy {
    fn of(state: FlowState) -> Self {
        let code = match state {
            // The HTTP client has seen the end of what the origin sends.
            FlowState::Opening | FlowState::Open { .. } | FlowState::Finished => {
                return Self::Origin;
            }
            FlowState::NotStarted(code) | FlowState::Reset(code) => code,
        };
        match code {
            ResetCode::TargetReset => Self::Origin,
            ResetCode::Idle
            | ResetCode::Stalled
            | ResetCode::ClientReset
            | ResetCode::PolicyDenied
            | ResetCode::LimitBytes
            | ResetCode::LimitTime
            | ResetCode::HubShutdown
            | ResetCode::OperatorClosed => Self::Hub(code),
            ResetCode::ConnectFailed
            | ResetCode::ConnectTimeout
            | ResetCode::TargetTlsFailed
            | ResetCode::UnknownConnector
            | ResetCode::ConnectorDisabled
            | ResetCode::AgentBusy
            | ResetCode::Draining
            | ResetCode::UnsupportedKind
            | ResetCode::NotOwner
            | ResetCode::MeshUnavailable
            | ResetCode::WsBroken
            | ResetCode::QueueOverflow
            | ResetCode::ScopeLost
            | ResetCode::Revoked
            | ResetCode::TokenExpired
            | ResetCode::ResumeLost
            | ResetCode::UnknownFlow
            | ResetCode::AgentShutdown
            | ResetCode::ProtocolViolation
            | ResetCode::Internal => Self::Agent(code),
        }
    }
}

impl Exchange<'_> {
    pub(super) async fn send(
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
                return Err(Tried::Again(failure, body, Retry::NotReached));
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
            Err(Waited::Cut) if place.request.fate() == Some(Fate::ViewerExpired) => {
                Err(sign_in::expired(self.route, &self.signed_in).into())
            }
            Err(Waited::Cut) => Err(Failure::denied()
                .with_detail("policies have changed")
                .into()),
            Err(Waited::Timeout) => Err(Failure::origin_timeout().into()),
            Err(Waited::NotStarted(code, body)) => {
                let failure = Failure::origin_unreachable().with_detail(code.as_str());
                Err(Tried::Again(failure, body, Retry::NotReached))
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
        match &self.assertion {
            Some((name, Some(told))) => drop(headers.insert(name, told.clone())),
            Some((name, None)) => drop(headers.remove(name)),
            None => {}
        }
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
        let body = unsent.or_else(|| (!self.has_body).then(|| RequestBody::none(self.progress)));
        let state = upstream.state();
        if let FlowState::NotStarted(code) = state {
            let failure = Failure::origin_unreachable().with_detail(code.as_str());
            return match body {
                Some(body) => Tried::Again(failure, body, Retry::NotReached),
                None => failure.into(),
            };
        }
        if error.is_parse() {
            return Failure::origin_protocol().with_detail(error).into();
        }
        let by = EndedBy::of(state);
        let failure = match by {
            EndedBy::Origin => Failure::origin_closed().with_detail(error),
            EndedBy::Agent(code) => Failure::origin_closed().with_detail(code.as_str()),
            EndedBy::Hub(code) => ended_by_hub(code),
        };
        let was_kept = upstream.requests() > u64::from(was_sent);
        // What an origin did with a request that came as its connection ended cannot be known, so
        // only what may be repeated is. An origin may end a connection that it keeps at any time.
        let may_repeat = self.head.method.is_idempotent();
        let again = match by {
            _ if !was_sent && was_kept => Some(Retry::Stale),
            _ if !was_sent => Some(Retry::NotReached),
            EndedBy::Origin if may_repeat && was_kept => Some(Retry::Stale),
            EndedBy::Origin | EndedBy::Agent(_) if may_repeat => Some(Retry::Lost),
            EndedBy::Origin | EndedBy::Agent(_) | EndedBy::Hub(_) => None,
        };
        match (body, again) {
            (Some(body), Some(again)) => Tried::Again(failure, body, again),
            _ => failure.into(),
        }
    }
}

/// The answer where the hub itself ended the connection under a request.
fn ended_by_hub(code: ResetCode) -> Failure {
    let too_slow = [ResetCode::Idle, ResetCode::Stalled, ResetCode::LimitTime];
    let failure = if code == ResetCode::PolicyDenied {
        Failure::denied()
    } else if too_slow.contains(&code) {
        Failure::origin_timeout()
    } else if code == ResetCode::HubShutdown {
        Failure::endpoint_offline()
    } else {
        Failure::origin_closed()
    };
    failure.with_detail(code.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ended_a_connection_decides_whether_another_may_help() {
        let reset = |code| EndedBy::of(FlowState::Reset(code));
        assert_eq!(reset(ResetCode::TargetReset), EndedBy::Origin);
        assert_eq!(EndedBy::of(FlowState::Finished), EndedBy::Origin);
        for code in [ResetCode::WsBroken, ResetCode::AgentShutdown] {
            assert_eq!(reset(code), EndedBy::Agent(code));
        }
        for code in [
            ResetCode::PolicyDenied,
            ResetCode::Idle,
            ResetCode::OperatorClosed,
        ] {
            assert_eq!(reset(code), EndedBy::Hub(code));
        }
        assert_eq!(ended_by_hub(ResetCode::PolicyDenied).status, 403);
        assert_eq!(ended_by_hub(ResetCode::Idle).status, 504);
    }
}
