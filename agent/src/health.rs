//! The TCP health server: a probe connects and reads `OK` while the agent runs without a tunnel,
//! `READY` once the hub has accepted HELLO, and `OK` again when the tunnel is lost.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Probes answered at once; more wait in the listen queue.
const PROBES_MAX: usize = 16;
/// A probe that does not read or close is cut off after this long.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed accept, which else would spin while descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running health server; dropping it closes its port.
#[derive(Debug)]
pub(crate) struct HealthServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl HealthServer {
    /// Binds `address` and answers from a local task as `ready` says.
    pub(crate) async fn start(
        address: SocketAddr,
        ready: watch::Receiver<bool>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let task = tokio::task::spawn_local(serve(listener, ready));
        Ok(Self { address, task })
    }

    /// The bound address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, ready: watch::Receiver<bool>) {
    let slots = Rc::new(Semaphore::new(PROBES_MAX));
    loop {
        let Ok(slot) = acquire(&slots).await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer: &[u8] = if *ready.borrow() { b"READY\n" } else { b"OK\n" };
                tokio::task::spawn_local(async move {
                    let _held = slot;
                    // A probe that goes away early is no fault of ours.
                    let _ = timeout(PROBE_TIMEOUT, respond(stream, answer)).await;
                });
            }
            Err(error) => {
                tracing::warn!(event = "health_accept_failed", %error, "health probe not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A slot that is given back when dropped.
async fn acquire(slots: &Rc<Semaphore>) -> Result<Slot, tokio::sync::AcquireError> {
    slots.acquire().await?.forget();
    Ok(Slot(Rc::clone(slots)))
}

struct Slot(Rc<Semaphore>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

async fn respond(mut stream: TcpStream, answer: &'static [u8]) -> std::io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    // Closing over unread bytes would reset the connection and could take the answer with it.
    let mut ignored = [0; 512];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn ok_turns_into_ready_and_back() {
        let run = async {
            let (set_ready, ready) = watch::channel(false);
            let server = HealthServer::start("127.0.0.1:0".parse().unwrap(), ready)
                .await
                .unwrap();
            assert_eq!(probe(server.address()).await, "OK\n");
            set_ready.send(true).unwrap();
            assert_eq!(probe(server.address()).await, "READY\n");
            set_ready.send(false).unwrap();
            assert_eq!(probe(server.address()).await, "OK\n");
        };
        LocalSet::new().run_until(run).await;
    }

    #[tokio::test]
    async fn silent_probes_do_not_keep_others_out() {
        let run = async {
            let (_set_ready, ready) = watch::channel(true);
            let server = HealthServer::start("127.0.0.1:0".parse().unwrap(), ready)
                .await
                .unwrap();
            let mut silent = Vec::new();
            for _ in 0..=PROBES_MAX {
                silent.push(TcpStream::connect(server.address()).await.unwrap());
            }
            assert_eq!(probe(server.address()).await, "READY\n");
        };
        LocalSet::new().run_until(run).await;
    }

    async fn probe(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}
