//! Header fields on their way through the hub.
//!
//! A message that goes on is made anew: fields of one hop are taken out in both directions, and
//! the framing (`Content-Length` or chunks) is that of the body which the HTTP library has read.
//! So nothing that two servers could read differently is passed on.

use std::borrow::Cow;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, EXPECT, HOST, HeaderName, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Version};

use super::{cookies, forwarded};

/// Names every request of a viewer, in its answer and at its origin.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The stable code of an answer that the hub itself gives.
pub(crate) const ERROR_CODE: HeaderName = HeaderName::from_static("x-nowconnect-error");

/// Fields that only plugins of the hub set: a viewer's own never reach an origin.
const OWN_PREFIX: &str = "x-netbore-";

/// Fields by which some services take another path than that of the request, which policies have
/// not seen.
const OTHER_PATH: [HeaderName; 2] = [
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];

/// The one protocol that a connection may be switched to. What it carries is one conversation of
/// the request that policies allowed; `h2c` or TLS would carry further requests past them.
pub(super) const WEBSOCKET: &str = "websocket";

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields of one hop (RFC 9110, 7.6.1), whether or not `Connection` names them.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HTTP2_SETTINGS,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields that a `Connection` may name in vain: without them the message would be another.
const NEVER_OF_ONE_HOP: [HeaderName; 2] = [HOST, CONTENT_LENGTH];

/// What a trailer must not say (RFC 9110, 6.5.1): how a message is framed, routed or read, and who
/// sends it. Policies and plugins have seen the head only.
const NEVER_IN_TRAILERS: [HeaderName; 11] = [
    AUTHORIZATION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    HOST,
    MAX_FORWARDS,
    RANGE,
    TRAILER,
];

/// Why a request's fields are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHeaders {
    /// No host, or more than one.
    #[error("a request names its host once")]
    Host,
    /// The target of the request and `Host` differ.
    #[error("the request names two hosts")]
    TwoHosts,
    /// Another transfer coding than `chunked`.
    #[error("the only transfer coding that is read is `chunked`")]
    TransferCoding,
}

/// The one host of a request, as it was written.
pub(crate) fn written_host<'a>(
    uri: &'a http::Uri,
    headers: &'a HeaderMap,
) -> Result<&'a str, BadHeaders> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.to_str().map_err(|_| BadHeaders::Host)?),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(BadHeaders::Host),
    };
    match (uri.authority(), host) {
        // The target is in absolute form, or the version is 2.
        (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => {
            Err(BadHeaders::TwoHosts)
        }
        (Some(authority), _) => Ok(authority.as_str()),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(BadHeaders::Host),
    }
}

/// Refuses what could be read as another message than the HTTP library has read.
pub(crate) fn check_framing(headers: &HeaderMap) -> Result<(), BadHeaders> {
    let only_chunked = headers
        .get_all(TRANSFER_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    let codings = headers.get_all(TRANSFER_ENCODING).iter().count();
    if only_chunked && codings <= 1 {
        Ok(())
    } else {
        Err(BadHeaders::TransferCoding)
    }
}

/// Whether a response's body, if it has one, ends only where the origin's connection does: it has
/// neither a length nor chunks (RFC 9112, 6.3).
pub(crate) fn body_ends_with_connection(version: Version, headers: &HeaderMap) -> bool {
    let is_chunked = headers
        .get_all(TRANSFER_ENCODING)
        .iter()
        .next_back()
        .and_then(|coding| coding.as_bytes().rsplit(|byte| *byte == b',').next())
        .is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
    version < Version::HTTP_2 && !is_chunked && !headers.contains_key(CONTENT_LENGTH)
}

/// Whether the request asks for a WebSocket, and for nothing else, where that can be had:
/// HTTP/1.1 and without a body. Any other wish is one of a hop, which the hub does not fulfil.
pub(crate) fn wants_websocket(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    let asks = tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    asks && version == Version::HTTP_11
        && *method == Method::GET
        && !has_body
        && names_websocket(headers)
}

/// Whether `Upgrade` stands there once, with one protocol: WebSocket.
pub(crate) fn names_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let first = protocols.next().map(HeaderValue::as_bytes);
    let is_websocket = |name: &[u8]| name.trim_ascii().eq_ignore_ascii_case(WEBSOCKET.as_bytes());
    first.is_some_and(is_websocket) && protocols.next().is_none()
}

