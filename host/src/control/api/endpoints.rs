//! Tunnels as endpoints: the same things by one path each.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use nowconnect_control::Management;
use nowconnect_store::Endpoint;

use super::{Answer, Api, From, Refusals, now_ms};
use crate::admin::problem::{Problem as Refusal, ProblemCode as Code};
use crate::config::Scope;
use crate::control::ground::Deed;
use crate::control::shapes::Tunnel;

/// One tunnel of the client's tenant
#[utoipa::path(
    get, path = "/v1/endpoints/{tunnel_id}", tag = "tunnels",
    params(("tunnel_id" = String, Path, description = "The tunnel's id")),
    security(("management" = [])),
    responses(
        (status = 200, description = "The tunnel", body = Tunnel),
        Refusals,
    )
)]
pub(in crate::control) async fn show(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Answer<Json<Tunnel>> {
    let Path(id) = path?;
    let client = api.client(&headers, Scope::Tunnels).await?;
    let tunnel = api
        .blocking(move |api| {
            api.may_list(from, &client)?;
            Ok(api.show(&api.owned(&client, &id)?))
        })
        .await?;
    Ok(Json(tunnel))
}

/// Delete a tunnel of the client's tenant for good
#[utoipa::path(
    delete, path = "/v1/endpoints/{tunnel_id}", tag = "tunnels",
    params(("tunnel_id" = String, Path, description = "The tunnel's id")),
    security(("management" = [])),
    responses(
        (status = 204, description = "It is gone"),
        Refusals,
    )
)]
pub(in crate::control) async fn delete(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Answer<StatusCode> {
    let Path(id) = path?;
    let client = api.client(&headers, Scope::Tunnels).await?;
    api.blocking(move |api| {
        let endpoint = api.owned(&client, &id)?;
        api.may(from, &client, Deed::Close, &endpoint)?;
        api.delete_now(&endpoint, now_ms())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Api {
    /// An endpoint of the client's tenant; another's is as if it were not there.
    fn owned(&self, client: &Management, id: &str) -> Answer<Endpoint> {
        let found = self.control.find(id)?;
        found
            .filter(|endpoint| endpoint.tenant == client.tenant)
            .ok_or_else(|| {
                let detail = format!("there is no tunnel `{id}` of yours");
                Refusal::new(Code::NotFound, &detail)
            })
    }
}
