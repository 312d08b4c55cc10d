//! Fetching keys: bounded in time and size, and not to be led astray.
//!
//! Two clients. What the operator wrote may lead anywhere: he named it. What a document names (a
//! `jwks_uri` on another host) may only lead to public addresses, unless he allows it; the check
//! is in the name resolution of the very connection, so that a name cannot be checked with one
//! address and dialled with another. Redirects are followed only to the same origin.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url, redirect};

use crate::config::JwksConfig;

/// The most redirects that one fetch follows: a login page in between is a mistake, not a key.
const MAX_REDIRECTS: usize = 3;

/// The largest CA bundle, in bytes: some 1,000 certificates.
const MAX_CA_BUNDLE_BYTES: u64 = 2 << 20;

/// Why a fetch brought nothing. Holds no part of what was answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("`{url}` did not answer within {timeout_ms} ms")]
    Timeout { url: String, timeout_ms: u128 },
    #[error("`{url}` cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("`{url}` answered {status}")]
    Status { url: String, status: u16 },
    #[error("`{url}` answered more than {max_bytes} bytes")]
    TooLarge { url: String, max_bytes: u64 },
    #[error("`{url}` is not fetched: {reason}")]
    Forbidden { url: String, reason: &'static str },
}

/// Fetches documents of issuers.
#[derive(Clone)]
pub(crate) struct Fetcher {
    named: Client,
    learnt: Client,
    timeout: Duration,
    max_bytes: u64,
    allow_private: bool,
    allow_plain_http: bool,
    roots_not_after: Option<i64>,
}

/// Who named a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamedBy {
    /// The operator, in the configuration.
    Operator,
    /// A document that was fetched.
    Document,
}

impl Fetcher {
    pub(crate) fn new(config: &JwksConfig) -> Result<Self, String> {
        let (roots, roots_not_after) = match &config.ca_bundle {
            Some(path) => ca_bundle("security.jwks_ca_bundle", path)?,
            None => (Vec::new(), None),
        };
        let client = |public_only: bool| {
            let mut builder = Client::builder()
                .timeout(config.timeout)
                .connect_timeout(config.timeout)
                .redirect(redirect::Policy::custom(same_origin_only))
                .user_agent(concat!("nowconnect/", env!("CARGO_PKG_VERSION")));
            if !roots.is_empty() {
                builder = builder.tls_certs_merge(roots.iter().cloned());
            }
            if public_only {
                builder = builder.dns_resolver(Arc::new(PublicOnly));
            }
            builder
                .build()
                .map_err(|error| format!("no HTTP client for keys: {error}"))
        };
        Ok(Self {
            named: client(false)?,
            learnt: client(!config.allow_private)?,
            timeout: config.timeout,
            max_bytes: config.max_bytes,
            allow_private: config.allow_private,
            allow_plain_http: config.allow_plain_http,
            roots_not_after,
        })
    }

    /// When the first root of the CA bundle ends, seconds since 1970.
    pub(crate) fn roots_not_after(&self) -> Option<i64> {
        self.roots_not_after
    }

    /// The body behind a URL, whole.
    pub(crate) async fn fetch(&self, url: &Url, by: NamedBy) -> Result<Vec<u8>, FetchError> {
        self.check(url, by)?;
        let client = match by {
            NamedBy::Operator => &self.named,
            NamedBy::Document => &self.learnt,
        };
        // The client's own timeout covers the body as well; this one is for what it may not.
        match tokio::time::timeout(self.timeout, self.read(client, url)).await {
            Ok(done) => done,
            Err(_) => Err(self.timed_out(url)),
        }
    }

