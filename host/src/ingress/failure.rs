//! Answers that the hub itself gives, by cause.
//!
//! Each has a status, a stable code (`docs/error-codes.md`) in a header and in the body, and the
//! id of its request. People get a page, programs `application/problem+json` (RFC 9457); what a
//! request said of itself is never repeated in either.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::body::ReplyBody;
use super::headers::{ERROR_CODE, REQUEST_ID};
use super::request_id::RequestId;
use crate::authorize::Denial;
use crate::codes::{DenialCode, RequestCode};
use crate::telemetry::decisions::{DecisionId, Why};
use crate::viewer::{Challenges, Refusal};

/// What `Retry-After` says where an agent may be back in a moment. Seconds.
const RETRY_AFTER_S: u32 = 5;

/// Why a request got no answer of an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    /// Stable; listed in `docs/error-codes.md`.
    pub(crate) code: Cow<'static, str>,
    /// For the viewer. One sentence.
    pub(crate) message: Cow<'static, str>,
    /// The decision that denied, for `policy explain`.
    pub(crate) decision: Option<DecisionId>,
    retry_after_s: Option<u32>,
    /// What could be shown instead, where that may help.
    challenges: Option<Arc<Challenges>>,
    /// For the log only.
    pub(crate) detail: Option<String>,
}

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $message:literal;)*) => {
        impl Failure {
            $($(#[$doc])* pub(crate) fn $name() -> Self {
                Self::new(RequestCode::$code, $message)
            })*
        }
    };
}

failures! {
    /// The request names no host, several, or what is none.
    bad_host = BadHost, "the request does not name one host";
    /// The path could be read in more than one way.
    bad_path = BadPath, "the path could be read in more than one way";
    /// A trusted proxy does not say who asks.
    bad_forwarded = BadForwarded, "it is not clear who sends the request";
    /// The length of the body could be read in more than one way.
    bad_framing = BadFraming, "the end of the request's body is not clear";
    /// A policy, a limit or a plugin denies; with a code of its own.
    denied = PolicyDenied, "the request is not allowed";
    /// No route answers to the host.
    unknown_host = UnknownHost, "nothing is published under this name";
    /// The host is known, the path is not.
    unknown_path = UnknownPath, "nothing is published under this path";
    /// `CONNECT`.
    method_not_served = MethodNotServed, "this method is not served here";
    /// The client owes a body and sends nothing of it.
    body_timeout = BodyTimeout, "the request's body did not come in time";
    /// The body is larger than the route allows.
    body_too_large = BodyTooLarge, "the request's body is too large";
    /// The client went away, or broke its own body.
    body_broken = BodyBroken, "the request's body did not come to its end";
    /// A rate of the listener or the route.
    rate_limited = RateLimited, "too many requests in a short time";
    /// One source has as many requests under way as it may.
    source_busy = SourceBusy, "too many requests of this address are under way";
    /// The line and the fields are too large.
    head_too_large = HeadTooLarge, "the request's header fields are too large";
    /// The agent did not reach the origin.
    origin_unreachable = OriginUnreachable, "the service could not be reached";
    /// The origin ended before its response had begun.
    origin_closed = OriginClosed, "the service ended the connection without an answer";
    /// What the origin sent is no HTTP response, or none to this request.
    origin_protocol = OriginProtocol, "the service gave an answer that cannot be read";
    /// No agent that offers the connector takes requests now.
    endpoint_offline = EndpointOffline, "the service is known but not connected at the moment";
    /// The bound on requests at once is met.
    overloaded = Overloaded, "too many requests are under way at the moment";
    /// A plugin that must answer did not.
    plugin_failed = PluginFailed, "a check of this request could not be made";
    /// It cannot be found out who asks.
    sign_in_unavailable = SignInUnavailable, "who asks cannot be found out at the moment";
    /// The origin's response did not begin in time.
    origin_timeout = OriginTimeout, "the service did not answer in time";
}

impl Failure {
    fn new(code: RequestCode, message: &'static str) -> Self {
        let status = code.status();
        Self {
            status,
            code: Cow::Borrowed(code.as_str()),
            message: Cow::Borrowed(message),
            decision: None,
            retry_after_s: may_pass(status).then_some(RETRY_AFTER_S),
            challenges: None,
            detail: None,
        }
    }

