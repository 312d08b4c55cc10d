//! Hubs that are present.

use nowconnect_protocol::ReplicaId;
use serde::{Deserialize, Serialize};

use crate::error::RegistryError;
use crate::limits::MAX_HUB_BYTES;

/// How far a hub takes part in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HaMode {
    /// Not at all.
    Off,
    /// Links and registry run, traffic stays local.
    Shadow,
    /// Flows cross hubs.
    Active,
}

/// What a hub says about itself. Where to dial, and what to expect there; it proves nothing: the
/// certificate of the mesh hello does, and addresses are dialled only where the configuration
/// allows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubPresence {
    /// Its name.
    #[serde(with = "as_text")]
    pub replica: ReplicaId,
    /// Random per process: tells two hubs that were given the same name apart.
    pub boot: u64,
    /// Where other hubs dial, as `wss://host:port/mesh`; empty where it takes no links.
    pub address: String,
    /// The identity that its certificate has to prove, in the mesh's own words.
    pub certificate: String,
    /// The release that it runs.
    pub version: String,
    /// How far it takes part.
    pub mode: HaMode,
    /// The generation of its bundles, in the hub's own words: what differs between hubs is skew.
    #[serde(default)]
    pub generation: String,
}

impl HubPresence {
    pub(crate) fn encode(&self) -> Result<String, RegistryError> {
        // A struct of strings and numbers always has a JSON form.
        let text = serde_json::to_string(self).unwrap_or_default();
        RegistryError::bound("bytes of a hub's presence", text.len(), MAX_HUB_BYTES)?;
        Ok(text)
    }

    /// `None` for what a newer release wrote in a form that this one cannot read.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

mod as_text {
    use nowconnect_protocol::ReplicaId;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        name: &ReplicaId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ReplicaId, D::Error> {
        let text = String::deserialize(deserializer)?;
        ReplicaId::parse(&text).map_err(D::Error::custom)
    }
}
