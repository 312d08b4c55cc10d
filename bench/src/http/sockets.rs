//! A thousand WebSockets that are open at once, and echo through each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use super::stage;
use crate::failure::{Context, Failure};
use crate::figures::Figures;
use crate::load::Latencies;
use crate::peers::Site;

/// Handshakes at once.
const OPENING: usize = 32;

/// Echoes on each, one at a time.
const ECHOES: usize = 20;

/// Of one echo.
const BYTES: usize = 128;

/// Ends what hangs.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn measure(site: &Site, sockets: usize) -> Result<Figures, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let origin = runtime.block_on(start_origin())?;
    let hub = stage::start_hub(site, origin.port(), 1)?;
    let port = hub
        .ingress
        .context(|| "the hub has no ingress".to_owned())?
        .plain;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    runtime.block_on(async {
        wait_for(address).await?;
        let before = hub.peer.meter.resident_kb();
        let started = Instant::now();
        let mut open: Vec<WebSocketStream<TcpStream>> = stream::iter(0..sockets)
            .map(|_| open_one(address))
            .buffer_unordered(OPENING)
            .try_collect()
            .await?;
        let opened = started.elapsed().as_secs_f64();
        let grown = hub.peer.meter.resident_kb().saturating_sub(before);
        let cpu = hub.peer.meter.cpu_seconds();
        let started = Instant::now();
        let latencies = stream::iter(&mut open)
            .map(echo)
            .buffer_unordered(sockets)
            .try_fold(Latencies::new(), |mut all, one| async move {
                all.merge(&one);
                Ok(all)
            })
            .await?;
        let took = started.elapsed().as_secs_f64();
        let cpu = hub.peer.meter.cpu_seconds() - cpu;
        let echoes = latencies.count() as f64;
        let figures = [
            ("open", open.len() as f64),
            ("open_s", opened),
            ("kb_each", grown as f64 / sockets as f64),
            ("echoes_s", echoes / took),
            ("echo_p50_us", latencies.micros(0.5)),
            ("echo_p99_us", latencies.micros(0.99)),
            ("echo_cpu_us", cpu * 1e6 / echoes),
        ];
        let named = figures.map(|(name, value)| (format!("http_sockets.{name}"), value));
        Ok(Figures::from(named))
    })
}

/// Sends back what comes, on every connection; it goes with the runtime.
async fn start_origin() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(socket) = accept_async(stream).await else {
                    return;
                };
                let (write, read) = socket.split();
                let data = read.try_filter(|message| {
                    let is_data = message.is_binary() || message.is_text();
                    async move { is_data }
                });
                // Its end is seen by who asked.
                let _ = data.forward(write).await;
            });
        }
    });
    Ok(address)
}

async fn wait_for(address: SocketAddr) -> Result<(), Failure> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match open_one(address).await {
            Ok(mut socket) => {
                let _ = socket.close(None).await;
                return Ok(());
            }
            Err(last) if Instant::now() > deadline => {
                return Err(Failure::new(format!("not ready in time: {last}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn open_one(address: SocketAddr) -> Result<WebSocketStream<TcpStream>, Failure> {
    let opening = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (socket, _) = client_async("ws://localhost/echo", stream)
            .await
            .context(|| "open a WebSocket".to_owned())?;
        Ok(socket)
    };
    within(opening).await
}

async fn echo(socket: &mut WebSocketStream<TcpStream>) -> Result<Latencies, Failure> {
    let mut latencies = Latencies::new();
    for _ in 0..ECHOES {
        let started = Instant::now();
        let exchange = async {
            let message = Message::binary(vec![7; BYTES]);
            socket.send(message).await.context(|| "send".to_owned())?;
            let answer = socket.next().await.context(|| "it ended".to_owned())?;
            answer.context(|| "receive".to_owned())
        };
        let answer = within(exchange).await?;
        if answer.into_data().len() != BYTES {
            return Err(Failure::new("an echo is not what was sent"));
        }
        latencies.record(started.elapsed());
    }
    Ok(latencies)
}

async fn within<T>(doing: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(DEADLINE, doing)
        .await
        .unwrap_or_else(|_| Err(Failure::new(format!("nothing came for {DEADLINE:?}"))))
}