    /// The same with a word for the log.
    pub(crate) fn with_detail(mut self, detail: impl ToString) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// The same with the decision that it comes from.
    pub(crate) fn with_decision(mut self, decision: Option<DecisionId>) -> Self {
        self.decision = decision;
        self
    }

    /// A denial: the code and the words are those of the policy or plugin, the status says whether
    /// to ask again can help.
    pub(crate) fn by_denial(denial: &Denial) -> Self {
        let status = status_of(denial);
        Self {
            status,
            retry_after_s: may_pass(status).then_some(RETRY_AFTER_S),
            code: denial.code.clone(),
            message: denial.message.clone(),
            decision: Some(denial.decision),
            challenges: None,
            detail: denial.by.as_deref().map(str::to_owned),
        }
    }

    /// What the request shows does not count, or it shows nothing.
    pub(crate) fn by_refusal(refusal: Refusal, challenges: Challenges) -> Self {
        let failure = Self {
            detail: refusal.detail,
            ..Self::new(refusal.kind.code(), refusal.kind.message())
        };
        if failure.status == StatusCode::UNAUTHORIZED {
            failure.asking_to_sign_in(challenges)
        } else {
            failure
        }
    }

    /// The same for a viewer who may be let in once it is known who he is.
    pub(crate) fn asking_to_sign_in(mut self, challenges: Challenges) -> Self {
        self.status = StatusCode::UNAUTHORIZED;
        self.challenges = Some(Arc::new(challenges));
        self
    }

    /// The answer to somebody who sent these fields.
    pub(crate) fn respond(&self, wants: Wants, request: RequestId) -> Response<ReplyBody> {
        let (media, text) = match wants {
            Wants::Page => ("text/html; charset=utf-8", self.page(request)),
            Wants::Json => ("application/problem+json", self.problem(request)),
        };
        let mut response = Response::new(ReplyBody::whole(Bytes::from(text)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
        );
        put(headers, ERROR_CODE, &self.code);
        put(headers, REQUEST_ID, &request.to_string());
        for challenge in self.challenges.iter().flat_map(|all| &all.0) {
            headers.append(WWW_AUTHENTICATE, challenge.clone());
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn problem(&self, request: RequestId) -> String {
        let mut problem = serde_json::json!({
            "type": "about:blank",
            "title": self.title(),
            "status": self.status.as_u16(),
            "detail": self.message,
            "code": self.code,
            "request_id": request.to_string(),
        });
        if let Some(decision) = self.decision {
            problem["decision_id"] = decision.to_string().into();
        }
        problem.to_string()
    }

    fn page(&self, request: RequestId) -> String {
        let title = self.title();
        let mut rows = String::new();
        let mut row = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = write!(rows, "<dt>{name}</dt><dd>{}</dd>", escaped(value));
        };
        row("Code", &self.code);
        row("Request", &request.to_string());
        if let Some(decision) = self.decision {
            row("Decision", &decision.to_string());
        }
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{status} {title}</title>\
             <style>body{{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:36rem;\
             padding:0 1rem;color:#222}}h1{{font-size:1.4rem}}dl{{display:grid;\
             grid-template-columns:max-content 1fr;gap:.2rem 1rem;color:#666;font-size:.9rem}}\
             dd{{margin:0;font-family:monospace}}</style></head>\
             <body><h1>{status} {title}</h1><p>{message}.</p><dl>{rows}</dl></body></html>\n",
            status = self.status.as_u16(),
            message = escaped(&sentence(&self.message)),
        )
    }

    fn title(&self) -> &'static str {
        self.status.canonical_reason().unwrap_or("Error")
    }
}

/// Whether the same request may be answered in a while.
fn may_pass(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    )
}

/// What a policy says is final, whatever it calls it. The hub's own codes, also where a plugin
/// says one of them, may tell of a want that passes.
fn status_of(denial: &Denial) -> StatusCode {
    if matches!(denial.why, Why::Forbidden | Why::NotPermitted) {
        return StatusCode::FORBIDDEN;
    }
    let mut codes = DenialCode::ALL.iter();
    match codes.find(|code| code.as_str() == denial.code) {
        Some(DenialCode::RateLimited) => StatusCode::TOO_MANY_REQUESTS,
        Some(
            DenialCode::NoAgentForConnector
            | DenialCode::ConnectionLimit
            | DenialCode::DecisionTimeout
            | DenialCode::PoliciesChanging
            | DenialCode::Overloaded
            | DenialCode::PluginFailed
            | DenialCode::PdpUnavailable,
        ) => StatusCode::SERVICE_UNAVAILABLE,
        Some(_) | None => StatusCode::FORBIDDEN,
    }
}

/// In which form somebody wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// A page for people.
    Page,
    /// `application/problem+json`.
    Json,
}

