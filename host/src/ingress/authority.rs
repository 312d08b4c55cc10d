//! The answer to a certificate authority that looks at a name over plain HTTP (RFC 8555, 8.3).
//!
//! It comes before routes, address rules and policies: an authority asks from wherever it likes,
//! and for one token, which it made itself and told this hub a moment ago. Whatever else is below
//! that path is a request like any other.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response};
use tracing::debug;

use super::body::ReplyBody;
use super::door::Viewer;

/// The answer; `None` where no authority waits for it here.
pub(super) fn answer<B>(viewer: &Viewer, request: &Request<B>) -> Option<Response<ReplyBody>> {
    if viewer.tls.is_some() || request.method() != Method::GET {
        return None;
    }
    let challenges = viewer.hub.ingress.issued().challenges();
    let answer = challenges.http_answer(request.uri().path())?;
    debug!(peer = %viewer.peer, "a certificate authority looked at a name");
    let body = ReplyBody::whole(Bytes::copy_from_slice(answer.as_bytes()));
    let mut response = Response::new(body);
    let media = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, media);
    Some(response)
}
