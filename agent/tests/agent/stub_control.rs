//! A control API that gives tunnels and remembers what it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The one client that is known, and its secret.
pub(crate) const CLIENT: (&str, &str) = ("shop-team", "the-secret-of-the-shop-team");

#[derive(Default)]
pub(crate) struct Book {
    /// What is told of hubs to dial.
    pub(crate) candidates: Value,
    /// Tunnels by their token to come back, with their names.
    tunnels: BTreeMap<String, (String, String)>,
    /// Answered in place of everything: status, code.
    pub(crate) refuse: Option<(u16, &'static str)>,
    /// `Retry-After` of such answers.
    pub(crate) retry_after: Option<u32>,
    /// Whether a management token is needed.
    pub(crate) asks_for_client: bool,
    /// Bodies of creations.
    pub(crate) asked: Vec<Value>,
    /// Requests of any kind.
    pub(crate) calls: u32,
    made: u32,
    tokens: u32,
}

#[derive(Clone)]
pub(crate) struct StubControl {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
}

impl StubControl {
    /// One that sends agents to these hubs.
    pub(crate) async fn start(hubs: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hubs: Vec<Value> = hubs
            .iter()
            .map(|url| json!({"edge_id": "h", "edge_url": url, "supported_transport": ["wss"]}))
            .collect();
        let control = Self {
            address: listener.local_addr().unwrap(),
            book: Arc::new(Mutex::new(Book {
                candidates: Value::Array(hubs),
                ..Book::default()
            })),
        };
        let book = Arc::clone(&control.book);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&book)));
            }
        });
        control
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.book.lock().unwrap())
    }

    /// All tunnels are gone.
    pub(crate) fn forget(&self) {
        self.with(|book| book.tunnels.clear());
    }
}

async fn answer(stream: TcpStream, book: Arc<Mutex<Book>>) {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let field = |name: &str| {
        let found = head.iter().filter_map(|line| line.split_once(": "));
        let mut found = found.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.to_owned())
    };
    let length: usize = field("content-length").unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let (status, answer, retry_after) = {
        let mut book = book.lock().unwrap();
        book.calls += 1;
        let (status, answer) = book.answer(&head[0], field("authorization"), body);
        let after = book.retry_after.filter(|_| status >= 400);
        let after = after.map(|seconds| format!("retry-after: {seconds}\r\n"));
        (status, answer, after.unwrap_or_default())
    };
    let text = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n{retry_after}content-length: {}\r\n\r\n",
        text.len()
    );
    let _ = stream.write_all((head + &text).as_bytes()).await;
}

impl Book {
    fn answer(&mut self, first: &str, bearer: Option<String>, body: Value) -> (u16, Value) {
        if let Some((status, code)) = self.refuse {
            return (status, json!({"code": code, "detail": "as the test said"}));
        }
        if first.starts_with("POST /auth/token ") {
            assert_eq!(body["grant_type"], "client_credentials");
            let known = body["client_id"] == CLIENT.0 && body["client_secret"] == CLIENT.1;
            return if known {
                (200, json!({"token": "m.m.m", "expires_in": 3600}))
            } else {
                unauthenticated()
            };
        }
        assert!(first.starts_with("POST /tunnels/create "), "{first}");
        self.asked.push(body.clone());
        if self.asks_for_client && bearer.as_deref() != Some("Bearer m.m.m") {
            return unauthenticated();
        }
        let (id, name) = match body["recreate_token"].as_str() {
            Some(token) => match self.tunnels.get(token) {
                Some(tunnel) => tunnel.clone(),
                None => return unauthenticated(),
            },
            None => {
                self.made += 1;
                let made = self.made;
                let name = body["requested_name"].as_str().map(str::to_owned);
                let name = name.unwrap_or_else(|| format!("t-{made}"));
                (format!("tun_{made}"), name)
            }
        };
        self.tokens += 1;
        let recreate = format!("recreate-{}", self.tokens);
        self.tunnels
            .insert(recreate.clone(), (id.clone(), name.clone()));
        let made = json!({
            "tunnel_id": id,
            "public_hostname": format!("{name}.localhost"),
            "public_url": format!("http://{name}.localhost:8080"),
            "candidates": self.candidates,
            "ephemeral_token": format!("ephemeral-{}", self.tokens),
            "recreate_token": recreate,
            "candidates_expires_at": "2026-11-21T12:00:00Z",
            "recreate_expires_at": "2026-11-22T12:00:00Z",
        });
        (201, made)
    }
}

fn unauthenticated() -> (u16, Value) {
    (
        401,
        json!({"code": "unauthenticated", "detail": "who are you?"}),
    )
}
