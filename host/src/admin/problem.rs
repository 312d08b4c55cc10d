//! Errors of the admin and control APIs: `application/problem+json` (RFC 9457) with a stable code.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::view::AdminRefusal;
use crate::bundle::refused::BundleRefused;
use crate::telemetry::redact;

/// The media type.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:nowconnect:error:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The meaning of the HTTP status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code, see [`ProblemCode`].
    pub code: String,
    /// What is wrong here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The codes of the admin API and of the control API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemCode {
    /// The request is malformed or does not make sense.
    InvalidRequest,
    /// No token, or a wrong one.
    Unauthenticated,
    /// Policy denies it.
    Denied,
    /// `Host` or `Origin` are not those of the admin or control API.
    ForeignOrigin,
    /// No such route, flow, agent or decision.
    NotFound,
    /// The route has another method.
    MethodNotAllowed,
    /// The body is too large.
    TooLarge,
    /// Somebody else has the name.
    NameTaken,
    /// The idempotency key stands for another request, or for one that is being done.
    IdempotencyConflict,
    /// The tenant has as much as it may have.
    QuotaExceeded,
    /// Too many requests from one address.
    RateLimited,
    /// It cannot be done now.
    Unavailable,
    /// The answer did not come in time.
    Timeout,
}

impl ProblemCode {
    /// Every code, for the documentation.
    pub const ALL: [Self; 13] = [
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::Denied,
        Self::ForeignOrigin,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TooLarge,
        Self::NameTaken,
        Self::IdempotencyConflict,
        Self::QuotaExceeded,
        Self::RateLimited,
        Self::Unavailable,
        Self::Timeout,
    ];

    /// The code as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::ForeignOrigin => "foreign_origin",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::NameTaken => "name_taken",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
        }
    }

    /// The HTTP status of an answer with this code.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Denied | Self::ForeignOrigin | Self::QuotaExceeded => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NameTaken | Self::IdempotencyConflict => StatusCode::CONFLICT,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl Problem {
    /// A problem with the code of a refused bundle.
    pub fn of_bundle(refused: &BundleRefused) -> Self {
        let status = StatusCode::CONFLICT;
        Self {
            kind: format!("urn:nowconnect:error:{}", refused.code),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code: refused.code.to_owned(),
            detail: redact::floor(&refused.message).into_owned(),
        }
    }

    /// A problem of this code. `detail` passes the redaction floor.
    pub fn new(code: ProblemCode, detail: &str) -> Self {
        let status = code.status();
        Self {
            kind: format!("urn:nowconnect:error:{}", code.as_str()),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code: code.as_str().to_owned(),
            detail: redact::floor(detail).into_owned(),
        }
    }
}

impl From<AdminRefusal> for Problem {
    fn from(refusal: AdminRefusal) -> Self {
        if let AdminRefusal::Bundle(refused) = &refusal {
            return Self::of_bundle(refused);
        }
        let code = match &refusal {
            AdminRefusal::NotFound { .. } => ProblemCode::NotFound,
            AdminRefusal::Invalid(_) => ProblemCode::InvalidRequest,
            AdminRefusal::Denied(_) => ProblemCode::Denied,
            AdminRefusal::Unavailable(_) | AdminRefusal::Bundle(_) => ProblemCode::Unavailable,
        };
        Self::new(code, &refusal.to_string())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let code = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ProblemCode::TooLarge
        } else {
            ProblemCode::InvalidRequest
        };
        Self::new(code, &rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ProblemCode::InvalidRequest, &rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(ProblemCode::InvalidRequest, &rejection.body_text())
    }
}

/// The code of an answer that is a problem, for whoever passes the answer on.
#[derive(Debug, Clone)]
pub(crate) struct Told(pub(crate) String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        response.extensions_mut().insert(Told(self.code));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"nowconnect\""),
            );
        }
        response
    }
}
