//! Tunnels: made, listed, deleted.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use nowconnect_control::{Control, ControlError, Created, Maker, Planned, TunnelRequest};
use nowconnect_store::{ClaimRefused, Endpoint, EndpointFilter};
use tracing::info;

use super::body::Body;
use super::{Answer, Api, From, Refusals, limit, next, now_ms, unauthenticated, with_scope};
use crate::admin::problem::{Problem as Refusal, ProblemCode as Code};
use crate::config::Scope;
use crate::control::edges;
use crate::control::ground::{Deed, Wanted};
use crate::control::idempotency::{self, Keep};
use crate::control::shapes::{
    Candidate, CreateTunnel, CreatedTunnel, DeleteTunnel, PageQuery, Tunnel, TunnelPage,
    TunnelState,
};
use crate::telemetry::metrics::TokenKind;
use crate::telemetry::{events, rfc3339_ms};

/// How often policies are asked anew, where one maker asks for several tunnels at once.
const DECISION_ATTEMPTS: usize = 16;

/// Longest `region_hint`.
const MAX_REGION_CHARACTERS: usize = 64;

/// Shortest life of a recreate token that can be asked for, in seconds.
const MIN_RECREATE_SECONDS: u64 = 60;

/// How many random names are tried; with 50 bits each, two that are taken mean something else.
const NAME_ATTEMPTS: usize = 4;

/// Make a tunnel, or get the same one again
///
/// Without a token where the operator allows it, else with a management token. What comes back
/// holds tokens and is shown once.
#[utoipa::path(
    post, path = "/tunnels/create", tag = "tunnels", request_body = CreateTunnel,
    params(("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$",
        description = "A request sent again with the same key gets the same answer for a day")),
    security((), ("management" = [])),
    responses(
        (status = 201, description = "The tunnel and its tokens", body = CreatedTunnel),
        Refusals,
    )
)]
pub(in crate::control) async fn create(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    Body(wish): Body<CreateTunnel>,
) -> Answer<Response> {
    let maker = match api
        .bearer(&headers, wish.management_token.as_deref())
        .await?
    {
        Some(client) => Maker::Client(Box::new(with_scope(client, Scope::Tunnels)?)),
        None => Maker::Anonymous,
    };
    check(&wish)?;
    let key = idempotency::key_of(&headers)?;
    let body = api
        .blocking(move |api| {
            let once = idempotency::Once::new(&maker, from, key, wish.digest())?;
            api.requests.answer(api.control.store(), once, |keep| {
                api.create_now(from, &maker, wish, keep)
            })
        })
        .await?;
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let headers = [(header::CONTENT_TYPE, JSON)];
    Ok((StatusCode::CREATED, headers, body).into_response())
}

