//! Names that are kept for a tenant, whether or not a tunnel publishes them.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use nowconnect_control::ControlError;
use nowconnect_store::{Endpoint, Reservation};

use super::body::Body;
use super::{Answer, Api, From, Refusals, limit, next, now_ms};
use crate::admin::problem::{Problem as Refusal, ProblemCode as Code};
use crate::config::Scope;
use crate::control::ground::Deed;
use crate::control::shapes::{NamePage, PageQuery, ReserveName, ReservedName};
use crate::telemetry::rfc3339_ms;

/// List the reserved names of the client's tenant
#[utoipa::path(
    get, path = "/v1/names", tag = "names", params(PageQuery), security(("management" = [])),
    responses(
        (status = 200, description = "Names in their order", body = NamePage),
        Refusals,
    )
)]
pub(in crate::control) async fn list(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer<Json<NamePage>> {
    let Query(page) = query?;
    let limit = limit(page.limit)?;
    let client = api.client(&headers, Scope::Names).await?;
    api.may_list(from, &client)?;
    let found = api
        .blocking(move |api| {
            let store = api.control.store();
            Ok(store.reservations(Some(&client.tenant), page.after.as_deref(), limit)?)
        })
        .await?;
    let next = next(&found, limit, |reserved| &reserved.name);
    let names = found
        .into_iter()
        .map(|reserved| api.show_name(reserved))
        .collect();
    Ok(Json(NamePage { names, next }))
}

/// Reserve a name for the client's tenant
///
/// Nobody else can publish it then. One that the tenant has already stays as it is.
#[utoipa::path(
    post, path = "/v1/names", tag = "names", request_body = ReserveName,
    security(("management" = [])),
    responses(
        (status = 200, description = "The name", body = ReservedName),
        Refusals,
    )
)]
pub(in crate::control) async fn reserve(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    Body(wish): Body<ReserveName>,
) -> Answer<Json<ReservedName>> {
    let client = api.client(&headers, Scope::Names).await?;
    let now = now_ms();
    let reserved = api
        .blocking(move |api| {
            let rules = &api.control.settings().names;
            let name = rules.check(&wish.name).map_err(ControlError::from)?;
            let reserved = Reservation {
                name,
                tenant: client.tenant.clone(),
                made_by: client.sub.clone(),
                made_ms: now,
            };
            api.may(from, &client, Deed::Reserve, &as_endpoint(&reserved))?;
            let store = api.control.store();
            let is_here = |holder: &Endpoint| api.ground.is_here(&holder.tenant, &holder.agent);
            store.reserve(&reserved, now, api.control.settings().name_limits, is_here)?;
            // Policies can tell a reserved name from others.
            api.names.refresh(&api.control, &reserved.name)?;
            Ok(store.reservation(&reserved.name)?.unwrap_or(reserved))
        })
        .await?;
    Ok(Json(api.show_name(reserved)))
}

/// Give a reserved name back
#[utoipa::path(
    delete, path = "/v1/names/{name}", tag = "names",
    params(("name" = String, Path, description = "The name")),
    security(("management" = [])),
    responses(
        (status = 204, description = "It is free, unless a tunnel holds it"),
        Refusals,
    )
)]
pub(in crate::control) async fn release(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Answer<StatusCode> {
    let Path(name) = path?;
    let client = api.client(&headers, Scope::Names).await?;
    api.blocking(move |api| {
        let name = name.to_ascii_lowercase();
        let store = api.control.store();
        let theirs = store
            .reservation(&name)?
            .filter(|reserved| reserved.tenant == client.tenant);
        let Some(reserved) = theirs else {
            let detail = format!("`{name}` is no reserved name of yours");
            return Err(Refusal::new(Code::NotFound, &detail));
        };
        api.may(from, &client, Deed::Close, &as_endpoint(&reserved))?;
        store.release(&name, &client.tenant)?;
        api.names.refresh(&api.control, &name)?;
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Api {
    fn show_name(&self, reserved: Reservation) -> ReservedName {
        ReservedName {
            public_hostname: self.control.host(&reserved.name),
            name: reserved.name,
            tenant: reserved.tenant,
            created_at: rfc3339_ms(reserved.made_ms),
        }
    }
}

/// What policies see where a name without an endpoint is in question.
fn as_endpoint(reserved: &Reservation) -> Endpoint {
    Endpoint {
        id: String::new(),
        name: reserved.name.clone(),
        tenant: reserved.tenant.clone(),
        agent: String::new(),
        made_by: reserved.made_by.clone(),
        source: String::new(),
        protocol: String::new(),
        made_ms: reserved.made_ms,
        kept_until_ms: reserved.made_ms,
        was_held: false,
        token_id: None,
        port: None,
    }
}
