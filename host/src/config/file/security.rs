//! Who may come in, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Issuers, revocation, and what happens when a token ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityFile {
    /// Short form for one issuer with tenant `default`: what `iss` must be. Its keys are found by
    /// OpenID discovery unless `jwks_url` is set. Default `null`.
    pub issuer: Option<String>,
    /// Short form: where the issuer's keys are. Needs `issuer`, because `iss` is always checked.
    /// Default `null`.
    pub jwks_url: Option<String>,
    /// What `aud` must contain, for the short form and for issuers that name none.
    /// Default `nowconnect`.
    pub audience: String,
    /// Issuers of agents' tokens. With none, no agent gets in. Default empty.
    #[schemars(length(max = 64))]
    pub issuers: Vec<IssuerFile>,
    /// Client addresses that are let in at every listener, as CIDR; empty means all.
    /// Default empty.
    #[schemars(length(max = 1024))]
    pub allow_cidrs: Vec<String>,
    /// Whether a token must name each connector that its agent offers. Read by the shipped
    /// policies. Default `false`.
    pub require_connector_scopes: bool,
    /// 0 is plain bearer tokens; 2 would be DPoP, which is not built yet. Default 0.
    #[schemars(range(min = 0, max = 2))]
    pub fapi_mode: u8,
    /// Whether `?nb_token=` is read as a token. Query strings reach the access logs of an
    /// ingress; turn it off where no agent needs it. Default `true`.
    pub query_token: bool,
    /// How far clocks may differ when `exp`, `nbf` and `iat` are checked. Milliseconds.
    /// Default 60000.
    #[schemars(range(min = 0, max = 300_000))]
    pub clock_skew_ms: u64,
    /// The longest `exp` minus `iat`; a token without `iat` is then refused. Milliseconds.
    /// Default `null`: no bound.
    #[schemars(range(min = 1, max = 31_536_000_000_u64))]
    pub max_token_lifetime_ms: Option<u64>,
    /// What happens to running flows when a token expires without renewal; new ones are refused
    /// in any case. Default `drain`.
    pub on_expiry: OnExpiryFile,
    /// How long flows may go on under `on_expiry: drain`. Milliseconds. Default 60000.
    #[schemars(range(min = 0, max = 86_400_000))]
    pub on_expiry_drain_ms: u64,
    /// What a second live instance of an agent gets. Default `refuse`.
    pub duplicate_agent: DuplicateAgentFile,
    /// The list that `nowconnect agent revoke` writes and every hub reads anew when it changes.
    /// It need not exist. `null` turns revocation off. Default
    /// `/var/lib/nowconnect/revoked.jsonl`.
    pub revocation_file: Option<String>,
    /// The most entries of that list; a longer one is refused whole. Default 100000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub revocation_max_entries: u32,
    /// Agents that have to sign their upgrade with a secret that they share with the hub, so that
    /// a stolen token is not enough. Default empty.
    #[schemars(length(max = 65_536))]
    pub signed_agents: Vec<SignedAgentFile>,
    /// How far the time of a signed upgrade may be from the hub's. Seconds. Default 60.
    #[schemars(range(min = 1, max = 600))]
    pub signed_window_sec: u64,
    /// Which verified claims reach policies.
    pub claims: ClaimsFile,
    /// How often keys are fetched anew in the background. Milliseconds. Default 300000.
    #[schemars(range(min = 1000, max = 86_400_000))]
    pub jwks_refresh_ms: u64,
    /// The least time between two fetches that unknown `kid`s cause, for each issuer.
    /// Milliseconds. Default 10000.
    #[schemars(range(min = 0, max = 3_600_000))]
    pub jwks_refresh_min_ms: u64,
    /// How long keys are used after the last good fetch, so that an outage of the issuer stops
    /// nobody. Milliseconds. Default 86400000.
    #[schemars(range(min = 0, max = 2_592_000_000_u64))]
    pub jwks_stale_ms: u64,
    /// The bound of one fetch. Milliseconds. Default 5000.
    #[schemars(range(min = 1, max = 60_000))]
    pub jwks_timeout_ms: u64,
    /// The most bytes of one answer. Default 262144.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub jwks_max_bytes: u64,
    /// A URL written here may lead to private addresses: the operator named it. A `jwks_uri` that
    /// discovery names on *another* host may only with this. Default `false`.
    pub jwks_allow_private: bool,
    /// Whether keys may be fetched by plain HTTP beyond loopback. Whoever is on that path can
    /// then mint tokens. Default `false`.
    pub jwks_allow_plain_http: bool,
    /// More roots to trust for issuers, as a PEM file. Default `null`: those of the system.
    pub jwks_ca_bundle: Option<String>,
}

