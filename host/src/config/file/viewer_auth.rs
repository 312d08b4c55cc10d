//! How viewers of HTTP say who they are, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AlgorithmFile;
use super::security::all_algorithms;

/// One set of ways to say who one is, for the routes that name it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewerAuthFile {
    /// The name by which routes take it (`viewer_auth`): `[A-Za-z0-9._-]`, at most 64 bytes.
    pub name: String,
    /// Whether a request that proves nothing is answered 401. With `false` it goes on as the
    /// viewer `anonymous`, and policies decide; what is proven wrongly is refused all the same.
    /// Default `true`.
    #[serde(default = "yes")]
    pub required: bool,
    /// What may be shown, each kind once. The first of them that a request brings decides; where
    /// that one is wrong, no later one helps.
    #[schemars(length(min = 1, max = 4))]
    pub ways: Vec<ViewerWayFile>,
    /// What `WWW-Authenticate` calls this place, in printable ASCII without `"` and `\`.
    /// Default `null`: the name.
    #[serde(default)]
    pub realm: Option<String>,
    /// Header fields that tell origins who asks: each name in lower case, with `subject`, `tenant`,
    /// `issuer`, `method`, `groups` or `claim:NAME` of `tag_claims`. A viewer's own fields of
    /// these names are taken out on every route. At most 32. Default none.
    #[serde(default)]
    pub identity_headers: BTreeMap<String, String>,
    /// A header field that tells origins who asks in a JWT which they can check. Default `null`.
    #[serde(default)]
    pub assertion: Option<ViewerAssertionFile>,
    /// Whether origins and plugins get what the viewer has shown: the `Authorization` of `bearer`
    /// and `basic`, and the parameters of `signed_url`. Default `false`.
    #[serde(default)]
    pub pass_on_credentials: bool,
}

/// A signed assertion about the viewer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewerAssertionFile {
    /// The field's name in lower case. A viewer's own field of this name is taken out on every
    /// route. Default `x-viewer-assertion`.
    #[serde(default = "default_assertion_header")]
    pub header: String,
    /// Its `aud`, by which a service knows that it is meant. It must be another one than in tokens
    /// that the hub itself takes.
    pub audience: String,
    /// How long it is good for; it ends with what proved the viewer at the latest. Milliseconds.
    /// Default 60000.
    #[serde(default = "default_assertion_ms")]
    #[schemars(range(min = 10_000, max = 600_000))]
    pub lifetime_ms: u64,
    /// Its `iss`. Default `null`: that of the control API.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Files with Ed25519 keys as PEM (PKCS #8), of which the first signs and the public halves of
    /// all are published. To change a key, add the next at the end, put it first when services have
    /// it, and take the old one out when its last assertion has ended. Watched. Default empty: the
    /// keys of the control API, which change by themselves.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub key_files: Vec<String>,
    /// What it says beside `sub`, `tenant` and `host`: `groups`, `amr`, `method`, `issuer` (as
    /// `viewer_iss`) and `claim:NAME` of `tag_claims` (in `tags`). Default `groups` and `amr`.
    #[serde(default = "default_asserted")]
    #[schemars(length(max = 32))]
    pub claims: Vec<String>,
}

/// One way: exactly one of its keys is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ViewerWayFile {
    /// `Authorization: Bearer` with a JWT. Default `null`.
    pub bearer: Option<ViewerBearerFile>,
    /// `Authorization: Basic` with a name and a password of a file. Default `null`.
    pub basic: Option<ViewerBasicFile>,
    /// A client certificate that the listener's `client_certificates` vouch for. Default `null`.
    pub mtls: Option<ViewerMtlsFile>,
    /// A URL that somebody has signed with one of the hub's keys, good for a time.
    /// Default `null`.
    pub signed_url: Option<ViewerSignedUrlFile>,
}

