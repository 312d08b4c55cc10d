//! Questions as JSON. Everything has a default that looks like ordinary traffic, so that a case
//! says only what it is about; a key that is not known is refused, because it is a typo.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::facts::{Agent, Attribute, Field, Level, LogEntry, Peer, Viewer};
use crate::hook::Hook;

/// What a hook is asked, owned.
#[derive(Clone, Debug)]
pub enum Question {
    /// An agent joins.
    Hello(HelloInput),
    /// A session ended.
    Bye(ByeInput),
    /// Before the policies.
    Enrich(EnrichInput),
    /// A flow begins.
    Open(OpenInput),
    /// A flow ended.
    Close(CloseInput),
    /// A request came.
    HttpRequest(RequestInput),
    /// A response came.
    HttpResponse(ResponseInput),
    /// Log records leave.
    Mask(MaskInput),
}

impl Question {
    /// Reads the `input` of a case for that hook.
    ///
    /// # Errors
    /// A key is unknown or a value has another type.
    pub fn parse(hook: Hook, input: Value) -> Result<Self, serde_json::Error> {
        Ok(match hook {
            Hook::Hello => Self::Hello(serde_json::from_value(input)?),
            Hook::Bye => Self::Bye(serde_json::from_value(input)?),
            Hook::Enrich => Self::Enrich(serde_json::from_value(input)?),
            Hook::Open => Self::Open(serde_json::from_value(input)?),
            Hook::Close => Self::Close(serde_json::from_value(input)?),
            Hook::HttpRequest => Self::HttpRequest(serde_json::from_value(input)?),
            Hook::HttpResponse => Self::HttpResponse(serde_json::from_value(input)?),
            Hook::Mask => Self::Mask(serde_json::from_value(input)?),
        })
    }

    /// The question that a case without an `input` asks.
    pub fn ordinary(hook: Hook) -> Self {
        match hook {
            Hook::Hello => Self::Hello(HelloInput::default()),
            Hook::Bye => Self::Bye(ByeInput::default()),
            Hook::Enrich => Self::Enrich(EnrichInput::default()),
            Hook::Open => Self::Open(OpenInput::default()),
            Hook::Close => Self::Close(CloseInput::default()),
            Hook::HttpRequest => Self::HttpRequest(RequestInput::default()),
            Hook::HttpResponse => Self::HttpResponse(ResponseInput::default()),
            Hook::Mask => Self::Mask(MaskInput::default()),
        }
    }

    /// The hook that it is for.
    pub const fn hook(&self) -> Hook {
        match self {
            Self::Hello(_) => Hook::Hello,
            Self::Bye(_) => Hook::Bye,
            Self::Enrich(_) => Hook::Enrich,
            Self::Open(_) => Hook::Open,
            Self::Close(_) => Hook::Close,
            Self::HttpRequest(_) => Hook::HttpRequest,
            Self::HttpResponse(_) => Hook::HttpResponse,
            Self::Mask(_) => Hook::Mask,
        }
    }
}

/// Input of `hello`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HelloInput {
    #[serde(deserialize_with = "agent")]
    pub(super) agent: Agent,
    #[serde(deserialize_with = "peer")]
    pub(super) peer: Peer,
    pub(super) announced: Vec<String>,
    pub(super) why: String,
}

impl Default for HelloInput {
    fn default() -> Self {
        Self {
            agent: ordinary_agent(),
            peer: ordinary_peer(),
            announced: vec!["db".to_owned()],
            why: "new".to_owned(),
        }
    }
}

/// Input of `bye`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ByeInput {
    pub(super) agent_id: String,
    pub(super) reason: String,
    pub(super) lasted_ms: u64,
    pub(super) flows: u64,
}

impl Default for ByeInput {
    fn default() -> Self {
        Self {
            agent_id: ordinary_agent().id,
            reason: "goodbye".to_owned(),
            lasted_ms: 60_000,
            flows: 3,
        }
    }
}

/// Input of `enrich`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnrichInput {
    pub(super) connector: String,
    pub(super) listener: String,
    #[serde(deserialize_with = "peer")]
    pub(super) peer: Peer,
    #[serde(deserialize_with = "viewer")]
    pub(super) viewer: Viewer,
    pub(super) http: Option<HttpLineInput>,
}

