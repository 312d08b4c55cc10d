//! The nouns of the plugin contract: what the hub tells plugins, borrowed for one call.
//!
//! These types lower straight into a guest's memory, so a call copies each string once and the
//! hub clones nothing. Their shape is that of `wit/0.1`, where they have one; what another
//! version changed has a borrowed shape in [`crate::wire`], and these stay what the hub speaks.

use std::time::Instant;

use wasmtime::component::{ComponentType, Lift, Lower};

use crate::answer::Carry;

/// Name and value of a fact that has no field of its own.
pub type Attribute = (String, String);

/// Name (lower case) and value of an HTTP field.
pub type Field = (String, Vec<u8>);

/// The one call being made, as far as all plugins of a chain share it.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallInfo<'a> {
    /// Names the call in the decision log, spans and plugins' own log lines.
    pub request_id: &'a str,
    /// W3C trace context of the span that the call belongs to.
    pub trace_parent: Option<&'a str>,
    /// The tenant, `None` for the default one; also the plugin's key-value namespace, but for
    /// the hook `mask`, which has one of its own.
    pub tenant: Option<&'a str>,
    /// The agent's session, where there is one.
    pub session_id: Option<&'a str>,
    /// The flow, where there is one.
    pub flow_id: Option<&'a str>,
    /// Number of the policies and plugins in force; 0 where nobody counts them.
    pub generation: u64,
    /// What plugins attached to this session, flow or request before, for the hooks that are
    /// asked. Those that are told get it with their news.
    pub carry: Option<&'a Carry>,
    /// When the whole pipeline must have answered; each plugin's own wall limit applies too.
    pub deadline: Option<Instant>,
}

/// The remote end of the connection that is being decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct Peer {
    /// Textual address.
    pub ip: String,
    /// TCP port.
    pub port: u16,
    /// Such as `1.3`; `None` where TLS did not end at the hub.
    #[component(name = "tls-version")]
    pub tls_version: Option<String>,
    /// Server name that the peer asked for.
    pub sni: Option<String>,
    /// First subject alternative name of a verified client certificate.
    #[component(name = "client-san")]
    pub client_san: Option<String>,
}

/// An agent, as its verified token describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct Agent {
    /// Agent id within its tenant.
    pub id: String,
    /// What the agent says that it runs; not proven.
    pub version: String,
    /// Connectors that the token allows; empty where scopes are switched off.
    pub scopes: Vec<String>,
    /// Further facts, such as granted claims.
    pub attributes: Vec<Attribute>,
}

/// Who asks for a flow or a page; the default value is the anonymous viewer.
#[derive(Clone, Debug, Default, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct Viewer {
    /// `None` is the anonymous viewer, such as a plain TCP client.
    pub subject: Option<String>,
    /// Who vouches for the subject.
    pub issuer: Option<String>,
    /// Groups by verified claims.
    pub groups: Vec<String>,
    /// Further facts.
    pub attributes: Vec<Attribute>,
}

/// Question of the `hello` hook.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// Who joins.
    pub agent: &'a Agent,
    /// From where.
    pub peer: &'a Peer,
    /// Connectors that token and policies accepted; plugins only narrow this.
    pub announced: &'a [&'a str],
    /// `new`, `renew`, `resume` or `recheck`.
    pub why: &'a str,
}

/// News of the `bye` hook: a session ended.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub struct Bye<'a> {
    /// Whose session it was.
    #[component(name = "agent-id")]
    pub agent_id: &'a str,
    /// A code of the reset and close registry.
    pub reason: &'a str,
    /// Length of the session in milliseconds.
    #[component(name = "lasted-ms")]
    pub lasted_ms: u64,
    /// Flows that the session carried in its life.
    pub flows: u64,
}

/// The HTTP part of an enricher's question.
#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct HttpLine<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// Host and port as the client named them.
    pub authority: &'a str,
    /// Normalised path without the query.
    pub path: &'a str,
    /// Names only: values never reach an enricher.
    #[component(name = "header-names")]
    pub header_names: &'a [&'a str],
}

/// Question of the `enrich` hook, before the policies.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub struct Enrich<'a> {
    /// The connector asked for.
    pub connector: &'a str,
    /// Name of the public port where the client came in.
    pub listener: &'a str,
    /// The client's end.
    pub peer: &'a Peer,
    /// Who asks.
    pub viewer: &'a Viewer,
    /// `None` for a flow that is not HTTP.
    pub http: Option<&'a HttpLine<'a>>,
}

/// Question of the `open` hook, after the policies.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub struct Open<'a> {
    /// The connector asked for.
    pub connector: &'a str,
    /// Name of the public port where the client came in.
    pub listener: &'a str,
    /// The client's end.
    pub peer: &'a Peer,
    /// Who asks.
    pub viewer: &'a Viewer,
    /// The agent that would carry the flow.
    pub agent: &'a Agent,
    /// The agent is attached to another hub of the cluster.
    #[component(name = "via-mesh")]
    pub via_mesh: bool,
}

/// News of the `close` hook: a flow ended.
#[derive(Clone, Copy, Debug)]
pub struct Closed<'a> {
    /// The flow's connector.
    pub connector: &'a str,
    /// Name of the public port where the client came in.
    pub listener: &'a str,
    /// The client's end.
    pub peer: &'a Peer,
    /// Who asked for it.
    pub viewer: &'a Viewer,
    /// The agent that carried it.
    pub agent_id: &'a str,
    /// A code of the reset and close registry.
    pub cause: &'a str,
    /// Bytes from client to agent.
    pub bytes_c2a: u64,
    /// Bytes from agent to client.
    pub bytes_a2c: u64,
    /// Length of the flow in milliseconds.
    pub lasted_ms: u64,
}

/// Head of an HTTP request.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub struct Head<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port as the client named them.
    pub authority: &'a str,
    /// Path and query as they will be forwarded.
    #[component(name = "path-with-query")]
    pub path_with_query: &'a str,
    /// All fields, names in lower case.
    pub headers: &'a [Field],
}

/// Question of the `http-request` hook.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub struct HttpRequest<'a> {
    /// The request's head; bodies are not visible to plugins.
    pub head: Head<'a>,
    /// The client's end.
    pub peer: &'a Peer,
    /// Who asks.
    pub viewer: &'a Viewer,
    /// The agent that would carry the request.
    pub agent: &'a Agent,
    /// The published HTTP name.
    pub endpoint: &'a str,
    /// The connector behind it.
    pub connector: &'a str,
}

/// Question of the `http-response` hook.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub struct HttpResponse<'a> {
    /// Status code of the origin.
    pub status: u16,
    /// All fields, names in lower case.
    pub headers: &'a [Field],
}

/// Severity of a log record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum Level {
    /// Every step.
    #[component(name = "trace")]
    Trace,
    /// For whoever looks for a fault.
    #[component(name = "debug")]
    Debug,
    /// Normal life.
    #[component(name = "info")]
    Info,
    /// Something to look at.
    #[component(name = "warn")]
    Warn,
    /// Something failed.
    #[component(name = "error")]
    Error,
    /// Somebody must act.
    #[component(name = "critical")]
    Critical,
}

/// One log record on its way out, as mask plugins see and cover it.
#[derive(Clone, Debug, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct LogEntry {
    /// Severity.
    pub level: Level,
    /// Module or event name.
    pub target: String,
    /// Text.
    pub message: String,
    /// Names and values.
    pub fields: Vec<(String, String)>,
}
