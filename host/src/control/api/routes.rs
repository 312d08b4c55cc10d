//! Routes of the configuration, for whoever wonders why a name is taken.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use http::HeaderMap;

use super::{Answer, Api, From, Refusals, limit, next};
use crate::config::Scope;
use crate::control::ground::{Deed, Subject};
use crate::control::shapes::{PageQuery, RoutePage};

/// List the routes that the operator has configured for the client's tenant
#[utoipa::path(
    get, path = "/v1/routes", tag = "routes", params(PageQuery), security(("management" = [])),
    responses(
        (status = 200, description = "Routes by name", body = RoutePage),
        Refusals,
    )
)]
pub(in crate::control) async fn list(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer<Json<RoutePage>> {
    let Query(page) = query?;
    let limit = limit(page.limit)?;
    let client = api.client(&headers, Scope::Tunnels).await?;
    api.ground.may(from, &client, Deed::List, Subject::All)?;
    let after = page.after.unwrap_or_default();
    let mut routes = api.ground.routes(&client.tenant);
    routes.retain(|route| route.name > after);
    routes.truncate(limit);
    let next = next(&routes, limit, |route| &route.name);
    Ok(Json(RoutePage { routes, next }))
}
