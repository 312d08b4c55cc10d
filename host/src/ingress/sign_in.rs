//! The step between limits and decision in which a request's viewer gets a name, and what services
//! are told of it.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};

use super::account::Account;
use super::body::ReplyBody;
use super::door::Viewer;
use super::failure::Failure;
use super::head::Head;
use super::headers;
use super::route::Route;
use crate::authorize::Denial;
use crate::telemetry::decisions::Why;
use crate::viewer::{
    Carried, Challenges, KEYS_PATH, Refusal, RefusalKind, SignedIn, ViewerAuth, hide,
};

/// Finds out who asks, and takes what proved it out of the request.
///
/// # Errors
/// The request proves nothing where the route wants it, or something that does not count.
pub(super) async fn sign_in(
    viewer: &Viewer,
    route: &Route,
    head: &mut Head,
    account: &mut Account,
) -> Result<SignedIn, Failure> {
    let Some(auth) = set_of(route)? else {
        return Ok(SignedIn::default());
    };
    let hub = &viewer.hub;
    let carried = Carried {
        method: &head.method,
        host: &head.authority.host,
        path: &head.path,
        query: head.target.query(),
        headers: &head.headers,
        certificate: viewer.certificate.as_ref(),
        source: head.client.ip(),
        tenant: &route.config.tenant,
    };
    let proven = auth
        .prove(&carried, &hub.authenticator(), &hub.ingress.hashing)
        .await;
    let counted = match &proven {
        Ok(signed_in) => (signed_in.method.unwrap_or("none"), "ok"),
        Err(refusal) => ("none", refusal.kind.code().as_str()),
    };
    hub.metrics.http.signed_in(counted);
    match proven {
        Ok(signed_in) => {
            auth.hide(&mut head.headers, &mut head.target);
            auth.tell(&signed_in, &mut head.headers);
            account.viewer = signed_in.method.map(|_| signed_in.viewer.id().to_owned());
            Ok(signed_in)
        }
        Err(refusal) => {
            let challenges = auth.challenges(refusal.kind);
            Err(Failure::by_refusal(refusal, challenges))
        }
    }
}

/// What a denial of the policies is answered with. One who has not said who he is, and is let in
/// by no policy, may be once he has; whom a policy forbids is told so.
pub(super) fn denied(denial: &Denial, route: &Route, signed_in: &SignedIn) -> Failure {
    if let Some(failure) = of_nobody(route, signed_in) {
        return failure.with_decision(Some(denial.decision));
    }
    let failure = Failure::by_denial(denial);
    match &route.auth {
        Some(auth) if signed_in.method.is_none() && denial.why == Why::NotPermitted => {
            failure.asking_to_sign_in(auth.challenges(RefusalKind::NothingShown))
        }
        Some(_) | None => failure,
    }
}

/// Where hosts name agents, what a viewer is told who is nobody and is not let in, for whatever
/// reason: the same whether or not there is such an agent, for that is no concern of his.
pub(super) fn of_nobody(route: &Route, signed_in: &SignedIn) -> Option<Failure> {
    let config = &route.config;
    if !config.agent_label || config.public || signed_in.method.is_some() {
        return None;
    }
    Some(match &route.auth {
        Some(auth) => {
            let refusal = Refusal::nothing_shown();
            let challenges = auth.challenges(refusal.kind);
            Failure::by_refusal(refusal, challenges)
        }
        None => Failure::unknown_host(),
    })
}

/// What services are told of the viewer under a signature: the field, and what is in it, which is
/// nothing for one who is nobody.
///
/// # Errors
/// The route wants an assertion, and none can be made.
pub(super) fn assertion(
    viewer: &Viewer,
    route: &Route,
    head: &Head,
    signed_in: &SignedIn,
) -> Result<Option<(HeaderName, Option<HeaderValue>)>, Failure> {
    let assertions = route.auth.as_ref().and_then(|auth| auth.assertions());
    let Some(assertions) = assertions else {
        return Ok(None);
    };
    let ring = viewer.hub.control().map(|control| control.ring());
    let told = assertions.tell(signed_in, &head.authority.host, ring, SystemTime::now());
    let told = told.map_err(|error| Failure::sign_in_unavailable().with_detail(error))?;
    Ok(Some((assertions.header().clone(), told)))
}

/// The keys that a route's assertions are signed with, where its services ask for them.
pub(super) fn published_keys(
    viewer: &Viewer,
    route: &Route,
    head: &Head,
) -> Option<Response<ReplyBody>> {
    /// So long may somebody go on with a key that is distrusted.
    const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");
    let assertions = route.auth.as_ref()?.assertions()?;
    let below = head.path.strip_prefix(route.config.path.as_str())?;
    if below != KEYS_PATH || !matches!(head.method, Method::GET | Method::HEAD) {
        return None;
    }
    let ring = viewer.hub.control().map(|control| control.ring());
    let keys = assertions.jwks(ring, SystemTime::now())?;
    let mut response = Response::new(ReplyBody::whole(Bytes::from(keys.to_string())));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/jwk-set+json"),
    );
    headers.insert(CACHE_CONTROL, CACHE);
    Some(response)
}

/// What a viewer is answered whose proof ends while the service is waited for: the same as if the
/// request came now.
pub(super) fn expired(route: &Route, signed_in: &SignedIn) -> Failure {
    let refusal = Refusal::ended(signed_in.method);
    let challenges = match &route.auth {
        Some(auth) => auth.challenges(refusal.kind),
        None => Challenges(Vec::new()),
    };
    Failure::by_refusal(refusal, challenges)
}

/// Takes out what no viewer may say of himself, and what others could use that he was given.
pub(super) fn strip_identity(viewer: &Viewer, headers: &mut HeaderMap) {
    let names = viewer.hub.ingress.identity_names.load();
    if !names.is_empty() {
        headers::strip(headers, |name| names.contains(name));
    }
    if names.has_signed_urls() {
        hide::from_referer(headers);
    }
}

/// The set in force of a route that names one. A route whose set is missing lets nobody in.
fn set_of(route: &Route) -> Result<Option<&ViewerAuth>, Failure> {
    match (&route.config.viewer_auth, &route.auth) {
        (None, _) => Ok(None),
        (Some(_), Some(auth)) => Ok(Some(auth)),
        (Some(name), None) => {
            let why = format!("`viewer_auth` has no `{name}`");
            Err(Failure::sign_in_unavailable().with_detail(why))
        }
    }
}
