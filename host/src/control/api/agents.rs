//! Agents with a session: seen, and sent away.

use std::net::SocketAddr;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};

use super::{Answer, Api, From, Refusals, limit, next, now_ms};
use crate::config::Scope;
use crate::control::ground::{Deed, Ending, Subject};
use crate::control::shapes::{AgentPage, PageQuery};

/// List the agents of the client's tenant that have a session
#[utoipa::path(
    get, path = "/v1/agents", tag = "agents", params(PageQuery), security(("management" = [])),
    responses(
        (status = 200, description = "Agents by id", body = AgentPage),
        Refusals,
    )
)]
pub(in crate::control) async fn list(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer<Json<AgentPage>> {
    let Query(page) = query?;
    let limit = limit(page.limit)?;
    let client = api.client(&headers, Scope::Sessions).await?;
    api.ground
        .may(from, &client, Deed::ListAgents, Subject::All)?;
    let after = page.after.unwrap_or_default();
    let mut agents = api.ground.agents(&client.tenant);
    agents.retain(|agent| agent.agent_id > after);
    agents.truncate(limit);
    let next = next(&agents, limit, |agent| &agent.agent_id);
    Ok(Json(AgentPage { agents, next }))
}

/// End an agent's session at once
///
/// Its flows end with it. An agent whose token counts comes back by itself.
#[utoipa::path(
    post, path = "/v1/agents/{agent_id}/kick", tag = "agents",
    params(("agent_id" = String, Path, description = "The agent's id")),
    security(("management" = [])),
    responses(
        (status = 204, description = "It is told to go"),
        Refusals,
    )
)]
pub(in crate::control) async fn kick(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Answer<StatusCode> {
    end(api, from, &headers, path, Ending::Kick).await
}

/// Let an agent open a replacement and finish its flows here
#[utoipa::path(
    post, path = "/v1/agents/{agent_id}/drain", tag = "agents",
    params(("agent_id" = String, Path, description = "The agent's id")),
    security(("management" = [])),
    responses(
        (status = 204, description = "It is told to"),
        Refusals,
    )
)]
pub(in crate::control) async fn drain(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Answer<StatusCode> {
    end(api, from, &headers, path, Ending::Drain).await
}

/// End an agent for good
///
/// The agent of a tunnel goes with the tunnel, which is deleted. Another agent is written into the
/// hub's revocation list: no token of it counts any more.
#[utoipa::path(
    post, path = "/v1/agents/{agent_id}/revoke", tag = "agents",
    params(("agent_id" = String, Path, description = "The agent's id")),
    security(("management" = [])),
    responses(
        (status = 204, description = "It is gone"),
        Refusals,
    )
)]
pub(in crate::control) async fn revoke(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Answer<StatusCode> {
    end(api, from, &headers, path, Ending::Revoke).await
}

async fn end(
    api: Api,
    from: SocketAddr,
    headers: &HeaderMap,
    path: Result<Path<String>, PathRejection>,
    ending: Ending,
) -> Answer<StatusCode> {
    let Path(agent) = path?;
    let client = api.client(headers, Scope::Sessions).await?;
    api.blocking(move |api| {
        api.ground
            .may(from, &client, Deed::EndAgent, Subject::Agent(&agent))?;
        if ending == Ending::Revoke {
            let tunnel = api.control.find(&agent)?;
            if let Some(tunnel) = tunnel.filter(|tunnel| tunnel.tenant == client.tenant) {
                return api.delete_now(&tunnel, now_ms());
            }
        }
        Ok(api.ground.end_agent(&client.tenant, &agent, ending)?)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
