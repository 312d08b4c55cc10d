//! The capability `fetch`: HTTP to the hosts that a plugin's grants name.
//!
//! | grant | lets it reach |
//! |---|---|
//! | `fetch:api.example.com` | that host over TLS at port 443 |
//! | `fetch:*.example.com:8443` | all names below, not `example.com` itself |
//! | `fetch:http://pdp.example.com:8181` | that host without TLS |
//! | `fetch:10.1.2.3:8443` | that address |
//! | `fetch.network:10.0.0.0/8` | private addresses to which a granted name may lead |

mod code;

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use tokio::time::timeout;
use wasmtime::component::{ComponentType, Lift, Lower};

use crate::address::is_public;
use crate::facts::Field;
use crate::grant::is_never_edited;
use crate::names::Asker;
use crate::plugin::Plugin;
use crate::web::{Incoming, Outgoing, Target, WebError, plain_host};

pub use code::FetchCode;

/// Requests of one plugin at once.
pub(crate) const FETCHES_PER_PLUGIN_MAX: usize = 32;
/// Bytes of an answer's body.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Fields of a request.
const FIELDS_MAX: usize = 64;

/// A request, as `wit/0.2` has it.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct FetchRequest {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<Field>,
    pub(crate) body: Vec<u8>,
    #[component(name = "timeout-ms")]
    pub(crate) timeout_ms: Option<u32>,
}

/// An answer, as `wit/0.2` has it.
#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct FetchResponse {
    pub(crate) status: u16,
    pub(crate) headers: Vec<Field>,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer, as `wit/0.2` has it.
#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct FetchFailure {
    pub(crate) code: &'static str,
    pub(crate) detail: String,
}

impl From<WebError> for FetchFailure {
    fn from(error: WebError) -> Self {
        Self {
            code: error.code().as_str(),
            detail: error.to_string(),
        }
    }
}

impl FetchFailure {
    fn new(code: FetchCode, detail: impl Into<String>) -> Self {
        Self {
            code: code.as_str(),
            detail: detail.into(),
        }
    }
}

/// Sends a request of a plugin's. Waits; the wall time of the call cuts it off.
pub(crate) async fn send(
    plugin: &Arc<Plugin>,
    request: FetchRequest,
) -> Result<FetchResponse, FetchFailure> {
    let started = Instant::now();
    let answer = admitted(plugin, request).await;
    let outcome = answer
        .as_ref()
        .map_or_else(|failure| failure.code, |_| "ok");
    let observer = &plugin.engine.observer;
    observer.fetched(&plugin.name, outcome, started.elapsed());
    answer
}

async fn admitted(
    plugin: &Arc<Plugin>,
    request: FetchRequest,
) -> Result<FetchResponse, FetchFailure> {
    let target = Target::parse(&request.url)?;
    if !plugin.grants.hosts().may_fetch(&target) {
        let scheme = if target.tls { "" } else { "http://" };
        return Err(FetchFailure::new(
            FetchCode::NotGranted,
            format!(
                "it needs the grant `fetch:{scheme}{}:{}`",
                target.host, target.port
            ),
        ));
    }
    let Ok(_slot) = plugin.fetches.try_acquire() else {
        let detail = format!("{FETCHES_PER_PLUGIN_MAX} requests are under way");
        return Err(FetchFailure::new(FetchCode::Busy, detail));
    };
    let time = request
        .timeout_ms
        .map(|ms| Duration::from_millis(ms.into()));
    let outgoing = outgoing(request)?;
    let exchange = plugin.engine.web.exchange(
        &target,
        outgoing,
        BODY_BYTES_MAX,
        Asker::Plugin(&plugin.name),
        |address| plugin.grants.hosts().may_reach(&target, address),
    );
    let incoming = match time {
        None => exchange.await?,
        Some(time) => timeout(time, exchange).await.map_err(|_| {
            FetchFailure::new(FetchCode::Timeout, format!("no answer in {time:?}"))
        })??,
    };
    Ok(response(incoming))
}

fn outgoing(request: FetchRequest) -> Result<Outgoing, FetchFailure> {
    let bad = |detail: String| FetchFailure::new(FetchCode::BadRequest, detail);
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| bad(format!("`{}` is no method", request.method.escape_debug())))?;
    if request.headers.len() > FIELDS_MAX {
        return Err(bad(format!("it has over {FIELDS_MAX} fields")));
    }
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for (name, value) in request.headers {
        let field = || {
            bad(format!(
                "the field `{}` is not possible",
                name.escape_debug()
            ))
        };
        let parsed = HeaderName::from_str(&name).map_err(|_| field())?;
        if is_never_edited(parsed.as_str()) || parsed == http::header::HOST {
            return Err(field());
        }
        headers.append(
            parsed,
            HeaderValue::from_bytes(&value).map_err(|_| field())?,
        );
    }
    Ok(Outgoing {
        method,
        headers,
        body: Bytes::from(request.body),
    })
}

fn response(incoming: Incoming) -> FetchResponse {
    let headers = incoming.headers.iter();
    FetchResponse {
        status: incoming.status.as_u16(),
        headers: headers
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect(),
        body: incoming.body.to_vec(),
    }
}

/// The hosts that a plugin may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hosts {
    rules: Vec<HostRule>,
    networks: Vec<IpNet>,
}

