#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;
use crate::config::{HandshakeConfig, RateLimit};

#[test]
fn handshakes_are_bounded_in_number_per_source_and_rate() {
    let bounds = Admissions::new(&config(3, 2, 100));
    let one = bounds.admit(ip("10.0.0.1"), NOW).unwrap();
    let _two = bounds.admit(ip("10.0.0.1"), NOW).unwrap();
    assert_eq!(
        bounds.admit(ip("10.0.0.1"), NOW).unwrap_err(),
        Crowded::FromSource
    );
    let _three = bounds.admit(ip("10.0.0.2"), NOW).unwrap();
    assert_eq!(
        bounds.admit(ip("10.0.0.3"), NOW).unwrap_err(),
        Crowded::AtOnce
    );
    drop(one);
    assert!(bounds.admit(ip("10.0.0.1"), NOW).is_ok());

    let slow = Admissions::new(&config(100, 100, 1));
    drop(slow.admit(ip("10.0.0.1"), NOW).unwrap());
    assert_eq!(slow.admit(ip("10.0.0.1"), NOW).unwrap_err(), Crowded::Rate);
}

#[test]
fn an_accepted_hello_gives_its_place_back() {
    let bounds = Admissions::new(&config(1, 1, 100));
    let mut admission = bounds.admit(ip("10.0.0.1"), NOW).unwrap();
    assert!(bounds.admit(ip("10.0.0.2"), NOW).is_err());
    admission.done();
    assert!(bounds.admit(ip("10.0.0.1"), NOW).is_ok());
}

#[test]
fn a_forwarded_address_counts_only_from_a_trusted_ingress() {
    let bounds = Admissions::new(&config(10, 10, 100));
    let ingress = bounds.admit(ip("192.0.2.1"), NOW).unwrap().source();
    let address = |list| ingress.agent_address(ip("192.0.2.1"), Some(list));
    assert_eq!(address("198.51.100.7"), ip("198.51.100.7"));
    assert_eq!(
        address("6.6.6.6, 198.51.100.7, 192.0.2.9"),
        ip("198.51.100.7")
    );
    assert_eq!(address("nonsense"), ip("192.0.2.1"));
    assert_eq!(
        ingress.agent_address(ip("192.0.2.1"), None),
        ip("192.0.2.1")
    );

    let stranger = bounds.admit(ip("203.0.113.5"), NOW).unwrap().source();
    assert_eq!(
        stranger.agent_address(ip("203.0.113.5"), Some("198.51.100.7")),
        ip("203.0.113.5")
    );
}

#[test]
fn sources_behind_a_trusted_ingress_are_bounded_one_by_one() {
    let bounds = Admissions::new(&config(10, 1, 100));
    let ingress = || bounds.admit(ip("192.0.2.1"), NOW).unwrap().source();
    let (first, second, other) = (ingress(), ingress(), ingress());
    assert_eq!(first.admit(ip("198.51.100.7"), NOW), Ok(()));
    assert_eq!(
        second.admit(ip("198.51.100.7"), NOW),
        Err(Crowded::FromSource)
    );
    assert_eq!(other.admit(ip("198.51.100.8"), NOW), Ok(()));
    first.done();
    assert_eq!(second.admit(ip("198.51.100.7"), NOW), Ok(()));
}

const NOW: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config(max_concurrent: u32, max_per_source: u32, per_second: u32) -> TunnelConfig {
    TunnelConfig {
        host: ip("127.0.0.1"),
        port: 0,
        tls: None,
        max_ws_payload: 8192,
        max_ws_message: 262_144,
        ping_interval: NOW,
        ping_timeout: NOW,
        handshake: HandshakeConfig {
            max_concurrent,
            timeout: NOW,
            max_per_source,
            rate_per_source: RateLimit {
                per_second,
                burst: per_second,
            },
            retry_after: NOW,
            max_header_bytes: 16_384,
        },
        hello_timeout: NOW,
        resume_grace: NOW,
        drain_timeout: NOW,
        trusted_ingress: vec!["192.0.2.0/24".parse().unwrap()],
        workers: 1,
    }
}
