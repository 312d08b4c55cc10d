//! SOCKS5 (RFC 1928) with user and password (RFC 1929).

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::ProxyError;
use crate::secret::Secret;

const VERSION: u8 = 5;
const METHOD_NONE: u8 = 0;
const METHOD_PASSWORD: u8 = 2;
const PASSWORD_VERSION: u8 = 1;
const COMMAND_CONNECT: u8 = 1;
const ADDRESS_V4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;

/// Asks for a way to `host`: sent as an address where it is one, as a name otherwise.
pub(super) async fn ask<S>(
    stream: &mut S,
    login: Option<&(String, Secret)>,
    host: &str,
    port: u16,
) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    agree_on_method(stream, login).await?;
    let mut request = vec![VERSION, COMMAND_CONNECT, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            request.push(ADDRESS_V4);
            request.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(ADDRESS_V6);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            let length = u8::try_from(host.len())
                .map_err(|_| ProxyError::Malformed("the host's name is longer than 255 bytes"))?;
            request.extend_from_slice(&[ADDRESS_NAME, length]);
            request.extend_from_slice(host.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).await?;
    stream.flush().await?;
    read_reply(stream).await
}

async fn agree_on_method<S>(
    stream: &mut S,
    login: Option<&(String, Secret)>,
) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let offer: &[u8] = match login {
        Some(_) => &[VERSION, 2, METHOD_NONE, METHOD_PASSWORD],
        None => &[VERSION, 1, METHOD_NONE],
    };
    stream.write_all(offer).await?;
    stream.flush().await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    match (chosen, login) {
        ([VERSION, METHOD_NONE], _) => Ok(()),
        ([VERSION, METHOD_PASSWORD], Some((user, password))) => {
            log_in(stream, user, password).await
        }
        ([VERSION, _], None) => Err(ProxyError::LoginNeeded),
        ([VERSION, _], Some(_)) => {
            Err(ProxyError::Refused("no acceptable login method".to_owned()))
        }
        _ => Err(ProxyError::Malformed("it is not SOCKS5")),
    }
}

async fn log_in<S>(stream: &mut S, user: &str, password: &Secret) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = vec![PASSWORD_VERSION];
    for part in [user, password.expose()] {
        let length = u8::try_from(part.len())
            .map_err(|_| ProxyError::Malformed("user or password is longer than 255 bytes"))?;
        request.push(length);
        request.extend_from_slice(part.as_bytes());
    }
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    if answer[1] == 0 {
        Ok(())
    } else {
        Err(ProxyError::LoginRefused)
    }
}

async fn read_reply<S>(stream: &mut S) -> Result<(), ProxyError>
where
    S: AsyncRead + Unpin,
{
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    if head[0] != VERSION {
        return Err(ProxyError::Malformed("it is not SOCKS5"));
    }
    if head[1] != 0 {
        return Err(ProxyError::Refused(reply_text(head[1])));
    }
    let address_bytes = match head[3] {
        ADDRESS_V4 => 4,
        ADDRESS_V6 => 16,
        ADDRESS_NAME => usize::from(stream.read_u8().await?),
        _ => return Err(ProxyError::Malformed("its bound address has no known type")),
    };
    let mut rest = vec![0; address_bytes + 2];
    stream.read_exact(&mut rest).await?;
    Ok(())
}

fn reply_text(code: u8) -> String {
    let text = match code {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "time to live expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => return format!("unknown reply {code}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use tokio::io::duplex;

    use super::*;

    const GRANTED: [u8; 10] = [5, 0, 0, 1, 10, 0, 0, 1, 0, 80];

    #[tokio::test]
    async fn a_name_is_left_to_the_proxy() {
        let answers = [&[5, 0][..], &GRANTED].concat();
        let (result, request) = exchange(None, "hub", &answers).await;
        result.unwrap();
        assert_eq!(
            request,
            [&[5, 1, 0][..], &[5, 1, 0, 3, 3], b"hub", &[1, 187]].concat()
        );
    }

    #[tokio::test]
    async fn user_and_password_are_sent_when_asked_for() {
        let login = ("joe".to_owned(), Secret::new("pw"));
        let answers = [&[5, 2][..], &[1, 0], &GRANTED].concat();
        let (result, request) = exchange(Some(&login), "192.0.2.1", &answers).await;
        result.unwrap();
        assert_eq!(
            request,
            [
                &[5, 2, 0, 2][..],
                b"\x01\x03joe\x02pw",
                &[5, 1, 0, 1, 192, 0, 2, 1, 1, 187],
            ]
            .concat()
        );
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        let login = ("joe".to_owned(), Secret::new("pw"));
        let (result, _) = exchange(Some(&login), "hub", &[5, 2, 1, 1]).await;
        assert!(matches!(result, Err(ProxyError::LoginRefused)));
        let (result, _) = exchange(None, "hub", &[5, 255]).await;
        assert!(matches!(result, Err(ProxyError::LoginNeeded)));
        let (result, _) = exchange(None, "hub", &[5, 0, 5, 4, 0, 1]).await;
        assert_eq!(
            result.unwrap_err().to_string(),
            "proxy answered `host unreachable`"
        );
        let (result, _) = exchange(None, "hub", b"HTTP/1.1 400 Bad Request\r\n").await;
        assert!(matches!(result, Err(ProxyError::Malformed(_))));
    }

    #[tokio::test]
    async fn a_bound_name_is_skipped_exactly() {
        let (mut near, mut far) = duplex(4096);
        far.write_all(&[5, 0, 5, 0, 0, 3, 2, b'a', b'b', 0, 1, b'!'])
            .await
            .unwrap();
        ask(&mut near, None, "hub", 443).await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'!');
    }

    async fn exchange(
        login: Option<&(String, Secret)>,
        host: &str,
        answers: &[u8],
    ) -> (Result<(), ProxyError>, Vec<u8>) {
        let (mut near, mut far) = duplex(4096);
        far.write_all(answers).await.unwrap();
        far.shutdown().await.unwrap();
        let result = ask(&mut near, login, host, 443).await;
        drop(near);
        let mut request = Vec::new();
        far.read_to_end(&mut request).await.unwrap();
        (result, request)
    }
}
