//! Whom to dial: what is configured, and what the registry says where that is allowed.

use std::collections::BTreeMap;

use nowconnect_protocol::ReplicaId;
use nowconnect_registry::{HaMode, Seen};

use crate::address::{AllowRule, PeerUrl};
use crate::identity::replica_uri;
use crate::limits::MAX_PEERS;
use crate::observer::PeerSource;
use crate::settings::MeshSettings;

/// An address to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) source: PeerSource,
    /// Who must be there. The registry proves nothing: a hub that says another name at the
    /// address of this one is no link, and the certificate decides either way.
    pub(crate) expected: Option<ReplicaId>,
}

/// The addresses to dial, at most [`MAX_PEERS`]; the configured ones come first.
pub(crate) fn wanted(
    settings: &MeshSettings,
    seen: &Seen,
    me: &ReplicaId,
) -> BTreeMap<PeerUrl, Wanted> {
    let mut wanted = BTreeMap::new();
    for url in settings.peers.iter().take(MAX_PEERS) {
        let configured = Wanted {
            source: PeerSource::Configured,
            expected: None,
        };
        wanted.insert(url.clone(), configured);
    }
    for hub in &seen.others {
        if wanted.len() >= MAX_PEERS {
            break;
        }
        let takes_part = hub.mode != HaMode::Off && hub.replica != *me;
        let proves = hub.certificate == replica_uri(&hub.replica) || !settings.require_proof;
        let Ok(url) = PeerUrl::parse(&hub.address) else {
            continue;
        };
        let allowed = settings
            .allow
            .iter()
            .any(|rule: &AllowRule| rule.allows(url.host()))
            && (url.tls() || !settings.require_proof);
        if takes_part && proves && allowed {
            wanted.entry(url).or_insert_with(|| Wanted {
                source: PeerSource::Discovered,
                expected: Some(hub.replica.clone()),
            });
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use nowconnect_registry::{HubPresence, Joined};

    use super::*;

    fn name(text: &str) -> ReplicaId {
        ReplicaId::parse(text).unwrap()
    }

    fn hub(replica: &str, address: &str) -> HubPresence {
        HubPresence {
            replica: name(replica),
            boot: 1,
            address: address.to_owned(),
            certificate: replica_uri(&name(replica)),
            version: String::new(),
            mode: HaMode::Active,
            generation: String::new(),
        }
    }

    fn settings(peers: &[&str], allow: &[&str]) -> MeshSettings {
        MeshSettings {
            peers: peers
                .iter()
                .map(|url| PeerUrl::parse(url).unwrap())
                .collect(),
            allow: allow
                .iter()
                .map(|rule| AllowRule::parse(rule).unwrap())
                .collect(),
            ..MeshSettings::default()
        }
    }

    fn dialled(settings: &MeshSettings, others: Vec<HubPresence>) -> Vec<String> {
        let seen = Seen {
            joined: Joined::Yes,
            others,
        };
        let wanted = wanted(settings, &seen, &name("a"));
        wanted
            .keys()
            .map(PeerUrl::host)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn nothing_that_the_registry_says_is_dialled_unless_a_rule_allows_it() {
        let others = || {
            vec![
                hub("b", "wss://b.hubs.test/mesh"),
                hub("c", "wss://169.254.169.254/latest/meta-data"),
                hub("d", "wss://d.evil.test/mesh"),
            ]
        };
        assert!(dialled(&settings(&[], &[]), others()).is_empty());
        let some = settings(&[], &["*.hubs.test"]);
        assert_eq!(dialled(&some, others()), ["b.hubs.test"]);
        let configured = settings(&["wss://x.test"], &["*.hubs.test"]);
        assert_eq!(dialled(&configured, others()), ["b.hubs.test", "x.test"]);
    }

    #[test]
    fn a_hub_that_takes_no_part_or_promises_another_certificate_is_not_dialled() {
        let all = settings(&[], &["*.test"]);
        let mut off = hub("b", "wss://b.test");
        off.mode = HaMode::Off;
        let mut other = hub("c", "wss://c.test");
        other.certificate = replica_uri(&name("b"));
        let plain = hub("d", "ws://d.test");
        let me = hub("a", "wss://a.test");
        let nowhere = hub("e", "");
        assert!(dialled(&all, vec![off, other, plain, me, nowhere]).is_empty());
    }

    #[test]
    fn the_configured_come_first_and_all_are_bounded() {
        let urls: Vec<String> = (0..MAX_PEERS)
            .map(|n| format!("wss://p{n:03}.test"))
            .collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let full = settings(&urls, &["*.test"]);
        let hosts = dialled(&full, vec![hub("b", "wss://aaa.test")]);
        assert_eq!(hosts.len(), MAX_PEERS);
        assert!(!hosts.contains(&"aaa.test".to_owned()));
    }

    #[test]
    fn a_configured_address_may_be_any_hub_and_a_discovered_one_only_the_one_it_says() {
        let both = settings(&["wss://b.test"], &["*.test"]);
        let seen = Seen {
            joined: Joined::Yes,
            others: vec![hub("b", "wss://b.test"), hub("c", "wss://c.test")],
        };
        let wanted = wanted(&both, &seen, &name("a"));
        let expected: Vec<_> = wanted
            .values()
            .map(|wanted| wanted.expected.clone())
            .collect();
        assert_eq!(expected, [None, Some(name("c"))]);
    }
}
