//! The way to the hub: resolve, connect (through a proxy where one is set), TLS, upgrade.
//!
//! Every step runs under one deadline and fails with its own kind of [`DialFailure`], so that the
//! log, `diagnose` and the wait before the next dial can each tell them apart.

mod refused;

use std::io;
use std::path::Path;
use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{HeaderValue, Request, Response};
use nowconnect_tunnel::tungstenite::Error as WebSocketError;
use nowconnect_tunnel::tungstenite::handshake::client::generate_key;
use nowconnect_tunnel::{TLS_BUFFER_BYTES, WebSocketStream, read_ahead, websocket_config};
use rustls_pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

pub(crate) use self::refused::UpgradeRefused;
use crate::backoff::retry_after;
use crate::config::{HubUrl, Outbound, ProxyKind, ProxyUrl};
use crate::net::{self, ConnectError};
use crate::proxy::{self, ProxyError};
use crate::signing::SigningError;
use crate::stream::MaybeTls;
use crate::tls::{self, TrustError};

/// The versioned subprotocol that both ends must name.
pub(crate) const SUBPROTOCOL: &str = "nowconnect.v1";
/// HTTP/1.1 is the only protocol an upgrade can be asked for in.
const HTTP1_ALPN: &str = "http/1.1";
/// A refusal's explanation is read up to this many characters.
const REASON_CHARS_MAX: usize = 300;

/// A stream to the hub: TCP, or TLS to a proxy, and over it plain text or TLS to the hub.
pub(crate) type HubStream = MaybeTls<BufReader<MaybeTls<TcpStream>>>;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialFailure {
    #[error("hub `{host}`: {error}")]
    Connect { host: String, error: ConnectError },
    #[error("proxy `{proxy}`: {error}")]
    ConnectProxy { proxy: String, error: ConnectError },
    #[error("proxy `{proxy}`: TLS failed: {reason}")]
    ProxyTls { proxy: String, reason: String },
    #[error("way to `{host}`: {error}")]
    Proxy { host: String, error: ProxyError },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("TLS to `{host}` failed: {reason}")]
    Tls { host: String, reason: String },
    #[error("TLS to `{host}` did not finish in time")]
    TlsTimeout { host: String },
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error("hub refused the upgrade: {0}")]
    Refused(UpgradeRefused),
    #[error("hub did not answer the upgrade in time")]
    UpgradeTimeout,
    #[error("hub's answer to the upgrade is not understood: {0}")]
    Upgrade(String),
}

/// Where a stream leads and through what.
pub(crate) struct Transport<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) server_name: Option<&'a str>,
    pub(crate) proxy: Option<&'a ProxyUrl>,
    pub(crate) ca_bundle: Option<&'a Path>,
}

impl<'a> Transport<'a> {
    pub(crate) fn to_hub(hub: &'a HubUrl, outbound: &'a Outbound) -> Self {
        Self {
            host: &hub.host,
            port: hub.port,
            tls: hub.tls,
            server_name: outbound.server_name.as_deref(),
            proxy: outbound
                .hub_proxy
                .as_ref()
                .filter(|_| !outbound.no_proxy.covers(&hub.host, hub.port)),
            ca_bundle: outbound.ca_bundle.as_deref(),
        }
    }
}

/// Opens the stream that a tunnel or a fetch runs over.
pub(crate) async fn open_transport(
    route: &Transport<'_>,
    deadline: Instant,
) -> Result<HubStream, DialFailure> {
    let carrier = open_carrier(route, deadline).await?;
    if !route.tls {
        return Ok(MaybeTls::Plain(read_ahead(carrier)));
    }
    let roots = tls::roots(route.ca_bundle)?;
    let client = tls::client(roots, &[HTTP1_ALPN.to_owned()], None)?;
    open_tls(
        read_ahead(carrier),
        client,
        route.server_name.unwrap_or(route.host),
        deadline,
    )
    .await
}

/// The stream below the hub's own TLS.
pub(crate) async fn open_carrier(
    route: &Transport<'_>,
    deadline: Instant,
) -> Result<MaybeTls<TcpStream>, DialFailure> {
    let Some(proxy) = route.proxy else {
        let tcp = net::connect(route.host, route.port, deadline)
            .await
            .map_err(|error| DialFailure::Connect {
                host: route.host.to_owned(),
                error,
            })?;
        return Ok(MaybeTls::Plain(tcp));
    };
    let tcp = net::connect(&proxy.host, proxy.port, deadline)
        .await
        .map_err(|error| DialFailure::ConnectProxy {
            proxy: proxy.authority(),
            error,
        })?;
    let mut carrier = match proxy.kind {
        ProxyKind::Https => {
            let roots = tls::roots(route.ca_bundle)?;
            let client = tls::client(roots, &[HTTP1_ALPN.to_owned()], None)?;
            open_tls(tcp, client, &proxy.host, deadline)
                .await
                .map_err(|failure| DialFailure::ProxyTls {
                    proxy: proxy.authority(),
                    reason: failure.to_string(),
                })?
        }
        ProxyKind::Http | ProxyKind::Socks5 | ProxyKind::Socks5h => MaybeTls::Plain(tcp),
    };
    proxy::ask(&mut carrier, proxy, route.host, route.port, deadline)
        .await
        .map_err(|error| DialFailure::Proxy {
            host: route.host.to_owned(),
            error,
        })?;
    Ok(carrier)
}

