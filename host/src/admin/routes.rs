//! The routes below `/v1`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::FutureExt as _;
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::bundles;
use super::problem::{Problem, ProblemCode};
use super::view::{
    AdminAction, AdminCaller, AgentAddressPage, AgentAddressQuery, AgentStatus, BackupRequest,
    DrainProgress, DrainQuery, DrainRequest, ExplainRequest, FlowPage, FlowQuery, GenerationStatus,
    HubStatus, HubView, ReloadReport, RotateRequest, RotatedKey,
};
use crate::certificates::view::CertificatePage;
use crate::cluster::ClusterStatus;
use crate::telemetry::decisions::requests::{RecordedRequest, RequestCounts, Requests};
use crate::telemetry::decisions::{DecisionAction, DecisionFilter, DecisionRecord, DecisionRing};
use crate::telemetry::events;
use crate::telemetry::logs::LevelControl;

/// Largest body taken. A question to explain has at most a few KiB.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// Longest time for an answer; a reload compiles plugins.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time for which an answer waits for the end of a drain.
pub(super) const MAX_DRAIN_WAIT: Duration = Duration::from_secs(30);

/// Most decisions in one answer.
pub const MAX_DECISIONS_PER_PAGE: usize = 500;

/// Most requests in one answer; a usual one has 2 KiB.
pub const MAX_REQUESTS_PER_PAGE: usize = 4096;

/// Decisions in an answer where the request names no number.
const DEFAULT_DECISIONS: usize = 50;

/// What the routes need.
#[derive(Clone)]
pub struct AdminState {
    /// The hub.
    pub hub: Arc<dyn HubView>,
    /// The last decisions.
    pub decisions: Arc<DecisionRing>,
    /// Distinct requests that were decided.
    pub requests: Arc<Requests>,
    /// The log level; absent where logs are not ours, as in tests.
    pub level: Option<LevelControl>,
}

impl std::fmt::Debug for AdminState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminState(..)")
    }
}

/// A list of decisions, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DecisionPage {
    /// The records.
    pub decisions: Vec<DecisionRecord>,
    /// Records that are kept in all.
    pub kept: usize,
    /// Older records that were forgotten.
    pub forgotten: u64,
}

/// Which decisions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionQuery {
    /// Decisions about this client, `IP` or `IP:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Decisions of this action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<DecisionAction>,
    /// Allows or denies only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<bool>,
    /// Decisions about this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Decisions about this connector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// At most this many, itself at most [`MAX_DECISIONS_PER_PAGE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Distinct requests that were decided, the latest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RequestPage {
    /// The requests, each a test case.
    pub requests: Vec<RecordedRequest>,
    /// What is kept and what is not.
    pub counts: RequestCounts,
}

/// Which requests to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestQuery {
    /// Requests that came at this time or later, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// At most this many, itself at most [`MAX_REQUESTS_PER_PAGE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// The log level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// A level, or directives.
    pub level: String,
}

/// An agent's list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentPage {
    /// The agents by name.
    pub agents: Vec<AgentStatus>,
}

/// A change that was made and has no more to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// The API. The caller must be known: a layer outside puts an [`AdminCaller`] in.
pub(super) fn router(state: AdminState) -> Router {
    let api = Router::new()
        .route("/status", get(status))
        .route("/agents", get(agents))
        .route("/agents/{agent}", get(agent))
        .route("/agents/{agent}/kick", post(kick))
        .route("/agent-addresses", get(agent_addresses))
        .route("/flows", get(flows))
        .route("/flows/{flow}/close", post(close_flow))
        .route("/decisions", get(decisions))
        .route("/decisions/{id}", get(decision))
        .route("/requests", get(requests))
        .route("/generation", get(generation))
        .route("/cluster", get(cluster))
        .route("/certificates", get(certificates))
        .route("/certificates/{name}/renew", post(renew_certificate))
        .route("/reload", post(reload))
        .route("/log-level", get(log_level).put(set_log_level))
        .route("/drain", post(drain).get(drain_progress))
        .route("/explain", post(explain))
        .route("/state/backup", post(backup_state))
        .route("/state/rotate-keys", post(rotate_keys))
        .merge(bundles::routes());
    Router::new()
        .nest("/v1", api)
        .fallback(no_route)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn(bounded))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

pub(super) type Caller = Extension<AdminCaller>;
pub(super) type Answer<T> = Result<Json<T>, Problem>;

async fn status(State(admin): State<AdminState>, Extension(caller): Caller) -> Answer<HubStatus> {
    admin.may(&caller, AdminAction::Status, None).await?;
    Ok(Json(admin.hub.status().await))
}

async fn agents(State(admin): State<AdminState>, Extension(caller): Caller) -> Answer<AgentPage> {
    admin.may(&caller, AdminAction::Status, None).await?;
    let agents = admin.hub.agents().await;
    Ok(Json(AgentPage { agents }))
}

