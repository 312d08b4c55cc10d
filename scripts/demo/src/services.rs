//! Services for an agent to reach, on loopback, one thread for each connection. They are bounded
//! for a demo: one request for each HTTP connection, 64 KiB of it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::Failed;

/// The most bytes of one HTTP request.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// How long one HTTP request may take to arrive.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// An HTTP request, as far as a demo looks at it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// The path, without query.
    pub path: String,
    /// The `Host` field.
    pub host: String,
    /// The `Authorization` field.
    pub authorization: Option<String>,
    /// The body.
    pub body: String,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Response {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Response {
    /// A JSON document.
    #[must_use]
    pub fn json(value: &Value) -> Self {
        Self {
            status: 200,
            content_type: "application/json",
            body: value.to_string(),
        }
    }

    /// A text.
    #[must_use]
    pub fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: text.to_owned(),
        }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        format!(
            "HTTP/1.1 {} -\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
            self.status,
            self.content_type,
            self.body.len(),
            self.body
        )
        .into_bytes()
    }
}

/// Serves HTTP until the process ends; returns where.
///
/// # Errors
/// The address is taken.
pub fn serve_http(
    address: SocketAddr,
    answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> Result<SocketAddr, Failed> {
    let answer = std::sync::Arc::new(answer);
    serve(address, move |mut stream| {
        let answer = std::sync::Arc::clone(&answer);
        if let Some(request) = read_request(&mut stream) {
            stream.write_all(&answer(&request).bytes())?;
        }
        stream.shutdown(Shutdown::Write)
    })
}

/// Returns what it gets, with half-close, until the process ends; returns where.
///
/// # Errors
/// The address is taken.
pub fn serve_echo(address: SocketAddr) -> Result<SocketAddr, Failed> {
    serve(address, |mut stream| {
        let mut back = stream.try_clone()?;
        std::io::copy(&mut stream, &mut back)?;
        back.shutdown(Shutdown::Write)
    })
}

fn serve(
    address: SocketAddr,
    talk: impl Fn(TcpStream) -> std::io::Result<()> + Clone + Send + 'static,
) -> Result<SocketAddr, Failed> {
    let listener =
        TcpListener::bind(address).map_err(Failed::doing(format!("listening on {address}")))?;
    let address = listener
        .local_addr()
        .map_err(Failed::doing("a listener's own address"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let talk = talk.clone();
            // A client that goes away is not the service's concern.
            std::thread::spawn(move || drop(talk(stream)));
        }
    });
    Ok(address)
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    stream.set_read_timeout(Some(REQUEST_DEADLINE)).ok()?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(request) = parse(&bytes) {
            return Some(request);
        }
        let read = stream.read(&mut chunk).ok()?;
        if read == 0 || bytes.len() + read > MAX_REQUEST_BYTES {
            return None;
        }
        bytes.extend_from_slice(&chunk[..read]);
    }
}

/// The request, once all of it is there.
fn parse(bytes: &[u8]) -> Option<Request> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let mut request = Request {
        method: first.next()?.to_owned(),
        ..Request::default()
    };
    first
        .next()?
        .split('?')
        .next()?
        .clone_into(&mut request.path);
    let mut length = 0;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "host" => value.clone_into(&mut request.host),
            "authorization" => request.authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    body.clone_into(&mut request.body);
    (body.len() >= length).then_some(request)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_request_is_whole_when_its_body_is() {
        let head = b"POST /token?x=1 HTTP/1.1\r\nhost: a:1\r\nContent-Length: 4\r\n\r\n";
        assert!(parse(&head[..20]).is_none());
        assert!(parse(&[head.as_slice(), b"abc"].concat()).is_none());
        let request = parse(&[head.as_slice(), b"abcd"].concat()).expect("it is whole");
        assert_eq!(
            (
                request.path.as_str(),
                request.host.as_str(),
                request.body.as_str()
            ),
            ("/token", "a:1", "abcd")
        );
    }
}
