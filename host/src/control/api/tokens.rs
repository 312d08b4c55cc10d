//! Tokens for clients, and the keys that prove all of ours.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;

use super::body::Body;
use super::{Answer, Api, Refusals, now_ms};
use crate::control::shapes::{AskToken, GivenToken};
use crate::telemetry::metrics::TokenKind;

/// Get a management token
#[utoipa::path(
    post, path = "/auth/token", tag = "tokens", request_body = AskToken,
    responses(
        (status = 200, description = "A token", body = GivenToken),
        Refusals,
    )
)]
pub(in crate::control) async fn token(
    State(api): State<Api>,
    Body(asked): Body<AskToken>,
) -> Answer<Json<GivenToken>> {
    let now = now_ms();
    let (token, claims) = api
        .blocking(move |api| {
            Ok(api
                .control
                .management_token(&asked.client_id, &asked.client_secret, now)?)
        })
        .await?;
    api.metrics.control.issued(TokenKind::Management);
    Ok(Json(GivenToken {
        token,
        token_type: "Bearer",
        expires_in: claims.exp.saturating_sub(now / 1000),
        scope: claims.scope,
    }))
}

/// The keys that prove our tokens (RFC 7517)
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "tokens",
    responses((status = 200, description = "A JSON Web Key Set", body = Object))
)]
pub(in crate::control) async fn jwks(State(api): State<Api>) -> Response {
    // So long may somebody go on with a key that is distrusted.
    const CACHE: &str = "public, max-age=300";
    let keys = api.control.keys().jwks(now_ms());
    ([(header::CACHE_CONTROL, CACHE)], Json(keys)).into_response()
}
