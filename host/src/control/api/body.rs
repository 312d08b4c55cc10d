//! Bodies: one JSON object of known fields.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use crate::admin::problem::{Problem as Refusal, ProblemCode as Code};

/// The body of a request. Unlike axum's own it takes no array for an object, which the library
/// that reads JSON does where every field may be missing.
pub(in crate::control) struct Body<T>(pub(in crate::control) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        if !is_json(request.headers()) {
            let detail = "send the body as `Content-Type: application/json`";
            return Err(Refusal::new(Code::InvalidRequest, detail));
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                let code = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    Code::TooLarge
                } else {
                    Code::InvalidRequest
                };
                Refusal::new(code, &rejection.body_text())
            })?;
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            let detail = "the body has to be one JSON object";
            return Err(Refusal::new(Code::InvalidRequest, detail));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Refusal::new(Code::InvalidRequest, &format!("the body: {error}")))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
