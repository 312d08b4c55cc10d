//! Codes of answers that the hub itself gives to HTTP requests.

use http::StatusCode;

use super::{Entry, Group, Line, Text, text};
use crate::telemetry::events;

static REQUESTS: Group = Group {
    heading: "Why a request was not answered by a service",
    place: "As the answer to an HTTP request",
    intro: "The code is in the header `x-nowconnect-error` and in the body: a page for browsers, `application/problem+json`\n\
            for others. `x-request-id` names the request in the hub's log; a denial also names its decision, for\n\
            `nowconnect policy explain`. 503 and 429 carry Retry-After.\n\
            \n\
            A request that is denied beforehand has a code of the section above: with status 403, or 503 or 429 where\n\
            the hub's own code says that asking again may help.",
    seen_by: "the viewer, and the hub's operator",
    property: Some("status"),
    metrics: &["nowconnect_http_failures_total{code=\"CODE\"}"],
    lines: &[Line(events::HTTP_REQUEST, "code")],
};

named! {
    /// Why the hub itself answers a request.
    RequestCode {
        BadHost = "bad_host";
        BadPath = "bad_path";
        BadForwarded = "bad_forwarded";
        BadFraming = "bad_framing";
        BodyBroken = "body_broken";
        BadCredentials = "bad_credentials";
        SignInRequired = "sign_in_required";
        ViewerTokenRefused = "viewer_token_refused";
        ViewerTokenExpired = "viewer_token_expired";
        ViewerPasswordWrong = "viewer_password_wrong";
        ViewerCertificateRefused = "viewer_certificate_refused";
        SignedUrlRefused = "signed_url_refused";
        SignedUrlExpired = "signed_url_expired";
        PolicyDenied = "policy_denied";
        UnknownHost = "unknown_host";
        UnknownPath = "unknown_path";
        MethodNotServed = "method_not_served";
        BodyTimeout = "body_timeout";
        BodyTooLarge = "body_too_large";
        RateLimited = "rate_limited";
        SourceBusy = "source_busy";
        HeadTooLarge = "head_too_large";
        OriginUnreachable = "origin_unreachable";
        OriginClosed = "origin_closed";
        OriginProtocol = "origin_protocol";
        EndpointOffline = "endpoint_offline";
        Overloaded = "overloaded";
        PluginFailed = "plugin_failed";
        SignInUnavailable = "sign_in_unavailable";
        OriginTimeout = "origin_timeout";
    }
}

