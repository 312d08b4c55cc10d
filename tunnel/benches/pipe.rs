//! The drivers by themselves: one hub and one agent in this process, TLS over loopback, no
//! policy, no plugins, no logs. An upper bound for the product, and the place to see what a
//! change of the data path costs.
//!
//! `cargo bench -p nowconnect-tunnel --bench pipe [-- seconds] [name]`

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement ends where anything fails, and prints"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, LocalBoxFuture};
use nowconnect_tunnel::protocol::{
    AgentId, ConnectorName, Epoch, Features, FlowRef, FlowSummary, FlowTerms, Hello, InstanceId,
    Renew, ReplicaId, ResetCode, ResumeToken, Role,
};
use nowconnect_tunnel::tungstenite::protocol::Role as WsRole;
use nowconnect_tunnel::{
    AgentEvent, AgentShell, Dial, DialError, Dialed, FailedOpen, FlowObserver, HelloVerdict,
    HubShell, OpenFlow, RenewVerdict, ResumeFrom, TLS_BUFFER_BYTES, TunnelHandle, TunnelSettings,
    WebSocketStream, Welcome, agent_channel, read_ahead, serve_agent, serve_hub, websocket_config,
};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio::task::LocalSet;

struct Silent;

impl FlowObserver for Silent {
    fn not_started(self: Box<Self>, _failed: FailedOpen) {}
    fn ended(self: Box<Self>, _summary: FlowSummary) {}
}

struct Hub {
    up: mpsc::Sender<TunnelHandle>,
    handle: Option<TunnelHandle>,
}

impl HubShell for Hub {
    fn hello(&mut self, hello: Hello, handle: TunnelHandle) -> BoxFuture<'static, HelloVerdict> {
        self.handle = Some(handle);
        let replica = ReplicaId::parse("hub").unwrap();
        Box::pin(async move {
            HelloVerdict::Accept(Box::new(Welcome {
                session: 1,
                replica: replica.clone(),
                epoch: Epoch {
                    counter: 1,
                    replica,
                },
                accepted: hello.connectors,
                refused: Vec::new(),
                resume_token: ResumeToken([1; 32]),
                resume: None,
                token_expires_in: None,
            }))
        })
    }

    fn renew(&mut self, _renew: Renew) -> BoxFuture<'static, RenewVerdict> {
        Box::pin(async {
            RenewVerdict::Refuse {
                message: String::new(),
            }
        })
    }

    fn established(&mut self) {
        self.up.send(self.handle.clone().unwrap()).unwrap();
    }
}

struct Agent(SocketAddr);

impl AgentShell for Agent {
    fn dial(&self, _dial: Dial) -> LocalBoxFuture<'static, Result<Dialed, DialError>> {
        let target = self.0;
        Box::pin(async move {
            let io = tokio::net::TcpStream::connect(target)
                .await
                .map_err(|error| DialError {
                    code: ResetCode::ConnectFailed,
                    message: error.to_string(),
                })?;
            let _ = io.set_nodelay(true);
            Ok(Dialed::plain(io))
        })
    }

    fn event(&self, _event: AgentEvent) {}
}

fn runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, work);
}

/// A client's port, whose connections lead through the tunnel to `target`.
fn start(target: SocketAddr) -> SocketAddr {
    let key = rcgen::generate_simple_self_signed(vec!["hub".to_owned()]).unwrap();
    let cert = key.cert.der().clone();
    let secret = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], secret.into())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert).unwrap();
    let client = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let hub_address = hub.local_addr().unwrap();
    let (up, is_up) = mpsc::channel();
    named("hub", move || {
        runtime(async move {
            hub.set_nonblocking(true).unwrap();
            let hub = tokio::net::TcpListener::from_std(hub).unwrap();
            let (tcp, _) = hub.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
            let mut tls = acceptor.accept(read_ahead(tcp)).await.unwrap();
            tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
            let ws =
                WebSocketStream::from_raw_socket(tls, WsRole::Server, Some(websocket_config()));
            let shell = Box::new(Hub { up, handle: None });
            serve_hub(ws.await, shell, TunnelSettings::default()).await;
        });
    });
    named("agent", move || {
        runtime(async move {
            let tcp = tokio::net::TcpStream::connect(hub_address).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
            let name = ServerName::try_from("hub").unwrap();
            let mut tls = connector.connect(name, read_ahead(tcp)).await.unwrap();
            tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
            let ws =
                WebSocketStream::from_raw_socket(tls, WsRole::Client, Some(websocket_config()));
            let (_handle, commands) = agent_channel();
            serve_agent(
                ws.await,
                hello(),
                ResumeFrom::Nothing,
                Rc::new(Agent(target)),
                commands,
                TunnelSettings::default(),
            )
            .await;
        });
    });
    let handle: TunnelHandle = is_up.recv_timeout(Duration::from_secs(10)).unwrap();
    let clients = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = clients.local_addr().unwrap();
    named("accept", move || {
        for number in 1.. {
            let (client, _) = clients.accept().unwrap();
            client.set_nonblocking(true).unwrap();
            client.set_nodelay(true).unwrap();
            open(&handle, client, number);
        }
    });
    address
}

fn open(handle: &TunnelHandle, client: TcpStream, number: u64) {
    let flow = OpenFlow {
        flow_ref: FlowRef {
            origin: ReplicaId::parse("hub").unwrap(),
            boot: 1,
            number,
        },
        connector: ConnectorName::parse("echo").unwrap(),
        client_address: None,
        metadata: Vec::new(),
        trace_parent: None,
        proxy_protocol: None,
        terms: FlowTerms::default(),
        io: client.into(),
        early: Vec::new(),
        observer: Box::new(Silent),
    };
    handle.open(flow).unwrap();
}

