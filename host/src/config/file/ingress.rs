//! HTTP by host name, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AcmeFile, BalanceFile, ClientCertificatesFile, ProxyProtocolFile, RateFile, TlsFile,
    ViewerAuthFile,
};

/// HTTP by host name: public HTTP ports, and the routes from a host and a path to a connector.
/// Without listeners there is no HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IngressFile {
    /// Public HTTP ports. Default: none.
    #[schemars(length(max = 64))]
    pub listeners: Vec<HttpListenerFile>,
    /// Where requests go, by host and path. All listeners share them. Default: none.
    #[schemars(length(max = 4096))]
    pub routes: Vec<RouteFile>,
    /// How viewers say who they are; routes name one of these. Default: none.
    #[schemars(length(max = 256))]
    pub viewer_auth: Vec<ViewerAuthFile>,
    /// Whether the hub itself tells origins who asks: `X-Forwarded-For`, `-Proto`, `-Host` and
    /// `Forwarded`. With `false` it only takes away what a client that is no trusted proxy wrote
    /// there, and a plugin may set them. Default `true`.
    pub forwarded_headers: bool,
    /// Whether routes may let a host's first label name the agent (their `agent_label`): then every
    /// agent of the route's tenant that offers its connector answers under its own id.
    /// Default `false`.
    pub agent_label: bool,
    /// An authority that issues certificates for the names that are published here; see
    /// docs/certificates.md. Default `null`: only files.
    pub acme: Option<AcmeFile>,
    /// Bounds on what viewers and origins may take.
    pub limits: IngressLimitsFile,
}

impl Default for IngressFile {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            routes: Vec::new(),
            viewer_auth: Vec::new(),
            forwarded_headers: true,
            agent_label: false,
            acme: None,
            limits: IngressLimitsFile::default(),
        }
    }
}

/// One public HTTP port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpListenerFile {
    /// A name, unique among all listeners, those of TCP included: `[A-Za-z0-9._-]`, at most
    /// 64 bytes.
    pub name: String,
    /// The address and port, such as `0.0.0.0:8443`. Port 0 asks the system for a free one.
    pub bind: String,
    /// The certificates for TLS. `null` serves plain HTTP. Default `null`.
    #[serde(default)]
    pub tls: Option<HttpTlsFile>,
    /// Certificates of clients that are asked for in the handshake, for routes with the way
    /// `mtls`. Needs `tls`. Default `null`: none is asked for.
    #[serde(default)]
    pub client_certificates: Option<ClientCertificatesFile>,
    /// Whether HTTP/2 is spoken beside HTTP/1.1: by ALPN where there is TLS, else with clients
    /// that begin with it. Default `true`.
    #[serde(default = "yes")]
    pub http2: bool,
    /// Client addresses that are let in, as CIDR. Empty means all. `security.allow_cidrs` applies
    /// as well. Behind a trusted proxy the address is the one that it forwards. Default empty.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub allow_cidrs: Vec<String>,
    /// Proxies in front, as CIDR, whose `X-Forwarded-For`, `-Proto` and `-Host` are believed.
    /// Default empty.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub trusted_proxies: Vec<String>,
    /// Whether the trace that a request's `traceparent` names goes on here, from
    /// `trusted_proxies` alone where there are any. With `false` each request begins a trace of
    /// its own, with a link to that one. Default `false`.
    #[serde(default)]
    pub continue_traces: bool,
    /// The most connections at once. `null` leaves only `limits.max_conn_total`. Default `null`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// Requests a second from one source address (an IPv6 /64 counts as one); more are answered
    /// 429. Default `null`: no bound.
    #[serde(default)]
    pub rate_per_source: Option<RateFile>,
    /// The PROXY protocol on the way in, for a load balancer in front.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocolFile,
    /// The listen backlog asked of the system, in connections. Default 1024.
    #[serde(default = "default_backlog")]
    #[schemars(range(min = 1, max = 65_535))]
    pub backlog: u32,
}

/// The certificates of a public HTTP port. Files are watched: what changes is taken over while the
/// hub runs, all of a port's or nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpTlsFile {
    /// The chain as PEM, leaf first, that is shown where no other certificate fits the name that a
    /// client asks for. Without it such a client is refused. Default `null`.
    pub cert_file: Option<String>,
    /// The private key for `cert_file` as PEM. Default `null`.
    pub key_file: Option<String>,
    /// Further certificates, each for the names in it: one that holds the name in full before one
    /// with a wildcard. Default: none.
    #[schemars(length(max = 1024))]
    pub certificates: Vec<TlsFile>,
}

