//! A hub and an agent in one thread, joined by a transport that can be cut.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, LocalBoxFuture};
use nowconnect_tunnel::protocol::{
    AgentId, ConnectorName, Epoch, Features, FlowRef, FlowSummary, FlowTerms, Hello, InstanceId,
    Renew, ReplicaId, ResetCode, ResumeToken, Role,
};
use nowconnect_tunnel::tungstenite::protocol::Role as WsRole;
use nowconnect_tunnel::{
    AgentEvent, AgentShell, AgentTunnelHandle, DetachedSession, Dial, DialError, Dialed,
    FailedOpen, FlowObserver, HelloVerdict, HubShell, OpenFlow, RenewVerdict, ResumeFrom,
    TunnelEnd, TunnelHandle, TunnelSettings, WebSocketStream, Welcome, agent_channel, serve_agent,
    serve_hub, websocket_config,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn local<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .expect("the test ends in time")
    })
}

/// Sends `bytes` each way at once, and checks what arrives.
pub(crate) async fn exchange(client: TcpStream, target: TcpStream, bytes: usize) {
    let (client_read, client_write) = client.into_split();
    let (target_read, target_write) = target.into_split();
    let (a, b, c, d) = tokio::join!(
        send(client_write, bytes, 1),
        receive(target_read, bytes, 1),
        send(target_write, bytes, 2),
        receive(client_read, bytes, 2),
    );
    let () = a;
    let () = b;
    let () = c;
    let () = d;
}

fn pattern(at: usize, seed: usize) -> u8 {
    // Not periodic in any size that buffers have.
    u8::try_from((at.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7) & 0xff).unwrap()
}

async fn send(mut to: tokio::net::tcp::OwnedWriteHalf, bytes: usize, seed: usize) {
    let mut at = 0;
    while at < bytes {
        let end = bytes.min(at + 50_000);
        let block: Vec<u8> = (at..end).map(|at| pattern(at, seed)).collect();
        to.write_all(&block).await.unwrap();
        at = end;
    }
    to.shutdown().await.unwrap();
}

async fn receive(mut from: tokio::net::tcp::OwnedReadHalf, bytes: usize, seed: usize) {
    let mut block = vec![0; 65_536];
    let mut at = 0;
    loop {
        let length = from.read(&mut block).await.unwrap();
        if length == 0 {
            break;
        }
        for (offset, byte) in block[..length].iter().enumerate() {
            assert_eq!(*byte, pattern(at + offset, seed), "at {}", at + offset);
        }
        at += length;
    }
    assert_eq!(at, bytes);
}

struct Observer {
    ended: mpsc::UnboundedSender<FlowSummary>,
    not_started: mpsc::UnboundedSender<FailedOpen>,
}

impl FlowObserver for Observer {
    fn not_started(self: Box<Self>, failed: FailedOpen) {
        let _ = self.not_started.send(failed);
    }

    fn ended(self: Box<Self>, summary: FlowSummary) {
        let _ = self.ended.send(summary);
    }
}

struct Hub {
    epoch: u64,
    resume: Option<HubResume>,
    welcomed: Option<oneshot::Sender<TunnelHandle>>,
    handle: Arc<Mutex<Option<TunnelHandle>>>,
}

enum HubResume {
    Detached(DetachedSession),
    Living(TunnelHandle),
}

impl HubShell for Hub {
    fn hello(&mut self, hello: Hello, handle: TunnelHandle) -> BoxFuture<'static, HelloVerdict> {
        let resume = self.resume.take();
        *self.handle.lock().unwrap() = Some(handle);
        let epoch = self.epoch;
        Box::pin(async move {
            let resume = match resume {
                Some(HubResume::Detached(session)) => Some(session),
                Some(HubResume::Living(handle)) => handle.detach().await,
                None => None,
            };
            let replica = ReplicaId::parse("hub-1").unwrap();
            HelloVerdict::Accept(Box::new(Welcome {
                session: 1,
                replica: replica.clone(),
                epoch: Epoch {
                    counter: epoch,
                    replica,
                },
                accepted: hello.connectors,
                refused: Vec::new(),
                resume_token: ResumeToken([7; 32]),
                resume,
                token_expires_in: None,
            }))
        })
    }

    fn renew(&mut self, _renew: Renew) -> BoxFuture<'static, RenewVerdict> {
        Box::pin(async {
            RenewVerdict::Accept {
                accepted: Vec::new(),
                refused: Vec::new(),
                token_expires_in: None,
            }
        })
    }

    fn established(&mut self) {
        let handle = self.handle.lock().unwrap().clone().unwrap();
        if let Some(welcomed) = self.welcomed.take() {
            let _ = welcomed.send(handle);
        }
    }
}

struct Agent {
    target: std::net::SocketAddr,
    refuse: Rc<Cell<Option<ResetCode>>>,
}

