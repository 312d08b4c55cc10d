//! Where a hub is dialled, and which of the addresses that hubs say of themselves may be.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use ipnet::IpNet;

/// The path that hubs upgrade.
pub const MESH_PATH: &str = "/mesh";

/// The address of a hub: `wss://host[:port][/path]`, or `ws://` without TLS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerUrl {
    tls: bool,
    host: Box<str>,
    port: u16,
    path: Box<str>,
}

/// Why a text is no address of a hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address of a hub: {reason}; write it as `wss://host:port/mesh`")]
pub struct PeerUrlError {
    text: String,
    reason: &'static str,
}

impl PeerUrl {
    /// Reads an address. The port is 443 or 80 where none stands, and the path `/mesh`.
    ///
    /// # Errors
    /// Another scheme, no host, or something beside them: a name and password would end up in
    /// logs, and neither a query nor a fragment means anything to a hub.
    pub fn parse(text: &str) -> Result<Self, PeerUrlError> {
        let refused = |reason| PeerUrlError {
            text: shown(text),
            reason,
        };
        let uri: Uri = text.parse().map_err(|_| refused("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") => false,
            Some(_) | None => return Err(refused("its scheme is neither `wss` nor `ws`")),
        };
        let authority = uri.authority().ok_or_else(|| refused("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("a name or password has no place in it"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(refused("a query or fragment has no place in it"));
        }
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(refused("it has no host"));
        }
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0),
            None if tls => Some(443),
            None => Some(80),
        };
        let port = port.ok_or_else(|| refused("its port is none"))?;
        let path = match uri.path() {
            "" | "/" => MESH_PATH,
            path => path,
        };
        Ok(Self {
            tls,
            host: host.to_ascii_lowercase().into(),
            port,
            path: path.into(),
        })
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// The host: a DNS name in lower case, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, as they stand in a URL.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// What an address may hold for an error message: no password, bounded, no control characters.
fn shown(text: &str) -> String {
    let tail = text.rsplit_once('@').map_or(text, |(_, tail)| tail);
    let start = if tail.len() == text.len() { "" } else { "…@" };
    let tail = tail.chars().filter(|c| !c.is_control()).take(200);
    start.chars().chain(tail).collect()
}

/// Which addresses from the registry may be dialled (`ha.mesh.discovery.allow`). Whoever can
/// write to the registry could otherwise make every hub connect to wherever he likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowRule {
    /// A DNS name in full.
    Host(String),
    /// Every name below this one, as `*.suffix` means it.
    Below(String),
    /// Addresses that are written as such.
    Net(IpNet),
}

impl AllowRule {
    /// Reads `host.name`, `*.suffix`, an address or a network in CIDR notation.
    ///
    /// # Errors
    /// It is none of these; the text says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().to_ascii_lowercase();
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(net));
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self::Net(address.into()));
        }
        let (name, below) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text.as_str(), false),
        };
        let is_name = !name.is_empty()
            && name.len() <= 253
            && name.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            });
        match (is_name, below) {
            (true, true) => Ok(Self::Below(name.to_owned())),
            (true, false) => Ok(Self::Host(name.to_owned())),
            (false, _) => Err(format!(
                "`{text}` is neither a host name, nor `*.` and a domain, nor a network such as `10.0.0.0/8`"
            )),
        }
    }

    /// Whether this host may be dialled.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        match (self, address) {
            (Self::Net(net), Some(address)) => net.contains(&address.to_canonical()),
            (Self::Host(name), None) => name.eq_ignore_ascii_case(host),
            (Self::Below(suffix), None) => host
                .len()
                .checked_sub(suffix.len() + 1)
                .and_then(|dot| Some((host.get(..dot)?, host.get(dot..)?)))
                .is_some_and(|(front, back)| {
                    !front.is_empty()
                        && back.starts_with('.')
                        && back[1..].eq_ignore_ascii_case(suffix)
                }),
            (Self::Net(_), None) | (Self::Host(_) | Self::Below(_), Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn an_address_is_read_with_its_defaults() {
        for (text, whole) in [
            (
                "wss://hub-b.example.org",
                "wss://hub-b.example.org:443/mesh",
            ),
            ("wss://Hub-B:8443/mesh", "wss://hub-b:8443/mesh"),
            ("ws://10.0.0.7/", "ws://10.0.0.7:80/mesh"),
            (
                "wss://[2001:db8::1]:1/inner/mesh",
                "wss://[2001:db8::1]:1/inner/mesh",
            ),
        ] {
            assert_eq!(PeerUrl::parse(text).unwrap().to_string(), whole);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_its_password() {
        for text in [
            "",
            "hub-b",
            "/mesh",
            "https://hub-b/mesh",
            "wss://hub-b/mesh?token=1",
            "wss://hub-b/mesh#1",
            "wss://hub-b:0/mesh",
            "wss://hub-b:99999/mesh",
            "wss://user:hunter2@hub-b/mesh",
        ] {
            let error = PeerUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains("write it as"), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn only_what_a_rule_covers_may_be_dialled() {
        let rule = |text: &str| AllowRule::parse(text).unwrap();
        assert!(rule("*.hubs.example.org").allows("a.HUBS.example.org"));
        assert!(!rule("*.hubs.example.org").allows("hubs.example.org"));
        assert!(!rule("*.hubs.example.org").allows("evilhubs.example.org"));
        assert!(!rule("*.hubs.example.org").allows(".hubs.example.org"));
        assert!(rule("hub-b").allows("hub-b"));
        assert!(!rule("hub-b").allows("hub-b.example.org"));
        assert!(rule("10.0.0.0/8").allows("10.1.2.3"));
        assert!(rule("10.0.0.0/8").allows("::ffff:10.1.2.3"));
        assert!(!rule("10.0.0.0/8").allows("11.0.0.1"));
        assert!(!rule("10.0.0.0/8").allows("10.example.org"));
        assert!(rule("10.0.0.1").allows("10.0.0.1"));
        for text in ["", "*", "*.", "a..b", "hub b", "10.0.0.0/33", "wss://a"] {
            assert!(AllowRule::parse(text).is_err(), "{text}");
        }
    }
}
