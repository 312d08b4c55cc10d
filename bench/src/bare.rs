//! The data path alone: the tunnel's drivers with TLS, and nothing that decides.
//!
//! As a peer it splits the product's figures in two: what the path costs, and what policies,
//! plugins, logs and metrics add.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Subcommand;
use nowconnect_tunnel::protocol::{
    AgentId, CloseCode, ConnectorName, Epoch, Features, FlowRef, FlowSummary, FlowTerms, Hello,
    InstanceId, Renew, ReplicaId, ResetCode, ResumeToken, Role,
};
use nowconnect_tunnel::{
    AgentEvent, AgentShell, Dial, DialError, Dialed, FailedOpen, FlowIo, FlowObserver,
    HelloVerdict, HubShell, OpenFlow, RenewVerdict, ResumeFrom, TLS_BUFFER_BYTES, TunnelHandle,
    TunnelSettings, Welcome, agent_channel, read_ahead, serve_agent, serve_hub, websocket_config,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::failure::{Context, Failure};

/// One half of the bare tunnel.
#[derive(Subcommand, Debug)]
pub(crate) enum BareHalf {
    /// The end with the public port.
    Hub {
        /// The public port on loopback.
        #[arg(long)]
        public: u16,
        /// The port for the other half.
        #[arg(long)]
        tunnel: u16,
        /// PEM files of the server's certificate and key.
        #[arg(long)]
        certificate: PathBuf,
        #[arg(long)]
        key: PathBuf,
    },
    /// The end that dials.
    Agent {
        /// The hub's tunnel port on loopback.
        #[arg(long)]
        tunnel: u16,
        /// PEM file of the authority.
        #[arg(long)]
        ca: PathBuf,
        /// Where flows go to.
        #[arg(long)]
        target: SocketAddr,
    },
}

/// Runs one half until the other goes.
pub(crate) fn main(half: BareHalf) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        match half {
            BareHalf::Hub {
                public,
                tunnel,
                certificate,
                key,
            } => run_hub(public, tunnel, certificate, key).await,
            BareHalf::Agent { tunnel, ca, target } => run_agent(tunnel, ca, target).await,
        }
    })
}

type Slot = Arc<Mutex<Option<TunnelHandle>>>;

async fn run_hub(
    public: u16,
    tunnel: u16,
    certificate: PathBuf,
    key: PathBuf,
) -> Result<(), Failure> {
    let acceptor = acceptor(&certificate, &key)?;
    let slot = Slot::default();
    let clients = TcpListener::bind((Ipv4Addr::LOCALHOST, public)).await?;
    let agents = TcpListener::bind((Ipv4Addr::LOCALHOST, tunnel)).await?;
    tokio::task::spawn_local(accept_clients(clients, Arc::clone(&slot)));
    loop {
        let (stream, _) = agents.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, slot) = (acceptor.clone(), Arc::clone(&slot));
        tokio::task::spawn_local(async move {
            let mut tls = acceptor.accept(read_ahead(stream)).await?;
            tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
            let ws = tokio_tungstenite::accept_async_with_config(tls, Some(websocket_config()))
                .await
                .map_err(std::io::Error::other)?;
            let shell = Box::new(BareHub { slot });
            serve_hub(ws, shell, TunnelSettings::default()).await;
            std::io::Result::Ok(())
        });
    }
}

async fn accept_clients(clients: TcpListener, slot: Slot) {
    let mut number = 0;
    let (Ok(origin), Ok(connector)) = (ReplicaId::parse("bare"), ConnectorName::parse("bench"))
    else {
        return;
    };
    while let Ok((stream, _)) = clients.accept().await {
        let handle = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(handle), Ok(())) = (handle, stream.set_nodelay(true)) else {
            continue;
        };
        number += 1;
        // A tunnel that takes no flow gives the socket back, and dropping it closes it.
        let _ = handle.open(OpenFlow {
            flow_ref: FlowRef {
                origin: origin.clone(),
                boot: 1,
                number,
            },
            connector: connector.clone(),
            client_address: None,
            metadata: Vec::new(),
            trace_parent: None,
            proxy_protocol: None,
            terms: FlowTerms::default(),
            io: FlowIo::Tcp(stream),
            early: Vec::new(),
            observer: Box::new(Unobserved),
        });
    }
}

