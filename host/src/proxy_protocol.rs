//! The PROXY protocol on the way in: who a client is when a load balancer stands in front.
//!
//! [`read_header`] is called right after accept, before anything is decided about the client. It
//! takes no byte beyond the header out of the socket, so that the service's bytes stay there.
//! The format is the one that HAProxy published as versions 1 (text) and 2 (binary).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;

use crate::config::{ProxyProtocolAccept, ProxyProtocolIn};

/// What a header said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client's address; `None` for `LOCAL` and `UNKNOWN` (health checks of the proxy), and
    /// where no header was due: then the socket's own peer counts.
    pub source: Option<SocketAddr>,
    /// The address that the client dialled.
    pub destination: Option<SocketAddr>,
}

/// Why a client is closed.
#[derive(Debug, thiserror::Error)]
pub enum ProxyProtocolError {
    /// A trusted peer sent no whole header in time.
    #[error("no PROXY protocol header within {timeout_ms} ms")]
    Timeout {
        /// The bound, in milliseconds.
        timeout_ms: u128,
    },
    /// What a trusted peer sent is not a header, or one of a version that is not accepted.
    #[error("no usable PROXY protocol header: {0}")]
    Malformed(&'static str),
    /// Someone else sent a header.
    #[error(
        "`{peer}` sent a PROXY protocol header, but is not in the listener's \
         `proxy_protocol.trusted`"
    )]
    NotTrusted {
        /// The socket's peer.
        peer: IpAddr,
    },
    /// The connection broke.
    #[error("the connection broke before the PROXY protocol header: {0}")]
    Io(#[from] io::Error),
}

/// The longest header of version 1, in bytes, with its line end (from the specification).
const V1_MAX_BYTES: usize = 107;

/// The most bytes of addresses and extensions of version 2. The format allows 65535; real
/// headers, with every extension, stay below one kilobyte.
const V2_MAX_BODY_BYTES: usize = 4096;

/// The first bytes of version 2.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The first bytes of version 1.
const V1_SIGNATURE: &[u8] = b"PROXY ";

/// How long a client that needs no header is watched for one. Where the service speaks first the
/// client says nothing, so it must be short; a client that speaks first has spoken by then.
const WATCH: Duration = Duration::from_millis(100);

/// Finds the client's address of a fresh connection whose socket peer is `peer`.
///
/// With `accept: off` nothing is read. From a trusted peer a header is required within
/// `header_timeout_ms`. From any other peer the connection passes as it is, unless it begins like
/// a header: then it is closed, because it would be believed further on.
///
/// # Errors
/// The connection has to be closed.
pub async fn read_header(
    stream: &mut TcpStream,
    peer: SocketAddr,
    config: &ProxyProtocolIn,
) -> Result<ProxyHeader, ProxyProtocolError> {
    if config.accept == ProxyProtocolAccept::Off {
        return Ok(ProxyHeader::default());
    }
    if !is_trusted(peer.ip(), &config.trusted) {
        return refuse_header(stream, peer.ip()).await;
    }
    match tokio::time::timeout(config.header_timeout, parse(stream, config.accept)).await {
        Ok(done) => done,
        Err(_) => Err(ProxyProtocolError::Timeout {
            timeout_ms: config.header_timeout.as_millis(),
        }),
    }
}

fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

async fn refuse_header(
    stream: &TcpStream,
    peer: IpAddr,
) -> Result<ProxyHeader, ProxyProtocolError> {
    let watch = async {
        let mut first = [0_u8; V2_SIGNATURE.len()];
        loop {
            let length = stream.peek(&mut first).await?;
            match begins_like_header(&first[..length]) {
                Some(true) => return Err(ProxyProtocolError::NotTrusted { peer }),
                Some(false) => return Ok(()),
                // Peeking again at once would spin until more comes.
                None if length > 0 => tokio::time::sleep(Duration::from_millis(5)).await,
                None => return Ok(()),
            }
        }
    };
    match tokio::time::timeout(WATCH, watch).await {
        Ok(done) => done.map(|()| ProxyHeader::default()),
        // Nothing, or too little to tell: nobody here believes it.
        Err(_) => Ok(ProxyHeader::default()),
    }
}

/// `None` while there is too little to tell.
fn begins_like_header(first: &[u8]) -> Option<bool> {
    for signature in [V1_SIGNATURE, &V2_SIGNATURE] {
        if first.len() >= signature.len() {
            if first.starts_with(signature) {
                return Some(true);
            }
        } else if signature.starts_with(first) {
            return None;
        }
    }
    Some(false)
}

