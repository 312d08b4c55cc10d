//! A port of the mesh's own (`ha.mesh.listen`): `/mesh` and nothing else.
//!
//! Where this hub has a certificate, one port takes TLS from anybody and plain text from a
//! trusted ingress: the first byte tells them apart, as a TLS record begins with 22 and no HTTP
//! request does.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderValue, StatusCode};
use nowconnect_protocol::mesh::SUBPROTOCOL;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tracing::debug;

use crate::address::MESH_PATH;
use crate::arrival::{Admission, ArrivalRefused, Knock, Transport};
use crate::close::LinkEnd;
use crate::dial::prepare;
use crate::io::{TLS_BUFFER_BYTES, hello_config};
use crate::mesh::{AcceptError, Mesh};
use crate::proof::Exporter;

/// How long an accept that failed for want of a resource waits before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The first byte of TLS: a record of the handshake.
const TLS_HANDSHAKE: u8 = 22;

impl Mesh {
    /// Takes links at a port of its own until this hub leaves and the last of them has ended.
    /// Dropping the future cuts them.
    pub async fn serve(&self, listener: &TcpListener) {
        let mut links = JoinSet::new();
        let mut changed = self.changes();
        while !(self.has_left() && links.is_empty()) {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, source)) => {
                        // Over a bound it is just closed: nothing was read of it.
                        if let Ok(knock) = self.knock(source) {
                            let mesh = self.clone();
                            links.spawn(async move {
                                match mesh.arrive(stream, knock).await {
                                    Ok(_end) => {}
                                    Err(error) => debug!(%source, %error, "no link"),
                                }
                            });
                        }
                    }
                    Err(error) => {
                        debug!(%error, "accepting a hub failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_ended) = links.join_next() => {}
                _ = changed.changed() => {}
            }
        }
    }

    async fn arrive(&self, stream: TcpStream, knock: Knock) -> Result<LinkEnd, ArriveError> {
        prepare(&stream).map_err(|error| ArriveError::Transport(error.to_string()))?;
        let deadline = knock.deadline();
        let source = knock.source();
        let mut first = [0];
        let peeked = timeout_at(deadline, stream.peek(&mut first)).await;
        let Ok(peeked) = peeked else {
            return self.too_slow(source);
        };
        if !matches!(peeked, Ok(1..)) {
            return Err(ArriveError::Transport("it closed".to_owned()));
        }
        let credentials = self.credentials();
        let Some(loaded) = credentials.filter(|_| first[0] == TLS_HANDSHAKE) else {
            return self.upgrade(stream, knock, Transport::Plain).await;
        };
        let accepting = TlsAcceptor::from(loaded.server.clone()).accept(stream);
        let mut stream = match timeout_at(deadline, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.turned_away(source, "tls");
                return Err(ArriveError::Transport(error.to_string()));
            }
            Err(_) => return self.too_slow(source),
        };
        let session = stream.get_mut().1;
        session.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let client_leaf = leaf.map(|leaf| Sha256::digest(leaf).into());
        let Some(exporter) = Exporter::of_server(session) else {
            return Err(ArriveError::Transport("its TLS has no exporter".to_owned()));
        };
        let transport = Transport::Tls {
            exporter,
            client_leaf,
        };
        self.upgrade(stream, knock, transport).await
    }

    async fn upgrade<S>(
        &self,
        stream: S,
        knock: Knock,
        transport: Transport,
    ) -> Result<LinkEnd, ArriveError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let deadline = knock.deadline();
        let source = knock.source();
        let mut knock = Some(knock);
        let mut admission: Option<Admission> = None;
        #[expect(
            clippy::result_large_err,
            reason = "the library's callback returns this very type"
        )]
        let answer = |request: &Request, response: Response| {
            check_request(request)?;
            let Some(knock) = knock.take() else {
                return Err(refusal(StatusCode::BAD_REQUEST, "a second request"));
            };
            let headers: &HeaderMap = request.headers();
            match self.admit(knock, &transport, headers) {
                Ok(admitted) => {
                    admission = Some(admitted);
                    Ok(with_subprotocol(response))
                }
                Err(refused) => Err(refusal(refused.status(), &refused.to_string())),
            }
        };
        let upgrading =
            tokio_tungstenite::accept_hdr_async_with_config(stream, answer, Some(hello_config()));
        let upgraded = timeout_at(deadline, upgrading).await;
        let ws = match upgraded {
            Ok(Ok(ws)) => ws,
            Ok(Err(error)) => return Err(ArriveError::Transport(error.to_string())),
            Err(_) => return self.too_slow(source),
        };
        let admission = admission.ok_or(ArriveError::Refused(ArrivalRefused::Closed))?;
        Ok(self.accept(ws, admission).await?)
    }

    fn too_slow(&self, source: SocketAddr) -> Result<LinkEnd, ArriveError> {
        self.turned_away(source, "timeout");
        Err(ArriveError::Accept(AcceptError::Timeout))
    }
}

/// Why somebody at the port got no link.
#[derive(Debug, thiserror::Error)]
enum ArriveError {
    #[error("the connection failed: {0}")]
    Transport(String),
    #[error(transparent)]
    Refused(#[from] ArrivalRefused),
    #[error(transparent)]
    Accept(#[from] AcceptError),
}

/// Path and subprotocol; the library checks the rest of the upgrade.
#[expect(
    clippy::result_large_err,
    reason = "the library's callback returns this very type"
)]
fn check_request(request: &Request) -> Result<(), ErrorResponse> {
    if request.uri().path() != MESH_PATH {
        return Err(refusal(StatusCode::NOT_FOUND, "links are taken at `/mesh`"));
    }
    let offered = request
        .headers()
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == SUBPROTOCOL);
    if !offered {
        let reason = format!("this port speaks the subprotocol `{SUBPROTOCOL}`");
        return Err(refusal(StatusCode::BAD_REQUEST, &reason));
    }
    Ok(())
}

fn with_subprotocol(mut response: Response) -> Response {
    let name = HeaderValue::from_static(SUBPROTOCOL);
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
    response
}

fn refusal(status: StatusCode, reason: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(format!("{reason}\n")));
    *response.status_mut() = status;
    response
}
