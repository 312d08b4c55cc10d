//! The records of `wit/0.1` that only the host sees: what is not in [`crate::facts`] because
//! the host adds to it, and every answer as it comes out of a guest, not yet judged.

use wasmtime::component::{ComponentType, Lift, Lower};

use crate::facts::{
    Agent, Attribute, Bye, CallInfo, Closed, Enrich, Field, HttpRequest, HttpResponse, LogEntry,
    Open, Peer,
};

/// Package and version prefix of every interface.
pub(crate) const PACKAGE: &str = "nowconnect:plugin/";
/// Version under which the host links its interfaces.
pub(crate) const VERSION: &str = "0.1.0";

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Call<'a> {
    #[component(name = "request-id")]
    request_id: &'a str,
    #[component(name = "trace-parent")]
    trace_parent: Option<&'a str>,
    tenant: Option<&'a str>,
    #[component(name = "session-id")]
    session_id: Option<&'a str>,
    #[component(name = "flow-id")]
    flow_id: Option<&'a str>,
    #[component(name = "budget-ns")]
    budget_ns: u64,
    shadow: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(info: &CallInfo<'a>, budget_ns: u64, shadow: bool) -> Self {
        Self {
            request_id: info.request_id,
            trace_parent: info.trace_parent,
            tenant: info.tenant,
            session_id: info.session_id,
            flow_id: info.flow_id,
            budget_ns,
            shadow,
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Hello<'a> {
    pub(crate) agent: &'a Agent,
    pub(crate) peer: &'a Peer,
    pub(crate) announced: &'a [&'a str],
    pub(crate) why: &'a str,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum PluginError {
    #[component(name = "bad-config")]
    BadConfig(String),
    #[component(name = "unavailable")]
    Unavailable(String),
    #[component(name = "internal")]
    Internal(String),
}

impl std::fmt::Display for PluginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadConfig(text) => write!(f, "bad config: {text}"),
            Self::Unavailable(text) => write!(f, "unavailable: {text}"),
            Self::Internal(text) => write!(f, "internal: {text}"),
        }
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) summary: String,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Denial {
    pub(crate) code: String,
    pub(crate) public: String,
    pub(crate) private: String,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Welcome {
    pub(crate) accept: Vec<String>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) carry: Vec<Attribute>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum HelloVerdict {
    #[component(name = "accept")]
    Accept(Welcome),
    #[component(name = "deny")]
    Deny(Denial),
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Grant {
    #[component(name = "max-bytes")]
    pub(crate) max_bytes: Option<u64>,
    #[component(name = "max-seconds")]
    pub(crate) max_seconds: Option<u32>,
    #[component(name = "idle-seconds")]
    pub(crate) idle_seconds: Option<u32>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) carry: Vec<Attribute>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum OpenVerdict {
    #[component(name = "allow")]
    Allow(Grant),
    #[component(name = "deny")]
    Deny(Denial),
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum Edit {
    #[component(name = "set")]
    Set(Field),
    #[component(name = "append")]
    Append(Field),
    #[component(name = "remove")]
    Remove(String),
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Next {
    pub(crate) edits: Vec<Edit>,
    pub(crate) carry: Vec<Attribute>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<Field>,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum RequestVerdict {
    #[component(name = "next")]
    Next(Next),
    #[component(name = "reply")]
    Reply(Reply),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum Cover {
    #[component(name = "erase")]
    Erase,
    #[component(name = "hash")]
    Hash,
    #[component(name = "keep-last")]
    KeepLast(u8),
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Mask {
    pub(crate) entry: u32,
    pub(crate) field: Option<String>,
    pub(crate) cover: Cover,
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(variant)]
pub(crate) enum KvError {
    #[component(name = "no-quota")]
    NoQuota,
    #[component(name = "too-large")]
    TooLarge,
    #[component(name = "unavailable")]
    Unavailable,
}

pub(crate) type DescribeResult = (About,);
pub(crate) type CheckConfigParams<'a> = (&'a str,);
pub(crate) type CheckConfigResult = (Result<(), PluginError>,);
pub(crate) type HelloParams<'a> = (Call<'a>, &'a Hello<'a>);
pub(crate) type HelloResult = (Result<HelloVerdict, PluginError>,);
pub(crate) type ByeParams<'a> = (Call<'a>, &'a Bye<'a>, &'a [Attribute]);
pub(crate) type EnrichParams<'a> = (Call<'a>, &'a Enrich<'a>);
pub(crate) type EnrichResult = (Result<Vec<String>, PluginError>,);
pub(crate) type OpenParams<'a> = (Call<'a>, &'a Open<'a>);
pub(crate) type OpenResult = (Result<OpenVerdict, PluginError>,);
pub(crate) type CloseParams<'a> = (Call<'a>, &'a Closed<'a>, &'a [Attribute]);
pub(crate) type RequestParams<'a> = (Call<'a>, &'a HttpRequest<'a>);
pub(crate) type RequestResult = (Result<RequestVerdict, PluginError>,);
pub(crate) type ResponseParams<'a> = (Call<'a>, &'a HttpResponse<'a>, &'a [Attribute]);
pub(crate) type ResponseResult = (Result<Vec<Edit>, PluginError>,);
pub(crate) type MaskParams<'a> = (Call<'a>, &'a [LogEntry]);
pub(crate) type MaskResult = (Result<Vec<Mask>, PluginError>,);