/// List the tunnels of the client's tenant
#[utoipa::path(
    get, path = "/tunnels/list", tag = "tunnels", params(PageQuery),
    security(("management" = [])),
    responses(
        (status = 200, description = "Tunnels by name", body = TunnelPage),
        Refusals,
    )
)]
pub(in crate::control) async fn list(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer<Json<TunnelPage>> {
    let Query(page) = query?;
    let limit = limit(page.limit)?;
    let client = api.client(&headers, Scope::Tunnels).await?;
    api.may_list(from, &client)?;
    let filter = EndpointFilter {
        tenant: Some(client.tenant),
        after: page.after,
    };
    let found = api
        .blocking(move |api| Ok(api.control.list(&filter, limit)?))
        .await?;
    let next = next(&found, limit, |endpoint| &endpoint.name);
    let tunnels = found.iter().map(|endpoint| api.show(endpoint)).collect();
    Ok(Json(TunnelPage { tunnels, next }))
}

/// Delete a tunnel for good
///
/// Its tokens count no longer and its name is free. With a management token of its tenant, or
/// with its own recreate token.
#[utoipa::path(
    post, path = "/tunnels/delete", tag = "tunnels", request_body = DeleteTunnel,
    security((), ("management" = [])),
    responses(
        (status = 204, description = "It is gone"),
        Refusals,
    )
)]
pub(in crate::control) async fn delete(
    State(api): State<Api>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    Body(wish): Body<DeleteTunnel>,
) -> Answer<StatusCode> {
    let client = match api.bearer(&headers, None).await? {
        Some(client) => Some(with_scope(client, Scope::Tunnels)?),
        None => None,
    };
    let now = now_ms();
    api.blocking(move |api| {
        let id = &wish.tunnel_id;
        let endpoint = match (&client, &wish.recreate_token) {
            (Some(client), _) => {
                let found = api.control.find(id)?;
                let found = found.filter(|endpoint| endpoint.tenant == client.tenant);
                if let Some(endpoint) = &found {
                    api.may(from, client, Deed::Close, endpoint)?;
                } else if Control::is_id(id) {
                    // Its name may be over, and its recreate token in somebody's hands.
                    let lapsed = lapsed(id, &client.tenant);
                    api.may(from, client, Deed::Close, &lapsed)?;
                    api.control.delete(id, &client.tenant, now)?;
                }
                found
            }
            (None, Some(token)) => {
                let tenant = api.control.tenant_by_recreate_token(id, token, now);
                let tenant = tenant.map_err(ControlError::from)?;
                let found = api.control.find(id)?;
                let found = found.filter(|endpoint| endpoint.tenant == tenant);
                return api.delete_now(&found.unwrap_or_else(|| lapsed(id, &tenant)), now);
            }
            (None, None) => return Err(unauthenticated()),
        };
        let Some(endpoint) = endpoint else {
            let detail = format!("there is no tunnel `{}` of yours", wish.tunnel_id);
            return Err(Refusal::new(Code::NotFound, &detail));
        };
        api.delete_now(&endpoint, now)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the document says about bounds.
fn check(wish: &CreateTunnel) -> Answer<()> {
    let refused = |detail: &str| Err(Refusal::new(Code::InvalidRequest, detail));
    let hint = wish.region_hint.as_ref();
    if hint.is_some_and(|hint| hint.chars().count() > MAX_REGION_CHARACTERS) {
        return refused("`region_hint` has at most 64 characters");
    }
    if wish
        .recreate_token_ttl_seconds
        .is_some_and(|ttl| ttl < MIN_RECREATE_SECONDS)
    {
        return refused("`recreate_token_ttl_seconds` has to be at least 60");
    }
    Ok(())
}

/// What is known of an endpoint whose name is over.
fn lapsed(id: &str, tenant: &str) -> Endpoint {
    Endpoint {
        id: id.to_owned(),
        name: String::new(),
        tenant: tenant.to_owned(),
        agent: id.to_owned(),
        made_by: String::new(),
        source: String::new(),
        protocol: String::new(),
        made_ms: 0,
        kept_until_ms: 0,
        was_held: true,
        token_id: None,
        port: None,
    }
}

impl Api {
    /// Asks, makes and publishes.
    fn create_now(
        &self,
        from: SocketAddr,
        maker: &Maker,
        wish: CreateTunnel,
        keep: &Keep,
    ) -> Answer<String> {
        // There is one hub until hubs form a cluster, with one address or several.
        let candidates = edges::candidates(self.ground.edges(), wish.region_hint.as_deref());
        if candidates.is_empty() {
            let detail = "the hub takes no further agents now";
            return Err(Refusal::new(Code::Unavailable, detail));
        }
        let request = TunnelRequest {
            name: wish.requested_name,
            protocol: wish.protocol.unwrap_or_default().as_str().to_owned(),
            recreate_ttl: wish.recreate_token_ttl_seconds.map(Duration::from_secs),
            recreate_token: wish.recreate_token,
        };
        let mut attempt = 1;
        let (created, body) = loop {
            let planned = self.control.plan(maker, &request, from.ip(), now_ms())?;
            let is_wished = planned.is_wished();
            match self.publish(from, &planned, &candidates, keep) {
                Err(refused)
                    if refused.code == Code::NameTaken.as_str()
                        && !is_wished
                        && attempt < NAME_ATTEMPTS =>
                {
                    attempt += 1;
                }
                done => break done?,
            }
        };
        for kind in [TokenKind::Ephemeral, TokenKind::Recreate] {
            self.metrics.control.issued(kind);
        }
        // It is given out and on the disk; a name that cannot be read now is read again soon.
        let _ = self.names.refresh(&self.control, &created.endpoint.name);
        info!(
            event = events::ENDPOINT_PUBLISHED,
            endpoint = created.endpoint.id,
            tenant = created.endpoint.tenant,
            host = created.host,
            client = created.endpoint.made_by,
            peer = %from,
            "a name was given out"
        );
        Ok(body)
    }

    /// Asks and makes, anew where the maker got another one in between.
    fn publish(
        &self,
        from: SocketAddr,
        planned: &Planned,
        candidates: &[Candidate],
        keep: &Keep,
    ) -> Answer<(Created, String)> {
        for _ in 0..DECISION_ATTEMPTS {
            match self.try_publish(from, planned.clone(), candidates, keep)? {
                Ok(done) => return Ok(done),
                Err(ControlError::Claim(ClaimRefused::Overtaken)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ClaimRefused::Overtaken.into())
    }

    /// Asks the policies about an endpoint, and makes the very one that they were asked about.
    fn try_publish(
        &self,
        from: SocketAddr,
        planned: Planned,
        candidates: &[Candidate],
        keep: &Keep,
    ) -> Answer<Result<(Created, String), ControlError>> {
        let endpoint = planned.endpoint();
        let host = self.control.host(&endpoint.name);
        let ground = &self.ground;
        if ground.is_configured(&endpoint.tenant, &endpoint.name, &host) {
            let name = endpoint.name.clone();
            return Err(ClaimRefused::Taken { name }.into());
        }
        let reserved = self.is_reserved(endpoint)?;
        let others = self.control.others_of_maker(endpoint)?;
        ground.may_create(
            from,
            &Wanted {
                endpoint,
                host: &host,
                reserved,
                open_endpoints: u32::try_from(others).unwrap_or(u32::MAX),
                token_until_ms: endpoint.kept_until_ms,
            },
        )?;
        let mut planned = planned;
        self.control.choose_port(&mut planned)?;
        let offered = self.control.offer(planned, others, now_ms())?;
        let body = serde_json::to_string(&self.show_created(&offered.created, candidates.to_vec()))
            .map_err(|_| Refusal::new(Code::Unavailable, "the answer has no JSON form"))?;
        let answered = keep.answer(&body);
        let is_here = |holder: &Endpoint| ground.is_here(&holder.tenant, &holder.agent);
        let created = self
            .control
            .publish(offered, now_ms(), is_here, answered.as_ref());
        Ok(created.map(|created| (created, body)))
    }

    /// Also one that is not there: no token brings it back.
    pub(super) fn delete_now(&self, endpoint: &Endpoint, now: u64) -> Answer<()> {
        let gone = self.control.delete(&endpoint.id, &endpoint.tenant, now)?;
        // From here on it is deleted, whatever the disk does.
        let gone = gone.as_ref().unwrap_or(endpoint);
        if !gone.name.is_empty() {
            self.names.forget(&self.control, gone);
        }
        // After the name: a tunnel that comes up in between is refused for it.
        self.ground.send_away(&gone.tenant, &gone.agent);
        if !gone.name.is_empty() {
            let _ = self.names.refresh(&self.control, &gone.name);
        }
        info!(
            event = events::ENDPOINT_DELETED,
            endpoint = gone.id,
            tenant = gone.tenant,
            name = gone.name,
            "a tunnel was deleted"
        );
        Ok(())
    }

    fn show_created(&self, created: &Created, candidates: Vec<Candidate>) -> CreatedTunnel {
        CreatedTunnel {
            public_url: self.ground.public_url(&created.host, created.endpoint.port),
            public_port: created.endpoint.port,
            public_hostname: created.host.clone(),
            candidates,
            tunnel_id: created.endpoint.id.clone(),
            ephemeral_token: created.ephemeral_token.clone(),
            recreate_token: created.recreate_token.clone(),
            candidates_expires_at: rfc3339_ms(created.ephemeral_until_ms),
            recreate_expires_at: rfc3339_ms(created.recreate_until_ms),
            note: None,
        }
    }

    pub(super) fn show(&self, endpoint: &Endpoint) -> Tunnel {
        let here = self.ground.is_here(&endpoint.tenant, &endpoint.agent);
        let public_hostname = self.control.host(&endpoint.name);
        Tunnel {
            tunnel_id: endpoint.id.clone(),
            name: endpoint.name.clone(),
            public_url: self.ground.public_url(&public_hostname, endpoint.port),
            public_port: endpoint.port,
            public_hostname,
            tenant: endpoint.tenant.clone(),
            protocol: endpoint.protocol.clone(),
            state: match (here, endpoint.was_held) {
                (true, _) => TunnelState::Active,
                (false, false) => TunnelState::Pending,
                (false, true) => TunnelState::Down,
            },
            edge_id: here.then(|| self.ground.replica()),
            created_at: rfc3339_ms(endpoint.made_ms),
            expires_at: rfc3339_ms(endpoint.kept_until_ms),
        }
    }
}

impl std::convert::From<ClaimRefused> for Refusal {
    fn from(refused: ClaimRefused) -> Self {
        super::claim(&refused)
    }
}
