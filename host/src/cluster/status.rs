//! The cluster as the admin API and `nowconnect cluster status` show it.

use nowconnect_registry::{HaMode, Health, Joined};
use serde::{Deserialize, Serialize};

use super::Cluster;
use super::membership::Terms;
use crate::config::CloudConfig;

/// This hub's cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// This hub's name.
    pub hub: String,
    /// `off`, `shadow` or `active`.
    pub mode: String,
    /// Whether the others can see this hub.
    pub joined: JoinedStatus,
    /// Names what is in force here: the same at every hub with the same policies and plugins.
    pub generation: String,
    /// For how long other hubs have had something else in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_seconds: Option<u64>,
    /// The registry.
    pub registry: RegistryStatus,
    /// The other hubs, by name. While the registry is away those that were seen last.
    pub hubs: Vec<HubSeenStatus>,
    /// Links to them, by name.
    pub links: Vec<MeshLinkStatus>,
}

/// Where the registry is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryKind {
    /// In a hub's memory.
    #[default]
    Memory,
    /// In Redis or Valkey.
    Redis,
}

/// The registry as this hub sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryStatus {
    /// Where it is.
    pub kind: RegistryKind,
    /// Whether it answers.
    pub healthy: bool,
    /// What was seen last, where it does not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Agents that this hub owns.
    pub agents: u64,
    /// Those among them that the registry does not know of yet.
    pub provisional: u64,
}

/// Whether the others can see this hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinedStatus {
    /// It stands alone.
    #[default]
    Alone,
    /// Not now: the registry is away.
    No,
    /// They can.
    Yes,
    /// Another hub has its name.
    NameTaken,
}

/// Another hub, as it says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubSeenStatus {
    /// Its name.
    pub hub: String,
    /// `off`, `shadow` or `active`.
    pub mode: String,
    /// Its release.
    pub version: String,
    /// Names what is in force there.
    pub generation: String,
    /// Whether that is something else than here.
    pub skewed: bool,
    /// Where it may be dialled.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
}

/// A link to another hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshLinkStatus {
    /// Its name; the address that is dialled as long as nobody has answered there.
    pub peer: String,
    /// `connecting`, `established`, `backoff` or `closed`.
    pub state: String,
    /// Flows that cross it.
    pub flows: u64,
    /// Round-trip time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
}

impl Cluster {
    /// What is told of the cluster now.
    pub(crate) fn status(&self, config: &CloudConfig) -> ClusterStatus {
        let membership = self.membership.load();
        let about = self.about.borrow().clone();
        let health = membership.registry().health().borrow().clone();
        let (held, provisional) = membership.claims().counts();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let seen = membership.seen().borrow().clone();
        let others = seen.others.into_iter().map(|hub| HubSeenStatus {
            skewed: hub.generation != about.generation,
            hub: hub.replica.to_string(),
            mode: mode(hub.mode).to_owned(),
            version: hub.version,
            generation: hub.generation,
            address: hub.address,
        });
        ClusterStatus {
            hub: config.replica_id.to_string(),
            mode: mode(about.mode).to_owned(),
            joined: match (membership.terms(), seen.joined) {
                (Terms::Alone, _) => JoinedStatus::Alone,
                (_, Joined::No) => JoinedStatus::No,
                (_, Joined::Yes) => JoinedStatus::Yes,
                (_, Joined::NameTaken) => JoinedStatus::NameTaken,
            },
            generation: about.generation.clone(),
            skew_seconds: self
                .skewed_since
                .lock()
                .map(|since| since.elapsed().as_secs()),
            registry: RegistryStatus {
                kind: match membership.terms() {
                    Terms::Alone | Terms::Memory => RegistryKind::Memory,
                    Terms::Redis(_) => RegistryKind::Redis,
                },
                healthy: health.is_healthy(),
                reason: match health {
                    Health::Healthy => String::new(),
                    Health::Away { reason } => reason.to_string(),
                },
                agents: number(held),
                provisional: number(provisional),
            },
            hubs: others.collect(),
            links: self.mesh.get().map(|mesh| mesh.links()).unwrap_or_default(),
        }
    }
}

/// A mode, as it is written in the configuration.
pub(super) const fn mode(mode: HaMode) -> &'static str {
    match mode {
        HaMode::Off => "off",
        HaMode::Shadow => "shadow",
        HaMode::Active => "active",
    }
}