fn hello() -> Hello {
    Hello {
        ver_min: 1,
        ver_max: 1,
        agent_id: AgentId::parse("agent").unwrap(),
        tenant: None,
        instance: InstanceId(1),
        role: Role::Primary,
        connectors: vec![ConnectorName::parse("echo").unwrap()],
        labels: Vec::new(),
        transports: Vec::new(),
        features: Features::default(),
        last_epoch: None,
        resume: None,
        agent_version: String::new(),
        max_data_payload: 0,
        flow_window: 0,
    }
}

fn named(name: &str, work: impl FnOnce() + Send + 'static) {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .unwrap();
}

/// Seconds of processor time that the threads of hub and agent have used.
fn product_cpu() -> f64 {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        let Some((head, tail)) = stat.rsplit_once(')') else {
            continue;
        };
        if head.ends_with("(hub") || head.ends_with("(agent") || head.ends_with("(accept") {
            let fields: Vec<&str> = tail.split_whitespace().collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    ticks as f64 / 100.0
}

/// What a target does with a connection is what its first byte says.
fn serve_target(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut what = [0];
    if stream.read_exact(&mut what).is_err() {
        return;
    }
    let mut block = vec![0; 262_144];
    match what[0] {
        b's' => while stream.write_all(&block).is_ok() {},
        b'd' => while stream.read(&mut block).is_ok_and(|bytes| bytes > 0) {},
        _ => {
            let _ = stream.write_all(&what);
            while let Ok(bytes @ 1..) = stream.read(&mut block) {
                if stream.write_all(&block[..bytes]).is_err() {
                    return;
                }
            }
        }
    }
}

fn targets() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    named("targets", move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            named("target", move || serve_target(stream));
        }
    });
    address
}

fn bulk(name: &str, port: SocketAddr, what: u8, flows: usize, time: Duration) {
    let bytes = Arc::new(AtomicU64::new(0));
    let (cpu, begun) = (product_cpu(), Instant::now());
    let until = begun + time;
    let workers: Vec<_> = (0..flows)
        .map(|_| {
            let bytes = Arc::clone(&bytes);
            thread::spawn(move || {
                let mut stream = TcpStream::connect(port).unwrap();
                stream.write_all(&[what]).unwrap();
                let mut block = vec![0; 262_144];
                while Instant::now() < until {
                    let moved = match what {
                        b's' => stream.read(&mut block).unwrap(),
                        _ => stream.write(&block).unwrap(),
                    };
                    bytes.fetch_add(moved as u64, Ordering::Relaxed);
                }
                let _ = stream.shutdown(Shutdown::Both);
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let gigabytes = bytes.load(Ordering::Relaxed) as f64 / 1e9;
    println!(
        "{name:<12} {:>6.0} MB/s  {:.2} CPU s/GB",
        gigabytes * 1e3 / begun.elapsed().as_secs_f64(),
        (product_cpu() - cpu) / gigabytes
    );
    thread::sleep(Duration::from_millis(300));
}

fn ping(name: &str, port: SocketAddr, flows: usize, time: Duration) {
    let (cpu, begun) = (product_cpu(), Instant::now());
    let until = begun + time;
    let workers: Vec<_> = (0..flows)
        .map(|_| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(port).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut times = Vec::new();
                let mut byte = [b'e'; 64];
                while Instant::now() < until {
                    let asked = Instant::now();
                    stream.write_all(&byte).unwrap();
                    stream.read_exact(&mut byte).unwrap();
                    times.push(asked.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times: Vec<Duration> = workers
        .into_iter()
        .flat_map(|worker| worker.join().unwrap())
        .collect();
    times.sort_unstable();
    println!(
        "{name:<12} {:>6.0} /s  p50 {:?}  p99 {:?}  {:.1} CPU us each",
        times.len() as f64 / begun.elapsed().as_secs_f64(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        (product_cpu() - cpu) * 1e6 / times.len() as f64
    );
}

fn opens(name: &str, port: SocketAddr, at_once: usize, time: Duration) {
    let (cpu, begun) = (product_cpu(), Instant::now());
    let until = begun + time;
    let workers: Vec<_> = (0..at_once)
        .map(|_| {
            thread::spawn(move || {
                let mut times = Vec::new();
                while Instant::now() < until {
                    let asked = Instant::now();
                    let mut stream = TcpStream::connect(port).unwrap();
                    stream.write_all(b"e").unwrap();
                    stream.read_exact(&mut [0]).unwrap();
                    times.push(asked.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times: Vec<Duration> = workers
        .into_iter()
        .flat_map(|worker| worker.join().unwrap())
        .collect();
    times.sort_unstable();
    println!(
        "{name:<12} {:>6.0} /s  p50 {:?}  p99 {:?}  {:.1} CPU us each",
        times.len() as f64 / begun.elapsed().as_secs_f64(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        (product_cpu() - cpu) * 1e6 / times.len() as f64
    );
}

fn main() {
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let time = Duration::from_secs_f64(seconds.unwrap_or(1.0));
    let only: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument.parse::<f64>().is_err() && !argument.starts_with('-'))
        .collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let port = start(targets());
    for _ in 0..2 {
        for (name, what, flows) in [
            ("down-1", b's', 1),
            ("up-1", b'd', 1),
            ("down-16", b's', 16),
            ("up-16", b'd', 16),
            ("down-64", b's', 64),
        ] {
            if wanted(name) {
                bulk(name, port, what, flows, time);
            }
        }
        for (name, flows) in [("ping-1", 1), ("ping-256", 256)] {
            if wanted(name) {
                ping(name, port, flows, time);
            }
        }
        for (name, at_once) in [("open-1", 1), ("open-16", 16)] {
            if wanted(name) {
                opens(name, port, at_once, time);
            }
        }
    }
}
