#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn both_versions_are_read_and_nothing_beyond() {
    for (header, source, destination) in [
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n".to_vec(),
            Some("192.0.2.1:56324"),
            Some("198.51.100.7:443"),
        ),
        (
            b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n".to_vec(),
            Some("[2001:db8::1]:1"),
            Some("[::1]:65535"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None, None),
        (
            b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n".to_vec(),
            None,
            None,
        ),
        (
            v2(
                0x21,
                0x11,
                &[192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb],
            ),
            Some("192.0.2.1:56324"),
            Some("198.51.100.7:443"),
        ),
        // With an extension behind the addresses.
        (
            v2(
                0x21,
                0x11,
                &[192, 0, 2, 1, 198, 51, 100, 7, 0, 1, 0, 2, 0x04, 0, 1, 0],
            ),
            Some("192.0.2.1:1"),
            Some("198.51.100.7:2"),
        ),
        (
            v2(
                0x21,
                0x21,
                &[&[0x20; 16][..], &[0x30; 16][..], &[0, 5, 0, 6]].concat(),
            ),
            Some("[2020:2020:2020:2020:2020:2020:2020:2020]:5"),
            Some("[3030:3030:3030:3030:3030:3030:3030:3030]:6"),
        ),
        (v2(0x20, 0x00, &[]), None, None),
        (v2(0x21, 0x00, &[1, 2, 3]), None, None),
    ] {
        let mut stream = [header.as_slice(), b"SSH-2.0"].concat();
        let mut reader = stream.as_slice();
        let found = parse(&mut reader, ProxyProtocolAccept::Any).await.unwrap();
        assert_eq!(found.source, source.map(|text| text.parse().unwrap()));
        assert_eq!(
            found.destination,
            destination.map(|text| text.parse().unwrap())
        );
        assert_eq!(reader, b"SSH-2.0", "what follows is not ours");
        stream.clear();
    }
}

#[tokio::test]
async fn bad_headers_are_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
    for header in [
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1  198.51.100.7 56324 443\r\n".to_vec(),
        b"PROXY TCP4 ::1 ::1 56324 443\r\n".to_vec(),
        b"PROXY TCP6 192.0.2.1 198.51.100.7 1 2\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 198.51.100.7 056324 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 198.51.100.7 +5 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 198.51.100.7 70000 443\r\n".to_vec(),
        b"PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n".to_vec(),
        b"PROXY TCP4 \xff\xff\xff\xff\xff\xff\r\n".to_vec(),
        long.into_bytes(),
        b"PROXY TCP4 192.0".to_vec(),
        v2(0x11, 0x11, &[0; 12]),
        v2(0x22, 0x11, &[0; 12]),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x21, &[0; 35]),
        v2(0x21, 0x55, &[0; 12]),
        v2(0x21, 0x11, &[0; 5000]),
        v2(0x21, 0x11, &[0; 12])[..20].to_vec(),
    ] {
        let found = parse(&mut header.as_slice(), ProxyProtocolAccept::Any).await;
        assert!(found.is_err(), "{:?}", String::from_utf8_lossy(&header));
    }
}

#[tokio::test]
async fn only_accepted_versions_are_read() {
    let v1_header: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n";
    let v2_header = v2(0x20, 0x00, &[]);
    for (accept, v1_ok, v2_ok) in [
        (ProxyProtocolAccept::V1, true, false),
        (ProxyProtocolAccept::V2, false, true),
        (ProxyProtocolAccept::Any, true, true),
    ] {
        assert_eq!(parse(&mut &*v1_header, accept).await.is_ok(), v1_ok);
        assert_eq!(
            parse(&mut v2_header.as_slice(), accept).await.is_ok(),
            v2_ok
        );
    }
}

#[tokio::test]
async fn a_trusted_peer_has_to_send_one_in_time() {
    let (mut client, mut server) = pair().await;
    let config = config(ProxyProtocolAccept::Any, "127.0.0.0/8");
    let peer = server.peer_addr().unwrap();
    client
        .write_all(b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\nhello")
        .await
        .unwrap();
    let header = read_header(&mut server, peer, &config).await.unwrap();
    assert_eq!(header.source, Some("192.0.2.1:1".parse().unwrap()));
    let mut rest = [0; 5];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"hello");

    // The addresses of a dual-stack socket are the same peers.
    let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), 1);
    let late = read_header(&mut server, mapped, &config).await;
    assert!(matches!(late, Err(ProxyProtocolError::Timeout { .. })));
}

#[tokio::test]
async fn a_header_from_elsewhere_closes() {
    for header in [
        b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n".to_vec(),
        v2(0x20, 0x00, &[]),
    ] {
        let (mut client, mut server) = pair().await;
        let config = config(ProxyProtocolAccept::Any, "10.0.0.0/8");
        let peer = server.peer_addr().unwrap();
        client.write_all(&header).await.unwrap();
        let refused = read_header(&mut server, peer, &config).await;
        assert!(matches!(
            refused,
            Err(ProxyProtocolError::NotTrusted { .. })
        ));
    }
}

#[tokio::test]
async fn other_clients_pass_as_they_are() {
    let config_elsewhere = config(ProxyProtocolAccept::Any, "10.0.0.0/8");
    for sent in ["", "P", "POST / HTTP/1.1", "\r\n\r\n", "hello"] {
        let (mut client, mut server) = pair().await;
        let peer = server.peer_addr().unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        let header = read_header(&mut server, peer, &config_elsewhere)
            .await
            .unwrap();
        assert_eq!(header, ProxyHeader::default());
        drop(client);
        let mut received = String::new();
        server.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, sent, "nothing was taken out of the socket");
    }
    let (mut client, mut server) = pair().await;
    client.write_all(b"PROXY ").await.unwrap();
    let peer = server.peer_addr().unwrap();
    let off = config(ProxyProtocolAccept::Off, "127.0.0.0/8");
    read_header(&mut server, peer, &off).await.unwrap();
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), which in 0..3) {
        let start: &[u8] = match which {
            0 => b"",
            1 => V1_SIGNATURE,
            _ => &V2_SIGNATURE,
        };
        let stream = [start, &bytes].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _ = runtime.block_on(parse(&mut stream.as_slice(), ProxyProtocolAccept::Any));
    }

    #[test]
    fn addresses_read_as_they_were_written(
        source in any::<[u8; 4]>(), destination in any::<[u8; 4]>(),
        ports in any::<(u16, u16)>(), binary in any::<bool>(),
    ) {
        let expected = ProxyHeader {
            source: Some(SocketAddr::new(IpAddr::from(source), ports.0)),
            destination: Some(SocketAddr::new(IpAddr::from(destination), ports.1)),
        };
        let header = if binary {
            let body = [&source[..], &destination, &ports.0.to_be_bytes(), &ports.1.to_be_bytes()].concat();
            v2(0x21, 0x11, &body)
        } else {
            format!(
                "PROXY TCP4 {} {} {} {}\r\n",
                IpAddr::from(source), IpAddr::from(destination), ports.0, ports.1
            )
            .into_bytes()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(parse(&mut header.as_slice(), ProxyProtocolAccept::Any));
        prop_assert_eq!(found.unwrap(), expected);
    }
}

fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&V2_SIGNATURE[..], &[version_command, family], &length, body].concat()
}

fn config(accept: ProxyProtocolAccept, trusted: &str) -> ProxyProtocolIn {
    ProxyProtocolIn {
        accept,
        trusted: vec![trusted.parse().unwrap()],
        header_timeout: Duration::from_millis(300),
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}