impl Default for SecurityFile {
    fn default() -> Self {
        Self {
            issuer: None,
            jwks_url: None,
            audience: "nowconnect".to_owned(),
            issuers: Vec::new(),
            allow_cidrs: Vec::new(),
            require_connector_scopes: false,
            fapi_mode: 0,
            query_token: true,
            clock_skew_ms: 60_000,
            max_token_lifetime_ms: None,
            on_expiry: OnExpiryFile::default(),
            on_expiry_drain_ms: 60_000,
            duplicate_agent: DuplicateAgentFile::default(),
            revocation_file: Some("/var/lib/nowconnect/revoked.jsonl".to_owned()),
            revocation_max_entries: 100_000,
            signed_agents: Vec::new(),
            signed_window_sec: 60,
            claims: ClaimsFile::default(),
            jwks_refresh_ms: 300_000,
            jwks_refresh_min_ms: 10_000,
            jwks_stale_ms: 86_400_000,
            jwks_timeout_ms: 5_000,
            jwks_max_bytes: 256 << 10,
            jwks_allow_private: false,
            jwks_allow_plain_http: false,
            jwks_ca_bundle: None,
        }
    }
}

/// An agent that signs its upgrade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedAgentFile {
    /// The agent's id.
    pub agent: String,
    /// Its tenant. Default `default`.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// The file with the secret, of at least 32 characters, such as from `openssl rand -hex 32`.
    /// Watched.
    pub secret_file: String,
}

fn default_tenant() -> String {
    "default".to_owned()
}

/// One issuer of agents' tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerFile {
    /// What `iss` must be, byte for byte. Unique among issuers.
    pub issuer: String,
    /// The URL of the OpenID configuration, if it is not the issuer followed by
    /// `/.well-known/openid-configuration`. Not together with `jwks_url` or `jwks_file`.
    /// Default `null`.
    #[serde(default)]
    pub discovery: Option<String>,
    /// The URL of the keys; then nothing is discovered. Default `null`.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// A file with the keys, re-read when it changes; then nothing is fetched. Default `null`.
    #[serde(default)]
    pub jwks_file: Option<String>,
    /// What `aud` must contain. Default: `security.audience`.
    #[serde(default)]
    pub audience: Option<String>,
    /// The signature algorithms that are accepted. Default all four.
    #[serde(default = "all_algorithms")]
    #[schemars(length(min = 1, max = 4))]
    pub algorithms: Vec<AlgorithmFile>,
    /// The tenant of all its tokens. Not together with `tenant_claim`. Default `default`.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The claim that names the tenant; a token without it is refused. Default `null`.
    #[serde(default)]
    pub tenant_claim: Option<String>,
    /// The tenants that `tenant_claim` may name; empty means any. Default empty.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub tenants: Vec<String>,
    /// The claim that holds the agent's id. Default `agent_id`.
    #[serde(default = "default_agent_id_claim")]
    pub agent_id_claim: String,
    /// The claim that holds the connectors. Default: `connectors`, then `scp`.
    #[serde(default)]
    pub connectors_claim: Option<String>,
}

fn default_agent_id_claim() -> String {
    "agent_id".to_owned()
}

/// The algorithms of an issuer that names none.
pub(crate) fn all_algorithms() -> Vec<AlgorithmFile> {
    vec![
        AlgorithmFile::Rs256,
        AlgorithmFile::Ps256,
        AlgorithmFile::Es256,
        AlgorithmFile::EdDsa,
    ]
}

/// A signature algorithm, as in the header of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AlgorithmFile {
    /// RSA PKCS#1 v1.5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSA PSS with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// What happens to running flows of an agent whose token expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiryFile {
    /// They go on.
    Keep,
    /// They may end within `on_expiry_drain_ms`.
    #[default]
    Drain,
    /// They end at once with `token_expired`.
    Close,
}

/// What a second live instance of an agent gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DuplicateAgentFile {
    /// The code `agent_id_in_use`.
    #[default]
    Refuse,
    /// The place of the first.
    Replace,
}

/// Which verified claims reach policies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimsFile {
    /// Claims that become tags of the agent: text, numbers and booleans. At most 32.
    /// Default empty.
    #[schemars(length(max = 32))]
    pub tags: Vec<String>,
    /// The claim whose list of texts becomes the agent's groups. Default `null`.
    pub groups: Option<String>,
}
