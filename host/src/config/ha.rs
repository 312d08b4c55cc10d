//! The cluster.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
pub use nowconnect_registry::HaMode;
use nowconnect_registry::redis::{RedisConfig, RedisTls, Topology};

use super::build::{Surroundings, cidrs, socket_address, url};
use super::file::{HaFile, HaModeFile, MeshFile, RedisFile};
use super::problem::{Problems, hide_user_info};
use super::tree::Path;

/// `ha`: hubs that serve together. Their names are
/// [`CloudConfig::replica_id`](super::CloudConfig::replica_id).
#[derive(Clone, Debug, PartialEq)]
pub struct HaConfig {
    /// Whether this hub joins others.
    pub enabled: bool,
    /// How far, where `enabled`; [`HaConfig::mode`] says what holds.
    pub configured_mode: HaMode,
    /// The registry; `None` keeps it in this hub's memory.
    pub redis: Option<RedisConfig>,
    /// Links to the other hubs.
    pub mesh: MeshConfig,
}

/// `ha.mesh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// Where other hubs dial in.
    pub listen: Option<SocketAddr>,
    /// Where other hubs may dial this one, as it says in the registry.
    pub advertise: Option<String>,
    /// `ws://` or `wss://` addresses of the other hubs.
    pub peers: Vec<String>,
    /// Whether a link without a proven certificate is refused.
    pub require_mtls: bool,
    /// This hub's certificate and the others' root.
    pub tls: Option<MeshTls>,
    /// Frames that may wait on one link.
    pub send_queue_depth: u32,
    /// Bytes on their way on one link.
    pub per_link_max_inflight_bytes: u64,
    /// The longest pause between two dials.
    pub connect_backoff_max: Duration,
    /// Peers whose forwarded headers are believed.
    pub trusted_ingress: Vec<IpNet>,
    /// Hosts that may be dialled when the registry names them; empty dials `peers` alone.
    pub discovery_allow: Vec<DiscoveryRule>,
}

/// `ha.mesh.tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshTls {
    /// Roots for the other hubs.
    pub ca_bundle: PathBuf,
    /// This hub's chain.
    pub cert_file: PathBuf,
    /// This hub's key.
    pub key_file: PathBuf,
}

/// Hosts that may be dialled when the registry names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoveryRule {
    /// One name, in lower case.
    Host(String),
    /// Every name below this one, in lower case and without the dot before it.
    Below(String),
    /// Addresses, written as such: names are not looked up for it.
    Network(IpNet),
}

impl HaConfig {
    /// How far this hub takes part.
    #[must_use]
    pub const fn mode(&self) -> HaMode {
        if self.enabled {
            self.configured_mode
        } else {
            HaMode::Off
        }
    }

    pub(super) fn build(
        file: &HaFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        if file.enabled && file.replica_id.is_none() {
            problems.add_with_help(
                &path.key("enabled"),
                "`ha.enabled: true` needs `ha.replica_id`",
                "give each hub a name of its own there, such as its host name",
            );
        }
        Self {
            enabled: file.enabled,
            configured_mode: match file.mode {
                HaModeFile::Off => HaMode::Off,
                HaModeFile::Shadow => HaMode::Shadow,
                HaModeFile::Active => HaMode::Active,
            },
            redis: redis(file, path, around, problems),
            mesh: MeshConfig::build(file, &path.key("mesh"), around, problems),
        }
    }
}

impl DiscoveryRule {
    /// Whether `host`, as it stands in an address, may be dialled by this rule.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse::<IpAddr>() {
            return matches!(self, Self::Network(network) if network.contains(&address));
        }
        let host = host.to_ascii_lowercase();
        match self {
            Self::Host(name) => *name == host,
            Self::Below(parent) => host
                .strip_suffix(parent.as_str())
                .and_then(|start| start.strip_suffix('.'))
                .is_some_and(|start| !start.is_empty()),
            Self::Network(_) => false,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Ok(network) = text.parse::<IpNet>() {
            return (network.trunc() == network).then_some(Self::Network(network));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Network(address.into()));
        }
        let is_name = |name: &str| {
            let labels = |label: &str| {
                !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            };
            name.len() <= 253 && name.split('.').all(labels)
        };
        let name = text.to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(parent) => is_name(parent).then(|| Self::Below(parent.to_owned())),
            None => is_name(&name).then_some(Self::Host(name)),
        }
    }
}

