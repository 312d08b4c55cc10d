//! Forward proxies: which hosts bypass them, and how a tunnel through one is asked for.

mod http_connect;
mod no_proxy;
mod socks5;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

pub use self::no_proxy::NoProxy;
use crate::config::{ProxyKind, ProxyUrl};
use crate::net;

/// Why a proxy did not give a way through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("proxy broke off: {0}")]
    Io(#[from] std::io::Error),
    #[error("proxy did not answer in time")]
    Timeout,
    #[error("proxy wants a login (407); put `user:password@` in front of its host")]
    LoginNeeded,
    #[error("proxy refused the login; check user and password in its address")]
    LoginRefused,
    #[error("proxy answered `{0}`")]
    Refused(String),
    #[error("proxy's answer is not understood: {0}")]
    Malformed(&'static str),
}

/// Asks the proxy at the other end of `stream` for a way to `host:port`.
pub(crate) async fn ask<S>(
    stream: &mut S,
    proxy: &ProxyUrl,
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let login = proxy.login.as_ref();
    let asked = async {
        match proxy.kind {
            ProxyKind::Http | ProxyKind::Https => {
                http_connect::ask(stream, login, host, port).await
            }
            ProxyKind::Socks5h => socks5::ask(stream, login, host, port).await,
            ProxyKind::Socks5 => {
                let resolved = net::resolve(host, port, deadline).await.map_err(|error| {
                    ProxyError::Refused(format!("{error}; `socks5h://` lets the proxy resolve"))
                })?;
                let address = resolved
                    .first()
                    .map_or_else(|| host.to_owned(), |address| address.ip().to_string());
                socks5::ask(stream, login, &address, port).await
            }
        }
    };
    timeout_at(deadline, asked)
        .await
        .unwrap_or(Err(ProxyError::Timeout))
}