impl AgentShell for Agent {
    fn dial(&self, _dial: Dial) -> LocalBoxFuture<'static, Result<Dialed, DialError>> {
        let target = self.target;
        let refuse = self.refuse.get();
        Box::pin(async move {
            if let Some(code) = refuse {
                return Err(DialError {
                    code,
                    message: "refused by the test".into(),
                });
            }
            let io = TcpStream::connect(target)
                .await
                .map_err(|error| DialError {
                    code: ResetCode::ConnectFailed,
                    message: error.to_string(),
                })?;
            Ok(Dialed::plain(io))
        })
    }

    fn event(&self, _event: AgentEvent) {}
}

struct Running {
    hub: JoinHandle<TunnelEnd>,
    agent: JoinHandle<TunnelEnd>,
    agent_handle: AgentTunnelHandle,
    hub_handle: TunnelHandle,
    cut: oneshot::Sender<()>,
}

pub(crate) struct Pair {
    running: RefCell<Option<Running>>,
    targets: TcpListener,
    clients: TcpListener,
    refuse: Rc<Cell<Option<ResetCode>>>,
    number: Cell<u64>,
    ended: tokio::sync::Mutex<mpsc::UnboundedReceiver<FlowSummary>>,
    not_started: tokio::sync::Mutex<mpsc::UnboundedReceiver<FailedOpen>>,
    ended_tx: mpsc::UnboundedSender<FlowSummary>,
    not_started_tx: mpsc::UnboundedSender<FailedOpen>,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let targets = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clients = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ended_tx, ended) = mpsc::unbounded_channel();
        let (not_started_tx, not_started) = mpsc::unbounded_channel();
        let pair = Self {
            running: RefCell::new(None),
            targets,
            clients,
            refuse: Rc::new(Cell::new(None)),
            number: Cell::new(0),
            ended: tokio::sync::Mutex::new(ended),
            not_started: tokio::sync::Mutex::new(not_started),
            ended_tx,
            not_started_tx,
        };
        let running = pair.connect(1, None, ResumeFrom::Nothing).await;
        *pair.running.borrow_mut() = Some(running);
        pair
    }

    async fn connect(
        &self,
        epoch: u64,
        hub_resume: Option<HubResume>,
        resume: ResumeFrom,
    ) -> Running {
        let (hub_io, hub_far) = tokio::io::duplex(200_000);
        let (agent_io, agent_far) = tokio::io::duplex(200_000);
        let (cut, cut_rx) = oneshot::channel();
        spawn_local(join(hub_far, agent_far, cut_rx));
        let ws = |io, role| WebSocketStream::from_raw_socket(io, role, Some(websocket_config()));
        let hub_ws = ws(hub_io, WsRole::Server).await;
        let agent_ws = ws(agent_io, WsRole::Client).await;
        let (welcomed, up) = oneshot::channel();
        let shell = Hub {
            epoch,
            resume: hub_resume,
            welcomed: Some(welcomed),
            handle: Arc::default(),
        };
        let hub = spawn_local(serve_hub(
            hub_ws,
            Box::new(shell),
            TunnelSettings::default(),
        ));
        let agent_shell = Rc::new(Agent {
            target: self.targets.local_addr().unwrap(),
            refuse: Rc::clone(&self.refuse),
        });
        let (agent_handle, commands) = agent_channel();
        let agent = spawn_local(serve_agent(
            agent_ws,
            hello(),
            resume,
            agent_shell,
            commands,
            TunnelSettings::default(),
        ));
        let hub_handle = tokio::time::timeout(DEADLINE, up).await.unwrap().unwrap();
        Running {
            hub,
            agent,
            agent_handle,
            hub_handle,
            cut,
        }
    }

    /// Cuts the transport, waits for both ends to notice, and connects anew.
    pub(crate) async fn cut_and_reconnect(&self) {
        let running = self.running.borrow_mut().take().unwrap();
        running.cut.send(()).unwrap();
        let hub = tokio::time::timeout(DEADLINE, running.hub)
            .await
            .unwrap()
            .unwrap();
        let agent = tokio::time::timeout(DEADLINE, running.agent)
            .await
            .unwrap()
            .unwrap();
        let resume = match agent.detached {
            Some(session) => ResumeFrom::Detached(session),
            None => ResumeFrom::Nothing,
        };
        let running = self
            .connect(2, hub.detached.map(HubResume::Detached), resume)
            .await;
        *self.running.borrow_mut() = Some(running);
    }

    /// Somebody asks the hub's end for its flows and does not wait for them. They are to be found
    /// in what that tunnel leaves, and go on in the next one.
    pub(crate) async fn ask_and_go_away(&self) {
        let old = self.running.borrow_mut().take().unwrap();
        // One look gives the order and takes no answer: driver and asker share a thread.
        assert!(old.hub_handle.detach().now_or_never().is_none());
        let hub = tokio::time::timeout(DEADLINE, old.hub)
            .await
            .unwrap()
            .unwrap();
        let agent = tokio::time::timeout(DEADLINE, old.agent)
            .await
            .unwrap()
            .unwrap();
        let left = hub.detached.expect("the flows are left behind");
        let running = self
            .connect(
                2,
                Some(HubResume::Detached(left)),
                agent
                    .detached
                    .map_or(ResumeFrom::Nothing, ResumeFrom::Detached),
            )
            .await;
        *self.running.borrow_mut() = Some(running);
    }

    /// Connects anew while the old tunnel lives.
    pub(crate) async fn replace(&self) {
        let old = self.running.borrow_mut().take().unwrap();
        let running = self
            .connect(
                2,
                Some(HubResume::Living(old.hub_handle.clone())),
                ResumeFrom::Living(old.agent_handle.clone()),
            )
            .await;
        *self.running.borrow_mut() = Some(running);
        tokio::time::timeout(DEADLINE, old.hub)
            .await
            .unwrap()
            .unwrap();
        tokio::time::timeout(DEADLINE, old.agent)
            .await
            .unwrap()
            .unwrap();
    }

    pub(crate) fn refuse_dials(&self, code: ResetCode) {
        self.refuse.set(Some(code));
    }

    pub(crate) async fn open(&self) -> (TcpStream, TcpStream) {
        self.open_with(|_| ()).await
    }

    pub(crate) async fn open_with(
        &self,
        adjust: impl FnOnce(&mut FlowTerms),
    ) -> (TcpStream, TcpStream) {
        let client = self.open_flow(adjust, Vec::new()).await;
        (client, self.accept_target().await)
    }

    pub(crate) async fn open_early(&self, early: &'static [u8]) -> (TcpStream, TcpStream) {
        let client = self
            .open_flow(|_| (), vec![Bytes::from_static(early)])
            .await;
        (client, self.accept_target().await)
    }

    pub(crate) async fn open_client(&self) -> TcpStream {
        self.open_flow(|_| (), Vec::new()).await
    }

    async fn accept_target(&self) -> TcpStream {
        tokio::time::timeout(DEADLINE, self.targets.accept())
            .await
            .unwrap()
            .unwrap()
            .0
    }

    async fn open_flow(&self, adjust: impl FnOnce(&mut FlowTerms), early: Vec<Bytes>) -> TcpStream {
        let (client, accepted) = tokio::join!(
            TcpStream::connect(self.clients.local_addr().unwrap()),
            self.clients.accept()
        );
        let mut terms = FlowTerms::default();
        adjust(&mut terms);
        self.number.set(self.number.get() + 1);
        let flow = OpenFlow {
            flow_ref: FlowRef {
                origin: ReplicaId::parse("hub-1").unwrap(),
                boot: 1,
                number: self.number.get(),
            },
            connector: ConnectorName::parse("echo").unwrap(),
            client_address: None,
            metadata: Vec::new(),
            trace_parent: None,
            proxy_protocol: None,
            terms,
            io: accepted.unwrap().0.into(),
            early,
            observer: Box::new(Observer {
                ended: self.ended_tx.clone(),
                not_started: self.not_started_tx.clone(),
            }),
        };
        self.running
            .borrow()
            .as_ref()
            .unwrap()
            .hub_handle
            .open(flow)
            .unwrap();
        client.unwrap()
    }

    pub(crate) async fn ended(&self) -> FlowSummary {
        let mut ended = self.ended.lock().await;
        tokio::time::timeout(DEADLINE, ended.recv())
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn not_started(&self) -> FailedOpen {
        let mut not_started = self.not_started.lock().await;
        tokio::time::timeout(DEADLINE, not_started.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

/// Carries bytes between two streams until told to cut them, in the middle of whatever passes.
async fn join(
    mut one: tokio::io::DuplexStream,
    mut other: tokio::io::DuplexStream,
    cut: oneshot::Receiver<()>,
) {
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut one, &mut other) => {}
        _ = cut => {}
    }
}

fn hello() -> Hello {
    Hello {
        ver_min: 1,
        ver_max: 1,
        agent_id: AgentId::parse("agent-1").unwrap(),
        tenant: None,
        instance: InstanceId(1),
        role: Role::Primary,
        connectors: vec![ConnectorName::parse("echo").unwrap()],
        labels: Vec::new(),
        transports: vec!["wss".into()],
        features: Features::default(),
        last_epoch: None,
        resume: Some(ResumeToken([7; 32])),
        agent_version: "test".into(),
        max_data_payload: 131_072,
        flow_window: 32_768,
    }
}
