//! HTTP on the wire, written and read byte by byte: what a library would set right is what the
//! scenarios are about.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::SOON;

/// A message's head, and as much of its body as was read with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) first_line: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        let status = self.first_line.split(' ').nth(1);
        status.and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The values of a field, joined.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .fields
            .iter()
            .filter(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The stable code of an answer of the hub.
    pub(crate) fn code(&self) -> String {
        self.field("x-nowconnect-error").unwrap_or_default()
    }

    /// Of all that a connection brought until its end.
    pub(crate) fn whole(bytes: &[u8]) -> Self {
        let end = find(bytes, b"\r\n\r\n").expect("there should be a head");
        Self {
            body: bytes[end + 4..].to_vec(),
            ..Self::parse(&bytes[..end])
        }
    }

    fn parse(head: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self {
            first_line,
            fields,
            body: Vec::new(),
        }
    }
}

/// One connection that speaks HTTP/1.1.
pub(crate) struct Web {
    pub(crate) stream: TcpStream,
    /// Read and not yet looked at.
    rest: Vec<u8>,
}

impl Web {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            rest: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(SOON, self.stream.write_all(bytes.as_ref()))
            .await
            .unwrap()
            .unwrap();
    }

    /// The next head; `None` where the connection ends before.
    pub(crate) async fn head(&mut self) -> Option<Message> {
        loop {
            if let Some(end) = find(&self.rest, b"\r\n\r\n") {
                let message = Message::parse(&self.rest[..end]);
                self.rest.drain(..end + 4);
                return Some(message);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The next response, with its whole body.
    pub(crate) async fn response(&mut self) -> Message {
        let mut message = self.head().await.expect("a response should have come");
        let status = message.status();
        if status == 204 || status == 304 || status < 200 {
            return message;
        }
        message.body = self.body(&message).await;
        message
    }

    pub(crate) async fn body(&mut self, head: &Message) -> Vec<u8> {
        if head.field("transfer-encoding").as_deref() == Some("chunked") {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk().await {
                body.extend(chunk);
            }
            return body;
        }
        match head.field("content-length") {
            Some(length) => self.exactly(length.parse().unwrap()).await,
            None => {
                while self.fill().await {}
                std::mem::take(&mut self.rest)
            }
        }
    }

    /// The next chunk; `None` at the last, whose trailers are read over.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line().await;
        let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
        if size == 0 {
            while !self.line().await.is_empty() {}
            return None;
        }
        let chunk = self.exactly(size).await;
        assert_eq!(self.exactly(2).await, b"\r\n");
        Some(chunk)
    }

    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.rest, b"\r\n") {
                let line = String::from_utf8_lossy(&self.rest[..end]).into_owned();
                self.rest.drain(..end + 2);
                return line;
            }
            assert!(self.fill().await, "the connection ended within a line");
        }
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.rest.len() < length {
            assert!(self.fill().await, "the connection ended within a body");
        }
        self.rest.drain(..length).collect()
    }

    /// Whether the connection ends without a further byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.rest.is_empty() && !self.fill().await
    }

    async fn fill(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        let read = timeout(SOON, self.stream.read(&mut buffer))
            .await
            .expect("something should have come");
        let length = read.unwrap_or(0);
        self.rest.extend_from_slice(&buffer[..length]);
        length > 0
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Message {
    let mut web = Web::connect(address).await;
    web.send(request).await;
    web.response().await
}

/// `GET` of a path at a host.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Message {
    ask(
        address,
        format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
    )
    .await
}

/// An origin that says what it got.
pub(crate) struct Origin {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
    connections: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Origin {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far.
    pub(crate) fn seen(&self) -> Vec<Message> {
        self.seen.lock().clone()
    }

    pub(crate) fn last(&self) -> Message {
        self.seen().pop().expect("the origin saw no request")
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers by path, with what was set, or 200 and the path itself.
pub(crate) async fn origin(answers: &[(&str, &str)]) -> Origin {
    origin_at(([127, 0, 0, 1], 0).into(), answers).await
}

/// The same at an address, such as that of one which has gone.
pub(crate) async fn origin_at(address: SocketAddr, answers: &[(&str, &str)]) -> Origin {
    let answers: BTreeMap<String, String> = answers
        .iter()
        .map(|(path, answer)| ((*path).to_owned(), (*answer).to_owned()))
        .collect();
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Arc<Mutex<Vec<Message>>> = Arc::default();
    let connections: Arc<Mutex<usize>> = Arc::default();
    let (all, count) = (Arc::clone(&seen), Arc::clone(&connections));
    let task = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            *count.lock() += 1;
            let (all, answers) = (Arc::clone(&all), answers.clone());
            tokio::spawn(async move {
                let mut web = Web::over(stream);
                while let Some(mut request) = web.head().await {
                    let has_body = request.field("content-length").is_some()
                        || request.field("transfer-encoding").is_some();
                    if has_body {
                        request.body = web.body(&request).await;
                    }
                    let path = request.first_line.split(' ').nth(1).unwrap_or("/");
                    let path = path.split('?').next().unwrap_or("/").to_owned();
                    all.lock().push(request.clone());
                    let answer = answers.get(&path).cloned().unwrap_or_else(|| {
                        format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}",
                            path.len()
                        )
                    });
                    if web.stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    if answer.contains("connection: close") || !answer.starts_with("HTTP/1.1 ") {
                        return;
                    }
                }
            });
        }
    });
    Origin {
        address,
        seen,
        connections,
        task,
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|part| part == needle)
}
