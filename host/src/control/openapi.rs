//! The description of the API, made of the code that serves it.

use axum::Json;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderValue, header};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{api, shapes};
use crate::admin::problem::Problem;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "NowConnect control API",
        description = "Public names for private services. Errors are `application/problem+json` \
            (RFC 9457) with a stable `code`. Lists are pages: send `next` as `after`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        api::tunnels::create, api::tunnels::list, api::tunnels::delete, api::tokens::token,
        api::tokens::jwks, api::names::list, api::names::reserve, api::names::release,
        api::endpoints::show, api::endpoints::delete, api::agents::list, api::agents::kick,
        api::agents::drain, api::agents::revoke, api::flows::list, api::flows::close,
        api::routes::list, api::quotas::list, api::quotas::show, api::quotas::set,
        api::quotas::remove,
    ),
    components(schemas(
        shapes::CreateTunnel, shapes::CreatedTunnel, shapes::Tunnel, shapes::TunnelPage, Problem,
    )),
    modifiers(&Proofs, &Twins),
    tags(
        (name = "tunnels", description = "Published services"),
        (name = "names", description = "Names that are kept for a tenant"),
        (name = "quotas", description = "How much each tenant may have"),
        (name = "agents", description = "Agents that have a session"),
        (name = "flows", description = "Connections that run"),
        (name = "routes", description = "What the operator has configured"),
        (name = "tokens", description = "Who calls"),
    )
)]
struct Description;

/// How callers prove themselves.
struct Proofs;

impl Modify for Proofs {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.bearer_format = Some("JWT".to_owned());
        bearer.description = Some("From `POST /auth/token`.".to_owned());
        components.add_security_scheme("management", SecurityScheme::Http(bearer));
    }
}

/// The same calls under a second path.
struct Twins;

impl Modify for Twins {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let paths = &mut openapi.paths.paths;
        let operation = |path: &str, name: &str| {
            let mut operation = match name {
                "get" => paths.get(path)?.get.clone()?,
                _ => paths.get(path)?.post.clone()?,
            };
            operation.operation_id = Some(format!("{name}_endpoints"));
            Some(operation)
        };
        let get = operation("/tunnels/list", "get");
        let post = operation("/tunnels/create", "post");
        let twin = paths.entry("/v1/endpoints".to_owned()).or_default();
        twin.get = get;
        twin.post = post;
    }
}

/// The document of OpenAPI 3.1.
#[must_use]
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) async fn json() -> Response {
    Json(document()).into_response()
}

/// A page that shows the document to a person. It loads nothing from elsewhere and runs one script
/// of its own.
pub(super) async fn page() -> Response {
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
         connect-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    );
    let mut answer = Html(include_str!("openapi.html")).into_response();
    answer
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, POLICY);
    answer
}
