//! A public HTTP port: from accept to requests.
//!
//! ```text
//! accept ─► place ─► PROXY header ─► TLS ─► HTTP/1.1 or HTTP/2 ─► requests
//! ```
//! A viewer has proven nothing here, so all of it is bounded before a request is looked at: how
//! many connections in all, for the port and from one source, how many handshakes and for how
//! long, the bytes, the number and the time of header fields, and the requests of one connection.
//!
//! A connection is served by one of the workers; how, is in [`viewer_http`]. A reload swaps the
//! port's [`DoorRules`]; its connections go on with the new ones at their next request.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use nowconnect_policy::Tls;
use nowconnect_tunnel::read_ahead;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::rewind::Rewind;
use super::viewer_http;
use super::viewer_socket::{SocketFate, ViewerSocket};
use crate::certificates::Issued;
use crate::config::{CloudConfig, HttpListenerConfig, ListenerName, ProxyProtocolAccept};
use crate::hub::Hub;
use crate::limit::{Gate, Pass, SourceRates, SourceSlot};
use crate::listener;
use crate::proxy_protocol;
use crate::telemetry::events;
use crate::telemetry::metrics::HttpGauge;
use crate::tls::{Accepted, ViewerTls};
use crate::tunnel_endpoint::keep_alive;
use crate::viewer::ClientCertificate;

/// How long an accept that failed for want of a resource waits before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What every client that speaks HTTP/2 sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One bound HTTP port.
#[derive(Debug)]
pub(crate) struct Door {
    /// `None` once nobody is accepted any more.
    socket: Mutex<Option<TcpListener>>,
    /// Where it is bound, with the port that the system chose.
    pub(crate) address: SocketAddr,
    rules: ArcSwap<DoorRules>,
    gate: Arc<Gate>,
    pub(super) stop: watch::Sender<bool>,
}

/// What holds for a port; swapped whole by a reload.
#[derive(Debug)]
pub(crate) struct DoorRules {
    pub(crate) config: HttpListenerConfig,
    pub(crate) text: Arc<str>,
    pub(crate) tls: Option<ViewerTls>,
    /// `security.allow_cidrs`, which count for every listener.
    pub(crate) allow_cidrs: Vec<ipnet::IpNet>,
    pub(crate) rate_per_source: SourceRates,
}

impl DoorRules {
    /// `tls` is what [`read_tls`](Self::read_tls) gave, now or before.
    pub(crate) fn new(
        config: &CloudConfig,
        listener: &HttpListenerConfig,
        tls: Option<ViewerTls>,
    ) -> Self {
        Self {
            config: listener.clone(),
            text: Arc::from(listener.name.as_str()),
            tls,
            allow_cidrs: config.security.allow_cidrs.clone(),
            rate_per_source: SourceRates::new(listener.rate_per_source),
        }
    }

    /// The listener's side of TLS; `None` where it speaks none.
    ///
    /// # Errors
    /// A certificate, a key or an authority cannot be read.
    pub(crate) fn read_tls(
        listener: &HttpListenerConfig,
        issued: &Arc<Issued>,
    ) -> Result<Option<ViewerTls>, crate::tls::TlsError> {
        let Some(tls) = &listener.tls else {
            return Ok(None);
        };
        let alpn: &[&str] = if listener.http2 {
            &["h2", "http/1.1"]
        } else {
            &["http/1.1"]
        };
        let clients = listener.client_certificates.as_ref();
        ViewerTls::load(tls, clients, alpn, issued).map(Some)
    }

    /// Whether `listener` wants the same files, used in the same way.
    pub(crate) fn has_the_same_tls(&self, listener: &HttpListenerConfig) -> bool {
        self.config.tls == listener.tls
            && self.config.client_certificates == listener.client_certificates
            && self.config.http2 == listener.http2
    }

    fn limit(&self) -> usize {
        self.config.max_connections.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        })
    }
}

