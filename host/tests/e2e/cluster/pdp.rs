//! A decision point of the simple form that answers as it is told to, or not at all.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::SOON;

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    Allow,
    Deny,
    /// It answers once it is told something else.
    Nothing,
}

/// A running decision point; ends with its value.
pub(crate) struct DecisionPoint {
    url: String,
    says: watch::Sender<Says>,
    asked: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl DecisionPoint {
    pub(crate) async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/decide", port.local_addr().unwrap());
        let says = watch::channel(Says::Allow).0;
        let (count, asked) = watch::channel(0);
        let count = Arc::new(count);
        let told = says.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = port.accept().await {
                tokio::spawn(answer(stream, told.subscribe(), Arc::clone(&count)));
            }
        });
        Self {
            url,
            says,
            asked,
            task,
        }
    }

    /// The section of the configuration that has it asked; further settings as inline YAML.
    pub(crate) fn section(&self, more: &str) -> String {
        let url = &self.url;
        format!("pdp: {{url: \"{url}\", kind: simple, timeout_ms: 60000, cache_ttl_sec: 0{more}}}")
    }

    pub(crate) fn says(&self, what: Says) {
        self.says.send_replace(what);
    }

    /// Waits until it was asked that often.
    pub(crate) async fn asked(&self, times: usize) {
        let mut asked = self.asked.clone();
        tokio::time::timeout(SOON, asked.wait_for(|count| *count >= times))
            .await
            .expect("the decision point should have been asked")
            .unwrap();
    }

    pub(crate) fn times_asked(&self) -> usize {
        *self.asked.borrow()
    }
}

impl Drop for DecisionPoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request; the connection ends with its answer.
async fn answer(
    mut stream: TcpStream,
    mut says: watch::Receiver<Says>,
    asked: Arc<watch::Sender<usize>>,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte).await, Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.trim().parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    asked.send_modify(|count| *count += 1);
    let told = says.wait_for(|says| *says != Says::Nothing).await;
    let Ok(told) = told.map(|says| *says) else {
        return;
    };
    let allow = told == Says::Allow;
    let body = format!("{{\"allow\":{allow},\"ttl_sec\":0}}");
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    // The hub may have given up.
    let _ = stream.write_all(answer.as_bytes()).await;
}