/// What stands in `redis_url` and `redis`, checked together.
fn redis(
    file: &HaFile,
    path: &Path,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Option<RedisConfig> {
    let at = path.key("redis");
    let Some(address) = &file.redis_url else {
        if file.redis != RedisFile::default() {
            problems.add_with_help(
                &at,
                "`ha.redis` is set without `ha.redis_url`",
                "name the server there, such as `redis://host:6379/0`",
            );
        }
        return None;
    };
    let mut config = match RedisConfig::from_url(address.expose()) {
        Ok(config) => config,
        Err(error) => {
            problems.add(&path.key("redis_url"), format!("`ha.redis_url`: {error}"));
            return None;
        }
    };
    let settings = &file.redis;
    config.prefix.clone_from(&settings.key_prefix);
    config.ownership_lease = Duration::from_secs(settings.claim_lease_sec);
    config.password_file = around.optional_path(settings.password_file.as_ref());
    let tls = RedisTls {
        ca_bundle: around.optional_path(settings.ca_bundle.as_ref()),
        cert_file: around.optional_path(settings.cert_file.as_ref()),
        key_file: around.optional_path(settings.key_file.as_ref()),
    };
    match &mut config.tls {
        Some(of_url) => *of_url = tls,
        None if tls != RedisTls::default() => problems.add_with_help(
            &at,
            "`ha.redis` names certificates, and `ha.redis_url` is without TLS",
            "write the URL with `rediss` in place of `redis`, or remove the certificates",
        ),
        None => {}
    }
    let of_sentinels = (
        &settings.sentinel_username,
        around.optional_path(settings.sentinel_password_file.as_ref()),
    );
    match (&mut config.topology, of_sentinels) {
        (
            Topology::Sentinel {
                username,
                password_file,
                ..
            },
            (name, file),
        ) => {
            username.clone_from(name);
            *password_file = file;
        }
        (Topology::Standalone(_) | Topology::Cluster(_), (None, None)) => {}
        (Topology::Standalone(_) | Topology::Cluster(_), _) => problems.add_with_help(
            &at,
            "`ha.redis` says who this hub is to Sentinels, and `ha.redis_url` names none",
            "write the URL as `redis+sentinel://sentinel,sentinel/master`, or remove both keys",
        ),
    }
    if let Err(error) = config.check() {
        problems.add(&at, format!("`ha.redis`: {error}"));
    }
    Some(config)
}

impl MeshConfig {
    fn build(
        ha: &HaFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let file = &ha.mesh;
        for (index, peer) in file.peers.iter().enumerate() {
            let at = path.key("peers").index(index);
            hub_address(peer, &at, problems);
            if file.peers[..index].contains(peer) {
                let shown = hide_user_info(peer);
                problems.add(&at, format!("the peer `{shown}` is written twice"));
            }
        }
        if let Some(address) = &file.advertise {
            hub_address(address, &path.key("advertise"), problems);
        }
        if ha.enabled && ha.mode != HaModeFile::Off && file.require_mtls {
            check_proof(file, path, problems);
        }
        Self {
            listen: file
                .listen
                .as_ref()
                .and_then(|text| socket_address(text, &path.key("listen"), problems)),
            advertise: file.advertise.clone(),
            peers: file.peers.clone(),
            require_mtls: file.require_mtls,
            tls: file.tls.as_ref().map(|tls| MeshTls {
                ca_bundle: around.path(&tls.ca_bundle),
                cert_file: around.path(&tls.cert_file),
                key_file: around.path(&tls.key_file),
            }),
            send_queue_depth: file.send_queue_depth,
            per_link_max_inflight_bytes: file.per_link_max_inflight_bytes,
            connect_backoff_max: Duration::from_secs(file.connect_backoff_max_sec),
            trusted_ingress: cidrs(
                &file.trusted_ingress,
                &path.key("trusted_ingress"),
                problems,
            ),
            discovery_allow: discovery_allow(
                &file.discovery.allow,
                &path.key("discovery").key("allow"),
                problems,
            ),
        }
    }
}

/// What proving who is at the other end of a link needs, where there are links.
fn check_proof(file: &MeshFile, path: &Path, problems: &mut Problems<'_>) {
    let links = file.listen.is_some() || !file.peers.is_empty() || !file.discovery.allow.is_empty();
    if links && file.tls.is_none() {
        problems.add_with_help(
            &path.key("tls"),
            "`ha.mesh.require_mtls: true` needs `ha.mesh.tls`",
            "set `ca_bundle`, `cert_file` and `key_file` there",
        );
    }
    for (index, peer) in file.peers.iter().enumerate() {
        if peer.starts_with("ws://") {
            let at = path.key("peers").index(index);
            problems.add_with_help(
                &at,
                format!("`{at}` is without TLS, and `ha.mesh.require_mtls` is `true`"),
                "write it with `wss`",
            );
        }
    }
}

/// Where a hub is dialled. It proves itself by certificate, so user information has no meaning.
fn hub_address(text: &str, at: &Path, problems: &mut Problems<'_>) {
    let has_user = |url: reqwest::Url| !url.username().is_empty() || url.password().is_some();
    if url(text, &["wss", "ws"], at, problems).is_some_and(has_user) {
        problems.add_with_help(
            at,
            format!("`{at}` has user information"),
            "remove what stands before `@`: hubs prove who they are by certificate",
        );
    }
}

fn discovery_allow(texts: &[String], at: &Path, problems: &mut Problems<'_>) -> Vec<DiscoveryRule> {
    let mut rules = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match DiscoveryRule::parse(text) {
            Some(rule) => rules.push(rule),
            None => problems.add_with_help(
                &at.index(index),
                format!("`{text}` is neither a host nor a network"),
                "write `hub-b.example.org`, `*.hubs.example.org`, `10.0.0.7` or `10.0.0.0/8`, \
                 without scheme and port",
            ),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_else() {
        for (rule, allowed, others) in [
            (
                "hub-b.Example.org",
                vec!["hub-b.example.org", "HUB-B.example.org"],
                vec!["b.example.org", "x.hub-b.example.org", "10.0.0.1"],
            ),
            (
                "*.hubs.example.org",
                vec!["a.hubs.example.org", "a.b.hubs.example.org"],
                vec![
                    "hubs.example.org",
                    "evilhubs.example.org",
                    ".hubs.example.org",
                ],
            ),
            (
                "10.0.0.0/8",
                vec!["10.1.2.3"],
                vec!["11.0.0.1", "10.example.org", "::1"],
            ),
            ("::1", vec!["::1", "[::1]"], vec!["::2", "127.0.0.1"]),
        ] {
            let parsed = DiscoveryRule::parse(rule);
            let allows = |host: &str| parsed.as_ref().is_some_and(|rule| rule.allows(host));
            for host in allowed {
                assert!(allows(host), "{rule}: {host}");
            }
            for host in others {
                assert!(!allows(host), "{rule}: {host}");
            }
        }
    }

    #[test]
    fn what_is_no_host_is_no_rule() {
        for text in [
            "",
            "*",
            "*.",
            "wss://a",
            "a:443",
            "a b",
            "10.0.0.1/8",
            "a..b",
        ] {
            assert_eq!(DiscoveryRule::parse(text), None, "{text}");
        }
    }
}
