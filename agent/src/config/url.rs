//! Addresses of hubs and proxies, parsed once at the edge.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

use crate::secret::Secret;

/// Why a text is not a usable address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(pub(crate) String);

/// The hub's tunnel address: `wss://host[:port][/path]`, or `ws://` where plain text is allowed.
/// An empty path means `/tunnel`.
#[derive(Clone, PartialEq, Eq)]
pub struct HubUrl {
    /// Whether the tunnel runs over TLS (`wss`).
    pub tls: bool,
    /// Host name or IP address, without brackets.
    pub host: String,
    /// Port; 443 and 80 where the address names none.
    pub port: u16,
    /// Path of the upgrade request, starting with `/`.
    pub path: String,
}

impl HubUrl {
    /// Parses an address. `allow_plaintext` permits `ws://` to other hosts than this one.
    ///
    /// # Errors
    /// What is wrong with it, naming the way out.
    pub fn parse(text: &str, allow_plaintext: bool) -> Result<Self, UrlError> {
        let parts = Parts::parse(text, &["wss", "ws"])?;
        if parts.user.is_some() {
            return Err(UrlError(
                "the hub's address must hold no user or password; the token goes in `tunnel.auth.token_file`"
                    .to_owned(),
            ));
        }
        if parts.query {
            return Err(UrlError(
                "the hub's address must hold no query; the token goes in `tunnel.auth.token_file`"
                    .to_owned(),
            ));
        }
        let tls = parts.scheme == "wss";
        let url = Self {
            tls,
            port: parts.port.unwrap_or(if tls { 443 } else { 80 }),
            path: if parts.path == "/" {
                "/tunnel".to_owned()
            } else {
                parts.path
            },
            host: parts.host,
        };
        if !url.tls && !allow_plaintext && !url.is_loopback() {
            return Err(UrlError(format!(
                "`{url}` would send the token in plain text to another host; use `wss://`, or set `tunnel.allow_plaintext: true` where the network below is encrypted"
            )));
        }
        Ok(url)
    }

    /// Whether the host is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

impl fmt::Display for HubUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(formatter, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl fmt::Debug for HubUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP CONNECT over plain TCP.
    Http,
    /// HTTP CONNECT over TLS to the proxy.
    Https,
    /// SOCKS5; names are resolved here.
    Socks5,
    /// SOCKS5; names are resolved by the proxy.
    Socks5h,
}

/// A forward proxy: `http://`, `https://`, `socks5://` or `socks5h://`, with optional
/// `user:password@`.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// What it speaks.
    pub kind: ProxyKind,
    /// Host name or IP address, without brackets.
    pub host: String,
    /// Port; 80, 443 and 1080 where the address names none.
    pub port: u16,
    /// User and password, percent-decoded.
    pub login: Option<(String, Secret)>,
}

impl ProxyUrl {
    /// Parses an address; without scheme it is taken as `http://`.
    ///
    /// # Errors
    /// What is wrong with it; a password is never part of the message.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let parts = Parts::parse(&with_scheme, &["http", "https", "socks5", "socks5h"])
            .map_err(|error| UrlError(without_login(&error.0, text)))?;
        let (kind, port) = match parts.scheme.as_str() {
            "https" => (ProxyKind::Https, 443),
            "socks5" => (ProxyKind::Socks5, 1080),
            "socks5h" => (ProxyKind::Socks5h, 1080),
            _ => (ProxyKind::Http, 80),
        };
        let login = match parts.user {
            Some(user) => Some(parse_login(&user)?),
            None => None,
        };
        Ok(Self {
            kind,
            host: parts.host,
            port: parts.port.unwrap_or(port),
            login,
        })
    }

    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Http => "http",
            ProxyKind::Https => "https",
            ProxyKind::Socks5 => "socks5",
            ProxyKind::Socks5h => "socks5h",
        };
        let login = if self.login.is_some() { "***@" } else { "" };
        write!(formatter, "{scheme}://{login}{}", self.authority())
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// An `http(s)` address to fetch from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchUrl {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path_and_query: String,
}

impl FetchUrl {
    /// Parses an address; plain `http` only to this machine.
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let parts = Parts::parse(text, &["https", "http"])?;
        if parts.user.is_some() {
            return Err(UrlError(
                "the address must hold no user or password".to_owned(),
            ));
        }
        let tls = parts.scheme == "https";
        if !tls && !is_loopback(&parts.host) {
            return Err(UrlError(format!(
                "`{text}` is plain text to another host; use `https://`"
            )));
        }
        Ok(Self {
            tls,
            port: parts.port.unwrap_or(if tls { 443 } else { 80 }),
            path_and_query: parts.path_and_query,
            host: parts.host,
        })
    }

    pub(crate) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

struct Parts {
    scheme: String,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
    path_and_query: String,
    query: bool,
}

