//! Services that get public names, as commands and the file name them.

use super::{Target, TargetTls};
use crate::publish::{ControlPoint, Protocol, Wish};

/// Where the control API of a hub on this machine listens.
pub const DEFAULT_CONTROL_URL: &str = "http://127.0.0.1:8766";

/// `publish`: what `start` gives public names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishConfig {
    /// Who gives them.
    pub(crate) point: ControlPoint,
    /// What they are for, at least one.
    pub(crate) services: Vec<Service>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) wish: Wish,
    pub(crate) target: Target,
}

impl Service {
    /// What is remembered of it goes by this name: the wished name, else the target's address.
    pub(crate) fn memory_name(&self) -> String {
        let protocol = self.wish.protocol.as_str();
        match &self.wish.name {
            Some(name) => format!("{protocol}-{name}"),
            None => format!("{protocol}--{}", self.target.address),
        }
    }
}

/// Reads `3000`, `HOST:3000`, `unix:/path`, and for HTTP `http://HOST:3000` and `https://HOST`,
/// where the agent speaks TLS to the service and checks its certificate.
///
/// # Errors
/// A sentence that says how to write it.
pub(crate) fn parse_target(text: &str, protocol: Protocol) -> Result<Target, String> {
    let bad = || {
        format!(
            "`{text}` is no service: write a port such as `3000`, or `HOST:PORT` such as \
             `192.168.1.5:8080`"
        )
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() {
            Err(bad())
        } else {
            Ok(Target::unix(path))
        };
    }
    let (rest, scheme_port) = match (text.split_once("://"), protocol) {
        (Some(("http", rest)), Protocol::Http) => (rest, Some(80)),
        (Some(("https", rest)), Protocol::Http) => (rest, Some(443)),
        (Some(_), _) => return Err(bad()),
        (None, _) => (text, None),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = split_port(rest, scheme_port).ok_or_else(bad)?;
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if port == 0 || host.is_empty() || !host.bytes().all(is_host) {
        return Err(bad());
    }
    let tls = (scheme_port == Some(443)).then(|| TargetTls {
        alpn: vec!["http/1.1".to_owned()],
        ..TargetTls::default()
    });
    Ok(Target {
        tls,
        ..Target::tcp(host, port)
    })
}

/// By name: many development servers listen on `::1` alone.
const THIS_MACHINE: &str = "localhost";

/// A port alone is one of this machine; a host alone has the port of its scheme.
fn split_port(text: &str, scheme_port: Option<u16>) -> Option<(&str, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        let port = match after.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if after.is_empty() => scheme_port?,
            None => return None,
        };
        return Some((host, port));
    }
    match (text.split_once(':'), scheme_port) {
        (Some((host, port)), _) => Some((host, port.parse().ok()?)),
        (None, Some(port)) => Some((text, port)),
        (None, None) => Some((THIS_MACHINE, text.parse().ok()?)),
    }
}

/// Whether a wished name can be one label of a host name (RFC 1035, 2.3.1). The hub has further
/// rules; this spares the way there.
///
/// # Errors
/// A sentence that says what a name may hold.
pub(crate) fn check_name(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let inner = !text.starts_with('-') && !text.ends_with('-');
    if (1..=63).contains(&text.len()) && text.bytes().all(fits) && inner {
        Ok(())
    } else {
        Err(format!(
            "`{text}` cannot be a name: use 1 to 63 letters, digits and `-`, with no `-` at the ends"
        ))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn a_service_is_a_port_or_an_address() {
        for (text, address, tls) in [
            ("3000", "localhost:3000", false),
            ("localhost:3000", "localhost:3000", false),
            ("[::1]:3000", "[::1]:3000", false),
            ("http://localhost:3000/", "localhost:3000", false),
            ("http://box", "box:80", false),
            ("https://box.lan", "box.lan:443", true),
            ("https://[fd00::1]", "[fd00::1]:443", true),
            ("unix:/run/app.sock", "unix:/run/app.sock", false),
        ] {
            let target = parse_target(text, Protocol::Http).unwrap();
            assert_eq!(target.address.to_string(), address);
            assert_eq!(target.tls.is_some(), tls, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_way_out() {
        for text in [
            "",
            "0",
            "65536",
            "-1",
            ":80",
            "a:",
            "a b:80",
            "a:80:80",
            "::1",
            "ftp://a:80",
            "http://",
            "http://a/path",
            "user@a:80",
            "[a]:80",
            "unix:",
        ] {
            let error = parse_target(text, Protocol::Http).unwrap_err();
            assert!(error.contains("write a port"), "{text}: {error}");
        }
        assert!(parse_target("http://a:80", Protocol::Tcp).is_err());
    }

    #[test]
    fn names_are_labels() {
        for good in ["shop", "a", "My-Shop-2"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "-a", "a-", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
