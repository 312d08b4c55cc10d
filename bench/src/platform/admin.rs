//! Asks a running hub: its admin socket and its metrics.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::failure::{Context, Failure};

/// A reload compiles policies and plugins.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Has the hub read everything again; returns the generation that is then in force.
pub(super) fn reload(socket: &Path) -> Result<u64, Failure> {
    let mut stream =
        UnixStream::connect(socket).context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    let body = ask(&mut stream, "POST", "/v1/reload")?;
    let report: Value =
        serde_json::from_str(&body).context(|| format!("read the reload's answer `{body}`"))?;
    match (&report["ok"], report["generation"].as_u64()) {
        (Value::Bool(true), Some(generation)) => Ok(generation),
        _ => Err(Failure::new(format!("the reload was refused: {report}"))),
    }
}

/// The sum of all series of a family.
pub(super) fn metric(port: u16, family: &str) -> Result<f64, Failure> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    Ok(sum(&ask(&mut stream, "GET", "/metrics")?, family))
}

fn ask(stream: &mut (impl Read + Write), method: &str, path: &str) -> Result<String, Failure> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    body(&String::from_utf8_lossy(&answer))
        .context(|| format!("{method} {path}: no HTTP answer"))?
        .context(|| format!("{method} {path}"))
}

/// The body of an answer that ends with its connection, or its first line where it is no 200.
fn body(answer: &str) -> Option<Result<String, Failure>> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.lines().next()?;
    if status.split(' ').nth(1)? != "200" {
        return Some(Err(Failure::new(format!("{status}: {body}"))));
    }
    let chunked = head
        .lines()
        .any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
    Some(Ok(if chunked {
        dechunked(body)
    } else {
        body.to_owned()
    }))
}

fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|_| size > 0) else {
            break;
        };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}

fn sum(text: &str, family: &str) -> f64 {
    let of_family = |line: &&str| {
        let rest = line.strip_prefix(family);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    };
    text.lines()
        .filter(of_family)
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .fold(0.0, |sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn a_body_comes_whole_or_in_chunks_and_a_refusal_is_none() {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(body(whole).unwrap().unwrap(), "{}");
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(body(chunked).unwrap().unwrap(), "abcde");
        let refused = "HTTP/1.1 403 Forbidden\r\n\r\n{\"code\":\"denied\"}";
        assert!(
            body(refused)
                .unwrap()
                .unwrap_err()
                .to_string()
                .contains("denied")
        );
        assert!(body("nothing").is_none());
    }

    #[test]
    fn a_family_is_summed_over_its_series_and_no_other() {
        let text = "# HELP lines_total x\nlines_total{output=\"file\"} 3\n\
                    lines_total{output=\"stdout\"} 4\nlines_total_more 9\n";
        assert_eq!(sum(text, "lines_total"), 7.0);
        assert_eq!(sum(text, "lines_total_more"), 9.0);
        assert_eq!(sum(text, "lines"), 0.0);
    }
}
