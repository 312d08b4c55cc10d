#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use clap::Parser;

use super::*;

#[test]
fn filters_encode_as_rfc_4511_says() {
    for (text, hex) in [
        ("(cn=a)", "a3 07 04 02 63 6e 04 01 61"),
        ("(cn=*)", "87 02 63 6e"),
        ("(!(cn=*))", "a2 04 87 02 63 6e"),
        ("(&(cn=*)(o=*))", "a0 07 87 02 63 6e 87 01 6f"),
        ("(|)", "a1 00"),
        ("(n>=5)", "a5 06 04 01 6e 04 01 35"),
        ("(n<=5)", "a6 06 04 01 6e 04 01 35"),
        ("(n~=5)", "a8 06 04 01 6e 04 01 35"),
        (
            "(cn=a*b*c)",
            "a4 0f 04 02 63 6e 30 09 80 01 61 81 01 62 82 01 63",
        ),
        ("(cn=\\2a\\28)", "a3 08 04 02 63 6e 04 02 2a 28"),
    ] {
        assert_eq!(to_hex(&filter::encode(text).unwrap()), hex, "{text}");
    }
}

#[test]
fn filters_that_make_no_sense_are_refused() {
    for text in [
        "",
        "cn=a",
        "(cn=a",
        "(cn)",
        "(cn=a))",
        "(=a)",
        "(cn=\\2)",
        "(cn=\\zz)",
        "(cn:=a)",
    ] {
        assert!(filter::encode(text).is_err(), "{text}");
    }
    let deep = "(!".repeat(40) + "(cn=*)" + &")".repeat(40);
    assert!(filter::encode(&deep).is_err());
}

#[test]
fn numbers_and_lengths_take_their_shortest_form() {
    for (value, hex) in [
        (0, "02 01 00"),
        (127, "02 01 7f"),
        (128, "02 02 00 80"),
        (65_536, "02 03 01 00 00"),
        (u32::MAX, "02 05 00 ff ff ff ff"),
    ] {
        assert_eq!(to_hex(&ber::integer(value)), hex);
    }
    let long = ber::tlv(4, &[0; 300]);
    assert_eq!(&long[..4], &[4, 0x82, 1, 44]);
    assert_eq!(ber::read(&long).unwrap().unwrap().content.len(), 300);
}

#[test]
fn a_value_cut_short_is_waited_for() {
    let whole = ber::tlv(4, &[9; 300]);
    for length in 0..whole.len() {
        assert_eq!(ber::read(&whole[..length]).unwrap(), None, "{length} bytes");
    }
    assert!(ber::read(&[4, 0x85, 1, 1, 1, 1, 1]).is_err());
}

#[test]
fn a_run_counts_searches_and_reports_the_shape_that_tools_read() {
    let address = start_server(0);
    let result = run(&options(address, &["--filter", "(uid=u1)"])).unwrap();
    assert!(result.report.requests_total >= 8);
    assert_eq!(result.report.errors_total, 0);
    assert_eq!(result.report.latency_ms.count, result.report.requests_total);

    let json = serde_json::to_value(&result.report).unwrap();
    // Whether an object keeps its order depends on who else uses the library.
    let keys: BTreeSet<&String> = json.as_object().unwrap().keys().collect();
    assert!(
        keys.into_iter().eq([
            "errors_total",
            "latency_ms",
            "requests_total",
            "run_id",
            "start_iso",
            "target",
            "workload",
        ]),
        "{json}"
    );
    let latencies: BTreeSet<&String> = json["latency_ms"].as_object().unwrap().keys().collect();
    assert!(
        latencies
            .into_iter()
            .eq(["avg_ms", "count", "max_ms", "p50_ms", "p90_ms", "p99_ms"]),
        "{json}"
    );
    check_gate(&result.report).unwrap();
}

#[test]
fn a_refused_search_is_an_error_and_fails_the_gate() {
    let address = start_server(50);
    let report = run(&options(address, &[])).unwrap().report;
    assert_eq!(report.errors_total, report.requests_total);
    assert!(check_gate(&report).is_err());
}

#[test]
fn all_pages_follow_the_cookie() {
    let options = options(start_server(0), &["--all-pages", "--page-size", "2"]);
    let search = Search::from_options(&options).unwrap();
    let mut client = client::Connector::from_options(&options)
        .unwrap()
        .connect()
        .unwrap();
    assert_eq!(client.search(&search).unwrap(), 3 * 2);
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    options: LdapOptions,
}

fn options(address: SocketAddr, more: &[&str]) -> LdapOptions {
    let port = address.port().to_string();
    let mut line = vec![
        "ldap",
        "--port",
        &port,
        "--duration",
        "0.4",
        "--concurrency",
        "2",
    ];
    line.extend(["--rps-per-worker", "10"]);
    line.extend(more);
    Command::try_parse_from(line).unwrap().options
}

/// Answers binds with success and each search with two entries and this code; the cookie
/// counts three pages.
fn start_server(code: u32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut chunk = [0u8; 4096];
                let mut page = 0;
                loop {
                    let length = stream.read(&mut chunk).unwrap_or(0);
                    if length == 0 {
                        return;
                    }
                    bytes.extend_from_slice(&chunk[..length]);
                    while let Some(message) = ber::read(&bytes).unwrap() {
                        let used = bytes.len() - message.rest.len();
                        let answer = answer(message.content, code, &mut page);
                        stream.write_all(&answer).unwrap();
                        bytes.drain(..used);
                    }
                }
            });
        }
    });
    address
}

fn answer(message: &[u8], code: u32, page: &mut u32) -> Vec<u8> {
    let id = ber::expect(message, ber::INTEGER).unwrap();
    let id_bytes = ber::tlv(ber::INTEGER, id.content);
    let result = |tag, code| {
        let parts = [
            ber::number(ber::ENUMERATED, code),
            ber::octets(b""),
            ber::octets(b""),
        ];
        ber::constructed(tag, &parts)
    };
    let wrap = |parts: &[Vec<u8>]| ber::constructed(ber::SEQUENCE, parts);
    if id.rest[0] == 0x60 {
        return wrap(&[id_bytes, result(0x61, 0)]);
    }
    *page += 1;
    let cookie: &[u8] = if page.is_multiple_of(3) { b"" } else { b"next" };
    let value = wrap(&[ber::integer(0), ber::octets(cookie)]);
    let control = wrap(&[ber::octets(b"1.2.840.113556.1.4.319"), ber::octets(&value)]);
    let entry = ber::constructed(0x64, &[ber::octets(b"cn=a"), wrap(&[])]);
    [
        wrap(&[id_bytes.clone(), entry.clone()]),
        wrap(&[id_bytes.clone(), entry]),
        wrap(&[id_bytes, result(0x65, code), ber::tlv(0xa0, &control)]),
    ]
    .concat()
}

fn to_hex(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.join(" ")
}
