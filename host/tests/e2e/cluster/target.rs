//! Private services: what an agent's connectors lead to.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running service; ends with its value.
pub(crate) struct TestTarget {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// What one connection brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) bytes: Vec<u8>,
    /// The far side ended its direction.
    pub(crate) ended: bool,
}

impl TestTarget {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far, with what they brought.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

impl Drop for TestTarget {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends back what it gets, and ends when the client has.
pub(crate) async fn echo() -> TestTarget {
    serve(false).await
}

/// Says `hello` and ends its direction at once; reads on to the client's end.
pub(crate) async fn hold() -> TestTarget {
    serve(true).await
}

/// An address where nobody listens.
pub(crate) async fn refuse() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

async fn serve(says_hello: bool) -> TestTarget {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    let task = tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            let all = Arc::clone(&all);
            let index = {
                let mut all = all.lock();
                all.push(Seen::default());
                all.len() - 1
            };
            tokio::spawn(async move {
                if says_hello {
                    let _ = stream.write_all(b"hello").await;
                    let _ = stream.shutdown().await;
                }
                let mut buffer = vec![0; 16 * 1024];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) => {
                            all.lock()[index].ended = true;
                            break;
                        }
                        Ok(length) => {
                            all.lock()[index].bytes.extend_from_slice(&buffer[..length]);
                            if !says_hello && stream.write_all(&buffer[..length]).await.is_err() {
                                break;
                            }
                        }
                        Err(_) => break,
                    }
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    TestTarget {
        address,
        seen,
        task,
    }
}
