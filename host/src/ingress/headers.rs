//! Header fields on their way through the hub.
//!
//! A message that goes on is made anew: fields of one hop are taken out in both directions, and
//! the framing (`Content-Length` or chunks) is that of the body which the HTTP library has read.
//! So nothing that two servers could read differently is passed on.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Version};

/// Names every request of a viewer, in its answer and at its origin.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The stable code of an answer that the hub itself gives.
pub(crate) const ERROR_CODE: HeaderName = HeaderName::from_static("x-nowconnect-error");

/// Fields that only plugins of the hub set: a viewer's own never reach an origin.
const OWN_PREFIX: &str = "x-netbore-";

/// Cookies of the hub itself.
const OWN_COOKIE: &str = "__Host-nowconnect-";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields of one hop (RFC 9110, 7.6.1), whether or not `Connection` names them.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
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

/// What the request wants to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upgrade(HeaderValue);

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

/// What the request asks its connection to be turned into, where that can be done: HTTP/1.1 and
/// without a body.
pub(crate) fn wanted_upgrade(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Option<Upgrade> {
    let asks = tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    let fits = asks && version == Version::HTTP_11 && *method == Method::GET && !has_body;
    headers
        .get(UPGRADE)
        .filter(|_| fits)
        .map(|protocol| Upgrade(protocol.clone()))
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
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Says to the next hop what the first one said.
pub(crate) fn put_upgrade(headers: &mut HeaderMap, upgrade: &Upgrade) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, upgrade.0.clone());
}

/// Tells the next hop that trailers are taken.
pub(crate) fn put_trailers(headers: &mut HeaderMap, http2: bool) {
    if !http2 {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// Takes out what only the hub and its plugins may say to an origin.
pub(crate) fn strip_own(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OWN_PREFIX))
        .cloned()
        .collect();
    for name in own {
        headers.remove(name);
    }
    headers.remove(REQUEST_ID);
    if headers.contains_key(COOKIE) {
        strip_own_cookies(headers);
    }
}

fn strip_own_cookies(headers: &mut HeaderMap) {
    let has_own = headers.get_all(COOKIE).iter().any(|value| {
        let name = OWN_COOKIE.as_bytes();
        value
            .as_bytes()
            .windows(name.len())
            .any(|part| part == name)
    });
    if !has_own {
        return;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| {
            let kept: Vec<&[u8]> = value
                .as_bytes()
                .split(|byte| *byte == b';')
                .map(<[u8]>::trim_ascii)
                .filter(|cookie| !cookie.starts_with(OWN_COOKIE.as_bytes()))
                .collect();
            HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok()
        })
        .filter(|value| !value.is_empty())
        .collect();
    headers.remove(COOKIE);
    for value in kept {
        headers.append(COOKIE, value);
    }
}

/// Takes out the cookies that an origin sets for more than its own host: they would be sent to
/// every other service under the hub's domain. Says how many.
pub(crate) fn strip_wide_cookies(headers: &mut HeaderMap, host: &str) -> usize {
    if !headers.contains_key(SET_COOKIE) {
        return 0;
    }
    let all: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    let kept: Vec<&HeaderValue> = all
        .iter()
        .filter(|cookie| !is_wide(cookie.as_bytes(), host))
        .collect();
    let dropped = all.len() - kept.len();
    if dropped > 0 {
        headers.remove(SET_COOKIE);
        for cookie in kept {
            headers.append(SET_COOKIE, cookie.clone());
        }
    }
    dropped
}

fn is_wide(cookie: &[u8], host: &str) -> bool {
    let attributes = cookie.split(|byte| *byte == b';').skip(1);
    let mut domains = attributes.filter_map(|attribute| {
        let at = attribute.iter().position(|byte| *byte == b'=')?;
        let (name, value) = attribute.split_at(at);
        name.trim_ascii()
            .eq_ignore_ascii_case(b"domain")
            .then(|| value[1..].trim_ascii())
    });
    // Browsers count the last one and ignore a dot at its start; an empty one is none.
    domains.any(|domain| {
        let domain = domain.strip_prefix(b".").unwrap_or(domain);
        !domain.is_empty() && !domain.eq_ignore_ascii_case(host.as_bytes())
    })
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
            wanted_upgrade(&method, version, &map(headers)).is_some()
        };
        assert!(wanted(Method::GET, Version::HTTP_11, &asks));
        assert!(!wanted(Method::POST, Version::HTTP_11, &asks));
        assert!(!wanted(Method::GET, Version::HTTP_10, &asks));
        assert!(!wanted(Method::GET, Version::HTTP_11, &asks[1..]));
        let with_body = [asks[0], asks[1], ("content-length", "3")];
        assert!(!wanted(Method::GET, Version::HTTP_11, &with_body));
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
    fn a_cookie_for_more_than_the_host_is_dropped() {
        let mut headers = map(&[
            ("set-cookie", "a=1; Path=/"),
            ("set-cookie", "b=1; Domain=.shop.example.com"),
            ("set-cookie", "c=1; domain = Example.com; Secure"),
            (
                "set-cookie",
                "d=1; Domain=shop.example.com; Domain=example.com",
            ),
            ("set-cookie", "e=Domain=example.com"),
            ("set-cookie", "f=1; Domain="),
        ]);
        assert_eq!(strip_wide_cookies(&mut headers, "shop.example.com"), 2);
        let left: Vec<&[u8]> = headers
            .get_all(SET_COOKIE)
            .iter()
            .map(|cookie| &cookie.as_bytes()[..1])
            .collect();
        assert_eq!(left, [b"a", b"b", b"e", b"f"]);
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