impl Hosts {
    pub(crate) fn add_host(&mut self, text: &str) -> Result<(), &'static str> {
        self.rules.push(text.parse()?);
        Ok(())
    }

    pub(crate) fn add_network(&mut self, text: &str) -> Result<(), &'static str> {
        let network = text
            .parse()
            .map_err(|_| "it needs a network, such as `10.0.0.0/8`")?;
        self.networks.push(network);
        Ok(())
    }

    pub(crate) fn may_fetch(&self, target: &Target) -> bool {
        self.rules.iter().any(|rule| rule.matches(target))
    }

    /// A granted address is granted whatever it is; a name must lead to a public one, or into
    /// a granted network.
    fn may_reach(&self, target: &Target, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_written_out = target
            .host
            .parse()
            .is_ok_and(|written: IpAddr| written.to_canonical() == address);
        is_public(address)
            || self
                .networks
                .iter()
                .any(|network| network.contains(&address))
            || (is_written_out
                && self
                    .rules
                    .iter()
                    .any(|rule| rule.is_exact() && rule.matches(target)))
    }
}

/// One `fetch:` grant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostRule {
    tls: bool,
    host: HostPattern,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Exact(String),
    /// Names that end with this, which begins with a dot.
    Below(String),
}

impl HostRule {
    fn matches(&self, target: &Target) -> bool {
        let host = match &self.host {
            HostPattern::Exact(host) => *host == target.host,
            HostPattern::Below(end) => {
                target.host.len() > end.len() && target.host.ends_with(end.as_str())
            }
        };
        host && self.tls == target.tls && self.port == target.port
    }

    const fn is_exact(&self) -> bool {
        match self.host {
            HostPattern::Exact(_) => true,
            HostPattern::Below(_) => false,
        }
    }
}

impl FromStr for HostRule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const NEEDS: &str = "it needs a host, such as `api.example.com` or `*.example.com:8443`";
        let (tls, rest) = match text.split_once("://") {
            None => (true, text),
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err("possible are `http://` and `https://`"),
        };
        let (below, rest) = match rest.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if rest.contains(['*', '/', '?', '#']) {
            return Err("`*.` stands in front only, and no path behind");
        }
        let scheme = if tls { "https" } else { "http" };
        let target = Target::parse(&format!("{scheme}://{rest}")).map_err(|_| NEEDS)?;
        let host = plain_host(&target.host);
        let is_name = host.contains(|c: char| c.is_ascii_alphabetic()) && !host.contains(':');
        if below && (!is_name || !host.contains('.')) {
            return Err("`*.` needs a domain of two parts or more behind it");
        }
        Ok(Self {
            tls,
            host: if below {
                HostPattern::Below(format!(".{host}"))
            } else {
                HostPattern::Exact(host)
            },
            port: target.port,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::Hosts;
    use crate::web::Target;

    fn hosts(grants: &[&str], networks: &[&str]) -> Hosts {
        let mut hosts = Hosts::default();
        grants
            .iter()
            .for_each(|grant| hosts.add_host(grant).unwrap());
        networks
            .iter()
            .for_each(|network| hosts.add_network(network).unwrap());
        hosts
    }

    #[test]
    fn a_grant_names_scheme_host_and_port() {
        let hosts = hosts(
            &[
                "api.example.com",
                "*.example.org:8443",
                "http://pdp.example.com:8181",
            ],
            &[],
        );
        for (url, allowed) in [
            ("https://api.example.com/x", true),
            ("https://API.example.com./x", true),
            ("http://api.example.com/x", false),
            ("https://api.example.com:8443/x", false),
            ("https://evil-api.example.com/", false),
            ("https://api.example.com.evil.example/", false),
            ("https://a.example.org:8443/", true),
            ("https://a.b.example.org:8443/", true),
            ("https://example.org:8443/", false),
            ("https://aexample.org:8443/", false),
            ("http://pdp.example.com:8181/", true),
            ("https://pdp.example.com:8181/", false),
        ] {
            assert_eq!(
                hosts.may_fetch(&Target::parse(url).unwrap()),
                allowed,
                "{url}"
            );
        }
    }

    #[test]
    fn a_name_leads_to_public_addresses_or_into_granted_networks() {
        let named = Target::parse("https://api.example.com/").unwrap();
        let ip = |text: &str| text.parse().unwrap();
        let plain = hosts(&["api.example.com"], &[]);
        assert!(plain.may_reach(&named, ip("1.1.1.1")));
        assert!(!plain.may_reach(&named, ip("127.0.0.1")));
        assert!(!plain.may_reach(&named, ip("::ffff:10.0.0.1")));
        let inside = hosts(&["api.example.com"], &["10.0.0.0/8"]);
        assert!(inside.may_reach(&named, ip("10.9.9.9")));
        assert!(inside.may_reach(&named, ip("::ffff:10.9.9.9")));
        assert!(!inside.may_reach(&named, ip("127.0.0.1")));
    }

    #[test]
    fn an_address_that_is_written_out_is_granted_itself_and_no_other() {
        let hosts = hosts(&["127.0.0.1:8443", "[::1]:8443"], &[]);
        let target = Target::parse("https://127.0.0.1:8443/").unwrap();
        assert!(hosts.may_fetch(&target));
        assert!(hosts.may_reach(&target, "127.0.0.1".parse().unwrap()));
        assert!(!hosts.may_reach(&target, "127.0.0.2".parse().unwrap()));
        let target = Target::parse("https://[::1]:8443/").unwrap();
        assert!(hosts.may_reach(&target, "::1".parse().unwrap()));
    }

    #[test]
    fn grants_that_could_mean_more_than_they_say_are_refused() {
        for grant in [
            "",
            "*",
            "*.",
            "*.com",
            "a.*.example.com",
            "api.example.com/path",
            "ftp://a.example",
            "user@a.example",
            "*.10.0.0.1",
            "a.example:0",
            "api.*",
        ] {
            assert!(Hosts::default().add_host(grant).is_err(), "{grant}");
        }
        assert!(Hosts::default().add_network("10.0.0.0/99").is_err());
    }
}
