//! How much each tenant may have: what the configuration gives everybody, or a quota of its own.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use nowconnect_control::Management;
use nowconnect_protocol::TenantName;
use nowconnect_store::{Quota, Usage};
use tracing::info;

use super::body::Body;
use super::{Answer, Api, From, Refusals, limit, next, now_ms};
use crate::admin::problem::{Problem as Refusal, ProblemCode as Code};
use crate::config::Scope;
use crate::control::ground::{Deed, Subject};
use crate::control::shapes::{Allowance, PageQuery, QuotaPage, SetQuota, TenantQuota};
use crate::telemetry::{events, rfc3339_ms};

/// List the tenants that have a quota of their own
#[utoipa::path(
    get, path = "/v1/quotas", tag = "quotas", params(PageQuery), security(("management" = [])),
    responses(
        (status = 200, description = "Quotas by tenant", body = QuotaPage),
        Refusals,
    )
)]
pub(in crate::control) async fn list(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer<Json<QuotaPage>> {
    let Query(page) = query?;
    let limit = limit(page.limit)?;
    let client = api.client(&headers, Scope::Quotas).await?;
    api.ground
        .may(from, &client, Deed::ListQuotas, Subject::All)?;
    let found = api
        .blocking(move |api| Ok(api.control.store().quotas(page.after.as_deref(), limit)?))
        .await?;
    let next = next(&found, limit, |(quota, _)| &quota.tenant);
    let quotas = found
        .into_iter()
        .map(|(quota, usage)| api.show_quota(&quota.tenant, Some(&quota), usage))
        .collect();
    Ok(Json(QuotaPage { quotas, next }))
}

/// How much a tenant may have, and has
///
/// A client sees that of its own tenant; that of others where policies let its role.
#[utoipa::path(
    get, path = "/v1/quotas/{tenant}", tag = "quotas",
    params(("tenant" = String, Path, description = "The tenant",
        pattern = "^[A-Za-z0-9._-]{1,64}$")),
    security(("management" = [])),
    responses(
        (status = 200, description = "The quota", body = TenantQuota),
        Refusals,
    )
)]
pub(in crate::control) async fn show(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Answer<Json<TenantQuota>> {
    let tenant = tenant(path)?;
    let client = api.client(&headers, Scope::Quotas).await?;
    let is_own = client.tenant == tenant && api.may_list(from, &client).is_ok();
    if !is_own {
        api.ground
            .may(from, &client, Deed::ListQuotas, Subject::All)?;
    }
    api.blocking(move |api| api.quota_of(&tenant))
        .await
        .map(Json)
}

/// Give a tenant a quota of its own
///
/// What it has beyond that stays until it is deleted. What is missing is as everybody has it.
#[utoipa::path(
    put, path = "/v1/quotas/{tenant}", tag = "quotas", request_body = SetQuota,
    params(("tenant" = String, Path, description = "The tenant",
        pattern = "^[A-Za-z0-9._-]{1,64}$")),
    security(("management" = [])),
    responses(
        (status = 200, description = "The quota", body = TenantQuota),
        Refusals,
    )
)]
pub(in crate::control) async fn set(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    Body(wish): Body<SetQuota>,
) -> Answer<Json<TenantQuota>> {
    let tenant = tenant(path)?;
    let client = api.client(&headers, Scope::Quotas).await?;
    let settings = api.control.settings();
    within("endpoints", wish.endpoints, settings.limits.total)?;
    within("names", wish.names, settings.name_limits.total)?;
    let now = now_ms();
    let shown = api
        .blocking(move |api| {
            api.ground
                .may(from, &client, Deed::SetQuota, Subject::All)?;
            api.control.store().put_quota(&Quota {
                tenant: tenant.clone(),
                endpoints: wish.endpoints,
                names: wish.names,
                made_by: maker(&client),
                made_ms: now,
            })?;
            info!(
                event = events::QUOTA_CHANGED,
                tenant,
                client = maker(&client),
                endpoints = wish.endpoints,
                names = wish.names,
                peer = %from,
                "a tenant got a quota of its own"
            );
            api.quota_of(&tenant)
        })
        .await?;
    Ok(Json(shown))
}

/// Give a tenant what everybody has
#[utoipa::path(
    delete, path = "/v1/quotas/{tenant}", tag = "quotas",
    params(("tenant" = String, Path, description = "The tenant",
        pattern = "^[A-Za-z0-9._-]{1,64}$")),
    security(("management" = [])),
    responses(
        (status = 204, description = "It has no quota of its own any more"),
        Refusals,
    )
)]
pub(in crate::control) async fn remove(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Answer<StatusCode> {
    let tenant = tenant(path)?;
    let client = api.client(&headers, Scope::Quotas).await?;
    api.blocking(move |api| {
        api.ground
            .may(from, &client, Deed::SetQuota, Subject::All)?;
        if !api.control.store().remove_quota(&tenant)? {
            let detail = format!("`{tenant}` has no quota of its own");
            return Err(Refusal::new(Code::NotFound, &detail));
        }
        info!(
            event = events::QUOTA_CHANGED,
            tenant,
            client = maker(&client),
            peer = %from,
            "a tenant has what everybody has"
        );
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn tenant(path: Result<Path<String>, PathRejection>) -> Answer<String> {
    let Path(tenant) = path?;
    match TenantName::parse(&tenant) {
        Ok(_) => Ok(tenant),
        Err(error) => Err(Refusal::new(Code::InvalidRequest, &error.to_string())),
    }
}

/// A quota is never larger than what there is for all.
fn within(what: &str, wanted: Option<u64>, most: u64) -> Answer<()> {
    match wanted {
        Some(wanted) if wanted > most => {
            let detail = format!(
                "`{what}` is {wanted}, and the hub has {most} for all tenants (`control.max_{what}`)"
            );
            Err(Refusal::new(Code::QuotaExceeded, &detail))
        }
        _ => Ok(()),
    }
}

fn maker(client: &Management) -> String {
    format!("{}/{}", client.tenant, client.sub)
}

impl Api {
    fn quota_of(&self, tenant: &str) -> Answer<TenantQuota> {
        let (own, usage) = self.control.store().quota(tenant)?;
        Ok(self.show_quota(tenant, own.as_ref(), usage))
    }

    fn show_quota(&self, tenant: &str, own: Option<&Quota>, usage: Usage) -> TenantQuota {
        let settings = self.control.settings();
        let allowance = |own: Option<u64>, everybody: u64, most: u64, used: u64| Allowance {
            limit: own.unwrap_or(everybody).min(most),
            own: own.is_some(),
            used,
        };
        TenantQuota {
            tenant: tenant.to_owned(),
            endpoints: allowance(
                own.and_then(|own| own.endpoints),
                self.control.limits_of(tenant).per_tenant,
                settings.limits.total,
                usage.endpoints,
            ),
            names: allowance(
                own.and_then(|own| own.names),
                settings.name_limits.per_tenant,
                settings.name_limits.total,
                usage.names,
            ),
            changed_by: own.map(|own| own.made_by.clone()),
            changed_at: own.map(|own| rfc3339_ms(own.made_ms)),
        }
    }
}
