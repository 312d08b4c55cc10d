//! The file's sections as they are written: every key optional, unknown keys refused.
//!
//! The JSON Schema for editors is made of these, so each bound here is one that the check makes as
//! well; a test holds them against each other.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

/// The configuration of a NowConnect agent.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct FileConfig {
    /// The hub, who this agent is, and how it proves that.
    pub(in crate::config) tunnel: Option<TunnelSection>,
    /// What each connector reaches. Names: 1 to 64 of A-Z a-z 0-9 . _ -
    #[schemars(with = "Option<BTreeMap<String, TargetSection>>")]
    pub(in crate::config) targets: Option<BTreeMap<String, Spanned<TargetSection>>>,
    /// Bounds on time and number.
    pub(in crate::config) limits: Option<LimitsSection>,
    /// Logs, health and traces.
    pub(in crate::config) observability: Option<ObservabilitySection>,
    /// The way out of this network.
    pub(in crate::config) proxy: Option<ProxySection>,
    /// What `nowconnect-agent start` gives public names. Default: nothing.
    pub(in crate::config) publish: Option<PublishSection>,
}

/// The tunnel to the hub.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TunnelSection {
    /// The hub, such as `wss://hub.example.com`; an empty path means `/tunnel`. `ws://` is for this machine
    /// only, see `allow_plaintext`. Needed, here or as `NC_AGENT_URL`.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) url: Option<Spanned<String>>,
    /// Who this agent is: 1 to 128 of A-Z a-z 0-9 . _ -; must equal the token's `agent_id` claim.
    /// Needed, here or as `NC_AGENT_ID`.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) agent_id: Option<Spanned<String>>,
    /// Sent in HELLO; the hub compares it with the tenant that the token's issuer stands for.
    /// Default none.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) tenant: Option<Spanned<String>>,
    /// The connectors to offer. Default empty: all of `targets`.
    #[schemars(with = "Option<Vec<String>>")]
    pub(in crate::config) exported_connectors: Option<Vec<Spanned<String>>>,
    /// Where the token comes from: one of `token_file` and `oidc`; and what upgrades are signed with.
    pub(in crate::config) auth: Option<AuthSection>,
    /// Facts for the hub's operator and policies, at most 64, of at most 256 bytes each.
    /// Default none.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    pub(in crate::config) labels: Option<BTreeMap<String, Spanned<String>>>,
    /// `standby` is kept ready by the hub and carries no flows. Default `primary`.
    #[schemars(with = "Option<String>", extend("enum" = ["primary", "standby"]))]
    pub(in crate::config) role: Option<Spanned<String>>,
    /// Allows `ws://` to another host, where the network below is encrypted. Default `false`.
    pub(in crate::config) allow_plaintext: Option<bool>,
    /// The name that the hub's certificate must carry. Default: the host of `url`.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) server_name: Option<Spanned<String>>,
    /// How often an idle tunnel is pinged; what the hub says in HELLO_ACK wins. Seconds. Default 20.
    #[schemars(with = "Option<u64>", range(min = 1, max = 3_600))]
    pub(in crate::config) ping_interval_sec: Option<Spanned<u64>>,
    /// How long a ping may stay unanswered; what the hub says in HELLO_ACK wins. Seconds.
    /// Default 20.
    #[schemars(with = "Option<u64>", range(min = 1, max = 3_600))]
    pub(in crate::config) ping_timeout_sec: Option<Spanned<u64>>,
    /// The most payload of one DATA frame; the lower of both ends counts. Bytes. Default 131072.
    #[schemars(with = "Option<u64>", range(min = 1_024, max = 131_072))]
    pub(in crate::config) max_ws_payload: Option<Spanned<u64>>,
    /// Bound on resolve, connect, proxy, TLS and upgrade together; the same again for the token.
    /// Milliseconds. Default 10000.
    #[schemars(with = "Option<u64>", range(min = 100, max = 120_000))]
    pub(in crate::config) connect_timeout_ms: Option<Spanned<u64>>,
    /// A token is renewed this long before it expires, or at half its life. Seconds. Default 60.
    #[schemars(with = "Option<u64>", range(min = 1, max = 86_400))]
    pub(in crate::config) renew_before_sec: Option<Spanned<u64>>,
    /// Waits between dials.
    pub(in crate::config) reconnect: Option<ReconnectSection>,
}

