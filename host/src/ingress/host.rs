//! Host names as routes and policies know them.
//!
//! One text for each name: lower case, without the port and without the dot at the end. Names in
//! other scripts come in their `xn--` form and stay in it: nothing is decoded, so two names that
//! only look alike never meet. Whatever is no plain host name is refused rather than repaired.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The longest host name of DNS, in bytes.
const MAX_HOST_BYTES: usize = 253;

/// The longest part between two dots, in bytes.
const MAX_LABEL_BYTES: usize = 63;

/// A host with the port that was written behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    /// The normalised host.
    pub(crate) host: String,
    /// The port, where one was written.
    pub(crate) port: Option<u16>,
}

/// Why a text is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHost {
    /// Nothing was written.
    #[error("the host is empty")]
    Empty,
    /// Longer than a name can be.
    #[error("a host name has at most {MAX_HOST_BYTES} bytes, and {MAX_LABEL_BYTES} between dots")]
    TooLong,
    /// A byte that no host name has.
    #[error("a host name has letters, digits, `-`, `_` and dots, other scripts as `xn--`")]
    Character,
    /// Two dots in a row, or one at the start.
    #[error("a part of the host name is empty")]
    EmptyLabel,
    /// What follows the colon is no port.
    #[error("the port is no number from 1 to 65535")]
    Port,
    /// What is in brackets is no IPv6 address.
    #[error("what is in brackets is no IPv6 address")]
    Address,
}

impl Authority {
    /// Reads what stands in `Host` or `:authority`. A user before `@` is refused like any other
    /// byte that is not of a host.
    pub(crate) fn parse(text: &str) -> Result<Self, BadHost> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or(BadHost::Address)?;
                let address: Ipv6Addr = address.parse().map_err(|_| BadHost::Address)?;
                let port = match after.strip_prefix(':') {
                    Some(port) => Some(port),
                    None if after.is_empty() => None,
                    None => return Err(BadHost::Port),
                };
                (format!("[{address}]"), port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (normal_name(host)?, Some(port)),
                None => (normal_name(text)?, None),
            },
        };
        let port = port.map(parse_port).transpose()?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, BadHost> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|port| is_number && *port != 0)
        .ok_or(BadHost::Port)
}

fn normal_name(text: &str) -> Result<String, BadHost> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err(BadHost::Empty);
    }
    if text.len() > MAX_HOST_BYTES {
        return Err(BadHost::TooLong);
    }
    for label in text.split('.') {
        if label.is_empty() {
            return Err(BadHost::EmptyLabel);
        }
        if label.len() > MAX_LABEL_BYTES {
            return Err(BadHost::TooLong);
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !label.bytes().all(fits) {
            return Err(BadHost::Character);
        }
    }
    Ok(text.to_ascii_lowercase())
}

/// The hosts that a route answers to. The order of the variants is that of how much they say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// One name or address.
    Exact(Arc<str>),
    /// Every name below this one, without the `*.`.
    Below(Arc<str>),
    /// Every name.
    Any,
}

impl HostPattern {
    /// Reads `shop.example.com`, `*.example.com` or `*`.
    ///
    /// # Errors
    /// A sentence saying what a host may hold.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let authority = Authority::parse(name)
            .map_err(|error| format!("`{text}` is no host of a route: {error}"))?;
        if authority.port.is_some() {
            return Err(format!(
                "`{text}` is no host of a route: leave the port out, a route is for all listeners"
            ));
        }
        let is_address = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
        if below && is_address {
            return Err(format!(
                "`{text}` is no host of a route: nothing is below an address"
            ));
        }
        let name = Arc::from(authority.host);
        Ok(if below {
            Self::Below(name)
        } else {
            Self::Exact(name)
        })
    }
}

impl HostPattern {
    /// Whether a normalised host is one of these.
    pub(crate) fn fits(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Below(name) => host
                .strip_suffix(&**name)
                .and_then(|front| front.strip_suffix('.'))
                .is_some_and(|front| !front.is_empty()),
            Self::Any => true,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_has_one_text() {
        for (text, host, port) in [
            ("Shop.Example.COM", "shop.example.com", None),
            ("shop.example.com.", "shop.example.com", None),
            ("shop.example.com.:8443", "shop.example.com", Some(8443)),
            ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de", None),
            ("192.0.2.1:80", "192.0.2.1", Some(80)),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]", Some(443)),
            ("a_b", "a_b", None),
        ] {
            let parsed = Authority::parse(text).unwrap();
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "user@host",
            "a b",
            "a/b",
            "a\\b",
            "a%2eb",
            "münchen.de",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:80:80",
            "[::1",
            "[::1]x",
            "[host]",
            "::1",
            "a\0",
        ] {
            assert!(Authority::parse(text).is_err(), "{text:?}");
        }
        let label = "a".repeat(64);
        assert_eq!(Authority::parse(&label), Err(BadHost::TooLong));
    }

    #[test]
    fn patterns_are_read() {
        assert_eq!(
            HostPattern::parse("*.Example.com"),
            Ok(HostPattern::Below("example.com".into()))
        );
        assert_eq!(HostPattern::parse("*"), Ok(HostPattern::Any));
        for text in ["a.*.b", "*a.b", "**", "a:80", "*.192.0.2.1", "*.[::1]"] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_fit_their_hosts() {
        for (pattern, fitting, other) in [
            ("a.test", "a.test", "b.a.test"),
            ("*.a.test", "b.a.test", "a.test"),
            ("*.a.test", "c.b.a.test", "ba.test"),
        ] {
            let pattern = HostPattern::parse(pattern).unwrap();
            assert!(pattern.fits(fitting) && !pattern.fits(other), "{pattern}");
        }
        assert!(HostPattern::Any.fits("a") && !HostPattern::parse("*.a").unwrap().fits(".a"));
    }

    proptest! {
        #[test]
        fn a_normal_host_stays_as_it_is(text in "[A-Za-z0-9._:\\-\\[\\]]{1,40}") {
            if let Ok(once) = Authority::parse(&text) {
                let again = Authority::parse(&once.to_string()).unwrap();
                prop_assert_eq!(once, again);
            }
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,80}") {
            let _ = Authority::parse(&text);
        }
    }
}
