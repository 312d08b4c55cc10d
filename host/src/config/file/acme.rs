//! Certificates from an authority, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Certificates that an authority issues over ACME (RFC 8555) for the names that are published
/// here and that no certificate in a file fits. Needs an HTTP port with TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeFile {
    /// The `https://` URL of the authority's directory, such as
    /// `https://acme-v02.api.letsencrypt.org/directory`.
    pub directory_url: String,
    /// Whether you agree to the authority's terms of service; it issues nothing otherwise. There is
    /// no default: write `true` once you have read them.
    pub terms_of_service_agreed: bool,
    /// Where the account and the certificates with their keys are kept; a file of mode 0600 of this
    /// hub alone, made where it is not there. It may be the `control.state_file`. A change needs a
    /// restart.
    pub state_file: String,
    /// Whom the authority may write to, as `mailto:` URLs. Default: nobody.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub contact: Vec<String>,
    /// A PEM file with roots for the authority's own server, beside the system's. Default `null`.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// The account at the authority that a new one is bound to, where it asks for that.
    /// Default `null`.
    #[serde(default)]
    pub external_account: Option<ExternalAccountFile>,
    /// How the authority may check a name; the first is tried first, after a failure the next.
    /// Default `[tls_alpn_01, http_01]`.
    #[serde(default = "all_challenges")]
    #[schemars(length(min = 1, max = 2))]
    pub challenges: Vec<ChallengeFile>,
    /// The hosts that certificates are issued for: names, or `*.example.com` for every name below
    /// it. What is published under other names gets none. Default: all that are published.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub hosts: Vec<String>,
    /// The most names that certificates are issued for; those beyond it, in the order of the
    /// alphabet, get none. Default 1000.
    #[serde(default = "default_max_names")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_names: u32,
    /// Orders at once. Default 4.
    #[serde(default = "default_max_orders")]
    #[schemars(range(min = 1, max = 64))]
    pub max_orders: u32,
    /// Orders begun within an hour; those beyond it wait. Default 60.
    #[serde(default = "default_orders_per_hour")]
    #[schemars(range(min = 1, max = 10_000))]
    pub orders_per_hour: u32,
    /// How long a handshake waits for the first certificate of its name, out of
    /// `limits.handshake_timeout_ms`. Milliseconds. Default 5000.
    #[serde(default = "default_handshake_wait_ms")]
    #[schemars(range(min = 0, max = 60_000))]
    pub handshake_wait_ms: u64,
}

/// An account that exists at the authority already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccountFile {
    /// Its name, as the authority gave it.
    pub key_id: String,
    /// The file with its key in base64url, as the authority gave it.
    pub hmac_key_file: String,
}

/// How an authority checks a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChallengeFile {
    /// By a TLS handshake at port 443 of the name (RFC 8737); needs a port with TLS.
    #[serde(rename = "tls_alpn_01")]
    TlsAlpn01,
    /// By plain HTTP at port 80 of the name (RFC 8555, 8.3); needs a port without TLS.
    #[serde(rename = "http_01")]
    Http01,
}

fn all_challenges() -> Vec<ChallengeFile> {
    vec![ChallengeFile::TlsAlpn01, ChallengeFile::Http01]
}

fn default_max_names() -> u32 {
    1000
}

fn default_max_orders() -> u32 {
    4
}

fn default_orders_per_hour() -> u32 {
    60
}

fn default_handshake_wait_ms() -> u64 {
    5000
}
