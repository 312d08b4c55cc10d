//! HTTP CONNECT (RFC 9110, section 9.3.6) with basic authentication.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::ProxyError;
use crate::secret::Secret;

/// A proxy's answer up to the empty line is at most this long.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

pub(super) async fn ask<S>(
    stream: &mut S,
    login: Option<&(String, Secret)>,
    host: &str,
    port: u16,
) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let authority = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some((user, password)) = login {
        let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
        request.push_str(&format!("Proxy-Authorization: Basic {pair}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;

    let answer = read_head(stream).await?;
    let status_line = answer.lines().next().unwrap_or_default();
    let mut words = status_line.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().unwrap_or_default();
    if !version.starts_with("HTTP/1.") {
        return Err(ProxyError::Malformed("it is not HTTP/1"));
    }
    match status.parse::<u16>() {
        Ok(200..=299) => Ok(()),
        Ok(407) if login.is_some() => Err(ProxyError::LoginRefused),
        Ok(407) => Err(ProxyError::LoginNeeded),
        Ok(_) => Err(ProxyError::Refused(printable(status_line))),
        Err(_) => Err(ProxyError::Malformed("it has no status")),
    }
}

/// Reads up to the empty line, byte by byte: what follows belongs to the tunnel, and this happens
/// once per tunnel.
async fn read_head<S>(stream: &mut S) -> Result<String, ProxyError>
where
    S: AsyncRead + Unpin,
{
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == ANSWER_BYTES_MAX {
            return Err(ProxyError::Malformed("its header is longer than 16 KiB"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn printable(line: &str) -> String {
    line.chars()
        .filter(|char| !char.is_control())
        .take(120)
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn a_way_is_asked_for_with_the_login() {
        let login = ("joe".to_owned(), Secret::new("pw"));
        let (result, request) = exchange(
            Some(&login),
            "hub.example.com",
            b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n",
        )
        .await;
        result.unwrap();
        assert_eq!(
            request,
            "CONNECT hub.example.com:443 HTTP/1.1\r\nHost: hub.example.com:443\r\n\
             Proxy-Authorization: Basic am9lOnB3\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn v6_hosts_get_brackets() {
        let (_, request) = exchange(None, "::1", b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(request.starts_with("CONNECT [::1]:443 HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn what_follows_the_answer_stays_in_the_stream() {
        let (mut near, mut far) = duplex(4096);
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\nearly")
            .await
            .unwrap();
        ask(&mut near, None, "hub", 443).await.unwrap();
        let mut early = [0; 5];
        near.read_exact(&mut early).await.unwrap();
        assert_eq!(&early, b"early");
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        let login = ("joe".to_owned(), Secret::new("pw"));
        let needs = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
        let (result, _) = exchange(None, "hub", needs).await;
        assert!(matches!(result, Err(ProxyError::LoginNeeded)));
        let (result, _) = exchange(Some(&login), "hub", needs).await;
        assert!(matches!(result, Err(ProxyError::LoginRefused)));
        let (result, _) = exchange(None, "hub", b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
        assert_eq!(
            result.unwrap_err().to_string(),
            "proxy answered `HTTP/1.1 403 Forbidden`"
        );
        let (result, _) = exchange(None, "hub", b"SSH-2.0-OpenSSH\r\n\r\n").await;
        assert!(matches!(result, Err(ProxyError::Malformed(_))));
    }

    #[tokio::test]
    async fn an_endless_header_is_cut() {
        let (result, _) = exchange(None, "hub", &[b'a'; ANSWER_BYTES_MAX + 1]).await;
        assert!(matches!(result, Err(ProxyError::Malformed(_))));
    }

    async fn exchange(
        login: Option<&(String, Secret)>,
        host: &str,
        answer: &[u8],
    ) -> (Result<(), ProxyError>, String) {
        let (mut near, mut far) = duplex(64 * 1024);
        far.write_all(answer).await.unwrap();
        let result = ask(&mut near, login, host, 443).await;
        drop(near);
        let mut request = String::new();
        far.read_to_string(&mut request).await.unwrap();
        (result, request)
    }
}