fn acceptor(certificate: &PathBuf, key: &PathBuf) -> Result<TlsAcceptor, Failure> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .context(|| format!("read {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key).context(|| format!("read {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context(|| "choose TLS versions".to_owned())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context(|| "use the certificate".to_owned())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct BareHub {
    slot: Slot,
}

impl HubShell for BareHub {
    fn hello(
        &mut self,
        hello: Hello,
        handle: TunnelHandle,
    ) -> futures_util::future::BoxFuture<'static, HelloVerdict> {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        Box::pin(async move {
            let Ok(replica) = ReplicaId::parse("bare") else {
                return HelloVerdict::Refuse {
                    code: CloseCode::Internal,
                    message: String::new(),
                };
            };
            HelloVerdict::Accept(Box::new(Welcome {
                session: 1,
                replica: replica.clone(),
                epoch: Epoch {
                    counter: 1,
                    replica,
                },
                accepted: hello.connectors,
                refused: Vec::new(),
                resume_token: ResumeToken([0; 32]),
                resume: None,
                token_expires_in: None,
            }))
        })
    }

    fn renew(&mut self, _: Renew) -> futures_util::future::BoxFuture<'static, RenewVerdict> {
        Box::pin(async {
            RenewVerdict::Refuse {
                message: "the bare tunnel knows no tokens".to_owned(),
            }
        })
    }
}

struct Unobserved;

impl FlowObserver for Unobserved {
    fn not_started(self: Box<Self>, _: FailedOpen) {}
    fn ended(self: Box<Self>, _: FlowSummary) {}
}

/// Tries of an agent whose hub is not there yet, 50 ms apart.
const CONNECT_TRIES: u32 = 100;

async fn run_agent(tunnel: u16, ca: PathBuf, target: SocketAddr) -> Result<(), Failure> {
    let connector = connector(&ca)?;
    let mut tries = 0;
    let ws = loop {
        match dial(tunnel, &connector).await {
            Ok(ws) => break ws,
            Err(_) if tries < CONNECT_TRIES => tries += 1,
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let settings = TunnelSettings::default();
    let hello = Hello {
        ver_min: 1,
        ver_max: 1,
        agent_id: AgentId::parse("bare").context(|| "agent id".to_owned())?,
        tenant: None,
        instance: InstanceId(1),
        role: Role::Primary,
        connectors: vec![ConnectorName::parse("bench").context(|| "connector".to_owned())?],
        labels: Vec::new(),
        transports: Vec::new(),
        features: Features(0),
        last_epoch: None,
        resume: None,
        agent_version: String::new(),
        max_data_payload: settings.config.max_data_payload,
        flow_window: settings.config.flow_window,
    };
    let (_handle, commands) = agent_channel();
    let shell = Rc::new(BareAgent { target });
    let end = serve_agent(ws, hello, ResumeFrom::Nothing, shell, commands, settings).await;
    Err(Failure::new(format!("the tunnel ended: {:?}", end.closed)))
}

fn connector(ca: &PathBuf) -> Result<TlsConnector, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).context(|| format!("read {}", ca.display()))?;
    roots.add(ca).context(|| "use the authority".to_owned())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context(|| "choose TLS versions".to_owned())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

type AgentSocket = WebSocketStream<tokio_rustls::client::TlsStream<BufReader<TcpStream>>>;

async fn dial(tunnel: u16, connector: &TlsConnector) -> Result<AgentSocket, Failure> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, tunnel)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").context(|| "server name".to_owned())?;
    let mut tls = connector.connect(name, read_ahead(stream)).await?;
    tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    let request = "wss://localhost/tunnel"
        .into_client_request()
        .context(|| "upgrade request".to_owned())?;
    let (ws, _) =
        tokio_tungstenite::client_async_with_config(request, tls, Some(websocket_config()))
            .await
            .context(|| "upgrade".to_owned())?;
    Ok(ws)
}

struct BareAgent {
    target: SocketAddr,
}

impl AgentShell for BareAgent {
    fn dial(
        &self,
        _: Dial,
    ) -> futures_util::future::LocalBoxFuture<'static, Result<Dialed, DialError>> {
        let target = self.target;
        Box::pin(async move {
            let failed = |error: std::io::Error| DialError {
                code: ResetCode::ConnectFailed,
                message: error.to_string(),
            };
            let stream = TcpStream::connect(target).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            Ok(Dialed::plain(stream))
        })
    }

    fn event(&self, _: AgentEvent) {}
}