impl Default for EnrichInput {
    fn default() -> Self {
        Self {
            connector: "db".to_owned(),
            listener: "public".to_owned(),
            peer: ordinary_peer(),
            viewer: Viewer::default(),
            http: None,
        }
    }
}

/// The HTTP part of `enrich`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HttpLineInput {
    pub(super) method: String,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) header_names: Vec<String>,
}

/// Input of `open`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenInput {
    pub(super) connector: String,
    pub(super) listener: String,
    #[serde(deserialize_with = "peer")]
    pub(super) peer: Peer,
    #[serde(deserialize_with = "viewer")]
    pub(super) viewer: Viewer,
    #[serde(deserialize_with = "agent")]
    pub(super) agent: Agent,
    pub(super) via_mesh: bool,
}

impl Default for OpenInput {
    fn default() -> Self {
        Self {
            connector: "db".to_owned(),
            listener: "public".to_owned(),
            peer: ordinary_peer(),
            viewer: Viewer::default(),
            agent: ordinary_agent(),
            via_mesh: false,
        }
    }
}

/// Input of `close`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CloseInput {
    pub(super) connector: String,
    pub(super) listener: String,
    #[serde(deserialize_with = "peer")]
    pub(super) peer: Peer,
    #[serde(deserialize_with = "viewer")]
    pub(super) viewer: Viewer,
    pub(super) agent_id: String,
    pub(super) cause: String,
    pub(super) bytes_c2a: u64,
    pub(super) bytes_a2c: u64,
    pub(super) lasted_ms: u64,
}

impl Default for CloseInput {
    fn default() -> Self {
        Self {
            connector: "db".to_owned(),
            listener: "public".to_owned(),
            peer: ordinary_peer(),
            viewer: Viewer::default(),
            agent_id: ordinary_agent().id,
            cause: "finished".to_owned(),
            bytes_c2a: 512,
            bytes_a2c: 4096,
            lasted_ms: 1500,
        }
    }
}

/// Input of `http_request`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestInput {
    pub(super) method: String,
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) path_with_query: String,
    #[serde(deserialize_with = "fields")]
    pub(super) headers: Vec<Field>,
    #[serde(deserialize_with = "peer")]
    pub(super) peer: Peer,
    #[serde(deserialize_with = "viewer")]
    pub(super) viewer: Viewer,
    #[serde(deserialize_with = "agent")]
    pub(super) agent: Agent,
    pub(super) endpoint: String,
    pub(super) connector: String,
}

impl Default for RequestInput {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            scheme: "https".to_owned(),
            authority: "app.example".to_owned(),
            path_with_query: "/".to_owned(),
            headers: vec![("accept".to_owned(), b"*/*".to_vec())],
            peer: ordinary_peer(),
            viewer: Viewer::default(),
            agent: ordinary_agent(),
            endpoint: "app".to_owned(),
            connector: "web".to_owned(),
        }
    }
}

/// Input of `http_response`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseInput {
    pub(super) status: u16,
    #[serde(deserialize_with = "fields")]
    pub(super) headers: Vec<Field>,
}

impl Default for ResponseInput {
    fn default() -> Self {
        Self {
            status: 200,
            headers: vec![("content-type".to_owned(), b"text/plain".to_vec())],
        }
    }
}

/// Input of `mask`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskInput {
    #[serde(deserialize_with = "entries")]
    pub(super) entries: Vec<LogEntry>,
}

impl Default for MaskInput {
    fn default() -> Self {
        Self {
            entries: vec![LogEntry {
                level: Level::Info,
                target: "hub".to_owned(),
                message: "flow opened".to_owned(),
                fields: vec![("connector".to_owned(), "db".to_owned())],
            }],
        }
    }
}

fn ordinary_peer() -> Peer {
    Peer {
        ip: "192.0.2.1".to_owned(),
        port: 50_000,
        ..Peer::default()
    }
}