/// JWTs of viewers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewerBearerFile {
    /// What `aud` must contain. It must be another one than agents' tokens have, so that neither
    /// counts for the other.
    pub audience: String,
    /// Who may issue them. Default empty: `security.issuers`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub issuers: Vec<ViewerIssuerFile>,
    /// Claims that become tags of the viewer: text, numbers and booleans. At most 32.
    /// Default empty.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub tag_claims: Vec<String>,
    /// The claim whose list of texts becomes the viewer's groups. Default `null`.
    #[serde(default)]
    pub groups_claim: Option<String>,
    /// Tenants beside the route's own whose viewers are let in; policies decide about them then,
    /// who see their groups as of their tenants. Default empty.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub other_tenants: Vec<String>,
}

/// Who issues tokens to viewers, and none to agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewerIssuerFile {
    /// What `iss` must be, byte for byte.
    pub issuer: String,
    /// Where its OpenID configuration is. Default `null`: below `issuer`.
    #[serde(default)]
    pub discovery: Option<String>,
    /// Where its keys are, in place of discovery. Default `null`.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// A file with its keys, in place of both; watched. Default `null`.
    #[serde(default)]
    pub jwks_file: Option<String>,
    /// The signature algorithms that it may use. Default all of them.
    #[serde(default = "all_algorithms")]
    #[schemars(length(min = 1, max = 4))]
    pub algorithms: Vec<AlgorithmFile>,
    /// The tenant of its viewers. Default `null`: `default`, or what `tenant_claim` says.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The claim that names the tenant. Default `null`.
    #[serde(default)]
    pub tenant_claim: Option<String>,
    /// The tenants that it may name there; empty means any. Default empty.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub tenants: Vec<String>,
}

/// Names and passwords.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewerBasicFile {
    /// A line `NAME:HASH` or `NAME:HASH:GROUP,GROUP` for each user, with bcrypt of cost 10 to 14
    /// (`htpasswd -B -C 12`) or Argon2id. Watched; with a mistake in it, it counts as it was.
    pub users_file: String,
}

/// Client certificates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ViewerMtlsFile {
    /// The listeners whose `client_certificates` vouch for the viewers of this set. Default empty:
    /// all, which is refused where listeners have different authorities, because each route is
    /// reached at every listener.
    #[schemars(length(max = 64))]
    pub listeners: Vec<String>,
}

/// Signed URLs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewerSignedUrlFile {
    /// The keys that count. To change one, add the next, sign with it, and take the old one out
    /// when its last URL has ended.
    #[schemars(length(min = 1, max = 16))]
    pub keys: Vec<ViewerUrlKeyFile>,
    /// The longest time that a URL may still be good for; one that is good for longer is refused.
    /// Milliseconds. Default 604800000: a week.
    #[serde(default = "default_max_lifetime_ms")]
    #[schemars(range(min = 1000, max = 31_536_000_000_u64))]
    pub max_lifetime_ms: u64,
}

/// A key that URLs are signed with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewerUrlKeyFile {
    /// Its name, which stands in the URL and is who the viewer is (`url:NAME`):
    /// `[A-Za-z0-9._-]`, at most 64 bytes.
    pub name: String,
    /// The file with the secret: at least 32 characters, blanks around it left out. Watched.
    pub file: String,
}

/// Certificates of clients at one port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificatesFile {
    /// The authorities that vouch for them, as PEM. Watched.
    pub ca_file: String,
    /// Whether the handshake fails without one. Default `false`: it is asked for, and routes with
    /// the way `mtls` want it.
    #[serde(default)]
    pub required: bool,
}

fn default_assertion_header() -> String {
    "x-viewer-assertion".to_owned()
}

fn default_assertion_ms() -> u64 {
    60_000
}

fn default_asserted() -> Vec<String> {
    vec!["groups".to_owned(), "amr".to_owned()]
}

fn yes() -> bool {
    true
}

fn default_max_lifetime_ms() -> u64 {
    7 * 24 * 3_600_000
}
