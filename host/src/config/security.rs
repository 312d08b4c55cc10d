//! Who may come in.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use nowconnect_protocol::TenantName;

/// `security`: issuers, revocation, and what a hub does when a token ends.
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityConfig {
    /// Who may issue tokens to agents; empty means that no agent gets in. The short form
    /// (`issuer`, `jwks_url`, `audience`) is the first entry here.
    pub issuers: Vec<IssuerConfig>,
    /// How keys are fetched and kept.
    pub jwks: JwksConfig,
    /// How far clocks may differ when `exp`, `nbf` and `iat` are checked.
    pub clock_skew: Duration,
    /// The longest `exp - iat` that is accepted; `None` is no bound.
    pub max_token_lifetime: Option<Duration>,
    /// Client addresses that are let in at every listener; empty means all.
    pub allow_cidrs: Vec<IpNet>,
    /// Whether a token must name each connector that its agent offers (`context` of the shipped
    /// policies).
    pub require_connector_scopes: bool,
    /// Whether `?nb_token=` is read as a token. Query strings reach access logs of an ingress.
    pub query_token: bool,
    /// What happens to running flows when a token expires without renewal.
    pub on_expiry: OnExpiry,
    /// How long flows may go on under [`OnExpiry::Drain`].
    pub on_expiry_drain: Duration,
    /// What a second live instance of an agent gets.
    pub duplicate_agent: DuplicateAgent,
    /// The list that `nowconnect agent revoke` writes; `None` is no list.
    pub revocation_file: Option<PathBuf>,
    /// The most entries of that list; a longer one is refused whole.
    pub revocation_max_entries: u32,
    /// Which claims reach policies.
    pub claims: ClaimsConfig,
}

/// One issuer of agents' tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct IssuerConfig {
    /// What `iss` must be, byte for byte. Unique among issuers.
    pub issuer: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// What `aud` must contain.
    pub audience: String,
    /// The signature algorithms that are accepted; never empty.
    pub algorithms: Vec<TokenAlgorithm>,
    /// Which tenant its tokens belong to.
    pub tenant: TenantRule,
    /// The claim that holds the agent's id. `agent_id`.
    pub agent_id_claim: String,
    /// The claims, in order of preference, that hold the connectors. `connectors`, then `scp`.
    pub connectors_claims: Vec<String>,
}

/// Where an issuer's public keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The `jwks_uri` of the OpenID configuration at this URL.
    Discovery(String),
    /// This URL.
    Url(String),
    /// This file, re-read when it changes.
    File(PathBuf),
}

/// Which tenant an issuer may speak for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantRule {
    /// This one, whatever the token says.
    Fixed(TenantName),
    /// The one that this claim names; a token without it is refused. If the list is not empty,
    /// the tenant must be in it.
    Claim {
        /// The claim's name.
        claim: String,
        /// The tenants that this issuer may assert; empty means any.
        allowed: Vec<TenantName>,
    },
}

/// Signature algorithms for agents' tokens. All are asymmetric: a shared secret would let every
/// hub mint tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenAlgorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// RSA PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// How keys are fetched and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksConfig {
    /// How often keys are fetched anew in the background.
    pub refresh: Duration,
    /// The least time between two fetches that an unknown `kid` causes.
    pub refresh_min: Duration,
    /// How long keys are used after the last good fetch.
    pub stale: Duration,
    /// The bound of one fetch, discovery and keys each.
    pub timeout: Duration,
    /// The most bytes of one answer.
    pub max_bytes: u64,
    /// Whether a `jwks_uri` that discovery names on another host may resolve to private
    /// addresses.
    pub allow_private: bool,
    /// Whether plain HTTP is allowed beyond loopback.
    pub allow_plain_http: bool,
    /// More roots to trust for issuers, as PEM.
    pub ca_bundle: Option<PathBuf>,
}

/// What happens to running flows of an agent whose token expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExpiry {
    /// They go on; only new ones are refused.
    Keep,
    /// They may end within `on_expiry_drain_ms`.
    Drain,
    /// They end at once with `token_expired`.
    Close,
}

/// What a second live instance of an agent gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DuplicateAgent {
    /// `agent_id_in_use`.
    Refuse,
    /// The place of the first, not more often than once in a few seconds.
    Replace,
}

/// Which verified claims reach policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimsConfig {
    /// Claims that become tags of the agent: text, numbers and booleans.
    pub tags: Vec<String>,
    /// The claim whose list of texts becomes the agent's groups.
    pub groups: Option<String>,
}
