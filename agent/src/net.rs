//! Names to addresses to a connected TCP socket, with happy eyeballs (RFC 8305).
//!
//! Addresses are tried in the resolver's order with the families taking turns, each attempt
//! starting [`ATTEMPT_DELAY`] after the one before or as soon as that one fails; the first to
//! connect wins and the rest are dropped. A single address skips all of that.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

/// RFC 8305, section 5: the recommended delay between two attempts.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// More addresses than this of one name are not tried: the deadline would pass long before.
const ADDRESSES_MAX: usize = 16;
/// A silent peer is probed after this long; 20 s more of silence and the socket is broken.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Why no socket was connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("`{host}` does not resolve: {reason}")]
    Resolve { host: String, reason: String },
    #[error("`{host}` did not resolve in time")]
    ResolveTimeout { host: String },
    #[error("{address}: {error}")]
    Refused {
        address: SocketAddr,
        error: io::Error,
    },
    #[error("no answer from {tried} in time")]
    Timeout { tried: String },
}

impl ConnectError {
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::ResolveTimeout { .. } | Self::Timeout { .. } => true,
            Self::Refused { error, .. } => error.kind() == io::ErrorKind::TimedOut,
            Self::Resolve { .. } => false,
        }
    }
}

/// Resolves `host` and connects to one of its addresses before `deadline`.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<TcpStream, ConnectError> {
    let addresses = resolve(host, port, deadline).await?;
    connect_any(addresses, deadline).await
}

/// The addresses of `host`, at least one and at most [`ADDRESSES_MAX`], in the order to try.
pub(crate) async fn resolve(
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let lookup = timeout_at(deadline, tokio::net::lookup_host((host, port)));
    let found: Vec<SocketAddr> = match lookup.await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            return Err(ConnectError::Resolve {
                host: host.to_owned(),
                reason: error.to_string(),
            });
        }
        Err(_) => {
            return Err(ConnectError::ResolveTimeout {
                host: host.to_owned(),
            });
        }
    };
    if found.is_empty() {
        return Err(ConnectError::Resolve {
            host: host.to_owned(),
            reason: "the name has no address".to_owned(),
        });
    }
    Ok(take_turns(found))
}

/// Lets the families take turns, starting with the family of the resolver's first answer.
fn take_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut preferred, mut other): (VecDeque<_>, VecDeque<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut ordered = Vec::new();
    while ordered.len() < ADDRESSES_MAX {
        let before = ordered.len();
        ordered.extend(preferred.pop_front());
        ordered.extend(other.pop_front());
        if ordered.len() == before {
            break;
        }
    }
    ordered.truncate(ADDRESSES_MAX);
    ordered
}

/// Connects to whichever of `addresses` answers first.
pub(crate) async fn connect_any(
    addresses: Vec<SocketAddr>,
    deadline: Instant,
) -> Result<TcpStream, ConnectError> {
    if let [address] = addresses[..] {
        return match timeout_at(deadline, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => Ok(tuned(stream)),
            Ok(Err(error)) => Err(ConnectError::Refused { address, error }),
            Err(_) => Err(ConnectError::Timeout {
                tried: address.to_string(),
            }),
        };
    }
    let tried = addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    timeout_at(deadline, race(addresses))
        .await
        .unwrap_or(Err(ConnectError::Timeout { tried }))
}

async fn race(addresses: Vec<SocketAddr>) -> Result<TcpStream, ConnectError> {
    let mut waiting = VecDeque::from(addresses);
    let mut attempts = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        if let Some(address) = waiting.pop_front() {
            attempts.push(async move { (address, TcpStream::connect(address).await) });
        }
        let more_to_start = !waiting.is_empty();
        tokio::select! {
            biased;
            finished = attempts.next() => match finished {
                Some((_, Ok(stream))) => return Ok(tuned(stream)),
                Some((address, Err(error))) => {
                    last_error = Some(ConnectError::Refused { address, error });
                }
                None => return Err(last_error.unwrap_or(ConnectError::Timeout {
                    tried: "no address".to_owned(),
                })),
            },
            () = sleep(ATTEMPT_DELAY), if more_to_start => {}
        }
    }
}

/// Small writes leave at once and a dead peer is noticed; both are best effort.
fn tuned(stream: TcpStream) -> TcpStream {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    if let Err(error) = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(&stream).set_tcp_keepalive(&keepalive))
    {
        tracing::debug!(%error, "socket options were not taken");
    }
    stream
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use tokio::net::TcpListener;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let ordered = take_turns(vec![
            address("[::1]:1"),
            address("[::2]:1"),
            address("1.1.1.1:1"),
            address("[::3]:1"),
        ]);
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"];
        assert_eq!(ordered, expected.map(address));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let many = (0..100)
            .map(|index| SocketAddr::from(([10, 0, 0, index], 1)))
            .collect();
        assert_eq!(take_turns(many).len(), ADDRESSES_MAX);
    }

    #[tokio::test]
    async fn a_refusing_address_gives_way_to_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let stream = connect_any(vec![closed_port().await, good], soon())
            .await
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
    }

    #[tokio::test]
    async fn a_silent_address_does_not_hold_up_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        // RFC 5737 documentation range: packets to it go nowhere or are refused at once.
        let silent = address("192.0.2.1:9");
        let stream = connect_any(vec![silent, good], soon()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
    }

    #[tokio::test]
    async fn the_last_refusal_is_told() {
        let (one, two) = (closed_port().await, closed_port().await);
        let error = connect_any(vec![one, two], soon()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
        assert!(!error.is_timeout());
    }

    #[tokio::test]
    async fn an_unknown_name_is_named() {
        let error = connect("no-such-host.invalid", 1, soon())
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("`no-such-host.invalid`"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn sockets_are_tuned() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect("127.0.0.1", listener.local_addr().unwrap().port(), soon())
            .await
            .unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }

    async fn closed_port() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }
}