/// Where the token comes from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct AuthSection {
    /// A file that holds the token alone. It is read at each dial; a changed file is shown to the hub
    /// on the living tunnel.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) token_file: Option<Spanned<String>>,
    /// OIDC client credentials, renewed before they expire.
    #[schemars(with = "Option<OidcSection>")]
    pub(in crate::config) oidc: Option<Spanned<OidcSection>>,
    /// A file that holds alone the secret that upgrades are signed with, beside the token; for an
    /// agent of the hub's `security.signed_agents`. It is read at each dial. Default none: the token
    /// alone.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) hmac_secret_file: Option<Spanned<String>>,
}

/// OIDC client credentials.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct OidcSection {
    /// Finds the token endpoint by discovery; or set `token_url`.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) issuer: Option<Spanned<String>>,
    /// The token endpoint; wins over `issuer`.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) token_url: Option<Spanned<String>>,
    /// The client's id. Needed.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) client_id: Option<Spanned<String>>,
    /// A file that holds the client's secret alone. Needed.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) client_secret_file: Option<Spanned<String>>,
    /// Asked for as `audience`. Default none.
    pub(in crate::config) audience: Option<String>,
    /// Asked for as `resource` (RFC 8707). Default none.
    pub(in crate::config) resource: Option<String>,
    /// Asked for as `scope`. Default none.
    pub(in crate::config) scope: Option<String>,
}

/// Waits between dials: drawn between 0 and a bound that doubles from `base_ms` to `cap_ms`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ReconnectSection {
    /// The first bound. Milliseconds. Default 500.
    #[schemars(with = "Option<u64>", range(min = 10, max = 60_000))]
    pub(in crate::config) base_ms: Option<Spanned<u64>>,
    /// The last bound; not below `base_ms`. Milliseconds. Default 30000.
    #[schemars(with = "Option<u64>", range(min = 10, max = 3_600_000))]
    pub(in crate::config) cap_ms: Option<Spanned<u64>>,
    /// A tunnel that lived for so long begins the waits anew. Seconds. Default 30.
    #[schemars(with = "Option<u64>", range(min = 1, max = 86_400))]
    pub(in crate::config) stable_after_sec: Option<Spanned<u64>>,
}

/// One target: `host` and `port`, or `unix`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TargetSection {
    /// A name, resolved at each dial, or an IP address.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) host: Option<Spanned<String>>,
    /// The port.
    #[schemars(with = "Option<u64>", range(min = 1, max = 65_535))]
    pub(in crate::config) port: Option<Spanned<u64>>,
    /// The path of a Unix stream socket, in place of `host` and `port`.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) unix: Option<Spanned<String>>,
    /// The agent speaks TLS to the target and checks it. Default none.
    pub(in crate::config) tls: Option<TargetTlsSection>,
    /// The PROXY protocol header that tells the target who the client is. Default: what the hub's
    /// `connectors.<name>.proxy_protocol_out` says.
    #[schemars(with = "Option<String>", extend("enum" = ["off", "v1", "v2"]))]
    pub(in crate::config) proxy_protocol: Option<Spanned<String>>,
    /// Overrides `limits.connect_timeout_ms`. Milliseconds.
    #[schemars(with = "Option<u64>", range(min = 1, max = 120_000))]
    pub(in crate::config) connect_timeout_ms: Option<Spanned<u64>>,
    /// Overrides `limits.idle_timeout_ms`. Milliseconds.
    #[schemars(with = "Option<u64>", range(min = 100, max = 604_800_000))]
    pub(in crate::config) idle_timeout_ms: Option<Spanned<u64>>,
}

/// TLS to a target.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TargetTlsSection {
    /// CA certificates (PEM) in place of the system's.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) ca_bundle: Option<Spanned<String>>,
    /// The name in the target's certificate. Default: `host`. Needed for a Unix socket.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) server_name: Option<Spanned<String>>,
    /// Protocols to offer; what the target agrees on is reported to the hub. Default none.
    #[schemars(with = "Option<Vec<String>>")]
    pub(in crate::config) alpn: Option<Vec<Spanned<String>>>,
    /// Shown to a target that asks for a certificate; the chain (PEM), leaf first. With `key_file`.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) cert_file: Option<Spanned<String>>,
    /// The key of `cert_file` (PEM).
    #[schemars(with = "Option<String>")]
    pub(in crate::config) key_file: Option<Spanned<String>>,
}