/// Where requests for one host and path go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    /// The name of its endpoint for policies, metrics and logs, unique among the routes of its
    /// tenant: `[A-Za-z0-9._-]`, at most 64 bytes.
    pub name: String,
    /// The tenant whose connector and endpoint that are. Default `default`.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// A host name such as `shop.example.com`; `*.example.com` for every name below it; `*` for
    /// any. The most specific one that fits a request decides. No port; names in other scripts in
    /// their `xn--` form.
    pub host: String,
    /// The path that requests must begin with, at a `/`. The longest one of the host decides.
    /// Default `/`.
    #[serde(default = "default_path")]
    pub path: String,
    /// Whether `path` is the beginning or the whole of the request's. Default `prefix`.
    #[serde(default)]
    pub path_match: PathMatchFile,
    /// The connector that the requests go to.
    pub connector: String,
    /// Whether anybody may ask, as the attribute `public` that policies see of the endpoint. The
    /// shipped policies let nobody in who has not proven who he is where this is `false`.
    /// Default `false`.
    #[serde(default)]
    pub public: bool,
    /// How viewers say who they are: the name of one of `ingress.viewer_auth`. Policies see the
    /// viewer; with `null` it is `anonymous`, whatever the request brings. Default `null`.
    #[serde(default)]
    pub viewer_auth: Option<String>,
    /// Tags of the endpoint that policies can read, at most 32. Default none.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How one of several agents that offer the connector is chosen. Default `least_flows`.
    #[serde(default)]
    pub balance: BalanceFile,
    /// What keeps a viewer with one of several agents, before `balance` chooses: `cookie` for one
    /// of the hub that tells nothing, or `{header: NAME}` for the value of a field. By address:
    /// `balance: sticky_client`. Whoever's agent is gone or down gets another. Default `null`.
    #[serde(default)]
    pub sticky: Option<StickyFile>,
    /// Whether the label in place of the `*` of `host` is the id of the agent that requests go to,
    /// which must offer `connector`. Needs `ingress.agent_label`. Default `false`.
    #[serde(default)]
    pub agent_label: bool,
    /// What origins see as `Host`; `null` leaves what the client asked for. Default `null`.
    #[serde(default)]
    pub host_header: Option<String>,
    /// Whether a redirect of the origin to its own `host_header` is turned into one to the host
    /// that the client asked for. Default `false`.
    #[serde(default)]
    pub rewrite_location: bool,
    /// Whether a path with `%2F` is passed on, and shown to policies, as it is. With `false` such a
    /// request is answered 400, because origins differ on whether it is a slash. Default `false`.
    #[serde(default)]
    pub encoded_slash: bool,
    /// Whether a path with `;` or `%3B` is passed on, and shown to policies, as it is. With `false`
    /// such a request is answered 400, because origins differ on whether `/admin;x` is `/admin`.
    /// Default `false`.
    #[serde(default)]
    pub path_parameters: bool,
    /// From the end of the request until the origin's response begins; then the answer is 504.
    /// Milliseconds. Default 10000.
    #[serde(default = "default_response_timeout_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub response_timeout_ms: u64,
    /// How long nothing may pass either way of a response, an event stream or a WebSocket.
    /// Overrides the connector's value and `limits.idle_timeout_ms`. Milliseconds. Default `null`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 604_800_000))]
    pub idle_timeout_ms: Option<u64>,
    /// How often a request is tried on another agent where it certainly did not reach an origin.
    /// Default 2.
    #[serde(default = "default_retries")]
    #[schemars(range(min = 0, max = 16))]
    pub retries: u32,
    /// The most bytes of a request's body; more is answered 413. Bytes. Default `null`: no bound.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_099_511_627_776_u64))]
    pub max_body_bytes: Option<u64>,
    /// Whether `ingress.limits.min_rate` holds for the bodies of requests. `false` is for services
    /// that are told little for long before they answer, such as streams of gRPC. Default `true`.
    #[serde(default = "yes")]
    pub min_rate: bool,
    /// Requests a second over all sources; more are answered 429. Default `null`: no bound.
    #[serde(default)]
    pub rate: Option<RateFile>,
    /// Which HTTP is spoken to origins. `auto` speaks HTTP/2 where the agent's TLS to the origin
    /// agreed on it (`alpn` of the target), else HTTP/1.1; `http2` is for origins that speak it
    /// without TLS. Upgrades such as WebSocket need HTTP/1.1. Default `auto`.
    #[serde(default)]
    pub origin_http: OriginHttpFile,
    /// Who shares connections to origins. `viewer` is for origins that authenticate a connection
    /// (NTLM); a connector with `proxy_protocol_out` has it by itself. Default `all`.
    #[serde(default)]
    pub connections: ConnectionsFile,
}

/// How a route's path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathMatchFile {
    /// The request's path is the same or goes on with a `/`.
    #[default]
    Prefix,
    /// The request's path is the same.
    Exact,
}

/// What keeps a viewer with one of several agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StickyFile {
    /// A cookie that the hub sets; its value is opaque.
    Cookie,
    /// The value of this header field.
    Header(String),
}

