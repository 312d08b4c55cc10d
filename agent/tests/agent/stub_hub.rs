//! A hub that accepts what it is told to and remembers what it saw.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nowconnect_protocol::{
    CloseCode, ConnectorName, Epoch, FlowRef, FlowSummary, FlowTerms, Hello, OpenAck, Renew,
    ReplicaId, ResetCode, ResumeToken,
};
use nowconnect_tunnel::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use nowconnect_tunnel::{
    DetachedSession, FailedOpen, FlowIo, FlowObserver, HelloVerdict, HubShell, OpenFlow,
    RenewVerdict, TunnelHandle, TunnelSettings, Welcome, serve_hub, websocket_config,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::support::{Carrier, eventually, on_own_thread};

/// What the hub is told to do and what it saw.
#[derive(Default)]
pub(crate) struct Script {
    /// Answered in place of an upgrade: status and extra header lines.
    pub(crate) refuse_upgrade: Option<(u16, Vec<(&'static str, &'static str)>)>,
    /// Said in place of HELLO_ACK.
    pub(crate) refuse_hello: Option<CloseCode>,
    pub(crate) token_expires_in: Option<Duration>,
    /// How long flows of a broken tunnel wait, in place of the usual time; for later tunnels.
    pub(crate) resume_grace: Option<Duration>,
    /// Tokens shown at upgrades, also refused ones.
    pub(crate) tokens: Vec<String>,
    pub(crate) hellos: Vec<Hello>,
    pub(crate) renews: Vec<Renew>,
    handle: Option<TunnelHandle>,
    detached: Option<DetachedSession>,
    flows: u64,
}

impl Script {
    /// Whether an agent is connected and flows may be opened.
    pub(crate) fn is_up(&self) -> bool {
        self.handle.is_some()
    }
}

#[derive(Clone)]
pub(crate) struct StubHub {
    pub(crate) address: SocketAddr,
    pub(crate) script: Arc<Mutex<Script>>,
}

/// What became of a flow.
#[derive(Debug)]
pub(crate) enum Outcome {
    Acknowledged,
    NotStarted(ResetCode),
    Ended(FlowSummary),
}

impl StubHub {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    pub(crate) async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hub = Self {
            address: listener.local_addr().unwrap(),
            script: Arc::default(),
        };
        let listener = listener.into_std().unwrap();
        let script = Arc::clone(&hub.script);
        on_own_thread(move || async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, tls) = (Arc::clone(&script), tls.clone());
                tokio::task::spawn_local(async move {
                    let carrier: Carrier = match tls {
                        None => Box::new(stream),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    serve(carrier, script).await;
                });
            }
        });
        hub
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut self.script.lock().unwrap())
    }

    pub(crate) fn handle(&self) -> TunnelHandle {
        self.with(|script| script.handle.clone()).unwrap()
    }

    /// Opens a flow and gives the client's end of it.
    pub(crate) async fn open(
        &self,
        connector: &str,
    ) -> (TcpStream, mpsc::UnboundedReceiver<Outcome>) {
        self.open_traced(connector, None).await
    }

    pub(crate) async fn open_traced(
        &self,
        connector: &str,
        trace_parent: Option<&str>,
    ) -> (TcpStream, mpsc::UnboundedReceiver<Outcome>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let (outcomes, receiver) = mpsc::unbounded_channel();
        let number = self.with(|script| {
            script.flows += 1;
            script.flows
        });
        let flow = OpenFlow {
            flow_ref: FlowRef {
                origin: ReplicaId::parse("stub").unwrap(),
                boot: 1,
                number,
            },
            connector: ConnectorName::parse(connector).unwrap(),
            client_address: Some("192.0.2.1:77".to_owned()),
            metadata: Vec::new(),
            trace_parent: trace_parent.map(str::to_owned),
            proxy_protocol: None,
            terms: FlowTerms::default(),
            io: FlowIo::Std(near.into_std().unwrap()),
            early: Vec::new(),
            observer: Box::new(Observer(outcomes)),
        };
        self.handle().open(flow).unwrap();
        (client, receiver)
    }

    /// Waits until the hub has seen `count` HELLOs that it accepted or refused.
    pub(crate) async fn hellos(&self, count: usize) -> Vec<Hello> {
        eventually("a HELLO", || {
            let hellos = self.with(|script| script.hellos.clone());
            (hellos.len() >= count).then_some(hellos)
        })
        .await
    }
}