/// TLS over `stream`, to a server that must be called `name`.
pub(crate) async fn open_tls<S>(
    stream: S,
    client: Arc<rustls::ClientConfig>,
    name: &str,
    deadline: Instant,
) -> Result<MaybeTls<S>, DialFailure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let failed = |reason: String| DialFailure::Tls {
        host: name.to_owned(),
        reason,
    };
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| failed("it is neither a DNS name nor an IP address".to_owned()))?;
    let handshake = TlsConnector::from(client).connect(server, stream);
    match timeout_at(deadline, handshake).await {
        Ok(Ok(mut stream)) => {
            stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
            Ok(MaybeTls::Tls(Box::new(stream)))
        }
        Ok(Err(error)) => Err(failed(explain_tls(&error))),
        Err(_) => Err(DialFailure::TlsTimeout {
            host: name.to_owned(),
        }),
    }
}

/// A TLS failure in words that name the likely cause.
pub(crate) fn explain_tls(error: &io::Error) -> String {
    use rustls::Error as Tls;
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Tls>());
    let Some(inner) = inner else {
        return if error.kind() == io::ErrorKind::UnexpectedEof {
            "the other end closed during the handshake; is it a TLS port?".to_owned()
        } else {
            error.to_string()
        };
    };
    let hint = if let Tls::InvalidCertificate(bad) = inner {
        certificate_hint(bad)
    } else if let Tls::InvalidMessage(_) = inner {
        "the other end does not speak TLS"
    } else if let Tls::AlertReceived(alert) = inner {
        alert_hint(*alert)
    } else {
        ""
    };
    if hint.is_empty() {
        inner.to_string()
    } else {
        format!("{inner}; {hint}")
    }
}

/// What the other end says of the certificate that it was shown, or was not.
fn alert_hint(alert: rustls::AlertDescription) -> &'static str {
    use rustls::AlertDescription as Alert;
    if matches!(alert, Alert::CertificateRequired) {
        "it asks for a client certificate; a target's is set by `cert_file` and `key_file`"
    } else if matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
    ) {
        "it refuses the client certificate that it was shown"
    } else {
        ""
    }
}

fn certificate_hint(bad: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as Bad;
    if matches!(bad, Bad::UnknownIssuer) {
        "its CA is not trusted here; if a proxy intercepts TLS or the CA is private, set `ca_bundle` (`NC_CA_BUNDLE`)"
    } else if matches!(bad, Bad::BadSignature) {
        "a CA of that name is trusted here, but with another key; renew `ca_bundle` (`NC_CA_BUNDLE`)"
    } else if matches!(bad, Bad::Expired | Bad::ExpiredContext { .. }) {
        "its certificate has expired, or this machine's clock is wrong"
    } else if matches!(bad, Bad::NotValidYet | Bad::NotValidYetContext { .. }) {
        "its certificate is not valid yet, or this machine's clock is wrong"
    } else if matches!(
        bad,
        Bad::NotValidForName | Bad::NotValidForNameContext { .. }
    ) {
        "its certificate is for another name; set `server_name` if that is right"
    } else {
        ""
    }
}

/// Asks for the upgrade with this `Authorization`.
pub(crate) async fn upgrade<S>(
    stream: S,
    hub: &HubUrl,
    authorization: HeaderValue,
    deadline: Instant,
) -> Result<WebSocketStream<S>, DialFailure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = upgrade_request(hub, authorization)
        .map_err(|error| DialFailure::Upgrade(error.to_string()))?;
    // An agent takes the longest messages there are; HELLO has no word for less.
    let limits = websocket_config();
    let handshake = tokio_tungstenite::client_async_with_config(request, stream, Some(limits));
    match timeout_at(deadline, handshake).await {
        Ok(Ok((websocket, _))) => Ok(websocket),
        Ok(Err(WebSocketError::Http(response))) => Err(DialFailure::Refused(refusal(&response))),
        Ok(Err(error)) => Err(DialFailure::Upgrade(error.to_string())),
        Err(_) => Err(DialFailure::UpgradeTimeout),
    }
}

