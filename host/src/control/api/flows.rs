//! Flows that run: seen, and ended.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};

use super::{Answer, Api, From, Refusals, limit, next};
use crate::admin::problem::{Problem as Refusal, ProblemCode as Code};
use crate::config::Scope;
use crate::control::ground::{Deed, Subject};
use crate::control::shapes::{FlowPage, FlowQuery};

/// List the flows of the client's tenant, the oldest first
#[utoipa::path(
    get, path = "/v1/flows", tag = "flows", params(FlowQuery), security(("management" = [])),
    responses(
        (status = 200, description = "Flows", body = FlowPage),
        Refusals,
    )
)]
pub(in crate::control) async fn list(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    query: Result<Query<FlowQuery>, QueryRejection>,
) -> Answer<Json<FlowPage>> {
    let Query(page) = query?;
    let limit = limit(page.limit)?;
    let after = number(page.after.as_deref())?;
    let client = api.client(&headers, Scope::Sessions).await?;
    api.ground
        .may(from, &client, Deed::ListFlows, Subject::All)?;
    let flows: Vec<_> = api
        .ground
        .flows(&client.tenant)
        .into_iter()
        .filter(|(number, _)| *number > after)
        .take(limit)
        .map(|(_, flow)| flow)
        .collect();
    let next = next(&flows, limit, |flow| &flow.flow);
    Ok(Json(FlowPage { flows, next }))
}

/// The number at the end of a flow's name; flows are numbered in the order in which they begin.
fn number(after: Option<&str>) -> Answer<u64> {
    let Some(after) = after else {
        return Ok(0);
    };
    let number = after
        .rsplit_once('.')
        .filter(|(hub_and_boot, _)| !hub_and_boot.is_empty())
        .filter(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|(_, number)| number.parse().ok());
    number.ok_or_else(|| {
        let detail = format!("`after` is `{after}`; it has to be a flow, such as `hub.1f.42`");
        Refusal::new(Code::InvalidRequest, &detail)
    })
}

/// End a flow
#[utoipa::path(
    post, path = "/v1/flows/{flow}/close", tag = "flows",
    params(("flow" = String, Path, description = "The flow as the list names it")),
    security(("management" = [])),
    responses(
        (status = 204, description = "It is told to end"),
        Refusals,
    )
)]
pub(in crate::control) async fn close(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Answer<StatusCode> {
    let Path(flow) = path?;
    let client = api.client(&headers, Scope::Sessions).await?;
    api.ground
        .may(from, &client, Deed::CloseFlow, Subject::All)?;
    api.ground.close_flow(&client.tenant, &flow)?;
    Ok(StatusCode::NO_CONTENT)
}