impl RequestCode {
    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadHost
            | Self::BadPath
            | Self::BadForwarded
            | Self::BadFraming
            | Self::BodyBroken
            | Self::BadCredentials => StatusCode::BAD_REQUEST,
            Self::SignInRequired
            | Self::ViewerTokenRefused
            | Self::ViewerTokenExpired
            | Self::ViewerPasswordWrong
            | Self::ViewerCertificateRefused
            | Self::SignedUrlRefused
            | Self::SignedUrlExpired => StatusCode::UNAUTHORIZED,
            Self::PolicyDenied => StatusCode::FORBIDDEN,
            Self::UnknownHost | Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::MethodNotServed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited | Self::SourceBusy => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::OriginUnreachable | Self::OriginClosed | Self::OriginProtocol => {
                StatusCode::BAD_GATEWAY
            }
            Self::EndpointOffline
            | Self::Overloaded
            | Self::PluginFailed
            | Self::SignInUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::OriginTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

pub(super) fn entries() -> Vec<Entry> {
    RequestCode::ALL
        .iter()
        .map(|code| {
            Entry::new(&REQUESTS, code.as_str(), request(*code)).with(code.status().as_str())
        })
        .collect()
}

fn request(code: RequestCode) -> Text {
    match code {
        RequestCode::BadHost => text(
            "no host, several, or one that is none",
            "The client is broken or hostile: the target and `Host` of its request differ, or are no host name.",
            "look at the client, or at the proxy between it and the hub",
        ),
        RequestCode::BadPath => text(
            "the path could be read in more than one way",
            "It has a backslash, a control character, a broken `%`, `..` above the root, `%2F` on a route without `encoded_slash`, or `;` on one without `path_parameters`.",
            "correct the link; set `encoded_slash` where the service needs `%2F`, `path_parameters` where it needs `;`",
        ),
        RequestCode::BadForwarded => text(
            "a trusted proxy does not say who asks",
            "The last element of `X-Forwarded-For` that is none of `trusted_proxies` is no address, such as `unknown` or `unix:`.",
            "let the proxy write the client's address, or take it out of `trusted_proxies`",
        ),
        RequestCode::BadFraming => text(
            "another transfer coding than `chunked`",
            "The client is broken or hostile.",
            "look at the client, or at the proxy between it and the hub",
        ),
        RequestCode::BodyBroken => text(
            "the client left, or broke its own body",
            "The connection ended, or a chunk was malformed.",
            "nothing, where it is rare",
        ),
        RequestCode::PolicyDenied => text(
            "what runs is no longer allowed",
            "Policies have changed since the request was allowed.",
            "intended, or roll the change back",
        ),
        RequestCode::UnknownHost => text(
            "no route answers to that host",
            "The name leads to this hub, and the hub knows nothing of it.",
            "add a route, or correct the name",
        ),
        RequestCode::UnknownPath => text(
            "the host has routes, and none for that path",
            "No route of the most specific host that fits begins like the path.",
            "add a route, or correct the link",
        ),
        RequestCode::MethodNotServed => text(
            "`CONNECT` or `TRACE`",
            "The client takes the hub for a proxy, or probes it.",
            "nothing",
        ),
        RequestCode::BodyTimeout => text(
            "the client sent nothing, or next to nothing, of a body that it owes",
            "`body_timeout_ms` went by, or it sent less than `min_rate`: a very slow network, or a client that hangs.",
            "raise the bound where clients are that slow; `min_rate: false` at the route of a service that is told little for long",
        ),
        RequestCode::BodyTooLarge => text(
            "the body is larger than the route allows",
            "More than `max_body_bytes`.",
            "raise it, or send less",
        ),
        RequestCode::RateLimited => text(
            "too many requests in a second",
            "`rate_per_source` of the listener or `rate` of the route is used up.",
            "slow the client down, or raise the rate",
        ),
        RequestCode::SourceBusy => text(
            "one address has too many requests under way",
            "`max_requests_per_source` is reached: a client that opens many at once, or many clients behind one address.",
            "raise the bound; name a proxy in front in `trusted_proxies`, or let it send a PROXY header, so that its clients count apart",
        ),
        RequestCode::HeadTooLarge => text(
            "the line and the header fields are too large",
            "More than `max_header_bytes`; often cookies that grow. Far beyond it the answer is bare.",
            "clear the cookies, or raise the bound",
        ),
        RequestCode::OriginUnreachable => text(
            "no agent reached the target",
            "The service is down, or something between agent and service drops its connections; the log line has the reset code.",
            "is the service up? `nowconnect-agent diagnose` dials each target",
        ),
        RequestCode::OriginClosed => text(
            "the service ended the connection before its response began",
            "It crashed, was restarted, or does not speak HTTP.",
            "see the service's own log",
        ),
        RequestCode::OriginProtocol => text(
            "what the service sent is no HTTP response",
            "The target is no HTTP service, wants TLS that the agent does not make, or speaks another version.",
            "check the target's `tls` and the route's `origin_http`",
        ),
        RequestCode::EndpointOffline => text(
            "no agent that is connected offers the connector and reaches its target",
            "The agent is away, or was refused the connector, or `health_check` finds its target down.",
            "`nowconnect status` shows who offers what, and which targets are down",
        ),
        RequestCode::Overloaded => text(
            "too many requests are under way",
            "`max_requests`, or the connector's `max_connections` or `rate`, is reached.",
            "raise the bound, or add hubs and agents",
        ),
        RequestCode::PluginFailed => text(
            "a plugin that is not `optional` failed",
            "It trapped, timed out, answered what it may not, or is in quarantine.",
            "see the plugin's lines in the log; `nowconnect status` shows quarantine",
        ),
        RequestCode::BadCredentials => text(
            "what should prove who asks could be read in more than one way, or in none",
            "Two `Authorization` fields, one that is malformed, or parameters of a signed URL that are missing or doubled.",
            "see the client; the log line says which it was",
        ),
        RequestCode::SignInRequired => text(
            "the route wants to know who asks, and the request shows nothing",
            "No token, password, certificate or signed URL of the kinds that the route's `viewer_auth` takes. \
             `WWW-Authenticate` names them.",
            "sign in, or set `required: false` where policies are to decide",
        ),
        RequestCode::ViewerTokenRefused => text(
            "the viewer's token does not count",
            "Another issuer, audience, algorithm or signature, or a claim that is missing; the log line has the code of the \
             same fault of agents' tokens.",
            "compare the token with `bearer` of the route's `viewer_auth`",
        ),
        RequestCode::ViewerTokenExpired => text(
            "the viewer's token has expired",
            "`exp` is past, with `security.clock_skew_ms` allowed.",
            "a fresh token; compare the clocks",
        ),
        RequestCode::ViewerPasswordWrong => text(
            "name and password do not fit",
            "The name is not in the `users_file`, or the password is another. Which of them is not said.",
            "correct the password, or add the user",
        ),
        RequestCode::ViewerCertificateRefused => text(
            "the client certificate names nobody, or has expired since the handshake",
            "It has neither an alternative name nor a common name, or one over 256 bytes; or the connection outlived it.",
            "a certificate with a name; connect anew with one that is good",
        ),
        RequestCode::SignedUrlRefused => text(
            "the signature of the URL does not count",
            "The URL was changed, is used with another method or host, its key was taken out, or it is good for longer than \
             `max_lifetime_ms`. The log line says which.",
            "sign it anew with `nowconnect url sign`",
        ),
        RequestCode::SignedUrlExpired => text(
            "the signed URL has ended",
            "The time of its `nc-expires` is past.",
            "sign it anew with `nowconnect url sign`",
        ),
        RequestCode::SignInUnavailable => text(
            "who asks cannot be found out now",
            "Too many passwords are being looked at, or the keys of the issuer were never fetched. The log line says which.",
            "look at the way from the hub to the issuer; where passwords are guessed at, set `rate_per_source`",
        ),
        RequestCode::OriginTimeout => text(
            "the response did not begin in time",
            "The service took longer than the route's `response_timeout_ms`.",
            "see the service's own log; raise the bound where it is meant to be slow",
        ),
    }
}