fn ordinary_agent() -> Agent {
    Agent {
        id: "site-1".to_owned(),
        version: "1.0.0".to_owned(),
        ..Agent::default()
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PeerInput {
    ip: String,
    port: u16,
    tls_version: Option<String>,
    sni: Option<String>,
    client_san: Option<String>,
}

impl Default for PeerInput {
    fn default() -> Self {
        let Peer {
            ip,
            port,
            tls_version,
            sni,
            client_san,
        } = ordinary_peer();
        Self {
            ip,
            port,
            tls_version,
            sni,
            client_san,
        }
    }
}

fn peer<'de, D: Deserializer<'de>>(from: D) -> Result<Peer, D::Error> {
    let input = PeerInput::deserialize(from)?;
    Ok(Peer {
        ip: input.ip,
        port: input.port,
        tls_version: input.tls_version,
        sni: input.sni,
        client_san: input.client_san,
    })
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AgentInput {
    id: String,
    version: String,
    scopes: Vec<String>,
    attributes: Pairs<String>,
}

impl Default for AgentInput {
    fn default() -> Self {
        let ordinary = ordinary_agent();
        Self {
            id: ordinary.id,
            version: ordinary.version,
            scopes: Vec::new(),
            attributes: Pairs::default(),
        }
    }
}

fn agent<'de, D: Deserializer<'de>>(from: D) -> Result<Agent, D::Error> {
    let input = AgentInput::deserialize(from)?;
    Ok(Agent {
        id: input.id,
        version: input.version,
        scopes: input.scopes,
        attributes: input.attributes.into_list(),
    })
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ViewerInput {
    subject: Option<String>,
    issuer: Option<String>,
    groups: Vec<String>,
    attributes: Pairs<String>,
}

fn viewer<'de, D: Deserializer<'de>>(from: D) -> Result<Viewer, D::Error> {
    let input = ViewerInput::deserialize(from)?;
    Ok(Viewer {
        subject: input.subject,
        issuer: input.issuer,
        groups: input.groups,
        attributes: input.attributes.into_list(),
    })
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EntryInput {
    level: LevelInput,
    target: String,
    message: String,
    fields: Pairs<String>,
}

impl Default for EntryInput {
    fn default() -> Self {
        Self {
            level: LevelInput::Info,
            target: "hub".to_owned(),
            message: String::new(),
            fields: Pairs::default(),
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LevelInput {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

fn entries<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<LogEntry>, D::Error> {
    let inputs = Vec::<EntryInput>::deserialize(from)?;
    let entry = |input: EntryInput| LogEntry {
        level: match input.level {
            LevelInput::Trace => Level::Trace,
            LevelInput::Debug => Level::Debug,
            LevelInput::Info => Level::Info,
            LevelInput::Warn => Level::Warn,
            LevelInput::Error => Level::Error,
            LevelInput::Critical => Level::Critical,
        },
        target: input.target,
        message: input.message,
        fields: input.fields.into_list(),
    };
    Ok(inputs.into_iter().map(entry).collect())
}

/// Names and values, as an object or, where a name comes twice, as a list of pairs.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Pairs<T> {
    Object(BTreeMap<String, T>),
    List(Vec<(String, T)>),
}

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl<T> Pairs<T> {
    pub(super) fn into_list(self) -> Vec<(String, T)> {
        match self {
            Self::Object(object) => object.into_iter().collect(),
            Self::List(list) => list,
        }
    }
}

pub(super) fn attributes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Attribute>, D::Error> {
    Pairs::deserialize(from).map(Pairs::into_list)
}

/// Text, or what no text can say.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Base64 { base64: String },
}

fn fields<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Field>, D::Error> {
    let pairs: Pairs<Bytes> = Pairs::deserialize(from)?;
    let field = |(name, bytes)| match bytes {
        Bytes::Text(text) => Ok((name, text.into_bytes())),
        Bytes::Base64 { base64 } => STANDARD
            .decode(&base64)
            .map(|bytes| (name, bytes))
            .map_err(|error| serde::de::Error::custom(format!("`{base64}`: {error}"))),
    };
    pairs.into_list().into_iter().map(field).collect()
}
