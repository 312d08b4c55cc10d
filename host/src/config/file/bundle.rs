//! Policy bundles, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Signed policy bundles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BundleFile {
    /// The public keys that bundles are taken from, as `nowconnect policy keygen` prints them.
    /// With any, policies come from bundles only and `dir` must be `null`. Default empty: no
    /// bundles.
    #[schemars(length(max = 16))]
    pub trusted_keys: Vec<String>,
    /// How many different trusted keys must have signed a bundle. Default 1.
    #[schemars(range(min = 1, max = 16))]
    pub required_signatures: u32,
    /// What happens to the bundle in force when a reload takes the trust from those who signed it:
    /// `keep` serves on until another takes its place, `deny` permits nothing until then. The
    /// operator is told either way, and no restart loads it. Default `keep`.
    pub on_untrusted: OnUntrustedFile,
    /// Where bundles come from: a folder, a tar, or an `https://` URL of a tar. Default `null`:
    /// they are only pushed.
    pub source: Option<String>,
    /// How often the source is looked at. Milliseconds. Default 30000.
    #[schemars(range(min = 100, max = 86_400_000))]
    pub poll_ms: u64,
    /// How long one fetch from a URL may take. Milliseconds. Default 10000.
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout_ms: u64,
    /// The largest bundle that is fetched or pushed. Bytes. Default 8388608.
    #[schemars(range(min = 1024, max = 33_554_432))]
    pub max_bytes: u64,
    /// Roots for the URL beside the system's, as PEM. Default `null`.
    pub ca_bundle: Option<String>,
    /// Whether a bundle that is right comes into force by itself; otherwise it stays staged
    /// until `nowconnect policy activate`. Default `true`.
    pub auto_activate: bool,
    /// What a staged bundle must show before it comes into force.
    pub require: BundleRequireFile,
    /// The folder where the last good bundles and the highest revision are kept; needed with
    /// `trusted_keys`. Only this hub may use it. Needs a restart. Default `null`.
    pub state_dir: Option<String>,
    /// How many superseded bundles are kept to go back to. Default 10.
    #[schemars(range(min = 0, max = 100))]
    pub keep: u32,
}

impl Default for BundleFile {
    fn default() -> Self {
        Self {
            trusted_keys: Vec::new(),
            required_signatures: 1,
            on_untrusted: OnUntrustedFile::default(),
            source: None,
            poll_ms: 30_000,
            timeout_ms: 10_000,
            max_bytes: 8 << 20,
            ca_bundle: None,
            auto_activate: true,
            require: BundleRequireFile::default(),
            state_dir: None,
            keep: 10,
        }
    }
}

/// What happens to a bundle in force that nobody vouches for any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUntrustedFile {
    /// It serves until another takes its place.
    #[default]
    Keep,
    /// Nothing is permitted until another takes its place.
    Deny,
}

/// What a staged bundle must show before it comes into force. The first bundle of a hub has
/// nothing to be compared with and needs to show nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BundleRequireFile {
    /// Nothing that the shadow has seen would be newly allowed. Default `false`.
    pub no_new_allow: bool,
    /// Nothing that the shadow has seen would be newly denied. Default `false`.
    pub no_new_deny: bool,
    /// A proof that it lets nothing new in; where there is no solver, nothing comes into force.
    /// Default `false`.
    pub proof: bool,
    /// The shadow has compared at least so many decisions; at least 1 counts where something is
    /// required of it. Default 0.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_shadow_requests: u64,
}