/// Bounds on time and number.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct LimitsSection {
    /// A flow without a byte for so long is ended by the agent. Milliseconds. Default none: the hub
    /// decides.
    #[schemars(with = "Option<u64>", range(min = 100, max = 604_800_000))]
    pub(in crate::config) idle_timeout_ms: Option<Spanned<u64>>,
    /// A flow whose target takes none of the bytes that wait for it is reset. Milliseconds.
    /// Default 300000.
    #[schemars(with = "Option<u64>", range(min = 100, max = 604_800_000))]
    pub(in crate::config) stall_timeout_ms: Option<Spanned<u64>>,
    /// Bound on reaching a target: resolve, connect, PROXY header, TLS. Milliseconds. Default 3000.
    #[schemars(with = "Option<u64>", range(min = 1, max = 120_000))]
    pub(in crate::config) connect_timeout_ms: Option<Spanned<u64>>,
    /// Ceiling of one flow's window, in frames of `tunnel.max_ws_payload`. Default 256.
    #[schemars(with = "Option<u64>", range(min = 1, max = 10_000))]
    pub(in crate::config) queue_depth_per_cid: Option<Spanned<u64>>,
    /// Flows at once; the next is refused with `agent_busy`. Default 2000.
    #[schemars(with = "Option<u64>", range(min = 1, max = 1_000_000))]
    pub(in crate::config) max_inflight_cids: Option<Spanned<u64>>,
    /// How long running flows may finish after SIGTERM; a second signal ends at once. Seconds.
    /// Default 10.
    #[schemars(with = "Option<u64>", range(min = 0, max = 3_600))]
    pub(in crate::config) shutdown_timeout_sec: Option<Spanned<u64>>,
}

/// What is seen of the agent.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ObservabilitySection {
    /// The least that is logged. Default `info`.
    #[schemars(with = "Option<String>", extend("enum" = ["error", "warn", "info", "debug", "trace"]))]
    pub(in crate::config) log_level: Option<Spanned<String>>,
    /// The form of the log. A change needs a restart. Default `plain`.
    #[schemars(with = "Option<String>", extend("enum" = ["plain", "json"]))]
    pub(in crate::config) log_format: Option<Spanned<String>>,
    /// The address of the health server. A change needs a restart. Default `0.0.0.0`.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) health_host: Option<Spanned<String>>,
    /// Its port, 0 for none; a probe reads `OK` without and `READY` with a tunnel. A change needs a
    /// restart. Default 8090.
    #[schemars(with = "Option<u64>", range(min = 0, max = 65_535))]
    pub(in crate::config) health_port: Option<Spanned<u64>>,
    /// Where spans go, by OTLP over HTTP. A change needs a restart. Default none.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) otlp_endpoint: Option<Spanned<String>>,
}

/// The way out of this network.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ProxySection {
    /// `http://`, `https://`, `socks5://` (names resolved here) or `socks5h://` (by the proxy), with an
    /// optional user and password. Default none.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) https_proxy: Option<Spanned<String>>,
    /// Reached without proxy: names with all under them, addresses, networks, each with an optional
    /// port; or `*`. Default none.
    #[schemars(with = "Option<HostList>")]
    pub(in crate::config) no_proxy: Option<Spanned<HostList>>,
    /// CA certificates (PEM) in place of the system's, for hub, proxy and issuer.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) ca_bundle: Option<Spanned<String>>,
    /// Whether HTTPS_PROXY, ALL_PROXY and NO_PROXY of the environment count. Default `false`.
    pub(in crate::config) trust_env: Option<bool>,
}

/// Public names for services, from a hub's control API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct PublishSection {
    /// The hub's control API: scheme, host and port; `https://`, or `http://` to this machine.
    /// Default `http://127.0.0.1:8766`.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) control_url: Option<Spanned<String>>,
    /// The client that the hub's operator has registered, where the hub asks for one. Default none.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) client_id: Option<Spanned<String>>,
    /// A file that holds the client's secret alone. With `client_id`.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) client_secret_file: Option<Spanned<String>>,
    /// Where the hub should be. Default none.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) region: Option<Spanned<String>>,
    /// The services, each with an address of its own. At least one.
    #[schemars(with = "Option<Vec<ServiceSection>>")]
    pub(in crate::config) services: Option<Vec<Spanned<ServiceSection>>>,
}

/// One service.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ServiceSection {
    /// The wished name: 1 to 63 letters, digits and `-`. Default: the hub chooses one.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) name: Option<Spanned<String>>,
    /// What it speaks. Default `http`.
    #[schemars(with = "Option<String>", extend("enum" = ["http", "tcp"]))]
    pub(in crate::config) protocol: Option<Spanned<String>>,
    /// Where it is: a port of this machine such as `"3000"`, `HOST:PORT`, `unix:/path`, or for HTTP
    /// `https://HOST`. Needed.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) target: Option<Spanned<String>>,
}

/// `NO_PROXY` is known as one text with commas; a YAML list reads better. Both are taken.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum HostList {
    /// With commas.
    Text(String),
    /// One by one.
    List(Vec<String>),
}

impl HostList {
    pub(in crate::config) fn joined(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::List(hosts) => hosts.join(","),
        }
    }
}