/// One viewer's connection.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) hub: Arc<Hub>,
    pub(crate) door: Arc<Door>,
    /// Tells connections of this hub apart.
    pub(crate) number: u64,
    /// The socket's peer, or what a trusted PROXY header says.
    pub(crate) peer: SocketAddr,
    /// What the handshake told, where there was one.
    pub(crate) tls: Option<Tls>,
    /// What the viewer has shown in the handshake.
    pub(crate) certificate: Option<ClientCertificate>,
    pub(super) socket: Arc<SocketFate>,
    /// Whether connections to origins may be kept for it alone.
    pub(crate) keeps_apart: AtomicBool,
    _places: Places,
    _counted: HttpGauge,
}

/// A connection's place in the bounds on number.
#[derive(Debug)]
struct Places {
    _in_all: Pass,
    _here: Pass,
    _source: SourceSlot,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        if *self.keeps_apart.get_mut() {
            self.hub.ingress.pool.forget_viewer(self.number);
        }
    }
}

impl Door {
    /// Binds the port; nobody is accepted before [`serve`](Self::serve).
    ///
    /// # Errors
    /// The address is taken, not ours, or needs a right that we lack.
    pub(crate) fn bind(rules: DoorRules) -> io::Result<Arc<Self>> {
        let socket = listener::reserve(rules.config.bind, false)?;
        let backlog = i32::try_from(rules.config.backlog).unwrap_or(i32::MAX);
        socket2::SockRef::from(&socket).listen(backlog)?;
        let address = socket.local_addr()?;
        Ok(Arc::new(Self {
            socket: Mutex::new(Some(socket)),
            address,
            gate: Gate::new(rules.limit()),
            rules: ArcSwap::from_pointee(rules),
            stop: watch::channel(false).0,
        }))
    }

    pub(crate) fn rules(&self) -> Arc<DoorRules> {
        self.rules.load_full()
    }

    /// Other rules for connections and requests that come from now on.
    pub(crate) fn set_rules(&self, rules: DoorRules) {
        self.gate.set_limit(rules.limit());
        self.rules.store(Arc::new(rules));
    }

    /// Stops accepting. Connections finish the requests that are under way.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Accepts viewers until stopped or draining.
    pub(crate) fn serve(self: &Arc<Self>, hub: &Arc<Hub>) {
        info!(
            event = events::LISTENER_STARTED,
            listener = %self.rules().text,
            address = %self.address,
            "an HTTP listener accepts viewers"
        );
        let (door, shared) = (Arc::clone(self), Arc::clone(hub));
        hub.runtime.spawn(async move {
            let mut stop = door.stop.subscribe();
            let mut phase = shared.phase();
            tokio::select! {
                () = door.accept_loop(&shared) => {}
                _ = stop.wait_for(|stopped| *stopped) => {}
                () = phase.draining() => {}
            }
            info!(
                event = events::LISTENER_STOPPED,
                listener = %door.rules().text,
                "an HTTP listener accepts no more viewers"
            );
        });
    }

