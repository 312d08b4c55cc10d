//! Who asks, as proxies in front of the hub say, and as the hub says to origins.
//!
//! Only a proxy that the listener names is believed. What anybody else wrote in these fields is
//! taken out, so an origin never reads an address that its own viewer chose.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::headers;
use super::host::Authority;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: &str = "x-forwarded-";
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Who asks and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origination {
    /// The viewer.
    pub(crate) address: IpAddr,
    /// Whether the viewer speaks TLS to whoever is the first in front.
    pub(crate) https: bool,
    /// Whether the connection comes from a trusted proxy.
    pub(crate) by_proxy: bool,
}

/// A trusted proxy forwards for somebody, and whom it names cannot be read. To take the proxy
/// itself for the viewer would give its rights to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the last hop in `X-Forwarded-For` that is no trusted proxy is not an address")]
pub(crate) struct BadForwarded;

impl Origination {
    /// Finds out from the connection's `peer` and, where that is a trusted proxy, from what it
    /// forwards: the last hop that is not a trusted proxy itself.
    ///
    /// # Errors
    /// That hop cannot be read.
    pub(crate) fn of(
        peer: IpAddr,
        tls: bool,
        trusted: &[IpNet],
        headers: &HeaderMap,
    ) -> Result<Self, BadForwarded> {
        let peer = peer.to_canonical();
        let trusts = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
        if !trusts(&peer) {
            return Ok(Self {
                address: peer,
                https: tls,
                by_proxy: false,
            });
        }
        let mut address = peer;
        let hops = headers
            .get_all(FORWARDED_FOR)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            // An empty element of a list is none (RFC 9110, 5.6.1).
            .filter(|hop| !hop.is_empty());
        for hop in hops.collect::<Vec<_>>().into_iter().rev() {
            address = hop_address(hop).ok_or(BadForwarded)?;
            if !trusts(&address) {
                break;
            }
        }
        let https = match headers.get(FORWARDED_PROTO).map(HeaderValue::as_bytes) {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => true,
            Some(proto) if proto.eq_ignore_ascii_case(b"http") => false,
            Some(_) | None => tls,
        };
        Ok(Self {
            address,
            https,
            by_proxy: true,
        })
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Takes out what a viewer must not say, and says it instead where `tell` wants that.
    pub(crate) fn put(&self, headers: &mut HeaderMap, peer: IpAddr, host: &Authority, tell: bool) {
        let earlier_for = self.earlier(headers, &FORWARDED_FOR);
        let earlier = self.earlier(headers, &FORWARDED);
        let earlier_host = self.earlier(headers, &FORWARDED_HOST);
        if !self.by_proxy || tell {
            headers::strip(headers, says_who_asks);
        } else {
            headers::strip_underscored(headers, says_who_asks);
        }
        if !tell {
            return;
        }
        let peer = peer.to_canonical();
        let put = |headers: &mut HeaderMap, name: HeaderName, text: String| {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        };
        put(
            headers,
            FORWARDED_FOR,
            behind(earlier_for, peer.to_string()),
        );
        put(headers, FORWARDED_PROTO, self.scheme().to_owned());
        let shown = earlier_host.unwrap_or_else(|| host.to_string());
        put(headers, FORWARDED_HOST, shown);
        let element = format!("for={};host=\"{host}\";proto={}", node(peer), self.scheme());
        put(headers, FORWARDED, behind(earlier, element));
    }

    /// What a trusted proxy has written already.
    fn earlier(&self, headers: &HeaderMap, name: &HeaderName) -> Option<String> {
        if !self.by_proxy {
            return None;
        }
        let values: Vec<&str> = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

fn behind(earlier: Option<String>, last: String) -> String {
    match earlier {
        Some(earlier) => format!("{earlier}, {last}"),
        None => last,
    }
}

/// An address in the form of RFC 7239.
fn node(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    }
}

/// Whether a field of this name says who asks, or how.
pub(super) fn says_who_asks(name: &str) -> bool {
    name.starts_with(FORWARDED_PREFIX) || FORWARDED == *name || REAL_IP == *name
}

/// One hop as proxies write it: an address, with or without a port.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?;
    let bracketed = || {
        let inner = hop.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    let address = hop.parse::<IpAddr>().ok();
    let address = address.or_else(|| hop.parse::<SocketAddr>().ok().map(|with| with.ip()));
    address.or_else(bracketed).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    const PROXY: &str = "10.0.0.1";

    #[test]
    fn a_stranger_is_not_believed() {
        let mut headers = map(&[
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
            ("x-real-ip", "192.0.2.9"),
            ("forwarded", "for=192.0.2.9"),
        ]);
        let from = origination("203.0.113.7", &headers);
        assert_eq!(from.address.to_string(), "203.0.113.7");
        assert_eq!(from.scheme(), "http");
        from.put(&mut headers, ip("203.0.113.7"), &host(), true);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "shop.example.com:8082");
        assert_eq!(
            headers["forwarded"],
            "for=203.0.113.7;host=\"shop.example.com:8082\";proto=http"
        );
        assert_eq!(headers.len(), 4, "{headers:?}");
    }

    #[test]
    fn without_telling_a_strangers_words_go_all_the_same() {
        let mut headers = map(&[("x-forwarded-for", "192.0.2.9"), ("accept", "a")]);
        let from = origination("203.0.113.7", &headers);
        from.put(&mut headers, ip("203.0.113.7"), &host(), false);
        assert_eq!(headers.len(), 1, "{headers:?}");
    }

    #[test]
    fn the_last_hop_that_is_no_proxy_is_the_viewer() {
        let headers = map(&[
            ("x-forwarded-for", "192.0.2.66, 192.0.2.9"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
        ]);
        let from = origination(PROXY, &headers);
        assert_eq!(from.address.to_string(), "192.0.2.9");
        assert_eq!(from.scheme(), "https");
    }

    #[test]
    fn a_viewer_that_cannot_be_read_is_not_the_proxy() {
        for hops in [
            "192.0.2.9, unknown, 10.0.0.2",
            "unknown",
            "unix:",
            "192.0.2.9:x",
            "_h",
        ] {
            let headers = map(&[("x-forwarded-for", hops)]);
            assert_eq!(found(PROXY, &headers), Err(BadForwarded), "{hops}");
        }
        let mut headers = HeaderMap::new();
        let odd = HeaderValue::from_bytes(b"192.0.2.9\xff").unwrap();
        headers.insert("x-forwarded-for", odd);
        assert_eq!(found(PROXY, &headers), Err(BadForwarded));
        // What stands before the viewer, it wrote itself.
        let headers = map(&[("x-forwarded-for", "unknown, 192.0.2.9, ,10.0.0.2")]);
        assert_eq!(
            origination(PROXY, &headers).address.to_string(),
            "192.0.2.9"
        );
    }

    #[test]
    fn a_hop_may_have_a_port() {
        for (hop, address) in [
            ("192.0.2.9:4711", "192.0.2.9"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("::ffff:192.0.2.9", "192.0.2.9"),
        ] {
            let headers = map(&[("x-forwarded-for", hop)]);
            assert_eq!(origination(PROXY, &headers).address.to_string(), address);
        }
    }

    #[test]
    fn names_with_underscores_are_no_proxys() {
        let mut headers = map(&[
            ("x_forwarded_for", "192.0.2.66"),
            ("x-forwarded_proto", "https"),
            ("x-forwarded-for", "192.0.2.9"),
        ]);
        let from = origination(PROXY, &headers);
        from.put(&mut headers, ip(PROXY), &host(), false);
        assert_eq!(headers.len(), 1, "{headers:?}");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.9");
    }

    #[test]
    fn behind_a_proxy_hops_are_added() {
        let mut headers = map(&[
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "public.example.com"),
            ("forwarded", "for=192.0.2.9"),
        ]);
        let from = origination(PROXY, &headers);
        from.put(&mut headers, ip(PROXY), &host(), true);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.9, 10.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "public.example.com");
        assert_eq!(
            headers["forwarded"],
            "for=192.0.2.9, for=10.0.0.1;host=\"shop.example.com:8082\";proto=https"
        );
    }

    #[test]
    fn an_address_of_version_6_is_quoted() {
        let mut headers = HeaderMap::new();
        let from = origination("2001:db8::7", &headers);
        from.put(&mut headers, ip("2001:db8::7"), &host(), true);
        assert!(
            headers["forwarded"]
                .to_str()
                .unwrap()
                .starts_with("for=\"[2001:db8::7]\";")
        );
    }

    fn origination(peer: &str, headers: &HeaderMap) -> Origination {
        found(peer, headers).unwrap()
    }

    fn found(peer: &str, headers: &HeaderMap) -> Result<Origination, BadForwarded> {
        Origination::of(ip(peer), false, &[trusted()], headers)
    }

    fn trusted() -> IpNet {
        "10.0.0.0/8".parse().unwrap()
    }

    fn host() -> Authority {
        Authority::parse("shop.example.com:8082").unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
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