    async fn read(&self, client: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
        let failed = |error: reqwest::Error| {
            if error.is_timeout() {
                self.timed_out(url)
            } else {
                FetchError::Unreachable {
                    url: shown(url),
                    reason: innermost(&error.without_url()),
                }
            }
        };
        let mut answer = client
            .get(url.clone())
            .header(http::header::ACCEPT, "application/json")
            .send()
            .await
            .map_err(failed)?;
        if answer.status() != http::StatusCode::OK {
            return Err(FetchError::Status {
                url: shown(url),
                status: answer.status().as_u16(),
            });
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if (body.len() + chunk.len()) as u64 > self.max_bytes {
                return Err(FetchError::TooLarge {
                    url: shown(url),
                    max_bytes: self.max_bytes,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn check(&self, url: &Url, by: NamedBy) -> Result<(), FetchError> {
        let forbidden = |reason| FetchError::Forbidden {
            url: shown(url),
            reason,
        };
        match url.scheme() {
            "https" => {}
            "http" if self.allow_plain_http || is_loopback(url) => {}
            "http" => {
                return Err(forbidden(
                    "plain HTTP beyond loopback; set `security.jwks_allow_plain_http` to allow it",
                ));
            }
            _ => return Err(forbidden("it is neither https nor http")),
        }
        // An address in place of a name is never resolved, so the resolver would not see it.
        let address = url
            .host_str()
            .and_then(|host| host.trim_matches(['[', ']']).parse().ok());
        if by == NamedBy::Document
            && !self.allow_private
            && (address.is_some_and(|address| !is_public(address)) || is_loopback(url))
        {
            return Err(forbidden(
                "a document named a private address; set `security.jwks_allow_private` to allow it",
            ));
        }
        Ok(())
    }

    fn timed_out(&self, url: &Url) -> FetchError {
        FetchError::Timeout {
            url: shown(url),
            timeout_ms: self.timeout.as_millis(),
        }
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("timeout", &self.timeout)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

pub(crate) fn same_origin_only(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let same = attempt
        .previous()
        .first()
        .is_some_and(|first| first.origin() == attempt.url().origin());
    if same && attempt.previous().len() <= MAX_REDIRECTS {
        attempt.follow()
    } else {
        attempt.error("it redirects elsewhere")
    }
}

/// Resolves names to public addresses only.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "a document named a host with private addresses only; set \
                     `security.jwks_allow_private` to allow it",
                )
                .into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

/// Whether an address belongs to the public internet.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (b == 18 || b == 19);
    let reserved = a >= 240 || a == 0;
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || shared
        || protocol
        || benchmark
        || reserved)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let documentation = address.segments()[0] == 0x2001 && address.segments()[1] == 0x0db8;
    // 2000::/3 is all that is given out.
    address.segments()[0] & 0xe000 == 0x2000 && !documentation
}

/// The IPv4 address inside a mapped, translated (NAT64) or 6to4 address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let tail = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(tail(high, low)),
        _ => None,
    }
}

/// Whether a URL leads to this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    })
}

/// The certificates of the PEM file that `key` of the configuration names, and when the first of
/// them ends, in seconds since 1970. One bad block refuses the file: a root that silently does
/// not count is found only when a peer is refused.
pub(crate) fn ca_bundle(
    key: &str,
    path: &Path,
) -> Result<(Vec<reqwest::Certificate>, Option<i64>), String> {
    let shown = path.display();
    let length = fs::metadata(path)
        .map_err(|error| format!("cannot read `{key}` `{shown}`: {error}"))?
        .len();
    if length > MAX_CA_BUNDLE_BYTES {
        return Err(format!(
            "`{key}` `{shown}` is larger than {MAX_CA_BUNDLE_BYTES} bytes"
        ));
    }
    let pem = fs::read(path).map_err(|error| format!("cannot read `{key}` `{shown}`: {error}"))?;
    let roots = crate::tls::certificates(&pem, path).map_err(|error| error.to_string())?;
    let not_after = crate::tls::earliest_not_after(&roots);
    let roots: Result<Vec<_>, String> = roots
        .iter()
        .map(|root| {
            reqwest::Certificate::from_der(root)
                .map_err(|error| format!("`{key}` `{shown}`: {error}"))
        })
        .collect();
    Ok((roots?, not_after))
}

/// The URL without user information, query and fragment.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Only a URL that cannot have user information refuses this.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// What is at the bottom of an error: "connection refused" rather than "error sending request".
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
