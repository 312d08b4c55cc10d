//! The connector map: which target each connector reaches, and how it is reached.
//!
//! A map is built whole from a config, TLS trust included, and then never changes; a reload puts
//! another one in its place. A flow keeps the socket that its own map dialled.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nowconnect_protocol::{ConnectorName, ResetCode};
use nowconnect_tunnel::{Dial, DialError, Dialed, FlowIo};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::{AgentConfig, ProxyHeader, Target, TargetAddress};
use crate::hub_dial::explain_tls;
use crate::net::{self, ConnectError};
use crate::proxy_header;
use crate::tls::{self, ClientCertificate, TrustError};

/// Which target each connector reaches.
#[derive(Debug)]
pub(crate) struct ConnectorMap {
    targets: BTreeMap<ConnectorName, Entry>,
    offered: Vec<ConnectorName>,
}

#[derive(Debug)]
struct Entry {
    target: Arc<PreparedTarget>,
    is_offered: bool,
}

/// A target with its trust loaded.
#[derive(Debug)]
pub(crate) struct PreparedTarget {
    target: Target,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    shown: Option<CertificateDer<'static>>,
    connect_timeout: Duration,
}

/// What OPEN says about how a target is reached.
#[derive(Debug, Default)]
pub(crate) struct Asked<'a> {
    /// The client's address and port, where the hub tells it.
    pub(crate) client_address: Option<&'a str>,
    /// What the target expects, as far as the hub knows.
    pub(crate) proxy_header: ProxyHeader,
}

impl<'a> Asked<'a> {
    pub(crate) fn of(dial: &'a Dial) -> Self {
        Self {
            client_address: dial.client_address.as_deref(),
            proxy_header: dial.proxy_protocol.map(Into::into).unwrap_or_default(),
        }
    }
}

/// A connector whose target cannot be prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`targets.{connector}.tls`: {error}")]
pub struct MapError {
    connector: ConnectorName,
    error: TrustError,
}

impl ConnectorMap {
    /// Builds the map; each CA bundle and client certificate is read now, so that a broken one is known before the first
    /// flow needs it.
    pub(crate) fn build(config: &AgentConfig) -> Result<Self, MapError> {
        let offered = config.offered_connectors();
        let names: BTreeSet<&ConnectorName> = offered.iter().collect();
        let targets = config
            .targets
            .iter()
            .map(|(connector, target)| {
                let prepared = PreparedTarget::new(target, config.limits.connect_timeout).map_err(
                    |error| MapError {
                        connector: connector.clone(),
                        error,
                    },
                )?;
                let entry = Entry {
                    target: Arc::new(prepared),
                    is_offered: names.contains(connector),
                };
                Ok((connector.clone(), entry))
            })
            .collect::<Result<_, MapError>>()?;
        Ok(Self { targets, offered })
    }

    /// The connectors that HELLO offers.
    pub(crate) fn offered(&self) -> &[ConnectorName] {
        &self.offered
    }

    /// The target of `connector`, or the refusal.
    pub(crate) fn find(&self, connector: &ConnectorName) -> Result<Arc<PreparedTarget>, DialError> {
        let entry = self.targets.get(connector).ok_or_else(|| DialError {
            code: ResetCode::UnknownConnector,
            message: format!("connector `{connector}` has no target here"),
        })?;
        if entry.is_offered {
            Ok(Arc::clone(&entry.target))
        } else {
            Err(DialError {
                code: ResetCode::ConnectorDisabled,
                message: format!("connector `{connector}` is not offered by this agent"),
            })
        }
    }
}

impl PreparedTarget {
    pub(crate) fn new(target: &Target, connect_timeout: Duration) -> Result<Self, TrustError> {
        let mut shown = None;
        let tls = match &target.tls {
            None => None,
            Some(settings) => {
                let roots = tls::roots(settings.ca_bundle.as_deref())?;
                let certificate = match &settings.client_certificate {
                    None => None,
                    Some(files) => {
                        Some(ClientCertificate::read(&files.cert_file, &files.key_file)?)
                    }
                };
                shown = certificate
                    .as_ref()
                    .and_then(ClientCertificate::leaf)
                    .cloned();
                let client = tls::client(roots, &settings.alpn, certificate)?;
                let host = match &target.address {
                    TargetAddress::Tcp { host, .. } => host.as_str(),
                    TargetAddress::Unix(_) => "",
                };
                let name = settings.server_name.as_deref().unwrap_or(host);
                let server = ServerName::try_from(name.to_owned()).map_err(|_| {
                    TrustError::Setup(format!(
                        "`{name}` is not a DNS name or an IP address; set `server_name`"
                    ))
                })?;
                Some((client, server))
            }
        };
        Ok(Self {
            target: target.clone(),
            tls,
            shown,
            connect_timeout: target.connect_timeout.unwrap_or(connect_timeout),
        })
    }

