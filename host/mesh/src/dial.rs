//! The way to another hub: name, TCP, TLS, upgrade.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, StatusCode};
use nowconnect_protocol::mesh::SUBPROTOCOL;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::address::PeerUrl;
use crate::credentials::Credentials;
use crate::handshake::HelloError;
use crate::io::{MeshIo, TLS_BUFFER_BYTES, link_config};
use crate::proof::Exporter;

/// Why a dial led to no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// It took too long.
    #[error("no link within {} ms", within.as_millis())]
    Timeout {
        /// The bound.
        within: Duration,
    },
    /// The name does not resolve, or nobody answers there.
    #[error("`{authority}`: {reason}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the system said.
        reason: String,
    },
    /// TLS failed.
    #[error("TLS to `{authority}` failed: {reason}")]
    Tls {
        /// Host and port.
        authority: String,
        /// What the library said.
        reason: String,
    },
    /// The upgrade was refused.
    #[error("`{url}` answered the upgrade with {status}{}", said(reason))]
    Upgrade {
        /// Where.
        url: String,
        /// The status.
        status: StatusCode,
        /// The first line of the body.
        reason: String,
    },
    /// The answer to the upgrade is none.
    #[error("`{url}` does not speak the mesh: {reason}")]
    NoMesh {
        /// Where.
        url: String,
        /// What the library said.
        reason: String,
    },
    /// `wss://` without roots.
    #[error("`{url}` needs `ha.mesh.tls`: without `ca_bundle` nobody there can be believed")]
    NoTrust {
        /// Where.
        url: String,
    },
    /// `ws://` where identity must be proven.
    #[error("`{url}` would be plain text, and `ha.mesh.require_mtls` is on: write `wss://`")]
    Plain {
        /// Where.
        url: String,
    },
    /// The hello led to no link.
    #[error(transparent)]
    Hello(#[from] HelloError),
}

fn said(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

impl DialError {
    /// A stable name for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Connect { .. } => "connect",
            Self::Tls { .. } => "tls",
            Self::Upgrade { .. } => "upgrade",
            Self::NoMesh { .. } => "no_mesh",
            Self::NoTrust { .. } | Self::Plain { .. } => "config",
            Self::Hello(error) => error.code(),
        }
    }
}

/// A WebSocket, the TLS session that it runs over, and its other end.
type Opened = (
    WebSocketStream<Box<dyn MeshIo>>,
    Option<Exporter>,
    SocketAddr,
);

/// Opens the WebSocket; the hello comes next. The caller bounds the time.
pub(crate) async fn open(url: &PeerUrl, loaded: Option<&Credentials>) -> Result<Opened, DialError> {
    let authority = url.authority();
    let (stream, remote) = TcpStream::connect((url.host(), url.port()))
        .await
        .and_then(|stream| {
            prepare(&stream)?;
            let remote = stream.peer_addr()?;
            Ok((stream, remote))
        })
        .map_err(|error| DialError::Connect {
            authority: authority.clone(),
            reason: error.to_string(),
        })?;
    if !url.tls() {
        let ws = upgrade(Box::new(stream), url).await?;
        return Ok((ws, None, remote));
    }
    let loaded = loaded.ok_or_else(|| DialError::NoTrust {
        url: url.to_string(),
    })?;
    let failed = |reason: String| DialError::Tls {
        authority: authority.clone(),
        reason,
    };
    let name = ServerName::try_from(url.host().to_owned())
        .map_err(|_| failed("its host is neither a DNS name nor an IP address".to_owned()))?;
    let mut stream = TlsConnector::from(loaded.client.clone())
        .connect(name, stream)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let session = stream.get_mut().1;
    session.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    let exporter = Exporter::of_client(session);
    Ok((upgrade(Box::new(stream), url).await?, exporter, remote))
}

async fn upgrade(
    io: Box<dyn MeshIo>,
    url: &PeerUrl,
) -> Result<WebSocketStream<Box<dyn MeshIo>>, DialError> {
    let no_mesh = |reason: String| DialError::NoMesh {
        url: url.to_string(),
        reason,
    };
    let request = Request::builder()
        .uri(url.to_string())
        .header(HOST, url.authority())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key())
        .header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .body(())
        .map_err(|error| no_mesh(error.to_string()))?;
    match tokio_tungstenite::client_async_with_config(request, io, Some(link_config())).await {
        Ok((ws, _)) => Ok(ws),
        Err(WsError::Http(response)) => Err(DialError::Upgrade {
            url: url.to_string(),
            status: response.status(),
            reason: first_line(response.body().as_deref().unwrap_or_default()),
        }),
        Err(error) => Err(no_mesh(error.to_string())),
    }
}

/// The first line without control characters, so that a peer cannot write into the log's shape.
fn first_line(body: &[u8]) -> String {
    String::from_utf8_lossy(body)
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}

/// No delay, and probes, so that a hub that vanished is noticed by the system too.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    const IDLE: Duration = Duration::from_secs(60);
    const INTERVAL: Duration = Duration::from_secs(15);
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(IDLE)
            .with_interval(INTERVAL)
            .with_retries(4),
    )
}
