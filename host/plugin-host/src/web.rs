//! One HTTP exchange with a named server, bounded in everything that the other side could draw
//! out: addresses tried, head, body, and, by its caller, time.
//!
//! The name is resolved once, each address is shown to the caller's check, and the connection
//! goes to an address that passed, so that a name cannot lead elsewhere between check and use.
//! No redirect is followed, no proxy is used, no cookie is kept, no connection is kept either.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::fetch::FetchCode;
use crate::names::{Asker, Names};

/// Addresses of one name that are tried, one after the other.
const ADDRESSES_MAX: usize = 4;
/// What one address gets before the next one is tried.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Fields of an answer.
const FIELDS_MAX: usize = 128;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) tls: bool,
    /// Lower case, without a dot at its end; an IPv6 address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) path: String,
}

impl Target {
    /// Reads an absolute `http` or `https` URL.
    pub(crate) fn parse(url: &str) -> Result<Self, WebError> {
        let bad = |what: &str| WebError::BadRequest(what.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad("the URL cannot be read"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(bad("the URL must begin with https:// or http://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("the URL has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad(
                "the URL has a user or a password; send a header instead",
            ));
        }
        let host = plain_host(authority.host());
        if host.is_empty() {
            return Err(bad("the URL has no host"));
        }
        // A port that cannot be read must not become the default one.
        let port = match authority.port_u16() {
            Some(port) if port > 0 => port,
            None if authority.as_str() == authority.host() => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(_) | None => return Err(bad("the URL's port cannot be read")),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            tls,
            host,
            port,
            path: path.to_owned(),
        })
    }

    /// Where a `location` field leads from here.
    pub(crate) fn join(&self, location: &str) -> Result<Self, WebError> {
        if !location.starts_with('/') {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            let scheme = if self.tls { "https" } else { "http" };
            return Self::parse(&format!("{scheme}:{location}"));
        }
        Ok(Self {
            path: location.to_owned(),
            ..self.clone()
        })
    }

    /// As the `host` field has it.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// The form in which hosts are compared.
pub(crate) fn plain_host(host: &str) -> String {
    let host = host.strip_prefix('[').unwrap_or(host);
    let host = host.strip_suffix(']').unwrap_or(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase()
}

/// What is sent, apart from where to.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Outgoing {
    pub(crate) fn get() -> Self {
        Self {
            method: Method::GET,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum WebError {
    #[error("{0}")]
    BadRequest(String),
    #[error("`{0}` has no address")]
    Unresolved(String),
    #[error("`{0}` leads to a private address, which is not granted")]
    AddressRefused(String),
    #[error("no connection to `{0}`: {1}")]
    Connect(String, String),
    #[error("no TLS with `{0}`: {1}")]
    Tls(String, String),
    #[error("the answer has over {0} bytes")]
    TooLarge(usize),
    #[error("the answer is not HTTP or stopped midway: {0}")]
    Broken(String),
}

impl WebError {
    /// The code that `wit/0.2` names.
    pub(crate) const fn code(&self) -> FetchCode {
        match self {
            Self::BadRequest(_) => FetchCode::BadRequest,
            Self::Unresolved(_) => FetchCode::ResolveFailed,
            Self::AddressRefused(_) => FetchCode::AddressRefused,
            Self::Connect(..) => FetchCode::ConnectFailed,
            Self::Tls(..) => FetchCode::TlsFailed,
            Self::TooLarge(_) => FetchCode::TooLarge,
            Self::Broken(_) => FetchCode::Broken,
        }
    }
}

/// Makes exchanges. The roots of TLS are read when they are first needed.
pub(crate) struct WebClient {
    /// Trusted beside those of the system.
    extra_roots: Vec<CertificateDer<'static>>,
    tls: OnceLock<Result<TlsConnector, String>>,
    names: Names,
}

impl WebClient {
    pub(crate) fn new(extra_roots: Vec<CertificateDer<'static>>) -> Self {
        Self {
            extra_roots,
            tls: OnceLock::new(),
            names: Names::new(),
        }
    }

    /// One exchange; `may_reach` is asked about each address, `asker` says whose places
    /// its lookup takes. The caller bounds its time.
    pub(crate) async fn exchange(
        &self,
        target: &Target,
        outgoing: Outgoing,
        body_bytes_max: usize,
        asker: Asker<'_>,
        may_reach: impl Fn(IpAddr) -> bool,
    ) -> Result<Incoming, WebError> {
        let request = request(target, outgoing)?;
        let found = self.names.addresses(&target.host, target.port, asker);
        let stream = connect(target, found.await, may_reach).await?;
        if !target.tls {
            return speak(stream, request, body_bytes_max).await;
        }
        let failed = |error: String| WebError::Tls(target.host.clone(), error);
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| failed("the host is no name".to_owned()))?;
        let connector = self.connector().map_err(failed)?;
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| failed(error.to_string()))?;
        speak(stream, request, body_bytes_max).await
    }

    fn connector(&self) -> Result<TlsConnector, String> {
        let made = self.tls.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            // A system without certificates of its own may still have the operator's.
            let system = rustls_native_certs::load_native_certs().certs;
            roots.add_parsable_certificates(system);
            for certificate in &self.extra_roots {
                roots
                    .add(certificate.clone())
                    .map_err(|error| error.to_string())?;
            }
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Ok(TlsConnector::from(Arc::new(config)))
        });
        made.clone()
    }
}

fn request(target: &Target, outgoing: Outgoing) -> Result<Request<Full<Bytes>>, WebError> {
    let bad = |error: http::Error| WebError::BadRequest(error.to_string());
    if outgoing.method == Method::CONNECT {
        return Err(WebError::BadRequest("`CONNECT` is not possible".to_owned()));
    }
    let mut request = Request::builder()
        .method(outgoing.method)
        .uri(&target.path)
        .body(Full::new(outgoing.body))
        .map_err(bad)?;
    *request.headers_mut() = outgoing.headers;
    let host = HeaderValue::try_from(target.authority()).map_err(|error| bad(error.into()))?;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

async fn connect(
    target: &Target,
    found: Vec<SocketAddr>,
    may_reach: impl Fn(IpAddr) -> bool,
) -> Result<TcpStream, WebError> {
    let host = || target.host.clone();
    if found.is_empty() {
        return Err(WebError::Unresolved(host()));
    }
    let mut last = WebError::AddressRefused(host());
    let allowed = found.into_iter().filter(|address| may_reach(address.ip()));
    for address in allowed.take(ADDRESSES_MAX) {
        match timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small requests and answers; a peer that refuses the option is no reason to fail.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = WebError::Connect(host(), error.to_string()),
            Err(_) => last = WebError::Connect(host(), "no answer".to_owned()),
        }
    }
    Err(last)
}

async fn speak<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    body_bytes_max: usize,
) -> Result<Incoming, WebError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |error: hyper::Error| WebError::Broken(error.to_string());
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with this call, whichever way that ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    let (head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(WebError::Broken("it switches protocols".to_owned()));
    }
    let body = Limited::new(body, body_bytes_max).collect().await;
    let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
        Ok(_) => WebError::TooLarge(body_bytes_max),
        Err(error) => WebError::Broken(error.to_string()),
    })?;
    Ok(Incoming {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::Target;

    #[test]
    fn urls_are_taken_apart() {
        for (url, tls, host, port, path, authority) in [
            (
                "https://Api.Example.COM./v1?q=1",
                true,
                "api.example.com",
                443,
                "/v1?q=1",
                "api.example.com",
            ),
            (
                "http://api.example.com:8080",
                false,
                "api.example.com",
                8080,
                "/",
                "api.example.com:8080",
            ),
            ("https://[::1]:8443/", true, "::1", 8443, "/", "[::1]:8443"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(
                (target.tls, &*target.host, target.port, &*target.path),
                (tls, host, port, path)
            );
            assert_eq!(target.authority(), authority);
        }
    }

    #[test]
    fn urls_that_could_be_read_two_ways_are_refused() {
        for url in [
            "https://user:secret@example.com/",
            "https://good.example@evil.example/",
            "ftp://example.com/",
            "//example.com/",
            "/path",
            "https:///path",
            "https://example.com:99999/",
            "https://example.com:0/",
            "https://exa mple.com/",
            "https://example.com\\@evil.example/",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