fn upgrade_request(hub: &HubUrl, authorization: HeaderValue) -> Result<Request<()>, http::Error> {
    let default_port = if hub.tls { 443 } else { 80 };
    let authority = hub.authority();
    let host = if hub.port == default_port {
        authority
            .rsplit_once(':')
            .map_or(authority.as_str(), |(host, _)| host)
    } else {
        authority.as_str()
    };
    Request::builder()
        .uri(hub.to_string())
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key())
        .header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .header(USER_AGENT, crate::USER_AGENT)
        .header(AUTHORIZATION, authorization)
        .body(())
}

fn refusal(response: &Response<Option<Vec<u8>>>) -> UpgradeRefused {
    let body = response.body().as_deref().unwrap_or_default();
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let field = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| json.as_ref()?.get(*name)?.as_str().map(printable))
    };
    let reason = field(&["message", "error_description", "detail"])
        .unwrap_or_else(|| printable(&String::from_utf8_lossy(body)));
    UpgradeRefused {
        status: response.status().as_u16(),
        code: field(&["code", "error"]),
        reason,
        retry_after: retry_after(response.headers()),
    }
}

/// The first line without control characters, so that a hub cannot write into the log's shape.
fn printable(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|char| !char.is_control())
        .take(REASON_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::time::Duration;

    use http::header::RETRY_AFTER;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::backoff::RETRY_AFTER_MAX;

    #[tokio::test]
    async fn the_upgrade_names_token_and_subprotocol() {
        let (result, request) = exchange(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await;
        assert!(matches!(result, Err(DialFailure::Upgrade(_))));
        let request = request.to_ascii_lowercase();
        assert!(request.starts_with("get /tunnel http/1.1\r\n"), "{request}");
        for line in [
            "host: hub.example.com\r\n",
            "authorization: bearer t0ken\r\n",
            "sec-websocket-protocol: nowconnect.v1\r\n",
        ] {
            assert!(request.contains(line), "{request}");
        }
        assert!(!request.contains("permessage-deflate"));
    }

    #[tokio::test]
    async fn refusals_carry_status_code_reason_and_wait() {
        let body = r#"{"code":"unauthenticated","message":"token expired"}"#;
        let (result, _) = exchange(
            format!(
                "HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        )
        .await;
        let Err(DialFailure::Refused(refused)) = result else {
            panic!("not refused");
        };
        assert_eq!(refused.to_string(), "401 `unauthenticated` (token expired)");
        assert!(refused.needs_a_person());

        let (result, _) = exchange(
            b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        let Err(DialFailure::Refused(refused)) = result else {
            panic!("not refused");
        };
        assert_eq!(refused.retry_after, Some(Duration::from_secs(7)));
        assert!(!refused.needs_a_person());
    }

    #[test]
    fn an_absurd_retry_after_is_capped() {
        let response = Response::builder()
            .status(503)
            .header(RETRY_AFTER, "99999999")
            .body(None)
            .unwrap();
        assert_eq!(refusal(&response).retry_after, Some(RETRY_AFTER_MAX));
    }

    #[tokio::test]
    async fn a_silent_hub_is_not_waited_for() {
        let (near, _far) = duplex(4096);
        let hub = HubUrl::parse("wss://hub.example.com", false).unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        let result = upgrade(near, &hub, bearer(), deadline).await;
        assert!(matches!(result, Err(DialFailure::UpgradeTimeout)));
    }

    #[tokio::test]
    async fn plain_text_where_tls_was_expected_is_explained() {
        let (near, mut far) = duplex(4096);
        far.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
        let client = tls::client(rustls::RootCertStore::empty(), &[], None).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let result = open_tls(near, client, "hub.example.com", deadline).await;
        let error = result.err().unwrap().to_string();
        assert!(error.contains("does not speak TLS"), "{error}");
    }

    fn bearer() -> HeaderValue {
        HeaderValue::from_static("Bearer t0ken")
    }

    async fn exchange(
        answer: &[u8],
    ) -> (
        Result<WebSocketStream<tokio::io::DuplexStream>, DialFailure>,
        String,
    ) {
        let (near, mut far) = duplex(64 * 1024);
        far.write_all(answer).await.unwrap();
        let hub = HubUrl::parse("wss://hub.example.com", false).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let result = upgrade(near, &hub, bearer(), deadline).await;
        let mut request = vec![0; 4096];
        let length = far.read(&mut request).await.unwrap();
        let request = String::from_utf8(request[..length].to_vec()).unwrap();
        (result, request)
    }
}