impl Parts {
    fn parse(text: &str, schemes: &[&str]) -> Result<Self, UrlError> {
        let expected = schemes.join("://` or `");
        let uri: Uri = text
            .trim()
            .parse()
            .map_err(|error| UrlError(format!("`{text}` is not an address: {error}")))?;
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        if !schemes.contains(&scheme.as_str()) {
            return Err(UrlError(format!(
                "`{text}` must start with `{expected}://`"
            )));
        }
        let host = uri.host().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(UrlError(format!("`{text}` names no host")));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let (user, host_and_port) = match authority.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, authority),
        };
        let has_port = host_and_port
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']'));
        let port = uri.port_u16();
        if has_port && port.is_none_or(|port| port == 0) {
            return Err(UrlError(format!("`{text}` has a port outside 1 to 65535")));
        }
        Ok(Self {
            scheme,
            user,
            host: host.to_owned(),
            port,
            path: uri.path().to_owned(),
            path_and_query: uri
                .path_and_query()
                .map_or_else(|| "/".to_owned(), ToString::to_string),
            query: uri.query().is_some(),
        })
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

fn parse_login(text: &str) -> Result<(String, Secret), UrlError> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let broken = || {
        UrlError("the proxy's user or password has a broken percent-escape; write `%25` for a percent sign".to_owned())
    };
    let user = percent_decode(user).ok_or_else(broken)?;
    let password = percent_decode(password).ok_or_else(broken)?;
    // SOCKS5 counts both in one byte each.
    if user.len() > 255 || password.len() > 255 {
        return Err(UrlError(
            "the proxy's user and password may be at most 255 bytes each".to_owned(),
        ));
    }
    Ok((user, Secret::new(password)))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// An error about a proxy's address without the login that the address may hold.
fn without_login(message: &str, text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, _)) => {
            let login = before.rsplit_once("://").map_or(before, |(_, login)| login);
            message.replace(login, "***")
        }
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn an_empty_path_means_tunnel() {
        let url = HubUrl::parse("wss://hub.example.com", false).unwrap();
        assert_eq!(url.to_string(), "wss://hub.example.com:443/tunnel");
        let url = HubUrl::parse("wss://[2001:db8::1]:8765/other", false).unwrap();
        assert_eq!(url.host, "2001:db8::1");
        assert_eq!(url.to_string(), "wss://[2001:db8::1]:8765/other");
    }

    #[test]
    fn plain_text_leaves_the_machine_only_when_allowed() {
        for loopback in ["ws://127.0.0.1:1", "ws://localhost:1", "ws://[::1]:1"] {
            assert!(HubUrl::parse(loopback, false).is_ok(), "{loopback}");
        }
        let error = HubUrl::parse("ws://hub.example.com", false).unwrap_err();
        assert!(error.to_string().contains("allow_plaintext"), "{error}");
        assert!(HubUrl::parse("ws://hub.example.com", true).is_ok());
    }

    #[test]
    fn tokens_do_not_belong_in_the_address() {
        for bad in ["wss://user:pw@hub", "wss://hub/tunnel?nb_token=x"] {
            let error = HubUrl::parse(bad, false).unwrap_err();
            assert!(error.to_string().contains("token_file"), "{error}");
        }
    }

    #[test]
    fn other_schemes_and_ports_are_refused() {
        for bad in [
            "https://hub",
            "hub:8765",
            "wss://hub:0",
            "wss://hub:99999",
            "wss://",
        ] {
            assert!(HubUrl::parse(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn proxies_have_a_kind_a_port_and_a_login() {
        let proxy = ProxyUrl::parse("socks5://jo%40e:p%3Aw@proxy").unwrap();
        assert_eq!(proxy.kind, ProxyKind::Socks5);
        assert_eq!(proxy.port, 1080);
        let (user, password) = proxy.login.clone().unwrap();
        assert_eq!((user.as_str(), password.expose()), ("jo@e", "p:w"));
        assert_eq!(format!("{proxy:?}"), "socks5://***@proxy:1080");
        assert_eq!(ProxyUrl::parse("proxy:3128").unwrap().kind, ProxyKind::Http);
        assert!(ProxyUrl::parse("ftp://proxy").is_err());
    }

    #[test]
    fn errors_hide_a_proxys_password() {
        for bad in ["http://joe:hunter2@proxy:0", "ftp://joe:hunter2@proxy"] {
            let error = ProxyUrl::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn fetches_in_plain_text_stay_on_this_machine() {
        assert!(FetchUrl::parse("http://127.0.0.1:8080/a?b").is_ok());
        assert!(FetchUrl::parse("http://idp.example.com/").is_err());
        let url = FetchUrl::parse("https://idp.example.com/realms/a?b=c").unwrap();
        assert_eq!(url.path_and_query, "/realms/a?b=c");
    }
}