    async fn accept_loop(self: &Arc<Self>, hub: &Arc<Hub>) {
        let Some(socket) = self.socket.lock().take() else {
            return;
        };
        let socket = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => return warn!(%error, "an HTTP listener cannot be watched"),
        };
        loop {
            let (stream, peer) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!(%error, "accepting a viewer failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(source) = hub.ingress.take_source(peer.ip()) else {
                debug!(%peer, "a viewer has too many connections");
                continue;
            };
            // Whoever finds no place waits here, and all who come later in the system's backlog.
            let places = Places {
                _in_all: hub.connections.pass().await,
                _here: self.gate.pass().await,
                _source: source,
            };
            self.hand_over(hub, stream, peer, places);
        }
    }

    fn hand_over(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        stream: TcpStream,
        peer: SocketAddr,
        places: Places,
    ) {
        let prepared = stream
            .set_nodelay(true)
            .and_then(|()| keep_alive(&stream))
            .and_then(|()| stream.into_std());
        let stream = match prepared {
            Ok(stream) => stream,
            Err(error) => return debug!(%error, "a viewer left before its first request"),
        };
        let Some(workers) = hub.workers() else {
            return;
        };
        let (door, hub) = (Arc::clone(self), Arc::clone(hub));
        let started = workers.spawn(move || async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => door.welcome(hub, stream, peer, places).await,
                Err(error) => debug!(%error, "a worker could not take a viewer's socket"),
            }
        });
        if started.is_err() {
            debug!(%peer, "no worker takes a viewer");
        }
    }

    async fn welcome(
        self: Arc<Self>,
        hub: Arc<Hub>,
        mut stream: TcpStream,
        mut peer: SocketAddr,
        places: Places,
    ) {
        let rules = self.rules();
        if rules.config.proxy_protocol.accept != ProxyProtocolAccept::Off {
            let header =
                proxy_protocol::read_header(&mut stream, peer, &rules.config.proxy_protocol).await;
            match header {
                Ok(header) => peer = header.source.unwrap_or(peer),
                Err(error) => {
                    return info!(
                        event = events::PROXY_HEADER_REFUSED,
                        listener = %rules.text,
                        %peer,
                        %error,
                        "a viewer was closed"
                    );
                }
            }
        }
        let limits = hub.config().ingress.limits.clone();
        let socket = Arc::new(SocketFate::default());
        let fate = Arc::clone(&socket);
        let mut stream = ViewerSocket::new(stream, fate, limits.send_timeout, limits.min_rate);
        let viewer = |(tls, certificate)| {
            Arc::new(Viewer {
                hub: Arc::clone(&hub),
                door: Arc::clone(&self),
                number: hub.ingress.next_viewer(),
                peer,
                tls,
                certificate,
                socket,
                keeps_apart: AtomicBool::new(false),
                _places: places,
                _counted: hub.metrics.http.connection(),
            })
        };
        match &rules.tls {
            Some(tls) => {
                let Ok(handshake) = hub.ingress.handshakes.take(peer.ip()) else {
                    return debug!(%peer, "too many TLS handshakes at once, in all or from there");
                };
                let accepted = tls
                    .accept(read_ahead(stream), limits.handshake_timeout)
                    .await;
                drop(handshake);
                let stream = match accepted {
                    Ok(Accepted::Viewer(stream)) => *stream,
                    Ok(Accepted::Authority) => {
                        return debug!(%peer, "a certificate authority looked at a name");
                    }
                    Err(error) => return debug!(%peer, %error, "a TLS handshake failed"),
                };
                let session = stream.get_ref().1;
                let speaks_http2 = session.alpn_protocol() == Some(b"h2");
                let viewer = viewer(told_by(&rules.config.name, session));
                viewer_http::serve(viewer, stream, speaks_http2, &limits).await;
            }
            None if rules.config.http2 => {
                let within = limits.header_timeout;
                let begun = tokio::time::timeout(within, begins_with_preface(&mut stream)).await;
                let Ok(Ok((speaks_http2, read))) = begun else {
                    return debug!(%peer, "a viewer sent no request");
                };
                let stream = Rewind::new(stream, read);
                viewer_http::serve(viewer((None, None)), stream, speaks_http2, &limits).await;
            }
            None => viewer_http::serve(viewer((None, None)), stream, false, &limits).await,
        }
    }
}

/// Whether the connection begins with the preface of HTTP/2, and what was read to find out.
async fn begins_with_preface(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(bool, Vec<u8>)> {
    let mut read = Vec::with_capacity(PREFACE.len());
    // A byte that differs ends it: nothing is read that could be waited for in vain.
    while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
        let room = PREFACE.len() - read.len();
        let mut chunk = [0; PREFACE.len()];
        let length = stream.read(&mut chunk[..room]).await?;
        if length == 0 {
            break;
        }
        read.extend_from_slice(&chunk[..length]);
    }
    Ok((read == PREFACE, read))
}

fn told_by(
    listener: &ListenerName,
    session: &rustls::ServerConnection,
) -> (Option<Tls>, Option<ClientCertificate>) {
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    };
    let certificate = session
        .peer_certificates()
        .and_then(|chain| ClientCertificate::of(listener, chain));
    let first_san = certificate.as_ref().and_then(|one| one.first_san.clone());
    let tls = Tls {
        version: version.to_owned(),
        sni: session.server_name().map(str::to_owned),
        client_san: first_san,
    };
    (Some(tls), certificate)
}