/// Whether the peer takes trailers.
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"))
}

/// Takes the fields of one hop out.
pub(crate) fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::try_from(token).ok())
        .filter(|name| !NEVER_OF_ONE_HOP.contains(name))
        .collect();
    for name in &named {
        headers.remove(name);
    }
    strip(headers, |name| HOP_BY_HOP.iter().any(|hop| *hop == *name));
}

/// Takes out of a request's trailers what would not have passed in its head, and what only a head
/// may say.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop(trailers);
    strip_own(trailers);
    strip(trailers, |name| {
        forwarded::says_who_asks(name) || NEVER_IN_TRAILERS.iter().any(|never| *never == *name)
    });
}

/// Takes out the fields whose name `picks`, also where it is written with `_` for `-`: services
/// behind CGI and its like (RFC 3875, 4.1.18) read both as one.
pub(super) fn strip(headers: &mut HeaderMap, picks: impl Fn(&str) -> bool) {
    let picked: Vec<HeaderName> = headers
        .keys()
        .filter(|name| picks(&folded(name)))
        .cloned()
        .collect();
    for name in picked {
        headers.remove(name);
    }
}

/// The same, only where the name is written with `_`: no proxy does that, so a client did.
pub(super) fn strip_underscored(headers: &mut HeaderMap, picks: impl Fn(&str) -> bool) {
    let picked: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_') && picks(&folded(name)))
        .cloned()
        .collect();
    for name in picked {
        headers.remove(name);
    }
}

fn folded(name: &HeaderName) -> Cow<'_, str> {
    let name = name.as_str();
    if name.contains('_') {
        Cow::Owned(name.replace('_', "-"))
    } else {
        Cow::Borrowed(name)
    }
}

/// Says to the next hop that the connection becomes a WebSocket.
pub(crate) fn put_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

