//! Threads, waits and small servers.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nowconnect_agent::config::HubUrl;
use nowconnect_agent::{Agent, AgentConfig, AgentState, Auth, Running, Secret, Target};
use nowconnect_protocol::{AgentId, ConnectorName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;

/// Nothing in these tests takes longer unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}
pub(crate) type Carrier = Box<dyn Stream>;

/// Runs a local future on a thread that ends with the process.
pub(crate) fn on_own_thread<F, T>(make: F)
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = ()> + 'static,
{
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(LocalSet::new().run_until(async move { make().await }));
    });
}

/// Polls `look` until it finds something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "{what} did not come in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Bounds a wait.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come in time"),
    }
}

pub(crate) fn name(text: &str) -> ConnectorName {
    ConnectorName::parse(text).unwrap()
}

/// A config for a hub at `url` with the token `t0ken` and short waits.
pub(crate) fn config(url: &str) -> AgentConfig {
    let mut config = AgentConfig::new(
        HubUrl::parse(url, false).unwrap(),
        AgentId::parse("premise-1").unwrap(),
        Auth::Fixed(Secret::new("t0ken")),
    );
    config.tunnel.backoff.base = Duration::from_millis(20);
    config.tunnel.backoff.cap = Duration::from_millis(200);
    config
}

pub(crate) fn tcp(address: SocketAddr) -> Target {
    Target::tcp(address.ip().to_string(), address.port())
}

pub(crate) async fn ready(config: AgentConfig) -> Running {
    let running = Agent::start(config).unwrap();
    if let Err(state) = running.ready(LIMIT).await {
        panic!("not ready: {state:?}");
    }
    running
}

/// Waits until the agent's snapshot is as wanted.
pub(crate) async fn state(
    running: &Running,
    what: &str,
    wanted: impl Fn(&AgentState) -> bool,
) -> AgentState {
    eventually(what, || {
        let state = running.state();
        wanted(&state).then_some(state)
    })
    .await
}

/// A TCP server that sends back what it gets and passes half-close on.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

/// A TCP server that sends a byte every few milliseconds, whatever it gets.
pub(crate) async fn chatter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
    });
    address
}

/// Writes, reads the same back, and leaves the stream open.
pub(crate) async fn exchange(stream: &mut TcpStream, text: &[u8]) {
    soon("an echo", async {
        stream.write_all(text).await.unwrap();
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, text);
    })
    .await;
}

/// A TCP relay whose connections can all be cut, or left open and silent.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    pipes: Arc<Mutex<Vec<tokio::task::AbortHandle>>>,
    silence: watch::Sender<()>,
}

impl Relay {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap(),
            pipes: Arc::default(),
            silence: watch::Sender::new(()),
        };
        let pipes = Arc::clone(&relay.pipes);
        let silence = relay.silence.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut silenced = silence.subscribe();
                let pipe = tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = silenced.changed() => std::future::pending().await,
                    }
                });
                pipes.lock().unwrap().push(pipe.abort_handle());
            }
        });
        relay
    }

    /// The connections of now carry nothing more, and nobody is told. Later ones work.
    pub(crate) fn silence(&self) {
        self.silence.send_replace(());
    }

    pub(crate) fn cut(&self) {
        for pipe in self.pipes.lock().unwrap().drain(..) {
            pipe.abort();
        }
    }
}
