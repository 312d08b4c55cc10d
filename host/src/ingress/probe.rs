//! One look at a target: does it answer, through this agent?

use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use nowconnect_protocol::ResetCode;
use tokio::io::DuplexStream;
use tracing::Span;

use super::body::RequestBody;
use super::origin_flow::{FlowPlan, FlowState, NoUpstream, OriginFlow, Purpose};
use super::progress::Progress;
use super::reply;
use super::sender::Sender;
use crate::config::{FlowTimes, HealthCheck, HttpCheck};
use crate::connector::Connector;
use crate::hub::Hub;
use crate::session::LiveTunnel;

/// What of an answer's body is read, so that the target may end it in peace: so many bytes, and for
/// so long. Beyond them the connection is broken off, which says nothing of the target.
const REST_BYTES: usize = 64 * 1024;
const REST_TIMEOUT: Duration = Duration::from_millis(500);

/// What one look came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    /// The target answers as it should.
    Up,
    /// It does not; why, in a few words without anything that it said itself.
    Down(String),
    /// It could not be asked, which says nothing of it.
    NotAsked,
}

/// Looks once, for as long as the check allows. Its flow is one of the hub itself: policies are
/// asked about it as `upstream-open` with `health`, and it counts in no bound on clients.
pub(crate) async fn probe(
    hub: &Arc<Hub>,
    connector: &Arc<Connector>,
    tunnel: &Arc<LiveTunnel>,
    check: &HealthCheck,
) -> Probed {
    let config = hub.config.load_full();
    let settings = config.connector(&connector.key.tenant, &connector.key.name);
    let plan = FlowPlan {
        connector,
        tunnel,
        purpose: Purpose::Health,
        client: None,
        proxy_protocol: settings.proxy_protocol_out,
        times: FlowTimes {
            idle_timeout: check.timeout,
            stall_timeout: check.timeout,
            linger: config.limits.flow_times.linger,
        },
        slot: None,
        span: &Span::none(),
    };
    // Outside of the look, whose time has nothing to do with how long the rest takes.
    let mut rest = None;
    let looked = async {
        let mut flow = match OriginFlow::open(hub, plan) {
            Ok(flow) => flow,
            Err(NoUpstream::NotStarted(code)) => return not_started(code),
            Err(NoUpstream::Denied(_) | NoUpstream::Full | NoUpstream::Rate) => {
                return Probed::NotAsked;
            }
        };
        let opened = flow.state.wait_for(|state| *state != FlowState::Opening);
        let opened = opened.await.map(|state| *state);
        let http2 = match opened {
            Ok(FlowState::Open { http2 }) => http2,
            Ok(FlowState::NotStarted(code)) => return not_started(code),
            Ok(FlowState::Reset(ResetCode::TargetReset)) => return down("target_reset"),
            // It was there, and ended.
            Ok(FlowState::Finished) => false,
            Ok(FlowState::Opening | FlowState::Reset(_)) | Err(_) => return Probed::NotAsked,
        };
        match &check.http {
            None => Probed::Up,
            Some(http) => match get(hub, flow.near, http2, http).await {
                Ok((status, unread)) => {
                    rest = Some(unread);
                    verdict(http, status)
                }
                Err(probed) => probed,
            },
        }
    };
    let probed = match tokio::time::timeout(check.timeout, looked).await {
        Ok(probed) => probed,
        Err(_) => down("timeout"),
    };
    if let Some(Unread { body, _sender }) = rest {
        let read = Limited::new(body, REST_BYTES).collect();
        let _ = tokio::time::timeout(REST_TIMEOUT, read).await;
    }
    probed
}

/// An answer whose head was read.
struct Unread {
    body: Incoming,
    /// What keeps its connection.
    _sender: Sender,
}

/// Asks for the page, and waits for the head of the answer.
async fn get(
    hub: &Hub,
    near: DuplexStream,
    http2: bool,
    check: &HttpCheck,
) -> Result<(StatusCode, Unread), Probed> {
    let limits = hub.config.load().ingress.limits.clone();
    let no_http = || down("no_http");
    let sender = Sender::over(near, http2, &limits).await;
    let mut sender = sender.map_err(|_| no_http())?;
    let mut headers = HeaderMap::new();
    headers.insert(HOST, check.host.clone());
    headers.insert(USER_AGENT, HeaderValue::from_static("nowconnect-health"));
    let target = if http2 {
        reply::absolute(&mut headers, &check.path).map_err(|_| Probed::NotAsked)?
    } else {
        Uri::from(check.path.clone())
    };
    let no_body = RequestBody::none(&Arc::new(Progress::new(true)));
    let mut request = Request::new(no_body);
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    sender.ready().await.map_err(|_| no_http())?;
    let answered = sender.send(request).await;
    let (head, body) = answered.map_err(|_| no_http())?.into_parts();
    let unread = Unread {
        body,
        _sender: sender,
    };
    Ok((head.status, unread))
}

/// What the head of an answer says; the rest is of no interest, nor how that ends.
fn verdict(check: &HttpCheck, status: StatusCode) -> Probed {
    if is_expected(check, status) {
        Probed::Up
    } else {
        Probed::Down(format!("status {}", status.as_u16()))
    }
}

fn is_expected(check: &HttpCheck, status: StatusCode) -> bool {
    if check.status.is_empty() {
        status.is_success() || status.is_redirection()
    } else {
        check.status.contains(&status)
    }
}

/// What it means that an agent did not open a flow.
fn not_started(code: ResetCode) -> Probed {
    if matches!(code, ResetCode::AgentBusy | ResetCode::Draining) {
        Probed::NotAsked
    } else {
        down(code.as_str())
    }
}

fn down(why: &str) -> Probed {
    Probed::Down(why.to_owned())
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;

    use super::*;

    #[test]
    fn an_agent_that_is_busy_says_nothing_of_its_target() {
        assert_eq!(not_started(ResetCode::AgentBusy), Probed::NotAsked);
        assert_eq!(
            not_started(ResetCode::ConnectFailed),
            Probed::Down("connect_failed".to_owned())
        );
    }

    #[test]
    fn without_a_list_every_status_that_is_no_error_will_do() {
        let check = |status: Vec<StatusCode>| HttpCheck {
            path: PathAndQuery::from_static("/"),
            host: HeaderValue::from_static("localhost"),
            status,
        };
        let any = check(Vec::new());
        assert!(is_expected(&any, StatusCode::NO_CONTENT));
        assert!(is_expected(&any, StatusCode::FOUND));
        assert!(!is_expected(&any, StatusCode::UNAUTHORIZED));
        let one = check(vec![StatusCode::UNAUTHORIZED]);
        assert!(is_expected(&one, StatusCode::UNAUTHORIZED));
        assert!(!is_expected(&one, StatusCode::OK));
    }
}