async fn serve(carrier: Carrier, script: Arc<Mutex<Script>>) {
    let seen = Arc::clone(&script);
    #[expect(
        clippy::result_large_err,
        reason = "the callback's type is the library's"
    )]
    let check =
        move |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let mut script = seen.lock().unwrap();
            let token = request.headers()["authorization"].to_str().unwrap();
            script
                .tokens
                .push(token.strip_prefix("Bearer ").unwrap().to_owned());
            if let Some((status, headers)) = &script.refuse_upgrade {
                let mut refusal = ErrorResponse::new(Some(
                    r#"{"code":"unauthenticated","message":"no such token"}"#.to_owned(),
                ));
                *refusal.status_mut() = http::StatusCode::from_u16(*status).unwrap();
                for (name, value) in headers {
                    refusal
                        .headers_mut()
                        .insert(*name, http::HeaderValue::from_static(value));
                }
                return Err(refusal);
            }
            let protocol = request.headers()["sec-websocket-protocol"].clone();
            response
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
    let upgraded =
        tokio_tungstenite::accept_hdr_async_with_config(carrier, check, Some(websocket_config()))
            .await;
    let Ok(websocket) = upgraded else {
        return;
    };
    let shell = Shell {
        script: Arc::clone(&script),
        handle: None,
    };
    let mut settings = TunnelSettings::default();
    if let Some(grace) = script.lock().unwrap().resume_grace {
        settings.config.resume_grace = grace;
    }
    let end = serve_hub(websocket, Box::new(shell), settings).await;
    if let Some(detached) = end.detached {
        script.lock().unwrap().detached = Some(detached);
    }
}

struct Shell {
    script: Arc<Mutex<Script>>,
    handle: Option<TunnelHandle>,
}

impl HubShell for Shell {
    fn hello(&mut self, hello: Hello, handle: TunnelHandle) -> BoxFuture<'static, HelloVerdict> {
        let script = Arc::clone(&self.script);
        self.handle = Some(handle);
        async move {
            let wants_resume = hello.resume.is_some();
            let (refuse, old) = {
                let mut script = script.lock().unwrap();
                script.hellos.push(hello.clone());
                (script.refuse_hello, script.handle.clone())
            };
            if let Some(code) = refuse {
                return HelloVerdict::Refuse {
                    code,
                    message: "as the test said".to_owned(),
                };
            }
            let taken = match old.filter(|_| wants_resume) {
                Some(old) => old.detach().await,
                None => None,
            };
            let mut script = script.lock().unwrap();
            let resume = taken.or_else(|| script.detached.take());
            let number = u64::try_from(script.hellos.len()).unwrap();
            let last_epoch = hello.last_epoch.as_ref().map_or(0, |last| last.counter);
            HelloVerdict::Accept(Box::new(Welcome {
                session: number,
                replica: ReplicaId::parse("stub").unwrap(),
                epoch: Epoch {
                    // The agent is a witness: another hub may have claimed it in between.
                    counter: number.max(last_epoch + 1),
                    replica: ReplicaId::parse("stub").unwrap(),
                },
                accepted: hello.connectors,
                refused: Vec::new(),
                resume_token: ResumeToken([u8::try_from(number).unwrap(); 32]),
                resume,
                token_expires_in: script.token_expires_in,
            }))
        }
        .boxed()
    }

    fn renew(&mut self, renew: Renew) -> BoxFuture<'static, RenewVerdict> {
        let mut script = self.script.lock().unwrap();
        script.renews.push(renew.clone());
        let last = script.hellos.last().unwrap().connectors.clone();
        let verdict = RenewVerdict::Accept {
            accepted: renew.connectors.unwrap_or(last),
            refused: Vec::new(),
            token_expires_in: None,
        };
        async move { verdict }.boxed()
    }

    fn established(&mut self) {
        self.script.lock().unwrap().handle = self.handle.clone();
    }
}

struct Observer(mpsc::UnboundedSender<Outcome>);

impl FlowObserver for Observer {
    fn acknowledged(&mut self, _ack: &OpenAck) {
        let _ = self.0.send(Outcome::Acknowledged);
    }

    fn not_started(self: Box<Self>, failed: FailedOpen) {
        let _ = self.0.send(Outcome::NotStarted(failed.code));
    }

    fn ended(self: Box<Self>, summary: FlowSummary) {
        let _ = self.0.send(Outcome::Ended(summary));
    }
}