    /// The certificate that the target is shown where it asks for one.
    pub(crate) fn shown(&self) -> Option<&CertificateDer<'static>> {
        self.shown.as_ref()
    }

    /// Connects, writes the PROXY protocol header and speaks TLS, as configured, within the
    /// connect timeout.
    pub(crate) async fn dial(&self, asked: &Asked<'_>) -> Result<Dialed, DialError> {
        let dialed = self.reach(asked).await?;
        Ok(Dialed {
            idle_timeout: self.target.idle_timeout,
            ..dialed
        })
    }

    async fn reach(&self, asked: &Asked<'_>) -> Result<Dialed, DialError> {
        let deadline = Instant::now() + self.connect_timeout;
        match &self.target.address {
            TargetAddress::Tcp { host, port } => {
                let mut stream = net::connect(host, *port, deadline)
                    .await
                    .map_err(|error| connect_error(&error))?;
                let peer = stream.peer_addr().ok();
                self.write_header(&mut stream, asked, peer, deadline)
                    .await?;
                match &self.tls {
                    None => Ok(Dialed::plain(stream)),
                    Some(tls) => wrap(stream, tls, deadline).await,
                }
            }
            TargetAddress::Unix(path) => {
                let mut stream = match timeout_at(deadline, UnixStream::connect(path)).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        return Err(DialError {
                            code: ResetCode::ConnectFailed,
                            message: format!("unix:{}: {error}", path.display()),
                        });
                    }
                    Err(_) => return Err(timed_out("the socket did not accept")),
                };
                self.write_header(&mut stream, asked, None, deadline)
                    .await?;
                match &self.tls {
                    None => Ok(Dialed::plain(stream)),
                    Some(tls) => wrap(stream, tls, deadline).await,
                }
            }
        }
    }

    async fn write_header<S>(
        &self,
        stream: &mut S,
        asked: &Asked<'_>,
        target: Option<SocketAddr>,
        deadline: Instant,
    ) -> Result<(), DialError>
    where
        S: AsyncWrite + Unpin,
    {
        // The operator of this network knows its targets; the hub's word fills the gap.
        let version = self.target.proxy_header.unwrap_or(asked.proxy_header);
        let client = asked
            .client_address
            .and_then(proxy_header::parse_client_address);
        let header = proxy_header::encode(version, client, target);
        if header.is_empty() {
            return Ok(());
        }
        match timeout_at(deadline, stream.write_all(&header)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(DialError {
                code: ResetCode::ConnectFailed,
                message: format!("PROXY protocol header was not taken: {error}"),
            }),
            Err(_) => Err(timed_out("the PROXY protocol header was not taken")),
        }
    }
}

async fn wrap<S>(
    stream: S,
    (client, server): &(Arc<ClientConfig>, ServerName<'static>),
    deadline: Instant,
) -> Result<Dialed, DialError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = TlsConnector::from(Arc::clone(client)).connect(server.clone(), stream);
    match timeout_at(deadline, handshake).await {
        Ok(Ok(stream)) => {
            let alpn = stream
                .get_ref()
                .1
                .alpn_protocol()
                .map(|protocol| String::from_utf8_lossy(protocol).into_owned());
            Ok(Dialed {
                alpn,
                ..Dialed::plain(FlowIo::Boxed(Box::new(stream)))
            })
        }
        Ok(Err(error)) => Err(DialError {
            code: ResetCode::TargetTlsFailed,
            message: format!("TLS to the target failed: {}", explain_tls(&error)),
        }),
        Err(_) => Err(timed_out("TLS to the target did not finish")),
    }
}

fn connect_error(error: &ConnectError) -> DialError {
    DialError {
        code: if error.is_timeout() {
            ResetCode::ConnectTimeout
        } else {
            ResetCode::ConnectFailed
        },
        message: error.to_string(),
    }
}

fn timed_out(what: &str) -> DialError {
    DialError {
        code: ResetCode::ConnectTimeout,
        message: format!("{what} within the connect timeout"),
    }
}

#[cfg(test)]
mod tests;
