//! A TCP link between agent and hub that can be cut and mended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// See the module. Ends with its value.
pub(crate) struct Link {
    address: SocketAddr,
    /// Counts the cuts; a connection lives only within the count it was made in.
    cuts: watch::Sender<u64>,
    open: watch::Sender<bool>,
    carried: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Link {
    pub(crate) async fn to(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, cut) = watch::channel(0);
        let (open, is_open) = watch::channel(true);
        let carried = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&carried);
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut near, _)) = listener.accept().await else {
                    return;
                };
                if !*is_open.borrow() {
                    continue;
                }
                counted.fetch_add(1, Ordering::Relaxed);
                let mut cut = cut.clone();
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(hub).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            cuts,
            open,
            carried,
            task,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection; new ones are made again.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Breaks every connection and lets no new one through.
    pub(crate) fn close(&self) {
        self.open.send_replace(false);
        self.cut();
    }

    /// How many connections were made through it.
    pub(crate) fn carried(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}
