//! A decision point of the test's making, which may be as bad as it likes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What it does with a request.
pub(crate) enum Reply {
    /// 200 with this JSON.
    Json(String),
    /// These bytes, then the connection ends.
    Raw(Vec<u8>),
    /// These bytes, then silence.
    Stall(Vec<u8>),
    /// A body without end, as fast as it is read.
    Endless,
    /// Silence for so long, then 200 with this JSON.
    Late(Duration, String),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Method, path, header lines.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Closes the port.
    pub(crate) async fn task_ends(&self) {
        self.task.abort();
        let closed = async {
            while tokio::net::TcpStream::connect(self.url.trim_start_matches("http://"))
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), closed)
            .await
            .unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers each request by `reply`, which is also told its number from 0.
pub(crate) async fn serve(reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    let reply = Arc::new(reply);
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (reply, requests) = (Arc::clone(&reply), Arc::clone(&requests));
            tokio::spawn(async move {
                answer(stream, &*reply, &requests).await;
            });
        }
    });
    Server { url, seen, task }
}

/// One connection, to its end.
pub(crate) async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    reply: &(dyn Fn(usize, &Seen) -> Reply + Send + Sync),
    requests: &Mutex<Vec<Seen>>,
) {
    while let Some(seen) = read(&mut stream).await {
        let number = {
            let mut requests = requests.lock();
            requests.push(seen.clone());
            requests.len() - 1
        };
        let done = match reply(number, &seen) {
            Reply::Json(body) => stream.write_all(&json(&body)).await,
            Reply::Raw(bytes) => {
                // The client may be gone, which is what these tests are about.
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Reply::Stall(bytes) => {
                let _ = stream.write_all(&bytes).await;
                std::future::pending::<()>().await;
                return;
            }
            Reply::Endless => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                let mut written = stream.write_all(head).await;
                while written.is_ok() {
                    written = stream.write_all(b"1000\r\n").await;
                    for part in [&[b' '; 0x1000][..], b"\r\n"] {
                        if written.is_ok() {
                            written = stream.write_all(part).await;
                        }
                    }
                }
                return;
            }
            Reply::Late(time, body) => {
                tokio::time::sleep(time).await;
                stream.write_all(&json(&body)).await
            }
        };
        if done.is_err() {
            return;
        }
    }
}

pub(crate) fn json(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut seen = Seen {
        head,
        body: String::new(),
    };
    let length: usize = seen
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    seen.body = String::from_utf8(bytes[end..end + length].to_vec()).unwrap();
    Some(seen)
}