/// Reads one header and nothing beyond it.
async fn parse<R: AsyncRead + Unpin>(
    stream: &mut R,
    accept: ProxyProtocolAccept,
) -> Result<ProxyHeader, ProxyProtocolError> {
    // No header of either version is shorter than this.
    let mut start = [0_u8; V2_SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    let (v1, v2) = match accept {
        ProxyProtocolAccept::Off => (false, false),
        ProxyProtocolAccept::V1 => (true, false),
        ProxyProtocolAccept::V2 => (false, true),
        ProxyProtocolAccept::Any => (true, true),
    };
    if start == V2_SIGNATURE {
        if v2 {
            return parse_v2(stream).await;
        }
        return Err(ProxyProtocolError::Malformed("version 2 is not accepted"));
    }
    if start.starts_with(V1_SIGNATURE) {
        if v1 {
            return parse_v1(stream, &start).await;
        }
        return Err(ProxyProtocolError::Malformed("version 1 is not accepted"));
    }
    Err(ProxyProtocolError::Malformed("it begins otherwise"))
}

async fn parse_v1<R: AsyncRead + Unpin>(
    stream: &mut R,
    start: &[u8],
) -> Result<ProxyHeader, ProxyProtocolError> {
    let mut line = [0_u8; V1_MAX_BYTES];
    line[..start.len()].copy_from_slice(start);
    let mut length = start.len();
    // Byte by byte: the line's length is not known, and what follows it is not ours.
    while !line[..length].ends_with(b"\r\n") {
        if length == V1_MAX_BYTES {
            return Err(ProxyProtocolError::Malformed("its line is too long"));
        }
        line[length] = stream.read_u8().await?;
        length += 1;
    }
    let text = std::str::from_utf8(&line[..length - 2])
        .map_err(|_| ProxyProtocolError::Malformed("its line is not text"))?;
    v1_line(text).ok_or(ProxyProtocolError::Malformed("its line cannot be read"))
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443` without its line end.
fn v1_line(text: &str) -> Option<ProxyHeader> {
    let mut words = text.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let is_v4 = match words.next()? {
        "UNKNOWN" => return Some(ProxyHeader::default()),
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        if is_v4 {
            word.parse::<Ipv4Addr>().ok().map(IpAddr::from)
        } else {
            word.parse::<Ipv6Addr>().ok().map(IpAddr::from)
        }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        // `+80` and `080` would parse as well, and are no ports.
        let plain = word == "0" || !word.starts_with(['0', '+']);
        word.parse().ok().filter(|_| plain)
    };
    let (source_port, destination_port) = (port()?, port()?);
    words.next().is_none().then_some(ProxyHeader {
        source: Some(SocketAddr::new(source, source_port)),
        destination: Some(SocketAddr::new(destination, destination_port)),
    })
}

async fn parse_v2<R: AsyncRead + Unpin>(stream: &mut R) -> Result<ProxyHeader, ProxyProtocolError> {
    let mut fixed = [0_u8; 4];
    stream.read_exact(&mut fixed).await?;
    let [version_command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 {
        return Err(ProxyProtocolError::Malformed("its version is not 2"));
    }
    if length > V2_MAX_BODY_BYTES {
        return Err(ProxyProtocolError::Malformed("its body is too long"));
    }
    let mut body = vec![0_u8; length];
    stream.read_exact(&mut body).await?;
    match version_command & 0x0f {
        // LOCAL: the proxy itself speaks.
        0 => Ok(ProxyHeader::default()),
        1 => v2_addresses(family, &body).ok_or(ProxyProtocolError::Malformed(
            "its addresses cannot be read",
        )),
        _ => Err(ProxyProtocolError::Malformed("its command is unknown")),
    }
}

/// The addresses at the start of the body; extensions behind them are passed over.
fn v2_addresses(family: u8, body: &[u8]) -> Option<ProxyHeader> {
    let port = |bytes: &[u8]| Some(u16::from_be_bytes(bytes.try_into().ok()?));
    match family {
        // TCP or UDP over IPv4.
        0x11 | 0x12 => {
            let body = body.get(..12)?;
            let address = |bytes: &[u8]| Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?));
            Some(ProxyHeader {
                source: Some(SocketAddr::new(address(&body[..4])?, port(&body[8..10])?)),
                destination: Some(SocketAddr::new(address(&body[4..8])?, port(&body[10..12])?)),
            })
        }
        // TCP or UDP over IPv6.
        0x21 | 0x22 => {
            let body = body.get(..36)?;
            let address = |bytes: &[u8]| Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?));
            Some(ProxyHeader {
                source: Some(SocketAddr::new(address(&body[..16])?, port(&body[32..34])?)),
                destination: Some(SocketAddr::new(
                    address(&body[16..32])?,
                    port(&body[34..36])?,
                )),
            })
        }
        // Unspecified, and Unix sockets: no address that means anything here.
        0x00 | 0x31 | 0x32 => Some(ProxyHeader::default()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
