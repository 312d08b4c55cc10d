//! `NO_PROXY`: the hosts that are reached without a proxy.

use std::net::IpAddr;

use ipnet::IpNet;

/// A parsed `NO_PROXY` list.
///
/// Entries are separated by commas or spaces: `*` for every host, an IP address, a network such as
/// `10.0.0.0/8`, or a domain that covers itself and all names under it, with or without a leading
/// dot. An entry may end in `:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    Network(IpNet),
    Domain(String),
}

impl NoProxy {
    /// Parses a list; any text is a list.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let entries = text
            .split(|char: char| char == ',' || char.is_whitespace())
            .filter(|entry| !entry.is_empty())
            .map(parse_entry)
            .collect();
        Self { entries }
    }

    /// Whether `host:port` is reached without a proxy.
    #[must_use]
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host
            .parse::<IpAddr>()
            .ok()
            .map(|address| address.to_canonical());
        self.entries
            .iter()
            .filter(|entry| entry.port.is_none_or(|only| only == port))
            .any(|entry| match &entry.hosts {
                Hosts::All => true,
                Hosts::Network(network) => {
                    address.is_some_and(|address| network.contains(&address))
                }
                Hosts::Domain(domain) => {
                    host == *domain
                        || host
                            .strip_suffix(domain.as_str())
                            .is_some_and(|rest| rest.ends_with('.'))
                }
            })
    }
}

fn parse_entry(text: &str) -> Entry {
    if let Some(hosts) = parse_network(text) {
        return Entry { hosts, port: None };
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (text, None),
        },
        None => (text, None),
    };
    let hosts = if name == "*" {
        Hosts::All
    } else {
        parse_network(name).unwrap_or_else(|| {
            let name = name.strip_prefix('*').unwrap_or(name);
            Hosts::Domain(name.trim_matches('.').to_ascii_lowercase())
        })
    };
    Entry { hosts, port }
}

fn parse_network(text: &str) -> Option<Hosts> {
    let text = text.trim_matches(['[', ']']);
    let network = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(Hosts::Network(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_cover_themselves_and_what_is_under_them() {
        for list in [
            "example.com",
            ".example.com",
            "*.example.com",
            "EXAMPLE.com",
        ] {
            let list = NoProxy::parse(list);
            assert!(list.covers("example.com", 443));
            assert!(list.covers("hub.Example.com.", 443));
            assert!(!list.covers("badexample.com", 443));
            assert!(!list.covers("example.com.evil.org", 443));
        }
    }

    #[test]
    fn addresses_and_networks() {
        let list = NoProxy::parse("10.0.0.0/8, 192.0.2.7 ,2001:db8::/32,[::1]");
        assert!(list.covers("10.1.2.3", 1));
        assert!(list.covers("192.0.2.7", 1));
        assert!(list.covers("2001:db8::9", 1));
        assert!(list.covers("::1", 1));
        assert!(!list.covers("192.0.2.8", 1));
        assert!(!list.covers("10.example.com", 1));
    }

    #[test]
    fn a_port_narrows_an_entry() {
        let list = NoProxy::parse("hub.example.com:8765 192.0.2.7:1");
        assert!(list.covers("hub.example.com", 8765));
        assert!(!list.covers("hub.example.com", 443));
        assert!(list.covers("192.0.2.7", 1));
        assert!(!list.covers("192.0.2.7", 2));
    }

    #[test]
    fn a_star_covers_all_and_an_empty_list_nothing() {
        assert!(NoProxy::parse("*").covers("anything", 1));
        assert!(!NoProxy::parse(" , ").covers("anything", 1));
    }
}
