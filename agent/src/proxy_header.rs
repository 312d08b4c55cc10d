//! The PROXY protocol header that tells a target who the client was.
//!
//! Version 1 is one line of text, version 2 is binary: the encoder's side of
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, without TLVs. The address is the
//! one that OPEN carried; where policy withheld it, the header says so (`UNKNOWN`, `LOCAL`) instead
//! of naming the agent.

use std::net::{IpAddr, SocketAddr};

use nowconnect_protocol::ProxyProtocol;

/// Which header a connector's target expects before the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// None.
    #[default]
    Off,
    /// Version 1, text.
    V1,
    /// Version 2, binary.
    V2,
}

impl From<ProxyProtocol> for ProxyHeader {
    fn from(asked: ProxyProtocol) -> Self {
        match asked {
            ProxyProtocol::V1 => Self::V1,
            ProxyProtocol::V2 => Self::V2,
        }
    }
}

/// The twelve bytes that start every version 2 header.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// The header's bytes, or nothing where it is off. `target` is the address that was dialled, absent
/// for a Unix socket.
pub(crate) fn encode(
    header: ProxyHeader,
    client: Option<SocketAddr>,
    target: Option<SocketAddr>,
) -> Vec<u8> {
    let pair = client.map(|client| same_family(client, target));
    match header {
        ProxyHeader::Off => Vec::new(),
        ProxyHeader::V1 => encode_v1(pair),
        ProxyHeader::V2 => encode_v2(pair),
    }
}

/// A client address as OPEN writes it: `ip:port`, `[ip]:port` or a bare address (port 0).
pub(crate) fn parse_client_address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        text.parse::<IpAddr>()
            .ok()
            .map(|address| SocketAddr::new(address, 0))
    })
}

/// Both addresses of the header must be of one family; a mixed pair is told in IPv6.
fn same_family(client: SocketAddr, target: Option<SocketAddr>) -> (SocketAddr, SocketAddr) {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let target = target.map_or_else(
        || {
            let unspecified = match client {
                SocketAddr::V4(_) => IpAddr::from([0_u8; 4]),
                SocketAddr::V6(_) => IpAddr::from([0_u8; 16]),
            };
            SocketAddr::new(unspecified, 0)
        },
        |target| SocketAddr::new(target.ip().to_canonical(), target.port()),
    );
    if client.is_ipv4() == target.is_ipv4() {
        return (client, target);
    }
    (in_v6(client), in_v6(target))
}

fn in_v6(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(IpAddr::V6(ip), address.port())
}

fn encode_v1(pair: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((client, target)) = pair else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    format!(
        "PROXY {family} {} {} {} {}\r\n",
        client.ip(),
        target.ip(),
        client.port(),
        target.port()
    )
    .into_bytes()
}

fn encode_v2(pair: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut bytes = V2_SIGNATURE.to_vec();
    let Some((client, target)) = pair else {
        bytes.extend_from_slice(&[V2_LOCAL, 0, 0, 0]);
        return bytes;
    };
    let (family, length): (u8, u16) = if client.is_ipv4() {
        (V2_TCP4, 12)
    } else {
        (V2_TCP6, 36)
    };
    bytes.extend_from_slice(&[V2_PROXY, family]);
    bytes.extend_from_slice(&length.to_be_bytes());
    for address in [client, target] {
        match address.ip() {
            IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
        }
    }
    bytes.extend_from_slice(&client.port().to_be_bytes());
    bytes.extend_from_slice(&target.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1_names_both_ends() {
        assert_eq!(
            encode(
                ProxyHeader::V1,
                Some(address("192.0.2.1:56324")),
                Some(address("198.51.100.7:389"))
            ),
            b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 389\r\n"
        );
        assert_eq!(
            encode(
                ProxyHeader::V1,
                Some(address("[2001:db8::1]:5")),
                Some(address("[::1]:6"))
            ),
            b"PROXY TCP6 2001:db8::1 ::1 5 6\r\n"
        );
    }

    #[test]
    fn version_2_bytes_are_exact() {
        assert_eq!(
            encode(
                ProxyHeader::V2,
                Some(address("192.0.2.1:258")),
                Some(address("10.0.0.2:772"))
            ),
            [
                b"\r\n\r\n\0\r\nQUIT\n".as_slice(),
                &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 10, 0, 0, 2, 1, 2, 3, 4],
            ]
            .concat()
        );
    }

    /// The examples of the specification: 2.1 and 2.2.
    #[test]
    fn the_examples_of_the_specification_come_out() {
        let client = Some(address("192.168.0.1:56324"));
        let target = Some(address("192.168.0.11:443"));
        assert_eq!(
            encode(ProxyHeader::V1, client, target),
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        );
        let hex: String = encode(ProxyHeader::V2, client, target)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            concat!(
                "0d0a0d0a000d0a515549540a", // signature
                "21",                       // version 2, PROXY
                "11",                       // TCP over IPv4
                "000c",                     // twelve bytes of addresses
                "c0a80001c0a8000b",         // 192.168.0.1, 192.168.0.11
                "dc0401bb",                 // 56324, 443
            )
        );
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let far = Some(address(&format!("[{longest}]:65535")));
        let line = encode(ProxyHeader::V1, far, far);
        assert_eq!(
            String::from_utf8(line.clone()).unwrap(),
            format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n")
        );
        // Receivers read no more than 107 bytes for a line.
        assert!(line.len() <= 107, "{}", line.len());
    }

    #[test]
    fn version_2_v6_has_thirty_six_bytes_of_addresses() {
        let bytes = encode(
            ProxyHeader::V2,
            Some(address("[2001:db8::1]:1")),
            Some(address("[::1]:2")),
        );
        assert_eq!(&bytes[12..16], &[0x21, 0x21, 0, 36]);
        assert_eq!(bytes.len(), 16 + 36);
    }

    #[test]
    fn a_withheld_client_is_not_invented() {
        let target = Some(address("10.0.0.2:772"));
        assert_eq!(encode(ProxyHeader::V1, None, target), b"PROXY UNKNOWN\r\n");
        assert_eq!(
            &encode(ProxyHeader::V2, None, target)[12..],
            &[0x20, 0, 0, 0]
        );
    }

    #[test]
    fn mixed_families_are_told_in_v6() {
        assert_eq!(
            encode(
                ProxyHeader::V1,
                Some(address("192.0.2.1:1")),
                Some(address("[::1]:2"))
            ),
            b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"
        );
    }

    #[test]
    fn a_unix_target_has_no_address() {
        assert_eq!(
            encode(ProxyHeader::V1, Some(address("192.0.2.1:1")), None),
            b"PROXY TCP4 192.0.2.1 0.0.0.0 1 0\r\n"
        );
    }

    #[test]
    fn off_writes_nothing() {
        assert!(encode(ProxyHeader::Off, Some(address("192.0.2.1:1")), None).is_empty());
    }

    #[test]
    fn client_addresses_with_and_without_port() {
        assert_eq!(parse_client_address("[::1]:9"), Some(address("[::1]:9")));
        assert_eq!(
            parse_client_address("192.0.2.1"),
            Some(address("192.0.2.1:0"))
        );
        assert_eq!(parse_client_address("masked"), None);
    }
}
