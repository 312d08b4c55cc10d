//! Serves plain pages to whoever reaches a port.
//!
//! Nobody proves who he is here, so what one caller may hold is bounded: connections at once,
//! the time to send a request's head, and the time of a whole connection.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_service::Service as _;
use tracing::warn;

/// What one port gives to strangers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections served at once; further ones wait in the kernel's queue.
    connections: usize,
    /// Longest time for the head of a request, and so for an idle connection.
    head: Duration,
    /// Longest time of a connection: one that reads its answer too slowly gives its place to
    /// others, and a scraper connects again.
    whole: Duration,
}

/// For the metrics port: a scraper and a few probes need one connection each.
pub(crate) const BOUNDS: Bounds = Bounds {
    connections: 64,
    head: Duration::from_secs(10),
    whole: Duration::from_secs(300),
};

/// Rest after a failed accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener, pages: Router, bounds: Bounds) {
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = pages.clone();
                connections.spawn(async move {
                    serve_one(stream, pages, bounds).await;
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(listener = "metrics", %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, pages: Router, bounds: Bounds) {
    let service = service_fn(|request: Request<Incoming>| {
        let mut pages = pages.clone();
        async move { pages.call(request).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .serve_connection(TokioIo::new(stream), service);
    // A connection that breaks is its client's affair.
    let _ = tokio::time::timeout(bounds.whole, connection).await;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    const REQUEST: &[u8] = b"GET /page HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn who_sends_no_request_gives_his_place_away() {
        let bounds = Bounds {
            connections: 2,
            head: Duration::from_millis(200),
            ..BOUNDS
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Router::new().route("/page", get(|| async { "text" }));
        let server = tokio::spawn(serve(listener, pages, bounds));
        let begun = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..bounds.connections {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // Every place is taken: the answer comes when a silent one has lost its own.
        let mut one = TcpStream::connect(address).await.unwrap();
        one.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        one.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(begun.elapsed() >= bounds.head, "{:?}", begun.elapsed());
        server.abort();
    }
}
