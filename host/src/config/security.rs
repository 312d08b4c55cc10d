//! Who may come in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use nowconnect_protocol::{AgentId, TenantName};

use super::build::{Surroundings, cidrs, ms, name, optional_ms, url};
use super::file::{AlgorithmFile, DuplicateAgentFile, IssuerFile, OnExpiryFile, SecurityFile};
use super::problem::Problems;
use super::tree::Path;

/// `security`: issuers, revocation, and what a hub does when a token ends.
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityConfig {
    /// Who may issue tokens to agents; empty means that no agent gets in. The short form
    /// (`issuer`, `jwks_url`, `audience`) is the first entry here.
    pub issuers: Vec<IssuerConfig>,
    /// What `aud` of agents' tokens contains where an issuer has no other; the control plane puts
    /// it into its own.
    pub audience: String,
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
    /// Agents that sign their upgrade.
    pub signed: SignedConfig,
    /// Which claims reach policies.
    pub claims: ClaimsConfig,
}

/// Agents that sign their upgrade with a secret of their own, beside their token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedConfig {
    /// Who has to.
    pub agents: Vec<SignedAgentConfig>,
    /// How far the time of a request may be from the hub's.
    pub window: Duration,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAgentConfig {
    /// Its tenant.
    pub tenant: TenantName,
    /// Its id.
    pub agent: AgentId,
    /// The file with the secret.
    pub secret_file: PathBuf,
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

impl SecurityConfig {
    pub(super) fn build(
        file: &SecurityFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let allow_cidrs = cidrs(&file.allow_cidrs, &path.key("allow_cidrs"), problems);
        if file.fapi_mode != 0 {
            problems.add_with_help(
                &path.key("fapi_mode"),
                format!("`security.fapi_mode: {}` is not built yet", file.fapi_mode),
                "write `0`: agents send plain bearer tokens",
            );
        }
        if file.audience.is_empty() {
            problems.add(
                &path.key("audience"),
                "`security.audience` must not be empty: `aud` is always checked",
            );
        }
        Self {
            issuers: issuers(file, path, around, problems),
            audience: file.audience.clone(),
            jwks: JwksConfig {
                refresh: ms(file.jwks_refresh_ms),
                refresh_min: ms(file.jwks_refresh_min_ms),
                stale: ms(file.jwks_stale_ms),
                timeout: ms(file.jwks_timeout_ms),
                max_bytes: file.jwks_max_bytes,
                allow_private: file.jwks_allow_private,
                allow_plain_http: file.jwks_allow_plain_http,
                ca_bundle: around.optional_path(file.jwks_ca_bundle.as_ref()),
            },
            clock_skew: ms(file.clock_skew_ms),
            max_token_lifetime: optional_ms(file.max_token_lifetime_ms),
            allow_cidrs,
            require_connector_scopes: file.require_connector_scopes,
            query_token: file.query_token,
            on_expiry: match file.on_expiry {
                OnExpiryFile::Keep => OnExpiry::Keep,
                OnExpiryFile::Drain => OnExpiry::Drain,
                OnExpiryFile::Close => OnExpiry::Close,
            },
            on_expiry_drain: ms(file.on_expiry_drain_ms),
            duplicate_agent: match file.duplicate_agent {
                DuplicateAgentFile::Refuse => DuplicateAgent::Refuse,
                DuplicateAgentFile::Replace => DuplicateAgent::Replace,
            },
            revocation_file: around.optional_path(file.revocation_file.as_ref()),
            revocation_max_entries: file.revocation_max_entries,
            signed: SignedConfig {
                agents: signed_agents(file, path, around, problems),
                window: Duration::from_secs(file.signed_window_sec),
            },
            claims: ClaimsConfig {
                tags: file.claims.tags.clone(),
                groups: file.claims.groups.clone(),
            },
        }
    }
}

fn signed_agents(
    file: &SecurityFile,
    path: &Path,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Vec<SignedAgentConfig> {
    let mut seen = BTreeSet::new();
    let mut agents = Vec::with_capacity(file.signed_agents.len());
    for (index, written) in file.signed_agents.iter().enumerate() {
        let here = path.key("signed_agents").index(index);
        let agent = name(AgentId::parse(&written.agent), &here.key("agent"), problems);
        let tenant = name(
            TenantName::parse(&written.tenant),
            &here.key("tenant"),
            problems,
        );
        let (Some(agent), Some(tenant)) = (agent, tenant) else {
            continue;
        };
        if !seen.insert((tenant.clone(), agent.clone())) {
            problems.add(&here, format!("the agent `{agent}` is there twice"));
        }
        agents.push(SignedAgentConfig {
            tenant,
            agent,
            secret_file: around.path(&written.secret_file),
        });
    }
    agents
}

/// The short form first, then the list; each `iss` once.
fn issuers(
    file: &SecurityFile,
    path: &Path,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Vec<IssuerConfig> {
    let mut issuers = Vec::with_capacity(file.issuers.len() + 1);
    let mut written: BTreeMap<&str, String> = BTreeMap::new();
    match (&file.issuer, &file.jwks_url) {
        (Some(issuer), jwks_url) => {
            written.insert(issuer, "security.issuer".to_owned());
            let short = IssuerFile::short(issuer.clone(), jwks_url.clone());
            issuers.extend(IssuerConfig::build(&short, path, file, around, problems));
        }
        (None, Some(_)) => problems.add_with_help(
            &path.key("jwks_url"),
            "`security.jwks_url` is set without `security.issuer`",
            "name the issuer as it stands in the tokens' `iss`, which is always checked",
        ),
        (None, None) => {}
    }
    for (index, issuer) in file.issuers.iter().enumerate() {
        let here = path.key("issuers").index(index);
        if let Some(first) = written.insert(&issuer.issuer, here.to_string()) {
            problems.add_with_help(
                &here.key("issuer"),
                format!("the issuer `{}` is written twice", issuer.issuer),
                format!("it is at `{first}` already: keep one"),
            );
            continue;
        }
        issuers.extend(IssuerConfig::build(issuer, &here, file, around, problems));
    }
    issuers
}

impl IssuerFile {
    fn short(issuer: String, jwks_url: Option<String>) -> Self {
        Self {
            issuer,
            discovery: None,
            jwks_url,
            jwks_file: None,
            audience: None,
            algorithms: super::file::all_algorithms(),
            tenant: None,
            tenant_claim: None,
            tenants: Vec::new(),
            agent_id_claim: "agent_id".to_owned(),
            connectors_claim: None,
        }
    }
}

impl IssuerConfig {
    pub(super) fn build(
        file: &IssuerFile,
        path: &Path,
        security: &SecurityFile,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let keys = KeySource::build(file, path, security, around, problems);
        let tenant = TenantRule::build(file, path, problems);
        let mut algorithms: Vec<TokenAlgorithm> = file
            .algorithms
            .iter()
            .map(|algorithm| match algorithm {
                AlgorithmFile::Rs256 => TokenAlgorithm::Rs256,
                AlgorithmFile::Ps256 => TokenAlgorithm::Ps256,
                AlgorithmFile::Es256 => TokenAlgorithm::Es256,
                AlgorithmFile::EdDsa => TokenAlgorithm::EdDsa,
            })
            .collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        if file.issuer.is_empty() {
            problems.add(&path.key("issuer"), "the issuer must not be empty");
        }
        if file.audience.as_ref().is_some_and(String::is_empty) {
            problems.add(
                &path.key("audience"),
                "the audience must not be empty: `aud` is always checked",
            );
        }
        Some(Self {
            issuer: file.issuer.clone(),
            keys: keys?,
            audience: file
                .audience
                .clone()
                .unwrap_or_else(|| security.audience.clone()),
            algorithms,
            tenant: tenant?,
            agent_id_claim: file.agent_id_claim.clone(),
            connectors_claims: match &file.connectors_claim {
                Some(claim) => vec![claim.clone()],
                None => vec!["connectors".to_owned(), "scp".to_owned()],
            },
        })
    }
}

impl KeySource {
    fn build(
        file: &IssuerFile,
        path: &Path,
        security: &SecurityFile,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let named = [
            file.discovery.is_some(),
            file.jwks_url.is_some(),
            file.jwks_file.is_some(),
        ];
        if named.iter().filter(|named| **named).count() > 1 {
            problems.add(
                path,
                format!(
                    "`{path}` needs one of `discovery`, `jwks_url` and `jwks_file`, not several"
                ),
            );
            return None;
        }
        if let Some(key_file) = &file.jwks_file {
            return Some(Self::File(around.path(key_file)));
        }
        let (key, text) = match (&file.jwks_url, &file.discovery) {
            (Some(text), _) => ("jwks_url", text.clone()),
            (None, Some(text)) => ("discovery", text.clone()),
            (None, None) => (
                "issuer",
                format!(
                    "{}/.well-known/openid-configuration",
                    file.issuer.trim_end_matches('/')
                ),
            ),
        };
        let at = path.key(key);
        if key == "issuer" && reqwest::Url::parse(&file.issuer).is_err() {
            problems.add_with_help(
                &at,
                format!(
                    "the issuer `{}` is no URL, so its keys cannot be discovered",
                    file.issuer
                ),
                "set `jwks_url`, `jwks_file` or `discovery` beside it",
            );
            return None;
        }
        let url = url(&text, &["https", "http"], &at, problems)?;
        if url.scheme() == "http"
            && !security.jwks_allow_plain_http
            && !crate::identity::fetch::is_loopback(&url)
        {
            problems.add_with_help(
                &at,
                format!("`{at}` would fetch keys by plain HTTP"),
                "use `https://`: whoever is on that path could mint tokens; or set \
                 `security.jwks_allow_plain_http: true`",
            );
        }
        Some(if file.jwks_url.is_some() {
            Self::Url(text)
        } else {
            Self::Discovery(text)
        })
    }
}

impl TenantRule {
    fn build(file: &IssuerFile, path: &Path, problems: &mut Problems<'_>) -> Option<Self> {
        match (&file.tenant, &file.tenant_claim) {
            (Some(_), Some(_)) => {
                problems.add(
                    &path.key("tenant_claim"),
                    format!("`{path}` needs one of `tenant` and `tenant_claim`, not both"),
                );
                None
            }
            (tenant, None) => {
                if !file.tenants.is_empty() {
                    problems.add(
                        &path.key("tenants"),
                        format!("`{path}.tenants` bounds `tenant_claim`, which is not set"),
                    );
                }
                let tenant = tenant.as_deref().unwrap_or("default");
                name(TenantName::parse(tenant), &path.key("tenant"), problems).map(Self::Fixed)
            }
            (None, Some(claim)) => {
                let at = path.key("tenants");
                let allowed: Vec<Option<TenantName>> = file
                    .tenants
                    .iter()
                    .enumerate()
                    .map(|(index, text)| name(TenantName::parse(text), &at.index(index), problems))
                    .collect();
                Some(Self::Claim {
                    claim: claim.clone(),
                    allowed: allowed.into_iter().collect::<Option<_>>()?,
                })
            }
        }
    }
}