impl Wants {
    /// A browser names `text/html` in its `Accept`; everybody else gets JSON.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let names_html = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|range| range.split(';').next().unwrap_or_default().trim())
            .any(|range| range.eq_ignore_ascii_case("text/html"));
        if names_html { Self::Page } else { Self::Json }
    }
}

fn put(headers: &mut HeaderMap, name: http::HeaderName, text: &str) {
    // A policy's `@error` may hold what a field cannot.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// With a capital at its start and no stop at its end.
fn sentence(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::telemetry::decisions::DecisionIds;

    #[tokio::test]
    async fn programs_get_json_and_browsers_a_page() {
        let request = RequestId::random();
        let (json, text) = told(Failure::endpoint_offline(), "*/*", request).await;
        assert_eq!(json.status, 503);
        assert_eq!(json.headers["retry-after"], "5");
        assert_eq!(json.headers["x-nowconnect-error"], "endpoint_offline");
        assert_eq!(json.headers["x-request-id"], request.to_string().as_str());
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(problem["code"], "endpoint_offline");
        assert_eq!(problem["status"], 503);
        assert_eq!(problem["request_id"], request.to_string());

        let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
        let (page, text) = told(Failure::unknown_host(), browser, request).await;
        assert_eq!(page.status, 404);
        assert!(page.headers.get("retry-after").is_none());
        assert!(
            text.contains("Nothing is published under this name."),
            "{text}"
        );
        assert!(text.contains("unknown_host"), "{text}");
    }

    #[tokio::test]
    async fn a_policys_words_cannot_become_markup() {
        let mut failure = Failure::denied();
        failure.message = Cow::Borrowed("<script>alert(1)</script>");
        failure.code = Cow::Borrowed("a\nb");
        let (page, text) = told(failure, "text/html", RequestId::random()).await;
        assert!(!text.contains("<script>"), "{text}");
        assert!(page.headers.get("x-nowconnect-error").is_none());
    }

    #[test]
    fn only_what_passes_is_to_be_asked_again() {
        let denial = |why, code: &'static str| {
            let failure = Failure::by_denial(&Denial {
                code: Cow::Borrowed(code),
                why,
                by: None,
                message: Cow::Borrowed("no"),
                decision: DecisionIds::new(1).next_id(),
            });
            assert_eq!(failure.code, code);
            (failure.status.as_u16(), failure.retry_after_s.is_some())
        };
        for code in ["overloaded", "policies_changing", "decision_timeout"] {
            assert_eq!(denial(Why::Limit, code), (503, true), "{code}");
        }
        assert_eq!(denial(Why::Pdp, "pdp_unavailable"), (503, true));
        assert_eq!(denial(Why::Plugin, "rate_limited"), (429, true));
        assert_eq!(denial(Why::Pdp, "pdp_denied"), (403, false));
        assert_eq!(denial(Why::Address, "cidr_blocked"), (403, false));
        assert_eq!(denial(Why::Plugin, "of_its_own"), (403, false));
        // Words of a policy.
        assert_eq!(denial(Why::Forbidden, "overloaded"), (403, false));
    }

    async fn told(
        failure: Failure,
        accept: &str,
        request: RequestId,
    ) -> (http::response::Parts, String) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        let (parts, body) = failure.respond(Wants::of(&headers), request).into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts, String::from_utf8(body.to_vec()).unwrap())
    }
}