async fn agent(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Answer<AgentStatus> {
    let Path(name) = path?;
    admin.may(&caller, AdminAction::Status, None).await?;
    let agents = admin.hub.agents().await;
    agents
        .into_iter()
        .find(|agent| agent.agent == name)
        .map(Json)
        .ok_or_else(|| Problem::new(ProblemCode::NotFound, &format!("no agent `{name}`")))
}

async fn agent_addresses(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    query: Result<Query<AgentAddressQuery>, QueryRejection>,
) -> Answer<AgentAddressPage> {
    let Query(query) = query?;
    let asked = query.agent.as_deref().or(query.decision.as_deref());
    admin
        .may(&caller, AdminAction::ReadAgentAddress, asked)
        .await?;
    Ok(Json(admin.hub.agent_addresses(&query).await?))
}

async fn kick(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Answer<Done> {
    let Path(agent) = path?;
    admin
        .may(&caller, AdminAction::KickAgent, Some(&agent))
        .await?;
    admin.hub.kick_agent(&agent).await?;
    Ok(Json(Done {}))
}

async fn flows(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    query: Result<Query<FlowQuery>, QueryRejection>,
) -> Answer<FlowPage> {
    let Query(query) = query?;
    admin.may(&caller, AdminAction::ListFlows, None).await?;
    let mut page = admin.hub.flows(&query).await;
    page.flows.truncate(query.effective_limit());
    Ok(Json(page))
}

async fn close_flow(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Answer<Done> {
    let Path(flow) = path?;
    admin
        .may(&caller, AdminAction::CloseFlow, Some(&flow))
        .await?;
    admin.hub.close_flow(&flow).await?;
    Ok(Json(Done {}))
}

async fn decisions(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    query: Result<Query<DecisionQuery>, QueryRejection>,
) -> Answer<DecisionPage> {
    let Query(query) = query?;
    admin.may(&caller, AdminAction::Explain, None).await?;
    let mut filter = DecisionFilter {
        action: query.action,
        allow: query.allow,
        agent: query.agent.as_deref(),
        connector: query.connector.as_deref(),
        ..DecisionFilter::default()
    };
    if let Some(client) = &query.client {
        (filter.client_ip, filter.client_port) = parse_client(client)?;
    }
    let limit = query
        .limit
        .unwrap_or(DEFAULT_DECISIONS)
        .min(MAX_DECISIONS_PER_PAGE);
    let found = admin.decisions.recent(&filter, limit);
    let (kept, forgotten) = admin.decisions.counts();
    Ok(Json(DecisionPage {
        decisions: found.iter().map(|record| (**record).clone()).collect(),
        kept,
        forgotten,
    }))
}

async fn decision(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Answer<DecisionRecord> {
    let Path(text) = path?;
    admin.may(&caller, AdminAction::Explain, None).await?;
    let id = text.parse().map_err(|error| {
        Problem::new(ProblemCode::InvalidRequest, &format!("`{text}`: {error}"))
    })?;
    let found = admin.decisions.by_id(id).ok_or_else(|| {
        let detail = format!("no decision `{text}` is kept; look into the log");
        Problem::new(ProblemCode::NotFound, &detail)
    })?;
    Ok(Json((*found).clone()))
}

async fn requests(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    query: Result<Query<RequestQuery>, QueryRejection>,
) -> Answer<RequestPage> {
    let Query(query) = query?;
    admin.may(&caller, AdminAction::Explain, None).await?;
    let limit = query
        .limit
        .unwrap_or(MAX_REQUESTS_PER_PAGE)
        .min(MAX_REQUESTS_PER_PAGE);
    Ok(Json(RequestPage {
        requests: admin
            .requests
            .since(query.since_ms.unwrap_or_default(), limit),
        counts: admin.requests.counts(),
    }))
}

async fn generation(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
) -> Answer<GenerationStatus> {
    admin.may(&caller, AdminAction::Status, None).await?;
    Ok(Json(admin.hub.generation().await))
}

async fn cluster(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
) -> Answer<ClusterStatus> {
    admin.may(&caller, AdminAction::Status, None).await?;
    Ok(Json(admin.hub.cluster()))
}

async fn certificates(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
) -> Answer<CertificatePage> {
    admin.may(&caller, AdminAction::Status, None).await?;
    Ok(Json(CertificatePage {
        certificates: admin.hub.certificates(),
    }))
}

async fn renew_certificate(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Answer<Done> {
    let Path(name) = path?;
    admin.may(&caller, AdminAction::Reload, Some(&name)).await?;
    admin.hub.renew_certificate(&name).await?;
    Ok(Json(Done {}))
}

async fn reload(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
) -> Answer<ReloadReport> {
    admin.may(&caller, AdminAction::Reload, None).await?;
    Ok(Json(admin.hub.reload().await))
}

async fn log_level(State(admin): State<AdminState>, Extension(caller): Caller) -> Answer<LogLevel> {
    admin.may(&caller, AdminAction::Status, None).await?;
    let level = admin.level()?.current();
    Ok(Json(LogLevel { level }))
}

async fn set_log_level(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    body: Result<Json<LogLevel>, JsonRejection>,
) -> Answer<LogLevel> {
    let Json(wanted) = body?;
    admin
        .may(&caller, AdminAction::SetLogLevel, Some(&wanted.level))
        .await?;
    admin
        .level()?
        .set(&wanted.level)
        .map_err(|error| Problem::new(ProblemCode::InvalidRequest, &error.to_string()))?;
    warn!(
        target: events::SECURITY,
        event = events::LOG_LEVEL_CHANGED,
        log_level = wanted.level,
        "the log level changed"
    );
    Ok(Json(wanted))
}

async fn drain(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    body: Result<Json<DrainRequest>, JsonRejection>,
) -> Answer<Done> {
    let Json(request) = body?;
    admin.may(&caller, AdminAction::Drain, None).await?;
    admin.hub.drain(&request).await?;
    Ok(Json(Done {}))
}

async fn backup_state(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    body: Result<Json<BackupRequest>, JsonRejection>,
) -> Answer<Done> {
    let Json(request) = body?;
    admin.may(&caller, AdminAction::ManageState, None).await?;
    if !request.path.is_absolute() {
        let detail = format!("`{}` is no absolute path", request.path.display());
        return Err(Problem::new(ProblemCode::InvalidRequest, &detail));
    }
    admin.hub.backup_state(&request.path).await?;
    Ok(Json(Done {}))
}

async fn rotate_keys(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    body: Result<Json<RotateRequest>, JsonRejection>,
) -> Answer<RotatedKey> {
    let Json(request) = body?;
    admin.may(&caller, AdminAction::ManageState, None).await?;
    let key = admin.hub.rotate_keys(request.distrust).await?;
    Ok(Json(RotatedKey { key }))
}

async fn drain_progress(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    query: Result<Query<DrainQuery>, QueryRejection>,
) -> Answer<DrainProgress> {
    let Query(query) = query?;
    admin.may(&caller, AdminAction::Status, None).await?;
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0)).min(MAX_DRAIN_WAIT);
    Ok(Json(admin.hub.drain_progress(wait).await))
}

async fn explain(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    body: Result<Json<ExplainRequest>, JsonRejection>,
) -> Answer<serde_json::Value> {
    let Json(request) = body?;
    admin.may(&caller, AdminAction::Explain, None).await?;
    let given = [
        request.decision.is_some(),
        request.client.is_some(),
        request.flow.is_some(),
        request.question.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        let detail = "name exactly one of `decision`, `client`, `flow` and `question`";
        return Err(Problem::new(ProblemCode::InvalidRequest, detail));
    }
    Ok(Json(admin.hub.explain(&request).await?))
}

async fn no_route() -> Problem {
    Problem::new(ProblemCode::NotFound, "no such route; the API is below /v1")
}

async fn other_method() -> Problem {
    Problem::new(
        ProblemCode::MethodNotAllowed,
        "this route has another method",
    )
}

/// An answer in time, one that is ours also where code panics, and none that a cache keeps.
async fn bounded(request: Request, next: Next) -> Response {
    let answer = std::panic::AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Problem::new(
            ProblemCode::Unavailable,
            "the hub failed at this; see its log",
        )
        .into_response(),
        Err(_) => {
            Problem::new(ProblemCode::Timeout, "the hub did not answer in time").into_response()
        }
    };
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl AdminState {
    pub(super) async fn may(
        &self,
        caller: &AdminCaller,
        action: AdminAction,
        resource: Option<&str>,
    ) -> Result<(), Problem> {
        let allowed = self.hub.authorize(caller, action, resource).await;
        if action.is_recorded() || allowed.is_err() {
            log_call(
                caller,
                action,
                resource.unwrap_or_default(),
                allowed.is_ok(),
            );
        }
        Ok(allowed?)
    }

    fn level(&self) -> Result<&LevelControl, Problem> {
        self.level.as_ref().ok_or_else(|| {
            Problem::new(
                ProblemCode::Unavailable,
                "the log level is not ours to change",
            )
        })
    }
}

fn log_call(caller: &AdminCaller, action: AdminAction, resource: &str, allowed: bool) {
    let event = if allowed {
        events::ADMIN_ACTION
    } else {
        events::ADMIN_REFUSED
    };
    warn!(
        target: events::SECURITY,
        event,
        action = action.as_str(),
        resource,
        caller = %caller,
        "an operator called"
    );
}

fn parse_client(text: &str) -> Result<(Option<IpAddr>, Option<u16>), Problem> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((Some(address.ip()), Some(address.port())));
    }
    let ip = text.parse::<IpAddr>().map_err(|_| {
        let detail = format!("`client` is `{text}`; it must be `IP`, `IP:PORT` or `[IP]:PORT`");
        Problem::new(ProblemCode::InvalidRequest, &detail)
    })?;
    Ok((Some(ip), None))
}
