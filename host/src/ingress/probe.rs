//! One look at a target: does it answer, through this agent?

use std::sync::Arc;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
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

/// Bytes of an answer that are read, so that the target may end it in peace. Beyond them the
/// connection is broken off.
const ANSWER_BYTES: usize = 64 * 1024;

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
            Some(http) => get(hub, flow.near, http2, http).await,
        }
    };
    match tokio::time::timeout(check.timeout, looked).await {
        Ok(probed) => probed,
        Err(_) => down("timeout"),
    }
}

async fn get(hub: &Hub, near: DuplexStream, http2: bool, check: &HttpCheck) -> Probed {
    let limits = hub.config.load().ingress.limits.clone();
    let Ok(mut sender) = Sender::over(near, http2, &limits).await else {
        return down("no_http");
    };
    let mut headers = HeaderMap::new();
    headers.insert(HOST, check.host.clone());
    headers.insert(USER_AGENT, HeaderValue::from_static("nowconnect-health"));
    let target = if http2 {
        match reply::absolute(&mut headers, &check.path) {
            Ok(target) => target,
            Err(_) => return Probed::NotAsked,
        }
    } else {
        Uri::from(check.path.clone())
    };
    let no_body = RequestBody::none(&Arc::new(Progress::new(true)));
    let mut request = Request::new(no_body);
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    if sender.ready().await.is_err() {
        return down("no_http");
    }
    let Ok(response) = sender.send(request).await else {
        return down("no_http");
    };
    let status = response.status();
    // What it says beyond its status is of no interest, nor how that ends.
    let _ = Limited::new(response.into_body(), ANSWER_BYTES)
        .collect()
        .await;
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