/// Who shares connections to origins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionsFile {
    /// All requests of the connector.
    #[default]
    All,
    /// Those of one viewer's connection.
    Viewer,
}

/// Which HTTP is spoken to origins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OriginHttpFile {
    /// What the agent's TLS to the origin agreed on, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Bounds on viewers and origins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IngressLimitsFile {
    /// The most bytes of a request's or response's line and header fields; more of a request is
    /// answered 431. Bytes. Default 32768.
    #[schemars(range(min = 8192, max = 262_144))]
    pub max_header_bytes: u32,
    /// The most header fields of a request or response. Default 100.
    #[schemars(range(min = 16, max = 1000))]
    pub max_headers: u32,
    /// How long the head of a request may take, and how long a connection may wait for its next
    /// request; one of HTTP/2 is then told to go. Milliseconds. Default 30000.
    #[schemars(range(min = 100, max = 600_000))]
    pub header_timeout_ms: u64,
    /// How long a client may send nothing of a body that it owes; then the answer is 408.
    /// Milliseconds. Default 60000.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub body_timeout_ms: u64,
    /// How long a viewer may take nothing of a response that waits for it, over HTTP/2 of one
    /// stream; then it is reset. A response that is silent itself, such as an event stream, is not
    /// meant. Milliseconds. Default 60000.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub send_timeout_ms: u64,
    /// What a viewer has to send of a body that it owes, or to take of what waits for it, in the time
    /// in which it alone is waited for; then it is 408, or its connection is reset. WebSockets, and
    /// responses that are silent themselves, are not meant. `null` is no bound.
    pub min_rate: Option<MinRateFile>,
    /// How old a viewer's connection may become. Then it takes no further request (over HTTP/2 it
    /// is told so), and ends with the responses that are under way; WebSockets go on. `null` is no
    /// bound. Milliseconds. Default 3600000.
    #[schemars(range(min = 1000, max = 604_800_000))]
    pub max_connection_age_ms: Option<u64>,
    /// TLS handshakes at once over all HTTP ports, a quarter of them from one source address; more
    /// are closed. Default 256.
    #[schemars(range(min = 1, max = 65_536))]
    pub max_handshakes: u32,
    /// How long a TLS handshake may take. Milliseconds. Default 10000.
    #[schemars(range(min = 1, max = 600_000))]
    pub handshake_timeout_ms: u64,
    /// Connections at once from one source address (an IPv6 /64 counts as one). Behind a load
    /// balancer all clients are one source. Default 1024.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections_per_source: u32,
    /// Requests at once over all HTTP ports, WebSockets included; more are answered 503.
    /// Default 4096.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: u32,
    /// The same from one source address (an IPv6 /64 counts as one); more are answered 429. Behind
    /// a trusted proxy the address is the one that it forwards. `null` is a quarter of
    /// `max_requests`. Default `null`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests_per_source: Option<u32>,
    /// Requests at once of one HTTP/2 connection. Default 128.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_streams: u32,
    /// Connections to origins that are kept for later requests, for each connector and agent; in
    /// all at most `max_requests`. Default 64.
    #[schemars(range(min = 0, max = 10_000))]
    pub pool_idle: u32,
    /// How long such a connection is kept. Should be shorter than what origins allow.
    /// Milliseconds. Default 30000.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub pool_idle_ms: u64,
}

/// The least rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MinRateFile {
    /// Bytes a second, over a whole window. Default 240.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub bytes_per_second: u32,
    /// Milliseconds in which the viewer is waited for, after which it is looked at. Default 60000.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub window_ms: u64,
}

impl Default for MinRateFile {
    fn default() -> Self {
        Self {
            bytes_per_second: 240,
            window_ms: 60_000,
        }
    }
}

impl Default for IngressLimitsFile {
    fn default() -> Self {
        Self {
            max_header_bytes: 32 << 10,
            max_headers: 100,
            header_timeout_ms: 30_000,
            body_timeout_ms: 60_000,
            send_timeout_ms: 60_000,
            min_rate: Some(MinRateFile::default()),
            max_connection_age_ms: Some(3_600_000),
            max_handshakes: 256,
            handshake_timeout_ms: 10_000,
            max_connections_per_source: 1024,
            max_requests: 4096,
            max_requests_per_source: None,
            max_streams: 128,
            pool_idle: 64,
            pool_idle_ms: 30_000,
        }
    }
}

fn yes() -> bool {
    true
}

fn default_tenant() -> String {
    "default".to_owned()
}

fn default_path() -> String {
    "/".to_owned()
}

fn default_backlog() -> u32 {
    1024
}

fn default_response_timeout_ms() -> u64 {
    10_000
}

fn default_retries() -> u32 {
    2
}