/// Tells the next hop that trailers are taken.
pub(crate) fn put_trailers(headers: &mut HeaderMap, http2: bool) {
    if !http2 {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// Takes out what only the hub and its plugins may say to an origin, and what names another path.
pub(crate) fn strip_own(headers: &mut HeaderMap) {
    strip(headers, |name| {
        name.starts_with(OWN_PREFIX)
            || REQUEST_ID == *name
            || OTHER_PATH.iter().any(|other| *other == *name)
    });
    if headers.contains_key(COOKIE) {
        cookies::strip_own(headers);
    }
}

/// The names of the fields, as policies and enrichers see them.
pub(crate) fn names(headers: &HeaderMap) -> Vec<String> {
    headers
        .keys()
        .map(|name| name.as_str().to_owned())
        .collect()
}

/// How many bytes the fields take on the wire of HTTP/1.
pub(crate) fn wire_bytes(headers: &HeaderMap) -> usize {
    const SEPARATORS: usize = ": \r\n".len();
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + SEPARATORS)
        .sum()
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn fields_of_one_hop_and_those_that_connection_names_go() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "host, content-length"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("host", "a"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        strip_hop(&mut headers);
        let mut left = names(&headers);
        left.sort();
        assert_eq!(left, ["accept", "content-length", "host"]);
    }

    #[test]
    fn a_request_names_one_host() {
        let host = |uri: &str, headers: &[(&str, &str)]| {
            written_host(&uri.parse().unwrap(), &map(headers)).map(str::to_owned)
        };
        assert_eq!(host("/", &[("host", "a")]), Ok("a".to_owned()));
        assert_eq!(host("http://a/x", &[("host", "A")]), Ok("a".to_owned()));
        assert_eq!(host("http://a/x", &[]), Ok("a".to_owned()));
        assert_eq!(
            host("http://a/x", &[("host", "b")]),
            Err(BadHeaders::TwoHosts)
        );
        assert_eq!(host("/", &[]), Err(BadHeaders::Host));
        assert_eq!(
            host("/", &[("host", "a"), ("host", "a")]),
            Err(BadHeaders::Host)
        );
    }

    #[test]
    fn only_chunked_is_read() {
        assert!(check_framing(&map(&[("transfer-encoding", "Chunked")])).is_ok());
        assert!(check_framing(&map(&[("content-length", "3")])).is_ok());
        for coding in ["gzip, chunked", "xchunked", "chunked, chunked", "identity"] {
            assert!(
                check_framing(&map(&[("transfer-encoding", coding)])).is_err(),
                "{coding}"
            );
        }
        let twice = [
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "chunked"),
        ];
        assert!(check_framing(&map(&twice)).is_err());
    }

    #[test]
    fn an_upgrade_is_one_of_a_get_without_a_body() {
        let asks = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ];
        let wanted = |method, version, headers: &[(&str, &str)]| {
            wants_websocket(&method, version, &map(headers))
        };
        assert!(wanted(Method::GET, Version::HTTP_11, &asks));
        assert!(!wanted(Method::POST, Version::HTTP_11, &asks));
        assert!(!wanted(Method::GET, Version::HTTP_10, &asks));
        assert!(!wanted(Method::GET, Version::HTTP_11, &asks[1..]));
        let with_body = [asks[0], asks[1], ("content-length", "3")];
        assert!(!wanted(Method::GET, Version::HTTP_11, &with_body));
    }

    #[test]
    fn nothing_but_a_websocket_is_an_upgrade() {
        let names = |protocols: &[&str]| {
            let fields: Vec<_> = protocols.iter().map(|name| ("upgrade", *name)).collect();
            names_websocket(&map(&fields))
        };
        assert!(names(&["websocket"]));
        assert!(names(&["WebSocket"]));
        for other in [
            "h2c",
            "TLS/1.2",
            "h2c, websocket",
            "websocket, h2c",
            "websocket/13",
            "websocket,",
            "",
        ] {
            assert!(!names(&[other]), "{other}");
        }
        assert!(!names(&[]));
        assert!(!names(&["websocket", "h2c"]));
        assert!(!names(&["websocket", "websocket"]));
    }

    #[test]
    fn what_only_the_hub_may_say_is_taken_out() {
        let mut headers = map(&[
            ("x-netbore-client-ip", "10.0.0.1"),
            ("x-request-id", "1"),
            ("cookie", "a=1; __Host-nowconnect-agent=x; b=2"),
            ("cookie", "__Host-nowconnect-agent=y"),
            ("x-other", "1"),
        ]);
        strip_own(&mut headers);
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert_eq!(headers["cookie"], "a=1; b=2");
    }

    #[test]
    fn names_with_underscores_are_those_with_hyphens() {
        let mut headers = map(&[
            ("x_netbore_client_ip", "10.0.0.1"),
            ("X-Netbore_Agent", "a"),
            ("x_request_id", "1"),
            ("x-original-url", "/admin"),
            ("x_rewrite_url", "/admin"),
            ("transfer_encoding", "chunked"),
            ("x_other", "1"),
        ]);
        strip_hop(&mut headers);
        strip_own(&mut headers);
        assert_eq!(names(&headers), ["x_other"]);
    }

    #[test]
    fn trailers_say_nothing_that_belongs_into_a_head() {
        let mut trailers = map(&[
            ("x-checksum", "abc"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("host", "a"),
            ("authorization", "Basic x"),
            ("cookie", "a=1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_proto", "https"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("x-netbore-client-ip", "10.0.0.1"),
            ("x-original-url", "/admin"),
            ("connection", "close"),
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["x-checksum"]);
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }
}
