//! Web pages that may call: those of this API, and no others.
//!
//! A page whose host name was led to this machine (DNS rebinding) is of one origin with the port,
//! so a browser lets it send what it likes and read the answer. But it says its name in `Origin`,
//! which an agent or a script never sends.

use std::net::IpAddr;

use http::{HeaderMap, header};

/// Whether the request comes from a web page of another host than an address, this machine or
/// `public`, the host of the API's own URL.
pub(super) fn is_foreign(headers: &HeaderMap, public: Option<&str>) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => false,
        (Some(origin), None) => !origin
            .to_str()
            .ok()
            .and_then(|origin| origin.parse::<http::Uri>().ok())
            .and_then(|origin| origin.host().map(str::to_owned))
            .is_some_and(|host| is_ours(&host, public)),
        (Some(_), Some(_)) => true,
    }
}

fn is_ours(host: &str, public: Option<&str>) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok()
        || public.is_some_and(|public| host.eq_ignore_ascii_case(public))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn a_page_of_another_name_is_foreign_wherever_that_name_leads() {
        let asks = |origin: &str| {
            let headers: HeaderMap = [(header::ORIGIN, origin.parse().unwrap())]
                .into_iter()
                .collect();
            is_foreign(&headers, Some("control.example.com"))
        };
        for ours in [
            "http://127.0.0.1:8766",
            "http://[::1]:8766",
            "http://localhost:8766",
            "https://Control.example.com",
            "https://control.example.com:8766",
        ] {
            assert!(!asks(ours), "{ours}");
        }
        for foreign in [
            "http://evil.example:8766",
            "http://localhost.evil.example",
            "https://example.com",
            "null",
            "",
        ] {
            assert!(asks(foreign), "{foreign}");
        }
        assert!(!is_foreign(&HeaderMap::new(), None), "no browser asks");
        let mut both = HeaderMap::new();
        for _ in 0..2 {
            both.append(header::ORIGIN, "http://localhost".parse().unwrap());
        }
        assert!(is_foreign(&both, None));
    }
}
