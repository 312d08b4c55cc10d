//! Names where a client's address belongs: signals such as `geo-signal/DE`, from a table that is
//! part of the plugin. `data/prefixes.csv` says what the table has; see `build.rs`.

#![allow(missing_docs, reason = "a plugin's interface is the contract")]

pub mod table;

use nowconnect_plugin::prelude::*;

mod built {
    include!(concat!(env!("OUT_DIR"), "/table.rs"));
}

pub struct GeoSignal {
    settings: Settings,
}

/// The plugin's settings.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, crate = "nowconnect_plugin::serde")]
pub struct Settings {
    /// Signal for an address that the table does not have.
    pub unknown: Option<String>,
}

impl Plugin for GeoSignal {
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, Error> {
        match &settings.unknown {
            Some(signal) if !table::is_signal(signal) => Err(bad_config(format!(
                "`unknown` is `{signal}`; a signal has 1 to 64 letters, digits, `.`, `_` and `-`"
            ))),
            Some(_) | None => Ok(Self { settings }),
        }
    }
}

impl EnrichHook for GeoSignal {
    fn signals(&self, _: &Call, ask: Ask) -> Result<Findings, Error> {
        let signals = table::look_up(&ask.peer.ip, built::V4, built::V6, built::SIGNALS);
        if signals.is_empty() {
            return Ok(found(self.settings.unknown.iter().cloned().collect()));
        }
        Ok(found(signals.split(' ').map(str::to_owned).collect()))
    }
}

nowconnect_plugin::export!(GeoSignal: enrich);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::built;
    use super::table::{Table, look_up};

    fn shipped(ip: &str) -> &'static str {
        look_up(ip, built::V4, built::V6, built::SIGNALS)
    }

    #[test]
    fn the_most_specific_prefix_counts() {
        for (ip, signals) in [
            ("198.51.100.1", "US"),
            ("198.51.100.127", "US"),
            ("198.51.100.128", "US datacenter"),
            ("198.51.100.255", "US datacenter"),
            ("198.51.101.0", ""),
            ("198.51.99.255", ""),
            ("10.19.255.255", "private"),
            ("10.20.0.0", "private branch-office"),
            ("10.21.0.0", "private"),
            ("2001:db8::1", "DE EU"),
            ("2001:db8:f000::1", "US"),
            ("2001:db8:f000:1::1", "US datacenter"),
            ("2001:db8:f000:2::1", "US"),
            ("2001:db9::1", ""),
        ] {
            assert_eq!(shipped(ip), signals, "{ip}");
        }
    }

    #[test]
    fn what_is_no_address_has_no_signals() {
        for ip in ["", "localhost", "192.0.2", "192.0.2.1:80", "\u{202e}"] {
            assert_eq!(shipped(ip), "", "{ip:?}");
        }
    }

    #[test]
    fn ranges_agree_with_a_search_of_all_prefixes() {
        let prefixes = [
            ("0.0.0.0/0", 0, 0_u32),
            ("128.0.0.0/1", 1, 128 << 24),
            ("10.0.0.0/8", 8, 10 << 24),
            ("10.0.0.0/24", 24, 10 << 24),
            ("10.0.0.255/32", 32, (10 << 24) + 255),
            ("10.0.1.0/24", 24, (10 << 24) + 256),
            ("255.255.255.255/32", 32, u32::MAX),
        ];
        let csv: String = prefixes
            .iter()
            .enumerate()
            .map(|(n, (prefix, ..))| format!("{prefix},s{n}\n"))
            .collect();
        let table = Table::parse(&csv).unwrap();
        let signals: Vec<&str> = table.signals.iter().map(String::as_str).collect();
        let edges = prefixes.iter().flat_map(|(_, length, first)| {
            let last = first | u32::MAX.checked_shr(*length).unwrap_or(0);
            [first.wrapping_sub(1), *first, last, last.wrapping_add(1)]
        });
        for address in edges {
            let best = prefixes
                .iter()
                .enumerate()
                .filter(|(_, (_, length, first))| {
                    let host = u32::MAX.checked_shr(*length).unwrap_or(0);
                    address & !host == *first
                })
                .max_by_key(|(_, (_, length, _))| *length)
                .map(|(n, _)| format!("s{n}"))
                .unwrap();
            let ip = std::net::Ipv4Addr::from(address).to_string();
            assert_eq!(look_up(&ip, &table.v4, &table.v6, &signals), best, "{ip}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for (csv, text) in [
            ("192.0.2.0/24", "line 1"),
            ("# x\n192.0.2.0/33,DE", "/32"),
            ("2001:db8::/65,DE", "/64"),
            ("192.0.2.0,DE", "not a prefix"),
            ("192.0.2.0/24,", "no signal"),
            ("192.0.2.0/24,a/b", "`a/b`"),
        ] {
            let error = Table::parse(csv).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
